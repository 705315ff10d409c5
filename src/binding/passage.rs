//! `_core.Passage`: events of rooms that the engine passes on.

use std::{borrow::Cow, sync::Arc};

use pyo3::{prelude::*, types::PyString};

use super::groups::{Groups, Seat};
#[cfg(unix)]
use super::local::LocalNode;
use crate::{
    engine::groups::{self, Publisher},
    protocol::{
        json::push_string,
        room_request::{RoomEvent, RoomJoin},
    },
};

/// Permits. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct Bucket(Arc<groups::Bucket>);

#[pymethods]
impl Bucket {
    #[new]
    #[pyo3(signature = (rate, most, /))]
    fn new(rate: f64, most: f64) -> Self {
        Self(Arc::new(groups::Bucket::new(rate, most)))
    }

    fn take(&self) -> bool {
        self.0.take()
    }

    fn wait(&self) -> f64 {
        self.0.wait()
    }
}

/// The events that pass without Python. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct Passage(Arc<groups::Passage>);

#[pymethods]
impl Passage {
    #[new]
    #[pyo3(signature = (names, sender, publisher, buckets, most_bytes, /))]
    fn new(
        names: Vec<Bound<'_, PyString>>,
        sender: String,
        publisher: &Bound<'_, PyAny>,
        buckets: Vec<Py<Bucket>>,
        most_bytes: usize,
    ) -> PyResult<Self> {
        // A name with half of a surrogate pair is none that the engine reads.
        let names = names.iter().filter_map(|name| name.to_str().ok());
        Ok(Self(Arc::new(groups::Passage {
            names: names.map(str::to_owned).collect(),
            sender,
            publisher: publisher_of(publisher)?,
            buckets: buckets
                .iter()
                .map(|each| Arc::clone(&each.get().0))
                .collect(),
            most_bytes,
        })))
    }

    #[pyo3(signature = (seat, /))]
    fn open(&self, seat: &Seat) {
        seat.seat.let_pass(Arc::clone(&self.0));
    }
}

fn publisher_of(object: &Bound<'_, PyAny>) -> PyResult<Arc<dyn Publisher>> {
    #[cfg(unix)]
    if let Ok(node) = object.cast::<LocalNode>() {
        return Ok(Arc::clone(&node.get().0) as Arc<dyn Publisher>);
    }
    let groups = object.cast::<Groups>()?;
    Ok(Arc::clone(&groups.get().0) as Arc<dyn Publisher>)
}

type EventParts<'a> = (Cow<'a, str>, Cow<'a, str>, Option<&'a str>, &'a str, usize);

/// See `_core.pyi`.
#[pyfunction]
#[pyo3(signature = (message, /))]
pub(crate) fn read_event<'a>(message: &'a Bound<'_, PyAny>) -> Option<EventParts<'a>> {
    let event = RoomEvent::read(message.cast::<PyString>().ok()?.to_str().ok()?)?;
    let (id, data) = (event.id, event.data());
    Some((event.room, event.name, id, data, event.bytes))
}

/// See `_core.pyi`.
#[pyfunction]
#[pyo3(signature = (encode, request_id, result, /))]
pub(crate) fn answer(
    encode: &Bound<'_, PyAny>,
    request_id: &str,
    result: &Bound<'_, PyAny>,
) -> PyResult<String> {
    let mut text = String::with_capacity(64);
    text.extend(["{\"id\":", request_id, ",\"ok\":"]);
    match result.cast_exact::<PyString>().map(|value| value.to_str()) {
        Ok(Ok(value)) => push_string(&mut text, value),
        // A dict, or a text with half of a surrogate pair.
        _ => text.push_str(encode.call1((result,))?.cast::<PyString>()?.to_str()?),
    }
    text.push('}');
    Ok(text)
}

type JoinParts<'a> = (
    Cow<'a, str>,
    &'a str,
    Option<Cow<'a, str>>,
    Option<&'a str>,
    bool,
);

/// See `_core.pyi`.
#[pyfunction]
#[pyo3(signature = (message, /))]
pub(crate) fn read_join<'a>(message: &'a Bound<'_, PyString>) -> Option<JoinParts<'a>> {
    let join = RoomJoin::read(message.to_str().ok()?)?;
    Some((join.room, join.id, join.since, join.info, join.is_update))
}
