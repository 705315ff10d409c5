//! Messages that clients post, for Python.

use pyo3::{
    exceptions::PyTypeError,
    prelude::*,
    types::{PyBytes, PyString},
};

use crate::{
    engine::{Key, Part, Posted, runtime},
    protocol::message::Kind,
};

/// One part of a post, which keeps Python's object alive.
enum Held<'py> {
    Text(Bound<'py, PyString>),
    Binary(Bound<'py, PyBytes>),
    Close(Option<u16>, String),
}

impl<'py> Held<'py> {
    fn of(part: Bound<'py, PyAny>) -> PyResult<Self> {
        let part = match part.cast_into::<PyString>() {
            Ok(text) => return Ok(Self::Text(text)),
            Err(error) => error.into_inner(),
        };
        let part = match part.cast_into::<PyBytes>() {
            Ok(bytes) => return Ok(Self::Binary(bytes)),
            Err(error) => error.into_inner(),
        };
        match part.extract() {
            Ok((code, reason)) => Ok(Self::Close(code, reason)),
            Err(_) => Err(PyTypeError::new_err(
                "a post has str, bytes, or the code and reason of a close",
            )),
        }
    }

    fn part(&self) -> PyResult<Part<'_>> {
        Ok(match self {
            Self::Text(text) => Part::Message(Kind::Text, text.to_str()?.as_bytes()),
            Self::Binary(bytes) => Part::Message(Kind::Binary, bytes.as_bytes()),
            Self::Close(code, reason) => Part::Close(*code, reason),
        })
    }
}

/// Hands the messages of a post to the connection of `key`. See `_core.pyi`.
#[pyfunction]
#[pyo3(signature = (key, number, parts, /))]
pub(crate) fn post(
    py: Python<'_>,
    key: Key,
    number: u64,
    parts: Vec<Bound<'_, PyAny>>,
) -> PyResult<&'static str> {
    let held: Vec<_> = parts.into_iter().map(Held::of).collect::<PyResult<_>>()?;
    let parts: Vec<_> = held.iter().map(Held::part).collect::<PyResult<_>>()?;
    let posted = py.detach(|| match runtime::find(&key) {
        Some(connection) => connection.post(number, &parts),
        None => Posted::Over,
    });
    Ok(match posted {
        Posted::Taken => "taken",
        Posted::Busy => "busy",
        Posted::TooLarge => "too large",
        Posted::Over => "over",
        Posted::Gap => "gap",
    })
}
