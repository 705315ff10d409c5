//! Pings of the application's own, and how long the last answered ping took.
//!
//! Each has a number of its own as its payload; the engine's, for keepalive, have none. A peer that
//! is behind may answer the last of several pings only (RFC 6455 section 5.5.3), so the answer to
//! one answers all before it.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::engine::{
    base::sync::{Condvar, Mutex},
    wakeup::hub::{Hub, Watch},
};

/// The pings of one connection. Any thread may use it.
#[derive(Debug, Default)]
pub(crate) struct Pings {
    state: Mutex<State>,
    /// Woken at each answer to a ping of the application's, and at the end of the connection.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    latency: Option<Duration>,
    /// When the engine's last unanswered ping was sent.
    keepalive: Option<Instant>,
    /// The connection has ended: no ping is answered any more.
    is_over: bool,
    /// How many pings of the peer have come.
    received: u32,
    own: Option<Box<Own>>,
}

/// The application's pings; made for the first caller.
#[derive(Debug)]
struct Own {
    /// The first number. Peers cannot guess it, so they cannot answer a ping that was not sent.
    first: u64,
    count: u64,
    /// In the order of their numbers.
    waiting: Vec<Waiting>,
    watches: Vec<Watch>,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    sent_at: Instant,
    took: Option<Duration>,
}

impl Own {
    /// How many pings came before that of `number`, if it is one of ours.
    fn index(&self, number: u64) -> Option<u64> {
        let index = number.wrapping_sub(self.first);
        (index < self.count).then_some(index)
    }
}

impl Default for Own {
    fn default() -> Self {
        Self {
            first: RandomState::new().hash_one(()),
            count: 0,
            waiting: Vec::new(),
            watches: Vec::new(),
        }
    }
}

impl Pings {
    /// To be called when the engine sends a ping of its own.
    pub(crate) fn keepalive(&self, now: Instant) {
        self.state.lock().keepalive = Some(now);
    }

    /// To be called for each ping of the peer.
    pub(crate) fn on_ping(&self) {
        let mut state = self.state.lock();
        state.received = state.received.wrapping_add(1);
    }

    /// How many pings of the peer have come.
    pub(crate) fn received(&self) -> u32 {
        self.state.lock().received
    }

    /// To be called for each pong.
    pub(crate) fn answered(&self, payload: &[u8], now: Instant) {
        let mut state = self.state.lock();
        if payload.is_empty() {
            if let Some(sent_at) = state.keepalive.take() {
                state.latency = Some(now.saturating_duration_since(sent_at));
            }
            return;
        }
        let State { latency, own, .. } = &mut *state;
        let (Some(own), Ok(number)) = (own, payload.try_into()) else {
            return;
        };
        let number = u64::from_be_bytes(number);
        let Some(index) = own.index(number) else {
            return;
        };
        let first = own.first;
        for ping in &mut own.waiting {
            if ping.took.is_none() && ping.number.wrapping_sub(first) <= index {
                let took = now.saturating_duration_since(ping.sent_at);
                ping.took = Some(took);
                *latency = Some(took);
            }
        }
        let watches = std::mem::take(&mut own.watches);
        drop(state);
        self.changed.notify_all();
        watches.into_iter().for_each(Watch::notify);
    }

    /// To be called when the connection has ended. May be repeated.
    pub(crate) fn on_end(&self) {
        let mut state = self.state.lock();
        state.is_over = true;
        let own = state.own.as_mut();
        let watches = own.map(|own| std::mem::take(&mut own.watches));
        drop(state);
        self.changed.notify_all();
        watches.into_iter().flatten().for_each(Watch::notify);
    }

    /// To be called when the clock was stepped.
    pub(crate) fn on_step(&self) {
        drop(self.state.lock());
        self.changed.notify_all();
    }

    /// How long the last answered ping took.
    pub(crate) fn latency(&self) -> Option<Duration> {
        self.state.lock().latency
    }

    /// Notifies `watch` of the next answer, or of the end, which may have come already.
    pub(crate) fn watch(&self, watch: Watch) {
        let mut state = self.state.lock();
        if !state.is_over {
            state.own.get_or_insert_default().watches.push(watch);
            return;
        }
        drop(state);
        watch.notify();
    }

    /// Removes a watch of [`Pings::watch`] that was not notified yet.
    pub(crate) fn unwatch(&self, hub: &Arc<Hub>, token: u64) {
        if let Some(own) = &mut self.state.lock().own {
            own.watches.retain(|watch| !watch.is(hub, token));
        }
    }

