//! The seal of envelopes that travel through a server which others may reach, too: an HMAC with a
//! key that only the processes of one project know (RFC 2104).
//!
//! It covers the group's name, so that an envelope of one group is none of another. Where the
//! system's rights keep others out, as with the sockets of one machine, there is no seal.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The length of a seal: half of what SHA-256 gives, as RFC 2104 section 5 allows.
const SEAL_BYTES: usize = 16;

/// A project's key. Its bytes are never shown.
#[derive(Clone)]
pub(super) struct Key(Hmac<Sha256>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// A key from bytes of any number; `None` if the library refuses them, which it does not.
    pub(super) fn new(bytes: &[u8]) -> Option<Self> {
        Hmac::new_from_slice(bytes).ok().map(Self)
    }

    fn mac(&self, name: &str, envelope: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(&(name.len() as u64).to_be_bytes());
        mac.update(name.as_bytes());
        mac.update(envelope);
        mac
    }

    /// The envelope behind its seal.
    pub(super) fn seal(&self, name: &str, envelope: &[u8]) -> Vec<u8> {
        let seal = self.mac(name, envelope).finalize().into_bytes();
        [&seal[..SEAL_BYTES], envelope].concat()
    }

    /// The envelope, if the seal before it is right.
    pub(super) fn open<'a>(&self, name: &str, sealed: &'a [u8]) -> Option<&'a [u8]> {
        let (seal, envelope) = sealed.split_at_checked(SEAL_BYTES)?;
        let mac = self.mac(name, envelope);
        mac.verify_truncated_left(seal).ok().map(|()| envelope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_is_opened_with_the_key_and_the_name_of_its_seal_only() {
        let (key, other) = (Key::new(b"secret").unwrap(), Key::new(b"other").unwrap());
        let sealed = key.seal("room", b"envelope");
        assert_eq!(key.open("room", &sealed), Some(&b"envelope"[..]));
        assert_eq!(key.open("rooms", &sealed), None);
        assert_eq!(other.open("room", &sealed), None);
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert_eq!(key.open("room", &changed), None, "{index}");
            assert_eq!(key.open("room", &sealed[..index]), None, "{index}");
        }
    }
}
