//! Tests of the names of other servers: what is read, what wins, and what is said.

use std::collections::BTreeSet;
use std::path::Path;

use super::super::aliases::{ALIASES, AliasTarget};
use super::*;
use crate::models::ModelKind;
use crate::platform::Platform;
use crate::settings::catalogue::{ModelSettings, Start};
use crate::settings::options::row;
use crate::settings::values::{Dimensions, GpuLayers, LogLevel};
use crate::settings::{Inputs, Resolved, resolve, resolve_text};

fn resolved_with(text: &str, variables: &[(&str, &str)]) -> Result<Resolved, Vec<String>> {
    let inputs = Inputs { environment: variables.iter().copied().collect(), ..Inputs::default() };
    let resolved = resolve_text(&inputs, &Platform::plain(Path::new("/nowhere")), text);
    resolved.map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn resolved_names(variables: &[(&str, &str)]) -> Resolved {
    resolved_with("", variables).unwrap_or_else(|problems| panic!("{variables:?}: {problems:?}"))
}

/// Returns text and source of a setting, as `check` prints them.
fn shown(resolved: &Resolved, variable: &str) -> String {
    let key = variable.to_ascii_lowercase();
    let (_, text, source) = resolved.rows.iter().find(|row| row.0 == key).unwrap();
    format!("{text} ({source})")
}

fn only_model(resolved: &Resolved) -> &ModelSettings {
    let [model] = resolved.config.catalogue.models.as_slice() else { panic!("one model") };
    model
}

#[test]
fn names_that_mean_the_same_were_ignored_without_a_word() {
    for (name, value, own, text) in [
        ("N_CTX", "8192", "CTX", "8192"),
        ("N_GPU_LAYERS", "-1", "NGL", "all"),
        ("N_GPU_LAYERS", "0", "NGL", "0"),
        ("N_THREADS", "4", "THREADS", "4"),
        ("N_BATCH", "512", "BATCH", "512"),
        ("MODEL_DIR", "/models", "MODELS_DIR", "/models"),
        ("VERBOSE", "True", "LOG_LEVEL", "debug"),
        ("GATEWAY_PORT", "9", "PORT", "9"),
        ("HUGGINGFACE_HUB_CACHE", "/hub", "HF_HUB_CACHE", "/hub"),
        ("RERANKER_HOST", "127.0.0.1", "HOST", "127.0.0.1"),
        ("RERANKER_PORT", "9000", "PORT", "9000"),
        ("RERANKER_MODEL_CACHE_DIR", "./models", "HF_HUB_CACHE", "./models"),
        ("RERANKER_BATCH_SIZE", "32", "BATCH", "32"),
        ("RERANKER_DEVICE", "CPU", "NGL", "0"),
        ("RERANKER_LOG_LEVEL", "WARNING", "LOG_LEVEL", "WARNING"),
        ("RERANKER_CONFIG_PATH", "/c.yaml", "CONFIG_FILE", "/c.yaml"),
    ] {
        let resolved = resolved_names(&[(name, value)]);
        assert_eq!(shown(&resolved, own), format!("{text} (environment variable {name})"));
        let translated = if text == value { String::new() } else { format!("={text}") };
        assert_eq!(resolved.brought_names, [format!("{name} read as {own}{translated}")]);
        assert_eq!(resolved.warnings, [""; 0], "{name}");
    }
    let logs = |value| resolved_names(&[("RERANKER_LOG_LEVEL", value)]).config.settings.logs.log_level;
    assert_eq!(["INFO", "WARNING", "CRITICAL"].map(logs), [LogLevel::Info, LogLevel::Warn, LogLevel::Error]);
    let ngl = |value| resolved_names(&[("NGL", value)]).config.settings.engine.ngl;
    assert_eq!(ngl("-1"), GpuLayers::Count(999), "the own name takes it too");
}

#[test]
fn the_own_name_wins_and_a_different_value_is_named() {
    let both = resolved_names(&[("CTX", "4096"), ("N_CTX", "8192")]);
    assert_eq!(shown(&both, "CTX"), "4096 (environment variable CTX)");
    assert_eq!(
        (both.warnings.as_slice(), both.brought_names.len()),
        (&["N_CTX is ignored: CTX is set too".into()][..], 0)
    );
    let same = resolved_names(&[("NGL", "all"), ("N_GPU_LAYERS", "-1"), ("LOG_LEVEL", "debug"), ("VERBOSE", "1")]);
    assert_eq!((same.warnings.len(), same.brought_names.len()), (0, 0));
    // Of two aliases the upper one of the table wins.
    let two = resolved_names(&[("RERANKER_PORT", "2"), ("GATEWAY_PORT", "1")]);
    assert_eq!(shown(&two, "PORT"), "1 (environment variable GATEWAY_PORT)");
    assert_eq!(two.warnings, ["RERANKER_PORT is ignored: GATEWAY_PORT is set too"]);
    // An empty variable counts as unset, so the alias is read.
    assert_eq!(shown(&resolved_names(&[("CTX", ""), ("N_CTX", "64")]), "CTX"), "64 (environment variable N_CTX)");
    let mut inputs = Inputs { environment: Environment::from([("N_CTX", "64")]), ..Inputs::default() };
    inputs.flags.insert("ctx", "96".to_owned());
    assert_eq!(shown(&resolve(&inputs, &Platform::plain(Path::new("/nowhere"))).unwrap(), "CTX"), "96 (flag)");
}

#[test]
fn names_were_said_to_be_read_although_a_flag_decides() {
    let environment = Environment::from([
        ("N_CTX", "512"),
        ("RERANKER_PORT", "9000"),
        ("RERANKER_DEVICE", "cpu"),
        ("RERANKER_CONFIG_PATH", "./none.yaml"),
        ("VERBOSE", "very"),
        ("N_THREADS", "4"),
        ("MODEL_DIR", "/m"),
    ]);
    let mut inputs = Inputs { environment, ..Inputs::default() };
    let file = tempfile::NamedTempFile::new().unwrap();
    let flags = [("ctx", "1024"), ("port", "9001"), ("ngl", "3"), ("log_level", "info"), ("threads", "4")];
    inputs.flags.extend(flags.map(|(key, value)| (key, value.to_owned())));
    inputs.flags.insert("config_file", file.path().display().to_string());
    let resolved = resolve(&inputs, &Platform::plain(Path::new("/nowhere"))).unwrap();
    assert_eq!(resolved.brought_names, ["MODEL_DIR read as MODELS_DIR"]);
    let mut warnings = resolved.warnings.clone();
    warnings.retain(|warning| !warning.contains("AUTH_ENABLED"));
    assert_eq!(
        warnings,
        [
            "N_CTX is ignored: --ctx is set too",
            "VERBOSE is ignored: --log-level is set too",
            "RERANKER_PORT is ignored: --port is set too",
            "RERANKER_DEVICE is ignored: --ngl is set too",
            "RERANKER_CONFIG_PATH is ignored: --config-file is set too",
        ]
    );
}

#[test]
fn our_own_name_in_the_env_file_was_stronger_than_another_in_the_environment() {
    let mut inputs = Inputs {
        environment: Environment::from([("RERANKER_PORT", "11"), ("N_CTX", "512"), ("VERBOSE", "true")]),
        ..Inputs::default()
    };
    for (name, value) in
        [("PORT", "10"), ("CTX", "512"), ("N_CTX", "64"), ("RERANKER_LOG_LEVEL", "warn"), ("N_BATCH", "7")]
    {
        inputs.environment.add_from_file(name.to_owned(), value.to_owned());
    }
    let resolved = resolve(&inputs, &Platform::plain(Path::new("/nowhere"))).unwrap();
    assert_eq!(shown(&resolved, "PORT"), "11 (environment variable RERANKER_PORT)");
    assert_eq!(shown(&resolved, "CTX"), "512 (environment variable N_CTX)");
    assert_eq!(shown(&resolved, "LOG_LEVEL"), "debug (environment variable VERBOSE)");
    assert_eq!(shown(&resolved, "BATCH"), "7 (variable N_BATCH of ENV_FILE)");
    assert_eq!(
        resolved.warnings,
        [
            "PORT of ENV_FILE is ignored: RERANKER_PORT is set in the environment, which wins",
            "RERANKER_LOG_LEVEL is ignored: VERBOSE is set too",
        ]
    );
    // Of two aliases too.
    let mut inputs = Inputs { environment: Environment::from([("RERANKER_PORT", "11")]), ..Inputs::default() };
    inputs.environment.add_from_file("GATEWAY_PORT".to_owned(), "10".to_owned());
    let resolved = resolve(&inputs, &Platform::plain(Path::new("/nowhere"))).unwrap();
    assert_eq!(resolved.brought_names, ["RERANKER_PORT read as PORT"]);
    assert!(resolved.warnings[0].starts_with("GATEWAY_PORT of ENV_FILE is ignored"), "{:?}", resolved.warnings);
}

#[test]
fn a_value_without_an_effect_ended_the_start() {
    for (variables, warning) in [
        (&[("CACHE", "all"), ("ENABLE_CACHE", "redis")][..], "ENABLE_CACHE is ignored: CACHE is set too"),
        (&[("LOG_LEVEL", "info"), ("VERBOSE", "2")], "VERBOSE is ignored: LOG_LEVEL is set too"),
        (&[("NGL", "0"), ("RERANKER_DEVICE", "tpu")], "RERANKER_DEVICE is ignored: NGL is set too"),
        (&[("CTX", "512"), ("N_CTX", "bad")], "N_CTX is ignored: CTX is set too"),
        (&[(LOAD_BALANCER, "maybe")], "RERANKER_LOAD_BALANCER_ENABLED has no effect without a configuration file"),
    ] {
        let inputs = Inputs { environment: variables.iter().copied().collect(), ..Inputs::default() };
        let resolved = resolve(&inputs, &Platform::plain(Path::new("/nowhere"))).unwrap();
        assert!(
            resolved.warnings.len() == 1 && resolved.warnings[0].starts_with(warning),
            "{variables:?}: {:?}",
            resolved.warnings
        );
        assert_eq!(resolved.brought_names, [""; 0], "{variables:?}");
    }
}

#[test]
fn the_batch_and_the_device_of_a_reranker_were_those_of_every_chat_model() {
    let own = [("RERANKER_BATCH_SIZE", "32"), ("RERANKER_DEVICE", "cpu")];
    let reranker = [("RERANKER_MODEL_PATH", "r.gguf")];
    let engines = |text: &str, others: &[(&str, &str)]| {
        let resolved = resolved_with(text, &[&own[..], &reranker, others].concat()).unwrap();
        let engine = |model: &ModelSettings| {
            let engine = &model.local.as_ref().unwrap().engine;
            (model.known_id().unwrap(), engine.batch, engine.ngl)
        };
        let engines: Vec<_> = resolved.config.catalogue.models.iter().map(engine).collect();
        (engines, resolved.brought_names[..2].to_vec())
    };
    let (chat, rerank) = (("c".to_owned(), 0, GpuLayers::Count(99)), ("r".to_owned(), 32, GpuLayers::Count(0)));
    for (text, others) in [
        ("", &[("LIGHT_MODEL_PATH", "c.gguf")][..]),
        ("", &[("MODEL_NAME", "c.gguf")]),
        ("models: {c: {file: c.gguf}}", &[]),
    ] {
        let (mut engines, lines) = engines(text, others);
        engines.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(engines, [chat.clone(), rerank.clone()], "{text} {others:?}");
        assert!(lines.iter().any(|line| line == "RERANKER_BATCH_SIZE read as RERANKER_N_BATCH"), "{lines:?}");
    }
    let (alone, lines) = engines("", &[]);
    assert_eq!(alone, [rerank]);
    assert!(lines.contains(&"RERANKER_BATCH_SIZE read as BATCH".to_owned()), "{lines:?}");
    // Without a rerank model there is none that they could be about.
    let none = resolved_names(&[&own[..], &[("LIGHT_MODEL_PATH", "c.gguf")]].concat());
    assert_eq!(none.brought_names, [""; 0]);
    let expected = own.map(|(name, _)| format!("{name} has no effect without RERANKER_MODEL_PATH"));
    assert!(expected.iter().all(|warning| none.warnings.contains(warning)), "{:?}", none.warnings);
}

#[test]
fn default_sampling_out_of_range_was_taken() {
    for (name, bad, good) in [
        ("TEMPERATURE", &["-3", "nan", "hot"][..], &["0", "2.5"][..]),
        ("TOP_P", &["2", "-0.1"], &["0", "1", ".5"]),
        ("TOP_K", &["1.5", "-2"], &["0", "-1", "40"]),
        ("REPEAT_PENALTY", &["-1", "0"], &["1.1"]),
        ("MAX_TOKENS", &["-5", "0", "1.5"], &["1", "-1"]),
    ] {
        for name in [name.to_owned(), format!("LIGHT_{name}")] {
            let with = |value: &str| resolved_with("", &[("LIGHT_MODEL_PATH", "a.gguf"), (name.as_str(), value)]);
            for value in bad {
                let problems = with(value).map(drop).unwrap_err();
                assert!(problems.len() == 1 && problems[0].starts_with(&format!("{name}={value:?}")), "{problems:?}");
            }
            good.iter().for_each(|value| assert!(with(value).is_ok(), "{name}={value}"));
        }
    }
}

#[test]
fn a_bad_value_is_reported_with_the_name_that_was_set() {
    for (name, value, part) in [
        ("N_CTX", "lots", "N_CTX=\"lots\" (read as CTX): expected a number of tokens"),
        ("N_GPU_LAYERS", "-2", "N_GPU_LAYERS=\"-2\" (read as NGL): expected"),
        ("VERBOSE", "very", "VERBOSE=\"very\" (read as LOG_LEVEL): expected true"),
        ("TEMPERATURE", "hot", "TEMPERATURE=\"hot\" (environment variable TEMPERATURE): expected a number"),
        ("RERANKER_DEVICE", "tpu", "RERANKER_DEVICE=\"tpu\" (read as NGL): expected cuda, cpu or mps"),
        ("RERANKER_MAX_LENGTH", "1", "RERANKER_MAX_LENGTH=\"1\""),
        ("RERANKER_WORKERS", "0", "RERANKER_WORKERS=\"0\""),
        ("RERANKER_WORKERS", "65", "RERANKER_WORKERS=\"65\""),
        ("RERANKER_LOAD_BALANCER_ENABLED", "maybe", "RERANKER_LOAD_BALANCER_ENABLED=\"maybe\": expected true"),
        ("GATEWAY_PORT", "http", "GATEWAY_PORT=\"http\" (read as PORT)"),
        ("ENABLE_CACHE", "redis", "ENABLE_CACHE=\"redis\" (read as CACHE): expected true"),
    ] {
        let problems = resolved_with("", &[("RERANKER_MODEL_PATH", "r.gguf"), (name, value)]).map(drop).unwrap_err();
        assert!(problems.len() == 1 && problems[0].starts_with(part), "{name}: {problems:?}");
    }
}

#[test]
fn names_without_an_effect_are_one_warning_each_and_unknown_names_are_not_mentioned() {
    for (name, value) in [
        ("HF_MODEL_FILENAME", "q.gguf"),
        ("RERANKER_USE_FP16", "true"),
        ("RERANKER_DEVICE", "mps"),
        ("RERANKER_DEVICE", "cuda:1"),
    ] {
        let resolved = resolved_names(&[(name, value)]);
        let [warning] = resolved.warnings.as_slice() else { panic!("{name}: {:?}", resolved.warnings) };
        assert!(warning.starts_with(&format!("{name} has no effect: ")), "{warning}");
        assert!(resolved.brought_names.is_empty());
    }
    for (name, value, line) in [
        ("ENABLE_CACHE", "true", "ENABLE_CACHE read as CACHE=safe"),
        ("ENABLE_CACHE", "no", "ENABLE_CACHE read as CACHE=off"),
        ("CACHE_TTL_SECONDS", "60", "CACHE_TTL_SECONDS read as CACHE_TTL"),
        ("VERBOSE", "false", "VERBOSE read as LOG_LEVEL: the level stays as it is"),
        ("RERANKER_DEVICE", "cuda", "RERANKER_DEVICE read as NGL: the GPU is used if there is one"),
        ("RERANKER_USE_OFFLINE_MODE", "true", "RERANKER_USE_OFFLINE_MODE read as HF_HUB_OFFLINE"),
    ] {
        let resolved = resolved_names(&[(name, value)]);
        assert_eq!((resolved.brought_names.as_slice(), resolved.warnings.len()), (&[line.to_owned()][..], 0));
    }
    let unknown =
        resolved_names(&[("N_PREDICT", "5"), ("OPENAI_API_KEY", "x"), ("LIGHT_WORKERS", "2"), ("PATH", "/bin")]);
    assert_eq!((unknown.warnings.len(), unknown.brought_names.len()), (0, 0));
}

#[test]
fn a_repository_and_its_file_name_one_model() {
    let model = |variables: &[(&'static str, &'static str)]| {
        let resolved = resolved_names(variables);
        (resolved.config.settings.files.model_name.clone(), resolved.brought_names, resolved.warnings)
    };
    let (name, lines, warnings) = model(&[("HF_MODEL_REPO", "o/n/"), ("HF_MODEL_FILENAME", "f.gguf")]);
    assert_eq!((name.as_deref(), warnings.len()), (Some("o/n/f.gguf"), 0));
    assert_eq!(lines[0], "HF_MODEL_REPO read as MODEL_NAME=o/n/f.gguf");
    assert_eq!(model(&[("HF_MODEL_REPO", "o/n")]).0.as_deref(), Some("o/n"));
    let (name, _, warnings) = model(&[("HF_MODEL_REPO", "o/n"), ("MODEL_NAME", "m.gguf")]);
    assert_eq!((name.as_deref(), warnings.len()), (Some("m.gguf"), 1), "{warnings:?}");
}

#[test]
fn a_deprecated_name_warns() {
    let resolved = resolved_names(&[("BACKEND_PORT", "10")]);
    assert_eq!(resolved.config.settings.engine.port_backend, 10);
    assert_eq!(resolved.warnings, ["BACKEND_PORT is deprecated: use PORT_BACKEND"]);
}

#[test]
fn a_rerank_model_is_described_by_the_names_of_its_server() {
    let resolved = resolved_names(&[
        ("RERANKER_MODEL_NAME", "BAAI/bge-reranker-v2-m3"),
        ("RERANKER_MAX_LENGTH", "512"),
        ("RERANKER_WORKERS", "2"),
        ("RERANKER_BATCH_SIZE", "32"),
        ("RERANKER_DEVICE", "cpu"),
    ]);
    let model = only_model(&resolved);
    let local = model.local.as_ref().unwrap();
    assert_eq!(model.tier.as_deref(), Some("reranker"));
    assert_eq!(local.start, Start::Named("BAAI/bge-reranker-v2-m3".into()), "a repository, not a path");
    assert_eq!((local.engine.ctx.0, local.replicas, local.engine.batch), (512, 2, 32));
    assert_eq!(local.engine.ngl, GpuLayers::Count(0));
    assert_eq!(resolved.warnings, [""; 0]);
    assert_eq!(resolved.brought_names.len(), 5, "{:?}", resolved.brought_names);

    let resolved = resolved_names(&[("RERANKER_MODEL_PATH", "./models/r.gguf"), ("RERANKER_MODEL_NAME", "a/b")]);
    assert_eq!(only_model(&resolved).local.as_ref().unwrap().start, Start::File("./models/r.gguf".into()));
    assert_eq!(resolved.warnings, ["RERANKER_MODEL_NAME is ignored: RERANKER_MODEL_PATH is set too"]);

    // Without a model there is nothing that they could set.
    let resolved = resolved_names(&[("RERANKER_MAX_LENGTH", "512"), ("RERANKER_WORKERS", "2")]);
    assert_eq!(
        resolved.warnings,
        [
            "RERANKER_MAX_LENGTH has no effect without RERANKER_MODEL_PATH",
            "RERANKER_WORKERS has no effect without RERANKER_MODEL_PATH"
        ]
    );
    assert_eq!(resolved.brought_names, [""; 0], "they were also said to be read");
}

#[test]
fn default_sampling_applies_to_every_model_that_says_nothing_itself() {
    let text = "defaults: {sampling: {top_k: 7}}\nmodels:\n  own: {file: a.gguf, sampling: {temperature: 0.1, top_p: null}}\n  none: {file: b.gguf}\n\
                model_list: [{model_name: far, litellm_params: {api_base: 'http://h'}}]\n";
    let variables = [
        ("TEMPERATURE", "0.7"),
        ("TOP_P", ".95"),
        ("TOP_K", "40"),
        ("MAX_TOKENS", "512"),
        ("REPEAT_PENALTY", "1.1"),
        ("LIGHT_MODEL_PATH", "l.gguf"),
        ("LIGHT_MAX_TOKENS", "9"),
    ];
    let resolved = resolved_with(text, &variables).unwrap();
    let sampling = |id: &str| {
        let model = resolved.config.catalogue.models.iter().find(|model| model.id.as_deref() == Some(id)).unwrap();
        let fields = model.rewrite.sampling.iter().map(|(name, value)| format!("{name}={value}"));
        fields.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" ")
    };
    // The file's `defaults:` come first for its own models, the variables for those of the environment.
    assert_eq!(sampling("none"), "max_tokens=512 repeat_penalty=1.1 temperature=0.7 top_k=7 top_p=0.95");
    assert_eq!(sampling("own"), "max_tokens=512 repeat_penalty=1.1 temperature=0.1 top_k=7");
    assert_eq!(sampling("far"), sampling("none"));
    assert_eq!(sampling("l"), "max_tokens=9 repeat_penalty=1.1 temperature=0.7 top_k=40 top_p=0.95");
    assert_eq!(resolved.brought_names[0], "TEMPERATURE read as the default temperature of every model that sets none");
}

