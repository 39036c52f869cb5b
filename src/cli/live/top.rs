//! `llamagate top`: the models of a service while they work, until q or Ctrl-C.

use std::io::{IsTerminal as _, stdout};
use std::process::ExitCode;

use super::args::TopArgs;
use super::events::{json_of, listen};
use super::full_screen::{FullScreen, ScreenInput};
use super::state::LiveState;
use super::table;
use super::wrap::wrapped;
use crate::cli::client::{self, CallError, EventStream, Paint, ServiceAddress, ServiceClient, Style};
use crate::cli::output::{EXIT_TERMINATED, print_stderr, print_while_read};
use crate::models::list::printable;
use crate::settings::Environment;

/// What is said when the service has ended the feed.
const SERVICE_STOPS: &str = "the service is shutting down\n";

/// Runs `llamagate top`.
pub(in crate::cli) fn run(arguments: TopArgs, environment: Environment) -> ExitCode {
    let is_json = arguments.client.json;
    match client::run(show(arguments, environment)) {
        Ok(code) => code,
        Err(error) => error.report(is_json),
    }
}

async fn show(arguments: TopArgs, environment: Environment) -> Result<ExitCode, CallError> {
    let is_json = arguments.client.json;
    let has_screen = stdout().is_terminal() && environment.get("TERM") != Some("dumb");
    if !is_json && !has_screen {
        return Err(CallError::Usage("top draws on a terminal: use --json for its events, or llamagate ps".to_owned()));
    }
    let paint = Paint::for_stream(&environment, &stdout());
    let client = ServiceClient::new(ServiceAddress::of(arguments.client, environment)?)?;
    let events = listen(&client).await?;
    match is_json {
        true => tell(events).await,
        false => watch(events, paint, client.address().host()).await,
    }
}

/// Prints the events, one a line, until the service ends them or its output is closed.
async fn tell(mut events: EventStream) -> Result<ExitCode, CallError> {
    while let Some(event) = events.next().await? {
        let data = json_of(&event.data)?;
        let line = format!("{}\n", serde_json::json!({"id": event.id, "event": event.name, "data": data}));
        if !print_while_read(&line) {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Draws what the events tell, until the user leaves or the service ends them.
async fn watch(mut events: EventStream, paint: Paint, host: &str) -> Result<ExitCode, CallError> {
    let mut state = LiveState::default();
    let screen = FullScreen::take();
    let mut screen = screen.map_err(|error| CallError::Broken(format!("the terminal cannot be used: {error}")))?;
    loop {
        tokio::select! {
            event = events.next() => match event? {
                Some(event) => state.take(&event.name, json_of(&event.data)?),
                None => break,
            },
            input = screen.next() => match input {
                ScreenInput::Redraw => {}
                ScreenInput::Leave => return Ok(ExitCode::SUCCESS),
                ScreenInput::Terminate => return Ok(ExitCode::from(EXIT_TERMINATED)),
            },
        }
        let (columns, lines) = screen.size();
        screen.draw(&frame(&state, paint, host, columns, lines));
    }
    drop(screen);
    print_stderr(SERVICE_STOPS);
    Ok(ExitCode::SUCCESS)
}

/// Returns the lines of a screen of this size.
fn frame(state: &LiveState, paint: Paint, host: &str, columns: usize, lines: usize) -> Vec<String> {
    let mut text = format!(
        "{}\n{}\n{}",
        paint.text(Style::Dim, &format!("{host}   q leaves")),
        wrapped(&table::headline(state), columns),
        table::text(state, paint, Some(columns))
    );
    if !state.failures.is_empty() {
        text.push_str("\nlast failures:\n");
    }
    for failure in &state.failures {
        let word = |name: &str| failure[name].as_str().map(printable).unwrap_or_default();
        let why = [word("message"), word("hint")].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>();
        text.push_str(&wrapped(&format!("{}  {}: {}", word("at"), word("model"), why.join("; ")), columns));
    }
    let mut shown: Vec<String> = text.lines().map(str::to_owned).collect();
    if shown.len() > lines {
        let left_out = shown.len() - lines + 1;
        shown.truncate(lines - 1);
        shown.push(format!("... {left_out} more lines"));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_frame_fits_its_screen_and_says_what_is_left_out() {
        let mut state = LiveState::default();
        let model = |number: usize| json!({"id": format!("a-model-with-a-long-name-{number}"), "state": "ready"});
        let models: Vec<_> = (0..30).map(model).collect();
        state.take("snapshot", json!({"status": "ok", "version": "1", "models": models, "queues": []}));
        let paint = Paint::for_stream(&Environment::from([("NO_COLOR", "1")]), &stdout());
        for (columns, lines) in [(40, 10), (80, 24), (20, 3)] {
            let frame = frame(&state, paint, "gpu-box", columns, lines);
            assert_eq!(frame.len(), lines);
            assert!(frame[lines - 1].starts_with("... "), "{frame:?}");
            assert!(columns < 40 || frame.iter().all(|line| line.chars().count() <= columns), "{frame:#?}");
        }
        assert!(frame(&state, paint, "gpu-box", 200, 100).len() < 100);
    }
}
