//! The fake llama-server: the real one's arguments, routes, bodies and life, plus faults on command.
//!
//! It owns its process and one port. It computes nothing: answers are derived from the request and the script.
//!
//! Three files stand beside the model file given with `-m`, because the gateway scrubs a worker's environment:
//! `<model>.fake.json` is the *script* (`script.rs`: what to do wrong), `<model>.fake.journal` the *journal*
//! (`journal.rs`: what happened, one JSON object a line). The journal's `start` record names the port of the
//! *control socket* (`control.rs`: what to do now).
//!
//! HTTP is written by hand (`wire.rs`): an HTTP library refuses to send the lies that the gateway must survive.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test double: it may end, spawn and panic wherever its script says so"
)]

mod arguments;
mod bodies;
mod connection;
mod control;
mod delivery;
mod journal;
mod life;
mod request;
#[path = "../resources.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod resources;
mod routes;
mod script;
mod server;
mod streams;
mod wire;

use std::process::ExitCode;

/// Lives one life of a llama-server, or that of the grandchild it forks when the script asks for one.
pub(super) fn main() -> ExitCode {
    let argv: Vec<String> = std::env::args().collect();
    match argv.get(1).map(String::as_str) {
        Some(life::GRANDCHILD) => {
            life::linger();
            return ExitCode::SUCCESS;
        }
        Some(life::DAEMON) => {
            life::start_daemon(&argv[2]);
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    match arguments::Arguments::parse(&argv[1..]) {
        Ok(arguments) => life::live(arguments),
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}