#[test]
fn a_load_balancer_that_is_switched_off_leaves_model_list_out() {
    let text = "models: {own: {file: a.gguf}}\nfallbacks: {own: [own2]}\n\
                model_list: [{model_name: far, litellm_params: {api_base: 'http://h'}}]\n\
                router_settings: {model_group_alias: {other: far}, fallbacks: [{far: [own]}]}\n";
    let text = text.replace("own2", "light");
    let ids = |value: &str| {
        let resolved = resolved_with(&text, &[("RERANKER_LOAD_BALANCER_ENABLED", value)]).unwrap();
        let models = resolved.config.catalogue.models.iter().filter_map(ModelSettings::known_id).collect::<Vec<_>>();
        (models, resolved.brought_names[0].clone())
    };
    assert_eq!(ids("true").0, ["own", "far"]);
    let (models, line) = ids("off");
    assert_eq!(models, ["own"]);
    assert_eq!(line, "RERANKER_LOAD_BALANCER_ENABLED read as the switch of model_list: it is left out");
    let inputs = Inputs { environment: Environment::from([(LOAD_BALANCER, "true")]), ..Inputs::default() };
    let without_file = resolve(&inputs, &Platform::plain(Path::new("/nowhere"))).unwrap();
    assert!(
        without_file.warnings[0].contains("has no effect without a configuration file"),
        "{:?}",
        without_file.warnings
    );
}

