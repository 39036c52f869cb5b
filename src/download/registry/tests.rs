//! Orders, states and listeners, with a hub that accepts connections and does not answer.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::all::DownloadRegistry;
use super::bounds::{LOOKS_AT_ONCE, MOST_ENDED, MOST_FOLLOWERS, MOST_RUNNING, MOST_UNFINISHED};
use super::follower::FollowStep;
use super::one::Download;
use super::order::Ordered;
use super::order_error::OrderError;
use super::status::DownloadState;
use crate::platform::Platform;
use crate::settings::{Environment, Inputs, Settings, resolve};
use crate::telemetry::metrics::{Metrics, TextFormat};

/// Longest wait for what has to happen at once.
const SOON: Duration = Duration::from_secs(20);

/// A registry whose hub never answers.
struct Silent {
    registry: Arc<DownloadRegistry>,
    metrics: Arc<Metrics>,
    _hub: TcpListener,
    _folder: tempfile::TempDir,
}

fn settings(folder: &Path, hub: &str, is_offline: bool) -> Arc<Settings> {
    let (folder, offline) = (folder.display().to_string(), is_offline.to_string());
    let environment = Environment::from([
        ("DATA_DIR", folder.as_str()),
        ("HF_ENDPOINT", hub),
        ("HF_HUB_OFFLINE", &offline),
        ("AUTH_ENABLED", "false"),
    ]);
    let inputs = Inputs { environment, ..Inputs::default() };
    let resolved = resolve(&inputs, &Platform::plain(Path::new(&folder)));
    Arc::new(resolved.unwrap_or_else(|problems| panic!("{problems:?}")).config.settings)
}

fn silent() -> Silent {
    let hub = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let metrics = Arc::new(Metrics::new("local"));
    let settings = settings(folder.path(), &format!("http://{}", hub.local_addr().unwrap()), false);
    let registry = Arc::new(DownloadRegistry::new(settings, Arc::clone(&metrics)));
    Silent { registry, metrics, _hub: hub, _folder: folder }
}

async fn order(registry: &Arc<DownloadRegistry>, name: &str) -> Arc<Download> {
    match registry.order(name).await {
        Ok(Ordered::Comes(download)) => download,
        other => panic!("{other:?}"),
    }
}

/// Waits until the download has this state.
async fn enters(download: &Download, state: DownloadState) {
    let mut stages = download.stages();
    let entered = stages.wait_for(|_| download.state() == state);
    timeout(SOON, entered).await.unwrap().unwrap();
}

#[tokio::test]
async fn one_model_has_one_download_however_its_name_is_spelled() {
    let Silent { registry, .. } = &silent();
    let first = order(registry, "Org/Name:Q8_0").await;
    for spelled in ["hf:Org/Name:Q8_0", "https://huggingface.co/Org/Name:Q8_0", " Org/Name:Q8_0 "] {
        assert_eq!(order(registry, spelled).await.id(), first.id(), "{spelled}");
    }
    assert_ne!(order(registry, "Org/Name").await.id(), first.id());
    assert_eq!(registry.statuses()[0].report.model, "Org/Name", "the newest is first");
    registry.stop().await;
}

/// Regression: each order started a thread that looked at the disk, and left it there after its wait. While a volume did not
/// answer, orders took one thread after the other.
#[test]
fn while_the_disk_does_not_answer_orders_take_no_further_thread() {
    // One thread is free, so that a look without a turn would be over before the one that follows.
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().max_blocking_threads(LOOKS_AT_ONCE + 1).build().unwrap();
    runtime.block_on(async {
        let Silent { registry, .. } = &silent();
        let mut disks = Vec::new();
        for _ in 0..LOOKS_AT_ONCE {
            let (disk, answer) = std::sync::mpsc::channel::<()>();
            disks.push(disk);
            let look = registry.looks.turn().await.unwrap().run(move || _ = answer.recv());
            // The client leaves as soon as the look has begun, as an order does whose wait is over.
            assert!(timeout(Duration::ZERO, look).await.is_err());
        }
        let mut orders = JoinSet::new();
        let ordering = Arc::clone(registry);
        orders.spawn(async move { order(&ordering, "Org/Name").await.id().to_owned() });
        tokio::task::yield_now().await;
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        tokio::task::yield_now().await;
        assert!(registry.statuses().is_empty(), "the order waits for its turn");
        drop(disks);
        let id = timeout(SOON, orders.join_next()).await.unwrap().unwrap().unwrap();
        assert_eq!(registry.statuses()[0].id, id);
        registry.stop().await;
    });
}

