//! `_core.Exchange`: what processes tell each other of presence.

use std::{sync::Arc, time::Duration};

use pyo3::{prelude::*, pybacked::PyBackedStr, types::PyBytes};

use super::{
    call::Call,
    convert::duration,
    groups::Groups,
    presence::{Member, Presence},
};
use crate::engine::{
    backends::exchange::{self, Question, Step},
    clock,
};

/// Presence by a backend that carries bytes. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct Exchange(pub(super) Arc<exchange::Exchange>);

/// A question: its number, its call, and what is to be published.
type OpenQuestion<'py> = (u64, Call, Option<Bound<'py, PyBytes>>);

fn open_question(py: Python<'_>, question: Question) -> OpenQuestion<'_> {
    let bytes = question.bytes.map(|bytes| PyBytes::new(py, &bytes));
    (question.number, Call(question.call), bytes)
}

/// A step: a name, and what is to be published on its channel.
type Published<'py> = (String, Option<Bound<'py, PyBytes>>);

fn told(py: Python<'_>, steps: Vec<Step>) -> Vec<Published<'_>> {
    let steps = steps.into_iter().map(|step| match step {
        Step::Publish(name, bytes) => (name, Some(PyBytes::new(py, &bytes))),
        Step::Release(name) => (name, None),
    });
    steps.collect()
}

#[pymethods]
impl Exchange {
    #[new]
    fn new(presence: &Presence, groups: &Groups, most_bytes: usize) -> Self {
        let exchange = exchange::Exchange::new(&presence.0, &groups.0, most_bytes);
        Self(exchange)
    }

    #[staticmethod]
    fn is_message(envelope: &[u8]) -> bool {
        exchange::Exchange::is_message(envelope)
    }

    fn channels(&self) -> [String; 2] {
        self.0.channels()
    }

    fn wants(&self, py: Python<'_>, name: &str) -> bool {
        py.detach(|| self.0.wants(name))
    }

    fn takes_part(&self, py: Python<'_>, name: &str) -> bool {
        py.detach(|| self.0.takes_part(name))
    }

    fn begin(&self, py: Python<'_>, name: &str) -> bool {
        py.detach(|| self.0.begin(name))
    }

    fn end(&self, py: Python<'_>, name: &str) {
        py.detach(|| self.0.end(name));
    }

    fn learn<'py>(&self, py: Python<'py>, name: &str) -> Option<OpenQuestion<'py>> {
        let question = py.detach(|| self.0.learn(name))?;
        Some(open_question(py, question))
    }

    fn ask<'py>(&self, py: Python<'py>, name: &str) -> OpenQuestion<'py> {
        let question = py.detach(|| self.0.ask(name));
        open_question(py, question)
    }

    fn expect(&self, py: Python<'_>, number: u64, processes: usize) {
        py.detach(|| self.0.expect(number, processes));
    }

    fn give_up(&self, py: Python<'_>, number: u64) {
        py.detach(|| self.0.give_up(number));
    }

    fn fail(&self, py: Python<'_>, number: u64, reason: &str) {
        py.detach(|| self.0.fail(number, reason));
    }

    fn gathered(&self, py: Python<'_>, number: u64) -> Vec<Member> {
        let found = py.detach(|| self.0.gathered(number));
        Member::all(found)
    }

    #[pyo3(signature = (names=None))]
    fn greet(&self, py: Python<'_>, names: Option<Vec<PyBackedStr>>) {
        let names: Option<Vec<&str>> =
            (names.as_ref()).map(|names| names.iter().map(|name| &**name).collect());
        py.detach(|| self.0.greet(names.as_deref()));
    }

    fn take<'py>(&self, py: Python<'py>, timeout: f64) -> PyResult<Option<Vec<Published<'py>>>> {
        let deadline = clock::now() + duration(Some(timeout))?.unwrap_or(Duration::MAX);
        let steps = py.detach(|| self.0.take(deadline));
        Ok(steps.map(|steps| told(py, steps)))
    }

    fn note_failure(&self, py: Python<'_>) {
        py.detach(|| self.0.note_failure());
    }

    fn stop<'py>(&self, py: Python<'py>) -> Vec<Published<'py>> {
        let steps = py.detach(|| self.0.stop());
        told(py, steps)
    }

    fn on_message(&self, py: Python<'_>, name: &str, envelope: &[u8]) -> bool {
        py.detach(|| self.0.on_message(name, envelope))
    }
}
