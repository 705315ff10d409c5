//! `_core.History`: what was published to groups, for Python.

use std::sync::Arc;

use pyo3::prelude::*;

use super::{
    call::Wait,
    convert::{Row, content, duration, position, row, to_message},
    groups::Groups,
};
use crate::engine::{
    groups::{Event, MemberId, Offer, numbered_text},
    history::{self, Limits, MemoryHistory},
};

/// A position, as Python has it.
type At = (u64, u64);

/// The history of all groups of one backend. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct History(pub(super) Arc<dyn history::History>);

/// The number of messages, and the seconds, for which they are kept.
pub(super) fn limits_of((size, seconds): (usize, f64)) -> PyResult<Limits> {
    Ok(Limits {
        size,
        age: duration(Some(seconds))?.unwrap_or_default(),
    })
}

#[pymethods]
impl History {
    #[staticmethod]
    fn in_memory(most: usize) -> Self {
        Self(Arc::new(MemoryHistory::new(most)))
    }

    #[pyo3(signature = (groups, name, message, exclude, limits, /))]
    fn record(
        &self,
        py: Python<'_>,
        groups: &Groups,
        name: &str,
        message: &Bound<'_, PyAny>,
        exclude: Vec<MemberId>,
        limits: (usize, f64),
    ) -> PyResult<Option<Wait>> {
        let message = to_message(message, &exclude)?;
        let limits = limits_of(limits)?;
        let groups = &groups.0;
        if let Some(wait) = groups.wait_for_room(message.frame_len()) {
            return Ok(Some(Wait(wait)));
        }
        py.detach(|| {
            let envelope = groups.envelope_of(name, &message);
            let position = self.0.append(name, &envelope, limits, None)?;
            groups.statistics().count_in(name, Event::Published);
            if groups.offer(name, position, &envelope) == Some(Offer::Behind) {
                groups.catch_up(name, &*self.0, None)?;
            }
            Ok(None)
        })
    }

    #[pyo3(signature = (groups, name, after, limits, patience, /))]
    fn read(
        &self,
        py: Python<'_>,
        groups: &Groups,
        name: &str,
        after: Option<(u64, u64)>,
        limits: (usize, f64),
        patience: Option<f64>,
    ) -> PyResult<(At, Vec<Row>, At)> {
        let (limits, patience) = (limits_of(limits)?, duration(patience)?);
        let page = py.detach(|| self.0.read(name, after.map(position), limits, patience))?;
        let reached = page.reached();
        let rows = page.entries.iter().filter_map(|kept| {
            let kept = (kept.offset, kept.sent_at, &kept.envelope[..]);
            row(py, &groups.0, name, kept).transpose()
        });
        let at = |at: history::Position| (at.epoch, at.offset);
        let rows = rows.collect::<PyResult<_>>()?;
        Ok((at(page.head), rows, at(reached)))
    }

    #[pyo3(signature = (groups, name, patience, /))]
    fn catch_up(
        &self,
        py: Python<'_>,
        groups: &Groups,
        name: &str,
        patience: Option<f64>,
    ) -> PyResult<()> {
        let patience = duration(patience)?;
        Ok(py.detach(|| groups.0.catch_up(name, &*self.0, patience))?)
    }

    fn bytes(&self, py: Python<'_>) -> u64 {
        py.detach(|| self.0.bytes())
    }

    fn evicted(&self) -> u64 {
        self.0.evicted()
    }
}

/// See `_core.pyi`.
#[pyfunction]
#[pyo3(signature = (name, at, message, /))]
pub(crate) fn numbered(name: &str, at: (u64, u64), message: &Bound<'_, PyAny>) -> PyResult<String> {
    let (kind, payload) = content(message)?;
    Ok(numbered_text(name, position(at), kind, payload))
}
