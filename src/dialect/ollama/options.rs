//! The options of a request: those of sampling have other names at a worker, and those of loading have no effect, because
//! the model is loaded as its configuration says.

use std::ops::RangeInclusive;

use serde_json::value::RawValue;

use super::super::fields::{FieldError, Fields, list, text};
use super::request::Members;

/// What becomes of an option.
enum OptionRule {
    /// A number within these limits, under this name at a worker.
    Number(&'static str, RangeInclusive<f64>),
    /// A whole number of at least this, under this name at a worker.
    Whole(&'static str, i64),
    /// A number of tokens; none that is not positive is a limit.
    TokenLimit(&'static str),
    /// A seed; a negative one means a random one, which is the worker's default.
    Seed,
    /// Texts at which the answer ends.
    Stop,
    /// Checked, and without effect.
    NoEffect,
}

/// Any finite number.
const ANY: RangeInclusive<f64> = f64::MIN..=f64::MAX;

/// Returns what becomes of an option; `None` if there is none of this name. The names are those of `Options` and `Runner`
/// in Ollama's `api/types.go`; the last of sampling are llama-server's own.
fn rule_of(name: &str) -> Option<OptionRule> {
    use OptionRule::{NoEffect, Number, Seed, Stop, TokenLimit, Whole};
    Some(match name {
        "num_predict" => TokenLimit("max_tokens"),
        "seed" => Seed,
        "stop" => Stop,
        "temperature" => Number("temperature", 0.0..=f64::MAX),
        "top_p" => Number("top_p", 0.0..=1.0),
        "min_p" => Number("min_p", 0.0..=1.0),
        "typical_p" => Number("typical_p", 0.0..=1.0),
        "repeat_penalty" => Number("repeat_penalty", 0.0..=f64::MAX),
        "presence_penalty" => Number("presence_penalty", ANY),
        "frequency_penalty" => Number("frequency_penalty", ANY),
        "top_k" => Whole("top_k", -1),
        "repeat_last_n" => Whole("repeat_last_n", -1),
        "num_keep" => Whole("n_keep", -1),
        "mirostat" => Whole("mirostat", 0),
        "mirostat_tau" => Number("mirostat_tau", ANY),
        "mirostat_eta" => Number("mirostat_eta", ANY),
        "dry_multiplier" => Number("dry_multiplier", ANY),
        "dry_base" => Number("dry_base", ANY),
        "dry_allowed_length" => Whole("dry_allowed_length", 0),
        "dry_penalty_last_n" => Whole("dry_penalty_last_n", -1),
        "xtc_probability" => Number("xtc_probability", ANY),
        "xtc_threshold" => Number("xtc_threshold", ANY),
        "dynatemp_range" => Number("dynatemp_range", ANY),
        "dynatemp_exponent" => Number("dynatemp_exponent", ANY),
        "top_n_sigma" => Number("top_n_sigma", ANY),
        // Of loading.
        "num_ctx"
        | "num_batch"
        | "num_gpu"
        | "main_gpu"
        | "num_thread"
        | "num_gqa"
        | "use_mmap"
        | "use_mlock"
        | "numa"
        | "low_vram"
        | "f16_kv"
        | "vocab_only"
        | "logits_all"
        | "embedding_only"
        | "rope_frequency_base"
        | "rope_frequency_scale"
        | "draft_num_predict" => NoEffect,
        // Of samplers that llama.cpp had once; Ollama takes them without effect too.
        "tfs_z" | "penalize_newline" => NoEffect,
        _ => return None,
    })
}

/// Adds the options of a request.
///
/// # Errors
/// There is an option that Ollama does not have, or one of another type or beyond its limits.
pub(super) fn add(fields: &Fields<'_>, members: &mut Members) -> Result<(), FieldError> {
    let Some(options) = fields.get("options") else { return Ok(()) };
    let options = Fields::within("options", options)?;
    for (name, value) in options.members() {
        let place = format!("options.{name}");
        let rule = rule_of(name).ok_or_else(|| FieldError::of(&place, "is no option of Ollama's"))?;
        add_one(&place, value, rule, members)?;
    }
    Ok(())
}

fn add_one(place: &str, value: &RawValue, rule: OptionRule, members: &mut Members) -> Result<(), FieldError> {
    match rule {
        OptionRule::Number(to, limits) => {
            let number = number(place, value)?;
            if !limits.contains(&number) {
                let (least, most) = limits.into_inner();
                return Err(match most < f64::MAX {
                    true => FieldError::of(place, format_args!("must be between {least} and {most}")),
                    false => FieldError::of(place, format_args!("must be at least {least}")),
                });
            }
            members.add_raw(to, value.to_owned());
        }
        OptionRule::Whole(to, least) => {
            let number = whole(place, value)?;
            if number < least {
                return Err(FieldError::of(place, format_args!("must be at least {least}")));
            }
            members.add(to, &number)?;
        }
        OptionRule::TokenLimit(to) => {
            let tokens = whole(place, value)?;
            if tokens > 0 {
                members.add(to, &tokens)?;
            }
        }
        OptionRule::Seed => {
            let seed = whole(place, value)?;
            if seed >= 0 {
                members.add("seed", &seed)?;
            }
        }
        OptionRule::Stop => {
            let stop = if value.get().starts_with('[') { list(place, value)? } else { vec![value] };
            let stop: Vec<_> = stop.into_iter().map(|one| text(place, one)).collect::<Result<_, _>>()?;
            members.add("stop", &stop)?;
        }
        OptionRule::NoEffect => {}
    }
    Ok(())
}

fn number(place: &str, value: &RawValue) -> Result<f64, FieldError> {
    let number: Option<f64> = serde_json::from_str(value.get()).ok();
    number.filter(|number| number.is_finite()).ok_or_else(|| FieldError::of(place, "must be a number"))
}

/// Returns a whole number, which some clients write with a point.
fn whole(place: &str, value: &RawValue) -> Result<i64, FieldError> {
    let number = number(place, value)?;
    // Every such number is exact.
    const MOST: f64 = 9_007_199_254_740_992.0;
    match number.fract() == 0.0 && number.abs() <= MOST {
        true => Ok(number as i64),
        false => Err(FieldError::of(place, "must be a whole number")),
    }
}
