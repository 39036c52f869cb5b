mod litellm;
mod problems;
mod tiers;

use std::path::PathBuf;
use std::time::Duration;

use crate::models::ModelKind;
use crate::platform::Platform;
use crate::settings::bounds::{PROMPT_LENGTH, REMOTE_SLOTS};
use crate::settings::catalogue::{Catalogue, LoadMode, LocalSettings, ModelSettings, ProjectorSetting, Start};
use crate::settings::values::{Dimensions, GpuLayers, MemoryBudgetSetting, Secret, Strategy};
use crate::settings::{Environment, Inputs, Resolved, resolve_text};

fn resolved<const N: usize>(text: &str, variables: [(&str, &str); N]) -> Result<Resolved, Vec<String>> {
    let inputs = Inputs { environment: Environment::from(variables), ..Inputs::default() };
    let platform = Platform::plain("/nowhere".as_ref());
    resolve_text(&inputs, &platform, text).map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn catalogue<const N: usize>(text: &str, variables: [(&str, &str); N]) -> Catalogue {
    resolved(text, variables).unwrap_or_else(|problems| panic!("{text}: {problems:?}")).config.catalogue
}

/// Returns the only model of a configuration.
fn model(text: &str) -> ModelSettings {
    let mut models = catalogue(text, []).models;
    assert_eq!(models.len(), 1, "{models:?}");
    models.remove(0)
}

fn local(model: &ModelSettings) -> &LocalSettings {
    model.local.as_ref().unwrap()
}

fn ids(catalogue: &Catalogue) -> Vec<String> {
    catalogue.models.iter().map(|model| model.known_id().unwrap()).collect()
}

const EXAMPLE: &str = r#"
server:
  max_concurrent_requests: 4
defaults:
  ctx: 16384
  ngl: 99
memory_budget: auto
models:
  qwen3-4b:
    file: Qwen3-4B-Q4_K_M.gguf
    kind: chat
    tier: medium
    aliases: [gpt-4o-mini]
    replicas: 1
    parallel: 4
    ctx: 8192
    args: ["--flash-attn", "on"]
    preload: true
    ttl: 10m
    pinned: false
    sampling: {temperature: 0.7, top_p: 0.95, max_tokens: 512}
    strip_params: [user]
    unlisted: false
  mlx-phi:
    command: ["mlx_lm.server", "--model", "/models/phi", "--port", "{port}"]
    health: /health
    served_model_name: /models/phi
model_list:
  - model_name: reranker
    litellm_params: {api_base: "http://server1:8000", api_key: os.environ/RERANK_KEY, rpm: 600, tpm: 100000}
    weight: 2.0
    priority: 0
router_settings:
  routing_strategy: least-busy
  num_retries: 3
  retry_delay: 1.0
  fallback_to_local: true
  health_check_interval: 60
  allowed_fails: 3
  cooldown_time: 30
fallbacks: {heavy: [medium, light]}
"#;

#[test]
fn the_documented_example_gives_three_models() {
    let resolved = resolved(EXAMPLE, [("RERANK_KEY", "sk-sesame")]).unwrap();
    let no_tier = |tier| format!("fallbacks.heavy: no model has the tier {tier}");
    assert_eq!(resolved.warnings, [no_tier("light"), no_tier("heavy")]);
    let catalogue = resolved.config.catalogue;
    let [qwen, phi, reranker] = catalogue.models.as_slice() else { panic!("{:?}", ids(&catalogue)) };
    assert_eq!(
        (qwen.id.as_deref(), qwen.kind, qwen.tier.as_deref()),
        (Some("qwen3-4b"), Some(ModelKind::Chat), Some("medium"))
    );
    assert_eq!(qwen.aliases, ["gpt-4o-mini"]);
    let qwen_local = local(qwen);
    assert_eq!(qwen_local.start, Start::Named("Qwen3-4B-Q4_K_M.gguf".into()));
    assert_eq!((qwen_local.slots, qwen_local.replicas, qwen_local.preload, qwen_local.pinned), (4, 1, true, false));
    assert_eq!((qwen_local.engine.ctx.0, qwen_local.engine.parallel.get()), (8192, 4));
    assert_eq!(qwen_local.engine.extra_args.words, ["--flash-attn", "on"]);
    assert_eq!(qwen_local.engine.idle_unload.duration(), Some(Duration::from_secs(600)));
    let sampling: Vec<(&str, &str)> = qwen.rewrite.sampling.iter().map(|(name, json)| (&**name, &**json)).collect();
    assert_eq!(sampling, [("temperature", "0.7"), ("top_p", "0.95"), ("max_tokens", "512")]);
    assert_eq!(qwen.rewrite.strip_params, ["user"]);
    let Start::Command { argv, health, model } = &local(phi).start else { panic!() };
    assert_eq!((argv.len(), health.as_str(), model.as_deref()), (5, "/health", Some("/models/phi")));
    assert_eq!((local(phi).slots, local(phi).preload), (4, false));
    assert_eq!((reranker.kind, reranker.local.is_none()), (Some(ModelKind::Rerank), true));
    let remote = &reranker.remotes[0];
    assert_eq!((remote.api_base.as_str(), remote.model.as_deref()), ("http://server1:8000/v1", None));
    assert_eq!(remote.api_key, Some(Secret("sk-sesame".into())));
    assert_eq!((remote.rpm.unwrap().get(), remote.tpm.unwrap().get(), remote.slots), (600, 100_000, REMOTE_SLOTS));
    assert_eq!((remote.weight, remote.priority), (2.0, 0));
    assert_eq!(catalogue.fallbacks["heavy"], ["medium", "light"]);
    assert_eq!(resolved.config.settings.routing.memory_budget, MemoryBudgetSetting::Auto);
}

#[test]
fn a_models_own_keys_override_defaults_and_defaults_override_server_settings() {
    let text = "server: {ctx: 64, ngl: 1, threads: 3, hang_timeout: 9s}\n\
                defaults: {ctx: 128, ngl: 2, preload: true, sampling: {n: 1, seed: 2, stop: [x]}, strip_params: [user]}\n\
                models: {a: {file: /m/a.gguf, ctx: 256, args: '-b 512', sampling: {n: 5, seed: null}}}\n";
    let model = model(text);
    let engine = &local(&model).engine;
    assert_eq!((engine.ctx.0, engine.ngl, engine.threads), (256, GpuLayers::Count(2), 3));
    assert_eq!(engine.hang_timeout.duration(), Some(Duration::from_secs(9)));
    assert_eq!(engine.extra_args.words, ["-b", "512"]);
    assert!(local(&model).preload);
    assert_eq!(local(&model).start, Start::File(PathBuf::from("/m/a.gguf")));
    assert_eq!(model.rewrite.sampling, [("n".to_owned(), "5".to_owned()), ("stop".to_owned(), "[\"x\"]".to_owned())]);
    assert_eq!(model.rewrite.strip_params, ["user"]);
}

#[test]
fn environment_variables_override_file_defaults_for_a_model_of_the_environment() {
    let text = "defaults: {ctx: 128, ngl: 2}\nmodels: {b: {file: b.gguf}}\n";
    let catalogue = catalogue(text, [("MODEL_PATH", "/m/a.gguf"), ("CTX", "64")]);
    let engine = |at: usize| &local(&catalogue.models[at]).engine;
    assert_eq!((engine(0).ctx.0, engine(0).ngl), (64, GpuLayers::Count(2)));
    assert_eq!((engine(1).ctx.0, engine(1).ngl), (128, GpuLayers::Count(2)));
    assert_eq!((catalogue.models[0].id.as_deref(), local(&catalogue.models[0]).preload), (None, true));
    assert_eq!(local(&catalogue.models[0]).start, Start::File(PathBuf::from("/m/a.gguf")));
}

#[test]
fn slots_follow_max_concurrent_requests_unless_a_model_sets_parallel() {
    let text = "server: {max_concurrent_requests: 2, parallel: 6}\nmodels: {a: {file: a}}\n";
    let a = model(text);
    assert_eq!((local(&a).slots, local(&a).engine.parallel.get()), (2, 6));
    let a = model("server: {max_concurrent_requests: 2}\nmodels: {a: {file: a, parallel: 5}}\n");
    assert_eq!((local(&a).slots, local(&a).engine.parallel.get()), (5, 5));
}

#[test]
fn models_keep_the_order_of_their_sources() {
    let text = "models: {z: {file: z}, a: {file: a}, m: {file: m}}\n\
                model_list: [{model_name: y, litellm_params: {api_base: 'http://y'}}, {model_name: b, litellm_params: {api_base: 'http://b'}}]\n";
    let variables = [("MODEL_NAME", "own.gguf"), ("HEAVY_MODEL_PATH", "h.gguf"), ("LIGHT_MODEL_PATH", "l.gguf")];
    assert_eq!(ids(&catalogue(text, variables)), ["own", "l", "h", "z", "a", "m", "y", "b"]);
}

#[test]
fn an_entry_without_api_base_is_the_local_model_of_that_name() {
    let text = "models: {a: {file: a}}\n\
                model_list:\n\
                - {model_name: a, litellm_params: {model: a}, weight: 4, priority: 3}\n\
                - {model_name: gpt, litellm_params: {model: openai/a}}\n\
                - {model_name: gpt, litellm_params: {api_base: 'http://h'}}\n\
                - {model_name: a, litellm_params: {model: openai/big, api_base: 'http://i'}}\n";
    let a = model(text);
    assert_eq!((local(&a).weight, local(&a).priority), (4.0, 3));
    assert_eq!(a.aliases, ["gpt"]);
    let targets: Vec<_> = a.remotes.iter().map(|remote| (&*remote.api_base, remote.model.as_deref())).collect();
    assert_eq!(targets, [("http://h/v1", Some("gpt")), ("http://i/v1", Some("big"))]);
}

#[test]
fn a_model_of_the_file_may_have_only_remote_backends() {
    let text = "models: {r: {tier: reranker, aliases: [rank]}}\n\
                model_list: [{model_name: r, litellm_params: {api_base: 'http://h'}, health: /ok}]\n";
    let r = model(text);
    assert_eq!((r.local.is_none(), r.kind, r.remotes[0].health.as_str()), (true, Some(ModelKind::Rerank), "/ok"));
}

#[test]
fn an_empty_configuration_names_no_model_and_leaves_the_folder() {
    let found = catalogue("", []);
    let shelf = found.shelf.clone().unwrap();
    assert_eq!(found, Catalogue { shelf: Some(shelf.clone()), ..Catalogue::default() });
    let local = shelf.local.unwrap();
    assert_eq!((shelf.id, local.preload, local.projector), (None, false, ProjectorSetting::Auto));
    assert_eq!(catalogue("server: {serve_models_dir: false}", []), Catalogue::default());
    assert!(catalogue("models: {}", []).shelf.is_none(), "an empty list of models names none on purpose");
    let defaults = catalogue("defaults: {ctx: 96, preload: true, sampling: {top_k: 5}}", [("NGL", "7")]).shelf.unwrap();
    let local = defaults.local.unwrap();
    assert_eq!((local.engine.ctx.0, local.preload, local.engine.ngl), (96, true, GpuLayers::Count(7)));
    assert_eq!(defaults.rewrite.sampling, [("top_k".to_owned(), "5".to_owned())]);
}

#[test]
fn names_of_models_that_only_the_folder_has_were_refused() {
    let names = "fallbacks: {one: [two], '*': [two]}\ndefault_models: {chat: one}\n";
    let found = catalogue(names, []);
    assert_eq!((found.fallbacks.len(), found.default_models.len(), found.models.len()), (2, 1, 0));
    let beside = format!("server: {{serve_models_dir: true}}\nmodels: {{m: {{file: m.gguf}}}}\n{names}");
    assert_eq!(catalogue(&beside, []).default_models, [(ModelKind::Chat, "one".to_owned())]);
    let without = format!("models: {{m: {{file: m.gguf}}}}\n{names}");
    assert_eq!(resolved(&without, []).map(|_| ()).unwrap_err().len(), 4);
    // Its models have names already.
    let problems = resolved("", [("EXTRA_ARGS", "--alias mine")]).map(|_| ()).unwrap_err();
    assert!(problems[0].contains("EXTRA_ARGS: --alias") && problems[0].contains("MODELS_DIR"), "{problems:?}");
    let named = catalogue("", [("EXTRA_ARGS", "--alias mine"), ("MODEL_NAME", "m"), ("SERVE_MODELS_DIR", "true")]);
    assert_eq!((named.models[0].id.as_deref(), named.shelf.is_some()), (Some("mine"), true));
}

#[test]
fn workers_differ_only_for_changes_that_need_new_workers() {
    let base = "models: {a: {file: a, ctx: 64}}\n";
    for (changed, differ) in [
        ("models: {a: {file: a, ctx: 64, aliases: [b], tier: t, unlisted: true, strategy: round-robin}}\n", false),
        ("models: {a: {file: a, ctx: 64, sampling: {n: 1}, strip_params: [user], preload: true}}\n", false),
        ("models: {a: {file: b, ctx: 64}}\n", true),
        ("models: {a: {file: a, ctx: 96}}\n", true),
        ("models: {a: {file: a, ctx: 64, replicas: 2}}\n", true),
        ("models: {a: {file: a, ctx: 64, kind: rerank}}\n", true),
        ("models: {b: {file: a, ctx: 64}}\n", true),
        (
            "models: {a: {file: a, ctx: 64}}\nmodel_list: [{model_name: a, litellm_params: {api_base: 'http://a'}}]\n",
            true,
        ),
        ("models: {a: {}}\nmodel_list: [{model_name: a, litellm_params: {api_base: 'http://a'}}]\n", true),
    ] {
        let (before, after) = (model(base), model(changed));
        assert_ne!(before, after, "{changed}");
        assert_eq!(before.workers_differ(&after), differ, "{changed}");
        assert_eq!(after.workers_differ(&before), differ, "{changed}");
    }
}

#[test]
fn a_reranker_has_an_instruction_of_bounded_length_and_a_change_of_it_restarts_nothing() {
    let reranker = |text: &str| model(&format!("models: {{r: {{file: r.gguf{text}}}}}"));
    let (without, with) = (reranker(""), reranker(", instruction: Find it"));
    assert_eq!((without.instruction.as_deref(), with.instruction.as_deref()), (None, Some("Find it")));
    assert!(!without.workers_differ(&with));
    let long = |length: usize| reranker(&format!(", instruction: {}", "x".repeat(length))).instruction;
    assert_eq!(long(PROMPT_LENGTH).map(|text| text.len()), Some(PROMPT_LENGTH));
}

#[test]
fn a_model_has_lengths_of_vectors_and_prompts() {
    let embedder = |keys: &str| {
        let ModelSettings { dimensions, prompts, .. } = model(&format!("models: {{e: {{file: e.gguf{keys}}}}}"));
        (dimensions, prompts)
    };
    let lengths = |lengths: &[u32]| lengths.iter().map(|length| (*length).try_into().unwrap()).collect();
    assert_eq!(embedder(""), (None, None));
    assert_eq!(embedder(", dimensions: 8").0, Some(Dimensions::Default(8.try_into().unwrap())));
    assert_eq!(embedder(", dimensions: [8, 16]").0, Some(Dimensions::Only(lengths(&[8, 16]))));
    assert_eq!(embedder(", prompts: {}").1, Some(Vec::new()));
    let query = ("query".to_owned(), "q: ".to_owned());
    assert_eq!(embedder(", prompts: {query: 'q: '}").1, Some(vec![query]));
}
