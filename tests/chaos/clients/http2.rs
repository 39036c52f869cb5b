//! The client of a lane that speaks HTTP/2 with prior knowledge: several requests at once on one connection.

use crate::{
    checks::expectations::Outcome,
    clients::{Customer, OUTCOME, Order, THINKS},
    shared::{IDLE_LOOK, Target},
    support::{
        client::{Head, Response},
        wait,
    },
};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    error::Error,
    future::{Future, poll_fn},
    task::Poll,
    time::{Duration, Instant},
};

/// Most requests at once.
const AT_ONCE: u64 = 3;

type Sender = SendRequest<Full<Bytes>>;

/// Asks and judges until the lane is over.
pub(crate) fn shop(mut customer: Customer<'_>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(async {
        let mut connection = None;
        while !customer.door.is_over() {
            let thinks = Duration::from_millis(customer.random.below(THINKS));
            let door = customer.door;
            match door.enter() {
                Some(_busy) if !door.is_closed() => {
                    if let Err(what) = visit(&mut customer, &mut connection).await {
                        door.violation(format!("HTTP/2: {what}"));
                        connection = None;
                    }
                }
                _ => {
                    connection = None;
                    tokio::time::sleep(IDLE_LOOK).await;
                }
            }
            tokio::time::sleep(thinks).await;
        }
    });
}

/// A few requests at once, some of which the client may leave.
async fn visit(customer: &mut Customer<'_>, connection: &mut Option<(u64, Sender)>) -> Result<(), String> {
    let (door, target) = (customer.door, customer.door.target());
    let count = customer.random.between(1, AT_ONCE);
    let orders: Vec<Order> = (0..count).map(|_| customer.order(&target)).collect();
    let leaves: Vec<bool> = orders.iter().map(|_| customer.random.chance(6)).collect();
    let keeps = customer.random.chance(70);
    let sender = match connection.take().filter(|(life, sender)| *life == target.life && !sender.is_closed()) {
        Some((_, sender)) => sender,
        None => match connect(&target).await {
            Ok(sender) => sender,
            Err(_) if door.excuses(&target) => return Ok(()),
            Err(error) => return Err(format!("no connection: {error}")),
        },
    };
    let begin = Instant::now();
    let exchanges = orders.iter().zip(leaves).map(|(order, leaves)| {
        let (sender, target) = (sender.clone(), &target);
        async move {
            let patience = if leaves { Duration::from_millis(5) } else { wait::patient(OUTCOME) * 2 };
            match tokio::time::timeout(patience, ask(sender, target, order)).await {
                Ok(Ok(answer)) => order.settle(door, target, &answer, begin),
                Err(_) if leaves => {
                    order.account(door, target, Outcome::Left, None);
                    Ok(())
                }
                Ok(Err(_)) | Err(_) if door.excuses(target) => {
                    order.account(door, target, Outcome::Excused, None);
                    Ok(())
                }
                // What is not yet sent goes with the stream that is cut, be it the head: it says at least that it was cut.
                Ok(Err(error)) if order.wish.is_proxied && is_reset(&*error) => {
                    order.account(door, target, Outcome::Cut, None);
                    Ok(())
                }
                Ok(Err(error)) => Err(format!("no answer ({error}) to {:?}", order.wish)),
                Err(_) => Err(format!("no answer in time to {:?}", order.wish)),
            }
        }
    });
    let outcomes = all(exchanges).await;
    let took = door.ran_since(begin);
    if took > wait::patient(OUTCOME) {
        return Err(format!("{:?} took {took:?}", orders[0].wish));
    }
    if keeps {
        *connection = Some((target.life, sender));
    }
    outcomes.into_iter().collect()
}

/// Whether the gateway has reset the stream, as it does with an answer that it cannot finish.
fn is_reset(error: &(dyn Error + 'static)) -> bool {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string() == "stream error received: unexpected internal error encountered"
}

/// The outputs of them all, which go on side by side.
async fn all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
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

async fn ask(mut sender: Sender, target: &Target, order: &Order) -> Result<Response, Box<dyn Error>> {
    let request = Request::builder().method(order.method).uri(format!("{}{}", target.url, order.path));
    let request = order.client.headers().iter().fold(request, |request, (name, value)| request.header(name, value));
    let request =
        request.header("content-type", "application/json").body(Full::new(Bytes::from(order.body.clone())))?;
    let answer = sender.send_request(request).await?;
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut headers: Vec<_> =
        answer.headers().iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    // A stream of HTTP/2 says whether it has come to its end, as a chunked body does.
    headers.push(("transfer-encoding".to_owned(), "chunked".to_owned()));
    let head = Head { status: answer.status().as_u16(), headers };
    let (mut body, mut bytes) = (answer.into_body(), Vec::new());
    loop {
        match body.frame().await {
            Some(Ok(frame)) => bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
            Some(Err(_)) => return Ok(Response { head, body: bytes, complete: false }),
            None => return Ok(Response { head, body: bytes, complete: true }),
        }
    }
}
