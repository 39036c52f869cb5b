//! Runs one job: sends its request to the gateway and posts the result.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use super::in_flight_jobs::{ArrivingJob, InFlightJob};
use super::job::Job;
use super::output::{self, Aggregate};
use super::platform_api::PlatformApi;
use super::stream_coalescer::StreamCoalescer;
use crate::fleet::Fleet;
use crate::gateway::{Gateway, ResponseBody};
use crate::pause_clock::{self, ActiveInstant};
use crate::runpod::bounds::{CHUNK_INTERVAL, RESULT_SIZE};

/// The key id of jobs in the access log and the metrics.
const PLATFORM: &str = "runpod";

/// Runs jobs.
pub(super) struct JobRunner {
    pub(super) api: Arc<PlatformApi>,
    pub(super) gateway: Arc<Gateway>,
    pub(super) fleet: Arc<Fleet>,
}

impl JobRunner {
    /// Runs a job and posts its result. Posts nothing more once the job is cancelled.
    pub(super) async fn run(self: Arc<Self>, job: Job, guard: InFlightJob, arriving: ArrivingJob, tasks: &TaskTracker) {
        let Job { id, request } = job;
        let result = {
            let (runner, id, stop) = (Arc::clone(&self), id.clone(), guard.stop.clone());
            // Dropping the future leaves the queue or frees the slot.
            isolated(tasks, async move { stop.run_until_cancelled(runner.execute(&id, request, arriving)).await }).await
        };
        if let Some(result) = result {
            guard.stop.run_until_cancelled(self.api.post_result(&id, result)).await;
        }
    }

    async fn execute(&self, id: &str, request: Result<Request<Bytes>, String>, arriving: ArrivingJob) -> Bytes {
        let request = match request {
            Ok(request) => request,
            Err(reason) => return output::error(&reason),
        };
        let progress = async {
            if !self.fleet.is_ready() {
                self.api.post_progress(id, output::progress("The model is being loaded")).await;
            }
        };
        // Joined, so that the progress is never posted after the result.
        let ((), response) = tokio::join!(progress, self.gateway.serve_job(request, PLATFORM, arriving));
        let content_type = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|content_type| content_type.to_str().ok())
            .unwrap_or_default();
        if response.status().is_success() && content_type.starts_with("text/event-stream") {
            self.stream(id, response.into_body()).await
        } else {
            self.complete_result(id, response).await
        }
    }

    /// Returns the result for a response that is not a stream, after posting it as the only chunk.
    async fn complete_result(&self, id: &str, response: Response<ResponseBody>) -> Bytes {
        let status = response.status();
        let response = match Limited::new(response.into_body(), RESULT_SIZE).collect().await {
            Ok(response) => response.to_bytes(),
            Err(error) => return output::error(&format!("The response cannot be forwarded: {error}")),
        };
        if !status.is_success() {
            return output::error(&output::error_of(&response));
        }
        let value = output::to_value(&response);
        let Some(body) = output::whole(&value) else {
            return output::error("The response is larger than RunPod accepts");
        };
        if let Some(chunk) = output::single(&value) {
            self.api.post_chunk(id, chunk).await;
        }
        body
    }

    /// Posts a stream chunk by chunk and returns the result, which contains all chunks.
    async fn stream(&self, id: &str, mut response: ResponseBody) -> Bytes {
        let (mut coalescer, mut aggregate) = (StreamCoalescer::default(), Aggregate::default());
        let mut stream_error = None;
        let mut is_over = false;
        let mut within_event = false;
        let mut next_post = ActiveInstant::now();
        // The post in flight; the next one starts when it has ended.
        let mut posting = None;
        // Whether chunks are still posted. If one was refused, further ones would be too; the result contains them all.
        let mut is_wanted = true;
        loop {
            let is_due = coalescer.is_urgent() || next_post <= ActiveInstant::now();
            if posting.is_none()
                && is_due
                && let Some(chunk) = coalescer.next()
            {
                stream_error = output::error_in(&chunk, within_event).or(stream_error);
                within_event = !chunk.ends_with("\n\n") && !chunk.ends_with("\n\r\n");
                aggregate.push(&chunk);
                next_post = ActiveInstant::now() + CHUNK_INTERVAL;
                posting = is_wanted.then(|| Box::pin(self.api.post_chunk(id, output::chunk(&chunk))));
            }
            if posting.is_none() && is_over && !coalescer.has_chunk() {
                break;
            }
            let is_posting = posting.is_some();
            tokio::select! {
                is_wanted_still = ended(&mut posting), if is_posting => (posting, is_wanted) = (None, is_wanted_still),
                // Backpressure: nothing more is read while the posts are behind.
                frame = response.frame(), if !is_over && coalescer.has_room() => match frame {
                    Some(Ok(frame)) => if let Some(chunk) = frame.data_ref() {
                        coalescer.push(chunk);
                    },
                    end => {
                        if let Some(Err(error)) = end {
                            stream_error = stream_error.or(Some(error.to_string()));
                        }
                        is_over = true;
                        coalescer.end();
                    }
                },
                () = pause_clock::sleep(next_post - ActiveInstant::now()), if !is_posting && coalescer.has_chunk() => {}
            }
        }
        if let Some(reason) = stream_error {
            return output::error(&reason);
        }
        if aggregate.is_too_large() {
            warn!(job = id, "a stream is larger than a result may be: only its chunks were posted");
        }
        aggregate.into_body()
    }
}

/// Runs `work` on a task of its own, so that a panic affects only this job. Returns `None` if the job was cancelled.
async fn isolated(tasks: &TaskTracker, work: impl Future<Output = Option<Bytes>> + Send + 'static) -> Option<Bytes> {
    tasks.spawn(work).await.unwrap_or_else(|_| {
        error!("a job failed because of a defect; please report it");
        Some(output::error("The worker has failed at this job because of a defect of its own"))
    })
}

/// Waits for the end of `work`, or for ever if there is none.
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
    async fn a_panic_fails_only_its_own_job() {
        let tasks = TaskTracker::new();
        let result = isolated(&tasks, async { panic!("a defect") }).await.unwrap();
        assert!(result.starts_with(b"{\"error\":\"The worker has failed"));
        assert!(isolated(&tasks, async { None }).await.is_none(), "a job that was stopped has no result");
    }
}
