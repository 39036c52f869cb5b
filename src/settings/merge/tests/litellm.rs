use super::*;

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
fn a_litellm_configuration_file_is_read_unchanged() {
    let resolved = resolved(LITELLM, [("OPENAI_API_KEY", "sk-openai")]).unwrap();
    let catalogue = &resolved.config.catalogue;
    assert_eq!(ids(catalogue), ["small", "gpt-4o", "text-embedding-3-small"]);
    let gpt = &catalogue.models[1];
    assert_eq!((gpt.kind, gpt.aliases.as_slice()), (Some(ModelKind::Chat), ["gpt-4".to_owned()].as_slice()));
    let [openai, vllm] = gpt.remotes.as_slice() else { panic!() };
    assert_eq!((openai.api_base.as_str(), openai.model.as_deref()), ("https://api.openai.com/v1", None));
    assert_eq!((&openai.api_key, openai.priority, openai.slots), (&Some(Secret("sk-openai".into())), 1, 16));
    assert_eq!(gpt.strategy, Some(Strategy::PriorityFailover), "the order decides first");
    assert_eq!((vllm.api_base.as_str(), vllm.model.as_deref()), ("http://vllm:8000/v1", Some("Qwen/Qwen3-32B")));
    assert_eq!((&vllm.api_key, vllm.priority, vllm.slots), (&Some(Secret("sk-of-file".into())), 2, 8));
    assert_eq!((vllm.weight, openai.weight), (3.0, 1.0));
    assert_eq!(vllm.fields, [("temperature".to_owned(), "0.2".to_owned())]);
    assert_eq!((openai.fields.len(), gpt.rewrite.sampling.len()), (0, 0), "each backend has its own");
    let small = &catalogue.models[0];
    assert_eq!((small.aliases.len(), small.hidden_aliases.as_slice()), (0, &["gpt-3.5-turbo".to_owned()][..]));
    assert_eq!(catalogue.models[2].kind, Some(ModelKind::Embedding));
    assert_eq!(catalogue.fallbacks["gpt-4o"], ["small"]);
    assert_eq!(resolved.config.settings.routing.num_retries, 2);
    assert_eq!(resolved.config.settings.routing.routing_strategy, Strategy::LeastBusy);
    let warnings = resolved.warnings.join("\n");
    for part in [
        "usage-based-routing-v2",
        "general_settings.database_url",
        "model_list[3]: \"dall-e-3\" is left out: there are no routes for its mode, image_generation",
        "litellm_params.timeout is not obeyed: REQUEST_TIMEOUT",
        "master_key is not obeyed: clients' keys are in a key file: make one with `keyctl generate",
    ] {
        assert!(warnings.contains(part), "{part} in {warnings}");
    }
    assert!(!warnings.contains("sk-") && !warnings.contains("u:p"), "{warnings}");
}

/// Returns the ids and the warnings of a configuration.
fn ids_and_warnings<const N: usize>(text: &str, variables: [(&str, &str); N]) -> (Vec<String>, String) {
    let resolved = resolved(text, variables).unwrap_or_else(|problems| panic!("{text}: {problems:?}"));
    (ids(&resolved.config.catalogue), resolved.warnings.join("\n"))
}

#[test]
fn one_entry_that_cannot_be_served_made_the_whole_file_useless() {
    for (params, reason) in [
        (
            "{model: anthropic/claude-3-5-sonnet, api_key: os.environ/ANTHROPIC_API_KEY}",
            "anthropic speaks an API of its own",
        ),
        ("{model: claude-3-opus-20240229}", "anthropic speaks an API of its own"),
        ("{model: azure/gpt-4, api_base: os.environ/AZURE_API_BASE, api_version: '2023-07-01'}", "azure speaks an API"),
        ("{model: azure/gpt-4, api_base: 'https://x.openai.azure.com', api_key: sk-x}", "azure speaks an API"),
        ("{model: bedrock/anthropic.claude, aws_secret_access_key: os.environ/AWS}", "bedrock speaks an API"),
        ("{model: vertex_ai/gemini-pro, vertex_project: p, vertex_location: l}", "vertex_ai speaks an API"),
        ("{model: gemini/gemini-2.0-flash, api_key: os.environ/GEMINI_API_KEY}", "gemini speaks an API"),
        ("{model: x, custom_llm_provider: bedrock, aws_region_name: us-east-1}", "bedrock speaks an API"),
        ("{model: 'openai/*'}", "it has no api_key, and OPENAI_API_KEY is not set"),
        ("{model: gpt-4o}", "it has no api_key, and OPENAI_API_KEY is not set"),
        ("{model: '*'}", "it has no api_base"),
        ("{model: hosted_vllm/x}", "it has no api_base"),
        ("{model: unheard/of}", "it has no api_base"),
    ] {
        for name in ["out", "'out/*'", "'*'"] {
            let text = format!(
                "model_list:\n- {{model_name: {name}, litellm_params: {params}}}\n\
                 - {{model_name: served, litellm_params: {{api_base: 'http://a'}}}}\n"
            );
            let (ids, warnings) = ids_and_warnings(&text, []);
            assert_eq!(ids, ["served"], "{text}");
            let name = name.trim_matches('\'');
            let warning = format!("model_list[0]: {name:?} is left out: {reason}");
            assert_eq!(warnings.lines().count(), 1, "{warnings}");
            assert!(warnings.contains(&warning), "{warning} in {warnings}");
            let alone = format!("model_list:\n- {{model_name: '{name}', litellm_params: {params}}}\n");
            let problems = resolved(&alone, []).map(drop).unwrap_err();
            assert!(problems.len() == 1 && problems[0].contains(reason), "{problems:?}");
        }
    }
}

