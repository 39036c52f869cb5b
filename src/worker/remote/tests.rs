use std::io;

use http::{StatusCode, header};
use proptest::prelude::*;

use super::*;
use crate::dial::testing::{DEADLINE, TestAuthority, TestServer};
use crate::settings::values::Secret;
use crate::telemetry::metrics::TextFormat;
use crate::worker::endpoint::in_flight::InFlight;
use crate::worker::endpoint::{NotAccepted, RequestClass};
use crate::worker::handle::WorkerCondition;

/// Much longer than a test takes, so that no probe in a test is due by this interval.
const INTERVAL: Duration = Duration::from_secs(3600);

fn plan(api_base: String) -> RemotePlan {
    let remote = RemoteSettings {
        api_key: Some(Secret("sk-hush".to_owned())),
        headers: vec![("x-gate".to_owned(), Secret("hush".to_owned()))],
        slots: 1,
        health: "/health".to_owned(),
        ..RemoteSettings::at(api_base)
    };
    RemotePlan { model: "m".to_owned(), number: 3, remote, health_check_interval: INTERVAL, connect_timeout: DEADLINE }
}

fn plan_for(server: &TestServer) -> RemotePlan {
    plan(format!("http://{}/api", server.address))
}

/// Returns a prober, and the health URI of `target`.
fn prober(target: &DialTarget) -> (Prober, Uri) {
    (Prober::remote(&Trust::None, DEADLINE).unwrap(), health_uri(target, "/health").unwrap())
}

