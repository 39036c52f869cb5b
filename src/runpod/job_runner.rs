//! Does one job: asks the gateway, and posts what comes of it.

use super::in_flight_jobs::{ArrivingJob, InFlightJob};
use super::job::Job;
use super::output::{self, Aggregate};
use super::platform_api::PlatformApi;
use super::stream_coalescer::StreamCoalescer;
use crate::fleet::Fleet;
use crate::gateway::{Gateway, ResponseBody};
use crate::pause_clock::{self, ActiveInstant};
use crate::runpod::bounds::{CHUNK_INTERVAL, RESULT_SIZE};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

/// Whom books name in place of a key.
const PLATFORM: &str = "runpod";

/// Whoever does them.
pub(super) struct JobRunner {
    pub(super) wire: Arc<PlatformApi>,
    pub(super) gateway: Arc<Gateway>,
    pub(super) fleet: Arc<Fleet>,
}

impl JobRunner {
    /// Does a job and posts its result; posts nothing more once it is to be stopped.
    pub(super) async fn run(self: Arc<Self>, job: Job, held: InFlightJob, arriving: ArrivingJob, tasks: &TaskTracker) {
        let Job { id, request } = job;
        let result = {
            let (own, id, stop) = (Arc::clone(&self), id.clone(), held.stop.clone());
            // Dropped, it leaves the line or frees its slot.
            isolated(tasks, async move { stop.run_until_cancelled(own.outcome(&id, request, arriving)).await }).await
        };
        if let Some(result) = result {
            held.stop.run_until_cancelled(self.wire.post_result(&id, result)).await;
        }
    }

    async fn outcome(&self, id: &str, request: Result<Request<Bytes>, String>, arriving: ArrivingJob) -> Bytes {
        let request = match request {
            Ok(request) => request,
            Err(why) => return output::error(&why),
        };
        let told = async {
            if !self.fleet.is_ready() {
                self.wire.post_progress(id, output::progress("The model is being loaded")).await;
            }
        };
        // Whoever looks must not be told of it after the result.
        let ((), answer) = tokio::join!(told, self.gateway.serve_job(request, PLATFORM, arriving));
        let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if answer.status().is_success() && kind.starts_with("text/event-stream") {
            self.stream(id, answer.into_body()).await
        } else {
            self.whole(id, answer).await
        }
    }

    /// An answer that is no stream: an error, or the only piece that there is.
    async fn whole(&self, id: &str, answer: Response<ResponseBody>) -> Bytes {
        let status = answer.status();
        let answer = match Limited::new(answer.into_body(), RESULT_SIZE).collect().await {
            Ok(answer) => answer.to_bytes(),
            Err(error) => return output::error(&format!("The answer cannot be passed on: {error}")),
        };
        if !status.is_success() {
            return output::error(&output::error_of(&answer));
        }
        let value = output::value(&answer);
        let Some(body) = output::whole(&value) else {
            return output::error("The answer is larger than RunPod takes");
        };
        if let Some(piece) = output::single(&value) {
            self.wire.post_piece(id, piece).await;
        }
        body
    }

    /// A stream: piece by piece, and in the end all of them.
    async fn stream(&self, id: &str, mut answer: ResponseBody) -> Bytes {
        let (mut coalescer, mut aggregate) = (StreamCoalescer::default(), Aggregate::default());
        let mut cut = None;
        let mut is_over = false;
        let mut within_event = false;
        let mut next_post = ActiveInstant::now();
        // The post under way: the next begins when it has ended.
        let mut posting = None;
        // Whether there is any point in posting one; the result has all of them.
        let mut is_wanted = true;
        loop {
            let is_due = coalescer.is_urgent() || next_post <= ActiveInstant::now();
            if posting.is_none()
                && is_due
                && let Some(piece) = coalescer.next()
            {
                cut = output::error_in(&piece, within_event).or(cut);
                within_event = !piece.ends_with("\n\n") && !piece.ends_with("\n\r\n");
                aggregate.push(&piece);
                next_post = ActiveInstant::now() + CHUNK_INTERVAL;
                posting = is_wanted.then(|| Box::pin(self.wire.post_piece(id, output::piece(&piece))));
            }
            if posting.is_none() && is_over && !coalescer.has_piece() {
                break;
            }
            let is_posting = posting.is_some();
            tokio::select! {
                goes_on = ended(&mut posting), if is_posting => (posting, is_wanted) = (None, goes_on),
                frame = answer.frame(), if !is_over && coalescer.has_room() => match frame {
                    Some(Ok(frame)) => if let Some(piece) = frame.data_ref() {
                        coalescer.push(piece);
                    },
                    end => {
                        if let Some(Err(error)) = end {
                            cut = cut.or(Some(error.to_string()));
                        }
                        is_over = true;
                        coalescer.end();
                    }
                },
                () = pause_clock::sleep(next_post - ActiveInstant::now()), if !is_posting && coalescer.has_piece() => {}
            }
        }
        if let Some(why) = cut {
            return output::error(&why);
        }
        if aggregate.is_too_large() {
            warn!(job = id, "a stream is larger than a result may be: only its pieces were posted");
        }
        aggregate.into_body()
    }
}

/// Has work done by itself, so that a panic is its own. None where it was stopped.
async fn isolated(tasks: &TaskTracker, work: impl Future<Output = Option<Bytes>> + Send + 'static) -> Option<Bytes> {
    tasks.spawn(work).await.unwrap_or_else(|_| {
        error!("a job has failed by a defect; please report it");
        Some(output::error("The worker has failed at this job by a defect of its own"))
    })
}

/// Waits for its end, if there is anything to wait for.
async fn ended<T>(work: &mut Option<Pin<Box<impl Future<Output = T>>>>) -> T {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_makes_its_own_job_fail() {
        let tasks = TaskTracker::new();
        let result = isolated(&tasks, async { panic!("a defect") }).await.unwrap();
        assert!(result.starts_with(b"{\"error\":\"The worker has failed"));
        assert!(isolated(&tasks, async { None }).await.is_none(), "one that was stopped has no result");
    }
}
