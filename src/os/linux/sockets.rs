//! Options of sockets.

use reqwest::ClientBuilder;

/// Switches off the kernel's limit on data that a peer does not acknowledge (`TCP_USER_TIMEOUT`).
pub(crate) fn without_user_timeout(builder: ClientBuilder) -> ClientBuilder {
    builder.tcp_user_timeout(None)
}
