//! The limits of a key as refusals name them.

/// Requests a minute.
pub(super) const REQUESTS: &str = "the requests of this API key";
/// Tokens a minute.
pub(super) const TOKENS: &str = "the tokens of this API key";
/// Requests in flight.
pub(super) const AT_ONCE: &str = "this API key's requests at once";
