//! The routes with which people look at the service while it works: the live feed, the queue, the logs.
//!
//! Owns what is told, to whom and how fast. Nothing of it runs while no client asks.
//!
//! - `bounds.rs`: how many may listen, how much is kept for them, how often is looked
//! - `changes.rs`: what has changed between two views: pure
//! - `feed.rs`: what is told, and who listens
//! - `listener.rs`: one listener of the feed
//! - `logs/`: logs over HTTP
//! - `look.rs`: fills a view from the parts of the service
//! - `query.rs`: the parameters of the routes
//! - `queue_list.rs`: the places of waiting requests
//! - `snapshot.rs`: all that is told, as one event
//! - `throughput.rs`: what is done in a second, and what was done in the minutes before: pure
//! - `view.rs`: what is seen of the service at one moment
//! - `watcher.rs`: the task that looks

mod bounds;
mod changes;
mod feed;
mod listener;
mod logs;
mod look;
mod query;
mod queue_list;
mod snapshot;
mod throughput;
mod view;
mod watcher;

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::accounting::record::Accounting;
use super::admission::auth::Caller;
use super::queue::model_queues::ModelQueues;
use super::response::local_answer::{LAST_EVENT_ID, LocalAnswer, event_stream, json_response, response_of};
use super::routes::route::LiveRoute;
use crate::blocking_pool::{BlockingPool, NotDone};
use crate::download::DownloadRegistry;
use crate::fleet::Fleet;
use crate::models::shown_name;
use crate::refusal::Refusal;
use crate::telemetry::throttled_warning::ThrottledWarning;
use bounds::{LISTENERS_FULL_RETRY, LOG_READ_WAIT, LOG_READS_AT_ONCE, MOST_LOG_FOLLOWERS};
use feed::Feed;
use listener::Listener;
use logs::follow::{self, LogFollower, LogUnread};
use logs::list::{self, NamedLog};
use logs::tail;
use look::FeedSources;
use query::LogQuery;

/// What a refusal for too many clients that follow logs says.
const FOLLOWERS: &str = "Too many clients follow logs";

/// Answers the routes with which people look at the service.
pub(super) struct LiveApi {
    feed: Arc<Feed>,
    /// Reads logs.
    reads: BlockingPool,
    followers: Arc<Semaphore>,
    /// Ends the streams of logs.
    stop: CancellationToken,
    failure: Mutex<ThrottledWarning>,
}

impl LiveApi {
    /// Creates the API. Must be called on the runtime that outlives all requests.
    pub(super) fn new(
        fleet: Arc<Fleet>,
        queues: Arc<ModelQueues>,
        downloads: Arc<DownloadRegistry>,
        accounting: Arc<Accounting>,
    ) -> Self {
        Self {
            feed: Arc::new(Feed::new(FeedSources { fleet, queues, downloads, accounting })),
            reads: BlockingPool::new(LOG_READS_AT_ONCE, LOG_READ_WAIT),
            followers: Arc::new(Semaphore::new(MOST_LOG_FOLLOWERS)),
            stop: CancellationToken::new(),
            failure: Mutex::default(),
        }
    }

    /// Answers a request. `id` is what its path has at the place of `{id}`.
    ///
    /// # Errors
    /// A refusal if a parameter is wrong, there is no such log or it cannot be read, or too many clients listen.
    pub(super) async fn respond(
        &self,
        route: LiveRoute,
        id: &str,
        parts: &Parts,
        caller: &Caller,
    ) -> Result<LocalAnswer, Refusal> {
        match route {
            LiveRoute::Events => {
                query::check_none(parts)?;
                let seen = parts.headers.get(LAST_EVENT_ID).and_then(|seen| seen.to_str().ok()?.parse().ok());
                Ok(event_stream(listener::stream_of(Listener::begin(&self.feed, seen)?)))
            }
            LiveRoute::Queue => {
                query::check_none(parts)?;
                let FeedSources { queues, accounting, .. } = &self.feed.sources;
                let list = queue_list::list(&queues.current(), caller, &accounting.access);
                Ok(LocalAnswer::Whole(json_response(StatusCode::OK, &list)))
            }
            LiveRoute::Logs => {
                query::check_none(parts)?;
                let logs = self.logs();
                let entries = move || logs.into_iter().map(NamedLog::entry).collect::<Vec<_>>();
                let entries = self.reads.run(entries).await.map_err(|why| self.refusal_of(&why.into()))?;
                let list = json!({"object": "list", "data": entries});
                Ok(LocalAnswer::Whole(json_response(StatusCode::OK, &list)))
            }
            LiveRoute::Log => {
                let LogQuery { lines, follows } = LogQuery::read(parts)?;
                let log = self.logs().into_iter().find(|log| log.name == id);
                let log = log.ok_or_else(|| Refusal::LogNotFound(shown_name(id)))?;
                let answer = match follows {
                    true => self.follow(log, lines).await?,
                    false => self.tail(log, lines).await.map(LocalAnswer::Whole),
                };
                answer.map_err(|why| self.refusal_of(&why))
            }
        }
    }

    /// Ends all streams.
    pub(super) async fn end(&self) {
        self.stop.cancel();
        self.feed.end().await;
    }

    fn logs(&self) -> Vec<NamedLog> {
        let FeedSources { fleet, accounting, .. } = &self.feed.sources;
        list::logs(fleet, &accounting.access)
    }

    async fn tail(&self, log: NamedLog, lines: usize) -> Result<Response<Bytes>, LogUnread> {
        let read = move || {
            let (text, reader) = tail::last_lines(&log.folder, lines)?;
            Ok::<_, LogUnread>(tail::with_unfinished(text, reader.unfinished(), lines))
        };
        let text = self.reads.run(read).await??;
        let mut response = response_of("text/plain; charset=utf-8", Bytes::from(text));
        // A log has what clients have sent, so no browser may take it for a page.
        response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        Ok(response)
    }

    async fn follow(&self, log: NamedLog, lines: usize) -> Result<Result<LocalAnswer, LogUnread>, Refusal> {
        let place = Arc::clone(&self.followers).try_acquire_owned();
        let place = place.map_err(|_| Refusal::TooManyListeners(FOLLOWERS, LISTENERS_FULL_RETRY))?;
        let follower = LogFollower::begin(self.reads.clone(), log.folder, lines, self.stop.clone(), place).await;
        Ok(follower.map(|follower| event_stream(follow::stream_of(follower))))
    }

    /// Returns what a client gets. Only the program's own log says what the disk says.
    fn refusal_of(&self, why: &LogUnread) -> Refusal {
        match why {
            LogUnread::NotDone(NotDone::Busy) => Refusal::LogUnavailable("others are reading logs, try again later"),
            LogUnread::NotDone(NotDone::Stopping) => Refusal::LogUnavailable("the service is shutting down"),
            LogUnread::Disk(error) => {
                if let Some(failures) = self.failure.lock().unwrap_or_else(PoisonError::into_inner).report_due() {
                    warn!(failures, "a log cannot be read: {error}");
                }
                Refusal::LogUnavailable("the program's own log says why")
            }
        }
    }
}
