//! The unresolved settings of one model, before defaults are filled in.
//!
//! Owns which source wins: the model's own keys, then `defaults:`, then the settings of the whole service. `file/` and
//! `merge/tiers.rs` read the drafts.
//!
//! # Adding a setting of one model
//!
//! It takes changes in three files. Begin here: the compiler then reports the missing steps.
//!
//! - A setting of llama-server: a row of the group "llama-server" in `options.rs`, a row of [`EngineDraft`] here, and
//!   the key in `read_shared` of `file/models.rs`.
//! - Any other: a field of [`ModelDraft`] here, a field of `ModelSettings` or `LocalSettings` in `model.rs`, and the
//!   key in `read_shared` or `read_model` of `file/models.rs`.

use std::num::{NonZeroU64, NonZeroUsize};

use super::companions::CompanionSettings;
use super::model::{
    HeadFiles, LoadMode, LocalSettings, ModelSettings, ProjectorSetting, RemoteSettings, Rewrite, Start,
};
use super::pool::PoolPlace;
use crate::models::ModelKind;
use crate::settings::options::{Engine, Settings};
use crate::settings::values::{
    Context, Dimensions, ExtraArgs, GpuLayers, HourlyPrice, ScoreSetting, Seconds, Strategy, ZeroIsOff,
};

macro_rules! engine_draft {
    ($($key:ident: $type:ty;)+) => {
        /// The settings of llama-server that a source sets, by their names in the table of settings.
        #[derive(Debug, Clone, Default)]
        pub(in crate::settings) struct EngineDraft {
            $( pub(in crate::settings) $key: Option<$type>, )+
        }

        impl EngineDraft {
            /// Returns the settings without those that a flag or an environment variable sets.
            fn without_explicit(&self, is_explicit: &dyn Fn(&str) -> bool) -> Self {
                Self { $( $key: self.$key.clone().filter(|_| !is_explicit(stringify!($key))), )+ }
            }

            /// Returns each setting from `self`, else from `defaults`, else from `global`.
            fn resolve(&self, defaults: &Self, global: &Engine) -> Engine {
                let mut engine = global.clone();
                $( if let Some(value) = self.$key.clone().or_else(|| defaults.$key.clone()) { engine.$key = value; } )+
                engine
            }
        }
    };
}

engine_draft! {
    ngl: GpuLayers;
    ctx: Context;
    parallel: NonZeroUsize;
    threads: usize;
    batch: usize;
    extra_args: ExtraArgs;
    load_timeout: Seconds;
    restart_limit: u32;
    restart_window: Seconds;
    hang_timeout: ZeroIsOff<Seconds>;
    idle_unload: ZeroIsOff<Seconds>;
    prefetch: bool;
}

/// The settings that one source sets, for one model (`models:`, a tier) or for all (`defaults:`).
#[derive(Debug, Clone, Default)]
pub(in crate::settings) struct ModelDraft {
    pub(in crate::settings) engine: EngineDraft,
    pub(in crate::settings) replicas: Option<u32>,
    pub(in crate::settings) preload: Option<bool>,
    pub(in crate::settings) pinned: Option<bool>,
    pub(in crate::settings) memory: Option<NonZeroU64>,
    pub(in crate::settings) weight: Option<f64>,
    pub(in crate::settings) priority: Option<u32>,
    pub(in crate::settings) strategy: Option<Strategy>,
    pub(in crate::settings) price_per_hour: Option<HourlyPrice>,
    pub(in crate::settings) unlisted: Option<bool>,
    pub(in crate::settings) scores: Option<ScoreSetting>,
    pub(in crate::settings) strip_params: Option<Vec<String>>,
    /// Names and JSON values; `None` removes the value of `defaults:`.
    pub(in crate::settings) sampling: Vec<(String, Option<String>)>,
    pub(in crate::settings) start: Option<Start>,
    pub(in crate::settings) projector: Option<ProjectorSetting>,
    pub(in crate::settings) heads: Option<HeadFiles>,
    pub(in crate::settings) companions: CompanionSettings,
    pub(in crate::settings) kind: Option<ModelKind>,
    pub(in crate::settings) tier: Option<String>,
    pub(in crate::settings) aliases: Vec<String>,
    pub(in crate::settings) hidden_aliases: Vec<String>,
    pub(in crate::settings) is_wildcard: bool,
    pub(in crate::settings) pool: Option<PoolPlace>,
    pub(in crate::settings) remotes: Vec<RemoteSettings>,
    /// The lengths of its vectors.
    pub(in crate::settings) dimensions: Option<Dimensions>,
    /// What stands before inputs, by name.
    pub(in crate::settings) prompts: Option<Vec<(String, String)>>,
    /// What a reranker is asked to look for.
    pub(in crate::settings) instruction: Option<String>,
    /// Whether a problem with its file, command or backend was already recorded; prevents a second report.
    pub(in crate::settings) has_problem: bool,
    pub(in crate::settings) load_mode: LoadMode,
}

