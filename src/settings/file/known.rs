//! Names of LiteLLM's configuration that have no meaning here, so that its files can be read unchanged.
//!
//! Names that change no response are ignored, with one warning for all of them. Those that do have a hint of their own:
//! what llamagate does in their place, or which setting does it. Except in `litellm_params`, whose unknown names become
//! fields of requests, a name that is neither listed here nor read is taken for a typo and refused.

use crate::settings::values::BackendApi;

/// Top-level sections.
pub(super) const SECTIONS: &[&str] = &[
    "assistant_settings",
    "callback_settings",
    "default_vertex_config",
    "files_settings",
    "finetune_settings",
    "guardrails",
    "mcp_servers",
    "mcp_tools",
    "model_cost_map",
    "policies",
    "policy_attachments",
    "prompts",
    "search_tools",
    "vector_store_registry",
];

/// Keys of `router_settings` that change no response.
pub(super) const ROUTER: &[&str] = &[
    "alerting_config",
    "assistants_config",
    "auto_router_capability_limit",
    "background_health_check_model_groups",
    "cache_kwargs",
    "caching_groups",
    "client_ttl",
    "debug_level",
    "default_priority",
    "deployment_affinity_ttl_seconds",
    "enable_health_check_routing",
    "enable_pre_call_check",
    "enable_pre_call_checks",
    "enable_weighted_failover",
    "fallback_access_check",
    "fallback_budget_check",
    "health_check_ignore_transient_errors",
    "health_check_staleness_threshold",
    "ignore_invalid_deployments",
    "model_group_affinity_config",
    "optional_pre_call_checks",
    "plugins",
    "polling_interval",
    "redis_db",
    "redis_host",
    "redis_password",
    "redis_port",
    "redis_url",
    "router_general_settings",
    "routing_strategy_args",
    "search_tools",
    "set_verbose",
];

/// Keys of `router_settings` that llamagate does not obey, each with what it does in their place.
pub(super) const ROUTER_HINTS: &[(&str, &str)] = &[
    ("allowed_fails_policy", ONE_BREAKER),
    ("cache_responses", NO_CACHE),
    ("content_policy_fallbacks", NO_SPECIAL_FALLBACKS),
    ("context_window_fallbacks", NO_SPECIAL_FALLBACKS),
    ("default_litellm_params", "set fields in the litellm_params of each entry"),
    ("disable_cooldowns", "set cooldown_time: 0 to ask a failing backend again at once"),
    ("enable_tag_filtering", NO_TAGS),
    ("guardrail_list", "requests are not filtered"),
    ("max_fallbacks", "each fallback is tried once"),
    ("max_retries", "num_retries sets the retries"),
    ("model_group_retry_policy", RETRY_RULES),
    ("provider_budget_config", NO_BUDGETS),
    ("retry_after", "retry_delay sets the longest pause before a retry"),
    ("retry_policy", RETRY_RULES),
    ("routing_groups", "a model has one strategy"),
    ("stream_timeout", STREAM_TIMEOUTS),
    ("tag_filtering_match_any", NO_TAGS),
    ("tag_routing_prefix", NO_TAGS),
    ("timeout", TIMEOUTS),
    ("weights", "set weight in each entry"),
];

/// Keys of `litellm_settings` that llamagate does not obey, each with what it does in their place. All others change
/// no response.
pub(super) const SETTINGS_HINTS: &[(&str, &str)] = &[
    ("cache", NO_CACHE),
    ("content_policy_fallbacks", NO_SPECIAL_FALLBACKS),
    ("context_window_fallbacks", NO_SPECIAL_FALLBACKS),
    ("default_max_internal_user_budget", NO_BUDGETS),
    ("enable_json_schema_validation", "the backend alone enforces response_format"),
    ("max_budget", NO_BUDGETS),
    ("modify_params", "requests are not adapted to a provider"),
    ("request_timeout", TIMEOUTS),
    ("ssl_verify", NO_INSECURE_TLS),
];

