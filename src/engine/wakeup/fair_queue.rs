//! The tokens that wait for a thread, in turns between lanes.
//!
//! The upper bits of a token name its lane: one class of handlers. A class whose calls take long can
//! have many tokens here. So a thread takes a token of the lane that has had none for longest, and
//! within the lane in order.

use std::collections::VecDeque;

/// The lower bits of a token: its number. Those above are its lane.
const NUMBER_BITS: u32 = 40;
/// From this many lanes on those without tokens are forgotten.
const MANY_LANES: usize = 64;

/// See the module. The lanes are in the order of their last turns.
#[derive(Debug, Default)]
pub(super) struct FairQueue {
    lanes: VecDeque<(u64, VecDeque<u64>)>,
}

impl FairQueue {
    /// Adds tokens, in their order.
    pub(super) fn extend(&mut self, tokens: Vec<u64>) {
        for token in tokens {
            self.push(token);
        }
    }

    /// Whether no token waits.
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.iter().all(|(_, tokens)| tokens.is_empty())
    }

    /// Takes the next token.
    pub(super) fn pop(&mut self) -> Option<u64> {
        let next = self.lanes.iter().position(|(_, tokens)| !tokens.is_empty());
        let mut lane = self.lanes.remove(next?)?;
        let token = lane.1.pop_front();
        self.lanes.push_back(lane);
        token
    }

    fn push(&mut self, token: u64) {
        let of_token = token >> NUMBER_BITS;
        // Most often the lane of the last turn.
        if let Some((_, tokens)) = self.lanes.iter_mut().rfind(|lane| lane.0 == of_token) {
            tokens.push_back(token);
            return;
        }
        if self.lanes.len() >= MANY_LANES {
            self.lanes.retain(|(_, tokens)| !tokens.is_empty());
        }
        self.lanes.push_front((of_token, VecDeque::from([token])));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_have_turns_and_the_tokens_of_one_their_order() {
        let token = |lane: u64, number: u64| lane << NUMBER_BITS | number;
        let mut queue = FairQueue::default();
        queue.extend(vec![token(1, 1), token(1, 2), token(1, 3)]);
        assert_eq!(queue.pop(), Some(token(1, 1)));
        queue.extend(vec![token(2, 1), token(2, 2)]);
        let rest: Vec<u64> = std::iter::from_fn(|| queue.pop()).collect();
        let expected = [(2, 1), (1, 2), (2, 2), (1, 3)].map(|(lane, number)| token(lane, number));
        assert_eq!(rest, expected);
        assert!(queue.is_empty());
        // The other one has had the last turn.
        queue.extend(vec![token(1, 4), token(2, 3)]);
        assert_eq!(queue.pop(), Some(token(2, 3)));
    }

    #[test]
    fn lanes_without_tokens_are_forgotten_when_there_are_many() {
        let mut queue = FairQueue::default();
        for lane in 0..1000 {
            queue.extend(vec![lane << NUMBER_BITS]);
            assert_eq!(queue.pop(), Some(lane << NUMBER_BITS));
        }
        assert!(queue.lanes.len() <= MANY_LANES);
    }
}
