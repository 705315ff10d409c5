//! Members of groups that move between processes, for Python.

use std::sync::Arc;

use pyo3::{prelude::*, types::PyBytes};

use super::{connection::PyConnection, groups::Groups};
use crate::engine::groups::{self, MemberId, Stamps, Token};

/// The frames that a stand-in has kept, and the close after them: its code and reason.
type Kept<'py> = (Bound<'py, PyBytes>, Option<(Option<u16>, String)>);

/// The stand-in of a connection in one group. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct StandIn {
    groups: Arc<groups::Groups>,
    name: String,
    id: MemberId,
    member: Arc<groups::StandIn>,
    /// The marker at which it begins, and the member in its place until then.
    marker: Option<(Token, Arc<groups::StandIn>)>,
}

#[pymethods]
impl StandIn {
    #[new]
    #[pyo3(signature = (groups, name, id, marker=None, /))]
    fn new(groups: &Groups, name: String, id: MemberId, marker: Option<Token>) -> Self {
        let member = groups::StandIn::new();
        let marker = marker.map(|token| (token, groups::StandIn::placeholder()));
        match &marker {
            None => {
                groups.0.join(&name, &member, id);
            }
            Some((token, placeholder)) => {
                groups.0.join(&name, placeholder, id);
                (groups.0).begin_at_marker(&name, *token, placeholder, &member, id);
            }
        }
        Self {
            groups: Arc::clone(&groups.0),
            name,
            id,
            member,
            marker,
        }
    }

    #[getter]
    fn has_begun(&self) -> bool {
        self.marker.is_none() || self.member.has_begun()
    }

    #[pyo3(signature = (connection, got, /))]
    fn exchange(
        &self,
        py: Python<'_>,
        connection: &Bound<'_, PyConnection>,
        got: Vec<(u64, u64)>,
    ) -> Option<u64> {
        let (got, connection) = (Stamps::of(got), Arc::clone(&connection.get().0));
        py.detach(|| {
            let Self {
                name, id, member, ..
            } = self;
            (self.groups).exchange(name, member, &connection, *id, &got)
        })
    }

    #[pyo3(signature = (connection, got, /))]
    fn take_kept<'py>(
        &self,
        py: Python<'py>,
        connection: &Bound<'_, PyConnection>,
        got: Vec<(u64, u64)>,
    ) -> Option<Kept<'py>> {
        let (got, connection) = (Stamps::of(got), Arc::clone(&connection.get().0));
        let kept = py.detach(|| self.member.frames_for(connection.as_ref(), &got));
        let (frames, closed) = kept?;
        let closed = closed.map(|frame| (frame.code, frame.reason));
        Some((PyBytes::new(py, &frames), closed))
    }

    fn leave(&self, py: Python<'_>) {
        py.detach(|| self.end());
    }
}

impl StandIn {
    fn end(&self) {
        if let Some((token, placeholder)) = &self.marker {
            self.groups.forget_marker(*token);
            placeholder.leave();
        }
        self.member.leave();
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.end();
    }
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
    #[pyo3(signature = (groups, name, connection, marker, /))]
    fn new(
        groups: &Groups,
        name: &str,
        connection: &Bound<'_, PyConnection>,
        marker: Token,
    ) -> Self {
        let connection = &connection.get().0;
        Self {
            groups: Arc::clone(&groups.0),
            token: marker,
            cut: groups.0.cut_at_marker(name, marker, connection),
        }
    }

    #[getter]
    fn is_done(&self) -> bool {
        self.cut.is_done()
    }

    #[getter]
    fn until(&self) -> Option<u64> {
        self.cut.until()
    }
}

impl Drop for MarkedCut {
    fn drop(&mut self) {
        self.groups.forget_marker(self.token);
    }
}

/// Ends a membership, and tells at which message. See `_core.pyi`.
#[pyfunction]
#[pyo3(signature = (groups, name, connection, /))]
pub(crate) fn cut_membership(
    py: Python<'_>,
    groups: &Groups,
    name: &str,
    connection: &Bound<'_, PyConnection>,
) -> Option<(Vec<(u64, u64)>, u64)> {
    let (groups, connection) = (Arc::clone(&groups.0), Arc::clone(&connection.get().0));
    let cut = py.detach(|| groups.cut(name, connection.as_ref()))?;
    Some((cut.got.each().collect(), cut.until))
}

/// Whether the entries of a group before number `until` have reached their members.
#[pyfunction]
#[pyo3(signature = (groups, name, until, /))]
pub(crate) fn has_handed_out(groups: &Groups, name: &str, until: u64) -> bool {
    groups.0.has_handed_out(name, until)
}
