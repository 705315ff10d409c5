//! `_core.Next`: what a task awaits to have its connection's next message.

use std::sync::Arc;

use parking_lot::Mutex;
use pyo3::{
    PyTraverseError, PyVisit,
    exceptions::{PyStopAsyncIteration, PyStopIteration},
    prelude::*,
};

use super::{connection::make_way, convert, news::News, waiter::Hub};
use crate::engine::{Connection, Taken};

/// The next message of a connection, as often as it is awaited. See `_core.pyi`.
///
/// It is its own iterator and knows nothing of who awaits it, so a view's whole loop needs one.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct Next {
    connection: Arc<Connection>,
    /// Gives the hub of the loop that runs, and that loop.
    find_ear: Py<PyAny>,
    /// What was slept on before.
    news: Mutex<Option<Py<News>>>,
}

impl Next {
    pub(super) fn new(connection: Arc<Connection>, find_ear: Py<PyAny>) -> Self {
        Self {
            connection,
            find_ear,
            news: Mutex::default(),
        }
    }

    /// News that `connection` rings for as soon as there is something to take.
    fn expect<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, News>> {
        let news = self.news.lock().as_ref().map(|news| news.clone_ref(py));
        let news = news.map(|news| news.into_bound(py));
        if let Some(news) = news.filter(News::expect) {
            return Ok(news);
        }
        let (hub, event_loop): (Bound<'py, Hub>, Bound<'py, PyAny>) =
            self.find_ear.bind(py).call0()?.extract()?;
        let news = News::new(Arc::clone(&self.connection), &hub.get().0, event_loop);
        let news = Bound::new(py, news)?;
        News::expect(&news);
        let former = self.news.lock().replace(news.clone().unbind());
        drop(former);
        Ok(news)
    }
}

#[pymethods]
impl Next {
    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// For `yield from`, which asyncio wraps awaitables in.
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if self.connection.owes_a_pause() {
            // To asyncio, nothing means that its other tasks are to have their turn.
            return Ok(py.None().into_bound(py));
        }
        match self.connection.take_now() {
            Taken::Message(message) => {
                let message = convert::to_python(py, &message, false)?;
                Err(PyStopIteration::new_err(message))
            }
            Taken::End => Err(PyStopAsyncIteration::new_err(())),
            Taken::Nothing => {
                make_way(py, &self.connection);
                self.expect(py).map(Bound::into_any)
            }
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.find_ear)?;
        // Whoever holds the lock is at work with it, so this is no garbage.
        match self.news.try_lock().as_deref() {
            Some(Some(news)) => visit.call(news),
            _ => Ok(()),
        }
    }

    fn __clear__(&self) {
        let news = self.news.lock().take();
        drop(news);
    }
}
