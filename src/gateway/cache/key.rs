//! What makes two requests equal: the same caller, route, model, headers that an answer may depend on, and body.

use http::header::{HeaderMap, HeaderName};
use sha2::{Digest, Sha256};

use crate::fleet::ModelRevision;
use crate::gateway::credentials::is_key_header;
use crate::gateway::headers::is_hop_by_hop;
use crate::gateway::request::body::RequestBody;
use crate::gateway::request::envelope::Envelope;

/// The SHA-256 of all that makes a request what it is. Its bytes come from clients, so a hash that they could make collide
/// would give one client the answer of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct CacheKey([u8; 32]);

/// The members that have no part in an answer: `stream` counts by what it means, and the others say for whom it is.
const OTHER_MEMBERS: [&str; 5] = ["stream", "user", "safety_identifier", "prompt_cache_key", "session_id"];

/// What a key is made of, besides headers and body.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyParts<'a> {
    /// The id of the caller's key; `None` if there are no keys, or if all share answers.
    pub(super) key_id: Option<&'a str>,
    /// The digest of its secret: a name may be given to another key later.
    pub(super) secret: Option<&'a [u8; 32]>,
    /// The path of the route.
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    /// The id of the model.
    pub(super) model: &'a str,
    /// Which form of the model: its files and its settings.
    pub(super) revision: ModelRevision,
    /// The model's name as the client wrote it, which the answer repeats; it names the adapter too.
    pub(super) requested_model: Option<&'a str>,
    /// Whether the answer is to be a stream.
    pub(super) is_stream: bool,
}

impl CacheKey {
    /// Returns the key of a request; `None` if its body is no JSON object.
    pub(super) fn of(
        parts: &KeyParts<'_>,
        headers: &HeaderMap,
        envelope: &Envelope,
        body: &RequestBody,
    ) -> Option<Self> {
        let members = envelope.ranges_by_name()?;
        let mut hash = KeyHash(Sha256::new());
        for text in [parts.key_id, Some(parts.path), parts.query, Some(parts.model), parts.requested_model] {
            hash.add_optional(text.map(str::as_bytes));
        }
        hash.add_optional(parts.secret.map(|digest| &digest[..]));
        hash.add(&parts.revision.to_bytes());
        hash.add(&[u8::from(parts.is_stream)]);
        for (name, value) in counted_headers(headers) {
            hash.add(name.as_str().as_bytes());
            hash.add(value);
        }
        // A header has a name, so this ends them.
        hash.add(b"");
        for (name, range) in members {
            let Some(name) = name else {
                hash.add_body(body, range);
                continue;
            };
            // A `stream` that is neither true nor false is one more member: a server may refuse it.
            if !OTHER_MEMBERS.contains(&name) || name == "stream" && envelope.stream().is_none() {
                hash.add(name.as_bytes());
                hash.add_body(body, range);
            }
        }
        Some(Self(hash.0.finalize().into()))
    }
}

impl CacheKey {
    /// Returns the hash.
    pub(super) fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    /// Returns the key with this hash.
    pub(super) fn from_bytes(hash: [u8; 32]) -> Self {
        Self(hash)
    }
}

#[cfg(test)]
impl CacheKey {
    /// Returns a key that only its number tells from others, for tests.
    pub(super) fn numbered(number: u8) -> Self {
        Self([number; 32])
    }
}

/// Adds values to a hash so that no two lists of values give the same bytes: each comes after its length.
struct KeyHash(Sha256);

impl KeyHash {
    fn add(&mut self, value: &[u8]) {
        self.0.update((value.len() as u64).to_be_bytes());
        self.0.update(value);
    }

    fn add_optional(&mut self, value: Option<&[u8]>) {
        self.0.update([u8::from(value.is_some())]);
        self.add(value.unwrap_or_default());
    }

    fn add_body(&mut self, body: &RequestBody, range: std::ops::Range<usize>) {
        self.0.update((range.len() as u64).to_be_bytes());
        Envelope::pieces_of(body, range).for_each(|piece| self.0.update(&piece));
    }
}

/// Returns the headers that an answer may depend on, in the order of their names. A header that is not known counts: a
/// backend may read it.
fn counted_headers(headers: &HeaderMap) -> Vec<(&HeaderName, &[u8])> {
    let counted = headers.iter().filter(|(name, _)| counts(name));
    let mut counted: Vec<_> = counted.map(|(name, value)| (name, value.as_bytes())).collect();
    // Stable: lines of the same name stay in their order.
    counted.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
    counted
}

/// Returns whether an answer may depend on a header.
fn counts(name: &HeaderName) -> bool {
    !is_key_header(name)
        && !is_hop_by_hop(name)
        && !OTHER_HEADERS.contains(&name.as_str())
        && !OTHER_PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix))
}

/// Headers that say nothing about an answer: they are not passed on, or are about the client, the way or the connection.
const OTHER_HEADERS: &[&str] = &[
    "accept-encoding",
    "accept-language",
    "baggage",
    "cache-control",
    "client-ip",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "dnt",
    "expect",
    "forwarded",
    "host",
    "idempotency-key",
    "origin",
    "pragma",
    "priority",
    "referer",
    "session-id",
    "traceparent",
    "tracestate",
    "upgrade-insecure-requests",
    "user-agent",
    "via",
    "x-amzn-trace-id",
    "x-claude-code-session-id",
    "x-client-request-id",
    "x-conversation-id",
    "x-correlation-id",
    "x-llm-user",
    "x-real-ip",
    "x-request-id",
    "x-requested-with",
    "x-session-affinity",
];

/// The beginnings of the names of more such headers: browsers' and proxies' own, what OpenAI's and Anthropic's SDKs say
/// about themselves, and who asks, as Open WebUI tells it.
const OTHER_PREFIXES: &[&str] = &["cf-", "sec-", "x-b3-", "x-datadog-", "x-forwarded-", "x-openwebui-", "x-stainless-"];

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
