//! How long it takes from a question to the server until its answer is here.

use std::time::{Duration, Instant};

/// The lag of one connection. It is measured now and then.
#[derive(Debug, Default)]
pub(super) struct Lag {
    last: Option<Duration>,
    asked_at: Option<Instant>,
}

impl Lag {
    /// Notes that the server is asked now. A question that it has not answered counts on.
    pub(super) fn ask(&mut self, now: Instant) {
        self.asked_at.get_or_insert(now);
    }

    /// Notes that its answer is here.
    pub(super) fn answer(&mut self, now: Instant) {
        self.last = self.since_asked(now);
        self.asked_at = None;
    }

    fn since_asked(&self, now: Instant) -> Option<Duration> {
        Some(now.saturating_duration_since(self.asked_at?))
    }

    /// The lag; `None` before the first answer. An answer that is overdue counts as far as it is.
    pub(super) fn read(&self, now: Instant) -> Option<Duration> {
        let last = self.last?;
        Some(self.since_asked(now).map_or(last, |it| it.max(last)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_last_answer_or_what_the_next_one_takes_if_that_is_more() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut lag = Lag::default();
        assert_eq!(lag.read(at(0)), None);
        lag.ask(at(0));
        assert_eq!(lag.read(at(5)), None);
        lag.answer(at(7));
        assert_eq!(lag.read(at(1000)), Some(Duration::from_millis(7)));
        lag.ask(at(5000));
        assert_eq!(lag.read(at(5003)), Some(Duration::from_millis(7)));
        assert_eq!(lag.read(at(5500)), Some(Duration::from_millis(500)));
        lag.answer(at(6000));
        assert_eq!(lag.read(at(9000)), Some(Duration::from_secs(1)));
    }
}
