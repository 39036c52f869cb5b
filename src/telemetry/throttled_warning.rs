//! Repeated warnings: counted each time, reported at most once per [`REPORT_INTERVAL`].

use tokio::time::Instant;

use crate::telemetry::bounds::REPORT_INTERVAL;

/// The state of one kind of warning.
#[derive(Debug, Default)]
pub struct ThrottledWarning {
    unreported: u64,
    reported: Option<Instant>,
}

impl ThrottledWarning {
    /// Counts one occurrence. Returns the number of occurrences since the last report if a report is due now, that is,
    /// if the last one is at least [`REPORT_INTERVAL`] old.
    pub fn report_due(&mut self) -> Option<u64> {
        self.unreported += 1;
        let now = Instant::now();
        if self.reported.is_some_and(|last| now.duration_since(last) < REPORT_INTERVAL) {
            return None;
        }
        self.reported = Some(now);
        Some(std::mem::take(&mut self.unreported))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_warning_is_reported_at_once_and_further_ones_once_a_minute() {
        let mut warning = ThrottledWarning::default();
        assert_eq!(warning.report_due(), Some(1));
        assert!((0..9).all(|_| warning.report_due().is_none()));
        tokio::time::advance(REPORT_INTERVAL).await;
        assert_eq!(warning.report_due(), Some(10));
        assert_eq!(warning.report_due(), None);
    }
}
