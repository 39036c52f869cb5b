//! `llamagate top`: the models of a service while they work, until Ctrl-C.
//!
//! Draws with a few escape sequences that every terminal knows, also over ssh; it reads no keys.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use super::args::TopArgs;
use super::events::{json_of, listen};
use super::state::LiveState;
use super::table;
use crate::cli::client::{self, CallError, Paint, ServiceAddress, ServiceClient, Style};
use crate::cli::output::print;
use crate::models::list::printable;
use crate::settings::Environment;

/// Moves the cursor to the first line.
const HOME: &str = "\u{1b}[H";
/// Clears the rest of a line, and the rest of the screen.
const CLEAR_LINE: &str = "\u{1b}[K";
const CLEAR_BELOW: &str = "\u{1b}[J";
/// Clears the whole screen.
const CLEAR: &str = "\u{1b}[2J";

/// Runs `llamagate top`.
pub(in crate::cli) fn run(arguments: TopArgs, environment: Environment) -> ExitCode {
    let is_json = arguments.client.json;
    match client::run(show(arguments, environment)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(is_json),
    }
}

async fn show(arguments: TopArgs, environment: Environment) -> Result<(), CallError> {
    let (is_json, out) = (arguments.client.json, std::io::stdout());
    if !is_json && !out.is_terminal() {
        return Err(CallError::Usage("top draws on a terminal: use --json for its events, or llamagate ps".to_owned()));
    }
    let paint = Paint::for_stream(&environment, &out);
    let client = ServiceClient::new(ServiceAddress::of(arguments.client, environment)?)?;
    let mut events = listen(&client).await?;
    let mut state = LiveState::default();
    if !is_json {
        print(CLEAR);
    }
    while let Some(event) = events.next().await? {
        let data = json_of(&event.data)?;
        if is_json {
            print(&format!("{}\n", serde_json::json!({"id": event.id, "event": event.name, "data": data})));
            continue;
        }
        state.take(&event.name, data);
        print(&screen(&state, paint, client.address().host()));
    }
    // The service has ended the feed, because it stops.
    Ok(())
}

fn screen(state: &LiveState, paint: Paint, host: &str) -> String {
    let mut text =
        format!("{}\n{}\n\n{}", paint.text(Style::Dim, host), table::headline(state), table::text(state, paint));
    if !state.failures.is_empty() {
        text.push_str("\nlast failures:\n");
    }
    for failure in &state.failures {
        let word = |name: &str| failure[name].as_str().map(printable).unwrap_or_default();
        let why = [word("message"), word("hint")].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>();
        text.push_str(&format!("  {}  {}: {}\n", word("at"), word("model"), why.join("; ")));
    }
    format!("{HOME}{}{CLEAR_BELOW}", text.replace('\n', &format!("{CLEAR_LINE}\n")))
}
