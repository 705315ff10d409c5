//! `_core.Dial`: opening a connection to another server, for Python.

use std::sync::Arc;

use pyo3::prelude::*;

use super::{
    call::wait_for, connection::PyConnection, convert::duration, hub::Hub, process::PySettings,
    redis::Files,
};
use crate::{
    engine::{
        descriptor::{Raw, into_raw},
        dialing::{Dial, DialRequest, Failure, Proxy, Step, Success, Want, dial, tls::Tls},
    },
    protocol::{client_handshake::Request, deflate::Options, response::Head},
};

/// Settings of TLS. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core", name = "Tls")]
pub(crate) struct PyTls(Tls);

#[pymethods]
impl PyTls {
    #[new]
    #[pyo3(signature = (certificates, /))]
    fn new(certificates: Files) -> PyResult<Self> {
        Ok(Self(certificates.read()?))
    }
}

/// Connections to another server, each opened in the same way. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct Dialer(DialRequest);

#[pymethods]
impl Dialer {
    #[new]
    #[pyo3(signature = (
        address, target, *, headers, subprotocols, compression, settings, timeout, tls=None,
        server_name=None, proxy=None
    ))]
    #[expect(clippy::too_many_arguments, reason = "one keyword for each option")]
    fn new(
        address: (String, u16),
        target: &str,
        headers: Vec<(String, String)>,
        subprotocols: Vec<String>,
        compression: Option<(usize, u8)>,
        settings: &PySettings,
        timeout: Option<f64>,
        tls: Option<&PyTls>,
        server_name: Option<String>,
        proxy: Option<(String, u16, Option<String>)>,
    ) -> PyResult<Self> {
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let compression = compression.map(|(threshold_bytes, level)| Options {
            threshold_bytes,
            level,
            server_no_context_takeover: false,
            client_no_context_takeover: false,
            server_max_window_bits: 15,
            client_max_window_bits: 15,
        });
        let (host, port) = address;
        let name = server_name.unwrap_or_else(|| host.clone());
        Ok(Self(DialRequest {
            request: Request::new(target, subprotocols, compression, &headers)?,
            tls: tls.map(|tls| (tls.0.clone(), name)),
            host,
            port,
            proxy: proxy.map(|(host, port, authorization)| Proxy {
                host,
                port,
                authorization,
            }),
            settings: settings.0,
            timeout: duration(timeout)?,
        }))
    }

    /// Begins to open a connection. See `_core.pyi`.
    fn dial(&self, py: Python<'_>) -> PyResult<PyDial> {
        Ok(PyDial(
            py.detach(|| dial(self.0.clone(), Want::Connection))?,
        ))
    }

    /// Begins to send a request as it is. See `_core.pyi`.
    #[pyo3(signature = (request, /))]
    fn exchange(&self, py: Python<'_>, request: Vec<u8>) -> PyResult<PyDial> {
        let want = Want::Socket(request);
        Ok(PyDial(py.detach(|| dial(self.0.clone(), want))?))
    }
}

/// A connection that is being opened. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core", name = "Dial")]
pub(crate) struct PyDial(Dial);

type Headers = Vec<(String, String)>;

/// An outcome for Python.
#[derive(IntoPyObject)]
pub(crate) enum Outcome {
    /// The connection, the subprotocol, whether messages are compressed; status, reason and headers
    /// of the answer.
    Opened((PyConnection, Option<String>, bool, (u16, String, Headers))),
    /// Status, reason and headers of another answer, and what came after it.
    Answered(((u16, String, Headers), Vec<u8>)),
    /// The kind of failure, and the reason.
    Failed((&'static str, String)),
}

#[pymethods]
impl PyDial {
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        wait_for(&self.0, py, timeout)
    }

    fn watch(&self, hub: &Hub, token: u64) {
        self.0.watch(Arc::clone(&hub.0.hub), token);
    }

    fn unwatch(&self, hub: &Hub, token: u64) {
        self.0.unwatch(&hub.0.hub, token);
    }

    fn cancel(&self, py: Python<'_>) {
        py.detach(|| self.0.cancel());
    }

    fn descriptor(&self) -> Option<Raw> {
        match self.0.outcome() {
            Some(Ok(Success::Answered(answered))) => answered.take().map(into_raw),
            _ => None,
        }
    }

    fn outcome(&self) -> Option<Outcome> {
        self.0.outcome().map(|outcome| match outcome {
            Ok(Success::Opened(opened)) => Outcome::Opened((
                PyConnection(opened.take()),
                opened.subprotocol.clone(),
                opened.is_compressed,
                parts(opened.head.clone()),
            )),
            Ok(Success::Answered(answered)) => {
                Outcome::Answered((parts(answered.head.clone()), answered.early.clone()))
            }
            Err(Failure::Refused(head, body)) => Outcome::Answered((parts(head), body)),
            Err(Failure::At(step, reason)) => Outcome::Failed((name(step), reason)),
            Err(Failure::Timeout(reason)) => Outcome::Failed(("timeout", reason)),
            Err(Failure::ShuttingDown) => Outcome::Failed(("shutting down", String::new())),
        })
    }
}

fn name(step: Step) -> &'static str {
    match step {
        Step::Network => "network",
        Step::Proxy => "proxy",
        Step::Tls => "tls",
        Step::Certificate => "certificate",
        Step::Http => "http",
        Step::Handshake => "handshake",
    }
}

fn parts(head: Head) -> (u16, String, Headers) {
    (head.status, head.reason, head.headers)
}
