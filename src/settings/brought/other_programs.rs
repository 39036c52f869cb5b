//! Variables of Ollama and vLLM, which have no effect here: these programs may run on the same machine, and their
//! addresses, folders and keys are their own.
//!
//! Owns what to set instead. Names that are not in the table are not mentioned.

use crate::settings::environment::Environment;

/// Each program with its variables, and what to write here.
pub const OTHER_PROGRAMS: &[(&str, &[(&str, &str)])] = &[
    (
        "Ollama",
        &[
            ("OLLAMA_HOST", "set HOST and PORT"),
            ("OLLAMA_KEEP_ALIVE", "set IDLE_UNLOAD"),
            ("OLLAMA_NUM_PARALLEL", "set MAX_CONCURRENT_REQUESTS"),
            ("OLLAMA_CONTEXT_LENGTH", "set CTX"),
            ("OLLAMA_MAX_LOADED_MODELS", "set MEMORY_BUDGET"),
            ("OLLAMA_MAX_QUEUE", "set MAX_QUEUE_SIZE"),
            ("OLLAMA_LOAD_TIMEOUT", "set LOAD_TIMEOUT"),
            ("OLLAMA_ORIGINS", "set CORS_ORIGINS"),
            ("OLLAMA_FLASH_ATTENTION", "write --flash-attn on into EXTRA_ARGS"),
            ("OLLAMA_KV_CACHE_TYPE", "write -ctk and -ctv into EXTRA_ARGS"),
            ("OLLAMA_DEBUG", "set LOG_LEVEL=debug"),
        ],
    ),
    ("vLLM", &[("VLLM_API_KEY", "set LLAMAGATE_API_KEY"), ("VLLM_LOGGING_LEVEL", "set LOG_LEVEL")]),
];

/// Returns one warning for each program of which variables are set, which names them and what to set instead.
pub(in crate::settings) fn other_programs_warnings(environment: &Environment) -> impl Iterator<Item = String> {
    OTHER_PROGRAMS.iter().filter_map(|(program, variables)| {
        let set = variables.iter().filter(|(name, _)| environment.get(name).is_some());
        let advice: Vec<String> = set.map(|(name, advice)| format!("{name} ({advice})")).collect();
        (!advice.is_empty()).then(|| format!("variables of {program} have no effect here: {}", advice.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_programs_beside_this_one_were_said_to_be_read_and_ignored_in_silence() {
        let environment = Environment::from([
            ("OLLAMA_HOST", "127.0.0.1:11434"),
            ("OLLAMA_ORIGINS", "*"),
            ("OLLAMA_OF_TOMORROW", "x"),
            ("VLLM_API_KEY", "sesame-0123456789"),
            ("VLLM_PORT", "tcp://10.0.0.1:8000"),
            ("VLLM_LOGGING_LEVEL", ""),
        ]);
        let warnings: Vec<String> = other_programs_warnings(&environment).collect();
        assert_eq!(
            warnings,
            [
                "variables of Ollama have no effect here: OLLAMA_HOST (set HOST and PORT), OLLAMA_ORIGINS (set CORS_ORIGINS)",
                "variables of vLLM have no effect here: VLLM_API_KEY (set LLAMAGATE_API_KEY)"
            ]
        );
        assert_eq!(other_programs_warnings(&Environment::from([("CTX", "64")])).count(), 0);
    }

    #[test]
    fn every_setting_that_is_named_is_in_the_table_of_settings() {
        let is_setting = |word: &str| crate::settings::OPTIONS.iter().any(|row| row.variable() == word);
        for (variable, advice) in OTHER_PROGRAMS.iter().flat_map(|(_, variables)| *variables) {
            let words = advice.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
            let named: Vec<&str> = words.filter(|word| word.len() > 2 && *word != "GGUF").collect();
            assert!(!named.is_empty() && named.iter().all(|word| is_setting(word)), "{variable}: {advice}");
        }
    }
}
