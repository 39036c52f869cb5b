//! The configuration file of the lane with six models, and the changes that a reload brings.

use std::fmt::Write;

use crate::random::Random;

/// The models, each with a file of its own.
pub(crate) const MODELS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// The memory that all loaded models may take together, in GiB.
pub(crate) const BUDGET_GIB: u64 = 3;

/// The fewest models that are served after a change.
const LEAST_MODELS: usize = 3;

/// Returns the memory of one model, in GiB.
pub(crate) fn memory_gib(model: &str) -> u64 {
    if model == "f" { 2 } else { 1 }
}

/// The models of one configuration.
#[derive(Debug, Clone)]
pub(crate) struct FleetConfig {
    models: [ConfiguredModel; MODELS.len()],
    /// What follows the models: further ones, and other sections.
    more: String,
}

#[derive(Debug, Clone, Copy)]
struct ConfiguredModel {
    is_served: bool,
    /// A change gives it new workers.
    ctx: u32,
    /// A change gives it new workers.
    parallel: u32,
    /// After how long it sleeps, in milliseconds; 0 = never.
    ttl_ms: u64,
    /// A change restarts nothing.
    has_alias: bool,
}

/// A change of the configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ConfigChange {
    AddOrRemove(usize),
    Context(usize),
    Parallel(usize),
    Ttl(usize, u64),
    Alias(usize),
}

impl ConfigChange {
    pub(crate) fn draw(random: &mut Random) -> Self {
        let model = random.below(MODELS.len() as u64) as usize;
        match random.below(8) {
            0..3 => Self::AddOrRemove(model),
            3..5 => Self::Context(model),
            5 => Self::Parallel(model),
            6 => Self::Ttl(model, *random.pick(&[0, 100, 400])),
            _ => Self::Alias(model),
        }
    }
}

impl FleetConfig {
    /// Returns the configuration with all models, and this text after them.
    pub(crate) fn complete(more: String) -> Self {
        let model = |number: usize| ConfiguredModel {
            is_served: true,
            ctx: 1024,
            parallel: if number.is_multiple_of(2) { 2 } else { 1 },
            ttl_ms: if number < 2 { 300 } else { 0 },
            has_alias: false,
        };
        Self { models: std::array::from_fn(model), more }
    }

    pub(crate) fn apply(&mut self, change: ConfigChange) {
        let served = self.models.iter().filter(|model| model.is_served).count();
        match change {
            ConfigChange::AddOrRemove(at) if self.models[at].is_served && served <= LEAST_MODELS => {}
            ConfigChange::AddOrRemove(at) => self.models[at].is_served ^= true,
            ConfigChange::Context(at) => self.models[at].ctx ^= 1024 | 2048,
            ConfigChange::Parallel(at) => self.models[at].parallel ^= 1 | 2,
            ConfigChange::Ttl(at, ttl_ms) => self.models[at].ttl_ms = ttl_ms,
            ConfigChange::Alias(at) => self.models[at].has_alias ^= true,
        }
    }

    /// Makes it serve all models again.
    pub(crate) fn add_all(&mut self) {
        self.models.iter_mut().for_each(|model| model.is_served = true);
    }

    pub(crate) fn text(&self) -> String {
        let mut text = format!("memory_budget: {BUDGET_GIB}GiB\nmodels:\n");
        for (name, model) in MODELS.iter().zip(&self.models).filter(|(_, model)| model.is_served) {
            let ConfiguredModel { ctx, parallel, ttl_ms, has_alias, .. } = model;
            let (memory, alias) =
                (memory_gib(name), if *has_alias { format!(", aliases: [{name}-too]") } else { String::new() });
            let ttl = if *ttl_ms > 0 { format!(", ttl: {ttl_ms}ms") } else { String::new() };
            let _ = writeln!(
                text,
                "  {name}: {{file: {name}.gguf, memory: {memory}GiB, ctx: {ctx}, parallel: {parallel}{ttl}{alias}}}"
            );
        }
        text + &self.more
    }

    /// Whether it has no other models.
    pub(crate) fn is_plain(&self) -> bool {
        self.more.is_empty()
    }
}
