//! The bytes that matter in a skipped JSON value, as a bit for each of many bytes.

/// Bytes that are compared together.
pub(super) const BLOCK: usize = 32;

/// The marks of a block, the first byte in the lowest bit.
pub(super) type MarkBits = u32;

/// Returns the brackets, quotes and backslashes of a block.
pub(super) fn lenient_marks(block: &[u8; BLOCK]) -> MarkBits {
    bits(block, is_lenient_mark)
}

/// Returns also what begins a comment or a string in a wider dialect of JSON, and `|`, which JSON has in strings only.
pub(super) fn strict_marks(block: &[u8; BLOCK]) -> MarkBits {
    bits(block, |byte| is_lenient_mark(byte) | (byte | 0x20 == b'|') | matches!(byte, b'#' | b'\'' | b'/' | b'`'))
}

#[inline(always)]
fn is_lenient_mark(byte: u8) -> bool {
    // `[` and `]` differ from `{` and `}` in this bit only, and `\` from `|`.
    (byte == b'"') | (byte | 0x20 == b'{') | (byte | 0x20 == b'}') | (byte == b'\\')
}

#[inline(always)] // to be made of vector instructions, it has to know what a mark is
fn bits(block: &[u8; BLOCK], is_mark: impl Fn(u8) -> bool) -> MarkBits {
    // A loop of this form becomes vector instructions.
    let mut found = [0_u8; BLOCK];
    for (found, byte) in found.iter_mut().zip(block) {
        *found = u8::from(is_mark(*byte));
    }
    let (words, _) = found.as_chunks();
    words.iter().enumerate().fold(0, |bits, (at, word)| bits | gathered(u64::from_le_bytes(*word)) << (at * 8))
}

/// Returns the lowest bits of eight bytes, of which no other bit is set, next to each other.
fn gathered(word: u64) -> MarkBits {
    /// Moves the bit of byte n to bit 56 + n.
    const TO_THE_TOP: u64 = 0x0102_0408_1020_4080;
    (word.wrapping_mul(TO_THE_TOP) >> 56) as MarkBits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_mark_has_its_bit(block: [u8; BLOCK]) {
            for (at, byte) in block.iter().enumerate() {
                let is_lenient = b"\"\\[]{}".contains(byte);
                prop_assert_eq!(lenient_marks(&block) >> at & 1 == 1, is_lenient);
                prop_assert_eq!(strict_marks(&block) >> at & 1 == 1, is_lenient || b"|#'/`".contains(byte));
            }
        }
    }

    #[test]
    fn each_byte_is_told_apart_at_each_place() {
        for byte in 0..=u8::MAX {
            let is_lenient = b"\"\\[]{}".contains(&byte);
            let is_strict = is_lenient || b"|#'/`".contains(&byte);
            let of = |is_mark: bool| if is_mark { MarkBits::MAX } else { 0 };
            assert_eq!((lenient_marks(&[byte; BLOCK]), strict_marks(&[byte; BLOCK])), (of(is_lenient), of(is_strict)));
        }
    }
}
