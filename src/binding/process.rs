//! The whole process: the number of its connections, their adoption, fork and exit.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use pyo3::{exceptions::PyValueError, prelude::*, pybacked::PyBackedBytes};

use super::{
    call::Wait,
    connection::PyConnection,
    convert::{Counts, counts, duration},
    groups::{Memberships, joining},
    handshake::Compression,
};
use crate::{
    engine::{
        Engine, Incoming, Key, Parts, Pulse, Rates, Settings, Transport, budget, clock,
        descriptor::Raw, permits, runtime, socket,
    },
    protocol::{
        close::CloseFrame,
        limits::Limits,
        message::{Kind, Message},
    },
};

/// A hold on a place among the process's connections. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct Permit(Mutex<Option<Arc<permits::Permit>>>);

impl Permit {
    pub(super) fn held(&self) -> PyResult<Arc<permits::Permit>> {
        let held = self.0.lock().clone();
        held.ok_or_else(|| PyValueError::new_err("this permit has been released already"))
    }
}

#[pymethods]
impl Permit {
    /// Takes a place; None when `limit` are taken.
    #[staticmethod]
    fn claim(limit: Option<usize>) -> Option<Self> {
        permits::Permit::claim(limit).map(|permit| Self(Mutex::new(Some(Arc::new(permit)))))
    }

    /// Returns another hold on the same place.
    fn share(&self) -> PyResult<Self> {
        Ok(Self(Mutex::new(Some(self.held()?))))
    }

    /// Lets the place go. Harmless when repeated.
    fn release(&self) {
        self.0.lock().take();
    }
}

/// The settings of connections. See `_core.pyi`.
#[pyclass(name = "Settings", frozen, module = "dwebsocket._core")]
pub(crate) struct PySettings(pub(super) Settings);

#[pymethods]
impl PySettings {
    #[new]
    #[pyo3(signature = (
        *, max_message_bytes, max_frame_bytes, max_fragments, messages_per_second,
        bytes_per_second, rate_timeout, ping_interval, ping_timeout, receive_buffer_bytes,
        send_buffer_bytes, send_timeout, close_timeout, message_timeout=None
    ))]
    #[expect(clippy::too_many_arguments, reason = "one keyword for each setting")]
    fn new(
        max_message_bytes: usize,
        max_frame_bytes: Option<usize>,
        max_fragments: u32,
        messages_per_second: Option<f64>,
        bytes_per_second: Option<f64>,
        rate_timeout: Option<f64>,
        ping_interval: Option<f64>,
        ping_timeout: Option<f64>,
        receive_buffer_bytes: usize,
        send_buffer_bytes: usize,
        send_timeout: Option<f64>,
        close_timeout: f64,
        message_timeout: Option<f64>,
    ) -> PyResult<Self> {
        Ok(Self(Settings {
            limits: Limits {
                max_message_bytes,
                max_frame_bytes: max_frame_bytes
                    .map_or(u32::MAX, |size| u32::try_from(size).unwrap_or(u32::MAX)),
                max_fragments,
            },
            rates: Rates {
                messages: messages_per_second,
                bytes: bytes_per_second,
                timeout: duration(rate_timeout)?,
            },
            transport: Transport::WebSocket,
            compression: None,
            ping_interval: duration(ping_interval)?,
            ping_timeout: duration(ping_timeout)?,
            receive_buffer_bytes,
            send_buffer_bytes,
            send_timeout: duration(send_timeout)?,
            message_timeout: duration(message_timeout)?,
            close_timeout: bounded(close_timeout)?,
        }))
    }
}

/// Takes a client's connection over. See `_core.pyi`.
#[pyfunction]
#[pyo3(signature = (descriptor, early, head, permit, settings, compression=None, memberships=Vec::new(), posts=None, /))]
#[expect(clippy::too_many_arguments, reason = "Python's arguments")]
pub(crate) fn adopt(
    py: Python<'_>,
    descriptor: Raw,
    early: &[u8],
    head: &[u8],
    permit: &Permit,
    settings: &PySettings,
    compression: Option<&Compression>,
    memberships: Memberships<'_>,
    posts: Option<Key>,
) -> PyResult<PyConnection> {
    // First own the descriptor: any error from here on closes it.
    let client = socket::own(descriptor)?;
    let settings = Settings {
        transport: posts.map_or(Transport::WebSocket, Transport::Events),
        compression: compression.map(|compression| compression.0),
        ..settings.0
    };
    let permit = permit.held()?;
    let (early, head) = (early.to_vec(), head.to_vec());
    // A client may have something published as soon as it has the 101.
    let join = joining(memberships);
    let adopted = py.detach(|| runtime::adopt(client, early, head, &settings, permit, join));
    Ok(PyConnection(adopted?))
}

