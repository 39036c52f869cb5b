use super::*;
use crate::settings::bounds::CONFIG_FILE_SIZE;

fn read_str(text: &str) -> (ConfigFile, Vec<String>) {
    let mut file = ConfigFile::parse(Path::new("f.yaml"), text, &Environment::default());
    let problems = std::mem::take(&mut file.notes.problems);
    (file, problems.iter().map(ToString::to_string).collect())
}

#[test]
fn scalars_and_lists_become_the_texts_of_settings() {
    let (texts, problems) = read_str(
        "server:\n  port: 8123\n  auth_enabled: false\n  request_timeout: 5m\n  cors_origins: [https://a.example, https://b.example]\n",
    );
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(texts.get("port").unwrap(), "8123");
    assert_eq!(texts.get("auth_enabled").unwrap(), "false");
    assert_eq!(texts.get("request_timeout").unwrap(), "5m");
    assert_eq!(texts.get("cors_origins").unwrap(), "https://a.example,https://b.example");
}

#[test]
fn router_settings_and_the_memory_budget_are_read_from_their_own_sections() {
    let (texts, problems) = read_str(
        "memory_budget: 20GiB\nmax_wait_before_drain: 7s\nrouter_settings:\n  routing_strategy: least-busy\n  retry_delay: 1.0\n  fallback_to_local: true\n",
    );
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(texts.get("memory_budget").unwrap(), "20GiB");
    assert_eq!(texts.get("max_wait_before_drain").unwrap(), "7s");
    assert_eq!(texts.get("routing_strategy").unwrap(), "least-busy");
    assert_eq!(texts.get("retry_delay").unwrap(), "1.0");
    assert_eq!(texts.get("fallback_to_local").unwrap(), "true");
    let (_, problems) = read_str("server: {num_retries: 1}\nrouter_settings: {num_retries: 2}\n");
    assert!(problems[0].contains("router_settings.num_retries: is set in another place too"), "{problems:?}");
}

#[test]
fn an_unknown_name_is_an_error_with_a_suggestion_at_every_level() {
    for (text, location, suggestion) in [
        ("serve: {}\n", "serve: unknown section", "did you mean server?"),
        ("server:\n  max_queue_sze: 5\n", "server.max_queue_sze: unknown setting", "did you mean max_queue_size?"),
        ("router_settings: {num_retry: 5}\n", "router_settings.num_retry: unknown key", "did you mean num_retries?"),
        ("defaults: {ctxx: 5}\n", "defaults.ctxx: unknown key", "did you mean ctx?"),
        ("models: {q: {file: a, paralel: 5}}\n", "models.q.paralel: unknown key", "did you mean parallel?"),
        ("model_list: [{model_nme: a}]\n", "model_list[0].model_nme: unknown key", "did you mean model_name?"),
        (
            "model_list: [{model_name: a, litellm_params: {apibase: 'http://a'}}]\n",
            "model_list[0].litellm_params.apibase: unknown key",
            "did you mean api_base?",
        ),
    ] {
        let (_, problems) = read_str(text);
        assert!(
            problems.iter().any(|problem| problem.contains(location) && problem.contains(suggestion)),
            "{text}: {problems:?}"
        );
    }
}

#[test]
fn keys_of_litellm_without_meaning_here_are_ignored_with_one_warning() {
    let (mut file, problems) = read_str(
        "litellm_settings: {drop_params: true}\ngeneral_settings: {master_key: sk-sesame}\n\
         router_settings: {redis_host: a, routing_strategy: usage-based-routing}\n",
    );
    assert_eq!(problems, Vec::<String>::new());
    let warnings = file.notes.take_warnings();
    assert_eq!(
        warnings,
        [
            "f.yaml: router_settings.routing_strategy: this gateway has no usage-based-routing and uses its default",
            "f.yaml: general_settings.master_key is not obeyed: clients' keys are in a key file: make one with \
             `keyctl generate --name NAME`, or set LLAMAGATE_API_KEY",
            "f.yaml: ignored, because they have no meaning here: litellm_settings.drop_params, router_settings.redis_host",
        ]
    );
}

#[test]
fn broken_yaml_and_wrong_shapes_are_problems() {
    for text in [
        "server: [",
        "- a\n- b\n",
        "server: 5\n",
        "server:\n  port: {a: 1}\n",
        "models: []\n",
        "model_list: {a: 1}\n",
        "fallbacks: 5\n",
        "defaults: 5\n",
        "router_settings: x\n",
        "models: {a: 5}\n",
        "environment_variables: 1\n",
        "router_settings: {model_group_alias: 5}\n",
        "router_settings: {fallbacks: [a]}\n",
        "memory_budget: [{}]\n",
        "include: {a: 1}\n",
        "credential_list: 5\n",
        "credential_list: [{credential_values: {}}]\n",
        "credential_list: [{credential_name: a, credential_values: 5}]\n",
        "default_models: [a]\n",
        "default_models: {talk: a}\n",
        "general_settings: 5\n",
        "litellm_settings: {default_fallbacks: {a: b}}\n",
        "router_settings: {model_group_alias: {a: {hidden: true}}}\n",
        "router_settings: {model_group_alias: {a: {model: b, hiden: true}}}\n",
    ] {
        let (_, problems) = read_str(text);
        assert_eq!(problems.len(), 1, "{text:?}: {problems:?}");
    }
    assert!(read_str("").1.is_empty());
}

#[test]
fn a_file_that_is_missing_or_too_large_is_a_problem() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.yaml");
    assert_eq!(ConfigFile::read(&path, &Environment::default()).notes.problems.len(), 1);
    std::fs::write(&path, "#".repeat(usize::try_from(CONFIG_FILE_SIZE).unwrap() + 1)).unwrap();
    let file = ConfigFile::read(&path, &Environment::default());
    assert!(file.notes.problems[0].fault.contains("more than the limit of a configuration file"));
}
