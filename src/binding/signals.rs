//! Signals, the exit of the process, and forks.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;

use super::process::bounded;
use crate::{
    engine::{self, Engine, exit, signal},
    protocol::close::CloseFrame,
};

/// Calls `start()` when SIGTERM comes. See `_core.pyi`.
#[pyfunction]
pub(crate) fn on_terminate(py: Python<'_>, start: Py<PyAny>) -> PyResult<()> {
    py.detach(|| {
        let engine = Engine::current()?;
        let has_failed = AtomicBool::new(false);
        signal::on_terminate(&engine, move || {
            let started = Python::try_attach(|py| match start.call0(py) {
                Ok(_) => true,
                Err(error) => {
                    // Once: the next attempt comes soon.
                    if !has_failed.swap(true, Ordering::Relaxed) {
                        error.write_unraisable(py, None);
                    }
                    false
                }
            });
            // The interpreter may be gone already; then there is nothing left to call.
            started.unwrap_or(true)
        })
    })?;
    Ok(())
}

/// Whether a signal has its default action. See `_core.pyi`.
#[pyfunction]
#[pyo3(signature = (signal, /))]
pub(crate) fn is_default(signal: i32) -> PyResult<bool> {
    Ok(signal::is_default(signal)?)
}

/// Ends the process as SIGTERM does by default.
#[pyfunction]
pub(crate) fn die_of_sigterm(py: Python<'_>) {
    py.detach(signal::die);
}

/// Closes all connections when the process exits without Python. See `_core.pyi`.
#[pyfunction]
pub(crate) fn on_exit(
    py: Python<'_>,
    plans: Vec<(i32, bool, u16, String, f64, bool)>,
    grace: f64,
) -> PyResult<()> {
    let grace = bounded(grace)?;
    let plans: PyResult<Vec<_>> = plans
        .into_iter()
        .map(
            |(signal, handler_calls_exit, code, reason, window, closed_later)| {
                Ok(exit::ExitPlan {
                    signal,
                    handler_calls_exit,
                    frame: CloseFrame::new(Some(code), &reason)?,
                    window: bounded(window)?,
                    closed_later,
                })
            },
        )
        .collect();
    let plans = plans?;
    py.detach(|| exit::on_exit(&Engine::current()?, &plans, grace))?;
    Ok(())
}

/// Of the signals of `on_exit`, the last one to arrive, or 0.
#[pyfunction]
pub(crate) fn signal_seen() -> i32 {
    exit::signal_seen()
}

/// Whether SIGTERM has come since `on_terminate`.
#[pyfunction]
pub(crate) fn is_terminated() -> bool {
    signal::is_terminated()
}

/// Leaves the parent's engine alone; to be called first thing in a forked child.
#[pyfunction]
pub(crate) fn after_fork_in_child() {
    engine::after_fork_in_child();
}
