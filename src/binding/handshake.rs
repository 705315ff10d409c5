//! The opening handshake for Python: judging a request, and writing the 101.

use pyo3::prelude::*;

use crate::protocol::{
    close,
    handshake::{self, Refusal, Request},
    subprotocol,
};

type Judged = (u16, String, Vec<String>);

/// Judges a request's handshake headers (RFC 6455 section 4.2.1).
///
/// Gives `(101, accept_key, offered_subprotocols)` or `(status, reason, [])`.
#[pyfunction]
#[pyo3(signature = (*, method, http_version, upgrade, connection, version, key, protocols))]
pub(crate) fn judge_handshake(
    method: &str,
    http_version: (u8, u8),
    upgrade: Option<&str>,
    connection: Option<&str>,
    version: Option<&str>,
    key: Option<&str>,
    protocols: Option<&str>,
) -> Judged {
    let request = Request {
        method,
        http_version,
        upgrade,
        connection,
        version,
        key,
        protocols,
    };
    match handshake::judge(&request) {
        Ok(accepted) => {
            let offered = accepted.offered.into_iter().map(str::to_owned).collect();
            (101, accepted.accept_key, offered)
        }
        Err(refusal) => (Refusal::status(refusal), refusal.to_string(), Vec::new()),
    }
}

/// Writes the head of the 101 response. `ValueError` for headers that would break it.
#[pyfunction]
pub(crate) fn response_head<'py>(
    py: Python<'py>,
    accept_key: &str,
    subprotocol: Option<&str>,
    headers: Vec<(String, String)>,
) -> PyResult<Bound<'py, pyo3::types::PyBytes>> {
    let head = handshake::response_head(accept_key, subprotocol, &headers)?;
    Ok(pyo3::types::PyBytes::new(py, &head))
}

/// Picks the first of `supported` that is among `offered`.
#[pyfunction]
pub(crate) fn choose_subprotocol(supported: Vec<String>, offered: Vec<String>) -> Option<String> {
    let offered: Vec<_> = offered.iter().map(String::as_str).collect();
    subprotocol::choose(&supported, &offered).map(str::to_owned)
}

/// Whether `text` is a token (RFC 9110 section 5.6.2), as subprotocol names must be.
#[pyfunction]
pub(crate) fn is_token(text: &str) -> bool {
    subprotocol::is_token(text)
}

/// Whether a close frame may carry `code`.
#[pyfunction]
pub(crate) fn may_send_close_code(code: u16) -> bool {
    close::may_send(code)
}
