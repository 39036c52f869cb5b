//! Settings of models that have no effect, because another setting decides.

use crate::settings::catalogue::{LoadMode, ModelSettings};
use crate::settings::options::Settings;
use crate::settings::values::Strategy;

/// Returns a warning for each setting of these models, and of those of a served folder, that has no effect.
pub(super) fn doubts(models: &[ModelSettings], shelf: Option<&ModelSettings>, settings: &Settings) -> Vec<String> {
    let mut warnings: Vec<String> = models.iter().filter_map(|model| useless_weights(model, settings)).collect();
    for model in models.iter().chain(shelf) {
        warnings
            .extend(overridden(model).into_iter().filter(|warning| !warnings.contains(warning)).collect::<Vec<_>>());
    }
    warnings
}

/// Returns a warning about weights that no strategy reads.
fn useless_weights(model: &ModelSettings, settings: &Settings) -> Option<String> {
    let strategy = model.strategy.unwrap_or(settings.routing.routing_strategy);
    let mut weights = model.remotes.iter().map(|remote| remote.weight);
    let first = weights.next().unwrap_or(1.0);
    if strategy == Strategy::WeightedRandom || !weights.any(|weight| (weight - first).abs() > f64::EPSILON) {
        return None;
    }
    let strategy = serde_json::to_value(strategy).ok()?;
    Some(format!(
        "the weights of {:?} have no effect: routing_strategy is {}, and only weighted-random reads them",
        model.known_id().unwrap_or_default(),
        strategy.as_str().unwrap_or_default()
    ))
}

/// Returns warnings about settings in whose place llama-server takes an argument of `EXTRA_ARGS` or `args`, since of two
/// it takes the last.
fn overridden(model: &ModelSettings) -> Vec<String> {
    let Some(local) = &model.local else { return Vec::new() };
    let of_model = model.known_id().filter(|id| !id.is_empty()).map_or_else(String::new, |id| format!(" of {id:?}"));
    let words = &local.engine.extra_args.words;
    let given = |names: &[&str]| words.iter().find(|word| names.contains(&word.replace('_', "-").as_str()));
    let warning = |what: &str, word: &String| {
        format!("{what}{of_model} has no effect: EXTRA_ARGS or args has {word}, which comes later")
    };
    let mut warnings = Vec::new();
    if let Some(word) = given(&["--load-mode", "-lm"]).filter(|_| local.load_mode != LoadMode::default()) {
        let LoadMode { mmap, mlock } = local.load_mode;
        warnings.extend(mmap.map(|_| warning("USE_MMAP", word)));
        warnings.extend(mlock.then(|| warning("USE_MLOCK", word)));
    }
    if let Some(word) = given(&["--batch-size", "-b"]).filter(|_| local.engine.batch > 0) {
        warnings.push(warning("BATCH", word));
    }
    warnings
}
