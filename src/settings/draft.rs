//! A model as its own lines describe it, before what holds for all models is put in.
//!
//! Owns which source wins: the model's own lines, then `defaults:`, then the settings of the whole service. Where the
//! lines come from is the business of `file/` and `tiers.rs`.

use super::catalogue::{LocalSettings, ModelSettings, RemoteSettings, Rewrite, Start, Strategy};
use super::options::{Engine, Settings};
use super::values::{Context, ExtraArgs, GpuLayers, Seconds, ZeroIsOff};
use crate::models::Kind;
use std::num::{NonZeroU64, NonZeroUsize};

/// What was said, of one model or of all.
#[derive(Debug, Clone, Default)]
pub(super) struct Draft {
    pub(super) ngl: Option<GpuLayers>,
    pub(super) ctx: Option<Context>,
    pub(super) parallel: Option<NonZeroUsize>,
    pub(super) threads: Option<usize>,
    pub(super) extra_args: Option<ExtraArgs>,
    pub(super) load_timeout: Option<Seconds>,
    pub(super) restart_limit: Option<u32>,
    pub(super) restart_window: Option<Seconds>,
    pub(super) hang_timeout: Option<ZeroIsOff<Seconds>>,
    pub(super) idle_unload: Option<ZeroIsOff<Seconds>>,
    pub(super) prefetch: Option<bool>,
    pub(super) replicas: Option<u32>,
    pub(super) preload: Option<bool>,
    pub(super) pinned: Option<bool>,
    pub(super) memory: Option<NonZeroU64>,
    pub(super) weight: Option<f64>,
    pub(super) priority: Option<u32>,
    pub(super) strategy: Option<Strategy>,
    pub(super) unlisted: Option<bool>,
    pub(super) strip_params: Option<Vec<String>>,
    /// Names and JSON values; no value takes back what `defaults:` says.
    pub(super) sampling: Vec<(String, Option<String>)>,
    pub(super) start: Option<Start>,
    pub(super) kind: Option<Kind>,
    pub(super) tier: Option<String>,
    pub(super) aliases: Vec<String>,
    pub(super) remotes: Vec<RemoteSettings>,
    /// Whether a fault has been noted with who serves it.
    pub(super) is_broken: bool,
    /// Arguments that come after all others, as the variables of a tier need them.
    pub(super) more_args: Vec<String>,
}

impl Draft {
    /// The same without what flags and environment variables say for the whole service, which a model from the
    /// environment hears before the file's `defaults:`.
    pub(super) fn beneath(&self, is_explicit: &dyn Fn(&str) -> bool) -> Self {
        let mut rest = self.clone();
        macro_rules! forget {
            ($($key:literal $field:ident),+) => { $( if is_explicit($key) { rest.$field = None; } )+ };
        }
        forget!(
            "ngl" ngl, "ctx" ctx, "parallel" parallel, "max_concurrent_requests" parallel, "threads" threads,
            "extra_args" extra_args, "load_timeout" load_timeout, "restart_limit" restart_limit,
            "restart_window" restart_window, "hang_timeout" hang_timeout, "idle_unload" idle_unload,
            "prefetch" prefetch, "routing_strategy" strategy
        );
        rest
    }

    /// The model of that id: its own lines, then the `defaults`, then the settings of all.
    pub(super) fn model(self, id: Option<String>, defaults: &Self, settings: &Settings) -> ModelSettings {
        let rewrite = Rewrite {
            sampling: self.sampling_over(defaults),
            strip_params: self.strip_params.clone().or_else(|| defaults.strip_params.clone()).unwrap_or_default(),
        };
        ModelSettings {
            id,
            // Where there is no GGUF to ask, the tier tells.
            kind: self.kind.or(match (&self.start, self.tier.as_deref()) {
                (Some(Start::Named(_) | Start::File(_)), _) => None,
                (_, Some("embedding")) => Some(Kind::Embedding),
                (_, Some("reranker")) => Some(Kind::Rerank),
                _ => None,
            }),
            tier: self.tier.clone(),
            aliases: self.aliases.clone(),
            unlisted: self.unlisted.or(defaults.unlisted).unwrap_or_default(),
            strategy: self.strategy.or(defaults.strategy),
            rewrite,
            local: self.start.clone().map(|start| LocalSettings {
                start,
                engine: self.engine(defaults, &settings.engine),
                slots: self.parallel.or(defaults.parallel).unwrap_or(settings.queue.max_concurrent_requests).get(),
                replicas: self.replicas.or(defaults.replicas).unwrap_or(1),
                preload: self.preload.or(defaults.preload).unwrap_or_default(),
                pinned: self.pinned.or(defaults.pinned).unwrap_or_default(),
                memory: self.memory,
                weight: self.weight.unwrap_or(1.0),
                priority: self.priority.unwrap_or(0),
            }),
            remotes: self.remotes,
        }
    }

    fn engine(&self, defaults: &Self, of_all: &Engine) -> Engine {
        let mut engine = of_all.clone();
        macro_rules! put {
            ($($field:ident),+) => {
                $( if let Some(value) = self.$field.clone().or_else(|| defaults.$field.clone()) { engine.$field = value; } )+
            };
        }
        put!(
            ngl,
            ctx,
            parallel,
            threads,
            extra_args,
            load_timeout,
            restart_limit,
            restart_window,
            hang_timeout,
            idle_unload,
            prefetch
        );
        engine.extra_args.0.extend(self.more_args.iter().cloned());
        engine
    }

    fn sampling_over(&self, defaults: &Self) -> Vec<(String, String)> {
        let mut merged = defaults.sampling.clone();
        for (name, value) in &self.sampling {
            match merged.iter_mut().find(|(known, _)| known == name) {
                Some((_, of_all)) => value.clone_into(of_all),
                None => merged.push((name.clone(), value.clone())),
            }
        }
        merged.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}
