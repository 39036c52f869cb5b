//! The events of the feed, as commands read them.

use crate::cli::client::{CallError, EventStream, ServiceClient};

/// The route of the feed.
const EVENTS: &str = "/events";

/// Listens to the feed of a service.
///
/// # Errors
/// [`CallError`] if it does not answer, or refuses.
pub(super) async fn listen(client: &ServiceClient) -> Result<EventStream, CallError> {
    client.stream(http::Method::GET, EVENTS, None).await
}

/// Reads the data of an event.
///
/// # Errors
/// [`CallError::Broken`] if it is no JSON.
pub(super) fn json_of(data: &str) -> Result<serde_json::Value, CallError> {
    serde_json::from_str(data)
        .map_err(|_| CallError::Broken("an event is no JSON: is this the address of a llamagate?".to_owned()))
}
