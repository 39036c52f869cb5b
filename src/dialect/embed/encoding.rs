//! How the numbers of a vector are written: as floats, as integers of 8 bits, as bits, and each of them in base64.

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use serde::{Serialize, Serializer};

/// Reads base64 with and without its padding.
const TOLERANT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What `binary` takes off an unsigned byte: Voyage's "offset binary", and `quantize_embeddings` of
/// sentence-transformers.
const OFFSET: i16 = 128;

/// How the vectors of an answer are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VectorEncoding {
    /// The type of the numbers.
    pub number: VectorNumber,
    /// Whether the bytes of the numbers are written in base64; else the numbers are an array.
    pub is_base64: bool,
}

impl VectorEncoding {
    /// An array of floats.
    pub const FLOATS: Self = Self { number: VectorNumber::Float, is_base64: false };
    /// The bytes of floats in base64.
    pub const BASE64: Self = Self { number: VectorNumber::Float, is_base64: true };
}

/// The numbers of a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VectorNumber {
    /// 32 bits, little endian in base64.
    Float,
    /// -127..=127 for -1..=1.
    Int8,
    /// 1..=255 for -1..=1: 128 more than [`VectorNumber::Int8`].
    Uint8,
    /// Eight signs in a byte, less 128.
    Binary,
    /// Eight signs in a byte.
    Ubinary,
}

impl VectorNumber {
    /// Returns the number type that Cohere, Jina and Voyage call by this name.
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "float" => Self::Float,
            "int8" => Self::Int8,
            "uint8" => Self::Uint8,
            "binary" => Self::Binary,
            "ubinary" => Self::Ubinary,
            _ => return None,
        })
    }

    /// Returns its name in the dialects of Cohere, Jina and Voyage.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Int8 => "int8",
            Self::Uint8 => "uint8",
            Self::Binary => "binary",
            Self::Ubinary => "ubinary",
        }
    }

    /// Returns whether its range is that of a vector of length 1.
    pub(super) fn is_scaled(self) -> bool {
        matches!(self, Self::Int8 | Self::Uint8)
    }
}

/// A vector and how it is written. It is encoded only when it is written.
pub(super) struct Encoded<'a>(pub(super) &'a [f32], pub(super) VectorEncoding);

impl Serialize for Encoded<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match encode(self.0, self.1) {
            EncodedVector::Floats(floats) => floats.serialize(serializer),
            EncodedVector::Integers(integers) => integers.serialize(serializer),
            EncodedVector::Text(text) => text.serialize(serializer),
        }
    }
}

#[derive(Debug)]
enum EncodedVector<'a> {
    Floats(&'a [f32]),
    Integers(Vec<i16>),
    Text(String),
}

/// Encodes a vector. Integers are meant for vectors of length 1.
fn encode(vector: &[f32], encoding: VectorEncoding) -> EncodedVector<'_> {
    let integers: Vec<i16> = match (encoding.number, encoding.is_base64) {
        (VectorNumber::Float, false) => return EncodedVector::Floats(vector),
        (VectorNumber::Float, true) => {
            let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
            return EncodedVector::Text(STANDARD.encode(bytes));
        }
        (VectorNumber::Int8, _) => vector.iter().map(|number| scaled(*number)).collect(),
        (VectorNumber::Uint8, _) => vector.iter().map(|number| scaled(*number) + OFFSET).collect(),
        (VectorNumber::Binary, _) => vector.chunks(8).map(|eight| i16::from(signs(eight)) - OFFSET).collect(),
        (VectorNumber::Ubinary, _) => vector.chunks(8).map(|eight| i16::from(signs(eight))).collect(),
    };
    if !encoding.is_base64 {
        return EncodedVector::Integers(integers);
    }
    // The low byte is the number in both ranges: two's complement for the signed ones.
    let bytes: Vec<u8> = integers.iter().map(|number| number.to_le_bytes()[0]).collect();
    EncodedVector::Text(STANDARD.encode(bytes))
}

/// Returns a number of a vector of length 1 as an integer of 8 bits.
///
/// Cohere and Voyage publish the ranges of int8 (-128..=127) and uint8 (0..=255), but not the mapping, which their models
/// are trained for. `quantize_embeddings` of sentence-transformers divides the range between the least and the greatest
/// value of each dimension into 255 steps. Those values depend on a calibration set, and no two requests would be
/// comparable without one, so the range is that of any vector of length 1: -1..=1. Numbers are rounded to the nearest step
/// and 0 stays 0. Upstream's truncation shifts all of them by up to a step, which is much for vectors of 1,024 numbers:
/// theirs are 0.03 on average, four steps.
fn scaled(number: f32) -> i16 {
    #[expect(clippy::cast_possible_truncation, reason = "the number is within -127..=127")]
    let scaled = (number.clamp(-1.0, 1.0) * 127.0).round() as i16;
    scaled
}

/// Packs the signs of up to eight numbers into a byte, the first into its highest bit: 1 for a number above 0. Missing
/// numbers count as 0. So do numpy's `packbits(embeddings > 0)` in sentence-transformers, and Voyage.
fn signs(numbers: &[f32]) -> u8 {
    numbers.iter().enumerate().fold(0, |byte, (at, number)| if *number > 0.0 { byte | (0x80 >> at) } else { byte })
}

