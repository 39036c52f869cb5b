//! The conversation in a terminal. The lines that were typed are kept until it ends, and are written nowhere.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::conversation::Conversation;
use super::screen::{Screen, harmless};
use super::slash::{HELP, SlashCommand};
use super::{answer, image};
use crate::cli::client::{CallError, ServiceClient};
use crate::cli::output::{print, print_stderr};

/// Begins and ends a message of several lines.
const BLOCK: &str = "\"\"\"";
/// Bytes that a message of several lines may have.
const LARGEST_BLOCK: usize = 16 * 1024 * 1024;

/// What the user has typed.
enum Typed {
    Message(String),
    Command(String),
    /// An empty line, or one that was given up.
    Nothing,
    End,
}

/// Talks until the user leaves. An error ends an answer and not the conversation.
///
/// # Errors
/// [`CallError`] if the terminal cannot be read.
pub(super) async fn talk(
    client: &ServiceClient,
    mut talk: Conversation,
    screen: Screen,
) -> Result<ExitCode, CallError> {
    let broken = |error: ReadlineError| CallError::Broken(format!("the terminal cannot be read: {error}"));
    let mut editor = DefaultEditor::new().map_err(broken)?;
    let model = talk.model.as_deref().unwrap_or("the default model");
    print(&format!("{} at {}. /help tells the commands.\n", harmless(model), client.address().base()));
    loop {
        match read_message(&mut editor).map_err(broken)? {
            Typed::End => return Ok(ExitCode::SUCCESS),
            Typed::Nothing => {}
            Typed::Command(line) => match SlashCommand::read(&line) {
                Ok(SlashCommand::Exit) => return Ok(ExitCode::SUCCESS),
                Ok(command) => obey(client, &mut talk, command).await,
                Err(fault) => print_stderr(&format!("{fault}\n")),
            },
            Typed::Message(text) => {
                talk.ask(&text);
                match answer::ask(client, &talk.request(), screen).await {
                    Ok(answer) if answer.text.is_empty() && answer.is_stopped => take_back(&mut talk),
                    Ok(answer) => talk.answer(&answer.text),
                    Err(error) => {
                        print_stderr(&error.to_text());
                        take_back(&mut talk);
                    }
                }
            }
        }
    }
}

/// Takes a question back and says where its pictures are: a model without eyes would refuse the next one too.
fn take_back(talk: &mut Conversation) {
    match talk.take_back() {
        0 => {}
        1 => print_stderr("its picture goes with the next message; /clear drops it, with the messages\n"),
        many => print_stderr(&format!(
            "its {many} pictures go with the next message; /clear drops them, with the messages\n"
        )),
    }
}

fn read_message(editor: &mut DefaultEditor) -> Result<Typed, ReadlineError> {
    let line = match editor.readline("> ") {
        Ok(line) => line,
        Err(ReadlineError::Interrupted) => {
            print_stderr("/exit or Ctrl-D leaves\n");
            return Ok(Typed::Nothing);
        }
        Err(ReadlineError::Eof) => return Ok(Typed::End),
        Err(error) => return Err(error),
    };
    if line.trim().is_empty() {
        return Ok(Typed::Nothing);
    }
    let _ = editor.add_history_entry(&line);
    let Some(begun) = line.trim_start().strip_prefix(BLOCK) else {
        return Ok(if line.starts_with('/') { Typed::Command(line) } else { Typed::Message(line) });
    };
    let mut text = begun.to_owned();
    while !text.trim_end().ends_with(BLOCK) {
        match editor.readline(". ") {
            Ok(next) if text.len() + next.len() < LARGEST_BLOCK => {
                text.push('\n');
                text.push_str(&next);
            }
            Ok(_) => {
                print_stderr(&format!("the message has more than {LARGEST_BLOCK} bytes\n"));
                return Ok(Typed::Nothing);
            }
            Err(ReadlineError::Interrupted) => return Ok(Typed::Nothing),
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error),
        }
    }
    let text = text.trim_end();
    let text = text.strip_suffix(BLOCK).unwrap_or(text).trim().to_owned();
    Ok(if text.is_empty() { Typed::Nothing } else { Typed::Message(text) })
}

async fn obey(client: &ServiceClient, talk: &mut Conversation, command: SlashCommand) {
    match command {
        SlashCommand::Help => print(HELP),
        SlashCommand::Exit => {}
        SlashCommand::Clear => {
            talk.clear();
            print("forgotten\n");
        }
        SlashCommand::Model(None) => match models(client).await {
            Ok(names) => print(&names.iter().map(|name| format!("{}\n", harmless(name))).collect::<String>()),
            Err(error) => print_stderr(&error.to_text()),
        },
        SlashCommand::Model(Some(name)) => {
            // A name that lists do not show may be an alias: the service decides.
            let is_listed = models(client).await.is_ok_and(|names| names.contains(&name));
            let doubt = if is_listed { "" } else { " (not in the list of /model)" };
            print(&format!("{}{doubt}\n", harmless(&name)));
            talk.model = Some(name);
        }
        SlashCommand::System(None) => {
            print(&format!("{}\n", harmless(talk.system.as_deref().unwrap_or("(no system prompt)"))));
        }
        SlashCommand::System(Some(text)) => {
            talk.system = Some(text).filter(|text| text != "-");
            print(if talk.system.is_some() { "the system prompt is set\n" } else { "there is no system prompt\n" });
        }
        SlashCommand::Image(path) => match image::read(&path) {
            Ok(url) => {
                talk.images.push(url);
                print(&format!("{} goes with the next message\n", path.display()));
            }
            Err(fault) => print_stderr(&format!("{fault}\n")),
        },
        SlashCommand::Save(path) => save(talk, &path),
    }
}

fn save(talk: &Conversation, path: &Path) {
    let path: PathBuf = path.to_owned();
    match talk.save(&path) {
        Ok(()) => print(&format!("saved to {}\n", path.display())),
        Err(error) => print_stderr(&format!("not saved to {}: {error}\n", path.display())),
    }
}

/// Returns the ids of the models that the key may use.
async fn models(client: &ServiceClient) -> Result<Vec<String>, CallError> {
    let list = client.get_json("/v1/models").await?;
    let models = list["data"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(models.iter().filter_map(|model| model["id"].as_str().map(str::to_owned)).collect())
}
