//! Lines of a head, as bytes: how one is written, and the values that each side reads alike.

/// Adds a header line.
pub(in crate::gateway) fn add_line(head: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    // Once for all parts.
    head.reserve(name.len() + value.len() + b": \r\n".len());
    for part in [name, b": ", value, b"\r\n"] {
        head.extend_from_slice(part);
    }
}

/// Parses a `Content-Length`: digits only, with no sign and no list (RFC 9110, section 8.6).
pub(in crate::gateway) fn parse_content_length(digits: &[u8]) -> Option<u64> {
    let add = |sum: u64, digit: &u8| match digit {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    };
    // hyper uses the two largest numbers for bodies of unknown length.
    if digits.is_empty() { None } else { digits.iter().try_fold(0, add).filter(|&sum| sum <= u64::MAX - 2) }
}
