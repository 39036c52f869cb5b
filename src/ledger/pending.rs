//! Sums that are not written yet: events of the same hour, key, person and model are one row.

use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;

use super::bounds::{HIGHEST_COUNT, PENDING_ACTS, PENDING_ROWS};
use super::calendar::{BudgetPeriod, hour_of};
use super::event::{AdminAct, Recorded, UsageEvent};

/// What a row of sums is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct UsageSubject {
    /// When the hour begins, in seconds.
    pub(super) hour: i64,
    pub(super) key: Option<Arc<str>>,
    pub(super) person: Option<Arc<str>>,
    pub(super) model: Option<Arc<str>>,
}

/// The counts of a row of `usage`, in the order of its columns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct UsageCounts {
    pub(super) requests: u64,
    pub(super) refused: u64,
    pub(super) prompt_tokens: u64,
    pub(super) cached_tokens: u64,
    pub(super) completion_tokens: u64,
    pub(super) charged_tokens: u64,
    pub(super) slot_micros: u64,
    pub(super) first_byte_micros: u64,
    pub(super) cost_nanos: u64,
}

/// The sums of a row.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PendingRow {
    pub(super) counts: UsageCounts,
    /// What of it counts for budgets.
    budget: BudgetCounts,
    /// Refused requests by code.
    pub(super) refusals: Vec<(&'static str, u64)>,
}

/// What a row of `budgets` is about; without a person it is about the whole key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct BudgetSubject {
    pub(super) period: BudgetPeriod,
    /// When the period begins, in seconds.
    pub(super) start: i64,
    pub(super) key: Arc<str>,
    pub(super) person: Option<Arc<str>>,
}

/// The counts of a row of `budgets`, in the order of its columns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct BudgetCounts {
    pub(super) tokens: u64,
    pub(super) requests: u64,
    pub(super) cost_nanos: u64,
}

/// Everything that is not written yet.
#[derive(Debug, Default)]
pub(super) struct PendingUsage {
    /// Each event looks its row up, and only ids of ours and names from those that a key trusts are in it.
    pub(super) rows: HashMap<UsageSubject, PendingRow, RandomState>,
    pub(super) acts: Vec<AdminAct>,
    /// By hour: what the machine has cost, less what its requests have cost. Less than 0 in an hour whose requests went on
    /// into the next one.
    pub(super) idle_nanos: BTreeMap<i64, i64>,
    /// Events and acts that are in here.
    pub(super) events: u64,
}

impl PendingUsage {
    /// Adds an event or an act. Returns whether there was room.
    pub(super) fn add(&mut self, recorded: Recorded) -> bool {
        let has_room = match recorded {
            Recorded::Usage(event) => self.add_event(event),
            Recorded::Act(act) => {
                let has_room = self.acts.len() < PENDING_ACTS;
                if has_room {
                    self.acts.push(*act);
                }
                has_room
            }
        };
        self.events += u64::from(has_room);
        has_room
    }

    /// Adds what the machine has cost in this hour, whether it was idle or not.
    pub(super) fn add_machine_cost(&mut self, hour: i64, nanos: u64) {
        self.add_idle(hour, signed(nanos));
    }

    fn add_idle(&mut self, hour: i64, nanos: i64) {
        if nanos != 0 {
            let sum = self.idle_nanos.entry(hour).or_default();
            *sum = sum.saturating_add(nanos);
        }
    }

    fn add_event(&mut self, event: UsageEvent) -> bool {
        let is_full = self.rows.len() >= PENDING_ROWS;
        let counts = UsageCounts::of(&event);
        let UsageEvent { time, key, person, model, refused, is_budgeted, machine_cost_nanos, .. } = event;
        let row = match self.rows.entry(UsageSubject { hour: hour_of(time), key, person, model }) {
            Slot::Occupied(known) => known.into_mut(),
            Slot::Vacant(_) if is_full => return false,
            Slot::Vacant(new) => new.insert(PendingRow::default()),
        };
        row.counts.add(counts);
        if is_budgeted {
            row.budget.add(BudgetCounts::of(counts));
        }
        if let Some(code) = refused {
            match row.refusals.iter_mut().find(|(known, _)| *known == code) {
                Some((_, count)) => *count += 1,
                None => row.refusals.push((code, 1)),
            }
        }
        self.add_idle(hour_of(time), -signed(machine_cost_nanos));
        true
    }

    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.acts.is_empty() && self.idle_nanos.is_empty()
    }

    /// Returns what these rows add to the budgets of keys, and of persons within keys.
    pub(super) fn budgets(&self) -> HashMap<BudgetSubject, BudgetCounts> {
        let mut budgets: HashMap<BudgetSubject, BudgetCounts> = HashMap::new();
        for (UsageSubject { hour, key, person, .. }, row) in &self.rows {
            let Some(key) = key else { continue };
            let persons = [None, person.clone()];
            for period in BudgetPeriod::ALL {
                let start = period.second_of(*hour);
                for person in &persons[..1 + usize::from(person.is_some())] {
                    let (key, person) = (Arc::clone(key), person.clone());
                    budgets.entry(BudgetSubject { period, start, key, person }).or_default().add(row.budget);
                }
            }
        }
        budgets
    }
}

impl UsageCounts {
    fn of(event: &UsageEvent) -> Self {
        let is_refused = u64::from(event.refused.is_some());
        Self {
            requests: 1 - is_refused,
            refused: is_refused,
            prompt_tokens: event.prompt_tokens,
            cached_tokens: event.cached_tokens,
            completion_tokens: event.completion_tokens,
            charged_tokens: event.charged_tokens,
            slot_micros: micros(event.slot_time),
            first_byte_micros: event.first_byte.map_or(0, micros),
            cost_nanos: event.cost_nanos,
        }
    }

    /// Adds counts, up to [`HIGHEST_COUNT`].
    pub(super) fn add(&mut self, other: Self) {
        add(&mut self.requests, other.requests);
        add(&mut self.refused, other.refused);
        add(&mut self.prompt_tokens, other.prompt_tokens);
        add(&mut self.cached_tokens, other.cached_tokens);
        add(&mut self.completion_tokens, other.completion_tokens);
        add(&mut self.charged_tokens, other.charged_tokens);
        add(&mut self.slot_micros, other.slot_micros);
        add(&mut self.first_byte_micros, other.first_byte_micros);
        add(&mut self.cost_nanos, other.cost_nanos);
    }

    /// Returns the counts in the order of the columns.
    pub(super) fn columns(&self) -> [u64; 9] {
        let Self { requests, refused, prompt_tokens, cached_tokens, completion_tokens, .. } = *self;
        let Self { charged_tokens, slot_micros, first_byte_micros, cost_nanos, .. } = *self;
        [
            requests,
            refused,
            prompt_tokens,
            cached_tokens,
            completion_tokens,
            charged_tokens,
            slot_micros,
            first_byte_micros,
            cost_nanos,
        ]
    }
}

impl BudgetCounts {
    fn of(counts: UsageCounts) -> Self {
        Self { tokens: counts.charged_tokens, requests: counts.requests, cost_nanos: counts.cost_nanos }
    }

    fn add(&mut self, other: Self) {
        add(&mut self.tokens, other.tokens);
        add(&mut self.requests, other.requests);
        add(&mut self.cost_nanos, other.cost_nanos);
    }
}

fn add(sum: &mut u64, count: u64) {
    *sum = sum.saturating_add(count).min(HIGHEST_COUNT);
}

fn signed(count: u64) -> i64 {
    i64::try_from(count.min(HIGHEST_COUNT)).unwrap_or(i64::MAX)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