/// Regression: an entry whose key is in a variable that is not set ended the start for all models, although one without
/// a key was left out.
#[test]
fn a_variable_that_is_not_set_leaves_out_its_entry_only() {
    for (params, key) in [
        ("{model: openai/gpt-4o, api_key: os.environ/NOT}", "api_key"),
        ("{model: groq/llama3, api_key: os.environ/NOT, api_base: 'http://b'}", "api_key"),
        ("{model: openai/x, api_base: os.environ/NOT}", "api_base"),
        ("{model: openai/x, base_url: os.environ/NOT, api_key: sk-x}", "base_url"),
        ("{api_base: 'http://b', extra_headers: {X-Gate: os.environ/NOT}}", "extra_headers"),
        ("{api_base: 'http://b', organization: os.environ/NOT}", "organization"),
        ("{api_base: 'http://b', rpm: os.environ/NOT}", "rpm"),
        ("{api_base: 'http://b', extra_body: {k: [os.environ/NOT]}}", "k"),
        ("{api_base: 'http://b', litellm_credential_name: c}", "api_key"),
    ] {
        let text = format!(
            "credential_list: [{{credential_name: c, credential_values: {{api_key: os.environ/NOT}}}}]\n\
             models: {{gpt-4o-mini: {{file: a.gguf}}}}\n\
             model_list:\n- {{model_name: out, litellm_params: {params}}}\n\
             - {{model_name: served, litellm_params: {{api_base: 'http://a'}}}}\n"
        );
        let (ids, warnings) = ids_and_warnings(&text, []);
        assert_eq!(ids, ["gpt-4o-mini", "served"], "{text}");
        let warning =
            format!("model_list[0]: \"out\" is left out: {key}: the environment variable NOT is not set; set NOT, or");
        assert!(warnings.lines().count() == 1 && warnings.contains(&warning), "{warning} in {warnings}");
    }
    let local = "models: {tiny: {file: a.gguf}}\n\
                 model_list: [{model_name: gpt, litellm_params: {model: tiny, api_key: os.environ/NOT}}]\n";
    let (ids, warnings) = ids_and_warnings(local, []);
    assert_eq!((ids, warnings.as_str()), (vec!["tiny".to_owned()], ""), "a local model needs no key");
}

#[test]
fn names_of_entries_that_are_left_out_are_left_out_elsewhere_too() {
    let text = "model_list:\n\
                - {model_name: claude, litellm_params: {model: anthropic/claude}}\n\
                - {model_name: a, litellm_params: {api_base: 'http://a'}}\n\
                - {model_name: b, litellm_params: {api_base: 'http://b'}}\n\
                litellm_settings: {fallbacks: [{a: [claude, b]}, {claude: [a]}], default_fallbacks: [claude]}\n\
                router_settings: {model_group_alias: {sonnet: claude}}\n";
    let resolved = resolved(text, []).unwrap();
    assert_eq!(resolved.config.catalogue.fallbacks["a"], ["b"]);
    assert_eq!(resolved.config.catalogue.fallbacks.get("claude"), None);
    let warnings = resolved.warnings.join("\n");
    for part in ["fallbacks.a: \"claude\" is left out", "model_group_alias.sonnet: \"claude\" is left out"] {
        assert!(warnings.contains(part), "{part} in {warnings}");
    }
}

#[test]
fn an_entry_of_which_one_backend_cannot_be_served_keeps_the_others() {
    let text = "model_list:\n\
                - {model_name: gpt, litellm_params: {model: azure/gpt, api_base: 'http://a'}}\n\
                - {model_name: gpt, litellm_params: {model: openai/gpt, api_base: 'http://b'}}\n";
    let catalogue = catalogue(text, []);
    assert_eq!((ids(&catalogue), catalogue.models[0].remotes.len()), (vec!["gpt".to_owned()], 1));
}

