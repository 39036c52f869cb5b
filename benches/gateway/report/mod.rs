//! The results: medians over the rounds, all values as JSON.
//!
//! - `headline.rs`: the table of the headline
//! - `tables.rs`: the tables of the workloads and of the parts

mod headline;
mod tables;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, process::Command};

use serde_json::{Value, json};

use crate::contenders::peers::Peer;
use crate::options::Options;
use crate::workloads::Reading;
use crate::{measure, statistics::Spread};

/// One workload in one round, with two turns for each contender.
pub(crate) struct Measured {
    pub(crate) workload: &'static str,
    pub(crate) round: usize,
    pub(crate) readings: Vec<(&'static str, Vec<Reading>)>,
}

/// The results of a run.
pub(crate) struct Report {
    pub(crate) measured: Vec<Measured>,
    /// The results of the parts beside the workloads, by part and name.
    pub(crate) facts: BTreeMap<String, BTreeMap<String, Value>>,
    max_steal: f64,
    about: Value,
}

impl Measured {
    /// Returns the mean of a contender's two turns.
    pub(crate) fn mean(&self, contender: &str, name: &str) -> Option<f64> {
        let (_, turns) = self.readings.iter().find(|(found, _)| *found == contender)?;
        let values: Vec<f64> = turns.iter().filter_map(|turn| turn.get(name).copied()).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    }

    fn steal(&self) -> f64 {
        let turns = self.readings.iter().flat_map(|(_, turns)| turns);
        turns.filter_map(|turn| turn.get("steal").copied()).fold(0.0, f64::max)
    }
}

impl Report {
    pub(crate) fn new(options: &Options) -> Self {
        let output_of = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output().ok()?;
            Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let about = json!({
            "date": output_of("date", &["-u", "+%Y-%m-%dT%H:%MZ"]),
            "machine": measure::machine(),
            "commit": output_of("git", &["describe", "--always", "--dirty"]),
            "rustc": output_of("rustc", &["--version"]),
            "peers": Peer::ALL.iter().filter_map(|peer| peer.version()).collect::<Vec<_>>(),
            "rounds": options.rounds,
            "seconds": options.seconds,
        });
        Self { measured: Vec::new(), facts: BTreeMap::new(), max_steal: options.max_steal, about }
    }

    /// Returns when, where and how it was measured, as one line.
    pub(super) fn about(&self) -> String {
        let text = |name: &str| self.about[name].as_str().unwrap_or("unknown").to_owned();
        let peers: Vec<&str> = self.about["peers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let (rounds, seconds) = (&self.about["rounds"], &self.about["seconds"]);
        let peers = peers.join(", ");
        format!("{}, {}; {rounds} rounds of {seconds} s; {peers}; {}", text("date"), text("machine"), text("commit"))
    }

    /// Adds a result of a part.
    pub(crate) fn note(&mut self, part: &str, name: &str, value: impl Into<Value>) {
        self.facts.entry(part.to_owned()).or_default().insert(name.to_owned(), value.into());
    }

    /// Returns a number that a part measured.
    pub(crate) fn fact(&self, part: &str, name: &str) -> Option<f64> {
        self.facts.get(part)?.get(name)?.as_f64()
    }

    /// Returns the rounds of a workload without much stolen CPU time, and how many were dropped.
    pub(super) fn rounds(&self, workload: &str) -> (Vec<&Measured>, usize) {
        let all: Vec<&Measured> = self.measured.iter().filter(|measured| measured.workload == workload).collect();
        let kept: Vec<&Measured> = all.iter().copied().filter(|measured| measured.steal() <= self.max_steal).collect();
        let dropped = all.len() - kept.len();
        (kept, dropped)
    }

    /// Returns a contender's values over the rounds.
    pub(crate) fn value(&self, workload: &str, contender: &str, name: &str) -> Option<Spread> {
        self.over_rounds(workload, |measured| measured.mean(contender, name))
    }

    /// Returns the differences to another contender in the same round.
    pub(crate) fn added(&self, workload: &str, contender: &str, to: &str, name: &str) -> Option<Spread> {
        self.over_rounds(workload, |round| Some(round.mean(contender, name)? - round.mean(to, name)?))
    }

    /// Returns the ratios to another contender in the same round.
    pub(crate) fn ratio(&self, workload: &str, contender: &str, to: &str, name: &str) -> Option<Spread> {
        self.over_rounds(workload, |round| Some(round.mean(contender, name)? / round.mean(to, name)?))
    }

    /// Returns the sum over all turns, dropped rounds included.
    pub(crate) fn sum(&self, workload: &str, contender: &str, name: &str) -> f64 {
        let rounds = self.measured.iter().filter(|measured| measured.workload == workload);
        let turns = rounds.flat_map(|measured| measured.readings.iter().filter(|(found, _)| *found == contender));
        turns.flat_map(|(_, turns)| turns).filter_map(|turn| turn.get(name)).sum()
    }

    fn over_rounds(&self, workload: &str, value: impl Fn(&Measured) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.rounds(workload).0.into_iter().filter_map(value).filter(|value| value.is_finite()).collect())
    }

    /// Writes everything as JSON, with the targets as `targets.rs` evaluated them.
    pub(crate) fn save(&self, options: &Options, targets: Vec<Value>) {
        let measured = self.measured.iter().map(|measured| {
            let readings: BTreeMap<_, _> = measured.readings.iter().map(|(name, turns)| (*name, turns)).collect();
            json!({ "workload": measured.workload, "round": measured.round, "steal": measured.steal(), "turns": readings })
        });
        let whole = json!({
            "about": self.about,
            "measured": measured.collect::<Vec<_>>(),
            "facts": self.facts,
            "targets": targets,
        });
        let path = options.json.clone().unwrap_or_else(|| self.default_path());
        let text = serde_json::to_string_pretty(&whole).expect("JSON");
        // A new checkout has no such folder if nothing was built for the benchmark.
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        }
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        println!("\nwritten: {}", path.display());
    }

    fn default_path(&self) -> PathBuf {
        let date = self.about["date"].as_str().unwrap_or("undated").replace(':', "");
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/bench/gateway-{date}.json"))
    }
}
