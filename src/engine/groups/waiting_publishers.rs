//! Publishers that wait until the queues have room for their messages.

use std::sync::Arc;

use crate::engine::{
    base::sync::Mutex,
    wakeup::call::{Ticket, Wait},
};

/// The publishers that wait, with the bytes of their messages.
#[derive(Debug, Default)]
pub(crate) struct WaitingPublishers {
    publishers: Mutex<Vec<(usize, Ticket<()>)>>,
}

impl WaitingPublishers {
    /// A wait until there may be room for `bytes`. The caller looks again before it sleeps: room that was made
    /// before this call tells nobody.
    pub(crate) fn wait(&self, bytes: usize) -> Arc<Wait> {
        let (wait, ticket) = Wait::new(|| ());
        let mut waiting = self.publishers.lock();
        // Drop the tickets of publishers that have given up.
        waiting.retain(|(_, ticket)| ticket.is_awaited());
        waiting.push((bytes, ticket));
        wait
    }

    /// Wakes the publishers whose bytes `fit` now. To be called without a lock of the queues.
    pub(crate) fn tell(&self, fit: impl Fn(usize) -> bool) {
        let mut waiting = self.publishers.lock();
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
        let waiting = WaitingPublishers::default();
        let (small, large) = (waiting.wait(1), waiting.wait(100));
        waiting.tell(|bytes| bytes < 10);
        assert_eq!((small.outcome(), large.outcome()), (Some(()), None));
        waiting.tell(|_| true);
        assert_eq!(large.outcome(), Some(()));
    }

    #[test]
    fn those_that_have_given_up_are_forgotten() {
        let waiting = WaitingPublishers::default();
        for _ in 0..10 {
            drop(waiting.wait(1));
        }
        let _last = waiting.wait(1);
        assert_eq!(waiting.publishers.lock().len(), 1);
    }
}