#[tokio::test]
async fn some_run_others_wait_for_their_turn_and_beyond_the_bound_an_order_is_refused() {
    let Silent { registry, metrics, .. } = &silent();
    let mut downloads = Vec::new();
    for n in 0..MOST_UNFINISHED {
        downloads.push(order(registry, &format!("Org/Model{n}")).await);
    }
    assert!(matches!(registry.order("Org/More").await, Err(OrderError::Full)));
    enters(&downloads[MOST_RUNNING - 1], DownloadState::Downloading).await;
    assert_eq!(downloads[MOST_RUNNING].state(), DownloadState::Queued);
    registry.count_states();
    let text = metrics.text(TextFormat::Prometheus);
    for line in [
        format!("llamagate_downloads{{state=\"downloading\"}} {MOST_RUNNING}\n"),
        format!("llamagate_downloads{{state=\"queued\"}} {}\n", MOST_UNFINISHED - MOST_RUNNING),
        "llamagate_downloads{state=\"failed\"} 0\n".to_owned(),
    ] {
        assert!(text.contains(&line), "{line}{text}");
    }
    // The end of one lets the next one begin.
    assert_eq!(registry.cancel(downloads[0].id()).await.unwrap().state, DownloadState::Cancelled);
    enters(&downloads[MOST_RUNNING], DownloadState::Downloading).await;
    assert_eq!(order(registry, "Org/More").await.state(), DownloadState::Queued);
    registry.stop().await;
}

#[tokio::test]
async fn a_cancelled_download_is_remembered_until_it_is_removed_and_can_be_ordered_again() {
    let Silent { registry, .. } = &silent();
    let first = order(registry, "Org/Name").await;
    assert_eq!(registry.cancel(first.id()).await.unwrap().state, DownloadState::Cancelled);
    let second = order(registry, "Org/Name").await;
    assert_ne!(first.id(), second.id());
    assert_eq!(registry.statuses().len(), 2);
    registry.cancel(first.id()).await.unwrap();
    assert!(matches!(registry.find(first.id()), Err(OrderError::Unknown(_))));
    assert!(matches!(registry.cancel(first.id()).await, Err(OrderError::Unknown(_))));
    for n in 0..=MOST_ENDED + 3 {
        let download = order(registry, &format!("Org/Model{n}")).await;
        registry.cancel(download.id()).await.unwrap();
    }
    assert!(registry.statuses().len() <= MOST_ENDED + 2, "the oldest are forgotten");
    assert!(registry.find(second.id()).is_ok(), "one that runs is not");
    registry.stop().await;
}

#[tokio::test]
async fn a_listener_hears_the_present_state_at_once_and_the_end_and_nothing_twice() {
    let Silent { registry, .. } = &silent();
    let download = order(registry, "Org/Name").await;
    enters(&download, DownloadState::Downloading).await;
    let event = |step: Option<FollowStep>| match step {
        Some(FollowStep::Event(event)) => (event.id, event.status.state),
        other => panic!("{other:?}"),
    };
    let mut follower = registry.follow(download.id(), None).unwrap().unwrap();
    let (first, state) = event(timeout(SOON, follower.next()).await.unwrap());
    assert_eq!(state, DownloadState::Downloading);
    let again = first.to_string();
    let mut late = registry.follow(download.id(), Some(&again)).unwrap().unwrap();
    registry.cancel(download.id()).await.unwrap();
    for follower in [&mut follower, &mut late] {
        let (last, state) = event(timeout(SOON, follower.next()).await.unwrap());
        assert_eq!((last, state), (first + 1, DownloadState::Cancelled));
        assert_eq!(timeout(SOON, follower.next()).await.unwrap(), None);
    }
    let last = (first + 1).to_string();
    assert!(registry.follow(download.id(), Some(&last)).unwrap().is_none(), "it has seen all");
    for wrong in ["99", "x", "", "-1"] {
        assert!(matches!(registry.follow(download.id(), Some(wrong)), Err(OrderError::NoSuchEvent)), "{wrong}");
    }
    registry.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_listener_of_a_silent_download_gets_heartbeats_and_the_stop_ends_it() {
    let Silent { registry, .. } = &silent();
    let mut downloads = Vec::new();
    for n in 0..=MOST_RUNNING {
        downloads.push(order(registry, &format!("Org/Model{n}")).await);
    }
    let queued = downloads.last().unwrap();
    let mut follower = registry.follow(queued.id(), None).unwrap().unwrap();
    assert!(matches!(follower.next().await, Some(FollowStep::Event(_))));
    assert_eq!(follower.next().await, Some(FollowStep::Heartbeat));
    let mut others = Vec::new();
    for _ in 1..MOST_FOLLOWERS {
        others.push(registry.follow(queued.id(), None).unwrap().unwrap());
    }
    assert!(matches!(registry.follow(queued.id(), None), Err(OrderError::TooManyFollowers)));
    others.pop();
    assert!(registry.follow(queued.id(), None).is_ok(), "its place is free again");
    registry.stop().await;
    assert_eq!(follower.next().await, None);
    assert!(matches!(registry.order("Org/Other").await, Err(OrderError::Stopping)));
}

#[tokio::test]
async fn offline_and_wrong_names_begin_nothing_and_settings_follow_a_reload() {
    let Silent { registry, _folder: folder, .. } = &silent();
    registry.set_settings(settings(folder.path(), "http://127.0.0.1:9", true));
    assert!(matches!(registry.order("Org/Name").await, Err(OrderError::Offline(_))));
    for name in ["", "name", "../x", "https://h/m.gguf?X-Signature=secret", "http://h/m.gguf#secret"] {
        let Err(OrderError::Name(error)) = registry.order(name).await else { panic!("{name}") };
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    assert!(registry.statuses().is_empty() && !registry.is_busy());
}