/// A remote worker with its owner task.
struct Supervised {
    handle: WorkerHandle,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Supervised {
    fn new(plan: RemotePlan) -> Self {
        let (metrics, stop, tasks) = (Arc::new(Metrics::new("local")), CancellationToken::new(), TaskTracker::new());
        let handle = supervise_remote(plan, Arc::default(), Arc::clone(&metrics), stop.clone(), &tasks).unwrap();
        Self { handle, metrics, stop, tasks }
    }

    /// Waits until the worker is in this state, and returns its status then.
    async fn wait_for(&mut self, state: WorkerState) -> WorkerStatus {
        let reached = self.handle.status.wait_for(|status| status.state == state);
        tokio::time::timeout(DEADLINE, reached).await.expect("the state in time").unwrap().clone()
    }

    fn has_sample(&self, sample: &str) -> bool {
        self.metrics.text(TextFormat::Prometheus).lines().any(|line| line == sample)
    }

    fn begin(&self) -> InFlight {
        self.handle.endpoint().expect("an endpoint").begin(RequestClass::Inference(None), None).ok().unwrap()
    }

    async fn stop(&mut self) {
        self.stop.cancel();
        self.tasks.close();
        tokio::time::timeout(DEADLINE, self.tasks.wait()).await.expect("the end in time");
    }
}

#[tokio::test]
async fn a_remote_worker_is_ready_from_its_first_response_until_it_is_stopped() {
    let server = TestServer::open(StatusCode::OK, "").await;
    let mut worker = Supervised::new(plan_for(&server));
    let status = worker.wait_for(WorkerState::Ready).await;
    assert!(status.has_been_ready && !status.asleep && status.last_error.is_none() && status.restarts == 0);
    let endpoint = status.endpoint.expect("an endpoint");
    assert!(endpoint.target.is_remote && endpoint.target.api_path == "/api");

    let probes = server.requests();
    assert_eq!(probes.len(), 1);
    assert_eq!((probes[0].method.as_str(), probes[0].uri.path()), ("GET", "/api/health"));
    assert_eq!(probes[0].headers[header::AUTHORIZATION], "Bearer sk-hush");
    assert_eq!(probes[0].headers[header::HOST], server.address.to_string());
    assert!(worker.has_sample("llamagate_workers_ready{model=\"m\"} 1"));
    assert!(worker.has_sample("llamagate_worker_state{model=\"m\",worker=\"3\",state=\"ready\"} 1"));

    worker.stop().await;
    assert_eq!(worker.handle.state(), WorkerCondition { state: WorkerState::Stopped, is_asleep: false });
    assert!(matches!(endpoint.begin(RequestClass::Inference(None), None), Err(NotAccepted::Closed)));
    assert!(worker.has_sample("llamagate_workers_ready{model=\"m\"} 0"));
    assert!(worker.has_sample("llamagate_worker_state{model=\"m\",worker=\"3\",state=\"stopped\"} 1"));
}

#[tokio::test]
async fn a_probe_response_is_classified_by_its_status_and_body() {
    let server = TestServer::open(StatusCode::OK, "").await;
    let target = DialTarget::remote(&plan_for(&server).remote).unwrap();
    let (prober, health) = prober(&target);
    let ready = Some(RemoteProbe::Ready { takes_our_key: true, has_path: true });
    let no_path = Some(RemoteProbe::Ready { takes_our_key: true, has_path: false });
    let refused_key = Some(RemoteProbe::Ready { takes_our_key: false, has_path: true });
    for (status, body, expected) in [
        (200, "{\"status\":\"ok\"}", ready.clone()),
        (204, "", ready.clone()),
        (404, "loading? no such page", no_path),
        (405, "", ready.clone()),
        (429, "", ready),
        (401, "", refused_key.clone()),
        (403, "", refused_key),
        (503, "{\"error\":{\"message\":\"Loading model\"}}", Some(RemoteProbe::Loading)),
        (503, "{\"status\":\"failed\"}", None),
        (503, "", None),
        (500, "loading", None),
        (502, "", None),
        (301, "", None),
    ] {
        server.set_response(StatusCode::from_u16(status).unwrap(), body);
        match (probe(&prober, &target, &health).await, expected) {
            (RemoteProbe::Failed(why), None) => {
                assert!(why.starts_with(&server.address.to_string()) && why.contains(&status.to_string()), "{why}");
            }
            (outcome, expected) => assert_eq!(Some(outcome), expected, "{status} {body}"),
        }
    }
}

#[tokio::test]
async fn the_word_loading_far_down_in_a_response_is_ignored() {
    let long: &'static str =
        Box::leak(format!("{}loading", "x".repeat(crate::worker::bounds::REMOTE_PROBE_BODY)).into());
    let server = TestServer::open(StatusCode::SERVICE_UNAVAILABLE, long).await;
    let target = DialTarget::remote(&plan_for(&server).remote).unwrap();
    let (prober, health) = prober(&target);
    assert!(matches!(probe(&prober, &target, &health).await, RemoteProbe::Failed(_)));
}

#[tokio::test]
async fn a_backend_that_refuses_connections_is_unhealthy_with_the_reason() {
    let bound = tokio::net::TcpSocket::new_v4().unwrap();
    bound.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = bound.local_addr().unwrap();
    let mut worker = Supervised::new(plan(format!("http://{address}")));
    let status = worker.wait_for(WorkerState::Unhealthy).await;
    assert_eq!(status.last_error, Some(format!("{address} refuses connections")));
    assert!(status.endpoint.is_none() && !status.has_been_ready && worker.handle.endpoint().is_none());
    assert!(worker.has_sample("llamagate_workers_ready{model=\"m\"} 0"));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_does_not_respond_is_unhealthy_after_a_timeout() {
    let silent = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = silent.local_addr().unwrap();
    let mut worker = Supervised::new(plan(format!("http://{address}")));
    let status = worker.wait_for(WorkerState::Unhealthy).await;
    assert_eq!(status.last_error, Some(format!("{address} does not answer its probe in time")));
    worker.stop().await;
}

#[tokio::test]
async fn a_backend_that_cannot_serve_is_probed_again_soon() {
    let server = TestServer::open(StatusCode::INTERNAL_SERVER_ERROR, "").await;
    let mut worker = Supervised::new(plan_for(&server));
    worker.wait_for(WorkerState::Unhealthy).await;
    server.set_response(StatusCode::SERVICE_UNAVAILABLE, "Loading model");
    let status = worker.wait_for(WorkerState::Loading).await;
    assert!(status.endpoint.is_none() && status.last_error.is_none());
    server.set_response(StatusCode::OK, "");
    worker.wait_for(WorkerState::Ready).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_broken_connection_is_followed_by_a_probe_at_once() {
    let server = TestServer::open(StatusCode::OK, "").await;
    let mut worker = Supervised::new(plan_for(&server));
    worker.wait_for(WorkerState::Ready).await;

    worker.begin().record_failure(&io::Error::from(io::ErrorKind::ConnectionReset));
    assert!(worker.handle.endpoint().is_none(), "no request is sent to it before the next good probe");
    let mut changes = worker.handle.clone();
    let cleared = async {
        while changes.endpoint().is_none() {
            assert!(changes.changed().await);
        }
    };
    tokio::time::timeout(DEADLINE, cleared).await.expect("a probe in time");
    assert_eq!(worker.handle.state(), WorkerCondition { state: WorkerState::Ready, is_asleep: false });

    server.set_response(StatusCode::BAD_GATEWAY, "");
    let mut in_flight = worker.begin();
    in_flight.record_broken_connection();
    assert!(worker.wait_for(WorkerState::Unhealthy).await.endpoint.is_none());
    assert!(worker.has_sample("llamagate_workers_ready{model=\"m\"} 0"));
    worker.stop().await;
}

/// Regression: an interval of 0 meant a probe each second.
#[tokio::test]
async fn an_interval_of_0_means_no_probe_before_a_failure() {
    let server = TestServer::open(StatusCode::OK, "").await;
    let mut worker = Supervised::new(RemotePlan { health_check_interval: Duration::ZERO, ..plan_for(&server) });
    let status = worker.wait_for(WorkerState::Ready).await;
    assert!(status.has_been_ready && server.requests().is_empty(), "it serves without a probe");

    worker.begin().record_failure(&io::Error::from(io::ErrorKind::ConnectionReset));
    let mut changes = worker.handle.clone();
    let cleared = async {
        while changes.endpoint().is_none() {
            assert!(changes.changed().await);
        }
    };
    tokio::time::timeout(DEADLINE, cleared).await.expect("a probe in time");
    assert_eq!(server.requests().len(), 1, "it is probed to see whether it is still there");

    server.set_response(StatusCode::BAD_GATEWAY, "");
    worker.begin().record_broken_connection();
    worker.wait_for(WorkerState::Unhealthy).await;
    server.set_response(StatusCode::OK, "");
    worker.wait_for(WorkerState::Ready).await;
    worker.stop().await;
}

#[tokio::test]
async fn without_an_interval_only_failed_probes_are_repeated() {
    let (mut owner, _status) = owner();
    owner.plan.health_check_interval = Duration::ZERO;
    assert_eq!(owner.apply_probe(RemoteProbe::Ready { takes_our_key: true, has_path: true }, 0), None);
    let failed = |owner: &mut RemoteOwner| owner.apply_probe(RemoteProbe::Failed("x".to_owned()), 0).unwrap().as_secs();
    assert_eq!([1; 7].map(|_| failed(&mut owner)), [1, 2, 4, 8, 16, 30, 30]);
    assert_eq!(owner.apply_probe(RemoteProbe::Ready { takes_our_key: true, has_path: true }, 0), None);
}

#[tokio::test]
async fn a_request_on_a_broken_connection_is_no_crash_suspect() {
    let server = TestServer::open(StatusCode::OK, "").await;
    let mut worker = Supervised::new(plan_for(&server));
    worker.wait_for(WorkerState::Ready).await;
    let fingerprint = crate::worker::endpoint::crash_suspects::Fingerprint(7);
    let endpoint = worker.handle.endpoint().unwrap();
    server.set_response(StatusCode::BAD_GATEWAY, "");
    endpoint.begin(RequestClass::Inference(Some(fingerprint)), None).ok().unwrap().record_broken_connection();
    worker.wait_for(WorkerState::Unhealthy).await;
    // A network failure says nothing about the requests.
    assert!(!worker.handle.is_suspected(fingerprint));
    worker.stop().await;
}

/// Returns an owner that sends no probes; tests pass outcomes to it.
fn owner() -> (RemoteOwner, watch::Receiver<WorkerStatus>) {
    let plan = plan("http://127.0.0.1:1".to_owned());
    let target = DialTarget::remote(&plan.remote).unwrap();
    let (prober, health) = prober(&target);
    let (sender, status) = watch::channel(WorkerStatus::initial(false));
    let owner = RemoteOwner {
        plan,
        prober,
        health,
        endpoint: Arc::new(Endpoint::at(target, Arc::default())),
        status: sender,
        metrics: WorkerMetrics::register(Arc::new(Metrics::new("local")), "m".to_owned(), 0, WorkerState::Stopped),
        failures: 0,
        warning: ThrottledWarning::default(),
        has_warned_of_key: false,
        has_warned_of_path: false,
    };
    owner.apply(WorkerEvent::StartBegun, |_| {});
    (owner, status)
}

#[tokio::test]
async fn a_doubt_that_is_raised_during_a_probe_is_not_cleared_by_it() {
    let (mut owner, status) = owner();
    let ready = RemoteProbe::Ready { takes_our_key: true, has_path: true };
    assert_eq!(owner.apply_probe(ready.clone(), 0), Some(INTERVAL));
    let endpoint = status.borrow().endpoint.clone().unwrap();
    let doubts = endpoint.doubts();
    endpoint.begin(RequestClass::Inference(None), None).ok().unwrap().record_broken_connection();
    assert_eq!(owner.apply_probe(ready.clone(), doubts), Some(PROBE_INTERVAL_DOUBTED));
    assert!(!owner.endpoint.is_open());
    assert_eq!(owner.apply_probe(ready, owner.endpoint.doubts()), Some(INTERVAL));
    assert!(owner.endpoint.is_open());
}

#[tokio::test]
async fn a_local_shortage_does_not_change_the_state_of_the_worker() {
    let (mut owner, status) = owner();
    owner.apply_probe(RemoteProbe::Ready { takes_our_key: true, has_path: true }, 0);
    assert_eq!(owner.apply_probe(RemoteProbe::NotSent(nix::errno::Errno::EMFILE), 0), Some(SHORTAGE_PAUSE));
    assert_eq!(status.borrow().state, WorkerState::Ready);
}

#[tokio::test]
async fn compute_failures_do_not_close_a_remote_worker() {
    let (mut owner, status) = owner();
    owner.apply_probe(RemoteProbe::Ready { takes_our_key: true, has_path: true }, 0);
    let endpoint = status.borrow().endpoint.clone().unwrap();
    for _ in 0..10 {
        Arc::clone(&endpoint).begin(RequestClass::Inference(None), None).ok().unwrap().record_compute_failure();
    }
    assert!(endpoint.is_open());
}

#[tokio::test]
async fn a_backend_with_an_untrusted_certificate_is_unhealthy_and_gets_no_key() {
    let (trusted, foreign) = (TestAuthority::new("ours"), TestAuthority::new("theirs"));
    for (tls, is_trusted) in [(trusted.certify("127.0.0.1"), true), (foreign.certify("127.0.0.1"), false)] {
        let server = TestServer::open_tls(tls).await;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (plan, metrics) = (plan(format!("https://{}", server.address)), Arc::new(Metrics::new("local")));
        let suspects = Arc::default();
        let handle =
            supervise_with_trust(trusted.trust(), plan, suspects, Arc::clone(&metrics), stop.clone(), &tasks).unwrap();
        let mut worker = Supervised { handle, metrics, stop, tasks };
        if is_trusted {
            worker.wait_for(WorkerState::Ready).await;
            assert_eq!(server.requests()[0].headers[header::AUTHORIZATION], "Bearer sk-hush");
        } else {
            let why = worker.wait_for(WorkerState::Unhealthy).await.last_error.unwrap();
            assert!(why.starts_with(&format!("the certificate of {} is not trusted", server.address)), "{why}");
            assert!(server.requests().is_empty(), "the key was not sent");
        }
        worker.stop().await;
    }
}

#[test]
fn an_invalid_plan_is_refused_and_its_debug_output_hides_the_key() {
    let refusal = |plan| {
        let (metrics, stop, tasks) = (Arc::new(Metrics::new("local")), CancellationToken::new(), TaskTracker::new());
        supervise_remote(plan, Arc::default(), metrics, stop, &tasks).err().expect("an error").to_string()
    };
    assert!(refusal(plan("server1:8000".to_owned())).contains("api_base"));
    let mut bad = plan("http://server1:8000".to_owned());
    assert!(!format!("{bad:?}").contains("hush"));
    bad.remote.health = "health".to_owned();
    assert!(refusal(bad).contains("/health"));
}

proptest! {
    #[test]
    fn the_backoff_grows_with_each_failure_up_to_its_bounds(failures in 1u32.., secs in 1u64..=86_400) {
        let interval = Duration::from_secs(secs);
        let (this, next) = (backoff(failures, interval), backoff(failures.saturating_add(1), interval));
        prop_assert!(this <= next && next <= (this * 2));
        prop_assert!((REMOTE_BACKOFF_FIRST.min(interval)..=REMOTE_BACKOFF_LONGEST.min(interval)).contains(&this));
    }
}

#[test]
fn the_backoff_doubles_from_1_s_to_30_s() {
    let backoffs: Vec<u64> = (1..8).map(|failures| backoff(failures, INTERVAL).as_secs()).collect();
    assert_eq!(backoffs, [1, 2, 4, 8, 16, 30, 30]);
}
