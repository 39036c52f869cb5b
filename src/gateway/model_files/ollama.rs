//! Ollama's `pull`: a download as lines of JSON, in the words that its clients know.
//!
//! The download goes on when its client leaves; `DELETE /v1/models/downloads/{id}` cancels it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use super::orders::{self, PullOrder};
use super::refused::refusal_of;
use crate::download::{
    Download, DownloadRegistry, DownloadState, DownloadStatus, FollowStep, Follower, OrderError, Ordered,
};
use crate::gateway::admission::auth::Caller;
use crate::gateway::bounds::RETRY_AFTER_UNKNOWN;
use crate::gateway::queue::model_queues::Snapshot;
use crate::gateway::response::local_answer::{LocalAnswer, json_response, response_of};
use crate::gateway::response::made::NextMade;
use crate::refusal::Refusal;

/// The type of a stream of lines.
const LINES: &str = "application/x-ndjson";
/// The tag that stands for none.
pub(super) const LATEST: &str = ":latest";
/// Characters of a digest that a status repeats, as Ollama does.
const SHOWN_DIGEST: usize = 12;

/// Answers `POST /api/pull`.
///
/// # Errors
/// A refusal if the body is not right or the download cannot begin; without a stream also if it fails.
pub(super) async fn pull(
    downloads: &Arc<DownloadRegistry>,
    body: &[u8],
    caller: &Caller,
    models: &Snapshot,
) -> Result<LocalAnswer, Refusal> {
    let PullOrder { model, streams } = orders::read_pull(body)?;
    if let Some(served) = models.find(&model).or_else(|| models.find(models.without_default_tag(&model))) {
        caller.check_model_as(&served.model.info(), Some(&model))?;
        return Ok(there(streams));
    }
    let name = model.strip_suffix(LATEST).unwrap_or(&model);
    caller.check_name(name)?;
    let download = match downloads.order(name).await.map_err(refusal_of_pull)? {
        Ordered::Comes(download) | Ordered::IsThere(download) => download,
    };
    let follower = downloads.follow(download.id(), None).map_err(refusal_of)?;
    // Without an id of an event there always is one to come.
    let Some(mut follower) = follower else { return Ok(there(streams)) };
    if streams {
        let lines = PullLines::new(download);
        return Ok(LocalAnswer::Made(response_of(LINES, lines_of(lines, Some(follower)))));
    }
    let mut last = None;
    while let Some(step) = follower.next().await {
        if let FollowStep::Event(event) = step {
            last = Some(event.status);
        }
    }
    match last.filter(|status| status.state.is_final()) {
        Some(status) => match failure_of(&status) {
            None => Ok(there(false)),
            Some(failure) => Err(Refusal::DownloadFailed(failure)),
        },
        None => Err(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN)),
    }
}

/// Returns the answer to a pull of what is here.
fn there(streams: bool) -> LocalAnswer {
    let success = json!({"status": "success"});
    match streams {
        false => LocalAnswer::Whole(json_response(StatusCode::OK, &success)),
        true => {
            let lines = line(&json!({"status": "pulling manifest"})) + &line(&success);
            LocalAnswer::Whole(response_of(LINES, Bytes::from(lines)))
        }
    }
}

/// Names of Ollama's own library are what most of its users write.
fn refusal_of_pull(error: OrderError) -> Refusal {
    match error {
        OrderError::Name(_) => Refusal::InvalidParameter {
            field: "model".to_owned(),
            message: format!(
                "{error}. Models come from the hub, not from Ollama's library: pull hf.co/ORG/NAME:QUANT, such as \
                 hf.co/Qwen/Qwen3-4B-GGUF:Q4_K_M"
            ),
        },
        error => refusal_of(error),
    }
}

fn failure_of(status: &DownloadStatus) -> Option<String> {
    match status.state {
        DownloadState::Cancelled => Some("the download was cancelled; what has arrived is kept".to_owned()),
        _ => status.error.as_ref().map(|error| match error.hint {
            Some(hint) => format!("{}; {hint}", error.message),
            None => error.message.clone(),
        }),
    }
}

/// Turns the events of a download into lines.
struct PullLines {
    download: Arc<Download>,
    waiting: VecDeque<Value>,
    /// What was said last, which is said again as a sign of life.
    last: Value,
    has_verified: bool,
}

impl PullLines {
    fn new(download: Arc<Download>) -> Self {
        let first = json!({"status": "pulling manifest"});
        Self { download, waiting: VecDeque::from([first.clone()]), last: first, has_verified: false }
    }

    fn push(&mut self, line: Value) {
        self.last.clone_from(&line);
        self.waiting.push_back(line);
    }

    fn take(&mut self, step: FollowStep) {
        let FollowStep::Event(event) = step else {
            let last = self.last.clone();
            return self.push(last);
        };
        let status = event.status;
        if let Some(failure) = failure_of(&status) {
            return self.push(json!({"error": failure}));
        }
        let report = &status.report;
        if report.total > 0 {
            let digest = self.download.digest().unwrap_or_default();
            let what =
                if digest.is_empty() { report.model.as_str() } else { digest.get(..SHOWN_DIGEST).unwrap_or(digest) };
            let (total, completed) = (report.total, report.bytes);
            let digest = format!("sha256:{digest}");
            self.push(
                json!({"status": format!("pulling {what}"), "digest": digest, "total": total, "completed": completed}),
            );
        }
        let is_done = status.state == DownloadState::Done;
        if (status.state == DownloadState::Verifying || is_done) && !self.has_verified {
            self.has_verified = true;
            self.push(json!({"status": "verifying sha256 digest"}));
        }
        if is_done {
            self.push(json!({"status": "writing manifest"}));
            self.push(json!({"status": "success"}));
        }
    }
}

fn lines_of(mut lines: PullLines, mut follower: Option<Follower>) -> NextMade {
    NextMade(Box::pin(async move {
        while lines.waiting.is_empty() {
            match follower.as_mut()?.next().await {
                Some(step) => lines.take(step),
                None => {
                    follower = None;
                    // The service stops in the middle: an end without a word would look like success.
                    let is_over = lines.download.status().state.is_final();
                    let refusal = Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN);
                    lines.waiting.extend((!is_over).then(|| json!({"error": refusal.to_string()})));
                }
            }
        }
        let text: String = lines.waiting.drain(..).map(|one| line(&one)).collect();
        Some((Bytes::from(text), lines_of(lines, follower)))
    }))
}

fn line(value: &Value) -> String {
    format!("{value}\n")
}
