//! The plan of a lane: which faults come in which order, and how often each kind comes.
//!
//! The seed alone decides the plan, parameters included; nothing in it depends on time.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::{
    faults::port_takers::TakerBehaviour,
    faults::{Fault, KeyFileDamage, Misbehaviour},
    random::Random,
    setup::Setup,
};

type Make = fn(&mut Random) -> Fault;

/// Faults for the real llama-server and the fake, with their weights.
const COMMON: &[(u64, Make)] = &[
    (10, |random| {
        Fault::Kill(*random.pick(&[
            Signal::SIGKILL,
            Signal::SIGKILL,
            Signal::SIGTERM,
            Signal::SIGSEGV,
            Signal::SIGABRT,
        ]))
    }),
    (8, |random| Fault::SuspendWorker(some_time(random))),
    (3, |random| Fault::SuspendAll(Duration::from_millis(random.between(20, 300)))),
    (1, |_| Fault::SuspendAll(LONGER_THAN_ANY_TIMEOUT)),
    (3, client_pause),
    (4, |random| Fault::PoisonRequests {
        count: random.between(2, 6),
        which: random.next(),
        streams: random.chance(50),
        time: Duration::from_millis(random.between(2000, 5000)),
    }),
    (4, |random| Fault::TakeNextPorts(random.between(1, 4) as u16, behaviour(random), some_time(random))),
    (4, |random| Fault::TakeOldPort(behaviour(random), some_time(random))),
    (5, |random| Fault::FillDisk(some_time(random))),
    (4, |random| Fault::ReplaceKeys { guest: random.chance(50), comment: random.next() }),
    (5, |random| {
        Fault::BreakKeys(
            *random.pick(&[
                KeyFileDamage::Empty,
                KeyFileDamage::CutShort,
                KeyFileDamage::Nonsense,
                KeyFileDamage::Missing,
                KeyFileDamage::Folder,
            ]),
            some_time(random),
        )
    }),
    (4, |random| Fault::Sighup(random.between(1, 5))),
    (4, |_| Fault::Reload),
    (8, |random| {
        let how = [Misbehaviour::HalfHead, Misbehaviour::HalfBody, Misbehaviour::ReadsNothing, Misbehaviour::Silent];
        Fault::MisbehavingClients(random.between(1, 6), *random.pick(&how), some_time(random))
    }),
];

/// Faults that only the fake has, with their weights; most are scripts (`tests/support/fake/script.rs`).
const SCRIPTED: &[(u64, Make)] = &[
    (5, |random| Fault::StopAnswering(some_time(random))),
    (4, |random| Fault::PortRace(behaviour(random), some_time(random))),
    (2, |random| Fault::NextStarts(json!({"exit_at_start": {"code": 1, "stderr": [*random.pick(STDERR_LINES)]}}))),
    (1, |_| Fault::NextStarts(json!({"abort_at_start": 6}))),
    (2, |random| Fault::NextStarts(json!({"exit_while_loading": {"code": 1, "stderr": [*random.pick(STDERR_LINES)]}}))),
    (3, |random| Fault::NextStarts(json!({"load_ms": random.between(100, 900)}))),
    (2, |_| Fault::NextStarts(json!({"never_ready": true}))),
    (1, |_| Fault::NextStarts(json!({"no_bind": true}))),
    (2, |_| Fault::NextStarts(json!({"wrong_key": true}))),
    (2, |_| Fault::NextStarts(json!({"ignore_sigterm": true}))),
    (2, |_| Fault::NextStarts(json!({"fork_grandchild": true}))),
    (2, |random| Fault::NextStarts(json!({"daemon": *random.pick(&["lingers", "lingers", "ends"])}))),
    (2, |_| Fault::NextStarts(json!({"stderr_flood": {"lines": 5000, "bytes": 100}, "long_log_line": 200_000}))),
    (2, |random| Fault::NextStarts(json!({"exit_after_requests": random.between(1, 30)}))),
    (3, |random| Fault::NextStarts(json!({"exit_mid_stream": {"after_frames": random.below(6), "code": 1}}))),
    (3, |random| Fault::NextStarts(json!({"half_event_then_die": {"after_frames": random.below(6), "signal": 9}}))),
    (3, |random| {
        Fault::NextStarts(
            json!({"truncate_mid_stream": {"after_frames": random.below(6), "end_chunk": random.chance(50)}}),
        )
    }),
    (3, |random| Fault::NextStarts(json!({"reset_mid_stream": {"after_frames": random.below(6)}}))),
    (3, |random| Fault::NextStarts(json!({"error_mid_stream": {"after_frames": random.below(6)}}))),
    // The declared length is never too small: such a response is complete for a client, only not JSON.
    (2, |random| Fault::NextStarts(json!({"wrong_content_length": random.between(1, 500)}))),
    (2, |random| Fault::NextStarts(json!({"truncate_body": random.below(40)}))),
    (2, |random| Fault::NextStarts(json!({"slow_first_byte_ms": random.between(50, 4000)}))),
    (3, |random| Fault::NextStarts(json!({"drip": {"interval_ms": random.between(5, 400)}}))),
    (2, |random| {
        Fault::NextStarts(
            json!({"drip": {"interval_ms": random.between(5, 50)}, "exit_mid_stream": {"after_frames": random.below(6), "signal": 11}}),
        )
    }),
    (2, |random| Fault::NextStarts(json!({"hold_mid_stream": {"after_frames": random.below(6)}}))),
    (2, |random| {
        Fault::NextStarts(json!({"hold_requests": [*random.pick(&["/v1/chat/completions", "/v1/messages"])]}))
    }),
    (2, |_| Fault::NextStarts(json!({"silent_paths": ["/metrics"]}))),
    (3, |random| {
        let failure = json!({"text": *random.pick(FAILING_TEXTS), "message": *random.pick(FAILURE_MESSAGES)});
        Fault::NextStarts(json!({"fail_on": [failure]}))
    }),
    (1, |_| Fault::NextStarts(json!({"healthy_but_500": true}))),
    (2, |random| {
        let status = *random.pick(&[400, 404, 500, 503]);
        let body = json!({"error": {"code": status, "message": "scripted", "type": "server_error"}});
        Fault::NextStarts(json!({"error_status": [{"path": "/v1/chat/completions", "status": status, "body": body}]}))
    }),
    (1, |_| Fault::NextStarts(json!({"oversized_response_headers": 600_000}))),
];

