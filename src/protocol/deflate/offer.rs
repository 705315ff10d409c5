//! Agreeing on the extension and its parameters (RFC 7692 sections 5 and 7.1).

use std::fmt;

use super::options::Options;
use crate::protocol::extension::{self, Extension};

const NAME: &str = "permessage-deflate";

/// A window of all that DEFLATE can refer to.
pub const MAX_WINDOW_BITS: u8 = 15;
/// The smallest window that can be compressed with: zlib has none of 8 bits for raw DEFLATE.
pub const MIN_WINDOW_BITS: u8 = 9;

/// The parameters that both sides keep to. Its text is the value of `Sec-WebSocket-Extensions` in
/// the response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// The server compresses each message for itself.
    pub server_no_context_takeover: bool,
    /// The client compresses each message for itself.
    pub client_no_context_takeover: bool,
    /// The server's window; `None` for any.
    pub server_max_window_bits: Option<u8>,
    /// The client's window; `None` for any.
    pub client_max_window_bits: Option<u8>,
}

/// The settings by which a connection compresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The parameters that the client relies on.
    pub agreement: Agreement,
    /// The choices that are left to us.
    pub options: Options,
}

impl Terms {
    /// The terms for a client whose offers stand in `header`; `None` to go on without compression.
    ///
    /// See [`answer`].
    pub fn negotiate(header: &str, options: Options) -> Option<Self> {
        let agreement = answer(header, &options)?;
        Some(Self { agreement, options })
    }
}

impl Agreement {
    /// The agreement that has this text, as [`Agreement::to_string`] gives it.
    pub fn read(text: &str) -> Option<Self> {
        let extensions = extension::parse(text)?;
        extensions.first().and_then(read_answer)
    }
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)?;
        if self.server_no_context_takeover {
            f.write_str("; server_no_context_takeover")?;
        }
        if self.client_no_context_takeover {
            f.write_str("; client_no_context_takeover")?;
        }
        if let Some(bits) = self.server_max_window_bits {
            write!(f, "; server_max_window_bits={bits}")?;
        }
        if let Some(bits) = self.client_max_window_bits {
            write!(f, "; client_max_window_bits={bits}")?;
        }
        Ok(())
    }
}

/// The answer to the first offer of permessage-deflate in `header` (`Sec-WebSocket-Extensions`,
/// several joined with commas) that can be kept to; `None` goes on without compression.
///
/// The client's order is its order of preference. Other extensions are passed over, and so are
/// offers that have a parameter which is unknown, repeated or out of range, or that demand a window
/// of 8 bits of us (section 7.1.2.1 leaves that to the server). A malformed header offers nothing;
/// [`crate::protocol::handshake::validate`] refuses it.
pub fn answer(header: &str, options: &Options) -> Option<Agreement> {
    extension::parse(header)?
        .iter()
        .filter_map(Agreement::proposed)
        .find_map(|offer| offer.accept(options))
}

impl Agreement {
    /// The parameters of one offer, or of an answer: `client_max_window_bits` lets us bound the
    /// client's window, and perhaps names a bound that it keeps to anyway. `None` for another
    /// extension, or for parameters that this one does not have.
    fn proposed(extension: &Extension<'_>) -> Option<Self> {
        if extension.name != NAME {
            return None;
        }
        let mut offer = Self::default();
        for (name, value) in &extension.parameters {
            match (*name, value.as_deref()) {
                ("server_no_context_takeover", None) if !offer.server_no_context_takeover => {
                    offer.server_no_context_takeover = true;
                }
                ("client_no_context_takeover", None) if !offer.client_no_context_takeover => {
                    offer.client_no_context_takeover = true;
                }
                ("server_max_window_bits", Some(bits))
                    if offer.server_max_window_bits.is_none() =>
                {
                    offer.server_max_window_bits = Some(window_bits(bits)?);
                }
                ("client_max_window_bits", bits) if offer.client_max_window_bits.is_none() => {
                    offer.client_max_window_bits = Some(match bits {
                        Some(bits) => window_bits(bits)?,
                        None => MAX_WINDOW_BITS,
                    });
                }
                _ => return None,
            }
        }
        Some(offer)
    }

