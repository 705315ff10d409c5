//! Which part of the data a name belongs to: the hash slots of a cluster, and the shards of a list.
//!
//! The slots are those of the specification of Redis Cluster, "Key distribution model".

use sha2::{Digest, Sha256};

/// The number of hash slots of a cluster.
pub(super) const SLOTS: usize = 16384;

/// CRC16 in the variant XMODEM: polynomial 0x1021, from zero, nothing reflected.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, &byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            let shifted = crc << 1;
            if crc & 0x8000 == 0 {
                shifted
            } else {
                shifted ^ 0x1021
            }
        })
    })
}

/// The hash slot of a channel: that of the part in braces, if there is one that is not empty.
pub(super) fn slot_of(channel: &[u8]) -> usize {
    let tag = || {
        let open = channel.iter().position(|&byte| byte == b'{')?;
        let rest = channel.get(open + 1..)?;
        let close = rest.iter().position(|&byte| byte == b'}')?;
        rest.get(..close).filter(|tag| !tag.is_empty())
    };
    usize::from(crc16(tag().unwrap_or(channel))) % SLOTS
}

/// The shard of `count` that a group belongs to, the same in all processes.
pub(super) fn shard_of(group: &str, count: usize) -> usize {
    let hash = Sha256::digest(group.as_bytes());
    let start = hash.first_chunk().copied().map_or(0, u64::from_be_bytes);
    usize::try_from(start % count.max(1) as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(slot_of(b"foo"), 12182);
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"user1000"));
        assert_eq!(slot_of(b"a{b}{c}"), slot_of(b"b"));
        assert_eq!(slot_of(b"{}x"), usize::from(crc16(b"{}x")) % SLOTS);
        assert_eq!(slot_of(b"a{b"), usize::from(crc16(b"a{b")) % SLOTS);
    }

    #[test]
    fn groups_are_spread_evenly_and_always_alike() {
        for count in 1..9 {
            let mut found = vec![0; count];
            for number in 0..count * 1000 {
                let name = format!("room-{number}");
                assert_eq!(shard_of(&name, count), shard_of(&name, count));
                found[shard_of(&name, count)] += 1;
            }
            assert!(found.iter().all(|&groups| groups > 800), "{found:?}");
        }
        // Another version of this package must find groups where this one does.
        let places: Vec<_> = ["a", "b", "room-42", "ä"]
            .map(|name| shard_of(name, 7))
            .into();
        assert_eq!(places, [4, 0, 6, 5]);
    }
}
