//! Tries of small requests to the hub, and the pauses between tries of any kind.

use std::time::Duration;

use std::future::Future;

use super::bounds::{FIRST_PAUSE, LONGEST_PAUSE};
use super::error::{DownloadError, TryError};
use super::progress::Progress;

/// Asks until there is an answer, at most `retries` times again.
///
/// # Errors
/// An error that another try would not change, or [`DownloadError::GivenUp`].
// Not `AsyncFnMut`: what awaits that cannot run in a task of its own.
pub(super) async fn with_retries<T, F: Future<Output = Result<T, TryError>>>(
    retries: u32,
    host: &str,
    ask: impl FnMut() -> F,
) -> Result<T, DownloadError> {
    with_shown_retries(&Progress::default(), retries, host, ask).await
}

/// Asks like [`with_retries`], and shows in the progress why the last try failed.
///
/// # Errors
/// The same.
pub(super) async fn with_shown_retries<T, F: Future<Output = Result<T, TryError>>>(
    progress: &Progress,
    retries: u32,
    host: &str,
    mut ask: impl FnMut() -> F,
) -> Result<T, DownloadError> {
    let mut tries = 0;
    loop {
        let (reason, wait) = match ask().await {
            Ok(answer) => {
                progress.set_failure(None);
                return Ok(answer);
            }
            Err(TryError::Final(error)) => return Err(error),
            Err(TryError::Again { reason, wait }) => (reason, wait),
        };
        tries += 1;
        if tries > retries {
            return Err(DownloadError::GivenUp { host: host.to_owned(), tries, reason });
        }
        tracing::warn!(host, reason, "the hub is asked again");
        progress.set_failure(Some(&reason));
        tokio::time::sleep(wait.unwrap_or_else(|| pause_after(tries))).await;
    }
}

/// Returns the pause after this number of tries in a row that brought nothing.
pub(super) fn pause_after(tries: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest() {
        assert_eq!(pause_after(1), FIRST_PAUSE);
        assert_eq!(pause_after(3), FIRST_PAUSE * 4);
        assert_eq!(pause_after(20), LONGEST_PAUSE);
        assert_eq!(pause_after(u32::MAX), LONGEST_PAUSE);
    }

    /// Counts the lines of the log.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_try_was_said_to_be_followed_by_another() {
        let lines = Lines::default();
        let written = lines.clone();
        let log = tracing_subscriber::fmt().with_writer(move || written.clone()).finish();
        let _log = tracing::subscriber::set_default(log);
        let ask = async || Err::<(), _>(TryError::Again { reason: "it is busy".to_owned(), wait: None });
        let outcome = with_retries(2, "hub", ask).await;
        assert!(matches!(outcome, Err(DownloadError::GivenUp { tries: 3, .. })));
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches("asked again").count(), 2, "{text}");
    }
}
