//! Choosing a subprotocol (RFC 6455 section 1.9).

/// The first of `supported`, in the server's order of preference, that the client offered.
///
/// Names are compared case-sensitively. `None` means that nothing fits: the handshake then goes on
/// without a subprotocol, and it is for the client to accept that.
pub fn choose<'a>(supported: &'a [String], offered: &[&str]) -> Option<&'a str> {
    supported
        .iter()
        .map(String::as_str)
        .find(|name| offered.contains(name))
}

/// Whether `s` is a token (RFC 7230 section 3.2.6), as the names of subprotocols and headers are.
pub fn is_token(s: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !s.is_empty() && s.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_preference_wins() {
        let supported = ["v2.chat", "v1.chat"].map(String::from);
        assert_eq!(choose(&supported, &["v1.chat", "v2.chat"]), Some("v2.chat"));
        assert_eq!(choose(&supported, &["v1.chat"]), Some("v1.chat"));
    }

    #[test]
    fn nothing_in_common_chooses_nothing() {
        let supported = [String::from("chat")];
        assert_eq!(choose(&supported, &["Chat", "chat2"]), None);
        assert_eq!(choose(&supported, &[]), None);
        assert_eq!(choose(&[], &["chat"]), None);
    }

    #[test]
    fn tokens_are_those_of_rfc_7230() {
        for byte in 0..=u8::MAX {
            let expected = matches!(byte,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_'
                | b'`' | b'|' | b'~' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z');
            assert_eq!(is_token(&char::from(byte).to_string()), expected, "{byte}");
        }
        assert!(!is_token(""));
        assert!(is_token("graphql-transport-ws"));
        assert!(!is_token("chat v2"));
        assert!(!is_token("gespräch"));
    }
}
