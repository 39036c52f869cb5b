//! Instructions of a request, a refusal and a frame, counted by callgrind: they hardly depend on the load of the machine.
//!
//! - `callgrind.rs`: runs a gateway under callgrind and counts between two points
//! - `figures.rs`: the checked figures, above which `--check` fails

mod callgrind;
mod figures;

use std::fs;

use super::fleet;
use crate::contenders::gateways::{Builds, EXPIRED_KEY, LIMITED_KEY, OFF, Setup};
use crate::contenders::peers;
use crate::options::Options;
use crate::plan::Flow;
use crate::report::Report;
use crate::traffic::{DELTAS, Exchange, ModelName};
use callgrind::Counter;
use figures::Counts;

const PART: &str = "instructions";

/// Counted requests, and streams.
const REQUESTS: u64 = 200;
const STREAMS: u64 = 10;

/// Requests and streams before them.
const WARM_UP: u64 = 10;

/// Frames of a stream, with that of the role, that of the usage, and the end mark.
const FRAMES: u64 = DELTAS as u64 + 3;

/// One kind of request to count.
struct Variant {
    what: &'static str,
    key: Option<&'static str>,
    exchange: Exchange,
    /// Requests before the counted ones, which fill caches and pools.
    warm_up: u64,
    requests: u64,
    /// Units in one request: 1, or its number of frames.
    units: u64,
}

/// Counts everything. With `--check` or `--update` only what the figures hold: returns false if one is exceeded.
pub(crate) fn measure(options: &Options, builds: &Builds, report: &mut Report) -> bool {
    if ["valgrind", "vgdb"].iter().any(|program| peers::find(program).is_none()) {
        println!("valgrind is missing: no instructions are counted");
        return true;
    }
    if let Some(folder) = &options.counts {
        fs::create_dir_all(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    }
    let on = Setup::new("under valgrind", &builds.on);
    let counts = count(options, &on, &checked(), "");
    note(report, &counts);
    if options.update {
        figures::update(&counts, builds);
        return true;
    }
    if options.check {
        return figures::check(&counts, builds);
    }
    let request = [Variant::of("request", fleet::exchange(1, ModelName::Id))];
    let off = Setup { settings: OFF, ..Setup::new("under valgrind", &builds.bare) };
    note(report, &count(options, &off, &request, ", features off"));
    let off = Setup { settings: OFF, ..on };
    note(report, &count(options, &off, &request, ", features off, but metrics and access log on"));
    let named = [("request", ModelName::Id as fn(u16) -> ModelName), (RENAMED, ModelName::Alias)];
    let named = named.map(|(what, kind)| Variant::of(what, fleet::exchange(200, kind)));
    note(report, &count(options, &Setup { models: 200, ..on }, &named, ", one of 200 models"));
    true
}

const RENAMED: &str = "request by an alias, its answer renamed";

/// What the figures hold.
fn checked() -> [Variant; 5] {
    let request = || Variant::of("request", Exchange::json(256));
    [
        request(),
        Variant::of(RENAMED, fleet::exchange(1, ModelName::Alias)),
        Variant { what: "401", key: Some(EXPIRED_KEY), ..request() },
        // The key has 60 requests a minute, which are not counted.
        Variant { what: "429", key: Some(LIMITED_KEY), warm_up: 80, ..request() },
        Variant { requests: STREAMS, units: FRAMES, ..Variant::of("frame of a stream", Exchange::stream(0)) },
    ]
}

impl Variant {
    fn of(what: &'static str, exchange: Exchange) -> Self {
        Self { what, key: None, exchange, warm_up: WARM_UP, requests: REQUESTS, units: 1 }
    }

    fn flow(&self) -> Flow {
        let mut flow = Flow::new(self.exchange, 1, 0.0);
        flow.key = self.key.map(str::to_owned);
        flow
    }
}

/// Counts the variants with one gateway.
fn count(options: &Options, setup: &Setup<'_>, variants: &[Variant], kind: &str) -> Counts {
    let mut counter = Counter::start(setup);
    let counts = variants.iter().map(|variant| {
        let what = format!("{}{kind}", variant.what);
        let all = counter.count(&variant.flow(), variant.warm_up, variant.requests);
        if let Some(folder) = &options.counts {
            counter.keep(&folder.join(format!("{what}.callgrind")));
        }
        let each = (all / (variant.requests * variant.units) as f64).round();
        println!("{each:>10.0} instructions: {what}");
        (what, each)
    });
    counts.collect()
}

fn note(report: &mut Report, counts: &Counts) {
    for (what, count) in counts {
        report.note(PART, what, *count);
    }
}
