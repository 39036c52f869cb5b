//! Clients of the feed: they listen for a while and leave, in the middle of an event or between two.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::{
    random::Random,
    shared::{IDLE_POLL, Shared},
    support::{
        client::{Client, Stream},
        gateway::ADMIN,
    },
};

/// How long a listener waits for the next piece before it leaves and comes back. Clients that are paused leave too, so this
/// is less than a pause takes.
const PATIENCE: Duration = Duration::from_millis(400);

/// Listens to the feed again and again until the lane is finished. Counts the snapshots that it gets.
pub(super) fn listen(shared: &Shared, mut random: Random, snapshots: &AtomicU64) {
    while !shared.is_finished() {
        let longest = Duration::from_millis(random.between(20, 3000));
        match shared.try_begin() {
            Some(_active) => {
                if let Err(problem) = listen_once(shared, longest, snapshots) {
                    shared.report_violation(format!("the feed: {problem}"));
                }
            }
            None => std::thread::sleep(IDLE_POLL),
        }
        std::thread::sleep(Duration::from_millis(random.below(300)));
    }
}

fn listen_once(shared: &Shared, longest: Duration, snapshots: &AtomicU64) -> Result<(), String> {
    let client = Client::new(&shared.target().url).key(ADMIN);
    shared.counts().add_possible_call();
    // A listener that loses patience before the head leaves too.
    let Ok(mut stream) = client.patience(PATIENCE).try_stream_of("/events") else { return Ok(()) };
    if stream.head.status != 200 {
        return Err(format!("status {}", stream.head.status));
    }
    let begin = Instant::now();
    let mut last = None;
    while begin.elapsed() < longest {
        let Some(event) = stream.next_event() else { return check_end(&stream) };
        let Some(id) = event.id.as_deref() else { continue };
        let id: u64 = id.parse().map_err(|_| format!("{id:?} is no number"))?;
        if last.is_none() && event.name.as_deref() != Some("snapshot") {
            return Err(format!("the first event is no snapshot: {event:?}"));
        }
        // The snapshot after lost events comes with the id of the last of them.
        let has_lost = matches!(event.name.as_deref(), Some("snapshot" | "dropped"));
        if last.is_some_and(|last| id != last + 1) && !has_lost {
            return Err(format!("after {last:?} comes {event:?}"));
        }
        if serde_json::from_str::<serde_json::Value>(&event.data).is_err() {
            return Err(format!("a damaged event: {event:?}"));
        }
        if event.name.as_deref() == Some("snapshot") {
            snapshots.fetch_add(1, Ordering::SeqCst);
        }
        last = Some(id);
    }
    Ok(())
}

/// Checks that a feed did not end by itself: the listener loses patience before.
fn check_end(stream: &Stream) -> Result<(), String> {
    if stream.is_complete() { Err("it has ended although the service goes on".to_owned()) } else { Ok(()) }
}
