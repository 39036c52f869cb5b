//! Options of sockets.

use reqwest::ClientBuilder;

/// Switches off the system's limit on data that a peer does not acknowledge: macOS has none.
pub(crate) fn without_user_timeout(builder: ClientBuilder) -> ClientBuilder {
    builder
}
