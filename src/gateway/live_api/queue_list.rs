//! `GET /v1/queue`: the places of waiting requests in the lines of their models.

use jiff::Timestamp;
use serde::Serialize;

use super::bounds::SEARCHED_WAITERS;
use super::look::waiter_view;
use super::view::WaiterView;
use crate::gateway::admission::auth::Caller;
use crate::gateway::queue::model_queues::Snapshot;
use crate::keys::Scope;
use crate::telemetry::access::AccessLog;

/// The waiting requests that a caller may see.
#[derive(Serialize)]
pub(super) struct QueueList {
    object: &'static str,
    data: Vec<QueuePlace>,
    /// Whether more requests wait than were looked at.
    has_more: bool,
}

/// The place of one request.
#[derive(Serialize)]
struct QueuePlace {
    model: String,
    /// Requests that wait for this model.
    waiting: usize,
    #[serde(flatten)]
    waiter: WaiterView,
    /// An estimate of the time until its turn.
    expected_seconds: Option<f64>,
}

/// Returns the waiting requests of the caller's key; all of them for an administrator, and where there are no keys.
pub(super) fn list(queues: &Snapshot, caller: &Caller, access: &AccessLog) -> QueueList {
    let own = (!caller.has_scope(Scope::Admin)).then(|| caller.key_id().unwrap_or_default());
    let now = Timestamp::now();
    let mut list = QueueList { object: "list", data: Vec::new(), has_more: false };
    for entry in queues.queues() {
        let look = entry.queue.look(SEARCHED_WAITERS, |turn| own.is_none_or(|own| own == turn.key));
        list.has_more |= look.waiting > SEARCHED_WAITERS;
        let place = |position| look.expected_wait(position).map(|wait| wait.as_millis() as f64 / 1000.0);
        list.data.extend(look.listed.iter().map(|waiter| QueuePlace {
            model: entry.model.id().to_owned(),
            waiting: look.waiting,
            expected_seconds: place(waiter.position),
            waiter: waiter_view(waiter.clone(), access, now),
        }));
    }
    list
}
