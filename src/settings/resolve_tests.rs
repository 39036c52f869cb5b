//! Tests of which source wins, and of what is reported.

use super::*;
use crate::settings::values::{GpuLayers, ZeroIsOff};

fn resolve_with<const N: usize>(variables: [(&str, &str); N]) -> Result<Resolved, Vec<SettingProblem>> {
    let inputs = Inputs { environment: Environment::from(variables), ..Inputs::default() };
    resolve(&inputs, &Platform::plain(Path::new("/nowhere")))
}

#[test]
fn defaults_are_those_of_the_table_and_follow_other_settings() {
    let settings = resolve_with([("MAX_CONCURRENT_REQUESTS", "3"), ("DATA_DIR", "/d/")]).unwrap().config.settings;
    assert_eq!(settings.listen.port, 8000);
    assert_eq!(settings.engine.ngl, GpuLayers::Count(99));
    assert_eq!(settings.engine.parallel.get(), 3);
    assert_eq!(settings.files.models_dir, Path::new("/d/models"));
    assert_eq!(settings.access.auth_keys_file, Path::new("/d/api_keys.txt"));
    assert_eq!(settings.queue.max_queue_size, ZeroIsOff(None));
    assert_eq!(settings.logs.instance_id, "host");
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_platform() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("llamagate.yaml"), "server:\n  port: 1\n  ctx: 64\n  instance_id: from-file\n")
        .unwrap();
    let mut inputs = Inputs { environment: Environment::from([("PORT", "2"), ("CTX", "96")]), ..Inputs::default() };
    inputs.flags.insert("port", "3".to_owned());
    let resolved = resolve(&inputs, &Platform::plain(dir.path())).unwrap();
    assert_eq!(resolved.config.settings.listen.port, 3);
    assert_eq!(resolved.config.settings.engine.ctx.0, 96);
    assert_eq!(resolved.config.settings.logs.instance_id, "from-file");
}

#[test]
fn all_problems_are_reported_together_with_name_value_and_what_is_allowed() {
    let problems = resolve_with([("PORT", "http"), ("AUTH_ENABLED", "maybe"), ("QUEUE_TIMEOUT", "soon")]).unwrap_err();
    let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(text.len(), 3, "{text:?}");
    assert!(text.iter().any(|line| line.contains("PORT=\"http\"") && line.contains("whole number from 0 to 65535")));
    assert!(text.iter().any(|line| line.contains("AUTH_ENABLED=\"maybe\"")));
}

#[test]
fn aliases_are_taken_and_the_deprecated_one_warns() {
    let resolved = resolve_with([("GATEWAY_PORT", "9"), ("BACKEND_PORT", "10")]).unwrap();
    assert_eq!((resolved.config.settings.listen.port, resolved.config.settings.engine.port_backend), (9, 10));
    assert_eq!(resolved.warnings, ["BACKEND_PORT is deprecated: use PORT_BACKEND"]);
}

#[test]
fn a_model_name_flag_beats_a_model_path_from_the_environment() {
    let mut inputs = Inputs { environment: Environment::from([("MODEL_PATH", "/a.gguf")]), ..Inputs::default() };
    inputs.flags.insert("model_name", "b.gguf".to_owned());
    let settings = resolve(&inputs, &Platform::plain(Path::new("/nowhere"))).unwrap().config.settings;
    assert_eq!(settings.files.model_path, None);
    assert_eq!(settings.files.model_name.as_deref(), Some("b.gguf"));
}

#[test]
fn fewer_slots_than_requests_in_flight_is_a_contradiction() {
    let problems = resolve_with([("MAX_CONCURRENT_REQUESTS", "4"), ("PARALLEL", "2")]).unwrap_err();
    assert!(problems[0].subject.contains("PARALLEL"));
}

#[test]
fn a_folder_name_cannot_leave_the_log_folder() {
    for name in ["../x", "a/b", ".hidden", ""] {
        if name.is_empty() {
            continue; // An empty variable counts as unset.
        }
        assert!(resolve_with([("WORKER_TYPE", name)]).is_err(), "{name}");
    }
}

#[test]
fn every_default_in_the_table_is_valid_and_names_only_rows_above_it() {
    let mut above = Vec::new();
    for row in OPTIONS {
        if let Some(rest) = row.default.strip_prefix('$') {
            let name = rest.split('/').next().unwrap().to_ascii_lowercase();
            assert!(above.contains(&name), "{} refers to {name}", row.key);
        }
        above.push(row.key.to_owned());
    }
    resolve_with([]).unwrap();
}

#[test]
fn one_invalid_setting_hid_all_that_was_read() {
    let inputs = Inputs {
        environment: Environment::from([
            ("N_CTX", "8x"),
            ("MAX_CONCURRENT_REQUESTS", "many"),
            ("PORT", "9"),
            ("MODEL_NAME", "m.gguf"),
            ("HEALTH_CHECK_PATH", "x"),
            ("CACHE_PERSIST_TO_DISK", "true"),
        ]),
        ..Inputs::default()
    };
    let examined = examine(&inputs, &Platform::plain(Path::new("/nowhere")));
    let problems: Vec<String> = examined.problems.iter().map(ToString::to_string).collect();
    // PARALLEL follows MAX_CONCURRENT_REQUESTS and is not reported too.
    assert_eq!(problems.len(), 3, "{problems:?}");
    let shown = examined.shown.unwrap();
    let (settings, catalogue) = (&shown.config.settings, &shown.config.catalogue);
    assert_eq!((settings.listen.port, settings.engine.ctx.0, settings.engine.parallel.get()), (9, 16384, 1));
    assert_eq!(catalogue.models[0].known_id().as_deref(), Some("m"));
    assert_eq!(shown.brought_names, ["N_CTX read as CTX"]);
    assert!(shown.warnings[0].starts_with("CACHE_PERSIST_TO_DISK=true has no effect"), "{:?}", shown.warnings);
    let ctx = shown.rows.iter().find(|row| row.0 == "ctx").unwrap();
    assert_eq!((ctx.1.as_str(), ctx.2.to_string().as_str()), ("8x", "environment variable N_CTX"));
}

#[test]
fn a_carriage_return_within_a_value_got_into_names_and_arguments() {
    for (name, value) in [("INSTANCE_ID", "a\rb"), ("MODEL_NAME", "a\r.gguf"), ("LIGHT_MODEL_PATH", "a\u{1b}.gguf")] {
        let problems = resolve_with([(name, value)]).unwrap_err();
        assert!(problems.len() == 1 && problems[0].fault.contains("without control characters"), "{problems:?}");
    }
    assert!(resolve_with([("EXTRA_ARGS", "--jinja\r --temp 1")]).is_ok());
}

#[test]
fn a_file_of_secrets_that_others_can_read_is_warned_about() {
    let secret = ("API_TOKEN".to_owned(), "s3cr3t-of-a-test-0123".to_owned());
    for (is_open, variables, is_warned) in [
        (true, vec![secret.clone()], true),
        (false, vec![secret], false),
        (true, vec![("CTX".to_owned(), "64".to_owned())], false),
    ] {
        let mut inputs = Inputs { is_env_file_open: is_open, ..Inputs::default() };
        variables.into_iter().for_each(|(name, value)| inputs.environment.add_from_file(name, value));
        let warnings = resolve(&inputs, &Platform::plain(Path::new("/nowhere"))).unwrap().warnings;
        let expected = "other users can read or write ENV_FILE, which sets API_TOKEN; run: chmod 600 on it";
        assert_eq!(warnings.contains(&expected.to_owned()), is_warned, "{warnings:?}");
    }
}
