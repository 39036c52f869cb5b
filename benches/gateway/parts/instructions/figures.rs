//! The checked figures, in benches/gateway/instructions.json: how many instructions each kind of request took when it was
//! last looked at, by the kind of build.
//!
//! They differ by build, because an unoptimised program takes about ten times as many. Both grow with the work for a request.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::contenders::gateways::Builds;

/// A count may be this much above or below its figure, for other versions of libc and the seeds of hash tables.
const TOLERANCE: f64 = 0.03;

/// The instructions of each kind of request, by its name.
pub(super) type Counts = BTreeMap<String, f64>;

/// The figures of each build.
type Figures = BTreeMap<String, Counts>;

/// Prints each count beside its figure; returns false if one is exceeded.
pub(super) fn check(counts: &Counts, builds: &Builds) -> bool {
    let build = name(builds);
    let figures = read();
    let known = figures.get(build).unwrap_or_else(|| panic!("{} has no figures: {build}", path().display()));
    let mut is_good = true;
    println!("\n| {build} build | figure | counted | change |\n|---|---:|---:|---:|");
    for (what, count) in counts {
        let figure = known.get(what).unwrap_or_else(|| panic!("{} has no figure: {what}", path().display()));
        let change = count / figure - 1.0;
        let verdict = if change > TOLERANCE {
            is_good = false;
            " MORE"
        } else if change < -TOLERANCE {
            " less"
        } else {
            ""
        };
        println!("| {what} | {figure:.0} | {count:.0} | {:+.1} %{verdict} |", change * 100.0);
    }
    if !is_good {
        println!("\nA request takes more instructions than before. If that is right, write the new figures:");
        println!("  scripts/bench-instructions.sh --update, for each build (docs/BENCHMARK.md)");
    }
    is_good
}

/// Writes the counts as the figures of this build.
pub(super) fn update(counts: &Counts, builds: &Builds) {
    let mut figures = read();
    figures.insert(name(builds).to_owned(), counts.clone());
    let text = serde_json::to_string_pretty(&figures).expect("JSON");
    fs::write(path(), text + "\n").expect("the figures can be written");
    println!("written: {}", path().display());
}

fn read() -> Figures {
    let text = fs::read_to_string(path()).unwrap_or_else(|_| "{}".to_owned());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path().display()))
}

/// Returns the name of the build in the file.
fn name(builds: &Builds) -> &'static str {
    if builds.is_optimised { "optimised" } else { "unoptimised" }
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/gateway/instructions.json")
}