    /// The answer to an offer.
    fn accept(self, options: &Options) -> Option<Self> {
        let ours = options.server_max_window_bits;
        let server_max_window_bits = match self.server_max_window_bits {
            Some(bits) if bits < MIN_WINDOW_BITS => return None,
            Some(bits) => Some(bits.min(ours)),
            // Unasked, but it lets the client save memory.
            None => (ours < MAX_WINDOW_BITS).then_some(ours),
        };
        let theirs = options.client_max_window_bits;
        let bound = self.client_max_window_bits.map(|bits| bits.min(theirs));
        // A client whose window cannot be bounded must not make us keep all of it.
        let is_boundless = bound.is_none() && theirs < MAX_WINDOW_BITS;
        Some(Self {
            server_no_context_takeover: self.server_no_context_takeover
                || options.server_no_context_takeover,
            client_no_context_takeover: self.client_no_context_takeover
                || options.client_no_context_takeover
                || is_boundless,
            server_max_window_bits,
            client_max_window_bits: bound.filter(|bits| *bits < MAX_WINDOW_BITS),
        })
    }
}

/// The parameters of a server's answer, for the client that it is for. `None` for another extension,
/// or for parameters that no answer has: there the client's window has a value, if it is named.
pub(super) fn read_answer(extension: &Extension<'_>) -> Option<Agreement> {
    let is_bare = |(name, value): &(&str, Option<String>)| {
        *name == "client_max_window_bits" && value.is_none()
    };
    Agreement::proposed(extension).filter(|_| !extension.parameters.iter().any(is_bare))
}

