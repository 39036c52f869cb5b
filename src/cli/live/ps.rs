//! `llamagate ps`: the models of a service, what they do, and who waits for them.

use std::process::ExitCode;

use serde_json::Value;

use super::args::PsArgs;
use super::events::{json_of, listen};
use super::full_screen::columns;
use super::state::LiveState;
use super::table;
use super::wrap::wrapped;
use crate::cli::client::{self, CallError, Paint, ServiceAddress, ServiceClient};
use crate::cli::output::print;
use crate::settings::Environment;

/// Runs `llamagate ps`.
pub(in crate::cli) fn run(arguments: PsArgs, environment: Environment) -> ExitCode {
    let is_json = arguments.client.json;
    let paint = Paint::for_stream(&environment, &std::io::stdout());
    let snapshot = client::run(async {
        let client = ServiceClient::new(ServiceAddress::of(arguments.client, environment)?)?;
        first_event(&client).await
    });
    match snapshot {
        Ok(snapshot) if is_json => print(&format!("{snapshot}\n")),
        Ok(snapshot) => {
            let mut state = LiveState::default();
            state.take("snapshot", snapshot);
            let columns = columns();
            let headline = columns
                .map_or_else(|| table::headline(&state) + "\n", |columns| wrapped(&table::headline(&state), columns));
            print(&(headline + &table::text(&state, paint, columns)));
        }
        Err(error) => return error.report(is_json),
    }
    ExitCode::SUCCESS
}

/// Returns the state of the service, which the feed begins with.
async fn first_event(client: &ServiceClient) -> Result<Value, CallError> {
    let first = listen(client).await?.next().await?;
    json_of(&first.ok_or_else(|| CallError::Broken("the service is shutting down".to_owned()))?.data)
}
