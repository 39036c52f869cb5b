//! The arguments of the commands that write about the program.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use clap_complete::Shell;

#[derive(Args)]
#[command(after_help = "Example:
  llamagate completions bash > ~/.local/share/bash-completion/completions/llamagate")]
pub(in crate::cli) struct CompletionsArgs {
    /// The shell
    pub(super) shell: Shell,
}

#[derive(Args)]
#[command(after_help = "Examples:
  llamagate man | man -l -
  llamagate man --output ~/.local/share/man/man1")]
pub(in crate::cli) struct ManArgs {
    /// The subcommand whose page is printed [default: that of the program]
    #[arg(conflicts_with = "output")]
    pub(super) subcommand: Option<String>,
    /// Folder that gets the pages of the program and of all subcommands
    #[arg(long, short, value_name = "DIR")]
    pub(super) output: Option<PathBuf>,
}

#[derive(Args)]
#[command(after_help = "Example:
  llamagate schema --output llamagate.schema.json
and at the top of llamagate.yaml, for editors with yaml-language-server:
  # yaml-language-server: $schema=llamagate.schema.json")]
pub(in crate::cli) struct SchemaArgs {
    /// File to write; - is standard output, the default
    #[arg(long, short, value_name = "PATH")]
    pub(super) output: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long)]
    pub(super) force: bool,
}

/// Who may use a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Audience {
    /// Programs on this machine, without a key
    Local,
    /// Every machine of the network, with a key
    Network,
}

#[derive(Args)]
#[command(after_help = "Examples:
  llamagate init                                        asks two questions
  llamagate init --model qwen3-4b.gguf --for local      asks nothing")]
pub(in crate::cli) struct InitArgs {
    /// Model as `serve` and `pull` take it; none: every model that is found is served
    #[arg(long, value_name = "MODEL")]
    pub(super) model: Option<String>,
    /// Who may use the service
    #[arg(long = "for", value_name = "WHOM")]
    pub(super) audience: Option<Audience>,
    /// File to write; its schema is written beside it
    #[arg(long, short, value_name = "PATH", default_value = "llamagate.yaml")]
    pub(super) output: PathBuf,
    /// Replace the files if they are there
    #[arg(long)]
    pub(super) force: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}
