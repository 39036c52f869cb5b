//! Limits wrong API keys by client address, so that guessing keys is slow and refusing guesses is cheap.
//!
//! Owns how many wrong keys an address has sent, and which addresses a key was used from. Does not look at keys itself:
//! `auth/` reports each wrong key and each valid one. A missing key does not count.
//!
//! # Clients that share an address
//! Behind a proxy all clients have the proxy's address, and one guesser there would lock out all of them. Therefore a key
//! that was recently used from an address ([`KnownAddresses`]) is still accepted from it while the address has to wait. The
//! cost: from a shared address, a guesser that finds a key *in use there* gets in, regardless of the wrong keys before it.
//!
//! A key that was not recently used from the address is refused like a wrong key, so the response reveals nothing. Its
//! owner waits at most a second for each wrong key above the limit. Keys made by keyctl have 256 bits and cannot be guessed
//! at any rate: the limit protects short keys that users chose themselves, and keeps the cost of a flood low.
//!
//! # Limitations
//! A guesser with thousands of addresses gets the limit once for each of them. Addresses are counted in a table of fixed
//! size. When a bucket of the table is full, the address with the fewest failures is evicted, never the one with the most.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::Quota;
use governor::clock::Clock;

use super::ticks::{LimitClock, Ticks};
use crate::gateway::bounds::{
    AUTH_FAILURES_PER_MINUTE, FAILING_ADDRESSES_PER_BUCKET, KNOWN_ADDRESS_TTL, KNOWN_ADDRESSES_PER_KEY,
    MAX_FAILING_ADDRESSES,
};
use crate::rate_bucket::{Bucket, MINUTE};

/// The limit of wrong keys for each address.
const LIMIT: Quota = match NonZeroU32::new(AUTH_FAILURES_PER_MINUTE) {
    Some(limit) => Quota::per_minute(limit),
    None => panic!("AUTH_FAILURES_PER_MINUTE is 0"),
};

/// The quota that wrong keys are counted against. Wrong keys that arrive at the same time all pass the check before the
/// first is counted, so more than [`LIMIT`] can be used. The address waits for them afterwards, but a minute at most,
/// because other clients of the address wait too.
const COUNTED: Quota = LIMIT.allow_burst(LIMIT.burst_size().saturating_add(AUTH_FAILURES_PER_MINUTE));

/// The network that counts as one client: an IPv4 address, or the /64 of an IPv6 address, because one customer usually
/// owns a whole /64.
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

/// An address that sent wrong keys. An entry whose rate bucket is full again is equivalent to an empty one.
#[derive(Debug, Default)]
struct FailingAddress {
    /// None in an unused entry.
    network: Option<Network>,
    wrong_keys: Bucket,
}

/// A bucket of the hash table.
type TableBucket = [FailingAddress; FAILING_ADDRESSES_PER_BUCKET];

/// The wrong keys of the last minutes, by address. Its memory is allocated at the start and does not grow.
#[derive(Debug)]
pub(super) struct AuthFailures<C: Clock = LimitClock> {
    ticks: Ticks<C>,
    /// Randomly keyed, so that an attacker cannot choose addresses that share a bucket.
    hasher: RandomState,
    buckets: Box<[Mutex<TableBucket>]>,
    /// The latest time until which any address has to wait, in [`Ticks`]; 0 when no address waits.
    blocked_until: AtomicU64,
}

impl<C: Clock> AuthFailures<C> {
    /// Creates an empty table.
    pub(super) fn new(clock: C) -> Self {
        const { assert!(MAX_FAILING_ADDRESSES.is_multiple_of(FAILING_ADDRESSES_PER_BUCKET)) };
        let bucket = || Mutex::new(TableBucket::default());
        Self {
            ticks: Ticks::new(clock),
            hasher: RandomState::new(),
            buckets: std::iter::repeat_with(bucket)
                .take(MAX_FAILING_ADDRESSES / FAILING_ADDRESSES_PER_BUCKET)
                .collect(),
            blocked_until: AtomicU64::new(0),
        }
    }

    /// Checks that keys from this address are accepted now. Costs one atomic load while no address has to wait.
    ///
    /// # Errors
    /// When the address sent too many wrong keys, with the exact time until a key from it is accepted again.
    pub(super) fn check(&self, address: IpAddr) -> Result<(), Duration> {
        let until = self.blocked_until.load(Ordering::Relaxed);
        if until == 0 {
            return Ok(());
        }
        let now = self.ticks.now();
        if now >= until {
            // Fails, as it should, if another thread blocked an address since the load above.
            let _ = self.blocked_until.compare_exchange(until, 0, Ordering::Relaxed, Ordering::Relaxed);
            return Ok(());
        }
        let network = Network::of(address);
        let bucket = self.bucket(network).lock().unwrap_or_else(PoisonError::into_inner);
        match bucket.iter().find(|entry| entry.network == Some(network)) {
            Some(entry) => entry.wrong_keys.check(LIMIT, now).map(drop).map_err(|wait| wait.time),
            None => Ok(()),
        }
    }

