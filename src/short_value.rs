//! Short values of headers that live about as long as one request: numbers, and other texts.
//!
//! They are cut from a block that each thread keeps. An allocation for each, and one more for the count of its holders, would
//! cost several times what it costs to write them. A value keeps its whole block, so none that lives long belongs here.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;

/// Bytes of a block: few enough for the allocator's caches, and a request that outlives those beside it keeps no more.
const BLOCK: usize = 1024;

/// The longest value that is cut from a block. A longer one would leave too much of the block before it unused.
const LONGEST: usize = BLOCK / 8;

/// Returns a number as the value of a header, which `HeaderValue::from` would allocate two or three times for.
pub(crate) fn number_value(number: u64) -> HeaderValue {
    const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    match usize::try_from(number).ok().and_then(|number| DIGITS.get(number)) {
        Some(digit) => HeaderValue::from_static(digit),
        None => short_value(itoa::Buffer::new().format(number).as_bytes()).unwrap_or(HeaderValue::from_static("0")),
    }
}

/// Returns a short text as the value of a header, or `None` if it cannot be one.
pub(crate) fn short_value(text: &[u8]) -> Option<HeaderValue> {
    HeaderValue::from_maybe_shared(short_bytes(text)).ok()
}

/// Returns a copy of these bytes, which costs no allocation if they are few.
fn short_bytes(bytes: &[u8]) -> Bytes {
    thread_local! {
        static REST: RefCell<BytesMut> = RefCell::new(BytesMut::new());
    }
    if bytes.len() > LONGEST {
        return Bytes::copy_from_slice(bytes);
    }
    REST.with_borrow_mut(|rest| {
        // A block of which no value is left is used again.
        if !rest.try_reclaim(bytes.len()) {
            *rest = BytesMut::with_capacity(BLOCK);
        }
        rest.extend_from_slice(bytes);
        rest.split().freeze()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_any_length_keep_their_bytes() {
        let texts: Vec<String> = (0..3 * LONGEST).map(|length| "x".repeat(length) + &length.to_string()).collect();
        let values: Vec<HeaderValue> = texts.iter().filter_map(|text| short_value(text.as_bytes())).collect();
        assert_eq!(values, texts);
        assert_eq!(short_value(b"").unwrap(), "");
        assert_eq!(number_value(9), "9");
        assert_eq!(number_value(u64::MAX), u64::MAX.to_string());
    }

    #[test]
    fn a_block_is_used_again_once_its_values_are_gone() {
        let places: Vec<usize> = (0..1000).map(|_| short_bytes(b"0123456789").as_ptr() as usize).collect();
        let (first, last) = (places.iter().min().unwrap(), places.iter().max().unwrap());
        assert!(last - first < BLOCK, "{} bytes", last - first);
    }
}
