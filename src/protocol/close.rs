//! Close frames (RFC 6455 section 5.5.1), with their codes.

use std::fmt;

use bytes::Bytes;

pub use super::close_code::*;
use super::{
    error::Violation,
    frame::{self, Opcode},
};

const _: () = assert!(MAX_REASON_BYTES + 2 == frame::MAX_CONTROL_PAYLOAD_BYTES);

/// The code and the reason of a close frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloseFrame {
    /// `None` for an empty close frame, which counts as [`NO_STATUS`].
    pub code: Option<u16>,
    /// Meant for debugging, not for users. Empty when there is no code.
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

    /// A close frame of ours, whose code and reason are known to be right.
    pub(crate) fn of(code: u16, reason: &str) -> Self {
        debug_assert!(Self::new(Some(code), reason).is_ok());
        Self {
            code: Some(code),
            reason: reason.to_owned(),
        }
    }

    /// The code that a peer sees: 1005 where none may be sent.
    pub(super) fn shown_code(&self) -> u16 {
        self.code
            .filter(|code| may_send(*code))
            .unwrap_or(NO_STATUS)
    }

    /// The whole frame as a server sends it, head included. See [`CloseFrame::payload`].
    pub fn encode(&self) -> Bytes {
        frame::encode(Opcode::Close, &self.payload())
    }

    /// The payload of the frame.
    ///
    /// A value that was built by hand may be one that [`CloseFrame::new`] would refuse. Then only
    /// the valid part is sent: no forbidden code, no reason without a code, and of a long reason
    /// the characters that fit.
    pub fn payload(&self) -> Vec<u8> {
        let Some(code) = self.code.filter(|code| may_send(*code)) else {
            return Vec::new();
        };
        let mut payload = Vec::with_capacity(frame::MAX_CONTROL_PAYLOAD_BYTES);
        payload.extend_from_slice(&code.to_be_bytes());
        payload.extend_from_slice(fitting(&self.reason).as_bytes());
        payload
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(code: u16, reason: &[u8]) -> Result<CloseFrame, u16> {
        let payload = [&code.to_be_bytes(), reason].concat();
        CloseFrame::parse(&payload).map_err(|violation| violation.code)
    }

    #[test]
    fn every_code_is_judged_alike_in_all_directions() {
        // RFC 6455 section 7.4.1 and the registry behind it; 1004 never got a meaning, and 1005,
        // 1006 and 1015 stand for what was not sent.
        let registered = [
            NORMAL,
            GOING_AWAY,
            PROTOCOL_ERROR,
            UNSUPPORTED,
            INVALID_DATA,
            POLICY,
            TOO_BIG,
            MANDATORY_EXTENSION,
            INTERNAL_ERROR,
            SERVICE_RESTART,
            TRY_AGAIN_LATER,
            BAD_GATEWAY,
        ];
        assert!(
            ![1004, NO_STATUS, ABNORMAL, TLS_HANDSHAKE]
                .map(may_send)
                .contains(&true)
        );
        for code in 0..=u16::MAX {
            // The range is that of section 7.4.2.
            let allowed = registered.contains(&code) || (3000..=4999).contains(&code);
            let frame = CloseFrame {
                code: Some(code),
                reason: String::new(),
            };
            assert_eq!(may_send(code), allowed, "{code}");
            if allowed {
                assert_eq!(CloseFrame::new(Some(code), ""), Ok(frame.clone()));
                assert_eq!(parsed(code, b""), Ok(frame.clone()));
                let [high, low] = code.to_be_bytes();
                assert_eq!(&frame.encode()[..], [0x88, 2, high, low]);
            } else {
                let refused = Err(InvalidClose::Code(code));
                assert_eq!(CloseFrame::new(Some(code), ""), refused);
                assert_eq!(parsed(code, b""), Err(PROTOCOL_ERROR), "{code}");
                assert_eq!(&frame.encode()[..], [0x88, 0], "{code}");
            }
        }
    }

    #[test]
    fn an_empty_close_has_no_code() {
        assert_eq!(CloseFrame::parse(b""), Ok(CloseFrame::default()));
        assert_eq!(CloseFrame::new(None, ""), Ok(CloseFrame::default()));
        assert_eq!(&CloseFrame::default().encode()[..], [0x88, 0]);
    }

    #[test]
    fn one_byte_is_no_close_code() {
        let violation = CloseFrame::parse(&[3]).unwrap_err();
        assert_eq!(violation.code, PROTOCOL_ERROR);
        assert_eq!(violation.reason, "close frame has half a close code");
    }

    #[test]
    fn reasons_are_utf_8_to_the_last_byte() {
        let frame = CloseFrame::new(Some(4404), "tschüß").unwrap();
        assert_eq!(parsed(4404, "tschüß".as_bytes()), Ok(frame.clone()));
        assert_eq!(CloseFrame::parse(&frame.encode()[2..]), Ok(frame));
        for wrong in [&b"\xff"[..], b"ok \xc3", b"\xed\xa0\x80", b"\xc0\xaf"] {
            assert_eq!(parsed(1000, wrong), Err(INVALID_DATA), "{wrong:?}");
        }
        let violation = CloseFrame::parse(b"\x03\xe8ok \xc3").unwrap_err();
        assert_eq!(violation.reason, "close reason is not UTF-8 at byte 3");
    }

    #[test]
    fn reasons_end_at_123_bytes() {
        let longest = "r".repeat(MAX_REASON_BYTES);
        let frame = CloseFrame::new(Some(1000), &longest).unwrap();
        assert_eq!(frame.encode().len(), 127);
        assert_eq!(parsed(1000, longest.as_bytes()), Ok(frame));

        let longer = "r".repeat(MAX_REASON_BYTES + 1);
        let refused = Err(InvalidClose::ReasonTooLong(124));
        assert_eq!(CloseFrame::new(Some(1000), &longer), refused);
        assert_eq!(parsed(1000, longer.as_bytes()), Err(PROTOCOL_ERROR));
    }

    #[test]
    fn a_reason_needs_a_code() {
        let refused = Err(InvalidClose::ReasonWithoutCode);
        assert_eq!(CloseFrame::new(None, "why"), refused);
    }

    #[test]
    fn encode_leaves_out_what_must_not_be_sent() {
        let without_code = CloseFrame {
            code: None,
            reason: "why".into(),
        };
        assert_eq!(&without_code.encode()[..], [0x88, 0]);
        let too_long = CloseFrame {
            code: Some(1000),
            // The 62nd ü begins at byte 122 and no longer fits.
            reason: "ü".repeat(100),
        };
        let payload = &too_long.encode()[2..];
        assert_eq!(parsed(1000, &payload[2..]).unwrap().reason, "ü".repeat(61));
    }

    #[test]
    fn messages_name_the_value_and_the_limit() {
        let wording = [
            (
                InvalidClose::Code(1006),
                "close code 1006 must not be sent: use 1000-1003, 1007-1014 or 3000-4999",
            ),
            (
                InvalidClose::ReasonTooLong(124),
                "close reason has 124 bytes of UTF-8, more than 123",
            ),
            (
                InvalidClose::ReasonWithoutCode,
                "a close reason needs a close code",
            ),
        ];
        for (error, expected) in wording {
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn a_violation_becomes_the_close_frame_that_reports_it() {
        let violation = Violation::too_big("message has more than 5 bytes");
        assert_eq!(
            violation.to_string(),
            "message has more than 5 bytes (1009)"
        );
        let frame = CloseFrame::from(&violation);
        assert_eq!(CloseFrame::new(Some(1009), &violation.reason), Ok(frame));
    }
}
