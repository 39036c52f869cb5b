//! The authenticated sender of a request, for as long as the request lives.
//!
//! A [`Caller`] proves that a request was authenticated: `authenticator.rs` creates it, and calls to workers for a translated
//! request get one of their own here. Owns the person, the priority and the check of the budgets. What its key allows it to
//! do is checked in `authorization.rs`, and the key's rate limits are enforced by its [`Meter`], in `rate.rs`.

use std::sync::Arc;

use jiff::Timestamp;

use crate::gateway::admission::budget::reservation::CallerBudgets;
use crate::gateway::admission::people::Person;
use crate::gateway::admission::rate::{ConcurrencyPermit, Meter};
use crate::gateway::admission::turn::Turn;
use crate::keys::secret::Digest;
use crate::keys::{Budget, FoundKey, Key, Priority};
use crate::refusal::Refusal;

/// The authenticated sender of a request. Moves into the response body, so that the key's concurrency permit is held to
/// the end of the response.
pub(crate) struct Caller(CallerIdentity);

enum CallerIdentity {
    /// No key was needed.
    Anonymous,
    /// The job queue of the platform with this name.
    Platform(&'static str),
    /// The owner of a key.
    Key(AuthenticatedKey),
}

struct AuthenticatedKey {
    key: Arc<Key>,
    /// The digest of the secret that the request has.
    secret: Digest,
    meter: Meter,
    permit: Option<ConcurrencyPermit>,
    /// The priority of this request.
    priority: Priority,
    /// The person behind the key, once the request has named one.
    person: Option<Person>,
}

impl Caller {
    /// Returns the caller of a route that needs no key.
    pub(super) fn without_key() -> Self {
        Self(CallerIdentity::Anonymous)
    }

    /// Returns the caller of a job from the queue of the platform with this name.
    pub(super) fn of_platform(name: &'static str) -> Self {
        Self(CallerIdentity::Platform(name))
    }

    /// Returns the owner of a key with this meter.
    pub(super) fn of_key(found: FoundKey, meter: Meter) -> Self {
        let FoundKey { key, secret } = found;
        let priority = key.priority;
        Self(CallerIdentity::Key(AuthenticatedKey { key, secret, meter, permit: None, priority, person: None }))
    }

    /// Returns whether this is the queue of a platform.
    pub(super) fn is_platform(&self) -> bool {
        matches!(self.0, CallerIdentity::Platform(_))
    }

    /// Returns the key, if the caller has one.
    pub(super) fn key(&self) -> Option<&Key> {
        self.authenticated_key().map(|authenticated| &*authenticated.key)
    }

    fn authenticated_key(&self) -> Option<&AuthenticatedKey> {
        match &self.0 {
            CallerIdentity::Key(authenticated) => Some(authenticated),
            CallerIdentity::Anonymous | CallerIdentity::Platform(_) => None,
        }
    }

    /// Returns the id of the key, or the name of the platform.
    pub(crate) fn key_id(&self) -> Option<&str> {
        match &self.0 {
            CallerIdentity::Anonymous => None,
            CallerIdentity::Platform(name) => Some(name),
            CallerIdentity::Key(authenticated) => Some(&authenticated.key.id),
        }
    }

    /// Returns the digest of the secret that the caller has, if it has a key.
    pub(crate) fn secret(&self) -> Option<&Digest> {
        self.authenticated_key().map(|authenticated| &authenticated.secret)
    }

    /// Returns the meter of the key, if the caller has one.
    pub(crate) fn meter(&self) -> Option<&Meter> {
        self.authenticated_key().map(|authenticated| &authenticated.meter)
    }

    /// Returns the id by which workers know the key. A platform has none: its jobs come from many callers.
    pub(crate) fn shared_key_id(&self) -> Option<&Arc<str>> {
        self.meter().map(Meter::key_id)
    }

    /// Returns the same caller for a call to a worker that is made for its request. It holds no permit of its own: the
    /// request does.
    pub(crate) fn for_call(&self) -> Self {
        Self(match &self.0 {
            CallerIdentity::Anonymous => CallerIdentity::Anonymous,
            CallerIdentity::Platform(name) => CallerIdentity::Platform(name),
            CallerIdentity::Key(AuthenticatedKey { key, secret, meter, priority, person, .. }) => {
                CallerIdentity::Key(AuthenticatedKey {
                    key: Arc::clone(key),
                    secret: *secret,
                    meter: meter.clone(),
                    permit: None,
                    priority: *priority,
                    person: person.clone(),
                })
            }
        })
    }

    /// Holds one of the key's concurrency permits for as long as the caller lives.
    pub(crate) fn hold_permit(&mut self, permit: Option<ConcurrencyPermit>) {
        if let CallerIdentity::Key(authenticated) = &mut self.0 {
            authenticated.permit = permit;
        }
    }

    /// Whether the caller's requests may name the person behind them.
    pub(crate) fn trusts_user_headers(&self) -> bool {
        self.authenticated_key().is_some_and(|authenticated| authenticated.key.trust_user_headers)
    }

    /// Lowers the priority of this request to this one, if it is higher.
    pub(crate) fn lower_priority(&mut self, priority: Priority) {
        if let CallerIdentity::Key(authenticated) = &mut self.0 {
            authenticated.priority = authenticated.priority.lower(priority);
        }
    }

    /// Returns what the key, and the person behind it, may use in a day and a month, and have used. A caller without a key
    /// has no budget.
    pub(crate) fn budgets(&self) -> Option<CallerBudgets> {
        self.authenticated_key().map(|AuthenticatedKey { key, meter, person, .. }| {
            let person = person.as_ref().map(|person| Arc::clone(&person.account));
            let clock = meter.share().map(|share| Arc::clone(share.store()));
            CallerBudgets::new(Arc::clone(meter.account()), person, &key.budget).with_clock(clock)
        })
    }

    /// Checks that the budgets of the caller's key have something left.
    ///
    /// # Errors
    /// [`Refusal::BudgetExceeded`].
    pub(crate) fn check_budget(&self, now: Timestamp) -> Result<(), Refusal> {
        match self.authenticated_key() {
            Some(authenticated) if authenticated.key.budget != Budget::default() => {
                self.budgets().map_or(Ok(()), |budgets| budgets.check(now))
            }
            _ => Ok(()),
        }
    }

    /// Sets the person behind the key, if the caller has one.
    pub(super) fn set_person(&mut self, person: Person) {
        if let CallerIdentity::Key(authenticated) = &mut self.0 {
            authenticated.person = Some(person);
        }
    }

    /// Returns the name of the person behind the key.
    pub(crate) fn person(&self) -> Option<&str> {
        self.authenticated_key()?.person.as_ref().map(|person| &*person.name)
    }

    /// Returns the lines in which the caller's requests wait.
    pub(crate) fn turn(&self) -> Turn<'_> {
        let priority = self.authenticated_key().map_or(Priority::default(), |authenticated| authenticated.priority);
        let person = self.person().unwrap_or_default();
        Turn { priority, key: self.key_id().unwrap_or_default(), person }
    }
}

#[cfg(test)]
impl Caller {
    /// Returns a caller without a key, for tests.
    pub(crate) fn anonymous() -> Self {
        Self::without_key()
    }
}