/// Longer than each timeout of `setup.rs`.
const LONGER_THAN_ANY_TIMEOUT: Duration = Duration::from_secs(4);

/// Texts whose requests fail: all requests, those of three words or more, long ones, those of a few clients.
const FAILING_TEXTS: &[&str] = &["{", "w2", "w20", "c1"];

/// Messages of llama-server's status 500. The last one is an error of the request, the others are of llama-server.
const FAILURE_MESSAGES: &[&str] = &["Compute error.", "Invalid input batch.", "Context size has been exceeded."];

/// One fault in this many replaces the gateway, in a lane that allows it.
const REPLACEMENTS: u64 = 60;

/// Percentage of faults that pause the clients, where IDLE_UNLOAD is on.
const CLIENT_PAUSES: u64 = 15;

const STDERR_LINES: &[&str] = &[
    "ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory",
    "E srv  llama_server: exiting due to model loading error",
    "CUDA error: an illegal memory access was encountered",
    "",
];

fn some_time(random: &mut Random) -> Duration {
    let longest = if random.chance(10) { 3500 } else { 900 };
    Duration::from_millis(random.between(20, longest))
}

fn client_pause(random: &mut Random) -> Fault {
    Fault::PauseClients(Duration::from_millis(random.between(100, 900)))
}

fn behaviour(random: &mut Random) -> TakerBehaviour {
    *random.pick(&[TakerBehaviour::AnswersOk, TakerBehaviour::Silent])
}

/// Draws `count` faults, each with the pause after it.
pub(crate) fn plan(random: &mut Random, count: usize, setup: Setup, may_replace: bool) -> Vec<(Fault, Duration)> {
    let step = |_| {
        let fault = if may_replace && random.below(REPLACEMENTS) == 0 {
            Fault::ReplaceGateway
        } else if setup.unloads_idle && random.chance(CLIENT_PAUSES) {
            client_pause(random)
        } else if !setup.is_real && random.chance(50) {
            random.weighted(SCRIPTED)(random)
        } else {
            random.weighted(COMMON)(random)
        };
        let longest = if random.chance(40) { 1500 } else { 300 };
        (fault, Duration::from_millis(random.below(longest)))
    };
    (0..count).map(step).collect()
}

#[test]
fn a_seed_gives_one_plan_and_a_shorter_plan_is_its_prefix() {
    let plan_of = |seed, count| {
        let steps = plan(&mut Random::new(seed, 1), count, Setup::nth(1, false, true), true);
        steps.into_iter().map(|step| format!("{step:?}")).collect::<Vec<_>>()
    };
    assert_eq!(plan_of(7, 500), plan_of(7, 500));
    assert_eq!(plan_of(7, 40), plan_of(7, 500)[..40]);
    assert_ne!(plan_of(7, 40), plan_of(8, 40));
}
