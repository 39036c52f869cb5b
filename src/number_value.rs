//! Numbers as values of headers.

use http::HeaderValue;

/// Returns a number as the value of a header, which `HeaderValue::from` would allocate two or three times for.
pub(crate) fn number_value(number: u64) -> HeaderValue {
    const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    match usize::try_from(number).ok().and_then(|number| DIGITS.get(number)) {
        Some(digit) => HeaderValue::from_static(digit),
        None => HeaderValue::from_str(itoa::Buffer::new().format(number)).unwrap_or(HeaderValue::from_static("0")),
    }
}
