//! How far the messages of each process have come: by numbers that rise with each of them.
//!
//! On the way from one process to another messages keep their order, so one number says which of
//! them have come. By these a member that moves to another process gets each message once.

use smallvec::SmallVec;

/// The process that has published a message, and the message's number among those of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The process.
    pub publisher: u64,
    /// Its number.
    pub number: u64,
}

/// Processes that are known at most: each command that publishes is one, and they come and go.
const MAX_KNOWN: usize = 256;

/// The last number of each process, but for those that were the first ones long ago.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamps(SmallVec<[(u64, u64); 2]>);

impl Stamps {
    /// Stamps with these numbers of these processes.
    pub fn of(stamps: impl IntoIterator<Item = (u64, u64)>) -> Self {
        Self(stamps.into_iter().collect())
    }

    /// Each process with its number.
    pub fn each(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().copied()
    }

    /// Notes that a message has come.
    pub(super) fn note(&mut self, stamp: Stamp) {
        let known = self.0.iter_mut().find(|known| known.0 == stamp.publisher);
        if let Some((_, number)) = known {
            *number = stamp.number.max(*number);
            return;
        }
        if self.0.len() == MAX_KNOWN {
            self.0.remove(0);
        }
        self.0.push((stamp.publisher, stamp.number));
    }

    /// Whether a message is among those that have come.
    pub fn has(&self, stamp: Stamp) -> bool {
        let has = |known: &(u64, u64)| known.0 == stamp.publisher && stamp.number <= known.1;
        self.0.iter().any(has)
    }
}

/// The point at which a member has left a group.
#[derive(Clone, Debug)]
pub struct Cut {
    /// The messages that it has got, or will get as all before `until` do.
    pub got: Stamps,
    /// The number of the entry that is not for it any more.
    pub until: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_that_come_and_go_take_no_memory() {
        let mut stamps = Stamps::default();
        let stamp = |publisher| Stamp {
            publisher,
            number: 7,
        };
        (0..10_000).for_each(|publisher| stamps.note(stamp(publisher)));
        assert_eq!(stamps.each().count(), MAX_KNOWN);
        assert!(stamps.has(stamp(9_999)));
        assert!(!stamps.has(stamp(0)));
    }
}
