//! The commands of a conversation that begin with a slash.

use std::path::PathBuf;

/// Most typing mistakes by which a word still looks like a command.
const LARGEST_TYPO: usize = 2;

/// What the commands are, for `/help`.
pub(super) const HELP: &str = "\
/model [NAME]    show the models, or talk to this one from now on
/system [TEXT]   show the system prompt, or set it; /system - has none
/image PATH      add a picture to the next message
/clear           forget the messages so far
/save PATH       write the conversation to a new file (.json, else Markdown)
/exit            leave, as Ctrl-D does
\"\"\"              begins and ends a message of several lines
Ctrl-C           stops an answer
";

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SlashCommand {
    Help,
    Model(Option<String>),
    System(Option<String>),
    Image(PathBuf),
    Clear,
    Save(PathBuf),
    Exit,
}

const NAMES: [&str; 7] = ["/help", "/model", "/system", "/image", "/clear", "/save", "/exit"];

impl SlashCommand {
    /// Reads a line that begins with a slash.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub(super) fn read(line: &str) -> Result<Self, String> {
        let (name, rest) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
        let rest = Some(rest.trim()).filter(|rest| !rest.is_empty()).map(str::to_owned);
        let path = |rest: Option<String>| rest.map(PathBuf::from).ok_or_else(|| format!("{name} needs a path"));
        let command = match name {
            "/help" | "/?" => Self::Help,
            "/model" => return Ok(Self::Model(rest)),
            "/system" => return Ok(Self::System(rest)),
            "/image" => return path(rest).map(Self::Image),
            "/save" => return path(rest).map(Self::Save),
            "/clear" => Self::Clear,
            "/exit" | "/quit" | "/bye" => Self::Exit,
            _ => return Err(unknown(name)),
        };
        match rest {
            Some(_) => Err(format!("{name} takes nothing after it")),
            None => Ok(command),
        }
    }
}

fn unknown(name: &str) -> String {
    let mistakes = |known: &&str| strsim::damerau_levenshtein(known, name);
    let nearest = NAMES.into_iter().min_by_key(mistakes).filter(|known| mistakes(known) <= LARGEST_TYPO);
    match nearest {
        Some(known) => format!("there is no command {name:?}; did you mean {known}?"),
        None => format!("there is no command {name:?}; /help names all. A message may begin with a blank and a slash"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_read_or_refused_by_name() {
        let read = |line| SlashCommand::read(line);
        assert_eq!(read("/system  Be brief. "), Ok(SlashCommand::System(Some("Be brief.".to_owned()))));
        assert_eq!(read("/model"), Ok(SlashCommand::Model(None)));
        assert_eq!(read("/image my cat.png"), Ok(SlashCommand::Image("my cat.png".into())));
        assert_eq!(read("/bye"), Ok(SlashCommand::Exit));
        assert_eq!(read("/save").unwrap_err(), "/save needs a path");
        assert_eq!(read("/clear all").unwrap_err(), "/clear takes nothing after it");
        assert_eq!(read("/modle").unwrap_err(), "there is no command \"/modle\"; did you mean /model?");
        assert!(NAMES.iter().all(|name| HELP.contains(name) || *name == "/help"));
    }
}
