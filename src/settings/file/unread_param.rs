//! Tells what an unread key of `litellm_params` is: a field of requests, a key of LiteLLM or of this file that has no effect
//! there, or a misspelling.
//!
//! Owns the places where llamagate's own keys belong. `known.rs` owns LiteLLM's names.

use super::known::{PARAM_HINTS, PARAM_PREFIXES, PARAMS};
use super::models;
use crate::settings::options::{Sources, row};

/// Keys of an entry of `model_list` that have no effect in its `litellm_params`.
const ENTRY_KEYS: [&str; 5] = ["api", "health", "model_name", "priority", "tier"];

/// Keys of a model that are obeyed for remote backends too. The others are about what llamagate starts.
const KEYS_OF_ANY_MODEL: [&str; 5] = ["prompts", "sampling", "strategy", "strip_params", "unlisted"];

/// Keys of a model that are fields of requests in LiteLLM's files.
const REQUEST_FIELDS: [&str; 3] = ["lora", "dimensions", "instruction"];

/// The longest name of which one that differs in a single letter may be meant; for longer names, in two.
const SHORT_NAME: usize = 5;

/// What an unread key of `litellm_params` is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ForeignParam {
    /// A key of LiteLLM that changes no response.
    WithoutEffect,
    /// A key of LiteLLM that llamagate does not obey, with what it does in its place.
    NotObeyed(&'static str),
    /// A key that llamagate reads in another place, with that place.
    Elsewhere(String),
    /// A misspelt key of an entry, with the right one.
    Misspelt(&'static str),
    /// A field of requests whose name resembles this key.
    Resembling(&'static str),
    /// A field of requests.
    RequestField,
}

/// Classifies an unread key of `litellm_params`; `read` are the keys that are read.
pub(super) fn foreign_param(key: &str, read: &[&'static str]) -> ForeignParam {
    if let Some((_, hint)) = PARAM_HINTS.iter().find(|(known, _)| *known == key) {
        return ForeignParam::NotObeyed(hint);
    }
    if PARAMS.contains(&key) || PARAM_PREFIXES.iter().any(|prefix| key.starts_with(prefix)) {
        return ForeignParam::WithoutEffect;
    }
    if let Some(place) = place_of(key) {
        return ForeignParam::Elsewhere(format!("{place}; a field of requests of this name goes into extra_body"));
    }
    // A misspelt `api_key` must not become a field, and send the key to the backend in the body.
    let letters =
        |text: &str| text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let is_close = |known: &&&str| {
        letters(known) == letters(key) || known.len() > 4 && strsim::damerau_levenshtein(known, key) == 1
    };
    let hinted = PARAM_HINTS.iter().map(|(known, _)| known);
    match read.iter().chain(PARAMS).chain(hinted).find(is_close) {
        Some(known) => ForeignParam::Misspelt(known),
        None => resembled(key, read).map_or(ForeignParam::RequestField, ForeignParam::Resembling),
    }
}

/// Returns where a key of llamagate belongs that is none of `litellm_params`, as advice.
fn place_of(key: &str) -> Option<String> {
    let key = key.to_ascii_lowercase().replace('-', "_");
    let place = match key.as_str() {
        "kind" => "set model_info: {mode: ...} in the entry",
        "aliases" => "set router_settings.model_group_alias",
        "max_parallel" => "the key is max_parallel_requests",
        "credential_name" => "the key is litellm_credential_name",
        key if REQUEST_FIELDS.contains(&key) => return None,
        key if ENTRY_KEYS.contains(&key) => "set it in the entry, beside litellm_params",
        key if KEYS_OF_ANY_MODEL.contains(&key) => "set it for the model under models:",
        key if models::keys().contains(&key) => "only models that llamagate starts have it, under models:",
        key => {
            let setting = row(key).filter(|row| row.sources == Sources::All)?;
            return Some(format!("it is a setting of the service: set {}", setting.variable()));
        }
    };
    Some(place.to_owned())
}

/// Returns the key that a field of requests may be a misspelling of.
fn resembled(key: &str, read: &[&'static str]) -> Option<&'static str> {
    let keys: Vec<&'static str> = models::keys().into_iter().filter(|key| !REQUEST_FIELDS.contains(key)).collect();
    let is_near = |known: &&&'static str| {
        let distance = if known.len().min(key.len()) <= SHORT_NAME { 1 } else { 2 };
        key.len() > 2 && strsim::damerau_levenshtein(known, key) <= distance
    };
    read.iter().chain(&ENTRY_KEYS).chain(&keys).find(is_near).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::file::known::TIMEOUTS;

    #[test]
    fn unread_keys_of_litellm_params_become_fields_unless_they_are_litellms_or_misspelt() {
        use ForeignParam::{Misspelt, NotObeyed, RequestField, Resembling, WithoutEffect};
        let read = ["api_key", "api_base", "model", "max_parallel_requests", "extra_body", "rpm", "tpm"];
        for (key, is) in [
            ("chat_template_kwargs", RequestField),
            ("dimensions", RequestField),
            ("guided_json", RequestField),
            ("top_n", RequestField),
            ("stop_token_ids", RequestField),
            ("user", RequestField),
            ("apikey", Misspelt("api_key")),
            ("api-key", Misspelt("api_key")),
            ("API_KEY", Misspelt("api_key")),
            ("api_kye", Misspelt("api_key")),
            ("modell", Misspelt("model")),
            ("extra_bodi", Misspelt("extra_body")),
            ("timeouts", Misspelt("timeout")),
            ("input_cost_per_token_above_128k_tokens", WithoutEffect),
            ("aws_secret_access_key", WithoutEffect),
            ("drop_params", WithoutEffect),
            ("rmp", Resembling("rpm")),
            ("tmp", Resembling("tpm")),
            ("api_bases_", Resembling("api_base")),
            ("strip_parms", Resembling("strip_params")),
            ("strategie", Resembling("strategy")),
            ("timeout", NotObeyed(TIMEOUTS)),
        ] {
            assert_eq!(foreign_param(key, &read), is, "{key}");
        }
    }

    #[test]
    fn no_field_of_a_known_api_resembles_a_key() {
        let read =
            ["api_base", "api_key", "api_path", "base_url", "custom_llm_provider", "extra_body", "extra_headers"];
        let read = [&read[..], &["headers", "max_parallel_requests", "order", "organization", "rpm", "tpm", "weight"]];
        let fields = "temperature top_p top_k min_p typical_p top_n_sigma n seed stop tools tool_choice parallel_tool_calls \
                      logprobs top_logprobs max_tokens max_completion_tokens user response_format presence_penalty \
                      frequency_penalty repeat_penalty repetition_penalty logit_bias suffix echo best_of dimensions \
                      encoding_format chat_template_kwargs guided_json mirostat dry_base xtc_threshold grammar json_schema \
                      cache_prompt id_slot n_probs n_predict n_keep samplers ignore_eos service_tier store modalities \
                      audio prediction reasoning_effort reasoning reasoning_format thinking thinking_budget_tokens top_n \
                      return_documents keep_alive num_ctx format think options raw images template system min_tokens \
                      skip_special_tokens truncate_prompt_tokens provider transforms route plugins include_reasoning \
                      web_search_options task instruction lora normalize safe_prompt verbosity truncation include \
                      background prompt_cache_key safety_identifier functions function_call timings_per_token \
                      post_sampling_probs t_max_predict_ms image_data input_type";
        for field in fields.split_whitespace() {
            assert_eq!(foreign_param(field, &read.concat()), ForeignParam::RequestField, "{field}");
        }
    }

    /// Regression: `strip_params` in `litellm_params` was sent to the backend as a field, and not obeyed.
    #[test]
    fn keys_of_llamagate_are_no_fields_of_requests() {
        let read = ["model", "api_base", "rpm", "weight"];
        for (keys, place) in [
            ("health priority tier model_name", "set it in the entry, beside litellm_params; "),
            ("strip_params strip-params sampling strategy unlisted", "set it for the model under models:; "),
            ("kind", "set model_info: {mode: ...} in the entry; "),
            ("aliases", "set router_settings.model_group_alias; "),
            ("max_parallel", "the key is max_parallel_requests; "),
            ("credential_name", "the key is litellm_credential_name; "),
            ("file command parallel ttl ctx preload", "only models that llamagate starts have it, under models:; "),
            ("health_check_interval", "it is a setting of the service: set HEALTH_CHECK_INTERVAL; "),
            ("allowed_fails", "it is a setting of the service: set ALLOWED_FAILS; "),
        ] {
            for key in keys.split(' ') {
                let ForeignParam::Elsewhere(advice) = foreign_param(key, &read) else { panic!("{key} is sent") };
                assert!(advice.starts_with(place) && advice.ends_with("extra_body"), "{key}: {advice}");
            }
        }
        let unplaced = models::keys().into_iter().filter(|key| place_of(key).is_none());
        assert_eq!(unplaced.collect::<Vec<_>>(), REQUEST_FIELDS);
    }
}
