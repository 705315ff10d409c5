//! Messages that clients post, for Python.

use parking_lot::Mutex;
use pyo3::{exceptions::PyRuntimeError, prelude::*, types::PyBytes};

use super::copy;
use crate::{
    engine::{Key, NotTaken, PostBody, PostRead, Posted, runtime},
    protocol::post::{Refusal, max_bytes},
};

/// A post, while its body comes and then. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct Post(Mutex<Stage>);

enum Stage {
    Body(PostBody),
    Read(PostRead),
    /// Its body was not taken.
    Nothing,
}

/// A mistake: a word, and a sentence.
type Wrong = (&'static str, &'static str);

fn wrong(error: NotTaken) -> Wrong {
    match error {
        NotTaken::Refused(Refusal::Malformed(text)) => ("malformed", text),
        NotTaken::Refused(Refusal::TooMuch(text)) => ("too much", text),
        NotTaken::NoRoom => ("no room", "the process buffers too much"),
    }
}

fn no_post() -> PyErr {
    PyRuntimeError::new_err("the body of this post was not taken")
}

impl Post {
    fn with<T>(&self, act: impl FnOnce(&PostRead) -> T) -> PyResult<T> {
        match &*self.0.lock() {
            Stage::Read(read) => Ok(act(read)),
            Stage::Body(_) | Stage::Nothing => Err(no_post()),
        }
    }
}

#[pymethods]
impl Post {
    #[new]
    #[pyo3(signature = (max_message_size, /))]
    fn new(max_message_size: usize) -> Self {
        Self(Mutex::new(Stage::Body(PostBody::new(max_message_size))))
    }

    #[staticmethod]
    #[pyo3(signature = (max_message_size, /))]
    fn max_size(max_message_size: usize) -> usize {
        max_bytes(max_message_size)
    }

    #[pyo3(signature = (chunk, /))]
    fn take_in(&self, py: Python<'_>, chunk: &[u8]) -> PyResult<Option<Wrong>> {
        py.detach(|| match &mut *self.0.lock() {
            Stage::Body(body) => Ok(body.take_in(chunk).err().map(wrong)),
            Stage::Read(_) | Stage::Nothing => Err(no_post()),
        })
    }

    fn read(&self, py: Python<'_>) -> PyResult<Option<Wrong>> {
        py.detach(|| {
            let mut stage = self.0.lock();
            let Stage::Body(body) = std::mem::replace(&mut *stage, Stage::Nothing) else {
                return Err(no_post());
            };
            match body.read() {
                Ok(read) => {
                    *stage = Stage::Read(read);
                    Ok(None)
                }
                Err(error) => Ok(Some(wrong(error))),
            }
        })
    }

    #[getter]
    fn number(&self, py: Python<'_>) -> PyResult<u64> {
        py.detach(|| self.with(|read| read.post.number))
    }

    #[getter]
    fn is_too_large(&self, py: Python<'_>) -> PyResult<bool> {
        py.detach(|| self.with(|read| read.post.is_too_large))
    }

    #[getter]
    fn frames<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let frames = py.detach(|| self.with(|read| read.post.frames.clone()))?;
        copy::bytes(py, &frames)
    }

    #[pyo3(signature = (key, /))]
    fn put(&self, py: Python<'_>, key: Key) -> PyResult<&'static str> {
        py.detach(|| self.with(|read| put(&key, read.post.number, &read.post.frames)))
    }
}

/// Hands the messages of a post to the connection of `key`. See `_core.pyi`.
#[pyfunction]
#[pyo3(signature = (key, number, frames, /))]
pub(crate) fn post(py: Python<'_>, key: Key, number: u64, frames: &[u8]) -> &'static str {
    py.detach(|| put(&key, number, frames))
}

fn put(key: &Key, number: u64, frames: &[u8]) -> &'static str {
    let posted = match runtime::find(key) {
        Some(connection) => connection.post(number, frames),
        None => Posted::Over,
    };
    match posted {
        Posted::Taken => "taken",
        Posted::Busy => "busy",
        Posted::Over => "over",
        Posted::Gap => "gap",
    }
}
