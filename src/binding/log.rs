//! Messages of a history, as objects.

use pyo3::{
    prelude::*,
    types::{PyBytes, PyString},
};

use crate::{
    engine::{
        groups::{Groups, MemberId},
        history::{Page, Position},
    },
    protocol::message::Kind,
};

/// A position that Python gives.
pub(super) fn position((epoch, offset): (u64, u64)) -> Position {
    Position { epoch, offset }
}

/// Offset, time in milliseconds, message, and the members that do not get it.
pub(super) type Row = (u64, u64, Py<PyAny>, Vec<MemberId>);

/// The newest position, and the messages: offset, time in milliseconds, and envelope.
pub(super) type Log<'py> = ((u64, u64), Vec<(u64, u64, Bound<'py, PyBytes>)>);

/// A page for Python.
pub(super) fn log<'py>(py: Python<'py>, page: &Page) -> Log<'py> {
    let rows = page.entries.iter().map(|kept| {
        let envelope = PyBytes::new(py, &kept.envelope);
        (kept.offset, kept.sent_at, envelope)
    });
    ((page.head.epoch, page.head.offset), rows.collect())
}

/// The message of an envelope as Python has it; `None` when it was written by a stranger.
pub(super) fn row(
    py: Python<'_>,
    groups: &Groups,
    name: &str,
    (offset, sent_at, envelope): (u64, u64, &[u8]),
) -> Option<Row> {
    let message = groups.message_of(name, envelope)?;
    let payload = message.payload();
    let object = match (message.kind(), std::str::from_utf8(&payload)) {
        (Kind::Text, Ok(text)) => PyString::new(py, text).into_any(),
        _ => PyBytes::new(py, &payload).into_any(),
    };
    Some((offset, sent_at, object.unbind(), message.exclude().to_vec()))
}
