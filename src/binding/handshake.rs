//! The opening handshake for Python: validating a request, and writing the 101.

use pyo3::{exceptions::PyValueError, prelude::*, pybacked::PyBackedStr};

use crate::protocol::{
    close,
    deflate::{Agreement, Options, Terms, offer::MAX_WINDOW_BITS},
    event_stream,
    handshake::{self, Refusal, Request},
    subprotocol,
};

/// Validates a request's handshake headers (RFC 6455 section 4.2.1).
///
/// Returns `(101, accept_key, offered_subprotocols)` or `(status, reason, [])`.
#[pyfunction]
#[pyo3(signature = (
    *, method, http_version, host, content_length, transfer_encoding, upgrade, connection, version,
    key, protocols, extensions
))]
#[expect(
    clippy::too_many_arguments,
    reason = "one for each header that is validated"
)]
pub(crate) fn validate_handshake(
    method: &str,
    http_version: (u8, u8),
    host: Option<&str>,
    content_length: Option<&str>,
    transfer_encoding: Option<&str>,
    upgrade: Option<&str>,
    connection: Option<&str>,
    version: Option<&str>,
    key: Option<&str>,
    protocols: Option<&str>,
    extensions: Option<&str>,
) -> (u16, String, Vec<String>) {
    let request = Request {
        method,
        http_version,
        host,
        content_length,
        transfer_encoding,
        upgrade,
        connection,
        version,
        key,
        protocols,
        extensions,
    };
    match handshake::validate(&request) {
        Ok(accepted) => {
            let offered = accepted.offered.into_iter().map(str::to_owned).collect();
            (101, accepted.accept_key, offered)
        }
        Err(refusal) => (Refusal::status(refusal), refusal.to_string(), Vec::new()),
    }
}

/// The compression that client and server have agreed on. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct Compression(pub(super) Terms);

#[pymethods]
impl Compression {
    /// Agrees with a client whose offers stand in `offers`; None to go on without compression.
    #[staticmethod]
    #[pyo3(signature = (
        offers, *, threshold, level, server_no_context_takeover, client_no_context_takeover,
        server_max_window_bits, client_max_window_bits
    ))]
    fn negotiate(
        offers: &str,
        threshold: usize,
        level: u8,
        server_no_context_takeover: bool,
        client_no_context_takeover: bool,
        server_max_window_bits: u8,
        client_max_window_bits: u8,
    ) -> Option<Self> {
        let options = Options {
            threshold_bytes: threshold,
            level,
            server_no_context_takeover,
            client_no_context_takeover,
            server_max_window_bits,
            client_max_window_bits,
        };
        Terms::negotiate(offers, options).map(Self)
    }

    /// The compression of a connection that another process has agreed on. `ValueError` for another
    /// text.
    #[staticmethod]
    #[pyo3(signature = (agreement, *, threshold, level))]
    fn agreed(agreement: &str, threshold: usize, level: u8) -> PyResult<Self> {
        let agreement = Agreement::read(agreement)
            .ok_or_else(|| PyValueError::new_err("this is no agreement on compression"))?;
        let options = Options {
            threshold_bytes: threshold,
            level,
            server_no_context_takeover: agreement.server_no_context_takeover,
            client_no_context_takeover: agreement.client_no_context_takeover,
            server_max_window_bits: agreement.server_max_window_bits.unwrap_or(MAX_WINDOW_BITS),
            client_max_window_bits: agreement.client_max_window_bits.unwrap_or(MAX_WINDOW_BITS),
        };
        Ok(Self(Terms { agreement, options }))
    }

    /// The value of `Sec-WebSocket-Extensions` in the response.
    fn __str__(&self) -> String {
        self.0.agreement.to_string()
    }
}

/// Writes the head of the 101 response. `ValueError` for headers that would break it.
#[pyfunction]
#[pyo3(signature = (accept_key, subprotocol, headers, *, compression=None))]
pub(crate) fn response_head<'py>(
    py: Python<'py>,
    accept_key: &str,
    subprotocol: Option<&str>,
    headers: Vec<(PyBackedStr, PyBackedStr)>,
    compression: Option<&Compression>,
) -> PyResult<Bound<'py, pyo3::types::PyBytes>> {
    let agreement = compression.map(|compression| &compression.0.agreement);
    let head = handshake::response_head(accept_key, subprotocol, agreement, &as_pairs(&headers))?;
    Ok(pyo3::types::PyBytes::new(py, &head))
}

/// Writes the head of a response with server-sent events, and the event that opens the connection.
/// `ValueError` as [`response_head`].
#[pyfunction]
#[pyo3(signature = (id, subprotocol, headers, /))]
pub(crate) fn event_stream_head<'py>(
    py: Python<'py>,
    id: &str,
    subprotocol: Option<&str>,
    headers: Vec<(PyBackedStr, PyBackedStr)>,
) -> PyResult<Bound<'py, pyo3::types::PyBytes>> {
    let head = event_stream::head(id, subprotocol, &as_pairs(&headers))?;
    Ok(pyo3::types::PyBytes::new(py, &head))
}

/// The JSON about a connection of the fallback that has opened.
#[pyfunction]
#[pyo3(signature = (id, subprotocol, /))]
pub(crate) fn fallback_opened<'py>(
    py: Python<'py>,
    id: &str,
    subprotocol: Option<&str>,
) -> Bound<'py, pyo3::types::PyBytes> {
    pyo3::types::PyBytes::new(py, event_stream::opened(id, subprotocol).as_bytes())
}

pub(super) fn as_pairs(headers: &[(PyBackedStr, PyBackedStr)]) -> Vec<(&str, &str)> {
    let pairs = headers.iter().map(|(name, value)| (&**name, &**value));
    pairs.collect()
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
