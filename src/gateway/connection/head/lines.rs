//! Lines of a head, as bytes: how one is written, what a value may hold, and the names and values that each side reads alike.

use http::header::{self, HeaderName};

/// Adds a header line.
pub(in crate::gateway) fn add_line(head: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    // Once for all parts.
    head.reserve(name.len() + value.len() + b": \r\n".len());
    for part in [name, b": ", value, b"\r\n"] {
        head.extend_from_slice(part);
    }
}

/// Whether a header value is free of NUL, bare CR and other control characters (RFC 9110, section 5.5). Eight bytes are looked
/// at together: nearly all values are too short for what the compiler makes of a loop over bytes.
pub(super) fn is_field_value(value: &[u8]) -> bool {
    match value.last_chunk::<8>() {
        // The last eight bytes, of which some may have been looked at, are what is left of a value of any length.
        Some(last) => value.as_chunks::<8>().0.iter().chain([last]).all(is_field_word),
        None => value.iter().all(is_field_byte),
    }
}

/// Whether eight bytes of a header value may be there. A tab may, but is rare.
fn is_field_word(word: &[u8; 8]) -> bool {
    const EACH: u64 = u64::from_ne_bytes([1; 8]);
    let bytes = u64::from_ne_bytes(*word);
    // The high bit of a byte is left set where there is one below the space, or one that is DEL.
    let below_space = bytes.wrapping_sub(EACH * 0x20) & !bytes;
    let others_than_del = bytes ^ (EACH * 0x7f);
    let is_del = others_than_del.wrapping_sub(EACH) & !others_than_del;
    (below_space | is_del) & (EACH * 0x80) == 0 || word.iter().all(is_field_byte)
}

fn is_field_byte(byte: &u8) -> bool {
    !byte.is_ascii_control() || *byte == b'\t'
}

/// Parses a `Content-Length`: digits only, with no sign and no list (RFC 9110, section 8.6).
pub(in crate::gateway) fn parse_content_length(digits: &[u8]) -> Option<u64> {
    // hyper uses the two largest numbers for bodies of unknown length.
    parse_digits(digits).filter(|&length| length <= u64::MAX - 2)
}

/// Parses a number that is written in digits only. `None` if there are none, or it is too large.
pub(in crate::gateway) fn parse_digits(digits: &[u8]) -> Option<u64> {
    let add = |sum: u64, digit: &u8| match digit {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    };
    if digits.is_empty() { None } else { digits.iter().try_fold(0, add) }
}

/// Parses the name of a header. Those that nearly every client or worker sends, as it writes them, are only compared, which
/// takes a quarter of the time.
pub(in crate::gateway) fn header_name(name: &[u8]) -> Option<HeaderName> {
    Some(match name {
        b"host" | b"Host" => header::HOST,
        b"accept" | b"Accept" => header::ACCEPT,
        b"connection" | b"Connection" => header::CONNECTION,
        b"user-agent" | b"User-Agent" => header::USER_AGENT,
        b"content-type" | b"Content-Type" => header::CONTENT_TYPE,
        b"authorization" | b"Authorization" => header::AUTHORIZATION,
        b"content-length" | b"Content-Length" => header::CONTENT_LENGTH,
        b"accept-encoding" | b"Accept-Encoding" => header::ACCEPT_ENCODING,
        _ => return HeaderName::from_bytes(name).ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_written_in_digits_only() {
        for (text, length) in [("5", 5), ("005", 5), ("18446744073709551613", u64::MAX - 2)] {
            assert_eq!(parse_content_length(text.as_bytes()), Some(length), "{text}");
        }
        for text in ["", "+5", "-5", " 5", "5 ", "5a", "5,5", "18446744073709551614", "18446744073709551616"] {
            assert_eq!(parse_content_length(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse_digits(b"18446744073709551615"), Some(u64::MAX));
    }

    #[test]
    fn a_name_that_is_only_compared_is_the_one_that_is_parsed() {
        let compared = "Host Accept Connection User-Agent Content-Type Authorization Content-Length Accept-Encoding";
        for name in compared.split(' ').chain(["ACCEPT", "X-Own", "Content-Typf"]) {
            for name in [name.to_owned(), name.to_lowercase()] {
                assert_eq!(header_name(name.as_bytes()), HeaderName::from_bytes(name.as_bytes()).ok(), "{name}");
            }
        }
    }

    #[test]
    fn a_value_of_any_length_holds_no_control_character_but_tabs() {
        for length in 1..30 {
            for (at, byte) in (0..length).flat_map(|at| (0..=u8::MAX).map(move |byte| (at, byte))) {
                for other in [b'x', b'\t', 0xff] {
                    let mut value = vec![other; length];
                    value[at] = byte;
                    let is_good = byte == b'\t' || byte >= b' ' && byte != 0x7f;
                    assert_eq!(is_field_value(&value), is_good, "{byte} at {at} of {length}");
                }
            }
        }
        assert!(is_field_value(b""));
    }
}