/// Resolves with the switch off, `RERANKER_CONFIG_PATH` and these variables; `text` is the file, if there is one.
fn switched_off(text: Option<&str>, variables: &[(&str, &str)]) -> Result<Resolved, Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("reranker_config.yaml");
    text.iter().for_each(|text| std::fs::write(&path, text).unwrap());
    let own = [(LOAD_BALANCER, "false"), ("RERANKER_CONFIG_PATH", path.to_str().unwrap())];
    let environment = own.iter().chain(variables).copied().collect();
    let resolved = resolve(&Inputs { environment, ..Inputs::default() }, &Platform::plain(Path::new("/nowhere")));
    resolved.map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

#[test]
fn a_load_balancer_that_is_off_needed_its_file() {
    let resolved = switched_off(None, &[("RERANKER_MODEL_NAME", "r.gguf")]).unwrap();
    let [warning] = resolved.warnings.as_slice() else { panic!("{:?}", resolved.warnings) };
    assert!(
        warning.starts_with("RERANKER_CONFIG_PATH=") && warning.contains("has no effect: there is no such file"),
        "{warning}"
    );
    assert!(resolved.brought_names.iter().all(|line| !line.contains("CONFIG_PATH")), "{:?}", resolved.brought_names);
    assert_eq!((only_model(&resolved).known_id().as_deref(), resolved.config_file), (Some("r"), None));
    for (variables, subject) in [
        (
            &[("RERANKER_CONFIG_PATH", "/nope/c.yaml")][..],
            "RERANKER_CONFIG_PATH=\"/nope/c.yaml\" (read as CONFIG_FILE)",
        ),
        (&[("CONFIG_FILE", "/nope/c.yaml"), (LOAD_BALANCER, "false")], "CONFIG_FILE=\"/nope/c.yaml\""),
    ] {
        let inputs = Inputs { environment: variables.iter().copied().collect(), ..Inputs::default() };
        let problems = resolve(&inputs, &Platform::plain(Path::new("/nowhere"))).map(drop).unwrap_err();
        let expected =
            format!("{subject}: cannot be read: No such file or directory (os error 2)\n    hint: name a file");
        assert!(problems.len() == 1 && problems[0].to_string().starts_with(&expected), "{problems:?}");
    }
}

