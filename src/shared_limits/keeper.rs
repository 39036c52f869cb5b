//! Keeps the connection of one core: opens it again when it breaks, tells what has ended, and renews what is held.
//!
//! Runs on the core, beside its requests, so that no answer crosses threads. Nothing wakes it while the connection is open,
//! no request ends and none holds anything.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisError, RedisResult, Value};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::bounds::{
    CONNECT_TIME, FIRST_PAUSE, LAST_TELL_TIME, LONGEST_PAUSE, RENEW_INTERVAL, TELL_TIME, TOLD_TOGETHER,
};
use super::health::StoreProblem;
use super::link::{ScriptConnection, StoreLink, is_without_script};
use super::orders::{LimitTake, RequestAsk, Settlement};
use super::script_calls::{ScriptCall, ScriptName, StoreScript, read_taken};
use super::store::LimitsStore;
use crate::dial::explain;
use crate::rate_bucket::MINUTE;

/// The id of the bucket with which a connection proves itself. No key has it: a full stop cannot be in a key_id.
const PROBE_KEY: &str = ".probe";

/// Why a connection is not served any more.
enum ServeEnd {
    /// It has broken, or is given up.
    Broken(StoreProblem),
    /// The service stops.
    Stopped,
}

/// Keeps the link of the core that this runs on, until the store is closed.
pub(super) async fn keep(store: Arc<LimitsStore>, link: Arc<StoreLink>) {
    let Some(mut untold) = link.untold.lock().ok().and_then(|mut untold| untold.take()) else { return };
    let mut pause = FIRST_PAUSE;
    loop {
        match connect_and_serve(&store, &link, &mut untold, &mut pause).await {
            ServeEnd::Broken(problem) => store.health.record_problem(&problem),
            ServeEnd::Stopped => return,
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            () = store.stop.cancelled() => return,
        }
    }
}

/// Opens a connection, and serves it until it breaks or the service stops.
async fn connect_and_serve(
    store: &LimitsStore,
    link: &StoreLink,
    untold: &mut mpsc::Receiver<Settlement>,
    pause: &mut Duration,
) -> ServeEnd {
    let opened = tokio::select! {
        opened = timeout(CONNECT_TIME, open(store, link)) => opened,
        () = store.stop.cancelled() => return ServeEnd::Stopped,
    };
    let late = || StoreProblem::Away(format!("no connection within {CONNECT_TIME:?}"));
    let (connection, mut driver) = match opened.unwrap_or_else(|_| Err(late())) {
        Ok(opened) => opened,
        Err(problem) => return ServeEnd::Broken(problem),
    };
    // What was said of an earlier connection.
    tokio::select! {
        biased;
        () = link.broken.notified() => {}
        () = std::future::ready(()) => {}
    }
    link.open(connection.clone());
    store.health.record_up();
    let begin = Instant::now();
    let mut serving = pin!(serve(store, link, connection, untold));
    // The driver moves the bytes for as long as it is polled, and ends with the connection.
    let end = tokio::select! {
        end = &mut serving => end,
        () = &mut driver => {
            link.broken.notify_one();
            serving.await
        }
    };
    // A server that is lost again and again would fill the log, which has a line for each change.
    if begin.elapsed() > LONGEST_PAUSE {
        *pause = FIRST_PAUSE;
    }
    let given_up = link.close();
    match end {
        ServeEnd::Broken(problem) => {
            let problem = given_up.unwrap_or(problem);
            store.health.record_down(&problem);
            ServeEnd::Broken(problem)
        }
        ServeEnd::Stopped => ServeEnd::Stopped,
    }
}

/// Opens a connection and prepares it. Returns it with the future that moves its bytes.
async fn open(
    store: &LimitsStore,
    link: &StoreLink,
) -> Result<(ScriptConnection, Pin<Box<impl Future<Output = ()>>>), StoreProblem> {
    let (connection, driver) = dial(store).await?;
    let mut driver = Box::pin(driver);
    let mut preparing = pin!(prepare(store, link, connection));
    let prepared = tokio::select! {
        prepared = &mut preparing => prepared?,
        () = &mut driver => {
            let closed = || StoreProblem::Away("the connection was closed".to_owned());
            return Err(preparing.await.err().unwrap_or_else(closed));
        }
    };
    Ok((prepared, driver))
}

/// Opens a connection and authenticates. Returns it with the future that moves its bytes.
async fn dial(store: &LimitsStore) -> Result<(MultiplexedConnection, impl Future<Output = ()>), StoreProblem> {
    let address = &store.address;
    let scheme = if address.is_tls { "https" } else { "http" };
    let authority = format!("{}:{}", address.host, address.port);
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query("/").build();
    let uri = uri.map_err(|error| StoreProblem::Away(error.to_string()))?;
    let stream = store.dialer.connect_to(uri).await;
    let stream = stream.map_err(|error| StoreProblem::Away(explain(&*error, &address.host)))?;
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(TELL_TIME));
    let opened = MultiplexedConnection::new_with_config(&store.login, TokioIo::new(stream), config).await;
    opened.map_err(|error| StoreProblem::of(&error))
}

