//! Which model of a pool gets a request that names none.
//!
//! A pool is all models of one kind, if `model_list` alone describes them. Owns the order in which they are tried; the
//! workers of each model are chosen in `choice/`.

use std::sync::Arc;

use super::choice::{Candidate, WorkerChoice};
use super::model::Model;
use crate::pause_clock::ActiveInstant;

/// Chooses among the models of a pool.
#[derive(Debug, Default)]
pub struct ModelPool(WorkerChoice);

impl ModelPool {
    /// Returns the order in which these models are tried, as indexes. Those with the lowest priority come first. Among
    /// equals the routing strategy chooses the first one, from those that can serve now; the least busy ones follow.
    pub fn order(&self, models: &[&Arc<Model>]) -> Vec<usize> {
        let now = ActiveInstant::now();
        let mut candidates: Vec<(bool, Candidate)> =
            models.iter().enumerate().map(|(at, model)| candidate(at, model, now)).collect();
        candidates.sort_by(|(_, one), (_, other)| {
            one.priority.cmp(&other.priority).then_with(|| one.load().total_cmp(&other.load()))
        });
        // Those that cannot serve keep their place: their requests go to the next one, or wait.
        let mut priorities: Vec<u32> = candidates.iter().map(|(_, candidate)| candidate.priority).collect();
        priorities.dedup();
        let first = priorities.into_iter().find_map(|priority| {
            let serving = candidates.iter().filter(|(can_serve, one)| *can_serve && one.priority == priority);
            let serving: Vec<Candidate> = serving.map(|(_, candidate)| *candidate).collect();
            let strategy = models.get(serving.first()?.index)?.info().pool?.strategy;
            self.0.pick(strategy, &serving, &[])
        });
        let rest = candidates.iter().map(|(_, candidate)| candidate.index).filter(|index| Some(*index) != first);
        first.into_iter().chain(rest).collect()
    }
}

/// Returns a model as the strategies see a worker, and whether it can serve now.
fn candidate(index: usize, model: &Model, now: ActiveInstant) -> (bool, Candidate) {
    let mut whole = Candidate {
        index,
        in_flight: 0,
        slots: 0,
        weight: 0.0,
        priority: model.info().pool.and_then(|pool| pool.priority).unwrap_or(u32::MAX),
        first_byte: None,
    };
    for member in model.members() {
        let one = member.candidate(0, now);
        whole.in_flight += one.in_flight;
        whole.slots = whole.slots.saturating_add(one.slots);
        whole.weight += one.weight;
        whole.first_byte = match (whole.first_byte, one.first_byte) {
            (Some(shortest), Some(other)) => Some(shortest.min(other)),
            (known, other) => known.or(other),
        };
    }
    (model.available().is_ok(), whole)
}
