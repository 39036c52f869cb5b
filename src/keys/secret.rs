//! Secrets: their form, their generation and their digests.
//!
//! `Debug` hides secrets and digests, so that none is printed by accident. A secret is shown only by
//! [`NewSecret::reveal`] and in a rendered line.

use std::fmt;
use std::hash::{Hash, Hasher};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use super::error::KeyLineProblem;
use crate::hex::hex;

/// Length of a secret in characters.
pub const SECRET_LENGTH: std::ops::RangeInclusive<usize> = 16..=128;
/// Length of any text that may be a secret: that of `LLAMAGATE_API_KEY` may be shorter or longer than those of the file.
const PRESENTED_LENGTH: std::ops::RangeInclusive<usize> = 8..=256;
/// Prefix of the hex digits of a hashed secret in the key file.
pub const HASH_PREFIX: &str = "sha256=";
/// Number of random bytes in a new secret.
const RANDOM_BYTES: usize = 32;

/// Whether this text has the form of a secret: 16 to 128 of `[A-Za-z0-9_-]`.
pub fn is_well_formed(secret: &str) -> bool {
    SECRET_LENGTH.contains(&secret.len()) && secret.bytes().all(is_word_byte)
}

/// Whether a request may present this text as a secret: 8 to 256 visible ASCII characters.
pub(super) fn can_be_presented(text: &str) -> bool {
    // No early exit: the compiler can then use vector instructions, and nearly every text passes.
    PRESENTED_LENGTH.contains(&text.len())
        && text.bytes().fold(true, |are_graphic, byte| are_graphic & byte.is_ascii_graphic())
}

/// Whether names and secrets may contain this byte.
pub(super) const fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

/// The SHA-256 of a secret. Two of them are compared in constant time, in a hash table too.
#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Returns the digest of this secret.
    pub fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }

    /// Parses 64 hex digits of either case.
    pub fn from_hex(hex: &str) -> Option<Self> {
        // An odd number of digits leaves a remainder.
        let (pairs, []) = hex.as_bytes().as_chunks::<2>() else {
            return None;
        };
        let mut bytes = [0; 32];
        if pairs.len() != bytes.len() {
            return None;
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            let digit = |c: u8| char::from(c).to_digit(16);
            *byte = u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?;
        }
        Some(Self(bytes))
    }

    /// Returns its bytes, for a hash of which it is a part.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn words(&self) -> impl Iterator<Item = u64> {
        self.0.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word))
    }

    fn to_hex(self) -> String {
        hex(&self.0)
    }
}

impl PartialEq for Digest {
    // In constant time, so that the time of a lookup does not tell how many bytes of a digest match. Eight bytes at once,
    // because each comparison of this kind is several instructions that no compiler may join.
    fn eq(&self, other: &Self) -> bool {
        let pairs = self.words().zip(other.words());
        pairs.fold(Choice::from(1), |are_equal, (one, other)| are_equal & one.ct_eq(&other)).into()
    }
}

impl Eq for Digest {}

impl Hash for Digest {
    // Its bytes are a hash already, of which any eight are as good as all.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.0.first_chunk::<8>().unwrap_or(&[0; 8]));
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(hidden)")
    }
}

/// A secret as the key file holds it.
#[derive(Clone, PartialEq, Eq)]
pub enum Stored {
    /// The secret itself.
    Plain(String),
    /// Only its digest, which cannot be used as a secret.
    Hashed(Digest),
}

impl Stored {
    /// Parses the second field of a line.
    ///
    /// # Errors
    /// When it is neither a well-formed secret nor, after the prefix, a hash.
    pub(super) fn parse(field: &str) -> Result<Self, KeyLineProblem> {
        match field.strip_prefix(HASH_PREFIX) {
            Some(hex) => Digest::from_hex(hex).map(Self::Hashed).ok_or(KeyLineProblem::Hash),
            None if is_well_formed(field) => Ok(Self::Plain(field.to_owned())),
            None => Err(KeyLineProblem::Secret),
        }
    }

    /// Returns the digest that a presented secret must have.
    pub fn digest(&self) -> Digest {
        match self {
            Self::Plain(secret) => Digest::of(secret),
            Self::Hashed(digest) => *digest,
        }
    }

    /// Returns the field for the key file. Holds the secret if it is stored plain.
    pub(super) fn render(&self) -> String {
        match self {
            Self::Plain(secret) => secret.clone(),
            Self::Hashed(digest) => format!("{HASH_PREFIX}{}", digest.to_hex()),
        }
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain(hidden)",
            Self::Hashed(_) => "Hashed(hidden)",
        })
    }
}

/// A secret that was just generated and has not been shown yet.
pub struct NewSecret(String);

impl NewSecret {
    /// Generates a secret: `sk-` and 43 base64url characters, 256 bits from the operating system's generator.
    ///
    /// # Errors
    /// When the operating system returns no random bytes.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; RANDOM_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self(format!("sk-{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// Returns the form in which the key file stores it: plain or hashed.
    pub fn stored(&self, plain: bool) -> Stored {
        if plain { Stored::Plain(self.0.clone()) } else { Stored::Hashed(Digest::of(&self.0)) }
    }

    /// Returns the secret itself, to be shown once.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for NewSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewSecret(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_secret_is_well_formed_and_unlike_the_last_one() {
        let (one, two) = (NewSecret::generate().unwrap(), NewSecret::generate().unwrap());
        assert_eq!(one.reveal().len(), 3 + 43);
        assert!(is_well_formed(one.reveal()));
        assert_ne!(one.reveal(), two.reveal());
    }

    #[test]
    fn the_digest_is_the_same_sha256_that_other_programs_compute() {
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of("abc").to_hex(), hex);
        assert_eq!(Digest::from_hex(&hex.to_uppercase()), Some(Digest::of("abc")));
    }

    #[test]
    fn digests_that_differ_in_any_byte_are_not_equal() {
        let digest = Digest::of("abc");
        for at in 0..digest.0.len() {
            let mut other = digest;
            other.0[at] ^= 1;
            assert!(other != digest && digest == Digest::of("abc"), "{at}");
        }
    }

    #[test]
    fn only_64_hex_digits_are_a_digest() {
        let long = "a".repeat(65);
        let multibyte = format!("{}é", "a".repeat(62));
        for hex in ["", "ab", &long[..63], &long, &multibyte, &"g".repeat(64), &"+1".repeat(32)] {
            assert_eq!(Digest::from_hex(hex), None, "{hex}");
        }
    }

    #[test]
    fn secrets_are_16_to_128_word_characters() {
        assert!(is_well_formed(&"a".repeat(16)) && is_well_formed(&"Z9_-".repeat(32)));
        for bad in ["a".repeat(15), "a".repeat(129), format!("{}é", "a".repeat(20)), format!("{}=", "a".repeat(20))] {
            assert!(!is_well_formed(&bad), "{bad}");
        }
    }

    #[test]
    fn debug_output_hides_secrets_and_digests() {
        let secret = NewSecret::generate().unwrap();
        let shown = format!("{secret:?} {:?} {:?}", secret.stored(true), secret.stored(false));
        assert!(!shown.contains(secret.reveal()) && !shown.contains(&Digest::of(secret.reveal()).to_hex()), "{shown}");
    }
}
