//! A peer's violations of the protocol once the connection is open.

use std::{borrow::Cow, fmt};

use super::close_code as close;

/// The peer broke a rule: the connection has to be failed with `code` and `reason`
/// (RFC 6455 section 7.1.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// [`close::PROTOCOL_ERROR`], [`close::INVALID_DATA`] or [`close::TOO_BIG`].
    pub code: u16,
    /// The rule and, where there is one, the limit; fits a close frame (at most 123 bytes).
    pub reason: Cow<'static, str>,
}

impl Violation {
    pub(super) fn protocol(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(close::PROTOCOL_ERROR, reason)
    }

    pub(super) fn invalid_data(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(close::INVALID_DATA, reason)
    }

    pub(super) fn too_big(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(close::TOO_BIG, reason)
    }

    fn new(code: u16, reason: impl Into<Cow<'static, str>>) -> Self {
        let reason = reason.into();
        debug_assert!(reason.len() <= close::MAX_REASON_BYTES, "{reason}");
        Self { code, reason }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason, self.code)
    }
}

impl std::error::Error for Violation {}
