use super::*;
use crate::dial::testing::{DEADLINE, TestAuthority, TestServer};
use crate::settings::values::Secret;
use crate::telemetry::metrics::TextFormat;
use crate::worker::endpoint::in_flight::InFlight;
use crate::worker::endpoint::{NotAccepted, RequestClass};
use crate::worker::handle::WorkerCondition;
use http::{StatusCode, header};
use proptest::prelude::*;
use std::io;

/// Much longer than a test takes: whatever happens in between is not for this interval's sake.
const INTERVAL: Duration = Duration::from_secs(3600);

fn plan(api_base: String) -> RemotePlan {
    let remote = RemoteSettings {
        api_base,
        api_key: Some(Secret("sk-hush".to_owned())),
        model: None,
        rpm: None,
        tpm: None,
        slots: 1,
        health: "/health".to_owned(),
        weight: 1.0,
        priority: 0,
    };
    RemotePlan { model: "m".to_owned(), number: 3, remote, health_check_interval: INTERVAL, connect_timeout: DEADLINE }
}

fn at(stand: &TestServer) -> RemotePlan {
    plan(format!("http://{}/api", stand.address))
}

/// What probes a worker there, and where.
fn prober(target: &DialTarget) -> (Prober, Uri) {
    (Prober::remote(&Trust::None, DEADLINE).unwrap(), health_uri(target, "/health").unwrap())
}

