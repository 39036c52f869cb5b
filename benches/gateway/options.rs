//! The flags of `cargo bench --bench gateway -- ...`.

use std::path::PathBuf;

use clap::Parser;

use super::workloads::Workload;

/// What `--only` calls the workloads of the headline.
const HEADLINE: &str = "headline";

/// Measures the overhead of the gateway, compared with a direct connection, nginx and HAProxy.
#[derive(Debug, Clone, Parser)]
#[command(name = "cargo bench --bench gateway --")]
pub(crate) struct Options {
    /// Number of rounds; in each, every contender has two turns.
    #[arg(long, default_value_t = 7)]
    pub(crate) rounds: usize,
    /// Length of a turn in seconds, without the warm-up.
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
    /// Run only these parts: `closed-8,W5,memory`; `W5` means all of `W5-1`, `W5-32` and `W5-256`, and `headline` the
    /// workloads in a closed loop.
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Run only these contenders: `on,nginx`. The direct connection always runs.
    #[arg(long, value_delimiter = ',')]
    pub(crate) contenders: Vec<String>,
    /// The JSON file; default target/bench/gateway-DATE.json.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Use these programs and build nothing: the gateway, and the gateway with the feature `bare`.
    #[arg(long, num_args = 2, value_names = ["GATEWAY", "BARE"])]
    pub(crate) built: Option<Vec<PathBuf>>,
    /// Drop rounds with more stolen CPU time than this, in percent.
    #[arg(long, default_value_t = 2.0)]
    pub(crate) max_steal: f64,
    /// Instead: run mixed traffic for this many minutes and check whether memory, descriptors or threads grow.
    #[arg(long, value_name = "MINUTES")]
    pub(crate) soak: Option<f64>,
    /// Instead: count the instructions of each request with callgrind.
    #[arg(long)]
    pub(crate) instructions: bool,
    /// With --instructions: fail if a count is more than 3 % above its figure in benches/gateway/instructions.json.
    #[arg(long, requires = "instructions")]
    pub(crate) check: bool,
    /// With --instructions: write the counts as the new figures.
    #[arg(long, requires = "instructions", conflicts_with = "check")]
    pub(crate) update: bool,
    /// With --instructions: keep callgrind's files in this folder, for callgrind_annotate.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) counts: Option<PathBuf>,
    /// Cargo adds this flag.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// Whether to run this workload.
    pub(crate) fn wants_workload(&self, workload: &Workload) -> bool {
        self.wants(workload.name) || (workload.is_headline && self.only.iter().any(|only| only == HEADLINE))
    }

    /// Whether to run the part of this name: `W1` means `W1-c1` and `W1-c8`, but not `W10`.
    pub(crate) fn wants(&self, part: &str) -> bool {
        let part = part.to_lowercase();
        let matches = |only: &String| {
            part.strip_prefix(&only.to_lowercase()).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        self.only.is_empty() || self.only.iter().any(matches)
    }

    /// Whether to run the contender of this name.
    pub(crate) fn wants_contender(&self, name: &str) -> bool {
        self.contenders.is_empty() || self.contenders.iter().any(|wanted| wanted == name)
    }

    /// Returns the length of a turn in milliseconds, at least `least`.
    pub(crate) fn window(&self, least: u64) -> u64 {
        ((self.seconds * 1e3) as u64).max(least)
    }
}