#[test]
fn a_model_list_that_is_left_out_kept_the_folder_of_models_from_being_served() {
    let list = "model_list: [{model_name: far, litellm_params: {api_base: 'http://h'}}]\n";
    let resolved = switched_off(Some(list), &[]).unwrap();
    assert!(resolved.config.catalogue.shelf.is_some() && resolved.config.catalogue.models.is_empty());
    // What names its entries goes with them.
    let text = format!(
        "{list}default_models: {{rerank: far}}\nfallbacks: {{far: [own], own: [far, light]}}\nmodels: {{own: {{file: a.gguf}}}}\n"
    );
    let resolved = switched_off(Some(&text), &[]).unwrap();
    let catalogue = &resolved.config.catalogue;
    assert!(catalogue.shelf.is_none() && catalogue.default_models.is_empty());
    assert_eq!(
        catalogue.fallbacks.iter().map(|(name, others)| format!("{name} {others:?}")).collect::<String>(),
        "own [\"light\"]"
    );
    let left_out = resolved.warnings.iter().filter(|warning| warning.ends_with("is left out with model_list")).count();
    assert_eq!(left_out, 3, "{:?}", resolved.warnings);
    // A model of the same name stays.
    let text = format!("{list}default_models: {{chat: far}}\nmodels: {{far: {{file: a.gguf}}}}\n");
    assert_eq!(switched_off(Some(&text), &[]).unwrap().config.catalogue.default_models.len(), 1);
}

