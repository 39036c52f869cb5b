//! The feed and its listeners, with a service without models: acts of administrators are what happens there.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::*;
use crate::download::DownloadRegistry;
use crate::fleet::Fleet;
use crate::gateway::accounting::recent_acts::KEPT_ACTS;
use crate::gateway::live_api::bounds::{EVENTS_AT_ONCE, MOST_BEHIND};
use crate::gateway::live_api::listener::Listener;
use crate::gateway::queue::QueueTimeouts;
use crate::gateway::queue::model_queues::ModelQueues;
use crate::gateway::testing::TestRecords;
use crate::ledger::AdminAct;
use crate::platform::Platform;
use crate::settings::{Environment, Inputs, resolve};

/// Longest wait for what has to happen at once.
const SOON: Duration = Duration::from_secs(20);

struct TestFeed {
    feed: Arc<Feed>,
    _records: TestRecords,
    _folder: tempfile::TempDir,
}

impl TestFeed {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().display().to_string();
        let environment = Environment::from([("DATA_DIR", data_dir.as_str()), ("AUTH_ENABLED", "false")]);
        let inputs = Inputs { environment, ..Inputs::default() };
        let settings = Arc::new(resolve(&inputs, &Platform::plain(Path::new(&data_dir))).unwrap().config.settings);
        let records = TestRecords::new();
        let (accounting, second) = (Arc::clone(&records.accounting), Duration::from_secs(1));
        let metrics = Arc::clone(&accounting.metrics);
        let timeouts = QueueTimeouts { queue: None, request: second, priority: second };
        let sources = FeedSources {
            fleet: Arc::new(Fleet::new(Vec::new())),
            queues: Arc::new(ModelQueues::new(None, timeouts, Arc::clone(&metrics))),
            downloads: Arc::new(DownloadRegistry::new(settings, metrics)),
            accounting,
        };
        Self { feed: Arc::new(Feed::new(sources)), _records: records, _folder: folder }
    }

    /// Does this many things that are told, and looks.
    fn happen(&self, count: usize) {
        for number in 0..count {
            self.act(number);
            let over = CancellationToken::new();
            self.feed.publish(self.feed.sources.look(), None, &over);
        }
    }

    /// Does something that is told at the next look.
    fn act(&self, number: usize) {
        self.feed.sources.accounting.acts.add(&AdminAct {
            time: Timestamp::UNIX_EPOCH,
            key: None,
            address: None,
            act: "POST /reload".to_owned(),
            target: number.to_string(),
            status: 200,
            outcome: "ok".to_owned(),
        });
    }
}

/// An event: its id, its name and its data.
type Event = (Option<u64>, String, Value);

fn events(piece: &Bytes) -> Vec<Event> {
    let text = std::str::from_utf8(piece).unwrap();
    let field = |event: &str, name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
    let event = |event: &str| {
        let id = field(event, "id: ").map(|id| id.parse().unwrap());
        let data = serde_json::from_str(&field(event, "data: ").unwrap()).unwrap();
        (id, field(event, "event: ").unwrap(), data)
    };
    text.split_terminator("\n\n").map(event).collect()
}

async fn next(listener: &mut Listener) -> Vec<Event> {
    events(&timeout(SOON, listener.next()).await.unwrap().unwrap())
}

#[tokio::test]
async fn a_listener_gets_a_snapshot_and_then_each_event_in_its_order() {
    let test = TestFeed::new();
    let mut listener = Listener::begin(&test.feed, None).unwrap();
    let [(Some(first), name, snapshot)] = &next(&mut listener).await[..] else { panic!("one event") };
    assert_eq!((name.as_str(), &snapshot["status"]), ("snapshot", &"ok".into()));
    assert!(*first < 1 << 53, "it is a number of JavaScript");
    test.happen(3);
    let told = next(&mut listener).await;
    let ids: Vec<u64> = told.iter().map(|(id, ..)| id.unwrap()).collect();
    assert_eq!(ids, [first + 1, first + 2, first + 3]);
    assert!(
        told.iter().zip(0..).all(|((_, name, act), n)| name == "act"
            && act["target"].as_str().and_then(|target| target.parse().ok()) == Some(n)),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_listener_that_comes_back_gets_what_it_lacks_as_long_as_that_is_known() {
    let test = TestFeed::new();
    let mut listener = Listener::begin(&test.feed, None).unwrap();
    let first = next(&mut listener).await[0].0.unwrap();
    test.happen(2);
    drop(listener);
    // What happens while there is no listener is told as one step from what was known.
    let mut back = Listener::begin(&test.feed, Some(first + 1)).unwrap();
    let told = next(&mut back).await;
    assert_eq!((told.len(), told[0].0, told[0].1.as_str()), (1, Some(first + 2), "act"));
    for unknown in [1, first - 1, first + 3, u64::MAX] {
        let mut other = Listener::begin(&test.feed, Some(unknown)).unwrap();
        let told = next(&mut other).await;
        assert_eq!((told.len(), told[0].0, told[0].1.as_str()), (1, Some(first + 2), "snapshot"), "{unknown}");
    }
}

#[tokio::test]
async fn a_listener_that_comes_after_a_time_without_any_sees_how_things_are_now() {
    let test = TestFeed::new();
    let mut first = Listener::begin(&test.feed, None).unwrap();
    next(&mut first).await;
    drop(first);
    test.act(7);
    let mut second = Listener::begin(&test.feed, None).unwrap();
    let [(_, name, snapshot)] = &next(&mut second).await[..] else { panic!("one event") };
    assert_eq!((name.as_str(), &snapshot["acts"][0]["target"]), ("snapshot", &"7".into()), "{snapshot}");
}

/// A listener that does not read holds nothing: it is told how many events it has missed, and how things are now.
#[tokio::test]
async fn a_slow_listener_is_told_what_it_missed_and_holds_no_other_back() {
    let test = TestFeed::new();
    let (mut slow, mut quick) =
        (Listener::begin(&test.feed, None).unwrap(), Listener::begin(&test.feed, None).unwrap());
    let first = next(&mut slow).await[0].0.unwrap();
    assert_eq!(next(&mut quick).await[0].0, Some(first));
    let count = MOST_BEHIND + 1;
    let mut heard = 0;
    for _ in 0..count {
        test.happen(1);
        heard += next(&mut quick).await.len() as u64;
    }
    assert_eq!(heard, count);
    let told = next(&mut slow).await;
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0], (None, "dropped".to_owned(), serde_json::json!({"events": count})));
    assert_eq!((told[1].0, told[1].1.as_str()), (Some(first + count), "snapshot"));
    test.happen(1);
    assert_eq!(next(&mut slow).await[0].0, Some(first + count + 1), "it goes on from there");
}