/// Goes on with a connection that another process has given away. See `_core.pyi`.
#[pyfunction]
#[pyo3(signature = (descriptor, incoming, unread, pulse, permit, settings, compression=None, memberships=Vec::new(), /))]
#[expect(clippy::too_many_arguments, reason = "Python's arguments")]
pub(crate) fn adopt_moved(
    py: Python<'_>,
    descriptor: Raw,
    incoming: &[u8],
    unread: Vec<(bool, PyBackedBytes)>,
    pulse: (Option<f64>, Option<f64>),
    permit: &Permit,
    settings: &PySettings,
    compression: Option<&Compression>,
    memberships: Memberships<'_>,
) -> PyResult<PyConnection> {
    // First own the descriptor: any error from here on closes it.
    let client = socket::own(descriptor)?;
    let settings = Settings {
        compression: compression.map(|compression| compression.0),
        ..settings.0
    };
    let permit = permit.held()?;
    let parts = Parts {
        client,
        incoming: Incoming {
            bytes: incoming.to_vec(),
            pulse: Pulse {
                next_ping: duration(pulse.0)?,
                silence: duration(pulse.1)?,
            },
        },
        unsent: Vec::new(),
        unread: unread.iter().map(as_message).collect(),
    };
    let join = joining(memberships);
    let adopted = py.detach(|| Engine::current()?.adopt_moved(parts, &settings, permit, join));
    Ok(PyConnection(adopted?))
}

fn as_message((is_text, payload): &(bool, PyBackedBytes)) -> Message {
    Message {
        kind: if *is_text { Kind::Text } else { Kind::Binary },
        payload: Bytes::copy_from_slice(payload),
    }
}

/// Starts the engine, unless it runs. See `_core.pyi`.
#[pyfunction]
pub(crate) fn prepare(py: Python<'_>) -> PyResult<()> {
    // Each handshake calls this. Releasing the GIL would make it wait for other threads.
    if runtime::is_prepared() {
        return Ok(());
    }
    Ok(py.detach(runtime::prepare)?)
}

/// Sets the engine's number of threads, if it has not been started yet.
#[pyfunction]
pub(crate) fn want_threads(count: usize) {
    runtime::want_threads(count);
}

/// Sets how many bytes the engine may buffer for all connections; None for no limit.
#[pyfunction]
#[pyo3(signature = (limit, /))]
pub(crate) fn limit_buffered(limit: Option<usize>) {
    budget::set_limit(limit);
}

/// The bytes that the engine buffers now, as far as they are counted.
#[pyfunction]
pub(crate) fn buffered_bytes() -> usize {
    budget::held()
}

/// A duration to wait for: a day at most, so that adding it to a moment cannot overflow.
pub(super) fn bounded(seconds: f64) -> PyResult<Duration> {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    Ok(duration(Some(seconds))?.map_or(DAY, |time| time.min(DAY)))
}

/// The number of connections that the process holds or has promised a place to.
#[pyfunction]
pub(crate) fn open_connections() -> usize {
    permits::open()
}

/// A wait until no connection is open; None when none is. See `_core.pyi`.
#[pyfunction]
pub(crate) fn wait_for_none_open() -> Option<Wait> {
    runtime::wait_for_none_open().map(Wait)
}

/// The engine's time in seconds. See `_core.pyi`.
#[pyfunction]
pub(crate) fn now() -> f64 {
    clock::now_seconds()
}

/// The open connections and the traffic of the process. See `_core.pyi`.
#[pyfunction]
pub(crate) fn overview(py: Python<'_>) -> (usize, Counts, Vec<f64>) {
    let overview = py.detach(|| Engine::running().map(|engine| engine.overview()));
    let overview = overview.unwrap_or_default();
    let latencies = overview.latencies.iter().map(Duration::as_secs_f64);
    (
        overview.connections,
        counts(&overview.traffic),
        latencies.collect(),
    )
}

/// Begins to close all connections and takes no new ones. Does not wait.
#[pyfunction]
pub(crate) fn close_all(py: Python<'_>, code: u16, reason: &str) -> PyResult<()> {
    let frame = CloseFrame::new(Some(code), reason)?;
    runtime::leave();
    if let Some(engine) = Engine::running() {
        py.detach(|| engine.close_all(&frame));
    }
    Ok(())
}

/// Closes all connections, spread over `window`, and takes no new ones. See `_core.pyi`.
#[pyfunction]
pub(crate) fn drain(py: Python<'_>, code: u16, reason: &str, window: f64) -> PyResult<f64> {
    let frame = CloseFrame::new(Some(code), reason)?;
    let window = bounded(window)?;
    runtime::leave();
    let left = Engine::running().map(|engine| py.detach(|| engine.drain(frame, window)));
    Ok(left.unwrap_or_default().as_secs_f64())
}

/// Whether the process takes no new connections any more.
#[pyfunction]
pub(crate) fn is_leaving() -> bool {
    runtime::is_leaving()
}

/// Closes all connections, takes no new ones and ends the engine; sleeps until they are gone,
/// `grace` at most.
#[pyfunction]
pub(crate) fn shut_down(py: Python<'_>, code: u16, reason: &str, grace: f64) -> PyResult<()> {
    let frame = CloseFrame::new(Some(code), reason)?;
    let grace = bounded(grace)?;
    runtime::leave();
    if let Some(engine) = Engine::running() {
        py.detach(|| engine.shut_down(&frame, grace));
    }
    Ok(())
}
