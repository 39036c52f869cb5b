//! The digests of secrets that were valid before: SHA-256 is the dearest step of a request on a CPU without instructions
//! for it.
//!
//! Holds no secret. It is known by a keyed hash of 128 bits, whose key is random for each thread and never shown: to have
//! another text taken for a secret, a client would have to guess such a hash. A text that is not known is hashed with
//! SHA-256 like any other, so no time tells how close it is to a secret.

use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher, RandomState};

use super::secret::Digest;

/// Secrets that a thread remembers; each takes 56 bytes.
const REMEMBERED_SECRETS: usize = 64;

/// What a secret is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SecretName([u64; 2]);

/// Each secret has one place, which the last one that was valid takes.
struct DigestMemo {
    seed: RandomState,
    places: [Option<(SecretName, Digest)>; REMEMBERED_SECRETS],
}

thread_local! {
    static MEMO: RefCell<DigestMemo> =
        RefCell::new(DigestMemo { seed: RandomState::new(), places: [None; REMEMBERED_SECRETS] });
}

/// Calls `look_up` with the digest of a secret, and remembers it if something was found.
pub(super) fn with_digest<T, E>(secret: &str, look_up: impl FnOnce(&Digest) -> Result<T, E>) -> Result<T, E> {
    MEMO.with_borrow_mut(|memo| memo.with_digest(secret, look_up))
}

impl DigestMemo {
    fn with_digest<T, E>(&mut self, secret: &str, look_up: impl FnOnce(&Digest) -> Result<T, E>) -> Result<T, E> {
        let name = self.name(secret);
        let at = name.0[0] as usize % REMEMBERED_SECRETS;
        let place = &mut self.places[at];
        if let Some((known, digest)) = place
            && *known == name
        {
            return look_up(digest);
        }
        let digest = Digest::of(secret);
        let found = look_up(&digest);
        if found.is_ok() {
            *place = Some((name, digest));
        }
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

    fn memo() -> DigestMemo {
        DigestMemo { seed: RandomState::new(), places: [None; REMEMBERED_SECRETS] }
    }

    fn remembered(memo: &DigestMemo) -> usize {
        memo.places.iter().flatten().count()
    }

    #[test]
    fn a_secret_has_the_same_digest_whether_it_is_remembered_or_not() {
        let mut memo = memo();
        for number in 0..1000 {
            let secret = format!("secret-number-{}", number % 100);
            let found = memo.with_digest(&secret, |digest| Ok::<_, ()>(*digest));
            assert_eq!(found, Ok(Digest::of(&secret)), "{secret}");
        }
        assert!(remembered(&memo) > 1);
    }

    #[test]
    fn only_a_secret_that_was_found_is_remembered() {
        let mut memo = memo();
        assert_eq!(memo.with_digest("a-wrong-secret", |_| Err::<(), _>(1)), Err(1));
        assert_eq!(remembered(&memo), 0);
        assert_eq!(memo.with_digest("a-right-secret", |_| Ok::<_, ()>(())), Ok(()));
        assert_eq!(remembered(&memo), 1);
    }

    #[test]
    fn a_remembered_secret_whose_key_is_gone_is_refused() {
        let mut memo = memo();
        assert_eq!(memo.with_digest("a-right-secret", |_| Ok::<_, u8>(())), Ok(()));
        assert_eq!(memo.with_digest("a-right-secret", |_| Err::<(), _>(2)), Err(2));
    }

    #[test]
    fn names_have_both_halves() {
        let memo = memo();
        let [first, second] = memo.name("a-right-secret").0;
        assert_ne!(first, second);
        assert_ne!(memo.name("a-right-secreu"), memo.name("a-right-secret"));
    }
}
