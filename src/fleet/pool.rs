//! Which model of a pool gets a request that names none.
//!
//! A pool is all models of one kind, if `model_list` alone describes them, beside local ones for the case that all of
//! them fail. Owns the order in which they are tried; the workers of each model are chosen in `choice/`.

use std::sync::Arc;

use super::choice::{Candidate, WorkerChoice};
use super::model::Model;
use crate::pause_clock::ActiveInstant;
use crate::settings::catalogue::PoolRole;

/// Chooses among the models of a pool.
#[derive(Debug, Default)]
pub struct ModelPool(WorkerChoice);

impl ModelPool {
    /// Returns the order in which these models are tried, as indexes. Those with the lowest priority come first. Among
    /// equals the routing strategy chooses the first one, from those that can serve now; the least busy ones follow. Last
    /// resorts come after all others, those that can serve now before those that have to be loaded.
    pub fn order(&self, models: &[&Arc<Model>]) -> Vec<usize> {
        let now = ActiveInstant::now();
        let all = models.iter().enumerate().map(|(at, model)| candidate(at, model, now));
        let (mut last, mut candidates): (Vec<_>, Vec<_>) =
            all.partition(|(_, candidate)| is_last_resort(models[candidate.index]));
        last.sort_by(|(one_serves, one), (other_serves, other)| {
            other_serves.cmp(one_serves).then_with(|| one.load().total_cmp(&other.load()))
        });
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
        first.into_iter().chain(rest).chain(last.iter().map(|(_, candidate)| candidate.index)).collect()
    }
}

fn is_last_resort(model: &Model) -> bool {
    model.info().pool.is_some_and(|rank| rank.role == PoolRole::LastResort)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{ModelInfo, PoolRank, RoutingPolicy, StubWorker};
    use crate::settings::values::Strategy;

    /// Returns a ready model with this place in the pool.
    fn model(strategy: Strategy, priority: Option<u32>) -> (StubWorker, Arc<Model>) {
        in_role(PoolRole::Member, strategy, priority)
    }

    fn in_role(role: PoolRole, strategy: Strategy, priority: Option<u32>) -> (StubWorker, Arc<Model>) {
        let (worker, model) = StubWorker::ready(([127, 0, 0, 1], 1));
        let pool = Some(PoolRank { role, priority, strategy });
        model.update(ModelInfo { pool, ..ModelInfo::named("m") }, RoutingPolicy::default());
        (worker, model)
    }

    #[test]
    fn the_lowest_priority_comes_first_with_every_strategy_and_models_without_one_last() {
        for strategy in [Strategy::WeightedRandom, Strategy::RoundRobin, Strategy::SimpleShuffle, Strategy::LeastBusy] {
            let models = [None, Some(7), Some(0)].map(|priority| model(strategy, priority));
            let order = |pool: &ModelPool| pool.order(&models.each_ref().map(|(_, model)| model));
            let pool = ModelPool::default();
            assert!((0..20).all(|_| order(&pool) == [2, 1, 0]), "{strategy:?}");
            models[2].0.stop();
            assert!((0..20).all(|_| order(&pool) == [1, 2, 0]), "{strategy:?}: the first one cannot serve");
            models.iter().for_each(|(worker, _)| worker.stop());
            assert_eq!(order(&pool), [2, 1, 0], "{strategy:?}: none can serve");
            models.iter().for_each(|(worker, _)| worker.restart());
        }
    }

    #[test]
    fn among_equals_the_strategy_chooses_and_every_model_is_tried_once() {
        for (strategy, is_random) in [(Strategy::RoundRobin, false), (Strategy::SimpleShuffle, true)] {
            let models = [Some(1), Some(1), Some(1)].map(|priority| model(strategy, priority));
            let pool = ModelPool::default();
            let orders: Vec<Vec<usize>> =
                (0..60).map(|_| pool.order(&models.each_ref().map(|(_, model)| model))).collect();
            for (turn, order) in orders.iter().enumerate() {
                assert!(is_random || order[0] == turn % 3, "{order:?}");
                let mut sorted = order.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, [0, 1, 2]);
            }
            assert!((0..3).all(|index| orders.iter().any(|order| order[0] == index)), "{strategy:?}");
        }
        assert_eq!(ModelPool::default().order(&[]), [0; 0]);
    }

    #[test]
    fn last_resorts_come_after_all_others_even_while_only_they_can_serve() {
        for strategy in [Strategy::WeightedRandom, Strategy::RoundRobin, Strategy::LeastBusy] {
            let own = |_| in_role(PoolRole::LastResort, strategy, None);
            let models = [own(0), model(strategy, None), own(2), model(strategy, Some(3))];
            let pool = ModelPool::default();
            let order = || pool.order(&models.each_ref().map(|(_, model)| model));
            assert!((0..20).all(|_| order() == [3, 1, 0, 2]), "{strategy:?}");
            models[0].0.stop();
            assert_eq!(order(), [3, 1, 2, 0], "{strategy:?}: the first last resort has to be loaded");
            models[1].0.stop();
            models[3].0.stop();
            assert_eq!(order(), [3, 1, 2, 0], "{strategy:?}: none of the others can serve");
        }
    }
}