/// Keys of `general_settings` that have a counterpart here. All others change no response.
pub(super) const GENERAL_HINTS: &[(&str, &str)] = &[
    ("allowed_ips", "let the proxy in front, or a firewall, filter addresses"),
    ("background_health_checks", "remote backends are always probed, every HEALTH_CHECK_INTERVAL"),
    ("completion_model", "set default_models: {chat: ID} in the configuration file"),
    ("custom_auth", "clients' keys are in the key file"),
    ("global_max_parallel_requests", "set max_parallel_requests in each entry"),
    ("health_check_interval", "set router_settings.health_check_interval"),
    (
        "master_key",
        "clients' keys are in a key file: make one with `keyctl generate --name NAME`, or set LLAMAGATE_API_KEY",
    ),
    ("max_parallel_requests", "set max_parallel_requests in each entry, or max_concurrent= for a key"),
    ("max_request_size_mb", "set MAX_REQUEST_BODY_SIZE"),
    ("pass_through_endpoints", "only the routes of OpenAI's and Anthropic's API are passed on"),
    ("port", "set PORT"),
];

pub(super) const TIMEOUTS: &str = "REQUEST_TIMEOUT bounds each request, with all its attempts";
const STREAM_TIMEOUTS: &str =
    "REQUEST_TIMEOUT bounds the wait for the first byte, STREAM_IDLE_TIMEOUT each pause after it";
const NO_SPECIAL_FALLBACKS: &str = "fallbacks apply to failures only; such a response goes to the client";
const NO_CACHE: &str = "set CACHE to keep responses (see CACHE.md)";
const NO_TAGS: &str = "backends are not chosen by tags";
const NO_BUDGETS: &str = "costs are not counted; keys and entries have limits of requests and tokens";
const ONE_BREAKER: &str = "allowed_fails counts all failures alike";
const RETRY_RULES: &str = "num_retries is the same for all models, and what is safe to repeat is fixed";
const NO_INSECURE_TLS: &str = "certificates are always verified; SSL_CERT_FILE names your own authority";
const NO_MESSAGE_CHANGES: &str = "messages are passed on as they are";

/// Routing strategies of LiteLLM that this gateway does not have.
pub(super) const STRATEGIES: &[&str] =
    &["cost-based-routing", "priority", "provider-budget-routing", "usage-based-routing", "usage-based-routing-v2"];

/// Keys of an entry of `model_list`.
pub(super) const ENTRY: &[&str] = &["access_groups", "blocked", "model_id"];

/// Keys of `litellm_params` that change no response.
pub(super) const PARAMS: &[&str] = &[
    "allow_client_keepalive_override",
    "allowed_openai_params",
    "api_version",
    "base_model",
    "bucket_name",
    "budget_duration",
    "cache_control_injection_points",
    "client_id",
    "client_secret",
    "configurable_clientside_auth_params",
    "cost_per_query",
    "cost_per_second",
    "default_api_key_rpm_limit",
    "default_api_key_tpm_limit",
    "default_image_cost_per_image",
    "drop_params",
    "force_timeout",
    "id",
    "keepalive_seconds",
    "logger_fn",
    "max_file_size_mb",
    "metadata",
    "model_info",
    "no-log",
    "provider_affinity_header",
    "region_name",
    "regional_endpoint_uplift_multiplier",
    "regional_processing_uplift_multiplier_eu",
    "regional_processing_uplift_multiplier_us",
    "rust",
    "tenant_id",
    "text_completion",
    "tiered_pricing",
    "turn_off_message_logging",
    "use_chat_completions_api",
    "use_in_pass_through",
    "use_litellm_proxy",
    "use_xai_oauth",
    "vector_store_id",
    "verbose",
];

/// Beginnings of keys of `litellm_params` that change no response: prices, other providers, logging.
pub(super) const PARAM_PREFIXES: &[&str] = &[
    "adaptive_router_",
    "annotation_cost_",
    "anthropic_",
    "arize_",
    "auto_router_",
    "aws_",
    "azure_",
    "bedrock_",
    "cache_creation_",
    "cache_read_",
    "citation_cost_",
    "complexity_router_",
    "fireworks_forward_",
    "gcs_",
    "google_maps_grounding_",
    "humanloop_",
    "input_cost_per_",
    "langfuse_",
    "langsmith_",
    "litellm_",
    "milvus_",
    "ocr_cost_",
    "openai_",
    "output_cost_per_",
    "output_vector_",
    "quality_router_",
    "s3_",
    "search_context_cost_",
    "slack_",
    "valkey_",
    "vertex_",
    "watsonx_",
];

