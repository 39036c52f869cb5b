//! `llamagate ps`, `top` and `logs`: what a service does now, asked over HTTP.
//!
//! - `args.rs`: their arguments
//! - `logs.rs`: `llamagate logs`
//! - `ps.rs`: `llamagate ps`
//! - `state.rs`: what the feed has told so far
//! - `table.rs`: the state as text
//! - `top.rs`: `llamagate top`

mod args;
mod logs;
mod ps;
mod state;
mod table;
mod top;

pub(super) use args::{LogsArgs, PsArgs, TopArgs};
pub(super) use logs::run as run_logs;
pub(super) use ps::run as run_ps;
pub(super) use top::run as run_top;

use super::client::CallError;
use super::client::{EventStream, ServiceClient};

/// The route of the feed.
const EVENTS: &str = "/events";

/// Listens to the feed of a service.
///
/// # Errors
/// [`CallError`] if it does not answer, or refuses.
async fn listen(client: &ServiceClient) -> Result<EventStream, CallError> {
    client.stream(http::Method::GET, EVENTS, None).await
}

/// Reads the data of an event.
///
/// # Errors
/// [`CallError::Broken`] if it is no JSON.
fn json_of(data: &str) -> Result<serde_json::Value, CallError> {
    serde_json::from_str(data)
        .map_err(|_| CallError::Broken("an event is no JSON: is this the address of a llamagate?".to_owned()))
}
