//! Tells what an unread key of `litellm_params` is: a field of requests, a key of LiteLLM or of this file that has no effect
//! there, or a misspelling.
//!
//! `known.rs` owns LiteLLM's names.

use super::known::{PARAM_HINTS, PARAM_PREFIXES, PARAMS};

/// What an unread key of `litellm_params` is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ForeignParam {
    /// A key of LiteLLM that changes no response.
    WithoutEffect,
    /// A key of LiteLLM that llamagate does not obey, with what it does in its place.
    NotObeyed(&'static str),
    /// A misspelt key of an entry, with the right one.
    Misspelt(&'static str),
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
    // A misspelt `api_key` must not become a field, and send the key to the backend in the body.
    let letters =
        |text: &str| text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let is_close = |known: &&&str| {
        letters(known) == letters(key) || known.len() > 4 && strsim::damerau_levenshtein(known, key) == 1
    };
    let hinted = PARAM_HINTS.iter().map(|(known, _)| known);
    match read.iter().chain(PARAMS).chain(hinted).find(is_close) {
        Some(known) => ForeignParam::Misspelt(known),
        None => ForeignParam::RequestField,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::file::known::TIMEOUTS;

    #[test]
    fn unread_keys_of_litellm_params_become_fields_unless_they_are_litellms_or_misspelt() {
        use ForeignParam::{Misspelt, NotObeyed, RequestField, WithoutEffect};
        let read = ["api_key", "api_base", "model", "max_parallel_requests", "extra_body"];
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
            ("timeout", NotObeyed(TIMEOUTS)),
        ] {
            assert_eq!(foreign_param(key, &read), is, "{key}");
        }
    }
}
