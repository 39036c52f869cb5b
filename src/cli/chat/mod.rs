//! `llamagate chat`: a conversation with a model, in a terminal or as one question of a script.
//!
//! - `answer.rs`: one answer, as it streams in
//! - `args.rs`: the arguments
//! - `command.rs`: which of the two it is, and the one question
//! - `conversation.rs`: the messages so far, and the request that they make
//! - `image.rs`: pictures in messages
//! - `screen.rs`: shows an answer while it comes
//! - `slash.rs`: the commands that begin with a slash
//! - `terminal.rs`: the conversation in a terminal

mod answer;
mod args;
mod command;
mod conversation;
mod image;
mod screen;
mod slash;
mod terminal;

pub(super) use args::ChatArgs;
pub(super) use command::run;
