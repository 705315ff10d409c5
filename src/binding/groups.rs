//! `_core.Groups` and `_core.Mailbox`: groups for Python.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use pyo3::{
    exceptions::{PyTypeError, PyValueError},
    prelude::*,
    pybacked::PyBackedBytes,
    types::{PyBytes, PyDict, PyString},
};

use super::{
    call::Wait,
    connection::PyConnection,
    convert::{Row, content, deadline, position, row, to_message},
    copy,
    hub::Hub,
};
use crate::{
    engine::{
        Connection, Engine,
        groups::{
            self, Event, Eviction, Joined, MemberId, Message, Mismatch, Notice, Offer, Token,
            WhenFull, Whom, envelope, room_ended, room_text,
        },
        history::{Entry, Page},
    },
    protocol::{close::CloseFrame, message::Kind},
};

/// All groups of one backend in this process. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct Groups(pub(super) Arc<groups::Groups>);

/// Memberships that begin as a connection opens, as Python has them.
pub(super) type Memberships<'py> = Vec<(PyRef<'py, Groups>, String, MemberId)>;

/// Returns what makes a connection a member as it opens.
pub(super) fn joining(
    memberships: Memberships<'_>,
) -> impl FnOnce(&Arc<Connection>) + Send + use<> {
    let memberships: Vec<_> = memberships
        .into_iter()
        .map(|(groups, name, id)| (Arc::clone(&groups.0), name, id))
        .collect();
    move |connection| {
        for (groups, name, id) in &memberships {
            groups.join(name, connection, *id);
        }
    }
}

/// The deputy of a connection that is expected from another process. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct Deputy {
    pub(super) member: Arc<groups::Deputy>,
    /// The marker at which it begins, if there is one.
    pub(super) marker: OnceLock<(Arc<groups::Groups>, Token)>,
}

