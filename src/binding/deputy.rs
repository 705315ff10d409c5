//! Members of groups with a history, and of rooms, that move between processes, for Python.

use pyo3::{
    exceptions::PyTypeError,
    prelude::*,
    types::{PyBytes, PyString},
};

use super::{
    connection::PyConnection,
    groups::{Deputy, Groups, Member, anyone, member},
    log::position,
    publication::to_message,
};
use crate::engine::groups::{self, MemberId, Stamps, Succeeded, frames_of};

/// The point at which a member has left, for Python.
type Departed = (Vec<(u64, u64)>, u64, Option<(u64, u64, bool)>);

#[pymethods]
impl Deputy {
    #[new]
    #[pyo3(signature = (seat=None, /))]
    fn new(seat: Option<(MemberId, Option<String>)>) -> Self {
        Self(groups::Deputy::new(seat))
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
        let (got, groups, deputy) = (Stamps::of(got), &groups.0, self.0.as_ref());
        let at = at.map(|(epoch, offset, is_numbered)| (position((epoch, offset)), is_numbered));
        let succeeded = match member(object)? {
            Member::Connection(connection) => {
                let connection = &connection.get().0;
                py.detach(|| groups.succeed(name, deputy, connection, id, &got, at))
            }
            Member::Seat(seat) => {
                let seat = &seat.get().0;
                py.detach(|| groups.succeed(name, deputy, seat, id, &got, at))
            }
            Member::Mailbox(_) | Member::Deputy(_) => {
                let text = "only a Connection or a Seat comes from another process";
                return Err(PyTypeError::new_err(text));
            }
        };
        Ok(match succeeded {
            Succeeded::Gone => None,
            Succeeded::Behind => Some(PyString::new(py, "behind").into_any()),
            Succeeded::Early => Some(PyString::new(py, "early").into_any()),
            Succeeded::Done(until) => Some(until.into_pyobject(py)?.into_any()),
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
        let kept = py.detach(|| self.0.frames_for(member.as_ref(), &got));
        Ok(kept.map(|frames| PyBytes::new(py, &frames)))
    }

    #[getter]
    fn evicted(&self) -> Option<String> {
        self.0.evicted()
    }

    #[getter]
    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    fn leave(&self, py: Python<'_>) {
        py.detach(|| self.0.leave());
    }
}

impl Drop for Deputy {
    fn drop(&mut self) {
        self.0.leave();
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
    let departed = py.detach(|| groups.depart(name, member.as_ref()));
    Ok(departed.map(|(cut, standing)| {
        let at = standing.map(|(at, is_numbered)| (at.epoch, at.offset, is_numbered));
        (cut.got.each().collect(), cut.until, at)
    }))
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
    Ok(PyBytes::new(
        py,
        &py.detach(|| frames_of(messages, connection)),
    ))
}
