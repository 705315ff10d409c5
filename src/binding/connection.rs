//! `_core.Connection`: one WebSocket for Python.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use pyo3::{
    prelude::*,
    types::{PyBytes, PyString},
};

use super::{
    convert::{self, Counts, deadline, duration, to_message},
    copy,
    exceptions::UnsupportedServer,
    hub::Hub,
    next_message::{NextMessage, make_way},
    sleep::{self, without_gil},
};
use crate::{
    engine::{
        Connection, Initiator, Parts, Ping, Received, Watch, budget::Account, clock, descriptor,
        descriptor::Raw,
    },
    protocol::{
        close::{CloseFrame, SERVICE_RESTART},
        frame::Opcode,
        message::Kind,
    },
};

/// How the texts begin that groups send. One of the project's own is told apart by its caller.
const OWN: &[u8] = br#"{"group":"#;
const NO_PINGS: &str = "ping() is not possible behind this ASGI server: it keeps the connection and \
    pings by itself, and ASGI has no event for that. There, let the client answer a message.";

/// The parts of a connection that moves: descriptor, bytes to read and to send, unread messages, and
/// the seconds to the next ping and those of silence since the last one.
type Given<'py> = (
    Raw,
    Bound<'py, PyBytes>,
    Bound<'py, PyBytes>,
    Vec<(bool, Bound<'py, PyBytes>)>,
    (Option<f64>, Option<f64>),
);

/// One WebSocket. See `_core.pyi` for what each method promises.
#[pyclass(frozen, module = "dwebsocket._core", name = "Connection")]
pub(crate) struct PyConnection(pub(super) Arc<Connection>);

/// Bytes that Python holds for a connection. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct Hold(Mutex<Account>);

#[pymethods]
impl Hold {
    fn release(&self) {
        self.0.lock().set(0);
    }
}

#[pymethods]
impl PyConnection {
    #[pyo3(signature = (count, /))]
    fn hold(&self, count: usize) -> Hold {
        let mut account = Account::of(&self.0.share);
        account.set(count);
        Hold(Mutex::new(account))
    }

    #[staticmethod]
    fn never_opened() -> Self {
        Self(Arc::new(Connection::never_opened()))
    }

    #[getter]
    fn id(&self) -> u64 {
        self.0.id()
    }

