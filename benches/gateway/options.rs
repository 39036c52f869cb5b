//! The flags of `cargo bench --bench gateway -- ...`.

use clap::Parser;
use std::path::PathBuf;

/// What the gateway costs, beside a direct connection, nginx and HAProxy.
#[derive(Debug, Clone, Parser)]
#[command(name = "cargo bench --bench gateway --")]
pub(crate) struct Options {
    /// Rounds; in each, every contender has two turns.
    #[arg(long, default_value_t = 7)]
    pub(crate) rounds: usize,
    /// Length of a turn in seconds, warm-up left out.
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
    /// Only these parts: `W1-max,W5,memory`; `W5` is all of `W5-1`, `W5-32` and `W5-256`.
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Only these contenders: `on,nginx`. The direct connection is always there.
    #[arg(long, value_delimiter = ',')]
    pub(crate) contenders: Vec<String>,
    /// Where the JSON goes; target/bench/gateway-DATE.json if not given.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Use these programs as they are, and build nothing: the gateway, and the one with the feature `bare`.
    #[arg(long, num_args = 2, value_names = ["GATEWAY", "BARE"])]
    pub(crate) built: Option<Vec<PathBuf>>,
    /// Rounds with more stolen CPU time than this, in percent, are dropped.
    #[arg(long, default_value_t = 2.0)]
    pub(crate) max_steal: f64,
    /// Instead: mixed traffic for so many minutes, and whether memory, descriptors or threads grow.
    #[arg(long, value_name = "MINUTES")]
    pub(crate) soak: Option<f64>,
    /// Instead: instructions for each request, with callgrind.
    #[arg(long)]
    pub(crate) instructions: bool,
    /// With --instructions: keep callgrind's files in this folder, for callgrind_annotate.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) counts: Option<PathBuf>,
    /// Cargo says this.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// Whether a part of this name is wanted: `W1` is all of `W1-c1`, `W1-c8`, `W1-max`, and not `W10`.
    pub(crate) fn wants(&self, part: &str) -> bool {
        let part = part.to_lowercase();
        let is_it = |only: &String| {
            part.strip_prefix(&only.to_lowercase()).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        self.only.is_empty() || self.only.iter().any(is_it)
    }

    /// Whether a contender of this name is wanted.
    pub(crate) fn wants_contender(&self, name: &str) -> bool {
        self.contenders.is_empty() || self.contenders.iter().any(|wanted| wanted == name)
    }

    /// The length of a turn in milliseconds, but not less than `least`.
    pub(crate) fn window(&self, least: u64) -> u64 {
        ((self.seconds * 1e3) as u64).max(least)
    }
}
