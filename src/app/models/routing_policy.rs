//! How the requests of each model are routed, and which models take over from it, as the configuration says.
//!
//! Which of a model's workers gets a request, and when another model takes over, is decided in `fleet/` and `gateway/`.

use crate::fleet::RoutingPolicy;
use crate::models::ModelKind;
use crate::preflight::CheckedModel;
use crate::settings::Config;
use crate::settings::catalogue::{EVERY_MODEL, PoolRole};

/// The models of each pool that have a priority, in its order, and its last resorts.
pub(super) struct PoolOrders(Vec<(ModelKind, Vec<String>)>);

impl PoolOrders {
    /// Finds the order of each pool. `fallback_to_local` is `FALLBACK_TO_LOCAL`.
    pub(super) fn of(models: &[CheckedModel], fallback_to_local: bool) -> Self {
        let role = |model: &CheckedModel| model.settings.pool_role(fallback_to_local);
        let mut orders: Vec<(ModelKind, Vec<String>)> = Vec::new();
        for CheckedModel { kind, .. } in models {
            let of_kind: Vec<&CheckedModel> =
                models.iter().filter(|model| model.kind == *kind && !model.settings.is_wildcard).collect();
            let is_known = orders.iter().any(|(known, _)| known == kind);
            if is_known || !PoolRole::make_pool(of_kind.iter().map(|model| role(model))) {
                continue;
            }
            let priority = |model: &&CheckedModel| Some((model.settings.pool?.priority?, model.id.clone()));
            let mut ranked: Vec<(u32, String)> = of_kind.iter().filter_map(priority).collect();
            // Stable: models of the same priority stay in the order of the list.
            ranked.sort_by_key(|(priority, _)| *priority);
            let last = of_kind.iter().filter(|model| role(model) == Some(PoolRole::LastResort));
            let ids = ranked.into_iter().map(|(_, id)| id).chain(last.map(|model| model.id.clone()));
            orders.push((*kind, ids.collect()));
        }
        Self(orders)
    }

    /// Returns the models that take over from this one. A priority of a model has no other meaning: each has backends
    /// of its own.
    fn others(&self, checked: &CheckedModel) -> Option<Vec<String>> {
        checked.settings.pool?.priority?;
        let (_, ids) = self.0.iter().find(|(kind, _)| *kind == checked.kind)?;
        Some(ids.iter().filter(|id| **id != checked.id).cloned().collect())
    }
}

/// Returns how the requests of a model are routed, and which models take over from it.
pub(super) fn policy_of(checked: &CheckedModel, config: &Config, pools: &PoolOrders) -> RoutingPolicy {
    let model = &checked.settings;
    let Config { settings, catalogue } = config;
    let fallbacks = &catalogue.fallbacks;
    let of_tier = || model.tier.as_ref().and_then(|tier| fallbacks.get(tier));
    let of_every_model = || fallbacks.get(EVERY_MODEL);
    let configured = fallbacks.get(&checked.id).or_else(of_tier).or_else(of_every_model).cloned();
    RoutingPolicy {
        rewrite: model.rewrite.clone(),
        strategy: model.strategy.unwrap_or(settings.routing.routing_strategy),
        remote_first: settings.routing.fallback_to_local,
        waits_for_remotes: settings.routing.wait_for_remotes,
        price_per_hour: model.price_per_hour.unwrap_or(settings.usage.price_per_hour).0,
        fallbacks: configured.or_else(|| pools.others(checked)).unwrap_or_default(),
    }
}
