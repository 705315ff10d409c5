//! Names of subprotocols (RFC 6455 section 1.9).

/// Whether `s` is a token (RFC 7230 section 3.2.6), as the names of subprotocols and headers are.
pub fn is_token(s: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !s.is_empty() && s.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

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
