//! Shows how far a download is: a bar on a terminal, one line every [`LINE_INTERVAL`] elsewhere, or JSON.

use std::convert::Infallible;
use std::io::{IsTerminal as _, stderr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::output::{print, print_stderr};
use crate::download::{DownloadPhase, Progress};
use crate::models::human_size;

/// Time between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// Time between two drawings of the bar.
const BAR_INTERVAL: Duration = Duration::from_millis(200);
/// The bar, as `indicatif` reads it.
const BAR: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";

/// How it is shown.
pub(super) enum ProgressDisplay {
    Bar(ProgressBar),
    Lines(RateMeter),
    Json(RateMeter),
}

/// Bytes a second since the last line.
pub(super) struct RateMeter {
    since: Instant,
    arrived: u64,
}

impl RateMeter {
    fn start() -> Self {
        Self { since: Instant::now(), arrived: 0 }
    }

    fn rate(&mut self, arrived: u64, found: u64) -> u64 {
        let seconds = self.since.elapsed().as_secs_f64();
        let bytes = arrived.saturating_sub(self.arrived.max(found));
        *self = Self { since: Instant::now(), arrived };
        if seconds > 0.0 { (bytes as f64 / seconds) as u64 } else { 0 }
    }
}

impl ProgressDisplay {
    /// Begins to show a download.
    pub(super) fn start(is_json: bool) -> Self {
        if is_json {
            return Self::Json(RateMeter::start());
        }
        if !stderr().is_terminal() {
            return Self::Lines(RateMeter::start());
        }
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        Self::Bar(bar.with_style(ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar())))
    }

    /// Shows the progress until the future is dropped.
    pub(super) async fn run(mut self, progress: Arc<Progress>) -> Infallible {
        let interval = if matches!(self, Self::Bar(_)) { BAR_INTERVAL } else { LINE_INTERVAL };
        loop {
            tokio::time::sleep(interval).await;
            self.show(&progress);
        }
    }

    fn show(&mut self, progress: &Progress) {
        let (total, arrived, phase) = (progress.total(), progress.arrived(), progress.phase());
        match self {
            Self::Bar(bar) => {
                bar.set_message(words(phase));
                bar.set_length(total);
                bar.set_position(arrived);
            }
            Self::Lines(meter) => {
                let rate = meter.rate(arrived, progress.found());
                print_stderr(&line(phase, arrived, total, rate));
            }
            Self::Json(meter) => {
                let rate = meter.rate(arrived, progress.found());
                let state = words(phase);
                let object = json!({"state": state, "bytes": arrived, "total": total, "bytes_per_second": rate});
                print(&format!("{object}\n"));
            }
        }
    }
}

fn words(phase: DownloadPhase) -> &'static str {
    match phase {
        DownloadPhase::Asking => "asking the hub",
        DownloadPhase::WaitingForOther => "waiting for another download of it",
        DownloadPhase::Fetching => "downloading",
        DownloadPhase::Checking => "checking",
    }
}

fn line(phase: DownloadPhase, arrived: u64, total: u64, rate: u64) -> String {
    let left = total.saturating_sub(arrived).checked_div(rate).map(|seconds| format!(", {seconds} s left"));
    let share = (arrived * 100).checked_div(total).map(|percent| format!(" ({percent} %)")).unwrap_or_default();
    format!(
        "{}: {} of {}{share}, {}/s{}\n",
        words(phase),
        human_size(arrived),
        human_size(total),
        human_size(rate),
        left.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_bytes_rate_and_time_left() {
        let text = line(DownloadPhase::Fetching, 1 << 30, 4 << 30, 100 << 20);
        assert_eq!(text, "downloading: 1.0 GiB of 4.0 GiB (25 %), 100.0 MiB/s, 30 s left\n");
        assert_eq!(line(DownloadPhase::Asking, 0, 0, 0), "asking the hub: 0 B of 0 B, 0 B/s\n");
    }
}
