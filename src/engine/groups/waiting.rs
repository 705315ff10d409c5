//! Publishers that wait until the queues have room for their messages.

use std::sync::Arc;

use crate::engine::{
    base::sync::Mutex,
    wakeup::call::{Ticket, Wait},
};

/// The publishers that wait, with the bytes of their messages.
#[derive(Debug, Default)]
pub(crate) struct Room {
    waiting: Mutex<Vec<(usize, Ticket<()>)>>,
}

impl Room {
    /// A wait until there may be room for `bytes`. The caller looks again before it sleeps: room that was made
    /// before this call tells nobody.
    pub(crate) fn wait(&self, bytes: usize) -> Arc<Wait> {
        let (wait, ticket) = Wait::new(|| ());
        let mut waiting = self.waiting.lock();
        // Drop the tickets of publishers that have given up.
        waiting.retain(|(_, ticket)| ticket.is_awaited());
        waiting.push((bytes, ticket));
        wait
    }

    /// Wakes the publishers whose bytes `fit` now. To be called without a lock of the queues.
    pub(crate) fn tell(&self, fit: impl Fn(usize) -> bool) {
        let mut waiting = self.waiting.lock();
        let (woken, rest) = std::mem::take(&mut *waiting)
            .into_iter()
            .partition::<Vec<_>, _>(|(bytes, _)| fit(*bytes));
        *waiting = rest;
        drop(waiting);
        for (_, ticket) in woken {
            ticket.finish(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_are_woken_whose_bytes_fit() {
        let room = Room::default();
        let (small, large) = (room.wait(1), room.wait(100));
        room.tell(|bytes| bytes < 10);
        assert_eq!((small.outcome(), large.outcome()), (Some(()), None));
        room.tell(|_| true);
        assert_eq!(large.outcome(), Some(()));
    }

    #[test]
    fn those_that_have_given_up_are_forgotten() {
        let room = Room::default();
        for _ in 0..10 {
            drop(room.wait(1));
        }
        let _last = room.wait(1);
        assert_eq!(room.waiting.lock().len(), 1);
    }
}
