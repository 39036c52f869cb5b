//! One connection: requests one after the other. Each is journalled, and dropped at once when the client disconnects.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use serde_json::json;
use tokio::{net::TcpStream, time::timeout};

use super::{
    delivery::{Afterwards, deliver},
    routes,
    script::Ending,
    server::{Phase, Server},
    wire::{self, NoRequest, Reader, Writer},
};

/// llama-server's HTTP library closes an idle connection after this time, and any connection after this many requests.
const IDLE: Duration = Duration::from_secs(5);
const REQUESTS_PER_CONNECTION: usize = 100;

/// Serves one connection to its end.
pub(super) async fn serve(server: Arc<Server>, stream: TcpStream) {
    let (mut reader, mut writer) = wire::split(stream);
    for nth in 1..=REQUESTS_PER_CONNECTION {
        tokio::select! {
            arrived = timeout(IDLE, reader.wait_for_bytes()) => if arrived.is_err() { return },
            () = server.wait_for(Phase::Stopping) => return,
        }
        if serve_one(&server, &mut reader, &mut writer, nth == REQUESTS_PER_CONNECTION).await == Afterwards::Close {
            return;
        }
    }
}

async fn serve_one(server: &Server, reader: &mut Reader, writer: &mut Writer, is_last: bool) -> Afterwards {
    let mut request = match reader.request(writer).await {
        Ok(request) => request,
        Err(NoRequest::Closed) => return Afterwards::Close,
        Err(NoRequest::Cut) => {
            let n = next_number(server);
            server.journal.record("disconnect", json!({"n": n, "during": "request"}));
            return Afterwards::Close;
        }
    };
    request.is_last = is_last;
    let n = next_number(server);
    server.journal.request(n, &request);
    if server.script.log_requests {
        eprintln!("srv  log_server_r: request: {} {} 127.0.0.1 503", request.method, request.target);
    }
    let delivered = async {
        wait_until_answering(server).await;
        if server.script.is_silent_on(request.path()) {
            std::future::pending::<()>().await;
        }
        let response = routes::respond(server, &request);
        let streams = matches!(response.content, routes::Content::Stream(_));
        tokio::select! {
            delivered = deliver(server, &request, response, writer) => delivered,
            // Like llama-server: SIGTERM cuts a stream; any other request goes on until the client disconnects.
            () = server.wait_for(Phase::Stopping), if streams => Ok(Afterwards::Close),
        }
    };
    let outcome = tokio::select! {
        biased;
        delivered = delivered => delivered,
        () = reader.wait_disconnected() => Err(std::io::ErrorKind::ConnectionAborted.into()),
    };
    match outcome {
        Ok(afterwards) => {
            server.journal.record("finished", json!({"n": n}));
            if request.is_post() {
                count_response(server);
            }
            afterwards
        }
        Err(_) => {
            // llama-server logs this in an HTTP thread, so also while its main loop hangs.
            eprintln!("0.07.606.381 W srv          stop: cancel task, id_task = {n}");
            server.journal.record("disconnect", json!({"n": n, "during": "answer"}));
            Afterwards::Close
        }
    }
}

async fn wait_until_answering(server: &Server) {
    let _ = server.answering.subscribe().wait_for(|answering| *answering).await;
}

fn next_number(server: &Server) -> u64 {
    server.counters.requests.fetch_add(1, Ordering::Relaxed) + 1
}

fn count_response(server: &Server) {
    let answered = server.counters.posts_answered.fetch_add(1, Ordering::Relaxed) + 1;
    if server.script.exit_after_requests == Some(answered) {
        server.end(&Ending::default());
    }
}
