//! Wrong keys, counted by the address they come from, so that guessing keys is slow and cheap to refuse.
//!
//! Owns how many wrong keys an address has sent and which addresses a key was used from. Does not know what a key is:
//! the pipeline tells it of each wrong one, and of each right one. A missing key is no guess.
//!
//! # The trade-off of a shared address
//! Behind a proxy every client has one address, the proxy's, and one guesser there would lock out everybody. So a key
//! that was used from an address lately ([`Proven`]) passes from it all the same. What that gives up: from such an
//! address a guesser who hits on a key *in use there* still gets in, however often he guessed before. A key that was
//! not used there lately is refused like a wrong one while the address has to wait, so its answer tells nothing; its
//! owner waits with the guesser, a second at most for each guess above the limit. Keys of keyctl have 256 bits, and no
//! rate of guessing matters to them: the limit is there for short keys of people's own making, and to keep the cost of
//! a flood low.
//!
//! # What is not promised
//! Someone with thousands of addresses gets the limit once for each. Addresses are counted in a table of fixed size;
//! when a bucket of it is full the least suspicious address in it is forgotten, never the worst.

use super::ticks::{MINUTE, Ticks};
use crate::gateway::bounds::{GUESSES_PER_MINUTE, MAX_SUSPECTS, PROVEN_ADDRESSES, PROVEN_FOR, SUSPECTS_PER_BUCKET};
use governor::clock::{Clock, DefaultClock};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long one wrong key is held against its address, in nanoseconds, once those before it are forgiven.
const PENANCE: u64 = MINUTE / GUESSES_PER_MINUTE as u64;

/// One client, as far as its address can tell: an IPv4 address, or the /64 of an IPv6 address, which one customer owns
/// whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Network {
    V4(u32),
    V6(u64),
}