/// A member that Python has given, by its kind.
pub(super) enum Member<'a> {
    Connection(&'a Arc<Connection>),
    Mailbox(&'a Arc<groups::Mailbox>),
    Seat(&'a Arc<groups::Seat>),
    Deputy(&'a Arc<groups::Deputy>),
}

pub(super) fn member<'a>(object: &'a Bound<'_, PyAny>) -> PyResult<Member<'a>> {
    if let Ok(connection) = object.cast::<PyConnection>() {
        return Ok(Member::Connection(&connection.get().0));
    }
    if let Ok(mailbox) = object.cast::<Mailbox>() {
        return Ok(Member::Mailbox(&mailbox.get().0));
    }
    if let Ok(seat) = object.cast::<Seat>() {
        return Ok(Member::Seat(&seat.get().seat));
    }
    match object.cast::<Deputy>() {
        Ok(deputy) => Ok(Member::Deputy(&deputy.get().member)),
        Err(_) => Err(PyTypeError::new_err(format!(
            "a member is a Connection, a Mailbox or a Seat, not {}",
            object.get_type().name()?
        ))),
    }
}

/// Does the same with a member of whichever kind.
macro_rules! with_member {
    ($object:expr, $member:ident => $call:expr) => {
        match $crate::binding::groups::member($object)? {
            $crate::binding::groups::Member::Connection($member) => $call,
            $crate::binding::groups::Member::Mailbox($member) => $call,
            $crate::binding::groups::Member::Seat($member) => $call,
            $crate::binding::groups::Member::Deputy($member) => $call,
        }
    };
}
pub(super) use with_member;

/// The member that Python has given, of whichever kind.
pub(super) fn anyone(object: &Bound<'_, PyAny>) -> PyResult<Arc<dyn groups::Member>> {
    Ok(with_member!(object, it => Arc::clone(it) as _))
}

pub(super) fn word_for(mismatch: Mismatch) -> &'static str {
    match mismatch {
        Mismatch::Behind => "behind",
        Mismatch::Early => "early",
    }
}

#[pymethods]
impl Groups {
    #[new]
    #[pyo3(signature = (when_full, key=None))]
    fn new(py: Python<'_>, when_full: &str, key: Option<&[u8]>) -> PyResult<Self> {
        let when_full = match when_full {
            "close" => WhenFull::Close,
            "drop_newest" => WhenFull::DropNewest,
            "drop_oldest" => WhenFull::DropOldest,
            "latest" => WhenFull::KeepLatest,
            other => {
                return Err(PyValueError::new_err(format!("no policy {other:?}")));
            }
        };
        let engine = py.detach(Engine::current)?;
        Ok(Self(groups::Groups::new(
            engine.fan_out_threads()?,
            when_full,
            key,
        )))
    }

    fn join(&self, name: &str, object: &Bound<'_, PyAny>, id: MemberId) -> PyResult<Option<bool>> {
        let joined = with_member!(object, it => self.0.join(name, it, id));
        Ok(match joined {
            Joined::Over | Joined::Refused => None,
            Joined::First => Some(true),
            Joined::More | Joined::Already => Some(false),
        })
    }

    fn leave(&self, name: &str, object: &Bound<'_, PyAny>) -> PyResult<Option<bool>> {
        Ok(with_member!(object, it => self.0.leave(name, it.as_ref())))
    }

    fn is_member(&self, name: &str, object: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(with_member!(object, it => self.0.is_member(name, it.as_ref())))
    }

    fn names_of(&self, object: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
        Ok(with_member!(object, it => self.0.names_of(it.as_ref())))
    }

    fn count(&self, name: &str) -> usize {
        self.0.count(name)
    }

    fn counts(&self, py: Python<'_>) -> Vec<(String, usize)> {
        py.detach(|| self.0.counts())
    }

    #[pyo3(signature = (name, message, exclude, /))]
    fn publish(
        &self,
        name: &str,
        message: &Bound<'_, PyAny>,
        exclude: Vec<MemberId>,
    ) -> PyResult<Option<Wait>> {
        let message = to_message(message, &exclude)?;
        let wait = self.0.wait_for_room(message.frame_len());
        if wait.is_none() {
            self.0.publish(name, message);
        }
        Ok(wait.map(Wait))
    }

    fn close(&self, name: &str, code: u16, reason: &str) -> PyResult<()> {
        self.0.close(name, CloseFrame::new(Some(code), reason)?);
        Ok(())
    }

    fn encode<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        message: &Bound<'_, PyAny>,
        exclude: Vec<MemberId>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let message = to_message(message, &exclude)?;
        self.0.statistics().count_in(name, Event::Published);
        copy::bytes(py, &self.0.envelope_of(name, &message))
    }

    fn encode_close<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        code: u16,
        reason: &str,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let frame = CloseFrame::new(Some(code), reason)?;
        Ok(PyBytes::new(
            py,
            &self.0.seal(name, envelope::of_close(&frame)),
        ))
    }

    #[pyo3(signature = (name, rest, exclude, /))]
    fn encode_event<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        rest: &str,
        exclude: Vec<MemberId>,
    ) -> Bound<'py, PyBytes> {
        let message = Message::event(rest.as_bytes(), &exclude);
        PyBytes::new(py, &self.0.envelope_of(name, &message))
    }

    #[pyo3(signature = (name, whom, reason, /))]
    fn encode_eviction<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        whom: &Bound<'py, PyAny>,
        reason: String,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let whom = match whom.cast::<PyString>() {
            Ok(user) => Whom::User(user.to_str()?.to_owned()),
            Err(_) => Whom::Member(whom.extract()?),
        };
        let eviction = Eviction { whom, reason };
        Ok(PyBytes::new(
            py,
            &self.0.seal(name, envelope::of_eviction(&eviction)),
        ))
    }

    #[pyo3(signature = (name, tokens, /))]
    fn encode_markers<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        tokens: Vec<Token>,
    ) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.seal(name, envelope::of_markers(&tokens)))
    }

    fn deliver(&self, py: Python<'_>, name: &str, envelope: &[u8]) -> bool {
        py.detach(|| self.0.deliver(name, envelope))
    }

    #[pyo3(signature = (name, at, envelope, /))]
    fn offer(
        &self,
        py: Python<'_>,
        name: &str,
        at: (u64, u64),
        envelope: &[u8],
    ) -> Option<&'static str> {
        let offer = py.detach(|| self.0.offer(name, position(at), envelope))?;
        Some(match offer {
            Offer::Taken => "taken",
            Offer::Behind => "behind",
        })
    }

    fn position_of(&self, name: &str) -> Option<(u64, u64)> {
        let at = self.0.position_of(name)?;
        Some((at.epoch, at.offset))
    }

    #[pyo3(signature = (name, at, /))]
    fn is_whole_since(&self, name: &str, at: (u64, u64)) -> bool {
        self.0.is_whole_since(name, position(at))
    }

    #[pyo3(signature = (name, object, /))]
    fn number(&self, name: &str, object: &Bound<'_, PyAny>) -> PyResult<Option<(u64, u64)>> {
        let at = with_member!(object, it => self.0.number(name, it.as_ref()));
        Ok(at.map(|at| (at.epoch, at.offset)))
    }

    fn recorded_names(&self, py: Python<'_>) -> Vec<String> {
        py.detach(|| self.0.recorded_names())
    }

    #[pyo3(signature = (name, head, rows, /))]
    fn take_page(
        &self,
        py: Python<'_>,
        name: &str,
        head: (u64, u64),
        rows: Vec<(u64, u64, PyBackedBytes)>,
    ) -> Option<Wait> {
        py.detach(|| {
            let entries = rows.iter().map(|(offset, sent_at, envelope)| Entry {
                offset: *offset,
                sent_at: *sent_at,
                envelope: Bytes::copy_from_slice(envelope),
            });
            let page = Page {
                head: position(head),
                entries: entries.collect(),
            };
            let wait = self.0.wait_for_room(page.bytes());
            if wait.is_none() {
                self.0.take_page(name, &page);
            }
            wait.map(Wait)
        })
    }

    #[pyo3(signature = (name, rows, /))]
    fn read_rows(
        &self,
        py: Python<'_>,
        name: &str,
        rows: Vec<(u64, u64, PyBackedBytes)>,
    ) -> PyResult<Vec<Row>> {
        let rows = rows.iter().filter_map(|(offset, sent_at, envelope)| {
            row(py, &self.0, name, (*offset, *sent_at, envelope)).transpose()
        });
        rows.collect()
    }

    #[pyo3(signature = (name, object, id, at, /, *, is_numbered))]
    fn enter_at(
        &self,
        name: &str,
        object: &Bound<'_, PyAny>,
        id: MemberId,
        at: (u64, u64),
        is_numbered: bool,
    ) -> PyResult<&'static str> {
        let (groups, at) = (&self.0, position(at));
        let joined = with_member!(object, it => groups.enter_at(name, it, id, at, is_numbered));
        Ok(match joined {
            Err(mismatch) => word_for(mismatch),
            Ok(Joined::Over | Joined::Refused) => "over",
            Ok(Joined::First) => "first",
            Ok(Joined::More | Joined::Already) => "joined",
        })
    }

    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counters = PyDict::new(py);
        for (name, value) in self.0.statistics().read() {
            counters.set_item(name, value)?;
        }
        Ok(counters)
    }

    #[getter]
    fn evictions(&self) -> u64 {
        self.0.evictions()
    }

    #[pyo3(signature = (name, /))]
    fn note_loss(&self, py: Python<'_>, name: &str) {
        py.detach(|| self.0.note_loss(name));
    }

    #[pyo3(signature = (event, name = ""))]
    fn note(&self, event: &str, name: &str) -> PyResult<()> {
        // The engine counts the others by itself.
        let event = match event {
            "published" => Event::Published,
            "failed" => Event::Failed,
            "unreadable" => Event::Unreadable,
            "lost" => Event::Lost,
            "regained" => Event::Regained,
            "restarted" => Event::Restarted,
            other => return Err(PyValueError::new_err(format!("no event {other:?}"))),
        };
        self.0.statistics().count_in(name, event);
        Ok(())
    }

    fn take_notice(
        &self,
        py: Python<'_>,
        timeout: Option<f64>,
    ) -> PyResult<Option<(&'static str, Vec<String>)>> {
        let deadline = deadline(timeout)?;
        let notice = py.detach(|| self.0.notices().take(deadline));
        Ok(notice.map(|notice| match notice {
            Notice::Slow(group) => ("slow", vec![group]),
            Notice::Lost(reason) => ("lost", vec![reason]),
            Notice::Regained(what) => ("regained", vec![what]),
            Notice::Damaged(file) => ("damaged", vec![file]),
            Notice::FullDisk(folder) => ("full_disk", vec![folder]),
            Notice::Interrupted(groups) => ("interrupted", groups),
            Notice::MembersLeft => ("members_left", Vec::new()),
            Notice::Restarted(what) => ("restarted", vec![what]),
            Notice::SeatEnded(seat) => ("seat_ended", vec![seat.to_string()]),
            Notice::Evicted { group, eviction } => match eviction.whom {
                Whom::Member(id) => (
                    "evicted",
                    vec![group, "member".to_owned(), HEXLOWER.encode(&id)],
                ),
                Whom::User(user) => ("evicted", vec![group, "user".to_owned(), user]),
            },
        }))
    }

    fn end_notices(&self, py: Python<'_>) {
        py.detach(|| self.0.notices().end());
    }
}

