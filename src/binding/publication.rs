//! Messages that Python publishes, or sends together.

use pyo3::{
    exceptions::PyTypeError,
    prelude::*,
    types::{PyBytes, PyString},
};

use crate::{
    engine::groups::{MemberId, Message},
    protocol::message::Kind,
};

/// A larger message is copied without the GIL.
const LARGE_BYTES: usize = 64 * 1024;

/// The kind and the payload of a message: `str` is text, `bytes` are binary.
pub(super) fn content<'a>(message: &'a Bound<'_, PyAny>) -> PyResult<(Kind, &'a [u8])> {
    if let Ok(text) = message.cast::<PyString>() {
        return Ok((Kind::Text, text.to_str()?.as_bytes()));
    }
    match message.cast::<PyBytes>() {
        Ok(bytes) => Ok((Kind::Binary, bytes.as_bytes())),
        Err(_) => Err(PyTypeError::new_err(format!(
            "a message must be str or bytes, not {}",
            message.get_type().name()?
        ))),
    }
}

/// The message to publish, its bytes copied.
pub(super) fn to_message(message: &Bound<'_, PyAny>, exclude: &[MemberId]) -> PyResult<Message> {
    let (kind, payload) = content(message)?;
    let encode = || Message::new(kind, payload, exclude);
    if payload.len() > LARGE_BYTES {
        Ok(message.py().detach(encode))
    } else {
        Ok(encode())
    }
}
