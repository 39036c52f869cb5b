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
    assert_eq!((vllm.api_base.as_str(), vllm.model.as_deref()), ("http://vllm:8000/v1", Some("Qwen/Qwen3-32B")));
    assert_eq!((&vllm.api_key, vllm.priority, vllm.slots), (&Some(Secret("sk-of-file".into())), 2, 8));
    assert_eq!((vllm.weight, openai.weight), (3.0, 1.0));
    assert_eq!(gpt.rewrite.sampling, [("temperature".to_owned(), "0.2".to_owned())]);
    assert_eq!(catalogue.models[0].aliases, ["gpt-3.5-turbo"]);
    assert_eq!(catalogue.models[2].kind, Some(ModelKind::Embedding));
    assert_eq!(catalogue.fallbacks["gpt-4o"], ["small"]);
    assert_eq!(resolved.config.settings.routing.num_retries, 2);
    assert_eq!(resolved.config.settings.routing.routing_strategy, Strategy::LeastBusy);
    let warnings = resolved.warnings.join("\n");
    for part in ["usage-based-routing-v2", "general_settings", "image_generation", "litellm_params.timeout"] {
        assert!(warnings.contains(part), "{part} in {warnings}");
    }
    assert!(!warnings.contains("sk-") && !warnings.contains("u:p"), "{warnings}");
}
