//! A download as server-sent events (HTML standard, section 9.2).

use bytes::Bytes;

use crate::download::{DownloadEvent, DownloadState, FollowStep, Follower};
use crate::gateway::response::local_answer::{HEARTBEAT, LocalAnswer, event_stream, event_text};
use crate::gateway::response::made::NextMade;

/// Returns the response to a client that follows a download.
pub(super) fn response(follower: Follower) -> LocalAnswer {
    event_stream(next(follower))
}

fn next(mut follower: Follower) -> NextMade {
    NextMade(Box::pin(async move {
        let piece = match follower.next().await? {
            FollowStep::Event(event) => Bytes::from(text_of(&event)),
            FollowStep::Heartbeat => Bytes::from_static(HEARTBEAT),
        };
        Some((piece, next(follower)))
    }))
}

fn text_of(event: &DownloadEvent) -> String {
    let name = match event.status.state {
        DownloadState::Queued | DownloadState::Downloading | DownloadState::Verifying | DownloadState::Waiting => {
            "progress"
        }
        DownloadState::Done => "done",
        DownloadState::Failed => "failed",
        DownloadState::Cancelled => "cancelled",
    };
    event_text(Some(event.id), name, &event.status)
}
