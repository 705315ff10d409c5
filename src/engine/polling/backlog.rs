//! The events that a client has not acknowledged.

use std::collections::VecDeque;

use crate::{engine::resources::budget, protocol::polling};

/// The event of a close has fewer bytes: each of the 123 that a reason may have takes at most six.
const CLOSE_BYTES: usize = 1024;

/// The events of one connection, numbered from 1, without those that are acknowledged.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// The number of the last event that is acknowledged.
    acknowledged: u64,
    events: VecDeque<Vec<u8>>,
    /// Bytes of `events`.
    bytes: usize,
    /// The beginning of a line whose end has not come yet.
    unfinished: Vec<u8>,
    /// Only the connection's end is of interest.
    is_shed: bool,
}

/// An acknowledgement of events that were not sent, or one before the last.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OutOfTurn;

impl Backlog {
    /// Takes in what the connection has written: lines with an event each, or none.
    pub(super) fn take_in(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.continue_line(&bytes[..end]);
            bytes = &bytes[end + 1..];
            let mut event = std::mem::take(&mut self.unfinished);
            if !event.is_empty() && (!self.is_shed || polling::is_close(&event)) {
                event.shrink_to_fit();
                self.bytes += event.len();
                self.events.push_back(event);
            }
        }
        self.continue_line(bytes);
    }

    fn continue_line(&mut self, bytes: &[u8]) {
        let room = if self.is_shed {
            CLOSE_BYTES.saturating_sub(self.unfinished.len())
        } else {
            bytes.len()
        };
        self.unfinished
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Forgets the events up to the one of number `ack`.
    pub(super) fn acknowledge(&mut self, ack: u64) -> Result<(), OutOfTurn> {
        let count = ack.checked_sub(self.acknowledged).ok_or(OutOfTurn)?;
        let count = usize::try_from(count).map_err(|_| OutOfTurn)?;
        if count > self.events.len() {
            return Err(OutOfTurn);
        }
        self.bytes -= self
            .events
            .drain(..count)
            .map(|event| event.len())
            .sum::<usize>();
        self.acknowledged = ack;
        Ok(())
    }

    /// The answer with all events; `None` when there are none.
    pub(super) fn answer(&self) -> Option<Vec<u8>> {
        let last = self.acknowledged + self.events.len() as u64;
        let events = self.events.iter().map(Vec::as_slice);
        (!self.is_empty()).then(|| polling::answer(last, events))
    }

    /// The answer without events.
    pub(super) fn nothing(&self) -> Vec<u8> {
        polling::answer(self.acknowledged, [])
    }

    /// Drops all events but the connection's end, now and from now on.
    pub(super) fn shed(&mut self) {
        let dropped = self.events.len() - usize::from(self.has_close());
        let bytes: usize = self.events.drain(..dropped).map(|event| event.len()).sum();
        self.acknowledged += dropped as u64;
        self.bytes -= bytes;
        self.unfinished.truncate(CLOSE_BYTES);
        self.unfinished.shrink_to_fit();
        self.is_shed = true;
    }

    /// Whether the last event is the connection's end.
    pub(super) fn has_close(&self) -> bool {
        self.events
            .back()
            .is_some_and(|event| polling::is_close(event))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The memory that it takes, about.
    pub(super) fn cost(&self) -> usize {
        budget::cost(self.events.len(), self.bytes + self.unfinished.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backlog(lines: &[u8]) -> Backlog {
        let mut backlog = Backlog::default();
        // However they are cut.
        for byte in lines {
            backlog.take_in(&[*byte]);
        }
        backlog
    }

    #[test]
    fn events_stay_until_they_are_acknowledged() {
        let mut backlog = backlog(b"1\n\n2\n\n\n3\nunfinished");
        let all = b"{\"n\":3,\"events\":[1,2,3]}";
        assert_eq!(backlog.answer().unwrap(), all);
        assert_eq!(backlog.acknowledge(0), Ok(()));
        assert_eq!(backlog.answer().unwrap(), all);
        assert_eq!(backlog.acknowledge(2), Ok(()));
        assert_eq!(backlog.answer().unwrap(), b"{\"n\":3,\"events\":[3]}");
        assert_eq!(backlog.acknowledge(3), Ok(()));
        assert_eq!(backlog.answer(), None);
        assert_eq!(backlog.nothing(), b"{\"n\":3,\"events\":[]}");
        assert_eq!(backlog.cost(), "unfinished".len());
    }

    #[test]
    fn what_was_not_sent_or_is_forgotten_cannot_be_acknowledged() {
        let mut backlog = backlog(b"1\n2\n");
        for wrong in [3, u64::MAX] {
            assert_eq!(backlog.acknowledge(wrong), Err(OutOfTurn));
        }
        assert_eq!(backlog.acknowledge(1), Ok(()));
        assert_eq!(backlog.acknowledge(0), Err(OutOfTurn));
        assert_eq!(backlog.answer().unwrap(), b"{\"n\":2,\"events\":[2]}");
    }

    #[test]
    fn of_one_that_holds_too_much_the_end_is_left() {
        let end = b"{\"n\":3,\"events\":[{\"close\":3}]}";
        let mut before = backlog(b"1\n2\n{\"close\":3}\n");
        before.shed();
        assert_eq!(before.answer().unwrap(), end);
        assert_eq!(before.acknowledge(3), Ok(()));
        assert_eq!(before.cost(), 0);
        // Also after a line of which a part was dropped, and in parts itself.
        let mut later = backlog(b"1\n2\n");
        later.take_in(&vec![b'x'; 100_000]);
        later.shed();
        later.take_in(&vec![b'x'; 100_000]);
        assert_eq!((later.answer(), later.cost()), (None, CLOSE_BYTES));
        later.take_in(b"x\nmore\n{\"clo");
        later.shed();
        later.take_in(b"se\":3}\n");
        assert_eq!(later.answer().unwrap(), end);
    }
}
