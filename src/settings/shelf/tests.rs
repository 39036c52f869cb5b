use crate::models::Kind;
use crate::platform::Platform;
use crate::settings::bounds::REMOTE_SLOTS;
use crate::settings::catalogue::{Catalogue, LocalSettings, ModelSettings, Start, Strategy};
use crate::settings::values::{GpuLayers, MemoryBudget, Secret};
use crate::settings::{Environment, Inputs, Resolved, resolve_text};
use std::path::PathBuf;
use std::time::Duration;

fn resolved<const N: usize>(text: &str, variables: [(&str, &str); N]) -> Result<Resolved, Vec<String>> {
    let inputs = Inputs { environment: Environment::from(variables), ..Inputs::default() };
    let platform = Platform::plain("/nowhere".as_ref());
    resolve_text(&inputs, &platform, text).map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn catalogue<const N: usize>(text: &str, variables: [(&str, &str); N]) -> Catalogue {
    resolved(text, variables).unwrap_or_else(|problems| panic!("{text}: {problems:?}")).settings.catalogue
}

/// The only model.
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
fn the_documented_example_is_three_models() {
    let resolved = resolved(EXAMPLE, [("RERANK_KEY", "sk-sesame")]).unwrap();
    let no_tier = |tier| format!("fallbacks.heavy: no model has the tier {tier}");
    assert_eq!(resolved.warnings, [no_tier("light"), no_tier("heavy")]);
    let catalogue = resolved.settings.catalogue;
    let [qwen, phi, reranker] = catalogue.models.as_slice() else { panic!("{:?}", ids(&catalogue)) };
    assert_eq!(
        (qwen.id.as_deref(), qwen.kind, qwen.tier.as_deref()),
        (Some("qwen3-4b"), Some(Kind::Chat), Some("medium"))
    );
    assert_eq!(qwen.aliases, ["gpt-4o-mini"]);
    let qwen_local = local(qwen);
    assert_eq!(qwen_local.start, Start::Named("Qwen3-4B-Q4_K_M.gguf".into()));
    assert_eq!((qwen_local.slots, qwen_local.replicas, qwen_local.preload, qwen_local.pinned), (4, 1, true, false));
    assert_eq!((qwen_local.engine.ctx.0, qwen_local.engine.parallel.get()), (8192, 4));
    assert_eq!(qwen_local.engine.extra_args.0, ["--flash-attn", "on"]);
    assert_eq!(qwen_local.engine.idle_unload.duration(), Some(Duration::from_secs(600)));
    let sampling: Vec<(&str, &str)> = qwen.rewrite.sampling.iter().map(|(name, json)| (&**name, &**json)).collect();
    assert_eq!(sampling, [("temperature", "0.7"), ("top_p", "0.95"), ("max_tokens", "512")]);
    assert_eq!(qwen.rewrite.strip_params, ["user"]);
    let Start::Command { argv, health, model } = &local(phi).start else { panic!() };
    assert_eq!((argv.len(), health.as_str(), model.as_deref()), (5, "/health", Some("/models/phi")));
    assert_eq!((local(phi).slots, local(phi).preload), (4, false));
    assert_eq!((reranker.kind, reranker.local.is_none()), (Some(Kind::Rerank), true));
    let remote = &reranker.remotes[0];
    assert_eq!((remote.api_base.as_str(), remote.model.as_deref()), ("http://server1:8000", None));
    assert_eq!(remote.api_key, Some(Secret("sk-sesame".into())));
    assert_eq!((remote.rpm.unwrap().get(), remote.tpm.unwrap().get(), remote.slots), (600, 100_000, REMOTE_SLOTS));
    assert_eq!((remote.weight, remote.priority), (2.0, 0));
    assert_eq!(catalogue.fallbacks["heavy"], ["medium", "light"]);
    assert_eq!(resolved.settings.routing.memory_budget, MemoryBudget::Auto);
}

const LITELLM: &str = r#"
environment_variables:
  VLLM_KEY: sk-of-file
model_list:
  - model_name: gpt-4o
    litellm_params:
      model: openai/gpt-4o
      api_key: os.environ/OPENAI_API_KEY
      rpm: 500
      order: 1
      timeout: 300
      stream_timeout: 60
    model_info: {id: first, base_model: gpt-4o, mode: chat, supports_vision: true}
  - model_name: gpt-4o
    litellm_params:
      model: hosted_vllm/Qwen/Qwen3-32B
      api_base: http://vllm:8000/v1/
      api_key: os.environ/VLLM_KEY
      max_parallel_requests: 8
      weight: 3
      order: 2
      temperature: 0.2
  - model_name: text-embedding-3-small
    litellm_params: {model: openai/text-embedding-3-small, api_key: sk-literal}
    model_info: {mode: embedding}
  - model_name: dall-e-3
    litellm_params: {model: openai/dall-e-3, api_key: x}
    model_info: {mode: image_generation}
litellm_settings:
  drop_params: true
  success_callback: [langfuse]
  fallbacks: [{gpt-4o: [small]}]
router_settings:
  routing_strategy: usage-based-routing-v2
  num_retries: 2
  timeout: 30
  allowed_fails: 3
  cooldown_time: 30
  redis_host: os.environ/REDIS_HOST
  default_max_parallel_requests: 16
  model_group_alias: {gpt-4: gpt-4o, gpt-3.5-turbo: {model: small, hidden: true}}
  enable_pre_call_checks: true
general_settings:
  master_key: sk-1234
  database_url: postgresql://u:p@h/d
models:
  small: {file: small.gguf}
"#;

#[test]
fn a_file_of_litellm_is_read_as_it_is() {
    let resolved = resolved(LITELLM, [("OPENAI_API_KEY", "sk-openai")]).unwrap();
    let catalogue = &resolved.settings.catalogue;
    assert_eq!(ids(catalogue), ["small", "gpt-4o", "text-embedding-3-small"]);
    let gpt = &catalogue.models[1];
    assert_eq!((gpt.kind, gpt.aliases.as_slice()), (Some(Kind::Chat), ["gpt-4".to_owned()].as_slice()));
    let [openai, vllm] = gpt.remotes.as_slice() else { panic!() };
    assert_eq!((openai.api_base.as_str(), openai.model.as_deref()), ("https://api.openai.com", None));
    assert_eq!((&openai.api_key, openai.priority, openai.slots), (&Some(Secret("sk-openai".into())), 1, 16));
    assert_eq!((vllm.api_base.as_str(), vllm.model.as_deref()), ("http://vllm:8000", Some("Qwen/Qwen3-32B")));
    assert_eq!((&vllm.api_key, vllm.priority, vllm.slots), (&Some(Secret("sk-of-file".into())), 2, 8));
    assert_eq!((vllm.weight, openai.weight), (3.0, 1.0));
    assert_eq!(gpt.rewrite.sampling, [("temperature".to_owned(), "0.2".to_owned())]);
    assert_eq!(catalogue.models[0].aliases, ["gpt-3.5-turbo"]);
    assert_eq!(catalogue.models[2].kind, Some(Kind::Embedding));
    assert_eq!(catalogue.fallbacks["gpt-4o"], ["small"]);
    assert_eq!(resolved.settings.routing.num_retries, 2);
    assert_eq!(resolved.settings.routing.routing_strategy, Strategy::LeastBusy);
    let warnings = resolved.warnings.join("\n");
    for part in ["usage-based-routing-v2", "general_settings", "image_generation", "litellm_params.timeout"] {
        assert!(warnings.contains(part), "{part} in {warnings}");
    }
    assert!(!warnings.contains("sk-") && !warnings.contains("u:p"), "{warnings}");
}

#[test]
fn a_models_own_lines_come_before_defaults_and_those_before_the_settings_of_all() {
    let text = "server: {ctx: 64, ngl: 1, threads: 3, hang_timeout: 9s}\n\
                defaults: {ctx: 128, ngl: 2, preload: true, sampling: {n: 1, seed: 2, stop: [x]}, strip_params: [user]}\n\
                models: {a: {file: /m/a.gguf, ctx: 256, args: '-b 512', sampling: {n: 5, seed: null}}}\n";
    let model = model(text);
    let engine = &local(&model).engine;
    assert_eq!((engine.ctx.0, engine.ngl, engine.threads), (256, GpuLayers::Count(2), 3));
    assert_eq!(engine.hang_timeout.duration(), Some(Duration::from_secs(9)));
    assert_eq!(engine.extra_args.0, ["-b", "512"]);
    assert!(local(&model).preload);
    assert_eq!(local(&model).start, Start::File(PathBuf::from("/m/a.gguf")));
    assert_eq!(model.rewrite.sampling, [("n".to_owned(), "5".to_owned()), ("stop".to_owned(), "[\"x\"]".to_owned())]);
    assert_eq!(model.rewrite.strip_params, ["user"]);
}

#[test]
fn a_model_of_the_environment_hears_the_environment_before_the_files_defaults() {
    let text = "defaults: {ctx: 128, ngl: 2}\nmodels: {b: {file: b.gguf}}\n";
    let catalogue = catalogue(text, [("MODEL_PATH", "/m/a.gguf"), ("CTX", "64")]);
    let engine = |at: usize| &local(&catalogue.models[at]).engine;
    assert_eq!((engine(0).ctx.0, engine(0).ngl), (64, GpuLayers::Count(2)));
    assert_eq!((engine(1).ctx.0, engine(1).ngl), (128, GpuLayers::Count(2)));
    assert_eq!((catalogue.models[0].id.as_deref(), local(&catalogue.models[0]).preload), (None, true));
    assert_eq!(local(&catalogue.models[0]).start, Start::File(PathBuf::from("/m/a.gguf")));
}

#[test]
fn without_parallel_the_slots_are_what_may_be_in_flight() {
    let text = "server: {max_concurrent_requests: 2, parallel: 6}\nmodels: {a: {file: a}}\n";
    let a = model(text);
    assert_eq!((local(&a).slots, local(&a).engine.parallel.get()), (2, 6));
    let a = model("server: {max_concurrent_requests: 2}\nmodels: {a: {file: a, parallel: 5}}\n");
    assert_eq!((local(&a).slots, local(&a).engine.parallel.get()), (5, 5));
}

#[test]
fn models_stay_in_the_order_in_which_they_are_written() {
    let text = "models: {z: {file: z}, a: {file: a}, m: {file: m}}\n\
                model_list: [{model_name: y, litellm_params: {api_base: 'http://y'}}, {model_name: b, litellm_params: {api_base: 'http://b'}}]\n";
    let variables = [("MODEL_NAME", "own.gguf"), ("HEAVY_MODEL_PATH", "h.gguf"), ("LIGHT_MODEL_PATH", "l.gguf")];
    assert_eq!(ids(&catalogue(text, variables)), ["own", "l", "h", "z", "a", "m", "y", "b"]);
}

#[test]
fn an_entry_without_an_address_is_the_local_model_of_that_name() {
    let text = "models: {a: {file: a}}\n\
                model_list:\n\
                - {model_name: a, litellm_params: {model: a}, weight: 4, priority: 3}\n\
                - {model_name: gpt, litellm_params: {model: openai/a}}\n\
                - {model_name: gpt, litellm_params: {api_base: 'http://h'}}\n\
                - {model_name: a, litellm_params: {model: openai/big, api_base: 'http://i'}}\n";
    let a = model(text);
    assert_eq!((local(&a).weight, local(&a).priority), (4.0, 3));
    assert_eq!(a.aliases, ["gpt"]);
    let asked: Vec<_> = a.remotes.iter().map(|remote| (&*remote.api_base, remote.model.as_deref())).collect();
    assert_eq!(asked, [("http://h", Some("gpt")), ("http://i", Some("big"))]);
}

#[test]
fn a_model_of_the_file_may_have_remote_backends_alone() {
    let text = "models: {r: {tier: reranker, aliases: [rank]}}\n\
                model_list: [{model_name: r, litellm_params: {api_base: 'http://h'}, health: /ok}]\n";
    let r = model(text);
    assert_eq!((r.local.is_none(), r.kind, r.remotes[0].health.as_str()), (true, Some(Kind::Rerank), "/ok"));
}

#[test]
fn every_problem_is_said_with_its_place() {
    let long = "x".repeat(300);
    for (text, parts) in [
        ("models: {q: {file: a, ctx: lots}}", &["models.q.ctx: expected a number of tokens", "found \"lots\""][..]),
        ("models: {q: {}}", &["models.q: nobody serves this model", "file: NAME.gguf"]),
        ("models: {q: {file: a, command: [x, '{port}']}}", &["models.q: has both file and command"]),
        ("models: {q: {command: [x, y]}}", &["models.q.command: has no {port}", "127.0.0.1"]),
        ("models: {q: {command: ['{port}']}}", &["models.q.command: has no {port}"]),
        ("models: {q: {command: []}}", &["models.q.command: expected a list of words"]),
        ("models: {q: {command: 'x {port}', ngl: 3}}", &["models.q.ngl: is llama-server's"]),
        ("models: {q: {command: 'x {port}', health: ok}}", &["models.q.health: expected a path"]),
        (
            "models: {q: {command: 'x {port}', served_model_name: ''}}",
            &["models.q.served_model_name: the name of a model has 1 to"],
        ),
        (
            "models: {q: {file: a, served_model_name: b}}",
            &["models.q.served_model_name: llama-server is not asked by name", "aliases"],
        ),
        ("defaults: {served_model_name: a}", &["defaults.served_model_name: belongs to a single model"]),
        ("models: {q: {file: a, health: /x}}", &["models.q.health: llama-server is always asked at /health"]),
        ("models: {q: {file: a, args: [--port, '1']}}", &["models.q.args: expected", "set PORT for the gateway"]),
        ("models: {q: {file: a, args: '--host=x'}}", &["models.q.args: expected", "without --host"]),
        ("models: {q: {file: a, kind: talk}}", &["models.q.kind: expected chat, embedding or rerank"]),
        ("models: {q: {file: a, strategy: best}}", &["models.q.strategy: expected least-busy"]),
        ("models: {q: {file: a, replicas: 0}}", &["models.q.replicas: expected a whole number from 1"]),
        ("models: {q: {file: a, replicas: 65}}", &["models.q.replicas: expected 64 at most"]),
        ("models: {q: {file: a, weight: 0}}", &["models.q.weight: expected a number above 0"]),
        ("models: {q: {file: a, memory: 5G}}", &["models.q.memory: expected a size above 0"]),
        ("models: {q: {file: a, tier: a/b}}", &["models.q.tier: the name of a tier has no slash"]),
        ("models: {q: {file: a, sampling: {stream: true}}}", &["models.q.sampling: \"stream\" has no default"]),
        ("models: {q: {file: a, strip_params: [model]}}", &["models.q.strip_params: \"model\" cannot be removed"]),
        ("models: {q: {file: a, aliases: [1]}}", &["models.q.aliases: expected a list of texts", "quotes"]),
        ("models: {q: {file: a, parallel: 1000000}}", &["models.q: ctx: 16384 tokens for each of 1000000 slots"]),
        ("models: {' q': {file: a}}", &["models. q: the name of a model has no control characters"]),
        ("models: {q: {file: a, aliases: [\"a\\tb\"]}}", &["models.q: alias \"a\\tb\": the name of a model"]),
        (&format!("models: {{{long}: {{file: a}}}}"), &["the name of a model has 1 to 256 bytes"]),
        (
            "models: {q: {file: a, aliases: [r]}, r: {file: b}}",
            &["models.q: the alias \"r\" is a name of models.r too"],
        ),
        (
            "models: {q: {file: a, aliases: [x]}, r: {file: b, aliases: [x]}}",
            &["models.r: the alias \"x\" is a name of models.q"],
        ),
        ("defaults: {file: a}", &["defaults.file: belongs to a single model"]),
        ("defaults: {ctx: 1}", &["defaults.ctx: expected a number of tokens from 32"]),
        ("models: {q: {file: a}}\nfallbacks: {q: [r]}", &["fallbacks.q: there is no model and no tier \"r\""]),
        (
            "models: {qwen: {file: a}}\nfallbacks: {qwne: [qwen]}",
            &["fallbacks.qwne: there is no", "did you mean qwen?"],
        ),
        ("models: {q: {file: a}}\nfallbacks: {q: [q]}", &["fallbacks.q: names itself"]),
        (
            "router_settings: {model_group_alias: {a: b}}",
            &["router_settings.model_group_alias.a: there is no model \"b\""],
        ),
        ("model_list: [{litellm_params: {api_base: 'http://a'}}]", &["model_list[0].model_name: is missing"]),
        (
            "models: {a: {}}\nmodel_list: [{model_name: a, litellm_params: {model: b}}]",
            &["model_list[0].litellm_params.api_base: is missing"],
        ),
        (
            "model_list: [{model_name: a, litellm_params: {model: b}}]",
            &["model_list[0].litellm_params.api_base: is missing"],
        ),
        (
            "model_list: [{model_name: a, litellm_params: {model: openai/b}}]",
            &["litellm_params.api_key: is missing", "OPENAI_API_KEY"],
        ),
        (
            "model_list: [{model_name: a, litellm_params: {api_base: 'ftp://a'}}]",
            &["litellm_params.api_base: expected a URL"],
        ),
        (
            "model_list: [{model_name: a, litellm_params: {api_base: os.environ/NOT}}]",
            &["the environment variable NOT is not set"],
        ),
        (
            "model_list: [{model_name: a, litellm_params: {api_base: 'http://a', api_key: os.environ/NOT}}]",
            &["litellm_params.api_key: the environment variable NOT is not set"],
        ),
        (
            "model_list: [{model_name: a, litellm_params: {api_base: 'http://a', api_key: ''}}]",
            &["litellm_params.api_key: expected 1 to"],
        ),
        (
            "model_list: [{model_name: a, litellm_params: {api_base: 'http://a', model: azure/x}}]",
            &["azure speaks an API of its own"],
        ),
        (
            "model_list: [{model_name: a, litellm_params: {api_base: 'http://a', rpm: many}}]",
            &["litellm_params.rpm: expected a whole number from 1"],
        ),
        (
            "model_list: [{model_name: '*', litellm_params: {api_base: 'http://a'}}]",
            &["model_list[0].model_name: patterns are not supported"],
        ),
        (
            "model_list: [{model_name: a, litellm_params: {api_base: 'http://a'}, model_info: {mode: talk}}]",
            &["model_info.mode: expected chat"],
        ),
    ] {
        let problems = resolved(text, []).map(|resolved| resolved.settings.catalogue).expect_err(text);
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        for part in parts {
            assert!(problems[0].contains(part), "{part} in {problems:?}");
        }
    }
}

#[test]
fn problems_of_settings_files_and_tiers_come_together() {
    let text = "server: {port: x}\nmodels: {q: {file: a, ctx: x}}\nnonsense: 1\n";
    let problems = resolved(text, [("HEAVY_MODEL_PATH", "h"), ("HEAVY_N_CTX", "x")]).map(drop).unwrap_err();
    assert_eq!(problems.len(), 4, "{problems:?}");
}

#[test]
fn a_key_is_never_quoted() {
    let text =
        "model_list: [{model_name: a, litellm_params: {api_base: 'http://u:sesame@h', api_key: 'sesame\\u00e4'}}]\n";
    let text = text.replace("'sesame\\u00e4'", "\"sesame\\u00e4\"");
    let problems = resolved(&text, [("LIGHT_BACKEND", "http://u:sesame@h")]).map(drop).unwrap_err().join("\n");
    assert!(problems.contains("api_key") && problems.contains("LIGHT_BACKEND"), "{problems}");
    assert!(!problems.contains("sesame"), "{problems}");
}

#[test]
fn tiers_come_from_the_environment() {
    let catalogue = catalogue(
        "",
        [
            ("LIGHT_MODEL_PATH", "/m/Light-00001-of-00002.gguf"),
            ("LIGHT_BACKEND", "llama_cpp"),
            ("LIGHT_N_CTX", "4096"),
            ("LIGHT_N_BATCH", "512"),
            ("LIGHT_N_THREADS", "3"),
            ("LIGHT_N_GPU_LAYERS", "-1"),
            ("LIGHT_TEMPERATURE", "0.5"),
            ("LIGHT_TOP_P", ".9"),
            ("LIGHT_TOP_K", "40"),
            ("LIGHT_MAX_TOKENS", "256"),
            ("LIGHT_REPEAT_PENALTY", "1.1"),
            ("LIGHT_USE_MMAP", "false"),
            ("LIGHT_USE_MLOCK", "true"),
            ("EMBEDDING_MODEL_PATH", "e.gguf"),
            ("RERANKER_BACKEND", "http://server1:8000/v1"),
            ("EXTRA_ARGS", "--jinja"),
        ],
    );
    let [light, embedding, reranker] = catalogue.models.as_slice() else { panic!("{:?}", ids(&catalogue)) };
    assert_eq!((light.id.as_deref(), light.tier.as_deref(), light.kind), (Some("Light"), Some("light"), None));
    let engine = &local(light).engine;
    assert_eq!((engine.ctx.0, engine.threads, engine.ngl), (4096, 3, GpuLayers::Count(999)));
    assert_eq!(engine.extra_args.0, ["--jinja", "-b", "512", "--no-mmap", "--mlock"]);
    let sampling: Vec<String> = light.rewrite.sampling.iter().map(|(name, json)| format!("{name}={json}")).collect();
    assert_eq!(sampling, ["temperature=0.5", "top_p=0.9", "top_k=40", "max_tokens=256", "repeat_penalty=1.1"]);
    assert_eq!((embedding.tier.as_deref(), embedding.kind), (Some("embedding"), None), "the GGUF decides");
    assert_eq!(local(embedding).start, Start::Named("e.gguf".into()));
    assert_eq!((reranker.id.as_deref(), reranker.kind), (Some("reranker"), Some(Kind::Rerank)));
    assert_eq!(reranker.remotes[0].api_base, "http://server1:8000");
}

#[test]
fn variables_of_a_tier_without_a_model_are_warned_of() {
    let resolved = resolved(
        "",
        [("HEAVY_N_CTX", "64"), ("HEAVY_BACKEND", "llama_cpp"), ("LIGHT_BACKEND", "http://h"), ("LIGHT_N_CTX", "64")],
    );
    let warnings = resolved.unwrap().warnings;
    assert_eq!(
        warnings,
        [
            "LIGHT_N_CTX has no effect on a remote backend",
            "HEAVY_N_CTX has no effect without HEAVY_MODEL_PATH",
            "HEAVY_BACKEND has no effect without HEAVY_MODEL_PATH",
        ]
    );
}

#[test]
fn bad_variables_of_a_tier_are_problems() {
    for (variable, value) in [
        ("LIGHT_BACKEND", "vllm"),
        ("LIGHT_N_CTX", "1"),
        ("LIGHT_N_BATCH", "0"),
        ("LIGHT_USE_MMAP", "perhaps"),
        ("LIGHT_TEMPERATURE", "hot"),
        ("LIGHT_N_GPU_LAYERS", "-2"),
        ("LIGHT_TOP_P", "NaN"),
    ] {
        let problems = resolved("", [("LIGHT_MODEL_PATH", "a.gguf"), (variable, value)]).map(drop).expect_err(variable);
        assert!(problems.len() == 1 && problems[0].starts_with(&format!("{variable}=\"{value}\"")), "{problems:?}");
    }
    let twice = [("LIGHT_MODEL_PATH", "a.gguf"), ("HEAVY_MODEL_PATH", "a.gguf")];
    let problems = resolved("", twice).map(drop).unwrap_err();
    assert!(problems[0].starts_with("HEAVY_MODEL_PATH: the id \"a\" is that of LIGHT_MODEL_PATH too"), "{problems:?}");
}

#[test]
fn nothing_configured_is_an_empty_catalogue() {
    assert_eq!(catalogue("", []), Catalogue::default());
}

#[test]
fn soft_changes_leave_workers_alone() {
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
