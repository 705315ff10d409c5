//! `_core.MessageFuture`: the future that a task awaits until its connection has something to take.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use pyo3::{
    PyTraverseError, PyVisit, exceptions::asyncio::CancelledError, intern, prelude::*,
    types::PyDict,
};

use super::loop_hub::LoopHub;
use crate::engine::{Connection, Watch};

/// A future of asyncio's protocol, without the cost of a future for each message: the [`LoopHub`]
/// of its loop resumes the task directly, where a future would put it in the queue after all
/// others, and the next sleep uses the same object again. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct MessageFuture {
    connection: Arc<Connection>,
    /// Weak, because the [`LoopHub`] holds all futures that are awaited.
    loop_hub: Weak<LoopHub<Self>>,
    token: u64,
    state: Mutex<State>,
}

struct State {
    stage: Stage,
    /// Asyncio's sign that this was awaited, not yielded by mistake.
    is_blocking: bool,
    event_loop: Option<Py<PyAny>>,
    /// The task's call-back, and the context to call it in.
    wakeup: Option<(Py<PyAny>, Option<Py<PyAny>>)>,
    /// The text of the call that cancelled it. anyio knows its own cancellations by that.
    reason: Option<Py<PyAny>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No task sleeps on it: not yet, or no longer.
    Idle,
    Awaited,
    Cancelled,
}

impl MessageFuture {
    pub(super) fn new(
        connection: Arc<Connection>,
        loop_hub: &Arc<LoopHub<Self>>,
        event_loop: &Bound<'_, PyAny>,
    ) -> Self {
        Self {
            connection,
            token: loop_hub.new_token(),
            loop_hub: Arc::downgrade(loop_hub),
            state: Mutex::new(State {
                stage: Stage::Idle,
                is_blocking: false,
                event_loop: Some(event_loop.clone().unbind()),
                wakeup: None,
                reason: None,
            }),
        }
    }

    /// Watches the connection for the task of `event_loop` that `this` is given to next. False when
    /// another task sleeps on it, one was cancelled there, or it is of another loop, whose tasks
    /// alone may await it.
    pub(super) fn expect(this: &Bound<'_, Self>, event_loop: &Bound<'_, PyAny>) -> bool {
        let future = this.get();
        let Some(loop_hub) = future.loop_hub.upgrade() else {
            return false;
        };
        {
            let mut state = future.state.lock();
            let is_its_own = state
                .event_loop
                .as_ref()
                .is_some_and(|it| it.is(event_loop));
            if state.stage != Stage::Idle || !is_its_own {
                return false;
            }
            state.stage = Stage::Awaited;
            state.is_blocking = true;
        }
        loop_hub.expect(future.token, this.clone().unbind());
        // The watch also reports what came before it was set.
        let watch = Watch::new(Arc::clone(&loop_hub.hub), future.token);
        future.connection.watch_inbox(watch);
        true
    }

    /// Resumes the task, in its context.
    pub(super) fn arrive(this: &Bound<'_, Self>) -> PyResult<()> {
        if let Some((wakeup, context)) = this.get().settle(Stage::Idle) {
            let py = this.py();
            match context {
                Some(context) => context.call_method1(py, intern!(py, "run"), (wakeup, this))?,
                None => wakeup.call1(py, (this,))?,
            };
        }
        Ok(())
    }

    /// As [`MessageFuture::arrive`], but after all that is queued in the loop.
    pub(super) fn arrive_later(this: &Bound<'_, Self>) -> PyResult<()> {
        Self::call_soon(this, Stage::Idle)
    }

    fn call_soon(this: &Bound<'_, Self>, stage: Stage) -> PyResult<()> {
        let py = this.py();
        let Some((wakeup, context)) = this.get().settle(stage) else {
            return Ok(());
        };
        let event_loop = this.get().event_loop(py);
        let kwargs = PyDict::new(py);
        kwargs.set_item("context", context)?;
        event_loop
            .bind(py)
            .call_method("call_soon", (wakeup, this), Some(&kwargs))?;
        Ok(())
    }

    fn settle(&self, stage: Stage) -> Option<(Py<PyAny>, Option<Py<PyAny>>)> {
        let mut state = self.state.lock();
        if state.stage != Stage::Awaited {
            return None;
        }
        state.stage = stage;
        state.wakeup.take()
    }

    fn event_loop(&self, py: Python<'_>) -> Py<PyAny> {
        let state = self.state.lock();
        match &state.event_loop {
            Some(event_loop) => event_loop.clone_ref(py),
            None => py.None(),
        }
    }

    /// Removes the entry in the hub and the watch that [`MessageFuture::expect`] has made.
    fn forget(&self) {
        if let Some(loop_hub) = self.loop_hub.upgrade() {
            drop(loop_hub.forget(self.token));
            self.connection.unwatch(&loop_hub.hub, self.token);
        }
    }
}

#[pymethods]
impl MessageFuture {
    #[getter(_asyncio_future_blocking)]
    fn is_blocking(&self) -> bool {
        self.state.lock().is_blocking
    }

    #[setter(_asyncio_future_blocking)]
    fn set_blocking(&self, is_blocking: bool) {
        self.state.lock().is_blocking = is_blocking;
    }

    fn get_loop(&self, py: Python<'_>) -> Py<PyAny> {
        self.event_loop(py)
    }

    #[pyo3(signature = (callback, *, context=None))]
    fn add_done_callback(&self, callback: Py<PyAny>, context: Option<Py<PyAny>>) {
        let former = self.state.lock().wakeup.replace((callback, context));
        // Without the lock: dropping the objects may run any Python code, this object's methods
        // too.
        drop(former);
    }

    fn result(&self, py: Python<'_>) -> PyResult<()> {
        let state = self.state.lock();
        if state.stage != Stage::Cancelled {
            return Ok(());
        }
        let reason = state.reason.as_ref().map(|reason| reason.clone_ref(py));
        drop(state);
        Err(match reason {
            Some(reason) => CancelledError::new_err((reason,)),
            None => CancelledError::new_err(()),
        })
    }

    #[pyo3(signature = (msg=None))]
    fn cancel(slf: &Bound<'_, Self>, msg: Option<Bound<'_, PyAny>>) -> PyResult<bool> {
        {
            let mut state = slf.get().state.lock();
            if state.stage != Stage::Awaited {
                return Ok(false);
            }
            // It is cancelled once: there was none.
            state.reason = msg.map(Bound::unbind);
        }
        slf.get().forget();
        Self::call_soon(slf, Stage::Cancelled)?;
        Ok(true)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // A locked state is in use, so this is no garbage.
        if let Some(state) = self.state.try_lock() {
            visit.call(&state.event_loop)?;
            visit.call(&state.reason)?;
            if let Some((wakeup, context)) = &state.wakeup {
                visit.call(wakeup)?;
                visit.call(context)?;
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        let mut state = self.state.lock();
        let held = (
            state.event_loop.take(),
            state.wakeup.take(),
            state.reason.take(),
        );
        drop(state);
        drop(held);
    }
}
