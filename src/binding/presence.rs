//! `_core.Presence` and `_core.Member`: the users that are present in groups, for Python.

use std::sync::Arc;

use pyo3::{
    intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyDict, PyString, PyTuple, PyType},
};

use super::{
    call::Wait,
    convert::duration,
    groups::{self, Groups, anyone, member, with_member},
};
use crate::engine::{
    groups::MemberId,
    presence::{self, Arrival, Contact, Entered, Facts, user_text},
};

/// The users that are present in the groups of one backend. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct Presence(pub(super) Arc<presence::Presence>);

/// A user that is present in a group. See `_core.pyi`.
///
/// The attributes are made when they are read: a large group has many members.
#[pyclass(frozen, module = "dwebsocket.groups")]
pub(crate) struct Member {
    facts: Arc<Facts>,
}

impl Member {
    /// Users for Python.
    pub(super) fn all(found: Vec<(Arc<Facts>, u32)>) -> Vec<Self> {
        let found = found.into_iter();
        found.map(|(facts, _)| Self { facts }).collect()
    }
}

/// Whether a user has joined, for Python: an empty tuple, or the user and what is to be waited for.
#[derive(IntoPyObject)]
pub(crate) enum Arrived {
    Not(()),
    New(Member, Option<Wait>),
}

fn loads(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static ONCE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    ONCE.import(py, "json", "loads")
}

#[pymethods]
impl Presence {
    #[new]
    fn new(groups: &Groups) -> Self {
        Self(presence::Presence::new(Arc::clone(&groups.0)))
    }

    #[pyo3(signature = (
        name, object, id, key, user, now, info, watches, grace, connection, is_present, tells,
        said_at=None, /
    ))]
    #[expect(clippy::too_many_arguments, reason = "Python's arguments")]
    fn enter(
        &self,
        py: Python<'_>,
        name: &str,
        object: &Bound<'_, PyAny>,
        id: MemberId,
        key: String,
        user: Option<String>,
        now: String,
        info: Option<String>,
        watches: bool,
        grace: f64,
        connection: &str,
        is_present: bool,
        tells: bool,
        said_at: Option<u64>,
    ) -> PyResult<Option<Arrived>> {
        let arrival = Arrival {
            facts: Facts {
                since: now,
                key,
                user,
                info: "null".to_owned(),
                connections: Vec::new(),
            },
            info,
            is_present,
            tells,
            said_at,
            name: connection.into(),
            watches,
            grace: duration(Some(grace))?.unwrap_or_default(),
        };
        let entered = with_member!(object, it => py.detach(|| self.0.enter(name, it, id, arrival)));
        Ok(match entered {
            Entered::Over => None,
            Entered::Present => Some(Arrived::Not(())),
            Entered::Joined(facts, wait) => Some(Arrived::New(Member { facts }, wait.map(Wait))),
        })
    }

    fn tells(&self, py: Python<'_>, name: &str, key: &str) -> bool {
        py.detach(|| self.0.tells(name, key))
    }

    fn leave(&self, py: Python<'_>, name: &str, object: &Bound<'_, PyAny>) -> PyResult<()> {
        let member = anyone(object)?;
        py.detach(|| self.0.leave(name, member.as_ref()));
        Ok(())
    }

    #[pyo3(signature = (name, object, /))]
    fn standing(
        &self,
        py: Python<'_>,
        name: &str,
        object: &Bound<'_, PyAny>,
    ) -> PyResult<Option<Standing>> {
        let member = anyone(object)?;
        let found = py.detach(|| self.0.standing(name, member.as_ref()));
        Ok(found.map(|found| {
            let facts = found.facts;
            let who = facts.map(|facts| (facts.key, facts.user, facts.since));
            (who, found.info, found.watches, found.grace.as_secs_f64())
        }))
    }

    #[pyo3(signature = (name, key, /))]
    fn knows(&self, name: &str, key: &str) -> bool {
        self.0.knows(name, key)
    }

    #[pyo3(signature = (name, object, /))]
    fn is_elsewhere(&self, name: &str, object: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(self.0.is_elsewhere(name, anyone(object)?.as_ref()))
    }

    #[pyo3(signature = (name, object, waits, /))]
    fn end_watch(
        &self,
        py: Python<'_>,
        name: &str,
        object: &Bound<'_, PyAny>,
        waits: bool,
    ) -> PyResult<Option<(u64, Option<u64>)>> {
        let member = anyone(object)?;
        let known = py.detach(|| self.0.end_watch(name, member.as_ref(), waits));
        Ok(known.map(|known| (known.digest, known.before)))
    }

    #[pyo3(signature = (name, object, known, ago, /))]
    fn resume_watch(
        &self,
        py: Python<'_>,
        name: &str,
        object: &Bound<'_, PyAny>,
        known: (u64, Option<u64>),
        ago: f64,
    ) -> PyResult<bool> {
        let (digest, before) = known;
        let known = presence::Known { digest, before };
        let ago = duration(Some(ago))?.unwrap_or_default();
        Ok(match member(object)? {
            groups::Member::Connection(it) => {
                py.detach(|| self.0.resume_watch(name, it, known, ago))
            }
            groups::Member::Seat(it) => py.detach(|| self.0.resume_watch(name, it, known, ago)),
            groups::Member::Mailbox(_) | groups::Member::Deputy(_) => false,
        })
    }

    fn members(&self, py: Python<'_>, name: &str) -> Vec<Member> {
        Member::all(py.detach(|| self.0.members(name)))
    }

    fn take_departed(&self, py: Python<'_>) -> Vec<(String, Member, bool)> {
        let departed = py.detach(|| self.0.take_departed());
        departed
            .into_iter()
            .map(|departed| {
                let member = Member {
                    facts: departed.facts,
                };
                (departed.name.to_string(), member, departed.is_back)
            })
            .collect()
    }
}

