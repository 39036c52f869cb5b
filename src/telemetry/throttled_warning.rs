//! Trouble that repeats: counted each time, reported once in a while.

use crate::telemetry::bounds::REPORT_INTERVAL;
use tokio::time::Instant;

/// One kind of trouble.
#[derive(Debug, Default)]
pub struct ThrottledWarning {
    unreported: u64,
    reported: Option<Instant>,
}

impl ThrottledWarning {
    /// Counts it once more. If the last report is [`REPORT_INTERVAL`] old, the number of times since then, to be reported
    /// now.
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
    async fn the_first_is_reported_at_once_and_the_rest_once_a_minute() {
        let mut trouble = ThrottledWarning::default();
        assert_eq!(trouble.report_due(), Some(1));
        assert!((0..9).all(|_| trouble.report_due().is_none()));
        tokio::time::advance(REPORT_INTERVAL).await;
        assert_eq!(trouble.report_due(), Some(10));
        assert_eq!(trouble.report_due(), None);
    }
}