impl ModelDraft {
    /// Returns the draft without the settings that flags and environment variables set for the whole service. A model
    /// from the environment takes these before the file's `defaults:`.
    pub(in crate::settings) fn without_explicit(&self, is_explicit: &dyn Fn(&str) -> bool) -> Self {
        // No `..`: a new field does not compile until it is handled here.
        let Self {
            engine,
            replicas,
            preload,
            pinned,
            memory,
            weight,
            priority,
            strategy,
            price_per_hour,
            unlisted,
            scores,
            strip_params,
            sampling,
            start,
            projector,
            heads,
            companions,
            kind,
            tier,
            aliases,
            hidden_aliases,
            is_wildcard,
            pool,
            remotes,
            dimensions,
            prompts,
            instruction,
            has_problem,
            load_mode,
        } = self.clone();
        let mut engine = engine.without_explicit(is_explicit);
        // MAX_CONCURRENT_REQUESTS sets PARALLEL too, unless that is set itself.
        engine.parallel = engine.parallel.filter(|_| !is_explicit("max_concurrent_requests"));
        Self {
            engine,
            replicas,
            preload,
            pinned,
            memory,
            weight,
            priority,
            strategy: strategy.filter(|_| !is_explicit("routing_strategy")),
            price_per_hour: price_per_hour.filter(|_| !is_explicit("price_per_hour")),
            unlisted,
            scores,
            strip_params,
            sampling,
            start,
            projector,
            heads,
            companions,
            kind,
            tier,
            aliases,
            hidden_aliases,
            is_wildcard,
            pool,
            remotes,
            dimensions,
            prompts,
            instruction,
            has_problem,
            load_mode,
        }
    }

    /// Resolves the draft: its own settings, else `defaults`, else the settings of the whole service.
    pub(in crate::settings) fn into_model(
        self,
        id: Option<String>,
        defaults: &Self,
        settings: &Settings,
    ) -> ModelSettings {
        // No `..`: a new field does not compile until it is used here.
        let Self {
            engine: own_engine,
            replicas,
            preload,
            pinned,
            memory,
            weight,
            priority,
            strategy,
            price_per_hour,
            unlisted,
            scores,
            strip_params,
            sampling,
            start,
            projector,
            heads,
            companions,
            kind,
            tier,
            aliases,
            hidden_aliases,
            is_wildcard,
            pool,
            remotes,
            dimensions,
            prompts,
            instruction,
            has_problem: _,
            load_mode,
        } = self;
        let engine = own_engine.resolve(&defaults.engine, &settings.engine);
        // A server-wide PARALLEL is no limit of requests in flight: MAX_CONCURRENT_REQUESTS is, unless the model or
        // `defaults:` sets `parallel`.
        let slots = own_engine.parallel.or(defaults.engine.parallel);
        ModelSettings {
            id,
            // Without a GGUF file to read, the tier tells the kind.
            kind: kind.or(match (&start, tier.as_deref()) {
                (Some(Start::Named(_) | Start::File(_)), _) => None,
                (_, Some("embedding")) => Some(ModelKind::Embedding),
                (_, Some("reranker")) => Some(ModelKind::Rerank),
                _ => None,
            }),
            tier,
            aliases,
            hidden_aliases,
            is_wildcard,
            pool,
            unlisted: unlisted.or(defaults.unlisted).unwrap_or_default(),
            scores: scores.or(defaults.scores).unwrap_or_default(),
            strategy: strategy.or(defaults.strategy),
            price_per_hour: price_per_hour.or(defaults.price_per_hour),
            rewrite: Rewrite {
                sampling: merge_sampling(&sampling, &defaults.sampling),
                strip_params: strip_params.or_else(|| defaults.strip_params.clone()).unwrap_or_default(),
            },
            local: start.map(|start| LocalSettings {
                start,
                projector: projector.unwrap_or_default(),
                heads,
                companions,
                engine,
                load_mode,
                slots: slots.unwrap_or(settings.queue.max_concurrent_requests).get(),
                replicas: replicas.or(defaults.replicas).unwrap_or(1),
                preload: preload.or(defaults.preload).unwrap_or_default(),
                pinned: pinned.or(defaults.pinned).unwrap_or_default(),
                memory,
                weight: weight.unwrap_or(1.0),
                priority: priority.unwrap_or(0),
            }),
            remotes,
            dimensions,
            prompts,
            instruction,
        }
    }

    /// Adds default fields of requests that the draft does not set.
    pub(in crate::settings) fn add_sampling(&mut self, defaults: &[(String, Option<String>)]) {
        for (name, value) in defaults {
            if !self.sampling.iter().any(|(known, _)| known == name) {
                self.sampling.push((name.clone(), value.clone()));
            }
        }
    }
}

/// Merges the request fields of a model into those of `defaults:`; the model's own win.
fn merge_sampling(own: &[(String, Option<String>)], defaults: &[(String, Option<String>)]) -> Vec<(String, String)> {
    let mut merged = defaults.to_vec();
    for (name, value) in own {
        match merged.iter_mut().find(|(known, _)| known == name) {
            Some((_, default)) => value.clone_into(default),
            None => merged.push((name.clone(), value.clone())),
        }
    }
    merged.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}
