//! The arguments of `llamagate launch`.

use clap::{Args, ValueEnum};

use crate::cli::client::ClientArgs;

/// A coding agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum AgentName {
    /// Claude Code: ~/.claude/settings.json
    Claude,
    /// Codex: ~/.codex/config.toml
    Codex,
    /// opencode: ~/.config/opencode/opencode.json
    Opencode,
    /// Aider: ~/.aider.conf.yml
    Aider,
    /// Continue: ~/.continue/config.yaml
    Continue,
}

#[derive(Args)]
#[command(after_help = "Examples:
  llamagate launch codex                       shows what would change, and asks
  llamagate launch claude --model qwen3-coder --yes")]
pub(in crate::cli) struct LaunchArgs {
    /// The agent whose configuration is changed
    pub(super) agent: AgentName,
    /// Name of the model [default: the first chat model that the key may use]
    #[arg(long, value_name = "NAME")]
    pub(super) model: Option<String>,
    /// Do not ask
    #[arg(long, short)]
    pub(super) yes: bool,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArgs,
}