#[test]
fn a_tier_can_be_an_embedding_model_or_served_by_mlx() {
    let resolved = resolved_names(&[
        ("LIGHT_MODEL_PATH", "/m/e.gguf"),
        ("LIGHT_EMBEDDING_MODE", "true"),
        ("LIGHT_EMBEDDING_DIMENSION", "256"),
        ("HEAVY_MODEL_PATH", "/models/phi-4"),
        ("HEAVY_BACKEND", "MLX"),
        ("HEAVY_N_BATCH", "512"),
        ("HEAVY_TEMPERATURE", "0.5"),
        ("MEDIUM_MODEL_PATH", "/m/c.gguf"),
        ("MEDIUM_EMBEDDING_MODE", "false"),
        ("EMBEDDING_EMBEDDING_DIMENSION", "8"),
    ]);
    let [light, medium, heavy] = resolved.config.catalogue.models.as_slice() else { panic!("three models") };
    assert_eq!(
        (light.kind, light.dimensions.as_ref().and_then(Dimensions::default_length)),
        (Some(ModelKind::Embedding), Some(256))
    );
    assert_eq!((medium.kind, &medium.dimensions), (None, &None));
    let Start::Command { argv, health, model } = &heavy.local.as_ref().unwrap().start else { panic!("a command") };
    assert_eq!(argv, &["mlx_lm.server", "--model", "/models/phi-4", "--port", "{port}"]);
    assert_eq!(
        (health.as_str(), model.as_deref(), heavy.id.as_deref()),
        ("/health", Some("/models/phi-4"), Some("phi-4"))
    );
    assert_eq!(heavy.rewrite.sampling, [("temperature".to_owned(), "0.5".to_owned())]);
    assert_eq!(
        resolved.warnings,
        [
            "HEAVY_N_BATCH has no effect on MLX's server",
            "EMBEDDING_EMBEDDING_DIMENSION has no effect without EMBEDDING_MODEL_PATH"
        ]
    );
    for (name, value) in
        [("LIGHT_BACKEND", "vllm"), ("LIGHT_EMBEDDING_MODE", "dense"), ("LIGHT_EMBEDDING_DIMENSION", "0")]
    {
        let problems = resolved_with("", &[("LIGHT_MODEL_PATH", "a.gguf"), (name, value)]).map(drop).unwrap_err();
        assert!(problems[0].starts_with(&format!("{name}={value:?}")), "{problems:?}");
    }
}

