//! How many members the groups of other nodes have.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::frames::NodeId;

/// The hash by which nodes name a group when they tell its number of members. It is the same in all
/// processes, and clients cannot choose names with the same one.
pub(super) fn hash(name: &str) -> u64 {
    let digest: [u8; 32] = Sha256::digest(name.as_bytes()).into();
    digest
        .first_chunk()
        .map_or(0, |first| u64::from_be_bytes(*first))
}

/// The numbers of members in other nodes.
#[derive(Debug, Default)]
pub(super) struct Counts(HashMap<NodeId, HashMap<u64, u32>>);

impl Counts {
    /// Notes the numbers that a node has told. Zero is not kept.
    pub(super) fn note(&mut self, node: NodeId, counts: Vec<(u64, u32)>) {
        let known = self.0.entry(node).or_default();
        for (hash, count) in counts {
            if count == 0 {
                known.remove(&hash);
            } else {
                known.insert(hash, count);
            }
        }
    }

    /// Forgets a node that has ended.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.0.remove(&node);
    }

    /// The members of a group in all other nodes.
    pub(super) fn of(&self, name: &str) -> usize {
        if self.0.is_empty() {
            return 0;
        }
        let hash = hash(name);
        let found = self.0.values().filter_map(|known| known.get(&hash));
        found.fold(0, |sum, count| sum.saturating_add(*count as usize))
    }
}
