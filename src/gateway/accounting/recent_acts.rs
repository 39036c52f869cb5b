//! What administrators have done last, for those who look at the service. The ledger keeps all of it.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde::Serialize;

use crate::ledger::AdminAct;

/// Most acts that are kept here. Listeners of the feed get a snapshot in place of the others, where more come between two looks.
pub(crate) const KEPT_ACTS: usize = 32;

/// An act as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ShownAct {
    at: Timestamp,
    /// The id of the key.
    key: Option<String>,
    /// The method and the path of the route.
    act: String,
    /// What it was meant for.
    target: String,
    status: u16,
    /// `ok`, or the code of the refusal.
    outcome: String,
}

/// The last acts, with their numbers from 1.
#[derive(Debug, Default)]
pub struct RecentActs(Mutex<(u64, VecDeque<(u64, ShownAct)>)>);

impl RecentActs {
    /// Adds an act.
    pub(crate) fn add(&self, act: &AdminAct) {
        let AdminAct { time, key, act, target, status, outcome, .. } = act;
        let shown = ShownAct {
            at: *time,
            key: key.clone(),
            act: act.clone(),
            target: target.clone(),
            status: *status,
            outcome: outcome.clone(),
        };
        let (number, acts) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *number += 1;
        acts.push_back((*number, shown));
        if acts.len() > KEPT_ACTS {
            acts.pop_front();
        }
    }

    /// Returns the last acts, the oldest first.
    pub(crate) fn list(&self) -> Vec<(u64, ShownAct)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.iter().cloned().collect()
    }
}
