//! Bounds of TLS for clients.

use std::time::Duration;

/// Longest time of a handshake, from the opening of the connection.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time that a handshake counts as one of those that run at once. Half of the connections do, so that a client waits
/// for all others, if they stay silent, twice this long at most: less than [`HANDSHAKE_TIMEOUT`].
pub const HANDSHAKE_TURN: Duration = Duration::from_secs(3);

/// Time between two looks at the files of the certificate.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Most bytes of a file in PEM.
pub(super) const PEM_SIZE: u64 = 1024 * 1024;

/// Most certificates of a chain, the own one included.
pub(super) const CHAIN_LENGTH: usize = 16;

/// Most authorities that clients' certificates may come from.
pub(super) const CLIENT_AUTHORITIES: usize = 1024;

/// Lifetime of a certificate that the service makes for itself, in days. Clients of Apple take none with more than 398.
pub(super) const SELF_SIGNED_DAYS: i64 = 397;

/// A certificate that the service makes for itself is renewed when it has fewer days left.
pub(super) const RENEWED_DAYS_BEFORE: i64 = 30;

/// A certificate is warned about when it has fewer days left.
pub(super) const WARNED_DAYS_BEFORE: i64 = 14;

/// It is warned about when no more than this part of its lifetime is left: a quarter.
pub(super) const WARNED_SHARE_OF_LIFE: i32 = 4;

/// Longest name of a client's certificate that is logged, in bytes.
pub(super) const CLIENT_NAME_LENGTH: usize = 128;
