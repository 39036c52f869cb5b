//! Variables of llama-server itself (`LLAMA_ARG_*`, `LLAMA_API_KEY`), which have no effect here: the environment of a
//! llama-server is cleared, so that nothing in it changes what the gateway has configured.
//!
//! Owns what to set instead.

use crate::settings::environment::Environment;

/// The variables that have a setting here, and what to write.
const SETTINGS: &[(&str, &str)] = &[
    ("LLAMA_API_KEY", "set LLAMAGATE_API_KEY, or put the key into AUTH_KEYS_FILE"),
    ("LLAMA_ARG_ALIAS", "set EXTRA_ARGS=--alias NAME, or name the model under models:"),
    ("LLAMA_ARG_API_KEY_FILE", "set AUTH_KEYS_FILE"),
    ("LLAMA_ARG_API_PREFIX", "the routes have no prefix here"),
    ("LLAMA_ARG_CTX_SIZE", "set CTX, the context of one slot"),
    ("LLAMA_ARG_DOCKER_REPO", "set MODEL_NAME=ORG/NAME"),
    ("LLAMA_ARG_EMBEDDINGS", "the model file tells the kind, or kind: embedding"),
    ("LLAMA_ARG_ENDPOINT_METRICS", "/metrics is always open"),
    ("LLAMA_ARG_ENDPOINT_PROPS", "POST /props is closed"),
    ("LLAMA_ARG_ENDPOINT_SLOTS", "/slots is always open"),
    ("LLAMA_ARG_HF_FILE", "set MODEL_NAME"),
    ("LLAMA_ARG_HF_REPO", "set MODEL_NAME=ORG/NAME"),
    ("LLAMA_ARG_HOST", "set HOST"),
    ("LLAMA_ARG_MODEL", "set MODEL_PATH"),
    ("LLAMA_ARG_MODELS_DIR", "set MODELS_DIR"),
    ("LLAMA_ARG_MODELS_PRESET", "list models in llamagate.yaml"),
    ("LLAMA_ARG_MODEL_URL", "set MODEL_PATH"),
    ("LLAMA_ARG_N_GPU_LAYERS", "set NGL"),
    ("LLAMA_ARG_N_PARALLEL", "set PARALLEL"),
    ("LLAMA_ARG_PORT", "set PORT"),
    ("LLAMA_ARG_RERANKING", "the model file tells the kind, or kind: rerank"),
    ("LLAMA_ARG_SSL_CERT_FILE", "set TLS_CERT"),
    ("LLAMA_ARG_SSL_KEY_FILE", "set TLS_KEY"),
    ("LLAMA_ARG_THREADS", "set THREADS"),
    ("LLAMA_ARG_TIMEOUT", "set REQUEST_TIMEOUT and STREAM_IDLE_TIMEOUT"),
];

/// Returns one warning that names the variables of llama-server which are set, and what to set instead. `option_of`
/// returns llama-server's option for a variable, if its help says which.
pub fn llama_variables_warning<'a>(
    environment: &Environment,
    option_of: impl Fn(&str) -> Option<&'a str>,
) -> Option<String> {
    let set = environment.names().filter(|name| name.starts_with("LLAMA_ARG_") || *name == "LLAMA_API_KEY");
    let advice = set.map(|name| {
        let known = SETTINGS.iter().find(|(known, _)| *known == name);
        let advice = match (known, option_of(name)) {
            (Some((_, advice)), _) => (*advice).to_owned(),
            (None, Some(option)) => format!("write {option} into EXTRA_ARGS"),
            (None, None) => "write its argument into EXTRA_ARGS".to_owned(),
        };
        format!("{} ({advice})", name.escape_debug())
    });
    let advice: Vec<String> = advice.collect();
    (!advice.is_empty()).then(|| format!("variables of llama-server have no effect here: {}", advice.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_llama_server_were_ignored_in_silence() {
        let environment = Environment::from([
            ("LLAMA_ARG_CTX_SIZE", "512"),
            ("LLAMA_ARG_N_GPU_LAYERS", "3"),
            ("LLAMA_ARG_MODEL", "/secret/m.gguf"),
            ("LLAMA_ARG_MMPROJ", "/x"),
            ("LLAMA_ARG_OF_TOMORROW", "x"),
            ("LLAMA_API_KEY", "sk-secret"),
            ("LLAMA_ARG_THREADS", " "),
            ("LLAMA_SERVER", "/bin/x"),
            ("LLAMA_CACHE", "/x"),
        ]);
        let option_of = |name: &str| (name == "LLAMA_ARG_MMPROJ").then_some("--mmproj");
        let warning = llama_variables_warning(&environment, option_of).unwrap();
        assert_eq!(
            warning,
            "variables of llama-server have no effect here: LLAMA_API_KEY (set LLAMAGATE_API_KEY, or put the key into AUTH_KEYS_FILE), \
             LLAMA_ARG_CTX_SIZE (set CTX, the context of one slot), LLAMA_ARG_MMPROJ (write --mmproj into EXTRA_ARGS), \
             LLAMA_ARG_MODEL (set MODEL_PATH), LLAMA_ARG_N_GPU_LAYERS (set NGL), \
             LLAMA_ARG_OF_TOMORROW (write its argument into EXTRA_ARGS)"
        );
        assert_eq!(llama_variables_warning(&Environment::from([("CTX", "64")]), option_of), None);
    }

    #[test]
    fn every_setting_that_is_named_is_in_the_table_of_settings() {
        let is_setting = |word: &str| crate::settings::OPTIONS.iter().any(|row| row.variable() == word);
        for (variable, advice) in SETTINGS {
            let words = advice.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
            let named = words.filter(|word| word.len() > 2 && !["NAME", "ORG", "TLS", "POST"].contains(word));
            named.for_each(|word| assert!(is_setting(word), "{variable}: {word}"));
        }
    }
}
