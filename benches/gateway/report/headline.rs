//! The table of the headline, as docs/BENCHMARK.md and README.md show it: a column for each contender, ratios to nginx in the
//! same run first.

use super::Report;
use crate::contenders::peers::Peer;

/// A row: its title, the workload, the reading, and how it is shown.
struct Row(&'static str, &'static str, &'static str, Shown);

/// How a figure is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// The ratio to nginx in the same round.
    Ratio,
    /// The difference to nginx in the same round, in microseconds.
    OverNginx,
    /// The difference to the direct connection in the same round, in microseconds.
    OverDirect,
    /// The median over the rounds.
    Value,
}

const ROWS: [Row; 11] = [
    Row("CPU of a request, c=8, times nginx", "closed-8", "cpu", Shown::Ratio),
    Row("CPU of a request, c=64, times nginx", "closed-64", "cpu", Shown::Ratio),
    Row("CPU of a request, model renamed in the answer, times nginx", "renamed", "cpu", Shown::Ratio),
    Row("CPU of a stream's frame, times nginx", "frames", "cpu/frame", Shown::Ratio),
    Row("requests/s on one core, c=64, times nginx", "closed-64", "rps", Shown::Ratio),
    Row("first byte of a stream, p50, more than nginx, µs", "first-byte", "first p50", Shown::OverNginx),
    Row("CPU of a request, c=8, µs", "closed-8", "cpu", Shown::Value),
    Row("requests/s on one core, c=64", "closed-64", "rps", Shown::Value),
    Row("added at full load, c=8, p50, µs", "closed-8", "p50", Shown::OverDirect),
    Row("added at full load, c=8, p99, µs", "closed-8", "p99", Shown::OverDirect),
    Row("context switches of a request, c=64", "closed-64", "switches", Shown::Value),
];

/// The contenders in the order of the columns.
const COLUMNS: [(&str, &str); 7] = [
    ("on", "everything on"),
    ("off", "all that off"),
    ("nginx", "nginx"),
    ("haproxy", "HAProxy"),
    ("envoy", "Envoy"),
    ("smg", "SMG"),
    ("litellm", "LiteLLM"),
];

impl Report {
    /// Prints the table, if the workloads of the headline were measured.
    pub(crate) fn print_headline(&self) {
        let has_run = |name: &&(&str, &str)| ROWS.iter().any(|row| self.value(row.1, name.0, row.2).is_some());
        let columns: Vec<&(&str, &str)> = COLUMNS.iter().filter(has_run).collect();
        if !ROWS.iter().any(|row| self.value(row.1, "on", row.2).is_some()) {
            return;
        }
        println!("\n### Headline\n\n{}\n", self.about());
        let titles: String = columns.iter().map(|(_, title)| format!(" {title} |")).collect();
        println!("| |{titles}\n|---|{}", "---:|".repeat(columns.len()));
        for row in &ROWS {
            let cells: String =
                columns.iter().map(|(name, _)| format!(" {} |", self.headline_cell(row, name))).collect();
            println!("| {} |{cells}", row.0);
        }
    }

    fn headline_cell(&self, Row(_, workload, name, shown): &Row, contender: &str) -> String {
        let nginx = Peer::Nginx.name();
        let (spread, digits) = match shown {
            Shown::Ratio => (self.ratio(workload, contender, nginx, name), 2),
            Shown::OverNginx => (self.added(workload, contender, nginx, name), 0),
            Shown::OverDirect => (self.added(workload, contender, "direct", name), 0),
            Shown::Value => (self.value(workload, contender, name), 1),
        };
        let is_itself = contender == nginx && *shown == Shown::Ratio;
        match spread {
            None => "-".to_owned(),
            Some(_) if is_itself => "1".to_owned(),
            Some(spread) if spread.median >= 1_000.0 => format!("{:.0}", (spread.median / 100.0).round() * 100.0),
            Some(spread) if *shown == Shown::Ratio => format!("{spread:.digits$}"),
            Some(spread) => format!("{:.digits$}", spread.median),
        }
    }
}