/// The user with key, primary key and moment; what it says, and when; whether it watches; the grace.
type Standing = (
    Option<(String, Option<String>, String)>,
    Option<(String, u64)>,
    bool,
    f64,
);

#[pymethods]
impl Member {
    #[new]
    fn new(
        py: Python<'_>,
        user: Option<String>,
        key: String,
        since: &Bound<'_, PyAny>,
        info: &Bound<'_, PyAny>,
        connections: Vec<Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        static ONCE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let dumps = ONCE.import(py, "json", "dumps")?;
        let connections = connections.iter().map(|each| {
            let id: String = each.as_any().get_item("id")?.extract()?;
            let info: String = dumps.call1((each.as_any().get_item("info")?,))?.extract()?;
            Ok(Contact {
                id: id.into(),
                info: info.into(),
            })
        });
        Ok(Self {
            facts: Arc::new(Facts {
                since: since.call_method0("isoformat")?.extract()?,
                key,
                user,
                info: dumps.call1((info,))?.extract()?,
                connections: connections.collect::<PyResult<_>>()?,
            }),
        })
    }

    #[getter]
    fn user(&self) -> Option<&str> {
        self.facts.user.as_deref()
    }

    #[getter]
    fn key(&self) -> &str {
        &self.facts.key
    }

    #[getter]
    fn since<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static ONCE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let datetime = ONCE.import(py, "datetime", "datetime")?;
        datetime.call_method1(intern!(py, "fromisoformat"), (&self.facts.since,))
    }

    #[getter]
    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        loads(py)?.call1((&self.facts.info,))
    }

    #[getter]
    fn connections<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let loads = loads(py)?;
        let connections = self.facts.connections.iter();
        let found = connections.map(|contact| {
            let each = PyDict::new(py);
            each.set_item("id", &*contact.id)?;
            each.set_item("info", loads.call1((&*contact.info,))?)?;
            Ok(each)
        });
        found.collect()
    }

    fn as_json(&self) -> String {
        user_text(&self.facts)
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> Option<bool> {
        let other = other.cast::<Self>().ok()?.get();
        Some(self.facts == other.facts)
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        (&self.facts.key, &self.facts.since)
            .into_pyobject(py)?
            .hash()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let quoted = |text: &str| PyString::new(py, text).repr().map(|text| text.to_string());
        let user = match &self.facts.user {
            Some(user) => quoted(user)?,
            None => "None".to_owned(),
        };
        Ok(format!(
            "Member(user={user}, key={}, since={}, info={}, connections={})",
            quoted(&self.facts.key)?,
            self.since(py)?.repr()?,
            self.info(py)?.repr()?,
            // Not their names, which a log need not have.
            self.facts.connections.len(),
        ))
    }

    fn __reduce__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyType>, Bound<'py, PyTuple>)> {
        let arguments = (
            self.user(),
            self.key(),
            self.since(py)?,
            self.info(py)?,
            self.connections(py)?,
        );
        Ok((py.get_type::<Self>(), arguments.into_pyobject(py)?))
    }
}