impl Network {
    fn of(address: IpAddr) -> Self {
        // A listener on [::] sees IPv4 clients as ::ffff:a.b.c.d, all of them in one /64.
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

/// An address that sent wrong keys. One whose time of forgiveness is past is as good as none.
#[derive(Debug, Clone, Copy)]
struct Suspect {
    network: Option<Network>,
    forgiven_at: u64,
}

impl Suspect {
    const NOBODY: Self = Self { network: None, forgiven_at: 0 };

    /// From when on one more wrong key would be within the limit.
    fn passes_at(self) -> u64 {
        self.forgiven_at.saturating_add(PENANCE).saturating_sub(MINUTE)
    }
}

type Bucket = [Suspect; SUSPECTS_PER_BUCKET];

/// The wrong keys of the last minute, by address. Its memory is fixed from the start.
#[derive(Debug)]
pub(super) struct Guesses<C: Clock = DefaultClock> {
    ticks: Ticks<C>,
    /// Keyed at random, so that nobody can choose addresses that share a bucket.
    hasher: RandomState,
    buckets: Box<[Mutex<Bucket>]>,
    /// Until when any address at all has to wait; 0 when none has.
    until: AtomicU64,
}

impl<C: Clock> Guesses<C> {
    /// Nobody is suspicious yet.
    pub(super) fn new(clock: C) -> Self {
        const { assert!(MAX_SUSPECTS.is_multiple_of(SUSPECTS_PER_BUCKET) && GUESSES_PER_MINUTE > 0) };
        let bucket = || Mutex::new([Suspect::NOBODY; SUSPECTS_PER_BUCKET]);
        Self {
            ticks: Ticks::new(clock),
            hasher: RandomState::new(),
            buckets: std::iter::repeat_with(bucket).take(MAX_SUSPECTS / SUSPECTS_PER_BUCKET).collect(),
            until: AtomicU64::new(0),
        }
    }

    /// Whether a key from this address is looked at now. Costs one load while no address has to wait.
    ///
    /// # Errors
    /// When the address sent too many wrong keys: the exact time until its next one is looked at.
    pub(super) fn check(&self, address: IpAddr) -> Result<(), Duration> {
        let until = self.until.load(Ordering::Relaxed);
        if until == 0 {
            return Ok(());
        }
        let now = self.ticks.now();
        if now >= until {
            // Fails when somebody became a suspect in between, and then it has to.
            let _ = self.until.compare_exchange(until, 0, Ordering::Relaxed, Ordering::Relaxed);
            return Ok(());
        }
        let network = Network::of(address);
        let bucket = self.bucket(network).lock().unwrap_or_else(PoisonError::into_inner);
        match bucket.iter().find(|suspect| suspect.network == Some(network)) {
            Some(suspect) if suspect.passes_at() > now => Err(Duration::from_nanos(suspect.passes_at() - now)),
            _ => Ok(()),
        }
    }

    /// Counts a wrong key against this address.
    pub(super) fn failed(&self, address: IpAddr) {
        let now = self.ticks.now();
        let network = Network::of(address);
        let mut bucket = self.bucket(network).lock().unwrap_or_else(PoisonError::into_inner);
        // The address itself, or else the least suspicious: those that are forgiven and empty places come first.
        let place = bucket.iter_mut().min_by_key(|suspect| (suspect.network != Some(network), suspect.forgiven_at));
        let Some(suspect) = place else { return };
        if suspect.network != Some(network) {
            *suspect = Suspect { network: Some(network), forgiven_at: 0 };
        }
        // No more than a minute of waiting, however many came at once: whoever shares the address waits too.
        let most = now.saturating_add(2 * MINUTE);
        suspect.forgiven_at = suspect.forgiven_at.max(now).saturating_add(PENANCE).min(most);
        if suspect.passes_at() > now {
            self.until.fetch_max(suspect.passes_at(), Ordering::Relaxed);
        }
    }

    fn bucket(&self, network: Network) -> &Mutex<Bucket> {
        let hash = self.hasher.hash_one(network) % self.buckets.len() as u64;
        // In bounds: a remainder of the length.
        &self.buckets[hash as usize]
    }
}

/// The addresses that a key was used from lately, as keyed hashes beside the minute of the last use: a few atomics,
/// no lock. Of more addresses than it has places for, those used last stay.
#[derive(Debug, Default)]
pub(super) struct Proven {
    hasher: RandomState,
    /// Each the upper 40 bits of a hash and 24 bits of minutes; 0 is nobody.
    places: [AtomicU64; PROVEN_ADDRESSES],
}

const MINUTE_BITS: u32 = 24;
const MINUTE_MASK: u64 = (1 << MINUTE_BITS) - 1;

impl Proven {
    /// Remembers that the key was used from this address now.
    pub(super) fn note(&self, address: IpAddr, now: u64) {
        let entry = self.entry(address, now);
        let is_it = |found: u64| found >> MINUTE_BITS == entry >> MINUTE_BITS;
        let mut oldest = (u64::MAX, None);
        for place in &self.places {
            let found = place.load(Ordering::Relaxed);
            if is_it(found) {
                if found != entry {
                    place.store(entry, Ordering::Relaxed);
                }
                return;
            }
            let age = if found == 0 { 0 } else { 1 + (found & MINUTE_MASK) };
            if age < oldest.0 {
                oldest = (age, Some(place));
            }
        }
        // Two at once may take the same place; the one that loses proves itself with its next request.
        if let (_, Some(place)) = oldest {
            place.store(entry, Ordering::Relaxed);
        }
    }

    /// Whether the key was used from this address within [`PROVEN_FOR`].
    pub(super) fn knows(&self, address: IpAddr, now: u64) -> bool {
        let entry = self.entry(address, now);
        self.places.iter().map(|place| place.load(Ordering::Relaxed)).any(|found| {
            let minutes = (entry & MINUTE_MASK).saturating_sub(found & MINUTE_MASK);
            found >> MINUTE_BITS == entry >> MINUTE_BITS && minutes < PROVEN_FOR.as_secs() / 60
        })
    }

    fn entry(&self, address: IpAddr, now: u64) -> u64 {
        // One bit is always set, so no address looks like nobody.
        let hash = self.hasher.hash_one(Network::of(address)) | (1 << MINUTE_BITS);
        (hash & !MINUTE_MASK) | ((now / MINUTE) & MINUTE_MASK)
    }
}

#[cfg(test)]
#[path = "auth_failures_tests.rs"]
mod tests;