/// A whole number from 8 to 15 without leading zeros (section 7.1.2).
fn window_bits(value: &str) -> Option<u8> {
    let bits = value.parse().ok()?;
    ((8..=MAX_WINDOW_BITS).contains(&bits) && value == bits.to_string()).then_some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORGETTING: Options = Options {
        server_no_context_takeover: true,
        client_no_context_takeover: true,
        ..KEEPING_CONTEXT
    };
    const KEEPING_CONTEXT: Options = Options {
        threshold_bytes: 0,
        level: 1,
        server_no_context_takeover: false,
        client_no_context_takeover: false,
        server_max_window_bits: 15,
        client_max_window_bits: 15,
    };

    fn response(header: &str, options: &Options) -> String {
        answer(header, options).map_or("none".to_owned(), |agreement| agreement.to_string())
    }

    #[test]
    fn each_parameter_is_answered_as_section_7_1_says() {
        let cases = [
            ("", ""),
            ("server_no_context_takeover", "; server_no_context_takeover"),
            ("client_no_context_takeover", "; client_no_context_takeover"),
            ("server_max_window_bits=9", "; server_max_window_bits=9"),
            ("server_max_window_bits=15", "; server_max_window_bits=15"),
            ("client_max_window_bits", ""),
            ("client_max_window_bits=8", "; client_max_window_bits=8"),
            ("client_max_window_bits=14", "; client_max_window_bits=14"),
            ("client_max_window_bits=15", ""),
            (
                "server_max_window_bits=\"10\"",
                "; server_max_window_bits=10",
            ),
            (
                "server_max_window_bits=\"1\\0\"",
                "; server_max_window_bits=10",
            ),
            (
                " server_max_window_bits\t=  12 ",
                "; server_max_window_bits=12",
            ),
        ];
        for (parameter, expected) in cases {
            let separator = if parameter.is_empty() { "" } else { " ;" };
            let header = format!("permessage-deflate{separator}{parameter}");
            let expected = format!("permessage-deflate{expected}");
            assert_eq!(response(&header, &KEEPING_CONTEXT), expected, "{header}");
        }
    }

    #[test]
    fn everything_at_once_keeps_its_order() {
        let header = "permessage-deflate; client_max_window_bits=11; server_max_window_bits=10; \
                      client_no_context_takeover; server_no_context_takeover";
        assert_eq!(
            response(header, &KEEPING_CONTEXT),
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
             server_max_window_bits=10; client_max_window_bits=11"
        );
    }

    #[test]
    fn no_takeover_may_be_demanded_unasked() {
        assert_eq!(
            response("permessage-deflate; client_max_window_bits", &FORGETTING),
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        );
    }

    #[test]
    fn what_cannot_be_kept_to_is_declined() {
        for parameters in [
            "server_max_window_bits",
            "server_max_window_bits=8",
            "server_max_window_bits=7",
            "server_max_window_bits=16",
            "server_max_window_bits=09",
            "server_max_window_bits=+9",
            "server_max_window_bits=9.0",
            "server_max_window_bits=300",
            "server_max_window_bits=10; server_max_window_bits=10",
            "client_max_window_bits=7",
            "client_max_window_bits=16",
            "client_max_window_bits=015",
            "client_max_window_bits; client_max_window_bits",
            "client_max_window_bits; client_max_window_bits=10",
            "server_no_context_takeover=1",
            "client_no_context_takeover=true",
            "server_no_context_takeover; server_no_context_takeover",
            "client_no_context_takeover; client_no_context_takeover",
            "Server_No_Context_Takeover",
            "unknown",
            "unknown=1",
        ] {
            let header = format!("permessage-deflate; {parameters}");
            assert_eq!(answer(&header, &FORGETTING), None, "{header}");
        }
    }

    #[test]
    fn other_extensions_are_passed_over() {
        for header in [
            "x-webkit-deflate-frame",
            "permessage-bzip2; permessage-deflate",
            "permessage",
            "Permessage-Deflate",
        ] {
            assert_eq!(answer(header, &FORGETTING), None, "{header}");
        }
        let header = "mux; max=4, , x; y=\"z\", permessage-deflate";
        assert!(answer(header, &FORGETTING).is_some());
    }

    #[test]
    fn a_malformed_header_offers_nothing() {
        for header in [
            "",
            ",",
            "permessage-deflate; ",
            "permessage-deflate, x; y=\"",
        ] {
            assert_eq!(answer(header, &FORGETTING), None, "{header}");
        }
    }

    #[test]
    fn the_first_offer_that_can_be_kept_to_wins() {
        let header = "permessage-deflate; server_max_window_bits=8, \
                      permessage-deflate; new_in_2030, \
                      permessage-deflate; server_max_window_bits=11, \
                      permessage-deflate";
        assert_eq!(
            response(header, &KEEPING_CONTEXT),
            "permessage-deflate; server_max_window_bits=11"
        );
    }

    #[test]
    fn the_servers_own_bounds_are_kept() {
        let options = Options {
            server_max_window_bits: 10,
            client_max_window_bits: 11,
            ..KEEPING_CONTEXT
        };
        let bounded = "permessage-deflate; server_max_window_bits=10; client_max_window_bits=11";
        for (parameters, expected) in [
            ("; client_max_window_bits", bounded),
            (
                "; client_max_window_bits=15; server_max_window_bits=15",
                bounded,
            ),
            (
                "; client_max_window_bits=9; server_max_window_bits=9",
                "permessage-deflate; server_max_window_bits=9; client_max_window_bits=9",
            ),
            // Only `client_no_context_takeover` may be asked of a client that has not offered it.
            (
                "",
                "permessage-deflate; client_no_context_takeover; server_max_window_bits=10",
            ),
        ] {
            let header = format!("permessage-deflate{parameters}");
            assert_eq!(response(&header, &options), expected, "{header}");
        }
    }
}
