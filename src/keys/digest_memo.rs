//! The digests of secrets that were presented before: SHA-256 is the dearest step of a request on a CPU without instructions
//! for it. Those that were denied are remembered too, in a few places of their own: most come from a client that repeats a
//! key that is wrong or has expired, and those who guess take no place of a valid one. Each is looked up again every time.
//!
//! Holds no secret. It is known by a keyed hash of 128 bits, whose key is random for each thread and never shown: to have
//! another text taken for a secret, a client would have to guess such a hash. A text that is not known is hashed with
//! SHA-256 like any other, so no time tells how close it is to a secret.

use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher, RandomState};

use super::secret::Digest;

/// Valid secrets that a thread remembers; each takes 56 bytes.
const REMEMBERED_SECRETS: usize = 64;

/// Denied secrets that a thread remembers.
const REMEMBERED_DENIALS: usize = 8;

/// What a secret is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SecretName([u64; 2]);

/// A place for the digest of a secret, which the last one that belongs there takes.
type RememberedDigest = Option<(SecretName, Digest)>;

/// Each secret has one place among the valid ones, and one among the denied ones.
struct DigestMemo {
    seed: RandomState,
    valid: [RememberedDigest; REMEMBERED_SECRETS],
    denied: [RememberedDigest; REMEMBERED_DENIALS],
}

thread_local! {
    static MEMO: RefCell<DigestMemo> = RefCell::new(DigestMemo::new());
}

/// Calls `look_up` with the digest of a secret, and remembers the digest.
pub(super) fn with_digest<T, E>(secret: &str, look_up: impl FnOnce(&Digest) -> Result<T, E>) -> Result<T, E> {
    MEMO.with_borrow_mut(|memo| memo.with_digest(secret, look_up))
}

impl DigestMemo {
    fn new() -> Self {
        Self { seed: RandomState::new(), valid: [None; REMEMBERED_SECRETS], denied: [None; REMEMBERED_DENIALS] }
    }

    fn with_digest<T, E>(&mut self, secret: &str, look_up: impl FnOnce(&Digest) -> Result<T, E>) -> Result<T, E> {
        let name = self.name(secret);
        let at = name.0[0] as usize;
        let valid = &mut self.valid[at % REMEMBERED_SECRETS];
        let denied = &mut self.denied[at % REMEMBERED_DENIALS];
        let remembered = valid.iter().chain(denied.iter()).find(|(known, _)| *known == name);
        let digest = remembered.map_or_else(|| Digest::of(secret), |(_, digest)| *digest);
        let found = look_up(&digest);
        *(if found.is_ok() { valid } else { denied }) = Some((name, digest));
        found
    }

    fn name(&self, secret: &str) -> SecretName {
        let mut first = self.seed.build_hasher();
        first.write(secret.as_bytes());
        // Two texts with one key, which differ in their last byte.
        let mut second = first.clone();
        first.write_u8(0);
        second.write_u8(1);
        SecretName([first.finish(), second.finish()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_the_same_digest_whether_it_is_remembered_or_not() {
        let mut memo = DigestMemo::new();
        for number in 0..1000 {
            let secret = format!("secret-number-{}", number % 100);
            let found = memo.with_digest(&secret, |digest| Ok::<_, ()>(*digest));
            assert_eq!(found, Ok(Digest::of(&secret)), "{secret}");
            let denied = memo.with_digest(&secret, |digest| Err::<(), _>(*digest));
            assert_eq!(denied, Err(Digest::of(&secret)), "{secret}");
        }
        assert!(memo.valid.iter().flatten().count() > 1 && memo.denied.iter().flatten().count() > 1);
    }

    #[test]
    fn a_wrong_secret_takes_the_place_of_no_valid_one() {
        let mut memo = DigestMemo::new();
        assert_eq!(memo.with_digest("a-right-secret", |_| Ok::<_, ()>(())), Ok(()));
        let before = memo.valid;
        for number in 0..1000 {
            assert_eq!(memo.with_digest(&format!("a-wrong-secret-{number}"), |_| Err::<(), _>(1)), Err(1));
        }
        assert_eq!(memo.valid, before);
    }

    #[test]
    fn a_remembered_secret_whose_key_is_gone_is_refused_until_the_key_is_back() {
        let mut memo = DigestMemo::new();
        for _ in 0..2 {
            assert_eq!(memo.with_digest("a-right-secret", |_| Ok::<_, u8>(())), Ok(()));
            assert_eq!(memo.with_digest("a-right-secret", |_| Err::<(), _>(2)), Err(2));
        }
    }

    #[test]
    fn names_have_both_halves() {
        let memo = DigestMemo::new();
        let [first, second] = memo.name("a-right-secret").0;
        assert_ne!(first, second);
        assert_ne!(memo.name("a-right-secreu"), memo.name("a-right-secret"));
    }
}
