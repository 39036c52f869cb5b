//! `llamagate chat`: which of the two it is, a conversation or one question, and the one question.

use std::io::{IsTerminal as _, Read as _, stdin, stdout};
use std::process::ExitCode;

use super::answer;
use super::args::ChatArgs;
use super::conversation::Conversation;
use super::screen::Screen;
use super::{image, terminal};
use crate::cli::client::{self, CallError, Paint, ServiceAddress, ServiceClient};
use crate::cli::output::{EXIT_INTERRUPTED, print};
use crate::settings::Environment;

/// Bytes that are read at most of standard input.
const LARGEST_INPUT: u64 = 16 * 1024 * 1024;

/// Runs `llamagate chat`.
pub(in crate::cli) fn run(arguments: ChatArgs, environment: Environment) -> ExitCode {
    let is_json = arguments.client.json;
    match begin(arguments, environment) {
        Ok(code) => code,
        Err(error) => error.report(is_json),
    }
}

fn begin(arguments: ChatArgs, environment: Environment) -> Result<ExitCode, CallError> {
    let ChatArgs { model, question, system, image, max_tokens, temperature, client } = arguments;
    let is_json = client.json;
    let images = image.iter().map(|path| image::read(path)).collect::<Result<_, _>>();
    let images = images.map_err(|fault| CallError::Usage(format!("--image {fault}")))?;
    let mut talk = Conversation::default();
    (talk.model, talk.system, talk.images) = (model, system, images);
    (talk.max_tokens, talk.temperature) = (max_tokens, temperature);
    let question = whole_question(question)?;
    if question.is_none() && is_json {
        return Err(CallError::Usage("--json needs a question: give one, or write it to standard input".to_owned()));
    }
    let screen = match (is_json, stdout().is_terminal()) {
        (true, _) => Screen::Hidden,
        (false, true) => Screen::Terminal(Paint::for_stream(&environment, &stdout())),
        (false, false) => Screen::Plain,
    };
    let client = ServiceClient::new(ServiceAddress::of(client, environment)?)?;
    match question {
        Some(question) => client::run(ask_once(&client, talk, &question, screen)),
        None => client::run(terminal::talk(&client, talk, screen)),
    }
}

/// Returns the question of the command line and of standard input, or `None` if the user is to be asked for one.
fn whole_question(question: Option<String>) -> Result<Option<String>, CallError> {
    if stdin().is_terminal() {
        return Ok(question);
    }
    let mut input = String::new();
    let read = stdin().lock().take(LARGEST_INPUT + 1).read_to_string(&mut input);
    read.map_err(|error| CallError::Usage(format!("standard input cannot be read as text: {error}")))?;
    if input.len() as u64 > LARGEST_INPUT {
        return Err(CallError::Usage(format!("standard input has more than {LARGEST_INPUT} bytes")));
    }
    let input = Some(input.trim_end()).filter(|input| !input.is_empty());
    let parts: Vec<&str> = question.as_deref().into_iter().chain(input).collect();
    match parts.is_empty() {
        true => Err(CallError::Usage("there is no question: give one, or write it to standard input".to_owned())),
        false => Ok(Some(parts.join("\n\n"))),
    }
}

async fn ask_once(
    client: &ServiceClient,
    mut talk: Conversation,
    question: &str,
    screen: Screen,
) -> Result<ExitCode, CallError> {
    talk.ask(question);
    let answer = answer::ask(client, &talk.request(), screen).await?;
    if answer.is_stopped && screen == Screen::Hidden {
        return Err(CallError::Interrupted);
    }
    if screen == Screen::Hidden {
        print(&format!("{:#}\n", answer.to_json()));
    }
    Ok(if answer.is_stopped { ExitCode::from(EXIT_INTERRUPTED) } else { ExitCode::SUCCESS })
}
