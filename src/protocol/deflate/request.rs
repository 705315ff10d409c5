//! Agreeing on the extension as a client (RFC 7692 section 7.1).

use super::{
    Agreement, Options, Terms,
    offer::{MIN_WINDOW_BITS, read_answer},
};
use crate::protocol::extension;

/// The offer of a client, the value of `Sec-WebSocket-Extensions` in its request. Of `options` it
/// reads which side is to compress each message for itself.
pub fn offer(options: &Options) -> String {
    let offered = Agreement {
        server_no_context_takeover: options.server_no_context_takeover,
        client_no_context_takeover: options.client_no_context_takeover,
        ..Agreement::default()
    };
    // Without a value: the server may bound our window.
    format!("{offered}; client_max_window_bits")
}

/// The terms of a server's answer to [`offer`], as the client's end keeps to them.
///
/// # Errors
/// The reason for which the handshake has to fail (section 7.1): another extension, an unknown or
/// malformed parameter, or one that does not answer the offer.
pub fn terms(header: &str, options: Options) -> Result<Terms, String> {
    let refused = |reason: &str| format!("it agrees on {header:?}: {reason}");
    let extensions = extension::parse(header).ok_or_else(|| refused("malformed"))?;
    let [extension] = &extensions[..] else {
        return Err(refused("one extension was offered"));
    };
    let answer = read_answer(extension).ok_or_else(|| refused("this was not offered"))?;
    if options.server_no_context_takeover && !answer.server_no_context_takeover {
        return Err(refused("server_no_context_takeover is missing"));
    }
    let ours = answer.client_max_window_bits;
    // There is no compressor with a window of 8 bits. Compressing is never a must.
    let is_too_small = ours.is_some_and(|bits| bits < MIN_WINDOW_BITS);
    Ok(Terms {
        // The parts of `deflate` are named as a server sees them.
        agreement: Agreement {
            server_no_context_takeover: answer.client_no_context_takeover
                || options.client_no_context_takeover,
            client_no_context_takeover: answer.server_no_context_takeover,
            server_max_window_bits: ours,
            client_max_window_bits: answer.server_max_window_bits,
        },
        options: Options {
            threshold_bytes: if is_too_small {
                usize::MAX
            } else {
                options.threshold_bytes
            },
            ..options
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEPING: Options = Options {
        threshold_bytes: 64,
        level: 1,
        server_no_context_takeover: false,
        client_no_context_takeover: false,
        server_max_window_bits: 15,
        client_max_window_bits: 15,
    };
    const FORGETTING: Options = Options {
        server_no_context_takeover: true,
        client_no_context_takeover: true,
        ..KEEPING
    };

    #[test]
    fn the_offer_names_what_is_asked_for() {
        assert_eq!(
            offer(&KEEPING),
            "permessage-deflate; client_max_window_bits"
        );
        assert_eq!(
            offer(&FORGETTING),
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
             client_max_window_bits"
        );
    }

    #[test]
    fn the_sides_are_exchanged() {
        let answer = "permessage-deflate; server_no_context_takeover; server_max_window_bits=10; \
                      client_max_window_bits=9";
        let terms = terms(answer, KEEPING).unwrap();
        assert_eq!(
            terms.agreement,
            Agreement {
                server_no_context_takeover: false,
                client_no_context_takeover: true,
                server_max_window_bits: Some(9),
                client_max_window_bits: Some(10),
            }
        );
        assert_eq!(terms.options, KEEPING);
    }

    #[test]
    fn a_window_that_is_too_small_ends_compressing_not_the_handshake() {
        let terms = terms("permessage-deflate; client_max_window_bits=8", KEEPING).unwrap();
        assert_eq!(terms.options.threshold_bytes, usize::MAX);
    }

    #[test]
    fn an_answer_that_was_not_offered_is_refused() {
        for (answer, reason) in [
            ("x-webkit-deflate-frame", "this was not offered"),
            ("permessage-deflate; unknown", "this was not offered"),
            (
                "permessage-deflate; client_max_window_bits",
                "this was not offered",
            ),
            (
                "permessage-deflate; client_max_window_bits=16",
                "this was not offered",
            ),
            (
                "permessage-deflate; server_max_window_bits",
                "this was not offered",
            ),
            (
                "permessage-deflate, permessage-deflate",
                "one extension was offered",
            ),
            ("permessage-deflate;", "malformed"),
            (
                "permessage-deflate",
                "server_no_context_takeover is missing",
            ),
        ] {
            let refused = terms(answer, FORGETTING).unwrap_err();
            assert!(refused.ends_with(reason), "{refused}");
        }
    }
}
