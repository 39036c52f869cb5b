//! The options of llama-server that have several names or no value, and the variables whose names differ from theirs.
//!
//! Owns which words mean the same option. What becomes of an option is decided in `arguments.rs`. Source:
//! `llama-server --help`; options that are not in these tables have one name and values.

use crate::settings::values::dashed;

/// The prefix of llama-server's variables; `LLAMA_ARG_CTX_SIZE` is `--ctx-size`.
const VARIABLE_PREFIX: &str = "LLAMA_ARG_";

/// Options without a value: the names that turn each on, the main one first, and those that turn it off.
const SWITCHES: &[(&[&str], &[&str])] = &[
    (&["--help", "--usage", "-h"], &[]),
    (&["--version"], &[]),
    (&["--cache-list", "-cl"], &[]),
    (&["--completion-bash"], &[]),
    (&["--swa-full"], &[]),
    (&["--perf"], &["--no-perf"]),
    (&["--escape", "-e"], &["--no-escape"]),
    (&["--kv-offload", "-kvo"], &["--no-kv-offload", "-nkvo"]),
    (&["--repack"], &["--no-repack", "-nr"]),
    (&["--no-host"], &[]),
    (&["--list-devices"], &[]),
    (&["--cpu-moe", "-cmoe"], &[]),
    (&["--check-tensors"], &[]),
    (&["--op-offload"], &["--no-op-offload"]),
    (&["--log-disable"], &[]),
    (&["--log-jsonl"], &["--no-log-jsonl"]),
    (&["--log-verbose", "--verbose", "-v"], &[]),
    (&["--offline"], &[]),
    (&["--log-prefix"], &["--no-log-prefix"]),
    (&["--log-timestamps"], &["--no-log-timestamps"]),
    (&["--ignore-eos"], &[]),
    (&["--backend-sampling", "-bs"], &[]),
    (&["--cpu-moe-draft", "--spec-draft-cpu-moe", "-cmoed"], &[]),
    (&["--spec-draft-backend-sampling"], &["--no-spec-draft-backend-sampling"]),
    (&["--kv-unified", "-kvu"], &["--no-kv-unified", "-no-kvu"]),
    (&["--cache-idle-slots"], &["--no-cache-idle-slots"]),
    (&["--context-shift"], &["--no-context-shift"]),
    (&["--special", "-sp"], &[]),
    (&["--warmup"], &["--no-warmup"]),
    (&["--spm-infill"], &[]),
    (&["--cont-batching", "-cb"], &["--no-cont-batching", "-nocb"]),
    (&["--mmproj-auto"], &["--no-mmproj-auto", "--no-mmproj"]),
    (&["--mmproj-offload"], &["--no-mmproj-offload"]),
    (&["--reuse-port"], &[]),
    (&["--cors-credentials"], &["--no-cors-credentials"]),
    (&["--webui-mcp-proxy", "--ui-mcp-proxy"], &["--no-webui-mcp-proxy", "--no-ui-mcp-proxy"]),
    (&["--agent", "-ag"], &["--no-agent", "-no-ag"]),
    (&["--webui", "--ui"], &["--no-webui", "--no-ui"]),
    (&["--embeddings", "--embedding"], &[]),
    (&["--reranking", "--rerank"], &[]),
    (&["--cache-prompt"], &["--no-cache-prompt"]),
    (&["--metrics"], &[]),
    (&["--props"], &[]),
    (&["--slots"], &["--no-slots"]),
    (&["--models-autoload"], &["--no-models-autoload"]),
    (&["--jinja"], &["--no-jinja"]),
    (&["--reasoning-preserve"], &["--no-reasoning-preserve"]),
    (&["--skip-chat-parsing"], &["--no-skip-chat-parsing"]),
    (&["--prefill-assistant"], &["--no-prefill-assistant"]),
    (&["--lora-init-without-apply"], &[]),
    (&["--embd-gemma-default"], &[]),
    (&["--fim-qwen-1.5b-default"], &[]),
    (&["--fim-qwen-3b-default"], &[]),
    (&["--fim-qwen-7b-default"], &[]),
    (&["--fim-qwen-7b-spec"], &[]),
    (&["--fim-qwen-14b-spec"], &[]),
    (&["--fim-qwen-30b-default"], &[]),
    (&["--gpt-oss-20b-default"], &[]),
    (&["--gpt-oss-120b-default"], &[]),
    (&["--vision-gemma-4b-default"], &[]),
    (&["--vision-gemma-12b-default"], &[]),
    (&["--spec-default"], &[]),
    (&["--mmap"], &["--no-mmap"]),
    (&["--mlock"], &[]),
    (&["--direct-io", "-dio"], &["--no-direct-io", "-ndio"]),
];

