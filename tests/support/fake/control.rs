//! The control socket: lines of commands on a loopback port, each answered with `ok` or `error ...`.
//!
//! `release load` · `release requests [n]` (without n: all, also those to come) · `die code N` · `die signal N` ·
//! `stop answering` · `resume`
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
        if let ["die", how, number] = words[..]
            && let Ok(number) = number.parse()
        {
            (&*stream).write_all(b"ok\n")?;
            match how {
                "code" => server.end(&Ending { code: Some(number), ..Ending::default() }),
                _ => server.end(&Ending { signal: Some(number), ..Ending::default() }),
            }
        }
        let answer = if obey(&words, server) { "ok\n".into() } else { format!("error: unknown command {words:?}\n") };
        (&*stream).write_all(answer.as_bytes())?;
    }
    Ok(())
}

fn obey(words: &[&str], server: &Server) -> bool {
    match words {
        ["release", "load"] => server.load_gate.open(),
        ["release", "requests"] => server.request_gate.open(),
        ["release", "requests", n] => match n.parse() {
            Ok(n) => server.request_gate.release(n),
            Err(_) => return false,
        },
        ["stop", "answering"] => _ = server.answering.send_replace(false),
        ["resume"] => _ = server.answering.send_replace(true),
        _ => return false,
    }
    true
}