/// Keys of `litellm_params` that llamagate does not obey, each with what it does in their place.
pub(super) const PARAM_HINTS: &[(&str, &str)] = &[
    ("additional_drop_params", "list them in strip_params of the model under models:"),
    ("cache", NO_CACHE),
    ("caching", NO_CACHE),
    ("context_window_fallback_dict", NO_SPECIAL_FALLBACKS),
    ("cooldown_time", "router_settings.cooldown_time is the same for all backends"),
    ("enable_json_schema_validation", "the backend alone enforces response_format"),
    ("ensure_alternating_roles", NO_MESSAGE_CHANGES),
    ("fallbacks", "set router_settings.fallbacks"),
    ("guardrails", "requests are not filtered"),
    ("itpm", "tpm limits input and output together"),
    ("max_budget", NO_BUDGETS),
    ("max_retries", RETRY_RULES),
    ("merge_reasoning_content_in_choices", NO_MESSAGE_CHANGES),
    ("mock_response", "every response is the backend's"),
    ("mock_timeout", "every response is the backend's"),
    ("num_retries", RETRY_RULES),
    ("otpm", "tpm limits input and output together"),
    ("prompt_id", "prompts are not managed here"),
    ("request_timeout", TIMEOUTS),
    ("retry_policy", RETRY_RULES),
    ("roles", NO_MESSAGE_CHANGES),
    ("silent_model", "requests go to one model"),
    ("ssl_verify", NO_INSECURE_TLS),
    ("stream", "each request sets it"),
    ("stream_timeout", STREAM_TIMEOUTS),
    ("stream_timeout_by_service_tier", STREAM_TIMEOUTS),
    ("supports_system_message", NO_MESSAGE_CHANGES),
    ("tag_regex", NO_TAGS),
    ("tags", NO_TAGS),
    ("timeout", TIMEOUTS),
    ("timeout_by_service_tier", TIMEOUTS),
];

/// Headers that `extra_headers` cannot set: they belong to one connection, or describe the body.
pub(super) const RESERVED_HEADERS: &[&str] = &[
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-request-id",
];

/// Values of `model_info.mode` for which this gateway has no routes.
pub(super) const MODES: &[&str] = &[
    "audio_speech",
    "audio_transcription",
    "batch",
    "image_edit",
    "image_generation",
    "moderation",
    "moderations",
    "ocr",
    "realtime",
    "search",
    "vector_store",
    "video_generation",
];

/// Providers whose API is spoken here: OpenAI's, or the one in [`APIS`]. LiteLLM removes their prefix from model names.
pub(super) const COMPATIBLE: &[&str] = &[
    "ai21",
    "ai21_chat",
    "aiml",
    "aiohttp_openai",
    "anyscale",
    "apertis",
    "baseten",
    "cerebras",
    "chutes",
    "codestral",
    "cohere",
    "cometapi",
    "cortecs",
    "custom_openai",
    "dashscope",
    "deepinfra",
    "deepseek",
    "docker_model_runner",
    "edenai",
    "empower",
    "featherless_ai",
    "fireworks_ai",
    "friendliai",
    "galadriel",
    "github",
    "groq",
    "helicone",
    "hosted_vllm",
    "huggingface",
    "hyperbolic",
    "inception",
    "infinity",
    "jina_ai",
    "lambda_ai",
    "lemonade",
    "libertai",
    "litellm_proxy",
    "llamafile",
    "lm_studio",
    "meta_llama",
    "mistral",
    "modelscope",
    "moonshot",
    "morph",
    "nano-gpt",
    "nebius",
    "novita",
    "nscale",
    "nvidia_nim",
    "ollama",
    "ollama_chat",
    "oobabooga",
    "openai",
    "openai_like",
    "openrouter",
    "parasail",
    "perplexity",
    "poe",
    "publicai",
    "qwencloud",
    "sambanova",
    "synthetic",
    "tencent",
    "tensormesh",
    "text-completion-openai",
    "together_ai",
    "v0",
    "vercel_ai_gateway",
    "vllm",
    "volcengine",
    "voyage",
    "wandb",
    "xai",
    "xinference",
    "zai",
];

