//! Members that move between processes, for Python: where their memberships end, and their deputies.

use std::sync::{Arc, OnceLock};

use pyo3::{
    exceptions::PyTypeError,
    prelude::*,
    types::{PyBytes, PyString},
};

use super::{
    connection::PyConnection,
    convert::{position, to_message},
    copy,
    groups::{Deputy, Groups, Member, anyone, member, word_for},
};
use crate::engine::groups::{self, MemberId, Stamps, Token, frames_of};

/// The point at which a member has left, for Python.
type Departed = (Vec<(u64, u64)>, u64, Option<(u64, u64, bool)>);

/// The same, from the engine's.
fn departed((cut, standing): &groups::Departed) -> Departed {
    let at = standing.map(|(at, is_numbered)| (at.epoch, at.offset, is_numbered));
    (cut.got.each().collect(), cut.until, at)
}

#[pymethods]
impl Deputy {
    #[new]
    #[pyo3(signature = (seat=None, /))]
    fn new(seat: Option<(MemberId, Option<String>)>) -> Self {
        Self {
            member: groups::Deputy::new(seat),
            marker: OnceLock::new(),
        }
    }

    /// Once.
    #[pyo3(signature = (groups, name, before, id, marker, /))]
    fn begin_at_marker(
        &self,
        groups: &Groups,
        name: &str,
        before: &Self,
        id: MemberId,
        marker: Token,
    ) {
        let is_first = self.marker.set((Arc::clone(&groups.0), marker)).is_ok();
        if is_first {
            (groups.0).begin_at_marker(name, marker, &before.member, &self.member, id);
        }
    }

    #[getter]
    fn has_begun(&self) -> bool {
        self.member.has_begun()
    }

    #[pyo3(signature = (groups, name, object, id, got, at, /))]
    #[expect(clippy::too_many_arguments, reason = "Python's arguments")]
    fn succeed<'py>(
        &self,
        py: Python<'py>,
        groups: &Groups,
        name: &str,
        object: &Bound<'py, PyAny>,
        id: MemberId,
        got: Vec<(u64, u64)>,
        at: Option<(u64, u64, bool)>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let (got, groups, deputy) = (Stamps::of(got), &groups.0, self.member.as_ref());
        let at = at.map(|(epoch, offset, is_numbered)| (position((epoch, offset)), is_numbered));
        let succeeded = match member(object)? {
            Member::Connection(it) => py.detach(|| groups.succeed(name, deputy, it, id, &got, at)),
            Member::Seat(it) => py.detach(|| groups.succeed(name, deputy, it, id, &got, at)),
            Member::Mailbox(_) | Member::Deputy(_) => {
                let text = "only a Connection or a Seat comes from another process";
                return Err(PyTypeError::new_err(text));
            }
        };
        Ok(match succeeded {
            Err(mismatch) => Some(PyString::new(py, word_for(mismatch)).into_any()),
            Ok(None) => None,
            Ok(Some(until)) => Some(until.into_pyobject(py)?.into_any()),
        })
    }

    #[pyo3(signature = (object, got, /))]
    fn take_kept<'py>(
        &self,
        py: Python<'py>,
        object: &Bound<'_, PyAny>,
        got: Vec<(u64, u64)>,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let (got, member) = (Stamps::of(got), anyone(object)?);
        let kept = py.detach(|| self.member.hand_over(member.as_ref(), &got));
        kept.map(|frames| copy::bytes(py, &frames)).transpose()
    }

    #[getter]
    fn evicted(&self) -> Option<String> {
        self.member.evicted()
    }

    fn leave(&self, py: Python<'_>) {
        py.detach(|| self.end());
    }
}

impl Deputy {
    fn end(&self) {
        if let Some((groups, token)) = self.marker.get() {
            groups.forget_marker(*token);
        }
        self.member.leave();
    }
}

impl Drop for Deputy {
    fn drop(&mut self) {
        self.end();
    }
}

/// Messages as frames of a connection. See `_core.pyi`.
#[pyfunction]
#[pyo3(signature = (connection, messages, /))]
pub(crate) fn frames_for<'py>(
    py: Python<'py>,
    connection: &Bound<'py, PyConnection>,
    messages: Vec<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let messages: PyResult<Vec<_>> = messages.iter().map(|one| to_message(one, &[])).collect();
    let (messages, connection) = (messages?, connection.get().0.as_ref());
    copy::bytes(py, &py.detach(|| frames_of(messages, connection)))
}

/// The end of a membership at a marker. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct MarkedCut {
    groups: Arc<groups::Groups>,
    token: Token,
    cut: Arc<groups::MarkedCut>,
}

#[pymethods]
impl MarkedCut {
    #[new]
    #[pyo3(signature = (groups, name, object, marker, /))]
    fn new(
        groups: &Groups,
        name: &str,
        object: &Bound<'_, PyAny>,
        marker: Token,
    ) -> PyResult<Self> {
        let member = anyone(object)?;
        Ok(Self {
            groups: Arc::clone(&groups.0),
            token: marker,
            cut: groups.0.cut_at_marker(name, marker, member),
        })
    }

    #[getter]
    fn is_done(&self) -> bool {
        self.cut.is_done()
    }

    #[getter]
    fn departed(&self) -> Option<Departed> {
        self.cut.departed().map(departed)
    }
}

impl Drop for MarkedCut {
    fn drop(&mut self) {
        self.groups.forget_marker(self.token);
    }
}

/// Ends a membership, and tells at which message. See `_core.pyi`.
#[pyfunction]
#[pyo3(signature = (groups, name, object, /))]
pub(crate) fn depart(
    py: Python<'_>,
    groups: &Groups,
    name: &str,
    object: &Bound<'_, PyAny>,
) -> PyResult<Option<Departed>> {
    let (groups, member) = (&groups.0, anyone(object)?);
    let gone = py.detach(|| groups.depart(name, member.as_ref()));
    Ok(gone.as_ref().map(departed))
}

/// Whether the entries of a group before number `until` have reached their members.
#[pyfunction]
#[pyo3(signature = (groups, name, until, /))]
pub(crate) fn has_handed_out(groups: &Groups, name: &str, until: u64) -> bool {
    groups.0.has_handed_out(name, until)
}
