//! Instructions per request, counted by callgrind: the result does not depend on the load of the machine.
//!
//! A gateway runs twice, with N and with 2N requests on one connection. The difference divided by N does not include
//! start and stop. Instructions of the kernel are not counted.

use std::fs;
use std::path::Path;

use super::fleet;
use crate::contenders::gateways::{Builds, EXPIRED_KEY, LIMITED_KEY, OFF, Setting, Setup};
use crate::contenders::peers;
use crate::options::Options;
use crate::plan::Flow;
use crate::report::Report;
use crate::traffic::{DELTAS, Exchange, ModelName};

const PART: &str = "instructions";

/// Requests of the shorter run.
const REQUESTS: u64 = 1_000;

/// One kind of request to count.
struct Variant {
    what: &'static str,
    bare: bool,
    settings: &'static [Setting],
    /// Number of models in the configuration file.
    models: u16,
    key: Option<&'static str>,
    exchange: Exchange,
    /// Requests of the shorter run.
    requests: u64,
    /// Units in one request: 1, or its number of frames.
    units: f64,
}

/// Counts all variants; prints a message and counts nothing if valgrind is missing.
pub(crate) fn measure(options: &Options, builds: &Builds, report: &mut Report) {
    if peers::find("valgrind").is_none() {
        println!("valgrind is missing: no instructions are counted");
        return;
    }
    let json = |what, bare, settings, key| {
        let (exchange, requests) = (Exchange::json(256), REQUESTS);
        Variant { what, bare, settings, models: 1, key, exchange, requests, units: 1.0 }
    };
    let one_of = |what, models, way| {
        let exchange = fleet::exchange(models, way);
        Variant { models, exchange, ..json(what, false, &[], None) }
    };
    let variants = [
        json("request, features on", false, &[], None),
        json("request, features off", true, OFF, None),
        json("request, features off, but metrics and access log on", false, OFF, None),
        one_of("request for the only model, by alias: the answer is renamed", 1, ModelName::Alias),
        one_of("request for one of 200 models, by id", 200, ModelName::Id),
        one_of("request for one of 200 models, by alias", 200, ModelName::Alias),
        json("401", false, &[], Some(EXPIRED_KEY)),
        json("request beyond a key's limit", false, &[], Some(LIMITED_KEY)),
        Variant {
            what: "frame of a stream, features on",
            bare: false,
            settings: &[],
            models: 1,
            key: None,
            exchange: Exchange::stream(0),
            requests: 50,
            units: DELTAS as f64 + 3.0,
        },
    ];
    for variant in &variants {
        let once = run(options, builds, variant, variant.requests);
        let twice = run(options, builds, variant, variant.requests * 2);
        let each = (twice as f64 - once as f64) / variant.requests as f64 / variant.units;
        println!("{:>10.0} instructions: {}", each, variant.what);
        report.note(PART, variant.what, each.round());
    }
}

/// Returns the instructions of a whole run with `requests` requests.
fn run(options: &Options, builds: &Builds, variant: &Variant, requests: u64) -> u64 {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let counts = folder.path().join("callgrind.out");
    let file = format!("--callgrind-out-file={}", counts.display());
    let valgrind = ["valgrind", "--quiet", "--tool=callgrind", &file].map(str::to_owned);
    let program = if variant.bare { &builds.bare } else { &builds.on };
    let Variant { settings, models, .. } = *variant;
    let setup = Setup::new("under valgrind", program);
    let mut gateway = Setup { settings, models, outer: &valgrind, ..setup }.start();
    let mut flow = Flow::new(variant.exchange, 1, 0.0);
    flow.count = Some(requests);
    flow.key = variant.key.map(str::to_owned);
    let mut done = 0;
    // A flow without a rate sends until its window ends, so it runs again until all requests are sent.
    while done < requests {
        flow.count = Some(requests - done);
        let outcome = gateway.drive(vec![flow.clone()], 0, 20_000, 60_000);
        let tally = &outcome.flows[0];
        assert_eq!(tally.failures(), 0, "{}: {:?}", variant.what, tally.failed);
        done += tally.good + tally.refused.values().sum::<u64>();
    }
    gateway.stop();
    if let Some(folder) = &options.counts {
        let name = format!("{} x {requests}.callgrind", variant.what);
        fs::copy(&counts, folder.join(name)).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    }
    total(&counts)
}

fn total(counts: &Path) -> u64 {
    let text = fs::read_to_string(counts).expect("callgrind writes its counts");
    let line = text.lines().find_map(|line| line.strip_prefix("totals:").or_else(|| line.strip_prefix("summary:")));
    line.and_then(|line| line.trim().parse().ok()).expect("callgrind writes a total")
}
