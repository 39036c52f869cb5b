//! A model as its own lines describe it, before what holds for all models is put in.
//!
//! Owns which source wins: the model's own lines, then `defaults:`, then the settings of the whole service. Where the
//! lines come from is the business of `file/` and `shelf/tiers.rs`.
//!
//! # Adding a setting of one model
//!
//! The compiler asks for each step once the first is taken.
//!
//! - A setting of llama-server: a row under "llama-server" in `options.rs`, a row of [`EngineDraft`] here, and the key in
//!   `shared` of `file/models.rs`.
//! - Any other: a field of [`ModelDraft`] here, a field of `ModelSettings` or `LocalSettings` in `model.rs`, and the key in
//!   `shared` or `model` of `file/models.rs`.

use super::model::{LocalSettings, ModelSettings, RemoteSettings, Rewrite, Start};
use crate::models::ModelKind;
use crate::settings::options::{Engine, Settings};
use crate::settings::values::{Context, ExtraArgs, GpuLayers, Seconds, Strategy, ZeroIsOff};
use std::num::{NonZeroU64, NonZeroUsize};

macro_rules! engine_draft {
    ($($key:ident: $type:ty;)+) => {
        /// What was said of llama-server's settings, by the names that they have in the table of settings.
        #[derive(Debug, Clone, Default)]
        pub(in crate::settings) struct EngineDraft {
            $( pub(in crate::settings) $key: Option<$type>, )+
        }

        impl EngineDraft {
            /// Returns the settings whose keys are not explicit.
            fn without(&self, is_explicit: &dyn Fn(&str) -> bool) -> Self {
                Self { $( $key: self.$key.clone().filter(|_| !is_explicit(stringify!($key))), )+ }
            }

            /// Returns these settings, then the `defaults`, then those of all models.
            fn over(&self, defaults: &Self, of_all: &Engine) -> Engine {
                let mut engine = of_all.clone();
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
    extra_args: ExtraArgs;
    load_timeout: Seconds;
    restart_limit: u32;
    restart_window: Seconds;
    hang_timeout: ZeroIsOff<Seconds>;
    idle_unload: ZeroIsOff<Seconds>;
    prefetch: bool;
}

/// What was said, of one model or of all.
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
    pub(in crate::settings) unlisted: Option<bool>,
    pub(in crate::settings) strip_params: Option<Vec<String>>,
    /// Names and JSON values; no value takes back what `defaults:` says.
    pub(in crate::settings) sampling: Vec<(String, Option<String>)>,
    pub(in crate::settings) start: Option<Start>,
    pub(in crate::settings) kind: Option<ModelKind>,
    pub(in crate::settings) tier: Option<String>,
    pub(in crate::settings) aliases: Vec<String>,
    pub(in crate::settings) remotes: Vec<RemoteSettings>,
    /// Whether a fault has been noted with who serves it.
    pub(in crate::settings) is_broken: bool,
    /// Arguments that come after all others, as the variables of a tier need them.
    pub(in crate::settings) more_args: Vec<String>,
}

impl ModelDraft {
    /// Returns the draft without what flags and environment variables say for the whole service: for a model from the
    /// environment these override the file's `defaults:`.
    pub(in crate::settings) fn beneath(&self, is_explicit: &dyn Fn(&str) -> bool) -> Self {
        // Without `..`, so that a new field is decided on here too.
        let Self {
            engine,
            replicas,
            preload,
            pinned,
            memory,
            weight,
            priority,
            strategy,
            unlisted,
            strip_params,
            sampling,
            start,
            kind,
            tier,
            aliases,
            remotes,
            is_broken,
            more_args,
        } = self.clone();
        let mut engine = engine.without(is_explicit);
        // The slots follow this setting where PARALLEL is not said.
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
            unlisted,
            strip_params,
            sampling,
            start,
            kind,
            tier,
            aliases,
            remotes,
            is_broken,
            more_args,
        }
    }

    /// The model of that id: its own lines, then the `defaults`, then the settings of all.
    pub(in crate::settings) fn model(self, id: Option<String>, defaults: &Self, settings: &Settings) -> ModelSettings {
        // Without `..`, so that a new field is put somewhere.
        let Self {
            engine: own_engine,
            replicas,
            preload,
            pinned,
            memory,
            weight,
            priority,
            strategy,
            unlisted,
            strip_params,
            sampling,
            start,
            kind,
            tier,
            aliases,
            remotes,
            is_broken: _,
            more_args,
        } = self;
        let mut engine = own_engine.over(&defaults.engine, &settings.engine);
        engine.extra_args.0.extend(more_args);
        let slots = own_engine.parallel.or(defaults.engine.parallel);
        ModelSettings {
            id,
            // Where there is no GGUF to ask, the tier tells.
            kind: kind.or(match (&start, tier.as_deref()) {
                (Some(Start::Named(_) | Start::File(_)), _) => None,
                (_, Some("embedding")) => Some(ModelKind::Embedding),
                (_, Some("reranker")) => Some(ModelKind::Rerank),
                _ => None,
            }),
            tier,
            aliases,
            unlisted: unlisted.or(defaults.unlisted).unwrap_or_default(),
            strategy: strategy.or(defaults.strategy),
            rewrite: Rewrite {
                sampling: merge_sampling(&sampling, &defaults.sampling),
                strip_params: strip_params.or_else(|| defaults.strip_params.clone()).unwrap_or_default(),
            },
            local: start.map(|start| LocalSettings {
                start,
                engine,
                slots: slots.unwrap_or(settings.queue.max_concurrent_requests).get(),
                replicas: replicas.or(defaults.replicas).unwrap_or(1),
                preload: preload.or(defaults.preload).unwrap_or_default(),
                pinned: pinned.or(defaults.pinned).unwrap_or_default(),
                memory,
                weight: weight.unwrap_or(1.0),
                priority: priority.unwrap_or(0),
            }),
            remotes,
        }
    }
}

/// Merges the fields that a model gives to requests into those of `defaults:`; the model's own win.
fn merge_sampling(own: &[(String, Option<String>)], defaults: &[(String, Option<String>)]) -> Vec<(String, String)> {
    let mut merged = defaults.to_vec();
    for (name, value) in own {
        match merged.iter_mut().find(|(known, _)| known == name) {
            Some((_, of_all)) => value.clone_into(of_all),
            None => merged.push((name.clone(), value.clone())),
        }
    }
    merged.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}
