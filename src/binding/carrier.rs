//! Connections that an ASGI server carries, for Python.

use std::sync::Arc;

use pyo3::{
    intern,
    prelude::*,
    pybacked::PyBackedBytes,
    types::{PyDict, PyString},
};

use super::{
    connection::PyConnection,
    convert,
    groups::{Memberships, joining},
    hub::Hub,
    process::{Permit, PySettings},
};
use crate::{
    engine::{Connection, End, Initiator, Outgoing, runtime},
    protocol::{
        close::{ABNORMAL, NO_STATUS, SERVICE_RESTART},
        message::Kind,
    },
};

/// The server's side of such a connection. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct Carrier(Arc<Connection>);

#[pymethods]
impl Carrier {
    #[pyo3(signature = (message, /))]
    fn bring(&self, py: Python<'_>, message: &Bound<'_, PyAny>) -> PyResult<bool> {
        if let Ok(text) = message.cast::<PyString>() {
            let text = text.to_str()?;
            return Ok(self.hand_over(py, Kind::Text, text.as_bytes()));
        }
        let bytes: PyBackedBytes = message.extract()?;
        Ok(self.hand_over(py, Kind::Binary, &bytes))
    }

    fn has_room(&self) -> bool {
        self.0.has_room_to_bring()
    }

    fn take<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let Some(outgoing) = self.0.carry_out() else {
            return Ok(None);
        };
        let event = PyDict::new(py);
        let kind = intern!(py, "type");
        match outgoing {
            Outgoing::Message(message) => {
                event.set_item(kind, intern!(py, "websocket.send"))?;
                let name = match message.kind {
                    Kind::Text => intern!(py, "text"),
                    Kind::Binary => intern!(py, "bytes"),
                };
                event.set_item(name, convert::to_python(py, &message, false)?)?;
            }
            Outgoing::Close(frame) => {
                event.set_item(kind, intern!(py, "websocket.close"))?;
                event.set_item(intern!(py, "code"), frame.code.unwrap_or(NO_STATUS))?;
                event.set_item(intern!(py, "reason"), frame.reason)?;
            }
        }
        Ok(Some(event))
    }

    #[pyo3(signature = (size, /))]
    fn note_in_server(&self, size: usize) {
        self.0.note_in_server(size);
    }

    fn break_off(&self, py: Python<'_>) {
        py.detach(|| self.0.break_carrier());
    }

    #[pyo3(signature = (code, reason, /))]
    fn leave(&self, py: Python<'_>, code: u16, reason: String) {
        let by = match code {
            ABNORMAL => Initiator::Lost,
            // A server that restarts reports the code that it sends to the client.
            SERVICE_RESTART => Initiator::Local,
            _ => Initiator::Peer,
        };
        py.detach(|| self.0.leave_carrier(End { code, reason, by }));
    }

    #[getter]
    fn is_shed(&self) -> bool {
        self.0.is_shed()
    }

    #[getter]
    fn is_over(&self) -> bool {
        self.0.is_carrier_over()
    }
}

/// So many bytes take longer to copy than to let go of the GIL.
const LARGE_BYTES: usize = 64 * 1024;

impl Carrier {
    fn hand_over(&self, py: Python<'_>, kind: Kind, payload: &[u8]) -> bool {
        if payload.len() > LARGE_BYTES {
            py.detach(|| self.0.bring(kind, payload))
        } else {
            self.0.bring(kind, payload)
        }
    }
}

/// Opens a connection that an ASGI server carries. See `_core.pyi`.
#[pyfunction]
#[pyo3(signature = (hub, token, permit, settings, memberships=Vec::new(), /))]
pub(crate) fn open_carried(
    py: Python<'_>,
    hub: &Hub,
    token: u64,
    permit: &Permit,
    settings: &PySettings,
    memberships: Memberships<'_>,
) -> PyResult<(PyConnection, Carrier)> {
    let permit = permit.held()?;
    let (hub, join) = (Arc::clone(&hub.0.hub), joining(memberships));
    let connection = py.detach(|| runtime::open_carried(hub, token, &settings.0, permit, join))?;
    Ok((PyConnection(Arc::clone(&connection)), Carrier(connection)))
}