/// The messages of groups for what is no connection. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct Mailbox(pub(super) Arc<groups::Mailbox>);

#[pymethods]
impl Mailbox {
    #[new]
    fn new(capacity: usize, hub: &Hub, token: u64) -> Self {
        let hub = Arc::clone(&hub.0.hub);
        Self(groups::Mailbox::new(capacity, hub, token))
    }

    fn pop(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        Ok(match self.0.pop() {
            None => None,
            Some((Kind::Binary, payload)) => Some(copy::copied(py, &payload)?),
            Some((Kind::Text, payload)) => {
                let text = std::str::from_utf8(&payload)
                    .map_err(|error| PyValueError::new_err(error.to_string()))?;
                Some(
                    PyString::from_bytes(py, text.as_bytes())?
                        .into_any()
                        .unbind(),
                )
            }
        })
    }

    fn end(&self) {
        self.0.end();
    }
}

/// The facts about a connection that its seats share. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct Seats(Arc<groups::Seats>);

#[pymethods]
impl Seats {
    #[new]
    #[pyo3(signature = (object, id, user, number, /))]
    fn new(
        object: &Bound<'_, PyAny>,
        id: MemberId,
        user: Option<&str>,
        number: u64,
    ) -> PyResult<Self> {
        Ok(Self(match member(object)? {
            Member::Connection(it) => groups::Seats::new(it, id, user, number),
            Member::Mailbox(it) => groups::Seats::new(it, id, user, number),
            Member::Seat(_) | Member::Deputy(_) => {
                return Err(PyTypeError::new_err("a seat has no seats"));
            }
        }))
    }

