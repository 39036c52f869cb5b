//! The fake llama-server: it takes the real one's arguments, has its routes, bodies and log lines, starts and stops
//! like it, and has faults on command.
//!
//! It computes nothing: responses depend only on the request and the script.
//!
//! Tests talk to it through files beside the model file of `-m`, because the gateway clears a worker's environment:
//! `<model>.fake.json` is the *script* (`script.rs`: the faults), `<model>.fake.journal` the *journal* (`journal.rs`:
//! what happened, one JSON object a line). The journal's `start` record names the port of the *control socket*
//! (`control.rs`: commands while it runs).
//!
//! - `arguments.rs`: the command line
//! - `bodies.rs`: whole responses
//! - `connection.rs`: one connection
//! - `control.rs`: the control socket
//! - `delivery.rs`: writes a response, with the script's faults
//! - `journal.rs`: the journal
//! - `life.rs`: start, load, service and stop
//! - `request.rs`: a request
//! - `routes.rs`: the response to a request
//! - `script.rs`: the script
//! - `server.rs`: the state that connections share
//! - `streams.rs`: streamed responses
//! - `wire.rs`: HTTP/1.1 by hand, because an HTTP library refuses to send broken responses

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test double: it may exit, spawn and panic anywhere"
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
#[allow(dead_code, reason = "the rest is for the tests")]
mod resources;
mod routes;
mod script;
mod server;
mod streams;
mod wire;

use std::process::ExitCode;

/// Runs the fake, or one of the processes that it starts when the script says so.
pub(super) fn main() -> ExitCode {
    let argv: Vec<String> = std::env::args().collect();
    match argv.get(1).map(String::as_str) {
        Some(life::GRANDCHILD) => {
            life::sleep_as_grandchild();
            return ExitCode::SUCCESS;
        }
        Some(life::DAEMON) => {
            life::start_daemon(&argv[2]);
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    match arguments::Arguments::parse(&argv[1..]) {
        Ok(arguments) => life::run(arguments),
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}
