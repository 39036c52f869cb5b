//! A model as its own lines describe it, before what holds for all models is put in.
//!
//! Owns which source wins: the model's own lines, then `defaults:`, then the settings of the whole service. Where the
//! lines come from is the business of `file/` and `tiers.rs`.

use super::model::{LocalSettings, ModelSettings, RemoteSettings, Rewrite, Start};
use crate::models::Kind;
use crate::settings::options::{Engine, Settings};
use crate::settings::values::{Context, ExtraArgs, GpuLayers, Seconds, Strategy, ZeroIsOff};
use std::num::{NonZeroU64, NonZeroUsize};

/// What was said, of one model or of all.
#[derive(Debug, Clone, Default)]
pub(in crate::settings) struct Draft {
    pub(in crate::settings) ngl: Option<GpuLayers>,
    pub(in crate::settings) ctx: Option<Context>,
    pub(in crate::settings) parallel: Option<NonZeroUsize>,
    pub(in crate::settings) threads: Option<usize>,
    pub(in crate::settings) extra_args: Option<ExtraArgs>,
    pub(in crate::settings) load_timeout: Option<Seconds>,
    pub(in crate::settings) restart_limit: Option<u32>,
    pub(in crate::settings) restart_window: Option<Seconds>,
    pub(in crate::settings) hang_timeout: Option<ZeroIsOff<Seconds>>,
    pub(in crate::settings) idle_unload: Option<ZeroIsOff<Seconds>>,
    pub(in crate::settings) prefetch: Option<bool>,
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
    pub(in crate::settings) kind: Option<Kind>,
    pub(in crate::settings) tier: Option<String>,
    pub(in crate::settings) aliases: Vec<String>,
    pub(in crate::settings) remotes: Vec<RemoteSettings>,
    /// Whether a fault has been noted with who serves it.
    pub(in crate::settings) is_broken: bool,
    /// Arguments that come after all others, as the variables of a tier need them.
    pub(in crate::settings) more_args: Vec<String>,
}

impl Draft {
    /// The same without what flags and environment variables say for the whole service, which a model from the
    /// environment hears before the file's `defaults:`.
    pub(in crate::settings) fn beneath(&self, is_explicit: &dyn Fn(&str) -> bool) -> Self {
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
    pub(in crate::settings) fn model(self, id: Option<String>, defaults: &Self, settings: &Settings) -> ModelSettings {
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