#[test]
fn unknown_parameters_and_extra_body_become_fields_of_requests() {
    let text = "model_list:\n\
                - model_name: a\n\
                \x20 litellm_params:\n\
                \x20   api_base: http://a\n\
                \x20   chat_template_kwargs: {enable_thinking: false}\n\
                \x20   dimensions: 256\n\
                \x20   guided_json: {type: object}\n\
                \x20   stop: [x]\n\
                \x20   seed: null\n\
                \x20   response_format: {type: json_object}\n\
                \x20   extra_body: {top_k: 5, dimensions: 9, nested: {key: os.environ/VALUE}}\n\
                \x20   input_cost_per_token: 0.1\n\
                \x20   aws_secret_access_key: os.environ/NOT_SET\n";
    let resolved = resolved(text, [("VALUE", "of the environment")]).unwrap();
    let fields: Vec<String> = resolved.config.catalogue.models[0].remotes[0]
        .fields
        .iter()
        .map(|(name, json)| format!("{name}={json}"))
        .collect();
    assert_eq!(
        fields,
        [
            "chat_template_kwargs={\"enable_thinking\":false}",
            "dimensions=256",
            "guided_json={\"type\":\"object\"}",
            "stop=[\"x\"]",
            "response_format={\"type\":\"json_object\"}",
            "top_k=5",
            "nested={\"key\":\"of the environment\"}",
        ]
    );
    assert_eq!(resolved.warnings.len(), 1, "{:?}", resolved.warnings);
    assert!(resolved.warnings[0].contains("aws_secret_access_key"));
}

#[test]
fn headers_of_an_entry_are_read_and_never_shown() {
    let text = "model_list:\n\
                - model_name: a\n\
                \x20 litellm_params:\n\
                \x20   api_base: http://a\n\
                \x20   organization: org-1\n\
                \x20   headers: {X-One: first, X-Two: 2}\n\
                \x20   extra_headers: {x-one: os.environ/VALUE, Authorization: Basic sesame}\n";
    let catalogue = catalogue(text, [("VALUE", "sesame")]);
    let headers = &catalogue.models[0].remotes[0].headers;
    let plain: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {}", value.0)).collect();
    assert_eq!(plain, ["openai-organization: org-1", "x-two: 2", "x-one: sesame", "authorization: Basic sesame"]);
    assert!(!format!("{catalogue:?}").contains("sesame"));
}

#[test]
fn a_credential_of_the_list_gives_what_the_entry_does_not_set() {
    let text = "environment_variables: {BASE: 'http://of-file', UNUSED: x}\n\
                credential_list:\n\
                - credential_name: cred\n\
                \x20 credential_values: {api_key: os.environ/KEY, api_base: os.environ/BASE, api_version: x}\n\
                \x20 credential_info: {description: y}\n\
                model_list:\n\
                - {model_name: a, litellm_params: {model: openai/x, litellm_credential_name: cred}}\n\
                - {model_name: b, litellm_params: {model: openai/x, litellm_credential_name: cred, api_key: sk-own}}\n";
    let resolved = resolved(text, [("KEY", "sk-sesame")]).unwrap();
    let remote = |at: usize| &resolved.config.catalogue.models[at].remotes[0];
    assert_eq!(
        (remote(0).api_base.as_str(), &remote(0).api_key),
        ("http://of-file/v1", &Some(Secret("sk-sesame".into())))
    );
    assert_eq!(remote(1).api_key, Some(Secret("sk-own".into())));
    let warnings = resolved.warnings.join("\n");
    assert!(warnings.contains("environment_variables: nothing reads UNUSED;"), "{warnings}");
}

#[test]
fn litellm_settings_set_what_router_settings_leave_out() {
    let routing = |text: &str| resolved(text, []).unwrap().config.settings.routing;
    let model = "model_list: [{model_name: a, litellm_params: {api_base: 'http://a'}}]\n";
    let both = routing(&format!("{model}litellm_settings: {{num_retries: 7, allowed_fails: 0}}\n"));
    assert_eq!((both.num_retries, both.allowed_fails.get()), (7, 1));
    let router = format!("{model}litellm_settings: {{num_retries: 7}}\nrouter_settings: {{num_retries: 2}}\n");
    assert_eq!(routing(&router).num_retries, 2);
    let fallbacks = catalogue(&format!("{model}router_settings: {{default_fallbacks: [a]}}\n"), []).fallbacks;
    assert_eq!(fallbacks["*"], ["a"]);
}

#[test]
fn names_that_only_a_pattern_matches_may_be_aliases_fallbacks_and_defaults() {
    let text = "model_list:\n\
                - {model_name: 'openai/*', litellm_params: {model: 'openai/*', api_base: 'http://a', api_key: k}}\n\
                - {model_name: own, litellm_params: {api_base: 'http://b'}}\n\
                router_settings: {model_group_alias: {mini: openai/gpt-4o-mini}}\n\
                fallbacks: {own: [openai/gpt-4o], '*': [own]}\n\
                default_models: {embedding: openai/text-embedding-3-small}\n";
    let catalogue = catalogue(text, []);
    assert_eq!(
        ids(&catalogue),
        ["openai/*", "own", "openai/gpt-4o-mini", "openai/gpt-4o", "openai/text-embedding-3-small"]
    );
    let [wild, own, mini, _, embedding] = catalogue.models.as_slice() else { panic!() };
    assert_eq!((wild.is_wildcard, wild.pool, own.is_wildcard), (true, None, false));
    assert_eq!(
        (mini.aliases.as_slice(), mini.remotes[0].model.as_deref()),
        (&["mini".to_owned()][..], Some("gpt-4o-mini"))
    );
    assert_eq!((embedding.is_wildcard, embedding.kind), (false, Some(ModelKind::Embedding)));
    assert_eq!(wild.remotes[0].model.as_deref(), Some("*"));
}
