//! Tries of small requests to the hub: again after a pause where another try may do better.

use super::bounds::{FIRST_PAUSE, LONGEST_PAUSE};
use super::error::{DownloadError, TryError};

/// Asks until there is an answer, at most `retries` times again.
///
/// # Errors
/// An error that another try would not change, or [`DownloadError::GivenUp`].
pub(super) async fn with_retries<T>(
    retries: u32,
    host: &str,
    mut ask: impl AsyncFnMut() -> Result<T, TryError>,
) -> Result<T, DownloadError> {
    let mut pause = FIRST_PAUSE;
    let mut tries = 0;
    loop {
        let (reason, wait) = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(TryError::Final(error)) => return Err(error),
            Err(TryError::Again { reason, wait }) => (reason, wait),
        };
        tries += 1;
        tracing::warn!(host, reason, "the hub is asked again");
        if tries > retries {
            return Err(DownloadError::GivenUp { host: host.to_owned(), tries, reason });
        }
        tokio::time::sleep(wait.unwrap_or(pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