    fn as_member(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (text_as_bytes, /))]
    fn pop(&self, py: Python<'_>, text_as_bytes: bool) -> PyResult<Option<Py<PyAny>>> {
        yield_gil_if_due(py, &self.0);
        message_of(py, self.0.take_now(), text_as_bytes)
    }

    fn owes_a_pause(&self) -> bool {
        self.0.owes_a_pause()
    }

    fn take(
        &self,
        py: Python<'_>,
        timeout: Option<f64>,
        text_as_bytes: bool,
    ) -> PyResult<Option<Py<PyAny>>> {
        let time = duration(timeout)?;
        yield_gil_if_due(py, &self.0);
        // To take a message that is here already needs no detaching. Without one, `take` sends what
        // is corked: a system call, so without the GIL, even if there is no time to wait.
        let mut taken = self.0.take_now();
        if matches!(taken, Received::Nothing)
            && (time != Some(Duration::ZERO) || self.0.has_corked())
        {
            let deadline = time.and_then(|time| clock::now().checked_add(time));
            taken = self.take_until(py, deadline)?;
        }
        message_of(py, taken, text_as_bytes)
    }

    #[pyo3(signature = (time, text_as_bytes, /))]
    fn take_coarse(
        &self,
        py: Python<'_>,
        time: f64,
        text_as_bytes: bool,
    ) -> PyResult<Option<Py<PyAny>>> {
        let time = duration(Some(time))?.unwrap_or(Duration::MAX);
        yield_gil_if_due(py, &self.0);
        let mut taken = self.0.take_now();
        if matches!(taken, Received::Nothing) {
            taken = if sleep::is_main_thread() {
                self.take_until(py, clock::now().checked_add(time))?
            } else {
                without_gil(py, &self.0, || self.0.take_coarse(time))
            };
        }
        message_of(py, taken, text_as_bytes)
    }

    #[pyo3(signature = (message, text_as_bytes, sender, /))]
    fn post(
        &self,
        message: &Bound<'_, PyAny>,
        text_as_bytes: bool,
        sender: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let (is_text, payload) = if let Ok(text) = message.cast::<PyString>() {
            (true, text.to_str()?.as_bytes())
        } else if let Ok(bytes) = message.cast::<PyBytes>() {
            (false, bytes.as_bytes())
        } else {
            return Ok(false);
        };
        if self.0.is_slow_to_send(payload.len()) {
            return Ok(false);
        }
        let is_text = is_text || (text_as_bytes && convert::is_text(payload));
        if is_text && payload.starts_with(OWN) {
            return Ok(false);
        }
        let kind = if is_text { Kind::Text } else { Kind::Binary };
        if payload.len() > Connection::MAX_AT_ONCE {
            return Ok(message.py().detach(|| self.0.write(kind, payload)));
        }
        let held = match sender.cast::<Self>() {
            Ok(sender) => self.0.cork_for(&sender.get().0, kind, payload),
            Err(_) => false,
        };
        Ok(held || self.0.write(kind, payload))
    }

    #[pyo3(signature = (message, *, binary=None, timeout=None))]
    fn send(
        &self,
        py: Python<'_>,
        message: &Bound<'_, PyAny>,
        binary: Option<bool>,
        timeout: Option<f64>,
    ) -> PyResult<bool> {
        let (kind, payload) = convert::to_frame(py, message, binary)?;
        let timeout = match timeout {
            None => None,
            Some(seconds) => Some(duration(Some(seconds))?.unwrap_or(Duration::MAX)),
        };
        if timeout.is_some() && self.0.cork(kind, payload) {
            return Ok(true);
        }
        match timeout.filter(|_| sleep::is_main_thread()) {
            Some(timeout) => self.send_on_main_thread(py, kind, payload, timeout),
            None => Ok(without_gil(py, &self.0, || {
                self.0.send(kind, payload, timeout)
            })?),
        }
    }

    #[pyo3(signature = (message, *, binary=None))]
    fn try_send(
        &self,
        py: Python<'_>,
        message: &Bound<'_, PyAny>,
        binary: Option<bool>,
    ) -> PyResult<Option<bool>> {
        let (kind, payload) = convert::to_frame(py, message, binary)?;
        if self.0.cork(kind, payload) {
            return Ok(Some(true));
        }
        Ok(py.detach(|| self.0.try_send(kind, payload)))
    }

    #[pyo3(signature = (message, *, binary=None))]
    fn send_beyond(
        &self,
        py: Python<'_>,
        message: &Bound<'_, PyAny>,
        binary: Option<bool>,
    ) -> PyResult<Option<bool>> {
        let (kind, payload) = convert::to_frame(py, message, binary)?;
        Ok(py.detach(|| self.0.send_beyond(kind, payload)))
    }

    fn has_room(&self) -> bool {
        self.0.has_room()
    }

    fn send_together(&self, py: Python<'_>, messages: Vec<Bound<'_, PyAny>>) -> PyResult<usize> {
        let messages: PyResult<Vec<_>> = messages.iter().map(|one| to_message(one, &[])).collect();
        let messages = messages?;
        Ok(py.detach(|| self.0.send_together(messages)))
    }

    fn close(&self, py: Python<'_>, code: u16, reason: &str) -> PyResult<bool> {
        let frame = CloseFrame::new(Some(code), reason)?;
        Ok(py.detach(|| self.0.close(&frame)))
    }

    fn half_close(&self, py: Python<'_>, code: u16, reason: &str) -> PyResult<bool> {
        let frame = CloseFrame::new(Some(code), reason)?;
        Ok(py.detach(|| self.0.half_close(&frame)))
    }

    fn waiting(&self) -> (usize, bool) {
        self.0.waiting()
    }

    fn end(&self) -> Option<(u16, String, &'static str)> {
        self.0.end().map(|end| {
            let by = match end.by {
                Initiator::Local => "local",
                Initiator::Peer => "peer",
                Initiator::Lost => "lost",
            };
            (end.code, end.reason, by)
        })
    }

    fn messages(&self) -> (u64, u64) {
        self.0.messages()
    }

    fn traffic(&self) -> Counts {
        convert::counts(&self.0.traffic())
    }

    fn ended_for(&self) -> Option<f64> {
        self.0.ended_for().map(|time| time.as_secs_f64())
    }

    fn await_news(&self, py: Python<'_>, time: f64) -> PyResult<()> {
        let time = duration(Some(time))?.unwrap_or(Duration::MAX);
        sleep::until(
            py,
            clock::now().checked_add(time),
            |deadline| without_gil(py, &self.0, || self.0.await_news(deadline)),
            || (self.0.waiting() != (0, false)).then_some(()),
        )?;
        Ok(())
    }

    fn descriptor(&self) -> PyResult<Option<Raw>> {
        Ok(self.0.descriptor()?)
    }

    fn mark_end_read(&self) {
        self.0.mark_end_read();
    }

    fn close_descriptor(&self) {
        self.0.close_descriptor();
    }

    fn discard(&self, py: Python<'_>) {
        py.detach(|| self.0.discard());
    }

    fn ping(&self, py: Python<'_>, payload: &[u8]) -> bool {
        py.detach(|| self.0.send_control(Opcode::Ping, payload))
    }

    fn pong(&self, py: Python<'_>, payload: &[u8]) -> bool {
        py.detach(|| self.0.send_control(Opcode::Pong, payload))
    }

    fn begin_beat(&self, seconds: f64) -> PyResult<()> {
        if let Some(every) = duration(Some(seconds))? {
            self.0.begin_beat(every);
        }
        Ok(())
    }

    fn answer_pings(&self) {
        self.0.answer_pings();
    }

    #[pyo3(signature = (names, /))]
    fn pass_events(&self, names: Vec<Bound<'_, PyString>>) {
        // A name with half of a surrogate pair is none that the engine reads.
        let names = names.iter().filter_map(|name| name.to_str().ok());
        self.0.pass_events(names.collect());
    }

    fn begin_ping(&self, py: Python<'_>) -> PyResult<Option<PyPing>> {
        if self.0.is_carried() {
            return Err(UnsupportedServer::new_err(NO_PINGS));
        }
        Ok(py.detach(|| self.0.ping()).map(PyPing))
    }

    #[getter]
    fn is_carried(&self) -> bool {
        self.0.is_carried()
    }

    #[getter]
    fn latency(&self) -> Option<f64> {
        self.0.latency().map(|time| time.as_secs_f64())
    }

    #[getter]
    fn pings_received(&self) -> u32 {
        self.0.pings_received()
    }

    fn watch_pings(&self, hub: &Hub, token: u64) {
        self.0
            .watch_pings(Watch::new(Arc::clone(&hub.0.hub), token));
    }

    fn unwatch_pings(&self, hub: &Hub, token: u64) {
        self.0.unwatch_pings(&hub.0.hub, token);
    }

    fn await_end(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let deadline = deadline(timeout)?;
        let end = sleep::until(
            py,
            deadline,
            |deadline| without_gil(py, &self.0, || self.0.await_end(deadline)),
            || self.0.end(),
        )?;
        Ok(end.is_some())
    }

    fn watch_end(&self, hub: &Hub, token: u64) {
        self.0.watch_end(Watch::new(Arc::clone(&hub.0.hub), token));
    }

    fn is_awaited(&self) -> bool {
        self.0.is_awaited()
    }

    #[pyo3(signature = (find_hub, /))]
    fn next(&self, find_hub: Py<PyAny>) -> NextMessage {
        NextMessage::new(Arc::clone(&self.0), Some(find_hub))
    }

    fn next_now(&self) -> NextMessage {
        NextMessage::new(Arc::clone(&self.0), None)
    }

    #[pyo3(signature = (message, /))]
    fn is_slow_to_send(&self, message: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(self.0.is_slow_to_send(message.len()?))
    }

    fn watch_inbox(&self, hub: &Hub, token: u64) {
        self.0
            .watch_inbox(Watch::new(Arc::clone(&hub.0.hub), token));
    }

    #[pyo3(signature = (hub, token, /))]
    fn listen(&self, py: Python<'_>, hub: &Bound<'_, Hub>, token: u64) -> bool {
        make_way(py, &self.0);
        let hub = &hub.get().0.hub;
        self.0.listen(|| Watch::new(Arc::clone(hub), token))
    }

    #[pyo3(signature = (size, /))]
    fn count_held(&self, size: usize) {
        self.0.count_held(size);
    }

    #[getter]
    fn is_closed_by_group(&self) -> bool {
        self.0.is_closed_by_group()
    }

    #[getter]
    fn is_movable(&self) -> bool {
        self.0.is_movable()
    }

    #[getter]
    fn agreement(&self) -> Option<String> {
        self.0.agreement().map(|agreement| agreement.to_string())
    }

    fn spare(&self) {
        self.0.spare();
    }

    #[pyo3(signature = (hub, token, /))]
    fn rouse(&self, py: Python<'_>, hub: &Bound<'_, Hub>, token: u64) {
        let hub = &hub.get().0.hub;
        py.detach(|| self.0.rouse(hub, token));
    }

    #[pyo3(signature = (hub, token, /))]
    fn unlisten(&self, hub: &Hub, token: u64) -> bool {
        self.0.unlisten(&hub.0.hub, token)
    }

    fn halt(&self) {
        self.0.halt();
    }

    #[getter]
    fn is_still(&self) -> bool {
        self.0.is_still()
    }

    fn go_on(&self) {
        self.0.go_on();
    }

    #[pyo3(signature = (patience, /))]
    fn give_away<'py>(&self, py: Python<'py>, patience: f64) -> PyResult<Option<Given<'py>>> {
        let patience = duration(Some(patience))?.unwrap_or(Duration::MAX);
        let Some(parts) = py.detach(|| self.0.give_away(patience))? else {
            return Ok(None);
        };
        let given = given(py, parts).inspect_err(|_| {
            // There is no memory for them: nobody can go on with it, and its client is to know.
            let frame = CloseFrame::of(SERVICE_RESTART, "restarting");
            py.detach(|| self.0.take_back(&frame));
        })?;
        Ok(Some(given))
    }

    fn part(&self, py: Python<'_>) {
        py.detach(|| self.0.part());
    }

    fn take_back(&self, py: Python<'_>, code: u16, reason: &str) -> PyResult<()> {
        let frame = CloseFrame::new(Some(code), reason)?;
        py.detach(|| self.0.take_back(&frame));
        Ok(())
    }

    #[pyo3(signature = (unsent, /))]
    fn release(&self, py: Python<'_>, unsent: &[u8]) {
        let unsent = unsent.to_vec();
        py.detach(|| self.0.release(unsent));
    }

    fn watch_outbox(&self, hub: &Hub, token: u64) {
        self.0
            .watch_outbox(Watch::new(Arc::clone(&hub.0.hub), token));
    }

    fn unwatch(&self, hub: &Hub, token: u64) {
        self.0.unwatch(&hub.0.hub, token);
    }
}

