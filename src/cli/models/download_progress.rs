//! Shows how far a download is: a bar on a terminal, one line every [`LINE_INTERVAL`] elsewhere, or JSON.

use std::convert::Infallible;
use std::io::{IsTerminal as _, stderr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::cli::output::{print, print_stderr};
use crate::download::{DownloadPhase, DownloadState, Progress};
use crate::models::human_size;
use crate::models::list::printable;

/// Time between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// Time between two drawings of the bar.
const BAR_INTERVAL: Duration = Duration::from_millis(200);
/// The bar, as `indicatif` reads it.
const BAR: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";

/// What stands in its place while the hub is asked.
const ASKING: &str = "{wide_msg}";

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
        Self::Bar(bar.with_style(bar_style(ASKING).unwrap_or_else(ProgressStyle::default_bar)))
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
        let failure = progress.failure();
        match self {
            Self::Bar(bar) => {
                // No byte has come of a download that only asks, and none is known to come.
                if let Some(style) = bar_style(if phase == DownloadPhase::Asking { ASKING } else { BAR }) {
                    bar.set_style(style);
                }
                bar.set_message(message(phase, failure.as_deref()));
                bar.set_length(total);
                bar.set_position(arrived);
            }
            Self::Lines(meter) => {
                let rate = meter.rate(arrived, progress.found());
                let message = message(phase, failure.as_deref());
                print_stderr(&match phase {
                    DownloadPhase::Asking => format!("{message}\n"),
                    _ => line(&message, arrived, total, rate),
                });
            }
            Self::Json(meter) => {
                let rate = meter.rate(arrived, progress.found());
                let state = DownloadState::from(phase);
                let mut object = json!({"state": state, "bytes": arrived, "total": total, "bytes_per_second": rate});
                if let Some(failure) = failure {
                    object["last_failure"] = failure.into();
                }
                print(&format!("{object}\n"));
            }
        }
    }
}

fn bar_style(template: &str) -> Option<ProgressStyle> {
    ProgressStyle::with_template(template).ok()
}

/// Returns what a download does, and why its last try failed.
fn message(phase: DownloadPhase, failure: Option<&str>) -> String {
    let failure = failure.map(|failure| format!(" again, since the last try failed: {}", printable(failure)));
    format!("{}{}", words(phase), failure.unwrap_or_default())
}

fn words(phase: DownloadPhase) -> &'static str {
    match phase {
        DownloadPhase::Asking => "asking the hub",
        DownloadPhase::WaitingForOther => "waiting for another download of it",
        DownloadPhase::Fetching => "downloading",
        DownloadPhase::Checking => "checking",
    }
}

fn line(message: &str, arrived: u64, total: u64, rate: u64) -> String {
    let left = total.saturating_sub(arrived).checked_div(rate).map(|seconds| format!(", {seconds} s left"));
    let share = (arrived * 100).checked_div(total).map(|percent| format!(" ({percent} %)")).unwrap_or_default();
    format!(
        "{message}: {} of {}{share}, {}/s{}\n",
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
        let text = line("downloading", 1 << 30, 4 << 30, 100 << 20);
        assert_eq!(text, "downloading: 1.0 GiB of 4.0 GiB (25 %), 100.0 MiB/s, 30 s left\n");
    }

    #[test]
    fn a_hub_that_did_not_answer_was_asked_without_a_word_of_why() {
        assert_eq!(message(DownloadPhase::Asking, None), "asking the hub");
        let text = message(DownloadPhase::Asking, Some("hub.example cannot be reached"));
        assert_eq!(text, "asking the hub again, since the last try failed: hub.example cannot be reached");
    }
}
