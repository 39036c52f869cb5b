//! The control socket: a loopback port that takes commands, one a line, and answers each with `ok` or `error ...`.
//!
//! `release load` · `release requests [n]` (without n: all, also later ones) · `die code N` · `die signal N` ·
//! `stop answering` · `resume` · `log WORDS`
//!
//! It runs on its own thread, so that commands work while the server is stuck.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use super::{script::Ending, server::Server};

/// Runs the commands of all connections to `listener`.
pub(super) fn serve(listener: TcpListener, server: Arc<Server>) {
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let server = server.clone();
            thread::spawn(move || run_commands(&stream, &server));
        }
    });
}

fn run_commands(stream: &TcpStream, server: &Server) -> io::Result<()> {
    for line in BufReader::new(stream).lines() {
        let words = line?;
        let words: Vec<&str> = words.split_whitespace().collect();
        // The answer comes first, because the command may end this process.
        match parse(&words) {
            Some(command) => {
                (&*stream).write_all(b"ok\n")?;
                run(command, server);
            }
            None => (&*stream).write_all(format!("error: unknown command {words:?}\n").as_bytes())?,
        }
    }
    Ok(())
}

enum Command {
    ReleaseLoad,
    ReleaseAllRequests,
    ReleaseRequests(usize),
    SetAnswering(bool),
    Log(String),
    Die(Ending),
}

fn parse(words: &[&str]) -> Option<Command> {
    match words {
        ["release", "load"] => Some(Command::ReleaseLoad),
        ["release", "requests"] => Some(Command::ReleaseAllRequests),
        ["release", "requests", n] => n.parse().ok().map(Command::ReleaseRequests),
        ["stop", "answering"] => Some(Command::SetAnswering(false)),
        ["resume"] => Some(Command::SetAnswering(true)),
        ["log", words @ ..] => Some(Command::Log(words.join(" "))),
        ["die", "code", n] => Some(Command::Die(Ending { code: Some(n.parse().ok()?), ..Ending::default() })),
        ["die", "signal", n] => Some(Command::Die(Ending { signal: Some(n.parse().ok()?), ..Ending::default() })),
        _ => None,
    }
}

fn run(command: Command, server: &Server) {
    match command {
        Command::ReleaseLoad => server.load_gate.open(),
        Command::ReleaseAllRequests => server.request_gate.open(),
        Command::ReleaseRequests(n) => server.request_gate.release(n),
        Command::SetAnswering(answering) => _ = server.answering.send_replace(answering),
        Command::Log(line) => eprintln!("{line}"),
        Command::Die(ending) => server.end(&ending),
    }
}
