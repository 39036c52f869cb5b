//! The tables of a report: a row for each contender, a column for each reading.
//!
//! What a column shows is in its name: `cpu ratio` is the ratio of `cpu` to that of nginx, `first p50 over nginx` the
//! difference.

use super::Report;
use crate::contenders::SECOND_DIRECT;
use crate::contenders::peers::Peer;
use crate::workloads::{self, Workload};

/// The end of a column's name: the ratio to nginx in the same round.
const RATIO: &str = " ratio";

/// The end of a column's name: the difference to nginx in the same round.
const OVER: &str = " over nginx";

/// A proxy that has less of its CPU than this did not reach its highest rate.
const FULL: f64 = 0.9;

impl Report {
    /// Prints the tables.
    pub(crate) fn print(&self) {
        for workload in workloads::ALL {
            let (kept, dropped) = self.rounds(workload.name);
            let Some(any) = self.measured.iter().find(|measured| measured.workload == workload.name) else { continue };
            println!("\n### {}: {}\n", workload.name, workload.title);
            println!("{} rounds; dropped for stolen time: {dropped}\n", kept.len());
            let columns = workload.shows.iter().map(|name| format!(" {} |", heading(name)));
            println!("| |{} failed | others' CPUs |", columns.collect::<String>());
            println!("|---|{}---:|---:|", "---:|".repeat(workload.shows.len()));
            for (contender, _) in &any.readings {
                let cells =
                    workload.shows.iter().map(|name| format!(" {} |", self.cell(workload.name, contender, name)));
                let cells: String = cells.collect();
                let other_cpus = self.value(workload.name, contender, "strangers").map_or(0.0, |spread| spread.median);
                let failed = self.sum(workload.name, contender, "failed");
                println!("| {contender}{} |{cells} {failed:.0} | {other_cpus:.2} |", self.flags(workload, contender));
            }
        }
        let busiest = self.busiest();
        if busiest > 0.1 {
            println!(
                "\n**Other processes used up to {busiest:.1} CPUs at the same time: do not trust the latencies.**"
            );
        }
        for (part, facts) in &self.facts {
            println!("\n### {part}\n\n| | |\n|---|---:|");
            for (name, value) in facts {
                let value = value.as_f64().map_or_else(|| value.to_string(), short);
                println!("| {name} | {value} |");
            }
        }
    }

    /// Returns the most CPUs that other processes used during a turn.
    fn busiest(&self) -> f64 {
        let turns = self.measured.iter().flat_map(|it| &it.readings).flat_map(|(_, turns)| turns);
        turns.filter_map(|turn| turn.get("strangers").copied()).fold(0.0, f64::max)
    }

    /// Returns the value of a cell. Times of a contender are differences to the direct connection.
    fn cell(&self, workload: &str, contender: &str, name: &str) -> String {
        let nginx = Peer::Nginx.name();
        if let Some(name) = name.strip_suffix(RATIO) {
            let ratio = self.ratio(workload, contender, nginx, name);
            return ratio
                .filter(|_| !contender.starts_with("direct"))
                .map_or_else(no_value, |ratio| format!("{ratio:.2}"));
        }
        if let Some(name) = name.strip_suffix(OVER) {
            return self.added(workload, contender, nginx, name).map_or_else(no_value, |spread| spread.to_string());
        }
        let is_time = !matches!(name, "cpu" | "cpu/frame" | "rps" | "fps" | "merged" | "switches");
        let spread = if contender == "direct" || !is_time {
            self.value(workload, contender, name)
        } else {
            self.added(workload, contender, "direct", name)
        };
        match spread {
            None => no_value(),
            Some(_) if is_of_proxy(name) && contender.starts_with("direct") => no_value(),
            Some(spread) if contender == "direct" || !is_time => spread.to_string(),
            Some(spread) => {
                let noise = self.added(workload, SECOND_DIRECT, "direct", name).map_or(0.0, |noise| noise.median.abs());
                let is_unclear = contender != SECOND_DIRECT && spread.median.abs() < noise;
                format!("{}{spread}{}", if spread.median >= 0.0 { "+" } else { "" }, if is_unclear { " ~" } else { "" })
            }
        }
    }

    /// Returns warnings about a contender's figures.
    fn flags(&self, workload: &Workload, contender: &str) -> &'static str {
        let median = |name: &str| self.value(workload.name, contender, name).map(|spread| spread.median);
        let is_late = median("late p99").is_some_and(|late| late > 1_000.0);
        if workload.rate > 0.0 {
            return if is_late { " (driver late)" } else { "" };
        }
        let has_free_cpu = median("proxy load").is_some_and(|load| load < FULL);
        let others = median("driver load").unwrap_or(0.0) + median("mock load").unwrap_or(0.0);
        let is_one_at_a_time = workload.connections == 1;
        match has_free_cpu && !is_one_at_a_time && !contender.starts_with("direct") {
            true if others > FULL => " (driver and mock full)",
            true => " (CPU not full)",
            false => "",
        }
    }
}

/// Returns a number with as many digits as it needs: a futex call in a hundred requests shows too.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        value if value >= 100.0 || value.fract() == 0.0 => 0,
        value if value >= 10.0 => 1,
        _ => 3,
    };
    format!("{value:.digits$}")
}

fn no_value() -> String {
    "-".to_owned()
}

/// Whether a reading is one of the proxy, which a direct connection has not.
fn is_of_proxy(name: &str) -> bool {
    name.starts_with("cpu") || name == "switches"
}

fn heading(name: &str) -> String {
    if let Some(name) = name.strip_suffix(RATIO) {
        return format!("{}, times nginx", heading(name).replace("CPU µs", "CPU"));
    }
    match name {
        "cpu" => "CPU µs/request".to_owned(),
        "cpu/frame" => "CPU µs/frame".to_owned(),
        "rps" => "requests/s".to_owned(),
        "fps" => "frames/s".to_owned(),
        "switches" => "context switches/request".to_owned(),
        "merged" => "merged frames %".to_owned(),
        name => format!("{name} µs"),
    }
}
