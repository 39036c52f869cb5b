//! A key as requests are checked against it: its name, scopes and limits. Its secret is in `secret.rs`.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::str::FromStr;

use jiff::Timestamp;

use super::priority::Priority;
use crate::amount::Amount;

/// One line of the key file without its secret: the key's name, scopes and limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The key_id, which logs and metrics show. Several lines may share it, so that a secret can be rotated with
    /// overlap.
    pub id: String,
    /// Requests per minute; `None` means the gateway's default.
    pub rate_limit: Option<NonZeroU32>,
    /// When the key expires; `None` means never.
    pub expires: Option<Timestamp>,
    /// What the key may be used for.
    pub scopes: Scopes,
    /// The only models that it may use; `None` means all.
    pub models: Option<Vec<String>>,
    /// Prompt and completion tokens per minute; `None` means unlimited.
    pub tokens_per_minute: Option<NonZeroU64>,
    /// Requests in flight at once; `None` means unlimited.
    pub max_concurrent: Option<NonZeroUsize>,
    /// What it may use in a day and in a month.
    pub budget: Budget,
    /// How often its waiting requests get their turn.
    pub priority: Priority,
    /// Whether its requests may name the person behind them.
    pub trust_user_headers: bool,
}

/// What a key may use in a day and in a month of the calendar, in UTC; `None` means unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Budget {
    /// Requests in a day.
    pub requests_per_day: Option<NonZeroU64>,
    /// Prompt and completion tokens in a day.
    pub tokens_per_day: Option<NonZeroU64>,
    /// Prompt and completion tokens in a month.
    pub tokens_per_month: Option<NonZeroU64>,
    /// Cost in a month, by `PRICE_PER_HOUR`.
    pub cost_per_month: Option<Amount>,
    /// Prompt and completion tokens in a day, for each person behind the key.
    pub person_tokens_per_day: Option<NonZeroU64>,
}

impl Key {
    /// Returns a key that may run inference on every model, has no limits of its own and never expires.
    pub fn named(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            rate_limit: None,
            expires: None,
            scopes: Scopes::default(),
            models: None,
            tokens_per_minute: None,
            max_concurrent: None,
            budget: Budget::default(),
            priority: Priority::default(),
            trust_user_headers: false,
        }
    }

    /// Whether the key has this scope.
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(scope)
    }

    /// Whether the key may use a model that has these names: the key's list must contain one of them exactly.
    pub fn may_use<'a>(&self, mut names: impl Iterator<Item = &'a str>) -> bool {
        self.models.as_ref().is_none_or(|allowed| names.any(|name| allowed.iter().any(|one| one == name)))
    }

    /// Whether the key has expired.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|end| end <= now)
    }
}

/// What a key may be used for. No scope implies another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The proxied inference routes.
    Inference,
    /// `POST /reload`, `GET /slots`.
    Admin,
    /// `GET /metrics`, where it asks for a key.
    Metrics,
}

impl Scope {
    /// Every scope, in the order in which they are written.
    pub const ALL: [Self; 3] = [Self::Inference, Self::Admin, Self::Metrics];

    /// Returns the word for it in the key file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inference => "inference",
            Self::Admin => "admin",
            Self::Metrics => "metrics",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The error for a word that is not a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a scope is one of inference, admin, metrics")]
pub struct UnknownScope;

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(word: &str) -> Result<Self, UnknownScope> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == word).ok_or(UnknownScope)
    }
}

/// A set of scopes; by default `inference` alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Whether the set holds this scope.
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Returns the scopes of the set, in the order in which they are written.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.contains(*scope))
    }
}

impl Default for Scopes {
    fn default() -> Self {
        Self(Scope::Inference.bit())
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |set, scope| set | scope.bit()))
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.iter().map(Scope::as_str).collect();
        f.write_str(&words.join(","))
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scopes({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may_use(key: &Key, name: &str) -> bool {
        key.may_use(["another", name].into_iter())
    }

    #[test]
    fn a_key_without_a_list_may_use_every_model_and_one_with_a_list_only_listed_models() {
        let mut key = Key::named("team");
        assert!(may_use(&key, "qwen3-4b"));
        key.models = Some(vec!["qwen3-4b".into(), "bge-m3".into()]);
        assert!(may_use(&key, "bge-m3"));
        assert!(!may_use(&key, "qwen3-4"));
        assert!(!may_use(&key, ""));
    }

    #[test]
    fn no_scope_implies_another() {
        let mut key = Key::named("ops");
        assert!(key.has(Scope::Inference) && !key.has(Scope::Admin));
        key.scopes = [Scope::Metrics, Scope::Admin].into_iter().collect();
        assert!(!key.has(Scope::Inference));
        assert_eq!(key.scopes.to_string(), "admin,metrics");
    }

    #[test]
    fn a_key_expires_exactly_at_its_end() {
        let end = Timestamp::from_second(1_000).unwrap();
        let key = Key { expires: Some(end), ..Key::named("guest") };
        assert!(!key.has_expired(Timestamp::from_second(999).unwrap()));
        assert!(key.has_expired(end));
    }
}
