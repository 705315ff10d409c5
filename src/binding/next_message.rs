//! `_core.NextMessage`: the awaitable for the next message of a task's connection.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use pyo3::{
    PyTraverseError, PyVisit,
    exceptions::{PyStopAsyncIteration, PyStopIteration},
    prelude::*,
    sync::PyOnceLock,
};

use super::{
    convert,
    copy::{self, Copy},
    hub::Hub,
    message_future::MessageFuture,
};
use crate::engine::{Connection, Front, Received};

/// The next message of a connection, as often as it is awaited. See `_core.pyi`.
///
/// It is its own iterator and holds no state of the task that awaits it, so one is enough for a
/// view's whole loop.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct NextMessage {
    connection: Arc<Connection>,
    /// Returns the hub of the running loop. With `None` no call waits for a message.
    find_hub: Option<Py<PyAny>>,
    /// The future of the last sleep, to be used again.
    future: Mutex<Option<Py<MessageFuture>>>,
    /// The large message at the front, as far as it is copied.
    copy: Mutex<Option<Copy>>,
}

impl NextMessage {
    pub(super) fn new(connection: Arc<Connection>, find_hub: Option<Py<PyAny>>) -> Self {
        Self {
            connection,
            find_hub,
            future: Mutex::default(),
            copy: Mutex::default(),
        }
    }

    /// Copies the next piece of `payload`. Returns the whole copy with the last one.
    fn copy_piece(&self, py: Python<'_>, payload: Bytes) -> PyResult<Option<Copy>> {
        let begun = self.copy.lock().take();
        let mut copy = match begun.filter(|copy| copy.is_of(&payload)) {
            Some(copy) => copy,
            None => Copy::begin(py, payload)?,
        };
        if copy.copy_piece(py) {
            return Ok(Some(copy));
        }
        let former = self.copy.lock().replace(copy);
        drop(former);
        Ok(None)
    }

    /// A [`MessageFuture`] that `connection` signals as soon as there is something to take.
    fn expect<'py>(
        &self,
        py: Python<'py>,
        find_hub: &Py<PyAny>,
    ) -> PyResult<Bound<'py, MessageFuture>> {
        let future = self
            .future
            .lock()
            .as_ref()
            .map(|future| future.clone_ref(py));
        let future = future.map(|future| future.into_bound(py));
        let event_loop = running_loop(py)?;
        if let Some(future) = future.filter(|future| MessageFuture::expect(future, &event_loop)) {
            return Ok(future);
        }
        let hub: Bound<'py, Hub> = find_hub.bind(py).call0()?.extract()?;
        let future = MessageFuture::new(Arc::clone(&self.connection), &hub.get().0, &event_loop);
        let future = Bound::new(py, future)?;
        MessageFuture::expect(&future, &event_loop);
        let former = self.future.lock().replace(future.clone().unbind());
        drop(former);
        Ok(future)
    }
}

fn running_loop(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static ONCE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    ONCE.import(py, "asyncio", "get_running_loop")?.call0()
}

/// A yielded `None` makes asyncio run its other tasks first.
fn pause(py: Python<'_>) -> Bound<'_, PyAny> {
    py.None().into_bound(py)
}

#[pymethods]
impl NextMessage {
    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// For `yield from`, which asyncio wraps awaitables in.
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let front = self.connection.front(copy::LARGE_BYTES);
        if !matches!(front, Front::Nothing) && self.connection.has_run_long() {
            return Ok(pause(py));
        }
        let mut copy = None;
        if let Front::Large(payload) = front {
            copy = self.copy_piece(py, payload)?;
            if copy.is_none() {
                return Ok(pause(py));
            }
        }
        match (self.connection.take_now(), &self.find_hub) {
            (Received::Message(message), _) => {
                // Another task may have taken the large one meanwhile.
                let copied = copy.filter(|copy| copy.is_of(&message.payload));
                let message = match copied.and_then(Copy::finish) {
                    Some(message) => message,
                    None => convert::to_python(py, &message, false)?,
                };
                Err(PyStopIteration::new_err(message))
            }
            (_, None) => Err(PyStopIteration::new_err(py.None())),
            (Received::End, _) => Err(PyStopAsyncIteration::new_err(())),
            (Received::Nothing, Some(find_hub)) => {
                make_way(py, &self.connection);
                self.expect(py, find_hub).map(Bound::into_any)
            }
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(find_hub) = &self.find_hub {
            visit.call(find_hub)?;
        }
        // A locked `future` is in use, so this is no garbage.
        match self.future.try_lock().as_deref() {
            Some(Some(future)) => visit.call(future),
            _ => Ok(()),
        }
    }

    fn __clear__(&self) {
        let future = self.future.lock().take();
        drop(future);
    }
}

/// To be called before a task yields to its event loop: what its view has sent must not wait until
/// the loop resumes it.
pub(super) fn make_way(py: Python<'_>, connection: &Arc<Connection>) {
    if !connection.begin_to_sleep() && connection.has_corked() {
        py.detach(|| connection.uncork_all());
    }
}
