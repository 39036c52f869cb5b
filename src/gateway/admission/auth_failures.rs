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

use super::ticks::Ticks;
use crate::gateway::bounds::{
    AUTH_FAILURES_PER_MINUTE, FAILING_ADDRESSES_PER_BUCKET, KNOWN_ADDRESS_TTL, KNOWN_ADDRESSES_PER_KEY,
    MAX_FAILING_ADDRESSES,
};
use crate::rate_bucket::{Bucket, MINUTE};
use governor::Quota;
use governor::clock::{Clock, DefaultClock};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The wrong keys that an address may send.
const LIMIT: Quota = match NonZeroU32::new(AUTH_FAILURES_PER_MINUTE) {
    Some(limit) => Quota::per_minute(limit),
    None => panic!("GUESSES_PER_MINUTE is 0"),
};

/// The wrong keys that are counted against it. Those that arrive at the same time all pass the check before the first
/// is counted. They are paid for afterwards, but with a minute of waiting at most: other clients of the address wait
/// too.
const COUNTED: Quota = LIMIT.allow_burst(LIMIT.burst_size().saturating_add(AUTH_FAILURES_PER_MINUTE));

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

/// An address that sent wrong keys. One whose bucket is full again is as good as none.
#[derive(Debug, Default)]
struct FailingAddress {
    network: Option<Network>,
    wrong_keys: Bucket,
}

/// A bucket of the hash table.
type Suspects = [FailingAddress; FAILING_ADDRESSES_PER_BUCKET];

/// The wrong keys of the last minute, by address. Its memory is fixed from the start.
#[derive(Debug)]
pub(super) struct AuthFailures<C: Clock = DefaultClock> {
    ticks: Ticks<C>,
    /// Keyed at random, so that nobody can choose addresses that share a bucket.
    hasher: RandomState,
    buckets: Box<[Mutex<Suspects>]>,
    /// Until when any address at all has to wait; 0 when none has.
    blocked_until: AtomicU64,
}

impl<C: Clock> AuthFailures<C> {
    /// Nobody is suspicious yet.
    pub(super) fn new(clock: C) -> Self {
        const { assert!(MAX_FAILING_ADDRESSES.is_multiple_of(FAILING_ADDRESSES_PER_BUCKET)) };
        let bucket = || Mutex::new(Suspects::default());
        Self {
            ticks: Ticks::new(clock),
            hasher: RandomState::new(),
            buckets: std::iter::repeat_with(bucket)
                .take(MAX_FAILING_ADDRESSES / FAILING_ADDRESSES_PER_BUCKET)
                .collect(),
            blocked_until: AtomicU64::new(0),
        }
    }

    /// Whether a key from this address is looked at now. Costs one load while no address has to wait.
    ///
    /// # Errors
    /// When the address sent too many wrong keys: the exact time until its next one is looked at.
    pub(super) fn check(&self, address: IpAddr) -> Result<(), Duration> {
        let until = self.blocked_until.load(Ordering::Relaxed);
        if until == 0 {
            return Ok(());
        }
        let now = self.ticks.now();
        if now >= until {
            // Fails when somebody became a suspect in between, and then it has to.
            let _ = self.blocked_until.compare_exchange(until, 0, Ordering::Relaxed, Ordering::Relaxed);
            return Ok(());
        }
        let network = Network::of(address);
        let bucket = self.bucket(network).lock().unwrap_or_else(PoisonError::into_inner);
        match bucket.iter().find(|suspect| suspect.network == Some(network)) {
            Some(suspect) => suspect.wrong_keys.check(LIMIT, now).map(drop).map_err(|wait| wait.time),
            None => Ok(()),
        }
    }

    /// Counts a wrong key against this address.
    pub(super) fn record_failure(&self, address: IpAddr) {
        let now = self.ticks.now();
        let network = Network::of(address);
        let mut bucket = self.bucket(network).lock().unwrap_or_else(PoisonError::into_inner);
        // The address itself, or else the least suspicious: those that are forgiven and empty places come first.
        let order = |suspect: &&mut FailingAddress| (suspect.network != Some(network), suspect.wrong_keys.full_at());
        let Some(suspect) = bucket.iter_mut().min_by_key(order) else { return };
        if suspect.network != Some(network) {
            *suspect = FailingAddress { network: Some(network), wrong_keys: Bucket::default() };
        }
        // Refused only when a minute of waiting is counted already.
        let _ = suspect.wrong_keys.take(COUNTED, now);
        if let Err(wait) = suspect.wrong_keys.check(LIMIT, now) {
            let time = u64::try_from(wait.time.as_nanos()).unwrap_or(u64::MAX);
            self.blocked_until.fetch_max(now.saturating_add(time), Ordering::Relaxed);
        }
    }

    fn bucket(&self, network: Network) -> &Mutex<Suspects> {
        let hash = self.hasher.hash_one(network) % self.buckets.len() as u64;
        // In bounds: a remainder of the length.
        &self.buckets[hash as usize]
    }
}

/// The addresses that a key was used from lately, as keyed hashes beside the minute of the last use: a few atomics,
/// no lock. Of more addresses than it has places for, those used last stay.
#[derive(Debug, Default)]
pub(super) struct KnownAddresses {
    hasher: RandomState,
    /// Each the upper 40 bits of a hash and 24 bits of minutes; 0 is nobody.
    entries: [AtomicU64; KNOWN_ADDRESSES_PER_KEY],
}

const MINUTE_BITS: u32 = 24;
const MINUTE_MASK: u64 = (1 << MINUTE_BITS) - 1;

impl KnownAddresses {
    /// Remembers that the key was used from this address now.
    pub(super) fn remember(&self, address: IpAddr, now: u64) {
        let entry = self.entry(address, now);
        let is_it = |found: u64| found >> MINUTE_BITS == entry >> MINUTE_BITS;
        let mut oldest = (u64::MAX, None);
        for place in &self.entries {
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
    pub(super) fn contains(&self, address: IpAddr, now: u64) -> bool {
        let entry = self.entry(address, now);
        self.entries.iter().map(|place| place.load(Ordering::Relaxed)).any(|found| {
            let minutes = (entry & MINUTE_MASK).saturating_sub(found & MINUTE_MASK);
            found >> MINUTE_BITS == entry >> MINUTE_BITS && minutes < KNOWN_ADDRESS_TTL.as_secs() / 60
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