/// Loads the scripts, reads the store's clock, lets the connection prove that it can take within the time that requests wait
/// for it, and tells what is held: the server may have lost it.
async fn prepare(
    store: &LimitsStore,
    link: &StoreLink,
    mut connection: MultiplexedConnection,
) -> Result<ScriptConnection, StoreProblem> {
    let refused = |error: RedisError| StoreProblem::of(&error);
    let mut pipeline = redis::pipe();
    for script in StoreScript::ALL {
        pipeline.cmd("SCRIPT").arg("LOAD").arg(script.text());
    }
    let hashes: Vec<String> = pipeline.query_async(&mut connection).await.map_err(refused)?;
    let mut connection = ScriptConnection { connection, hashes: hashes.into() };
    let probe = LimitTake {
        key: PROBE_KEY.into(),
        request: Some(RequestAsk { price: 1, size: MINUTE }),
        requests_known: 0,
        tokens_needed: None,
        tokens_known: 0,
        hold: None,
        most_holds: None,
        accounts: Vec::new(),
    };
    let asked = timeout(store.longest_wait, connection.run(&probe, &store.gateway)).await;
    let slow = || StoreProblem::Away(format!("no answer within {:?}", store.longest_wait));
    let taken = asked.map_err(|_| slow())?.and_then(|answer| read_taken(answer, 0)).map_err(refused)?;
    store.set_clock(taken.time, Timestamp::now());
    renew(store, link, &mut connection).await.map_err(refused)?;
    Ok(connection)
}

/// Tells what ends and renews what is held, until the connection breaks or the service stops.
async fn serve(
    store: &LimitsStore,
    link: &StoreLink,
    mut connection: ScriptConnection,
    untold: &mut mpsc::Receiver<Settlement>,
) -> ServeEnd {
    let mut batch = Vec::with_capacity(TOLD_TOGETHER);
    let mut renew_at: Option<Instant> = None;
    loop {
        if renew_at.is_none() && !link.held.is_empty() {
            renew_at = Some(Instant::now() + RENEW_INTERVAL);
        }
        let told = tokio::select! {
            // Renewals come before ends, which may come without a break. Nothing is renewed whose end is told already: it is
            // not among what is held any more.
            biased;
            () = link.broken.notified() => {
                return ServeEnd::Broken(StoreProblem::Away("the connection was closed".to_owned()));
            }
            () = async { tokio::time::sleep_until(renew_at.unwrap_or_else(Instant::now)).await }, if renew_at.is_some() => {
                renew_at = None;
                renew(store, link, &mut connection).await
            }
            count = untold.recv_many(&mut batch, TOLD_TOGETHER) => {
                if count == 0 {
                    return ServeEnd::Stopped;
                }
                tell(store, &mut connection, &mut batch).await
            }
            () = link.held.first.notified(), if renew_at.is_none() => Ok(()),
            () = store.stop.cancelled() => {
                let last = async {
                    while untold.try_recv().map(|ended| batch.push(ended)).is_ok() {
                        if batch.len() == TOLD_TOGETHER {
                            tell(store, &mut connection, &mut batch).await?;
                        }
                    }
                    tell(store, &mut connection, &mut batch).await
                };
                // What could not be told ends with its term.
                let _ = timeout(LAST_TELL_TIME, last).await;
                return ServeEnd::Stopped;
            }
        };
        if let Err(error) = told {
            return ServeEnd::Broken(StoreProblem::of(&error));
        }
    }
}

/// Tells the ends of requests together, and clears the batch. What the server does not take is lost: its holds end with
/// their term, and what was used of budgets is told with the next request of the key.
///
/// # Errors
/// The connection has broken, or no answer came in time.
async fn tell(store: &LimitsStore, connection: &mut ScriptConnection, batch: &mut Vec<Settlement>) -> RedisResult<()> {
    let outcome = call_together(connection, batch, &store.gateway).await;
    match &outcome {
        Ok(untaken) => store.health.count_lost(*untaken),
        Err(_) => store.health.count_lost(batch.len()),
    }
    batch.clear();
    outcome.map(drop)
}

/// Renews all that is held, some at a time.
///
/// # Errors
/// The connection has broken, or no answer came in time.
async fn renew(store: &LimitsStore, link: &StoreLink, connection: &mut ScriptConnection) -> RedisResult<()> {
    for held in link.held.all().chunks(TOLD_TOGETHER) {
        call_together(connection, held, &store.gateway).await?;
    }
    Ok(())
}

/// Makes calls in one round trip, or in two if the server has forgotten the scripts. Returns how many of them it did not take.
///
/// # Errors
/// The connection has broken, or no answer came in time.
async fn call_together<C: ScriptCall>(
    connection: &mut ScriptConnection,
    calls: &[C],
    gateway: &str,
) -> RedisResult<usize> {
    let mut untaken: Vec<&C> = calls.iter().collect();
    for is_first in [true, false] {
        if untaken.is_empty() {
            break;
        }
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors();
        for call in &untaken {
            let name = if is_first { connection.name_of::<C>() } else { ScriptName::Text };
            pipeline.add_command(call.command(name, gateway));
        }
        let answers: Vec<RedisResult<Value>> = pipeline.query_async(&mut connection.connection).await?;
        let is_forgotten = answers.iter().any(|answer| answer.as_ref().is_err_and(is_without_script));
        let failed = untaken.iter().zip(&answers).filter(|(_, answer)| answer.is_err()).map(|(call, _)| *call);
        untaken = failed.collect();
        if !is_forgotten {
            break;
        }
    }
    Ok(untaken.len())
}