/// Decodes floats of 32 bits, little endian, in base64. None if the text is something else.
pub(super) fn decode_floats(text: &str) -> Option<Vec<f32>> {
    let bytes = TOLERANT.decode(text).ok()?;
    let (numbers, rest) = bytes.as_chunks::<4>();
    rest.is_empty().then(|| numbers.iter().map(|number| f32::from_le_bytes(*number)).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn integers(vector: &[f32], number: VectorNumber) -> Vec<i16> {
        match encode(vector, VectorEncoding { number, is_base64: false }) {
            EncodedVector::Integers(integers) => integers,
            other => panic!("{other:?} are no integers"),
        }
    }

    fn base64(vector: &[f32], number: VectorNumber) -> String {
        match encode(vector, VectorEncoding { number, is_base64: true }) {
            EncodedVector::Text(text) => text,
            other => panic!("{other:?} is no text"),
        }
    }

    #[test]
    fn signs_are_packed_as_voyage_and_numpy_pack_them() {
        // The bits are 0, 1, 0, 0, 1, 1, 0, 1: 77, and 77 - 128 as offset binary.
        let vector = [-0.04, 0.006, -0.07, -0.04, 0.005, 0.0003, -0.08, 0.04];
        assert_eq!(integers(&vector, VectorNumber::Ubinary), [77]);
        assert_eq!(integers(&vector, VectorNumber::Binary), [-51]);
        // numpy.packbits fills the last byte with zeros; 0 itself is no 1.
        let vector = [1.0, 0.0, -0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, -1.0];
        assert_eq!(integers(&vector, VectorNumber::Ubinary), [0b1001_1111, 0b1000_0000]);
        assert_eq!(integers(&vector, VectorNumber::Binary), [31, 0]);
    }

    #[test]
    fn integers_cover_the_range_of_vectors_of_length_one() {
        let vector = [-1.0, -0.5, -0.001, 0.0, 0.001, 0.03, 0.5, 1.0];
        assert_eq!(integers(&vector, VectorNumber::Int8), [-127, -64, 0, 0, 0, 4, 64, 127]);
        assert_eq!(integers(&vector, VectorNumber::Uint8), [1, 64, 128, 128, 128, 132, 192, 255]);
        assert_eq!(integers(&[-7.0, 7.0], VectorNumber::Int8), [-127, 127]);
    }

    #[test]
    fn base64_holds_the_bytes_of_the_numbers() {
        // numpy.array([1, -2, 0.5], dtype="<f4"), then its int8 and bits.
        assert_eq!(base64(&[1.0, -2.0, 0.5], VectorNumber::Float), "AACAPwAAAMAAAAA/");
        assert_eq!(base64(&[1.0, -1.0, 0.0], VectorNumber::Int8), STANDARD.encode([127, 129, 0]));
        assert_eq!(base64(&[1.0, -1.0, 0.0], VectorNumber::Uint8), STANDARD.encode([255, 1, 128]));
        assert_eq!(base64(&[1.0, -1.0, 1.0], VectorNumber::Binary), STANDARD.encode([0x20]));
        assert_eq!(base64(&[1.0, -1.0, 1.0], VectorNumber::Ubinary), STANDARD.encode([0xA0]));
        assert_eq!(decode_floats("AACAPwAAAMAAAAA/"), Some(vec![1.0, -2.0, 0.5]));
        assert_eq!(decode_floats("AACAPw=="), Some(vec![1.0]));
        assert_eq!(decode_floats("AACAPw"), Some(vec![1.0]));
        assert_eq!((decode_floats("AACA"), decode_floats("!")), (None, None));
    }

    proptest! {
        #[test]
        fn floats_survive_base64_bit_by_bit(vector in prop::collection::vec(any::<f32>(), 0..40)) {
            let text = base64(&vector, VectorNumber::Float);
            let bits = |vector: &[f32]| vector.iter().map(|number| number.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&decode_floats(&text).unwrap()), bits(&vector));
        }

        #[test]
        fn an_integer_is_within_half_a_step(vector in prop::collection::vec(-1.0_f32..=1.0, 1..40)) {
            let signed = integers(&vector, VectorNumber::Int8);
            let unsigned = integers(&vector, VectorNumber::Uint8);
            for ((number, signed), unsigned) in vector.iter().zip(signed).zip(unsigned) {
                prop_assert!((f32::from(signed) / 127.0 - number).abs() <= 0.5 / 127.0 + 1e-6);
                prop_assert_eq!(unsigned, signed + OFFSET);
                prop_assert!((0..=255).contains(&unsigned));
            }
        }

        #[test]
        fn bits_are_the_signs(vector in prop::collection::vec(-1.0_f32..=1.0, 1..40)) {
            let bytes = integers(&vector, VectorNumber::Ubinary);
            prop_assert_eq!(bytes.len(), vector.len().div_ceil(8));
            for (at, number) in vector.iter().enumerate() {
                prop_assert_eq!(bytes[at / 8] & (0x80 >> (at % 8)) != 0, *number > 0.0);
            }
        }
    }
}
