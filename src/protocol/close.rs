//! Close frames and close codes (RFC 6455 sections 5.5.1 and 7.4).

use std::fmt;

use bytes::Bytes;

use super::{
    error::Violation,
    frame::{self, Opcode},
};

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
pub const MAX_REASON_BYTES: usize = frame::MAX_CONTROL_PAYLOAD_BYTES - 2;

/// Whether a close frame may carry `code`, by the RFC, its registry, or the ranges that are free
/// for libraries (3000-3999) and applications (4000-4999).
pub fn may_send(code: u16) -> bool {
    // Not `CloseCode::is_allowed`: it refuses 1014, which the registry has since assigned.
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// What a close frame says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloseFrame {
    /// `None` for an empty close frame, which counts as [`NO_STATUS`].
    pub code: Option<u16>,
    /// Meant for people who debug, not for users. Empty when there is no code.
    pub reason: String,
}

impl CloseFrame {
    /// Reads the (unmasked) payload of a close frame.
    ///
    /// # Errors
    /// 1002 when the payload is a single byte, longer than a control frame, or has a code that
    /// must not be sent; 1007 when the reason is not UTF-8.
    pub fn parse(payload: &[u8]) -> Result<Self, Violation> {
        let (code, reason) = match payload {
            [] => return Ok(Self::default()),
            [_] => return Err(Violation::protocol("close frame has half a close code")),
            [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
        };
        if !may_send(code) {
            return Err(Violation::protocol(format!(
                "close code {code} must not be sent"
            )));
        }
        if reason.len() > MAX_REASON_BYTES {
            return Err(Violation::protocol(format!(
                "close reason has {} bytes, more than {MAX_REASON_BYTES}",
                reason.len()
            )));
        }
        match simdutf8::compat::from_utf8(reason) {
            Ok(reason) => Ok(Self {
                code: Some(code),
                reason: reason.to_owned(),
            }),
            Err(error) => Err(Violation::invalid_data(format!(
                "close reason is not UTF-8 at byte {}",
                error.valid_up_to()
            ))),
        }
    }

    /// A close frame that may be sent. `code` None makes an empty one.
    ///
    /// # Errors
    /// [`InvalidClose`] when the code must not be sent, the reason does not fit, or there is a
    /// reason and no code to go with it.
    pub fn new(code: Option<u16>, reason: &str) -> Result<Self, InvalidClose> {
        match code {
            Some(code) if !may_send(code) => Err(InvalidClose::Code(code)),
            None if !reason.is_empty() => Err(InvalidClose::ReasonWithoutCode),
            _ if reason.len() > MAX_REASON_BYTES => Err(InvalidClose::ReasonTooLong(reason.len())),
            _ => Ok(Self {
                code,
                reason: reason.to_owned(),
            }),
        }
    }

    /// The whole frame, head included.
    ///
    /// Of a value that was put together by hand, and that [`CloseFrame::new`] would refuse, only
    /// what may be sent is sent: no forbidden code, no reason without a code, and of a long reason
    /// the characters that fit.
    pub fn encode(&self) -> Bytes {
        let Some(code) = self.code.filter(|code| may_send(*code)) else {
            return frame::encode(Opcode::Close, &[]);
        };
        let mut payload = Vec::with_capacity(frame::MAX_CONTROL_PAYLOAD_BYTES);
        payload.extend_from_slice(&code.to_be_bytes());
        payload.extend_from_slice(fitting(&self.reason).as_bytes());
        frame::encode(Opcode::Close, &payload)
    }
}

impl From<&Violation> for CloseFrame {
    fn from(violation: &Violation) -> Self {
        Self {
            code: Some(violation.code),
            reason: violation.reason.clone().into_owned(),
        }
    }
}

/// Why [`CloseFrame::new`] refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidClose {
    /// This code must not be sent.
    Code(u16),
    /// The reason has this many bytes of UTF-8, more than [`MAX_REASON_BYTES`].
    ReasonTooLong(usize),
    /// An empty close frame has no room for a reason.
    ReasonWithoutCode,
}

impl fmt::Display for InvalidClose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(
                f,
                "close code {code} must not be sent: use 1000-1003, 1007-1014 or 3000-4999"
            ),
            Self::ReasonTooLong(len) => write!(
                f,
                "close reason has {len} bytes of UTF-8, more than {MAX_REASON_BYTES}"
            ),
            Self::ReasonWithoutCode => f.write_str("a close reason needs a close code"),
        }
    }
}

impl std::error::Error for InvalidClose {}

/// The longest start of `reason` that fits a close frame and ends between two characters.
fn fitting(reason: &str) -> &str {
    let mut end = reason.len().min(MAX_REASON_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.get(..end).unwrap_or_default()
}
