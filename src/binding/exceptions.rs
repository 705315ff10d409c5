//! Errors of the engine and the protocol as Python exceptions, each in one place.

use pyo3::{
    PyErr,
    exceptions::{PyOSError, PyValueError},
    import_exception,
};

use crate::{
    engine,
    protocol::{close::InvalidClose, handshake::InvalidHeader},
};

import_exception!(dwebsocket.exceptions, SendTimeout);
import_exception!(dwebsocket.exceptions, ShuttingDown);
import_exception!(dwebsocket.exceptions, UnsupportedServer);

impl From<engine::Error> for PyErr {
    fn from(error: engine::Error) -> Self {
        let text = error.to_string();
        match error {
            engine::Error::SendTimeout { .. } => SendTimeout::new_err(format!(
                "{text}; see WEBSOCKET_SEND_BUFFER and WEBSOCKET_SEND_TIMEOUT"
            )),
            engine::Error::ShuttingDown => ShuttingDown::new_err(text),
            // As any other scarcity of the system: the handshake is refused with 503.
            engine::Error::Broken => PyOSError::new_err(text),
            engine::Error::Io { source, .. } => {
                PyOSError::new_err((source.raw_os_error().unwrap_or(0), text))
            }
        }
    }
}

impl From<InvalidClose> for PyErr {
    fn from(error: InvalidClose) -> Self {
        PyValueError::new_err(error.to_string())
    }
}

impl From<InvalidHeader> for PyErr {
    fn from(error: InvalidHeader) -> Self {
        PyValueError::new_err(error.to_string())
    }
}