/// Providers with an API of their own that is spoken here. LiteLLM's `huggingface` is text-embeddings-inference.
pub(super) const APIS: &[(&str, BackendApi)] = &[
    ("cohere", BackendApi::Cohere),
    ("hosted_vllm", BackendApi::Vllm),
    ("huggingface", BackendApi::Tei),
    ("infinity", BackendApi::Infinity),
    ("jina_ai", BackendApi::Jina),
    ("ollama", BackendApi::Ollama),
    ("ollama_chat", BackendApi::Ollama),
    ("voyage", BackendApi::Voyage),
];

/// What the path of Cohere's address for clients of OpenAI's API begins with.
pub(super) const COHERE_AS_OPENAI: &str = "/compatibility/";

/// Providers with an API that is not spoken here.
pub(super) const FOREIGN: &[&str] = &[
    "a2a",
    "aleph_alpha",
    "amazon_nova",
    "anthropic",
    "anthropic_text",
    "assemblyai",
    "auto_router",
    "aws_polly",
    "azure",
    "azure_ai",
    "azure_speech",
    "azure_text",
    "bedrock",
    "bedrock_converse",
    "bedrock_mantle",
    "chatgpt",
    "clarifai",
    "cloudflare",
    "cohere_chat",
    "databricks",
    "datarobot",
    "deepgram",
    "elevenlabs",
    "fal_ai",
    "gemini",
    "gigachat",
    "github_copilot",
    "gradient_ai",
    "heroku",
    "langflow",
    "langgraph",
    "maritalk",
    "milvus",
    "nlp_cloud",
    "oci",
    "palm",
    "petals",
    "predibase",
    "recraft",
    "replicate",
    "runwayml",
    "sagemaker",
    "sagemaker_chat",
    "sagemaker_nova",
    "sap",
    "snowflake",
    "stability",
    "text-completion-codestral",
    "topaz",
    "triton",
    "vertex_ai",
    "vertex_ai-anthropic_models",
    "vertex_ai_beta",
    "watsonx",
    "watsonx_text",
];

/// Beginnings of model names without a provider, and the provider that LiteLLM takes for them.
pub(super) const INFERRED: &[(&str, &str)] = &[
    ("gpt-", "openai"),
    ("chatgpt-", "openai"),
    ("o1", "openai"),
    ("o3", "openai"),
    ("o4", "openai"),
    ("text-embedding-3-", "openai"),
    ("text-embedding-ada-", "openai"),
    ("claude-", "anthropic"),
    ("gemini-", "vertex_ai"),
    ("command-", "cohere_chat"),
];

/// Providers that need neither `api_base` nor API key: the name, and the URL.
pub(super) const ON_THIS_MACHINE: &[(&str, &str)] =
    &[("ollama", "http://localhost:11434/v1"), ("ollama_chat", "http://localhost:11434/v1")];

/// Providers that need no `api_base`: the name, the URL, and the variable that holds the API key.
pub(super) const WELL_KNOWN: &[(&str, &str, &str)] = &[
    ("openai", "https://api.openai.com/v1", "OPENAI_API_KEY"),
    ("groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    ("mistral", "https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    ("deepseek", "https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    ("together_ai", "https://api.together.xyz/v1", "TOGETHERAI_API_KEY"),
    ("fireworks_ai", "https://api.fireworks.ai/inference/v1", "FIREWORKS_AI_API_KEY"),
    ("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    ("xai", "https://api.x.ai/v1", "XAI_API_KEY"),
    ("cerebras", "https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
    ("cohere", "https://api.cohere.com/v1", "COHERE_API_KEY"),
    ("jina_ai", "https://api.jina.ai/v1", "JINA_AI_API_KEY"),
    ("voyage", "https://api.voyageai.com/v1", "VOYAGE_API_KEY"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_provider_is_both_spoken_to_and_left_out() {
        assert!(!COMPATIBLE.iter().any(|name| FOREIGN.contains(name)));
        let named = WELL_KNOWN.iter().map(|(name, _, _)| name).chain(ON_THIS_MACHINE.iter().map(|(name, _)| name));
        let named = named.chain(APIS.iter().map(|(name, _)| name));
        assert!(named.into_iter().all(|name| COMPATIBLE.contains(name)));
    }
}
