//! Standard base64 with padding, as Go's `base64.StdEncoding`: JSON's form of bytes.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let n = chunk.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            if i <= chunk.len() {
                out.push(char::from(ALPHABET[(n >> (18 - 6 * i) & 63) as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

/// The bytes, or the position of the first character that does not belong.
pub fn decode(text: &str) -> Result<Vec<u8>, usize> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    walk(text, |bytes| out.extend_from_slice(bytes))?;
    Ok(out)
}

/// As [`decode`], without keeping the bytes.
pub fn check(text: &str) -> Result<(), usize> {
    walk(text, |_| ())
}

fn walk(text: &str, mut out: impl FnMut(&[u8])) -> Result<(), usize> {
    let (mut group, mut have, mut padding) = (0u32, 0usize, 0usize);
    // Go skips line ends wherever they stand.
    for (at, c) in text.bytes().enumerate().filter(|(_, c)| !matches!(c, b'\r' | b'\n')) {
        let digit = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' if have >= 2 && have + padding < 4 => {
                padding += 1;
                if have + padding == 4 {
                    let bytes = (group << (6 * padding)).to_be_bytes();
                    out(&bytes[1..4 - padding]);
                }
                continue;
            }
            _ => return Err(at),
        };
        if padding > 0 {
            return Err(at);
        }
        group = group << 6 | u32::from(digit);
        have += 1;
        if have == 4 {
            out(&group.to_be_bytes()[1..]);
            (group, have) = (0, 0);
        }
    }
    if have == 0 || have + padding == 4 { Ok(()) } else { Err(text.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_texts() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Ok(bytes.as_bytes()));
        }
        assert_eq!(decode("Zm9v\nYmFy").as_deref(), Ok(&b"foobar"[..]));
    }

    #[test]
    fn what_does_not_belong_is_named_by_its_position() {
        for (text, at) in
            [("Zg", 2), ("Zg=", 3), ("Z===", 1), ("Zg==x", 4), ("Zm9*", 3), ("=", 0), ("Zg=a", 3)]
        {
            assert_eq!(decode(text), Err(at), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(decode(&encode(&bytes)), Ok(bytes));
        }
    }
}
