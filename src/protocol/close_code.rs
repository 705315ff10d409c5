//! Close codes (RFC 6455 section 7.4), and what fits beside one.

/// The purpose of the connection is fulfilled.
pub const NORMAL: u16 = 1000;
/// The server goes down, or the browser left the page.
pub const GOING_AWAY: u16 = 1001;
/// The peer broke the protocol.
pub const PROTOCOL_ERROR: u16 = 1002;
/// A kind of message that the endpoint does not take.
pub const UNSUPPORTED: u16 = 1003;
/// Stands for a close frame without a code; never sent.
pub const NO_STATUS: u16 = 1005;
/// Stands for a connection that ended without a close frame; never sent.
pub const ABNORMAL: u16 = 1006;
/// Data that does not fit its kind, such as text that is not UTF-8.
pub const INVALID_DATA: u16 = 1007;
/// The message goes against a policy; also the general refusal.
pub const POLICY: u16 = 1008;
/// The message is larger than the endpoint takes.
pub const TOO_BIG: u16 = 1009;
/// A client missed an extension that it needs.
pub const MANDATORY_EXTENSION: u16 = 1010;
/// The server met something unexpected.
pub const INTERNAL_ERROR: u16 = 1011;
/// The server restarts; come back after a moment.
pub const SERVICE_RESTART: u16 = 1012;
/// The server is overloaded; come back later.
pub const TRY_AGAIN_LATER: u16 = 1013;
/// A gateway got a bad answer from the server behind it.
pub const BAD_GATEWAY: u16 = 1014;
/// Stands for a failed TLS handshake; never sent.
pub const TLS_HANDSHAKE: u16 = 1015;

/// The longest reason that fits a close frame beside its code.
pub const MAX_REASON_BYTES: usize = 123;

/// Whether a close frame may carry `code`, by the RFC, its registry, or the ranges that are free
/// for libraries (3000-3999) and applications (4000-4999).
pub fn may_send(code: u16) -> bool {
    // Not `CloseCode::is_allowed`: it refuses 1014, which the registry has since assigned.
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
