//! The control socket: lines of commands on a loopback port, each answered with `ok` or `error ...`.
//!
//! `release load` · `release requests [n]` (without n: all, also those to come) · `die code N` · `die signal N` ·
//! `stop answering` · `resume` · `log WORDS`
//!
//! It runs on a thread of its own, so that it obeys also while the server is stuck.

use super::{script::Ending, server::Server};
use std::{
    io::{self, BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
};

/// Obeys everyone who connects to `listener`.
pub(super) fn serve(listener: TcpListener, server: Arc<Server>) {
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let server = server.clone();
            thread::spawn(move || obey_lines(&stream, &server));
        }
    });
}

fn obey_lines(stream: &TcpStream, server: &Server) -> io::Result<()> {
    for line in BufReader::new(stream).lines() {
        let words = line?;
        let words: Vec<&str> = words.split_whitespace().collect();
        // Answered first: what a command sets free may be the end of this process.
        match order(&words) {
            Some(order) => {
                (&*stream).write_all(b"ok\n")?;
                obey(order, server);
            }
            None => (&*stream).write_all(format!("error: unknown command {words:?}\n").as_bytes())?,
        }
    }
    Ok(())
}

enum Order {
    Load,
    AllRequests,
    Requests(usize),
    Answer(bool),
    Log(String),
    Die(Ending),
}

fn order(words: &[&str]) -> Option<Order> {
    match words {
        ["release", "load"] => Some(Order::Load),
        ["release", "requests"] => Some(Order::AllRequests),
        ["release", "requests", n] => n.parse().ok().map(Order::Requests),
        ["stop", "answering"] => Some(Order::Answer(false)),
        ["resume"] => Some(Order::Answer(true)),
        ["log", words @ ..] => Some(Order::Log(words.join(" "))),
        ["die", "code", n] => Some(Order::Die(Ending { code: Some(n.parse().ok()?), ..Ending::default() })),
        ["die", "signal", n] => Some(Order::Die(Ending { signal: Some(n.parse().ok()?), ..Ending::default() })),
        _ => None,
    }
}

fn obey(order: Order, server: &Server) {
    match order {
        Order::Load => server.load_gate.open(),
        Order::AllRequests => server.request_gate.open(),
        Order::Requests(n) => server.request_gate.release(n),
        Order::Answer(answers) => _ = server.answering.send_replace(answers),
        Order::Log(line) => eprintln!("{line}"),
        Order::Die(ending) => server.end(&ending),
    }
}