/// A worker that has been joined.
struct Joined {
    handle: WorkerHandle,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Joined {
    fn new(plan: RemotePlan) -> Self {
        let (metrics, stop, tasks) = (Arc::new(Metrics::new("local")), CancellationToken::new(), TaskTracker::new());
        let handle = supervise_remote(plan, Arc::default(), Arc::clone(&metrics), stop.clone(), &tasks).unwrap();
        Self { handle, metrics, stop, tasks }
    }

    /// Waits until it is in this state, and reports how it is then.
    async fn becomes(&mut self, state: WorkerState) -> WorkerStatus {
        let is_so = self.handle.status.wait_for(|status| status.state == state);
        tokio::time::timeout(DEADLINE, is_so).await.expect("the state in time").unwrap().clone()
    }

    fn shows(&self, sample: &str) -> bool {
        self.metrics.text(TextFormat::Prometheus).lines().any(|line| line == sample)
    }

    fn begin(&self) -> InFlight {
        self.handle.endpoint().expect("an endpoint").begin(RequestClass::Inference(None)).ok().unwrap()
    }

    async fn stops(&mut self) {
        self.stop.cancel();
        self.tasks.close();
        tokio::time::timeout(DEADLINE, self.tasks.wait()).await.expect("an end in time");
    }
}

#[tokio::test]
async fn it_is_ready_once_it_answers_and_until_it_is_stopped() {
    let stand = TestServer::open(StatusCode::OK, "").await;
    let mut joined = Joined::new(at(&stand));
    let status = joined.becomes(WorkerState::Ready).await;
    assert!(status.has_been_ready && !status.asleep && status.last_error.is_none() && status.restarts == 0);
    let endpoint = status.endpoint.expect("an endpoint");
    assert!(endpoint.target.is_remote && endpoint.target.base_path == "/api");

    let probes = stand.requests();
    assert_eq!(probes.len(), 1);
    assert_eq!((probes[0].method.as_str(), probes[0].uri.path()), ("GET", "/api/health"));
    assert_eq!(probes[0].headers[header::AUTHORIZATION], "Bearer sk-hush");
    assert_eq!(probes[0].headers[header::HOST], stand.address.to_string());
    assert!(joined.shows("llamagate_workers_ready{model=\"m\"} 1"));
    assert!(joined.shows("llamagate_worker_state{model=\"m\",worker=\"3\",state=\"ready\"} 1"));

    joined.stops().await;
    assert_eq!(joined.handle.state(), WorkerCondition { state: WorkerState::Stopped, is_asleep: false });
    assert!(matches!(endpoint.begin(RequestClass::Inference(None)), Err(NotAccepted::Closed)));
    assert!(joined.shows("llamagate_workers_ready{model=\"m\"} 0"));
    assert!(joined.shows("llamagate_worker_state{model=\"m\",worker=\"3\",state=\"stopped\"} 1"));
}

#[tokio::test]
async fn what_an_answer_says_of_it() {
    let stand = TestServer::open(StatusCode::OK, "").await;
    let target = DialTarget::remote(&at(&stand).remote).unwrap();
    let (prober, health) = prober(&target);
    let ready = Some(RemoteProbe::Ready { takes_our_key: true });
    let keyless = Some(RemoteProbe::Ready { takes_our_key: false });
    for (status, body, expected) in [
        (200, "{\"status\":\"ok\"}", ready.clone()),
        (204, "", ready.clone()),
        (404, "loading? no such page", ready.clone()),
        (405, "", ready.clone()),
        (429, "", ready),
        (401, "", keyless.clone()),
        (403, "", keyless),
        (503, "{\"error\":{\"message\":\"Loading model\"}}", Some(RemoteProbe::Loading)),
        (503, "{\"status\":\"failed\"}", None),
        (503, "", None),
        (500, "loading", None),
        (502, "", None),
        (301, "", None),
    ] {
        stand.set_response(StatusCode::from_u16(status).unwrap(), body);
        match (probe(&prober, &target, &health).await, expected) {
            (RemoteProbe::Failed(why), None) => {
                assert!(why.starts_with(&stand.address.to_string()) && why.contains(&status.to_string()), "{why}");
            }
            (found, expected) => assert_eq!(Some(found), expected, "{status} {body}"),
        }
    }
}

#[tokio::test]
async fn a_word_far_down_in_an_answer_is_not_looked_for() {
    let long: &'static str =
        Box::leak(format!("{}loading", "x".repeat(crate::worker::bounds::REMOTE_PROBE_BODY)).into());
    let stand = TestServer::open(StatusCode::SERVICE_UNAVAILABLE, long).await;
    let target = DialTarget::remote(&at(&stand).remote).unwrap();
    let (prober, health) = prober(&target);
    assert!(matches!(probe(&prober, &target, &health).await, RemoteProbe::Failed(_)));
}

#[tokio::test]
async fn one_that_refuses_connections_is_unhealthy_and_says_why() {
    let bound = tokio::net::TcpSocket::new_v4().unwrap();
    bound.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = bound.local_addr().unwrap();
    let mut joined = Joined::new(plan(format!("http://{address}")));
    let status = joined.becomes(WorkerState::Unhealthy).await;
    assert_eq!(status.last_error, Some(format!("{address} refuses connections")));
    assert!(status.endpoint.is_none() && !status.has_been_ready && joined.handle.endpoint().is_none());
    assert!(joined.shows("llamagate_workers_ready{model=\"m\"} 0"));
    joined.stops().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_does_not_answer_is_not_waited_for() {
    let silent = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = silent.local_addr().unwrap();
    let mut joined = Joined::new(plan(format!("http://{address}")));
    let status = joined.becomes(WorkerState::Unhealthy).await;
    assert_eq!(status.last_error, Some(format!("{address} does not answer its probe in time")));
    joined.stops().await;
}

#[tokio::test]
async fn one_that_cannot_serve_is_asked_again_soon() {
    let stand = TestServer::open(StatusCode::INTERNAL_SERVER_ERROR, "").await;
    let mut joined = Joined::new(at(&stand));
    joined.becomes(WorkerState::Unhealthy).await;
    stand.set_response(StatusCode::SERVICE_UNAVAILABLE, "Loading model");
    let status = joined.becomes(WorkerState::Loading).await;
    assert!(status.endpoint.is_none() && status.last_error.is_none());
    stand.set_response(StatusCode::OK, "");
    joined.becomes(WorkerState::Ready).await;
    joined.stops().await;
}

#[tokio::test]
async fn a_broken_connection_is_looked_into_at_once() {
    let stand = TestServer::open(StatusCode::OK, "").await;
    let mut joined = Joined::new(at(&stand));
    joined.becomes(WorkerState::Ready).await;

    joined.begin().record_failure(&io::Error::from(io::ErrorKind::ConnectionReset));
    assert!(joined.handle.endpoint().is_none(), "nothing is sent to it meanwhile");
    let mut changes = joined.handle.clone();
    let dispelled = async {
        while changes.endpoint().is_none() {
            assert!(changes.changed().await);
        }
    };
    tokio::time::timeout(DEADLINE, dispelled).await.expect("a look in time");
    assert_eq!(joined.handle.state(), WorkerCondition { state: WorkerState::Ready, is_asleep: false });

    stand.set_response(StatusCode::BAD_GATEWAY, "");
    let mut in_flight = joined.begin();
    in_flight.record_broken_connection();
    assert!(joined.becomes(WorkerState::Unhealthy).await.endpoint.is_none());
    assert!(joined.shows("llamagate_workers_ready{model=\"m\"} 0"));
    joined.stops().await;
}

#[tokio::test]
async fn what_it_was_serving_when_it_broke_is_under_no_suspicion() {
    let stand = TestServer::open(StatusCode::OK, "").await;
    let mut joined = Joined::new(at(&stand));
    joined.becomes(WorkerState::Ready).await;
    let fingerprint = crate::worker::endpoint::crash_suspects::Fingerprint(7);
    let endpoint = joined.handle.endpoint().unwrap();
    stand.set_response(StatusCode::BAD_GATEWAY, "");
    endpoint.begin(RequestClass::Inference(Some(fingerprint))).ok().unwrap().record_broken_connection();
    joined.becomes(WorkerState::Unhealthy).await;
    // A network that breaks down accuses nobody.
    assert!(!joined.handle.is_suspected(fingerprint));
    joined.stops().await;
}

/// An owner whose probes are made up.
fn owner() -> (Owner, watch::Receiver<WorkerStatus>) {
    let plan = plan("http://127.0.0.1:1".to_owned());
    let target = DialTarget::remote(&plan.remote).unwrap();
    let (prober, health) = prober(&target);
    let (publish, status) = watch::channel(WorkerStatus::first(false));
    let owner = Owner {
        plan,
        prober,
        health,
        endpoint: Arc::new(Endpoint::at(target, Arc::default())),
        publish,
        board: WorkerMetrics::register(Arc::new(Metrics::new("local")), "m".to_owned(), 0, WorkerState::Stopped),
        failures: 0,
        trouble: ThrottledWarning::default(),
        has_warned_of_key: false,
    };
    owner.apply(WorkerEvent::StartBegun, |_| {});
    (owner, status)
}

#[tokio::test]
async fn a_doubt_that_comes_while_it_is_asked_is_looked_into_again() {
    let (mut owner, status) = owner();
    let well = RemoteProbe::Ready { takes_our_key: true };
    assert_eq!(owner.conclude(well.clone(), 0), INTERVAL);
    let endpoint = status.borrow().endpoint.clone().unwrap();
    let asked = endpoint.doubts();
    endpoint.begin(RequestClass::Inference(None)).ok().unwrap().record_broken_connection();
    assert_eq!(owner.conclude(well.clone(), asked), PROBE_INTERVAL_DOUBTED);
    assert!(!owner.endpoint.is_open());
    assert_eq!(owner.conclude(well, owner.endpoint.doubts()), INTERVAL);
    assert!(owner.endpoint.is_open());
}

#[tokio::test]
async fn a_shortage_of_our_own_says_nothing_about_it() {
    let (mut owner, status) = owner();
    owner.conclude(RemoteProbe::Ready { takes_our_key: true }, 0);
    assert_eq!(owner.conclude(RemoteProbe::Unasked(nix::errno::Errno::EMFILE), 0), SHORTAGE_PAUSE);
    assert_eq!(status.borrow().state, WorkerState::Ready);
}

#[tokio::test]
async fn it_is_never_restarted_for_what_it_cannot_compute() {
    let (mut owner, status) = owner();
    owner.conclude(RemoteProbe::Ready { takes_our_key: true }, 0);
    let endpoint = status.borrow().endpoint.clone().unwrap();
    for _ in 0..10 {
        Arc::clone(&endpoint).begin(RequestClass::Inference(None)).ok().unwrap().record_compute_failure();
    }
    assert!(endpoint.is_open());
}

#[tokio::test]
async fn tls_is_part_of_the_question() {
    let (ours, theirs) = (TestAuthority::new("ours"), TestAuthority::new("theirs"));
    for (terms, is_trusted) in [(ours.certify("127.0.0.1"), true), (theirs.certify("127.0.0.1"), false)] {
        let stand = TestServer::open_tls(terms).await;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (plan, metrics) = (plan(format!("https://{}", stand.address)), Arc::new(Metrics::new("local")));
        let handle = join_by(ours.trust(), plan, Arc::default(), Arc::clone(&metrics), stop.clone(), &tasks).unwrap();
        let mut joined = Joined { handle, metrics, stop, tasks };
        if is_trusted {
            joined.becomes(WorkerState::Ready).await;
            assert_eq!(stand.requests()[0].headers[header::AUTHORIZATION], "Bearer sk-hush");
        } else {
            let why = joined.becomes(WorkerState::Unhealthy).await.last_error.unwrap();
            assert!(why.starts_with(&format!("the certificate of {} is not trusted", stand.address)), "{why}");
            assert!(stand.requests().is_empty(), "the key was not sent");
        }
        joined.stops().await;
    }
}

#[test]
fn a_plan_that_cannot_work_is_refused_and_shows_no_key() {
    let joined = |plan| {
        let (metrics, stop, tasks) = (Arc::new(Metrics::new("local")), CancellationToken::new(), TaskTracker::new());
        supervise_remote(plan, Arc::default(), metrics, stop, &tasks).err().expect("a refusal").to_string()
    };
    assert!(joined(plan("server1:8000".to_owned())).contains("api_base"));
    let mut bad = plan("http://server1:8000".to_owned());
    assert!(!format!("{bad:?}").contains("hush"));
    bad.remote.health = "health".to_owned();
    assert!(joined(bad).contains("/health"));
}

proptest! {
    #[test]
    fn the_pause_grows_with_each_failure_up_to_its_bounds(failures in 1u32.., secs in 1u64..=86_400) {
        let interval = Duration::from_secs(secs);
        let (this, next) = (backoff(failures, interval), backoff(failures.saturating_add(1), interval));
        prop_assert!(this <= next && next <= (this * 2));
        prop_assert!((REMOTE_BACKOFF_FIRST.min(interval)..=REMOTE_BACKOFF_LONGEST.min(interval)).contains(&this));
    }
}

#[test]
fn a_remote_that_stays_away_is_asked_ever_less_often() {
    let pauses: Vec<u64> = (1..8).map(|failures| backoff(failures, INTERVAL).as_secs()).collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
}