fn given(py: Python<'_>, parts: Parts) -> PyResult<Given<'_>> {
    let (unread, pulse) = (parts.unread.iter(), parts.incoming.pulse);
    let seconds = |time: Duration| time.as_secs_f64();
    let unread = unread.map(|message| {
        let payload = copy::bytes(py, &message.payload)?;
        Ok((message.kind == Kind::Text, payload))
    });
    let unread = unread.collect::<PyResult<_>>()?;
    let incoming = copy::bytes(py, &parts.incoming.bytes)?;
    let unsent = copy::bytes(py, &parts.unsent)?;
    Ok((
        descriptor::into_raw(parts.client),
        incoming,
        unsent,
        unread,
        (pulse.next_ping.map(seconds), pulse.silence.map(seconds)),
    ))
}

impl PyConnection {
    /// Takes the oldest message, sleeping until `deadline` if there is none.
    fn take_until(&self, py: Python<'_>, deadline: Option<Instant>) -> PyResult<Received> {
        if !sleep::is_main_thread() {
            return Ok(without_gil(py, &self.0, || self.0.take(deadline)));
        }
        let taken = sleep::until(
            py,
            deadline,
            |deadline| without_gil(py, &self.0, || self.0.await_news(deadline)),
            || Some(self.0.take_now()).filter(|taken| !matches!(taken, Received::Nothing)),
        )?;
        Ok(taken.unwrap_or(Received::Nothing))
    }

    /// Sends, and handlers of signals run while there is no room. They may send on this
    /// connection, too: so nothing of it is locked meanwhile.
    fn send_on_main_thread(
        &self,
        py: Python<'_>,
        kind: Kind,
        payload: &[u8],
        timeout: Duration,
    ) -> PyResult<bool> {
        let deadline = clock::now().checked_add(timeout);
        let try_send = || self.0.try_send(kind, payload);
        if let Some(sent) = without_gil(py, &self.0, try_send) {
            return Ok(sent);
        }
        let sent = sleep::until(
            py,
            deadline,
            |deadline| without_gil(py, &self.0, || self.0.await_room(deadline)),
            || without_gil(py, &self.0, try_send),
        );
        if !matches!(sent, Ok(Some(_))) {
            self.0.give_way();
        }
        match sent? {
            Some(sent) => Ok(sent),
            None => Err(self.0.no_room(timeout).into()),
        }
    }
}

/// A ping on its way. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core", name = "Ping")]
pub(crate) struct PyPing(Ping);

#[pymethods]
impl PyPing {
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<f64>> {
        let time = duration(timeout)?;
        let mut took = self.0.took();
        if took.is_none() && time != Some(Duration::ZERO) {
            let deadline = time.and_then(|time| clock::now().checked_add(time));
            let connection = self.0.connection();
            let woken = sleep::until(
                py,
                deadline,
                |deadline| {
                    without_gil(py, connection, || self.0.wait(deadline));
                },
                || {
                    // First the end: an answer that came before it counts.
                    let is_over = connection.end().is_some();
                    let took = self.0.took();
                    (is_over || took.is_some()).then_some(took)
                },
            )?;
            took = woken.flatten();
        }
        Ok(took.map(|time| time.as_secs_f64()))
    }
}

/// The message that was taken, for Python; None where there was none.
fn message_of(py: Python<'_>, taken: Received, text_as_bytes: bool) -> PyResult<Option<Py<PyAny>>> {
    match taken {
        Received::Message(message) => convert::to_python(py, &message, text_as_bytes).map(Some),
        Received::Nothing | Received::End => Ok(None),
    }
}

/// To be called by a thread before it takes a message: releases the GIL once if its time slice is
/// over, that is, if it has found messages for a millisecond without sleeping.
fn yield_gil_if_due(py: Python<'_>, connection: &Connection) {
    if connection.owes_a_pause() {
        without_gil(py, connection, thread::yield_now);
    }
}
