//! Writes a response to the client, and breaks it where the script says so.

use std::{io, sync::atomic::Ordering, time::Duration};

use serde_json::json;

use super::{
    request::Request,
    routes::{Content, Response},
    script::{Ending, Script},
    server::{Phase, Server},
    streams::Frames,
    wire::Writer,
};

/// Whether the connection stays open after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Afterwards {
    KeepAlive,
    Close,
}

/// Waits for a slot and for the delays of the script, then writes the response.
pub(super) async fn deliver(
    server: &Server,
    request: &Request,
    response: Response,
    writer: &mut Writer,
) -> io::Result<Afterwards> {
    let Response { status, content_type, content, needs_slot } = response;
    // llama-server sends no header before the request has a slot, and keeps the slot until the last byte.
    let slot = if needs_slot { Some(server.slot().await) } else { None };
    if request.is_post() && server.script.hangs_on(request.path()) {
        std::mem::forget(slot);
        std::future::pending::<()>().await;
    }
    let dies = server.script.die_on.as_deref().is_some_and(|text| request.contains(text));
    if dies && !matches!(content, Content::Stream(_)) {
        server.end(&Ending::default());
    }
    if request.is_post() && !dies {
        if server.script.holds(request.path()) {
            server.request_gate.pass().await;
        }
        pause(Duration::from_millis(server.script.slow_first_byte_ms)).await;
    }
    if needs_slot && *server.phase.borrow() == Phase::Stopping {
        // Like llama-server, which generates nothing after SIGTERM: the client has to disconnect.
        std::future::pending::<()>().await;
    }
    let asked_to_close = request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let mut head = Head::new(status, content_type, asked_to_close || request.is_last || status >= 400, &server.script);
    match content {
        Content::Stream(frames) => {
            head.line("X-Accel-Buffering: no");
            head.line("Transfer-Encoding: chunked");
            writer.write(&head.bytes()).await?;
            if dies {
                server.end(&Ending::default());
            }
            write_stream(server, request, frames, writer).await?;
            // llama-server closes after every stream, even when the head says keep-alive.
            Ok(Afterwards::Close)
        }
        Content::Whole(body) => {
            if needs_slot {
                server.counters.decodes.fetch_add(1, Ordering::Relaxed);
            }
            write_whole(server, request, head, &body, writer).await
        }
    }
}

async fn write_whole(
    server: &Server,
    request: &Request,
    mut head: Head,
    body: &[u8],
    writer: &mut Writer,
) -> io::Result<Afterwards> {
    let (length_error, cut) = match request.is_post() {
        true => (server.script.wrong_content_length, server.script.truncate_body),
        false => (0, None),
    };
    head.line(&format!("Content-Length: {}", (body.len() as i64 + length_error).max(0)));
    let body = match cut {
        _ if request.method == "HEAD" => &[],
        Some(kept) => &body[..kept.min(body.len())],
        None => body,
    };
    let mut bytes = head.bytes();
    bytes.extend_from_slice(body);
    writer.write(&bytes).await?;
    let broken = length_error != 0 || cut.is_some();
    Ok(if broken || head.closes { Afterwards::Close } else { Afterwards::KeepAlive })
}

async fn write_stream(server: &Server, request: &Request, frames: Frames, writer: &mut Writer) -> io::Result<()> {
    let script = &server.script;
    for (written, frame) in (0u64..).zip(frames) {
        let is_due = |fault: Option<u64>| fault == Some(written);
        if is_due(script.hold_mid_stream.map(|hold| hold.after_frames)) {
            server.request_gate.pass().await;
        }
        if is_due(script.exit_mid_stream.map(|end| end.after_frames)) {
            server.end(&script.exit_mid_stream.map(Into::into).unwrap_or_default());
        }
        if is_due(script.half_event_then_die.map(|end| end.after_frames)) {
            writer.chunk(&frame.as_bytes()[..frame.len() / 2]).await?;
            server.end(&script.half_event_then_die.map(Into::into).unwrap_or_default());
        }
        if is_due(script.reset_mid_stream.map(|reset| reset.after_frames)) {
            writer.reset_on_close()?;
            return Ok(());
        }
        if is_due(script.error_mid_stream.map(|error| error.after_frames)) {
            writer.chunk(error_event(request).as_bytes()).await?;
            writer.last_chunk().await?;
            return Ok(());
        }
        if let Some(truncate) = script.truncate_mid_stream.filter(|truncate| truncate.after_frames == written) {
            if truncate.end_chunk {
                writer.last_chunk().await?;
            }
            return Ok(());
        }
        writer.chunk(frame.as_bytes()).await?;
        server.counters.decodes.fetch_add(1, Ordering::Relaxed);
        pause(script.between_frames()).await;
    }
    writer.last_chunk().await?;
    Ok(())
}

/// llama-server's error event, which ends a stream.
fn error_event(request: &Request) -> String {
    let error = json!({"code": 500, "message": "Compute error.", "type": "server_error"});
    match request.path() {
        "/v1/messages" => format!("event: error\ndata: {error}\n\n"),
        _ => format!("data: {}\n\n", json!({ "error": error })),
    }
}

async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

/// The head of a response, with the headers that llama-server always sends.
struct Head {
    text: String,
    closes: bool,
}

impl Head {
    fn new(status: u16, content_type: &str, closes: bool, script: &Script) -> Self {
        let status = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        let mut head = Head { text: format!("HTTP/1.1 {status}\r\n"), closes };
        head.line("Server: llama.cpp");
        head.line("Access-Control-Allow-Origin: ");
        head.line(&format!("Content-Type: {content_type}"));
        head.line(if closes { "Connection: close" } else { "Keep-Alive: timeout=5, max=100" });
        if script.oversized_response_headers > 0 {
            head.line(&format!("X-Padding: {}", "x".repeat(script.oversized_response_headers)));
        }
        head
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push_str("\r\n");
    }

    fn bytes(&self) -> Vec<u8> {
        format!("{}\r\n", self.text).into_bytes()
    }
}