    /// Counts a wrong key against this address.
    pub(super) fn record_failure(&self, address: IpAddr) {
        let now = self.ticks.now();
        let network = Network::of(address);
        let mut bucket = self.bucket(network).lock().unwrap_or_else(PoisonError::into_inner);
        // The entry of this address, or else the one with the fewest failures; unused and expired entries sort first.
        let order = |entry: &&mut FailingAddress| (entry.network != Some(network), entry.wrong_keys.full_at());
        let Some(entry) = bucket.iter_mut().min_by_key(order) else { return };
        if entry.network != Some(network) {
            *entry = FailingAddress { network: Some(network), wrong_keys: Bucket::default() };
        }
        // Fails only when a whole minute of waiting is counted already; see `COUNTED`.
        let _ = entry.wrong_keys.take(COUNTED, now);
        if let Err(wait) = entry.wrong_keys.check(LIMIT, now) {
            let time = u64::try_from(wait.time.as_nanos()).unwrap_or(u64::MAX);
            self.blocked_until.fetch_max(now.saturating_add(time), Ordering::Relaxed);
        }
    }

    /// Returns the bucket of the table that holds this network.
    fn bucket(&self, network: Network) -> &Mutex<TableBucket> {
        let hash = self.hasher.hash_one(network) % self.buckets.len() as u64;
        // In bounds: it is a remainder of the length.
        &self.buckets[hash as usize]
    }
}

/// The addresses that a key was recently used from: a keyed hash of each and the minute of its last use. A few atomics, no
/// lock. When it is full, the address that was used longest ago is replaced.
#[derive(Debug, Default)]
pub(super) struct KnownAddresses {
    hasher: RandomState,
    /// Each holds the upper 40 bits of a hash and 24 bits of minutes; 0 is an unused entry.
    entries: [AtomicU64; KNOWN_ADDRESSES_PER_KEY],
}

const MINUTE_BITS: u32 = 24;
const MINUTE_MASK: u64 = (1 << MINUTE_BITS) - 1;

impl KnownAddresses {
    /// Remembers that the key was used from this address at `now`, in nanoseconds.
    pub(super) fn remember(&self, address: IpAddr, now: u64) {
        let entry = self.entry(address, now);
        let is_same_address = |found: u64| found >> MINUTE_BITS == entry >> MINUTE_BITS;
        let mut oldest = (u64::MAX, None);
        for slot in &self.entries {
            let found = slot.load(Ordering::Relaxed);
            if is_same_address(found) {
                // No store within the same minute, so other cores keep the cache line.
                if found != entry {
                    slot.store(entry, Ordering::Relaxed);
                }
                return;
            }
            let age = if found == 0 { 0 } else { 1 + (found & MINUTE_MASK) };
            if age < oldest.0 {
                oldest = (age, Some(slot));
            }
        }
        // Two threads may overwrite the same entry. The address that is lost is stored again with its next request.
        if let (_, Some(slot)) = oldest {
            slot.store(entry, Ordering::Relaxed);
        }
    }

    /// Whether the key was used from this address within [`KNOWN_ADDRESS_TTL`]. `now` is in nanoseconds.
    pub(super) fn contains(&self, address: IpAddr, now: u64) -> bool {
        let entry = self.entry(address, now);
        self.entries.iter().map(|slot| slot.load(Ordering::Relaxed)).any(|found| {
            let minutes = (entry & MINUTE_MASK).saturating_sub(found & MINUTE_MASK);
            found >> MINUTE_BITS == entry >> MINUTE_BITS && minutes < KNOWN_ADDRESS_TTL.as_secs() / 60
        })
    }

    /// Returns the entry of this address with the minute of `now`.
    fn entry(&self, address: IpAddr, now: u64) -> u64 {
        // One bit is always set, so that no address looks like an unused entry.
        let hash = self.hasher.hash_one(Network::of(address)) | (1 << MINUTE_BITS);
        (hash & !MINUTE_MASK) | ((now / MINUTE) & MINUTE_MASK)
    }
}

#[cfg(test)]
#[path = "auth_failures_tests.rs"]
mod tests;