#[test]
fn an_embedding_mode_that_is_off_was_ignored_without_a_word() {
    let resolved = resolved_names(&[("EMBEDDING_MODEL_PATH", "e.gguf"), ("EMBEDDING_EMBEDDING_MODE", "false")]);
    assert!(
        resolved.warnings[0].starts_with("EMBEDDING_EMBEDDING_MODE=false has no effect: the model file tells the kind"),
        "{:?}",
        resolved.warnings
    );
}

#[test]
fn a_setting_that_an_argument_overrides_was_lost_without_a_word() {
    let tier = [("LIGHT_MODEL_PATH", "l.gguf"), ("LIGHT_USE_MLOCK", "true"), ("LIGHT_USE_MMAP", "false")];
    let with = |more: &[(&str, &str)]| resolved_names(&[&tier[..], more].concat()).warnings;
    assert_eq!(
        with(&[("EXTRA_ARGS", "--load_mode none -b 7"), ("LIGHT_N_BATCH", "64")]),
        ["USE_MMAP", "USE_MLOCK", "BATCH"].map(|name| {
            let word = if name == "BATCH" { "-b" } else { "--load_mode" };
            format!("{name} of \"l\" has no effect: EXTRA_ARGS or args has {word}, which comes later")
        })
    );
    assert_eq!(with(&[("EXTRA_ARGS", "-ub 7"), ("BATCH", "64")]), [""; 0]);
    let unset = [("MODEL_NAME", "m.gguf"), ("EXTRA_ARGS", "-lm none -b 7")];
    assert_eq!(resolved_names(&unset).warnings, [""; 0]);
}

#[test]
fn each_alias_stands_once_and_names_a_variable_that_exists() {
    let mut seen = BTreeSet::new();
    for alias in ALIASES {
        assert!(seen.insert(alias.name), "{} stands twice", alias.name);
        assert!(row(&alias.name.to_ascii_lowercase()).is_none(), "{} is a setting itself", alias.name);
        if let AliasTarget::Variable(own) = alias.target {
            let is_of_tier = TIERS.iter().any(|(tier, _)| own.starts_with(&format!("{tier}_")));
            assert!(row(&own.to_ascii_lowercase()).is_some() || is_of_tier, "{} names {own}", alias.name);
        }
    }
}
