//! Conversion of values between Python and Rust.

use std::time::{Duration, Instant};

use pyo3::{
    exceptions::{PyTypeError, PyValueError},
    prelude::*,
    types::{PyBytes, PyString},
};
use simdutf8::compat::Utf8Error;

use super::copy;
use crate::{
    engine::{
        Traffic, clock,
        groups::{self, MemberId},
        history::{Page, Position},
    },
    protocol::message::{Kind, Message},
};

/// A larger message is copied into a frame without the GIL.
const LARGE_BYTES: usize = 64 * 1024;

/// The counters of [`Traffic`] in the order of its fields.
pub(super) type Counts = (u64, u64, u64, u64, u64, u64, u64);

/// `traffic` as Python gets it.
pub(super) fn counts(traffic: &Traffic) -> Counts {
    (
        traffic.messages_in,
        traffic.messages_out,
        traffic.bytes_in,
        traffic.bytes_out,
        traffic.inbox_messages,
        traffic.inbox_bytes,
        traffic.outbox_bytes,
    )
}

/// A number of seconds; `None` (and infinity) means for ever.
pub(super) fn duration(seconds: Option<f64>) -> PyResult<Option<Duration>> {
    match seconds {
        None => Ok(None),
        Some(seconds) if seconds.is_nan() || seconds < 0.0 => Err(PyValueError::new_err(format!(
            "a time must be a number of seconds, not {seconds}"
        ))),
        // A time that is too long for a Duration means for ever, too.
        Some(seconds) => Ok(Duration::try_from_secs_f64(seconds).ok()),
    }
}

/// The end of a number of seconds from now, as [`duration`] reads it; `None` is never.
pub(super) fn deadline(seconds: Option<f64>) -> PyResult<Option<Instant>> {
    let time = duration(seconds)?;
    Ok(time.and_then(|time| clock::now().checked_add(time)))
}

/// A message as `str` or `bytes`; text becomes `bytes` too if asked.
pub(super) fn to_python(
    py: Python<'_>,
    message: &Message,
    text_as_bytes: bool,
) -> PyResult<Py<PyAny>> {
    match message.kind {
        Kind::Text if !text_as_bytes => {
            let text = validate(py, &message.payload)
                .map_err(|error| PyValueError::new_err(error.to_string()))?;
            Ok(PyString::from_bytes(py, text.as_bytes())?
                .into_any()
                .unbind())
        }
        Kind::Text | Kind::Binary => copy::copied(py, &message.payload),
    }
}

/// Whether `bytes` are valid UTF-8. Most invalid ones fail at one of the first few bytes.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    simdutf8::compat::from_utf8(bytes).is_ok()
}

/// `bytes` as text. Looks through many of them without the GIL.
fn validate<'a>(py: Python<'_>, bytes: &'a [u8]) -> Result<&'a str, Utf8Error> {
    let validate = || simdutf8::compat::from_utf8(bytes);
    if bytes.len() > copy::LARGE_BYTES {
        py.detach(validate)
    } else {
        validate()
    }
}

/// A `str` or `bytes` that stays where Python keeps it, and the kind of frame it goes into.
///
/// `str` is text. `bytes` are what `binary` says; with `None` they are text when they are valid
/// UTF-8, as the old package sent everything, and binary when they are not.
pub(super) fn to_frame<'a>(
    py: Python<'_>,
    message: &'a Bound<'_, PyAny>,
    binary: Option<bool>,
) -> PyResult<(Kind, &'a [u8])> {
    let (kind, payload) = content(message)?;
    let kind = match binary {
        Some(true) => Kind::Binary,
        Some(false) | None if kind == Kind::Text => Kind::Text,
        Some(false) | None => match (validate(py, payload), binary) {
            (Ok(_), _) => Kind::Text,
            (Err(_), None) => Kind::Binary,
            (Err(error), Some(_)) => {
                return Err(PyValueError::new_err(format!(
                    "a text message must be valid UTF-8: {error}"
                )));
            }
        },
    };
    Ok((kind, payload))
}

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
pub(super) fn to_message(
    message: &Bound<'_, PyAny>,
    exclude: &[MemberId],
) -> PyResult<groups::Message> {
    let (kind, payload) = content(message)?;
    let encode = || groups::Message::new(kind, payload, exclude);
    if payload.len() > LARGE_BYTES {
        Ok(message.py().detach(encode))
    } else {
        Ok(encode())
    }
}

/// A position that Python gives.
pub(super) fn position((epoch, offset): (u64, u64)) -> Position {
    Position { epoch, offset }
}

/// Offset, time in milliseconds, message, and the members that do not get it.
pub(super) type Row = (u64, u64, Py<PyAny>, Vec<MemberId>);

/// The newest position, and the messages: offset, time in milliseconds, and envelope.
pub(super) type Log<'py> = ((u64, u64), Vec<(u64, u64, Bound<'py, PyBytes>)>);

/// A page for Python.
pub(super) fn log<'py>(py: Python<'py>, page: &Page) -> PyResult<Log<'py>> {
    let rows = page.entries.iter().map(|kept| {
        let envelope = copy::bytes(py, &kept.envelope)?;
        Ok((kept.offset, kept.sent_at, envelope))
    });
    Ok((
        (page.head.epoch, page.head.offset),
        rows.collect::<PyResult<_>>()?,
    ))
}

/// The message of an envelope as Python has it; `None` when it was written by a stranger.
pub(super) fn row(
    py: Python<'_>,
    groups: &groups::Groups,
    name: &str,
    (offset, sent_at, envelope): (u64, u64, &[u8]),
) -> PyResult<Option<Row>> {
    let Some(message) = groups.message_of(name, envelope) else {
        return Ok(None);
    };
    let payload = message.payload();
    let object = match (message.kind(), std::str::from_utf8(&payload)) {
        (Kind::Text, Ok(text)) => PyString::from_bytes(py, text.as_bytes())?.into_any(),
        _ => copy::bytes(py, &payload)?.into_any(),
    };
    let exclude = message.exclude().to_vec();
    Ok(Some((offset, sent_at, object.unbind(), exclude)))
}