/// Options with a value and several names, the main one first.
const SYNONYMS: &[&[&str]] = &[
    &["--alias", "-a"],
    &["--batch-size", "-b"],
    &["--cache-ram", "-cram"],
    &["--cache-type-k", "-ctk"],
    &["--cache-type-k-draft", "--spec-draft-type-k", "-ctkd"],
    &["--cache-type-v", "-ctv"],
    &["--cache-type-v-draft", "--spec-draft-type-v", "-ctvd"],
    &["--checkpoint-min-step", "-cms"],
    &["--cpu-mask", "-C"],
    &["--cpu-mask-batch", "-Cb"],
    &["--cpu-mask-batch-draft", "--spec-draft-cpu-mask-batch", "-Cbd"],
    &["--cpu-mask-draft", "--spec-draft-cpu-mask", "-Cd"],
    &["--cpu-range", "-Cr"],
    &["--cpu-range-batch", "-Crb"],
    &["--cpu-range-draft", "--spec-draft-cpu-range", "-Crd"],
    &["--cpu-strict-batch-draft", "--spec-draft-cpu-strict-batch"],
    &["--cpu-strict-draft", "--spec-draft-cpu-strict"],
    &["--ctx-size", "-c"],
    &["--defrag-thold", "-dt"],
    &["--device", "-dev"],
    &["--device-draft", "--spec-draft-device", "-devd"],
    &["--docker-repo", "-dr"],
    &["--draft-max", "--draft", "--draft-n"],
    &["--draft-n-min", "--draft-min"],
    &["--draft-p-min", "--spec-draft-p-min"],
    &["--draft-p-split", "--spec-draft-p-split"],
    &["--fit", "-fit"],
    &["--fit-ctx", "-fitc"],
    &["--fit-target", "-fitt"],
    &["--flash-attn", "-fa"],
    &["--hf-file", "-hff"],
    &["--hf-repo", "-hf", "-hfr"],
    &["--hf-repo-draft", "--spec-draft-hf", "-hfd", "-hfrd"],
    &["--hf-token", "-hft"],
    &["--json-schema", "-j"],
    &["--json-schema-file", "-jf"],
    &["--lazy-mode", "-lzm"],
    &["--load-mode", "-lm"],
    &["--log-verbosity", "--verbosity", "-lv"],
    &["--logit-bias", "-l"],
    &["--lookup-cache-dynamic", "-lcd"],
    &["--lookup-cache-static", "-lcs"],
    &["--main-gpu", "-mg"],
    &["--mmproj", "-mm"],
    &["--mmproj-device", "-mmdev"],
    &["--mmproj-url", "-mmu"],
    &["--model", "-m"],
    &["--model-draft", "--spec-draft-model", "-md"],
    &["--model-url", "-mu"],
    &["--n-cpu-ffn", "-ncffn"],
    &["--n-cpu-moe", "-ncmoe"],
    &["--n-cpu-moe-draft", "--spec-draft-n-cpu-moe", "--spec-draft-ncmoe", "-ncmoed"],
    &["--n-gpu-layers", "--gpu-layers", "-ngl"],
    &["--n-gpu-layers-draft", "--spec-draft-ngl", "--gpu-layers-draft", "-ngld"],
    &["--n-predict", "--predict", "-n"],
    &["--override-tensor", "-ot"],
    &["--override-tensor-draft", "--spec-draft-override-tensor", "-otd"],
    &["--parallel", "-np"],
    &["--poll-batch-draft", "--spec-draft-poll-batch"],
    &["--poll-draft", "--spec-draft-poll"],
    &["--prio-batch-draft", "--spec-draft-prio-batch"],
    &["--prio-draft", "--spec-draft-prio"],
    &["--reasoning", "-rea"],
    &["--reverse-prompt", "-r"],
    &["--sampling-seq", "--sampler-seq"],
    &["--seed", "-s"],
    &["--slot-prompt-similarity", "-sps"],
    &["--split-mode", "-sm"],
    &["--swa-checkpoints", "--ctx-checkpoints", "-ctxcp"],
    &["--temperature", "--temp"],
    &["--tensor-split", "-ts"],
    &["--threads", "-t"],
    &["--threads-batch", "-tb"],
    &["--threads-batch-draft", "--spec-draft-threads-batch", "-tbd"],
    &["--threads-draft", "--spec-draft-threads", "-td"],
    &["--timeout", "-to"],
    &["--top-n-sigma", "--top-nsigma"],
    &["--typical-p", "--typical"],
    &["--ubatch-size", "-ub"],
    &["--webui-config", "--ui-config"],
    &["--webui-config-file", "--ui-config-file"],
];

