//! LiteLLM and SMG: gateways for language models, which read requests as llamagate does.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::traffic::ModelName;

/// Returns LiteLLM's configuration: the model of the mock, under its id and its alias.
pub(super) fn litellm(upstream: SocketAddr) -> String {
    let model = ModelName::OF_MOCK.text();
    let entry = |name: ModelName| {
        format!(
            "- model_name: {}\n  litellm_params: {{model: openai/{model}, api_base: \"http://{upstream}/v1\", api_key: none}}\n",
            name.text()
        )
    };
    let models = [ModelName::OF_MOCK, ModelName::Alias(0)].map(entry).concat();
    // As nginx, it checks no key.
    format!("model_list:\n{models}general_settings: {{dangerously_permit_weak_or_unset_master_key: true}}\n")
}

/// Completes the command that starts LiteLLM's proxy, with one worker.
pub(super) fn litellm_command(command: &mut Command, address: SocketAddr, config: &Path) {
    command.arg("--config").arg(config).args(["--host", &address.ip().to_string()]);
    command.args(["--port", &address.port().to_string(), "--num_workers", "1", "--telemetry", "False"]);
    // Nothing outside this machine is asked for prices of models.
    command.env("LITELLM_LOCAL_MODEL_COST_MAP", "True").env("LITELLM_LOG", "ERROR");
}

/// Completes the command that starts SMG in front of one server.
pub(super) fn smg(command: &mut Command, address: SocketAddr, upstream: SocketAddr) {
    command.args(["launch", "--host", &address.ip().to_string(), "--port", &address.port().to_string()]);
    command.args(["--worker-urls", &format!("http://{upstream}"), "--backend", "openai"]);
    command.args(["--policy", "round_robin", "--log-level", "error"]);
}