/// Regression: of more acts than are kept, the oldest were told to no listener, and none heard that.
#[tokio::test]
async fn acts_that_come_faster_than_they_are_kept_are_told_by_a_snapshot() {
    let test = TestFeed::new();
    let mut listener = Listener::begin(&test.feed, None).unwrap();
    let first = next(&mut listener).await[0].0.unwrap();
    let acts = |count| {
        (0..count).for_each(|number| test.act(number));
        test.feed.publish(test.feed.sources.look(), None, &CancellationToken::new());
    };
    acts(KEPT_ACTS);
    assert_eq!(next(&mut listener).await.len(), KEPT_ACTS, "as many as are kept are told one by one");
    acts(KEPT_ACTS + 5);
    let told = next(&mut listener).await;
    assert_eq!(told[0], (None, "dropped".to_owned(), serde_json::json!({"events": KEPT_ACTS + 5})), "{told:?}");
    let last = first + 2 * KEPT_ACTS as u64 + 5;
    assert_eq!((told[1].0, told[1].1.as_str(), told.len()), (Some(last), "snapshot", 2));
    acts(1);
    assert_eq!(next(&mut listener).await[0].0, Some(last + 1), "it goes on from there");
}

#[tokio::test]
async fn the_history_is_bounded_and_so_is_what_is_passed_on_at_once() {
    let test = TestFeed::new();
    let mut listener = Listener::begin(&test.feed, None).unwrap();
    next(&mut listener).await;
    test.happen(HISTORY_EVENTS + 100);
    let state = test.feed.lock();
    assert_eq!(state.history.len(), HISTORY_EVENTS);
    assert_eq!(state.history_bytes, state.history.iter().map(|event| event.text.len()).sum::<usize>());
    let seen = state.history[HISTORY_EVENTS - MOST_BEHIND as usize - 1].id;
    drop(state);
    let Told::Events(events, _) = test.feed.next(Some(seen), EVENTS_AT_ONCE, MOST_BEHIND) else { panic!("events") };
    assert!(events.iter().map(Bytes::len).sum::<usize>() <= EVENTS_AT_ONCE && events.len() < MOST_BEHIND as usize);
    let Told::Events(events, _) = test.feed.next(Some(seen), 1, MOST_BEHIND) else { panic!("events") };
    assert_eq!(events.len(), 1, "one event is passed on however large it is");
}

#[tokio::test]
async fn nothing_runs_without_a_listener() {
    let test = TestFeed::new();
    assert_eq!(test.feed.tasks.len(), 0);
    for _ in 0..2 {
        let listeners = [Listener::begin(&test.feed, None).unwrap(), Listener::begin(&test.feed, None).unwrap()];
        assert_eq!(test.feed.tasks.len(), 1, "one for all listeners");
        let [first, second] = listeners;
        drop(first);
        assert!(test.feed.lock().looking.is_some());
        drop(second);
        assert!(test.feed.lock().looking.is_none());
        let ended = async {
            while !test.feed.tasks.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, ended).await.expect("the task ends with the last listener");
    }
}

#[tokio::test]
async fn listeners_are_bounded_and_end_with_the_service() {
    let test = TestFeed::new();
    let mut listeners: Vec<Listener> =
        (0..MOST_LISTENERS).map(|_| Listener::begin(&test.feed, None).unwrap()).collect();
    assert!(matches!(Listener::begin(&test.feed, None), Err(Refusal::TooManyListeners(..))));
    listeners.pop();
    let mut last = Listener::begin(&test.feed, None).unwrap();
    next(&mut last).await;
    timeout(SOON, test.feed.end()).await.expect("it ends at once");
    let told = next(&mut last).await;
    assert_eq!((told[0].0, told[0].1.as_str()), (None, "end"));
    assert_eq!(last.next().await, None);
    drop(listeners);
    assert!(matches!(Listener::begin(&test.feed, None), Err(Refusal::ShuttingDown(_))));
}
