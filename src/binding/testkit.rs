//! For the test kit: a client's frames, and steps of the engine's clock.

use bytes::Bytes;
use parking_lot::Mutex;
use pyo3::{exceptions::PyValueError, prelude::*, types::PyBytes};

use super::convert::duration;
use crate::{
    engine::{Engine, clock, runtime},
    protocol::client::{self, Frame, Reader},
};

type Parts<'py> = (u8, Bound<'py, PyBytes>, bool, bool);

/// The frames that a server sends. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct FrameReader(Mutex<Reader>);

#[pymethods]
impl FrameReader {
    #[new]
    fn new() -> Self {
        Self(Mutex::default())
    }

    fn feed(&self, data: &[u8]) {
        self.0.lock().feed(data);
    }

    fn next_frame<'py>(&self, py: Python<'py>) -> PyResult<Option<Parts<'py>>> {
        let frame = self.0.lock().next_frame();
        let frame = frame.map_err(|error| PyValueError::new_err(error.reason))?;
        Ok(frame.map(|frame| {
            let payload = PyBytes::new(py, &frame.payload);
            (frame.opcode, payload, frame.is_final, frame.rsv1)
        }))
    }
}

/// A frame as a client sends it. See `_core.pyi`.
#[pyfunction]
#[pyo3(signature = (opcode, payload, key, *, is_final=true, rsv1=false))]
pub(crate) fn client_frame<'py>(
    py: Python<'py>,
    opcode: u8,
    payload: &[u8],
    key: [u8; 4],
    is_final: bool,
    rsv1: bool,
) -> Bound<'py, PyBytes> {
    let frame = Frame {
        opcode,
        payload: Bytes::copy_from_slice(payload),
        is_final,
        rsv1,
    };
    PyBytes::new(py, &client::encode(&frame, key))
}

/// Steps the engine's clock ahead. See `_core.pyi`.
#[pyfunction]
pub(crate) fn step_clock(py: Python<'_>, seconds: f64) -> PyResult<()> {
    let Some(time) = duration(Some(seconds))? else {
        return Err(PyValueError::new_err("a step of the clock has an end"));
    };
    match Engine::running() {
        Some(engine) => py.detach(|| engine.step(time)),
        None => clock::step(time),
    }
    Ok(())
}

/// How far the engine's clock is ahead of the real one.
#[pyfunction]
pub(crate) fn clock_ahead() -> f64 {
    clock::ahead().as_secs_f64()
}

/// Takes new connections again after `drain` or `close_all`. See `_core.pyi`.
#[pyfunction]
pub(crate) fn reopen() {
    runtime::reopen();
}