/// Variables that are not named after their option.
const VARIABLES: &[(&str, &str)] = &[
    ("LLAMA_ARG_BATCH", "--batch-size"),
    ("LLAMA_ARG_UBATCH", "--ubatch-size"),
    ("LLAMA_ARG_ROPE_SCALING_TYPE", "--rope-scaling"),
    ("HF_TOKEN", "--hf-token"),
    ("LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_K", "--cache-type-k-draft"),
    ("LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_V", "--cache-type-v-draft"),
    ("LLAMA_ARG_SPEC_DRAFT_HF_REPO", "--hf-repo-draft"),
    ("LLAMA_ARG_CHECKPOINT_MIN_SPACING_NT", "--checkpoint-min-step"),
    ("LLAMA_ARG_N_PARALLEL", "--parallel"),
    ("MTMD_BACKEND_DEVICE", "--mmproj-device"),
    ("LLAMA_ARG_STATIC_PATH", "--path"),
    ("LLAMA_API_KEY", "--api-key"),
    ("LLAMA_ARG_ENDPOINT_METRICS", "--metrics"),
    ("LLAMA_ARG_ENDPOINT_PROPS", "--props"),
    ("LLAMA_ARG_ENDPOINT_SLOTS", "--slots"),
    ("LLAMA_ARG_THINK", "--reasoning-format"),
    ("LLAMA_ARG_THINK_BUDGET", "--reasoning-budget"),
    ("LLAMA_ARG_THINK_BUDGET_MESSAGE", "--reasoning-budget-message"),
];

/// What a word means as an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::import) struct OptionName {
    /// The main name, with dashes: the same for all names of an option.
    pub(in crate::import) main: String,
    /// Whether it has no value.
    pub(in crate::import) is_switch: bool,
    /// Whether it is a name that turns its switch off.
    pub(in crate::import) is_negated: bool,
}

impl OptionName {
    /// Returns what a word with dashes means; an unknown one is an option of its own, with values.
    pub(in crate::import) fn of_flag(flag: &str) -> Self {
        let flag = dashed(flag);
        let is_named = |names: &[&str]| names.contains(&flag.as_str());
        let switch = |(on, off): &&(&[&str], &[&str])| is_named(on) || is_named(off);
        if let Some((on, off)) = SWITCHES.iter().find(switch) {
            return Self { main: on[0].to_owned(), is_switch: true, is_negated: is_named(off) };
        }
        let main = SYNONYMS.iter().find(|names| is_named(names)).map(|names| names[0].to_owned());
        Self { main: main.unwrap_or(flag), is_switch: false, is_negated: false }
    }

    /// Returns the name that turns this switch off, if there is one.
    pub(in crate::import) fn off(&self) -> Option<&'static str> {
        let (_, off) = SWITCHES.iter().find(|(on, _)| on[0] == self.main)?;
        off.first().copied()
    }
}

/// Returns the option that a key of a preset names, with its dashes: a long or short name without them, or a variable.
pub(in crate::import) fn flag_of_key(key: &str) -> String {
    if let Some(flag) = flag_of_variable(key) {
        return flag;
    }
    let short = format!("-{key}");
    let is_short = SWITCHES.iter().any(|(on, off)| on.contains(&short.as_str()) || off.contains(&short.as_str()))
        || SYNONYMS.iter().any(|names| names.contains(&short.as_str()));
    if is_short { short } else { dashed(&format!("--{key}")) }
}

/// Returns the option that a variable of llama-server stands for.
pub(in crate::import) fn flag_of_variable(name: &str) -> Option<String> {
    if let Some((_, flag)) = VARIABLES.iter().find(|(variable, _)| *variable == name) {
        return Some((*flag).to_owned());
    }
    let rest = name.strip_prefix(VARIABLE_PREFIX)?;
    Some(format!("--{}", rest.to_ascii_lowercase().replace('_', "-")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_variables_and_negations_of_an_option_mean_the_same() {
        for (flag, main, is_switch, is_negated) in [
            ("-c", "--ctx-size", false, false),
            ("--ctx_size", "--ctx-size", false, false),
            ("-hfr", "--hf-repo", false, false),
            ("--no-jinja", "--jinja", true, true),
            ("-nkvo", "--kv-offload", true, true),
            ("--embedding", "--embeddings", true, false),
            ("--top-k", "--top-k", false, false),
        ] {
            let expected = OptionName { main: main.to_owned(), is_switch, is_negated };
            assert_eq!(OptionName::of_flag(flag), expected, "{flag}");
        }
    }

    #[test]
    fn keys_of_presets_are_names_without_dashes_or_variables() {
        for (key, flag) in [
            ("c", "-c"),
            ("ngl", "-ngl"),
            ("ctx-size", "--ctx-size"),
            ("top_k", "--top-k"),
            ("no-mmap", "--no-mmap"),
            ("LLAMA_ARG_CTX_SIZE", "--ctx-size"),
            ("LLAMA_ARG_N_PARALLEL", "--parallel"),
            ("LLAMA_ARG_NO_MMAP", "--no-mmap"),
            ("HF_TOKEN", "--hf-token"),
        ] {
            assert_eq!(flag_of_key(key), flag, "{key}");
        }
    }
}