    #[pyo3(signature = (room, /))]
    fn take(&self, room: &str) -> Option<Seat> {
        Some(self.handle(self.0.take(room)?))
    }

    #[pyo3(signature = (room, /))]
    fn find(&self, room: &str) -> Option<Seat> {
        Some(self.handle(self.0.find(room)?))
    }

    fn rooms(&self) -> Vec<String> {
        self.0.rooms()
    }

    fn ended(&self) -> Vec<String> {
        self.0.ended()
    }

    fn __len__(&self) -> usize {
        self.0.count()
    }
}

impl Seats {
    fn handle(&self, seat: Arc<groups::Seat>) -> Seat {
        Seat {
            seat,
            all: Arc::clone(&self.0),
        }
    }
}

/// A connection in one room. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct Seat {
    pub(super) seat: Arc<groups::Seat>,
    all: Arc<groups::Seats>,
}

#[pymethods]
impl Seat {
    #[pyo3(signature = (at, /))]
    fn open(&self, py: Python<'_>, at: Option<(u64, u64)>) -> bool {
        py.detach(|| self.seat.open(at.map(position)))
    }

    #[getter]
    fn position(&self) -> Option<(u64, u64)> {
        let at = self.seat.position()?;
        Some((at.epoch, at.offset))
    }

    fn leave(&self, py: Python<'_>) {
        py.detach(|| self.all.leave(&self.seat));
    }

    #[getter]
    fn is_over(&self) -> bool {
        self.seat.is_over()
    }

    #[getter]
    fn owes_loss(&self, py: Python<'_>) -> bool {
        py.detach(|| self.seat.owes_loss())
    }
}

/// See `_core.pyi`.
#[pyfunction]
#[pyo3(signature = (room, at, message, /))]
pub(crate) fn in_room(
    room: &str,
    at: Option<(u64, u64)>,
    message: &Bound<'_, PyAny>,
) -> PyResult<String> {
    let (kind, payload) = content(message)?;
    Ok(room_text(room, at.map(position), kind, payload))
}

/// See `_core.pyi`.
#[pyfunction]
#[pyo3(signature = (room, code, reason, /))]
pub(crate) fn ended(room: &str, code: &str, reason: &str) -> String {
    room_ended(room, code, reason)
}
