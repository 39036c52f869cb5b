//! The people behind keys: how many of them are remembered, and which account each has.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use super::budget::account::Account;

/// The name under which people are booked once `MAX_PEOPLE` are remembered.
pub(crate) const OTHER_PEOPLE: &str = "other";

/// One person behind a key.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) name: Arc<str>,
    pub(crate) account: Arc<Account>,
}

/// The key's id and the person's name.
type PersonId = (Arc<str>, Arc<str>);

/// The people behind all keys.
#[derive(Debug)]
pub(crate) struct People {
    /// `MAX_PEOPLE`
    most: usize,
    by_name: Mutex<HashMap<PersonId, Arc<Account>>>,
}

impl People {
    /// Creates an empty table of at most this many people.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, by_name: Mutex::default() }
    }

    /// Returns the person of this name behind a key. Those who come when the table is full share one name, unless people who
    /// have used nothing this month can be forgotten.
    pub(crate) fn find(&self, key: &Arc<str>, name: &str, now: Timestamp) -> Person {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entry = (Arc::clone(key), Arc::<str>::from(name));
        if by_name.len() >= self.most && !by_name.contains_key(&entry) {
            by_name.retain(|_, account| Arc::strong_count(account) > 1 || !account.is_blank(now));
            if by_name.len() >= self.most {
                entry.1 = OTHER_PEOPLE.into();
            }
        }
        let account = Arc::clone(by_name.entry(entry.clone()).or_default());
        Person { name: entry.1, account }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_over_the_bound_are_booked_together() {
        let people = People::new(2);
        let (key, now) = (Arc::<str>::from("team"), Timestamp::UNIX_EPOCH);
        let held: Vec<_> = ["ann", "bob"].map(|name| people.find(&key, name, now)).into();
        let third = people.find(&key, "eve", now);
        assert_eq!(&*third.name, OTHER_PEOPLE);
        assert!(Arc::ptr_eq(&third.account, &people.find(&key, "joe", now).account));
        assert!(Arc::ptr_eq(&held[0].account, &people.find(&key, "ann", now).account), "those who are known stay");
    }

    #[test]
    fn people_who_have_used_nothing_make_room() {
        let people = People::new(1);
        let (key, now) = (Arc::<str>::from("team"), Timestamp::UNIX_EPOCH);
        drop(people.find(&key, "ann", now));
        assert_eq!(&*people.find(&key, "bob", now).name, "bob");
    }
}