    /// Notes a ping that is sent at `now`; returns its number.
    pub(crate) fn begin(&self, now: Instant) -> u64 {
        let mut state = self.state.lock();
        let own = state.own.get_or_insert_default();
        let number = own.first.wrapping_add(own.count);
        own.count += 1;
        own.waiting.push(Waiting {
            number,
            sent_at: now,
            took: None,
        });
        number
    }

    /// Ends the wait for the answer to a ping.
    pub(crate) fn forget(&self, number: u64) {
        if let Some(own) = &mut self.state.lock().own {
            own.waiting.retain(|ping| ping.number != number);
        }
    }

    /// Sleeps until the answer to a ping has come, and returns the time that it took. `None` when
    /// it has not by `deadline` (`None`: ever), or when the connection has ended.
    pub(crate) fn await_answer(&self, number: u64, deadline: Option<Instant>) -> Option<Duration> {
        let find = |state: &State| {
            let own = state.own.as_ref()?;
            own.waiting.iter().find(|ping| ping.number == number)?.took
        };
        let is_early = |state: &State| find(state).is_none() && !state.is_over;
        let state = (self.changed).wait_while(self.state.lock(), deadline, is_early);
        find(&state)
    }

    /// Sleeps until the connection has ended, or until `deadline` (`None`: for ever).
    pub(crate) fn await_end(&self, deadline: Option<Instant>) {
        let is_early = |state: &State| !state.is_over;
        drop((self.changed).wait_while(self.state.lock(), deadline, is_early));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn took(pings: &Pings, number: u64) -> Option<Duration> {
        let state = pings.state.lock();
        let own = state.own.as_ref().unwrap();
        own.waiting.iter().find(|p| p.number == number)?.took
    }

    #[test]
    fn the_answer_to_one_answers_all_before_it() {
        let (pings, start) = (Pings::default(), Instant::now());
        let [a, b, c] = [0, 1, 2].map(|n| pings.begin(start + n * MS));
        pings.answered(&b.to_be_bytes(), start + 10 * MS);
        assert_eq!(
            [a, b, c].map(|number| took(&pings, number)),
            [Some(10 * MS), Some(9 * MS), None]
        );
        assert_eq!(pings.latency(), Some(9 * MS));
        pings.answered(&c.to_be_bytes(), start + 20 * MS);
        assert_eq!(took(&pings, a), Some(10 * MS));
        assert_eq!(took(&pings, c), Some(18 * MS));
    }

    #[test]
    fn the_answer_to_one_that_was_given_up_answers_those_before_it() {
        let (pings, start) = (Pings::default(), Instant::now());
        let [a, b] = [0, 1].map(|_| pings.begin(start));
        pings.forget(b);
        pings.answered(&b.to_be_bytes(), start + MS);
        assert_eq!(took(&pings, a), Some(MS));
        pings.forget(a);
        assert!(pings.state.lock().own.as_ref().unwrap().waiting.is_empty());
    }

    #[test]
    fn pongs_that_answer_nothing_change_nothing() {
        let (pings, start) = (Pings::default(), Instant::now());
        pings.answered(b"", start);
        pings.answered(b"before the first", start);
        let number = pings.begin(start);
        for payload in [
            &b""[..],
            b"1234567",
            b"123456789",
            &number.wrapping_add(1).to_be_bytes(),
            &number.wrapping_sub(1).to_be_bytes(),
        ] {
            pings.answered(payload, start + MS);
        }
        assert_eq!((took(&pings, number), pings.latency()), (None, None));
    }

    #[test]
    fn the_engines_own_pings_have_a_latency_too() {
        let (pings, start) = (Pings::default(), Instant::now());
        pings.keepalive(start);
        assert_eq!(pings.latency(), None);
        pings.answered(b"", start + 3 * MS);
        assert_eq!(pings.latency(), Some(3 * MS));
        pings.answered(b"", start + 9 * MS);
        assert_eq!(pings.latency(), Some(3 * MS));
    }

    #[test]
    fn a_watch_is_notified_at_an_answer_or_at_the_end_unless_it_was_taken_back() {
        let (pings, start) = (Pings::default(), Instant::now());
        let hub = Hub::new().unwrap();
        let watch = |token| pings.watch(Watch::new(Arc::clone(&hub), token));
        let number = pings.begin(start);
        watch(1);
        watch(2);
        pings.unwatch(&hub, 1);
        pings.answered(&number.to_be_bytes(), start);
        assert_eq!(hub.drain(), [2]);
        watch(3);
        pings.on_end();
        assert_eq!(hub.drain(), [3]);
        watch(4);
        assert_eq!(hub.drain(), [4]);
    }
}
