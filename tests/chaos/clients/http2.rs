//! The client of a lane that uses HTTP/2 with prior knowledge: several requests at once on one connection.

use std::{
    error::Error,
    future::{Future, poll_fn},
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::{
    checks::expectations::Outcome,
    clients::{MAX_PAUSE_MS, MAX_REQUEST_TIME, PlannedRequest, TrafficClient},
    shared::{IDLE_POLL, Target},
    support::{
        client::{Head, Response},
        wait,
    },
};

/// The highest number of requests in flight on the connection.
const MAX_IN_FLIGHT: u64 = 3;

type Sender = SendRequest<Full<Bytes>>;

/// Sends requests and checks the responses until the lane is finished.
pub(crate) fn run(mut client: TrafficClient<'_>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(async {
        let mut connection = None;
        while !client.shared.is_finished() {
            let pause = Duration::from_millis(client.random.below(MAX_PAUSE_MS));
            let shared = client.shared;
            match shared.try_begin() {
                Some(_active) if !shared.is_stopping() => {
                    if let Err(problem) = send_batch(&mut client, &mut connection).await {
                        shared.report_violation(format!("HTTP/2: {problem}"));
                        connection = None;
                    }
                }
                _ => {
                    connection = None;
                    tokio::time::sleep(IDLE_POLL).await;
                }
            }
            tokio::time::sleep(pause).await;
        }
    });
}

/// Sends up to `MAX_IN_FLIGHT` requests at once; the client may abandon some of them.
async fn send_batch(client: &mut TrafficClient<'_>, connection: &mut Option<(u64, Sender)>) -> Result<(), String> {
    let (shared, target) = (client.shared, client.shared.target());
    let count = client.random.between(1, MAX_IN_FLIGHT);
    let requests: Vec<PlannedRequest> = (0..count).map(|_| client.next_request(&target)).collect();
    let abandons: Vec<bool> = requests.iter().map(|_| client.random.chance(6)).collect();
    let keeps_open = client.random.chance(70);
    let sender = match connection
        .take()
        .filter(|(gateway_number, sender)| *gateway_number == target.gateway_number && !sender.is_closed())
    {
        Some((_, sender)) => sender,
        None => match connect(&target).await {
            Ok(sender) => sender,
            Err(_) if shared.is_excused(&target) => return Ok(()),
            Err(error) => return Err(format!("no connection: {error}")),
        },
    };
    let begin = Instant::now();
    let exchanges = requests.iter().zip(abandons).map(|(request, abandons)| {
        let (sender, target) = (sender.clone(), &target);
        async move {
            let deadline = if abandons { Duration::from_millis(5) } else { wait::patient(MAX_REQUEST_TIME) * 2 };
            match tokio::time::timeout(deadline, send_request(sender, target, request)).await {
                Ok(Ok(response)) => request.check_response(shared, target, &response, begin),
                Err(_) if abandons => {
                    request.record_outcome(shared, target, Outcome::Abandoned, None);
                    Ok(())
                }
                Ok(Err(_)) | Err(_) if shared.is_excused(target) => {
                    request.record_outcome(shared, target, Outcome::Excused, None);
                    Ok(())
                }
                // A reset stream loses what the gateway had not sent yet, even the head; the client can tell that it
                // was cut.
                Ok(Err(error)) if request.expected.is_proxied && is_reset(&*error) => {
                    request.record_outcome(shared, target, Outcome::Cut, None);
                    Ok(())
                }
                Ok(Err(error)) => Err(format!("no response ({error}) to {:?}", request.expected)),
                Err(_) => Err(format!("no response in time to {:?}", request.expected)),
            }
        }
    });
    let outcomes = join_all(exchanges).await;
    let took = shared.running_time_since(begin);
    if took > wait::patient(MAX_REQUEST_TIME) {
        return Err(format!("{:?} took {took:?}", requests[0].expected));
    }
    if keeps_open {
        *connection = Some((target.gateway_number, sender));
    }
    outcomes.into_iter().collect()
}

/// Whether the gateway has reset the stream, as it does with a response that it cannot finish.
fn is_reset(error: &(dyn Error + 'static)) -> bool {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string() == "stream error received: unexpected internal error encountered"
}

/// Runs all futures concurrently and returns their outputs.
async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    poll_fn(|context| {
        for (future, output) in futures.iter_mut().filter(|(_, output)| output.is_none()) {
            if let Poll::Ready(ready) = future.as_mut().poll(context) {
                *output = Some(ready);
            }
        }
        if futures.iter().all(|(_, output)| output.is_some()) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    futures.into_iter().filter_map(|(_, output)| output).collect()
}

async fn connect(target: &Target) -> Result<Sender, Box<dyn Error>> {
    let stream = tokio::net::TcpStream::connect(target.url.trim_start_matches("http://")).await?;
    let (sender, connection) = Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn send_request(
    mut sender: Sender,
    target: &Target,
    planned: &PlannedRequest,
) -> Result<Response, Box<dyn Error>> {
    let request = Request::builder().method(planned.method).uri(format!("{}{}", target.url, planned.path));
    let request = planned.client.headers().iter().fold(request, |request, (name, value)| request.header(name, value));
    let request =
        request.header("content-type", "application/json").body(Full::new(Bytes::from(planned.body.clone())))?;
    let response = sender.send_request(request).await?;
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut headers: Vec<_> =
        response.headers().iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    // An HTTP/2 stream shows whether it is complete, as a chunked body does.
    headers.push(("transfer-encoding".to_owned(), "chunked".to_owned()));
    let head = Head { status: response.status().as_u16(), headers };
    let (mut body, mut bytes) = (response.into_body(), Vec::new());
    loop {
        match body.frame().await {
            Some(Ok(frame)) => bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
            Some(Err(_)) => return Ok(Response { head, body: bytes, complete: false }),
            None => return Ok(Response { head, body: bytes, complete: true }),
        }
    }
}
