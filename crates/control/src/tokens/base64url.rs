//! Base64 for URLs, without padding (RFC 4648 section 5), as tokens are written.

/// The text that stands for `bytes`.
pub fn encode(bytes: &[u8]) -> String {
    let translate = |c| match c {
        '+' => '-',
        '/' => '_',
        c => c,
    };
    api::base64::encode(bytes).trim_end_matches('=').chars().map(translate).collect()
}

/// The bytes, or None for what [`encode`] would not have written: so a token has one spelling.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut standard = String::with_capacity(text.len() + 3);
    for c in text.chars() {
        standard.push(match c {
            '-' => '+',
            '_' => '/',
            c if c.is_ascii_alphanumeric() => c,
            _ => return None,
        });
    }
    while !standard.len().is_multiple_of(4) {
        standard.push('=');
    }
    let bytes = api::base64::decode(&standard).ok()?;
    (encode(&bytes) == text).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_no_padding_and_one_spelling() {
        for (bytes, text) in [(&b""[..], ""), (b"f", "Zg"), (b"\xfb\xff", "-_8"), (b"foo", "Zm9v")] {
            assert_eq!(encode(bytes), text);
            assert_eq!(decode(text).as_deref(), Some(bytes));
        }
        // Padding, the other alphabet, bits that say nothing, a length that cannot be.
        for bad in ["Zg==", "+/8", "Zh", "Z", "Zm9v\n", "Zm 9v", "é"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
