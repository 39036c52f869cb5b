//! Which faults in which order: the table of all kinds, and a plan that follows from a seed alone.
//!
//! Parameters are drawn with the plan, and nothing of it depends on time.

use crate::{
    faults::port_takers::Manner,
    faults::{Break, Fault, Rudeness},
    random::Random,
    setup::Setup,
};
use nix::sys::signal::Signal;
use serde_json::json;
use std::time::Duration;

type Make = fn(&mut Random) -> Fault;

/// Faults that any llama-server can meet.
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
    (8, |random| Fault::Freeze(a_while(random))),
    (3, |random| Fault::FreezeAll(Duration::from_millis(random.between(20, 300)))),
    (1, |_| Fault::FreezeAll(LONGER_THAN_ANY_PATIENCE)),
    (3, lull),
    (4, |random| Fault::Killers {
        count: random.between(2, 6),
        which: random.next(),
        streams: random.chance(50),
        time: Duration::from_millis(random.between(2000, 5000)),
    }),
    (4, |random| Fault::NextPorts(random.between(1, 4) as u16, manner(random), a_while(random))),
    (4, |random| Fault::OldPort(manner(random), a_while(random))),
    (5, |random| Fault::DiskFull(a_while(random))),
    (4, |random| Fault::KeysReplaced { guest: random.chance(50), comment: random.next() }),
    (5, |random| {
        Fault::KeysBroken(
            *random.pick(&[Break::Empty, Break::CutShort, Break::Nonsense, Break::Missing, Break::Folder]),
            a_while(random),
        )
    }),
    (4, |random| Fault::Hangup(random.between(1, 5))),
    (4, |_| Fault::Reload),
    (8, |random| {
        let how = [Rudeness::HalfHead, Rudeness::HalfBody, Rudeness::ReadsNothing, Rudeness::Silent];
        Fault::RudeClients(random.between(1, 6), *random.pick(&how), a_while(random))
    }),
];

/// Faults that only the fake can be told to have.
const SCRIPTED: &[(u64, Make)] = &[
    (5, |random| Fault::Mute(a_while(random))),
    (4, |random| Fault::PortRace(manner(random), a_while(random))),
    (2, |random| Fault::NextLives(json!({"exit_at_start": {"code": 1, "stderr": [*random.pick(WORDS)]}}))),
    (1, |_| Fault::NextLives(json!({"abort_at_start": 6}))),
    (2, |random| Fault::NextLives(json!({"exit_while_loading": {"code": 1, "stderr": [*random.pick(WORDS)]}}))),
    (3, |random| Fault::NextLives(json!({"load_ms": random.between(100, 900)}))),
    (2, |_| Fault::NextLives(json!({"never_ready": true}))),
    (1, |_| Fault::NextLives(json!({"no_bind": true}))),
    (2, |_| Fault::NextLives(json!({"wrong_key": true}))),
    (2, |_| Fault::NextLives(json!({"ignore_sigterm": true}))),
    (2, |_| Fault::NextLives(json!({"fork_grandchild": true}))),
    (2, |random| Fault::NextLives(json!({"daemon": *random.pick(&["lingers", "lingers", "ends"])}))),
    (2, |_| Fault::NextLives(json!({"stderr_flood": {"lines": 5000, "bytes": 100}, "long_log_line": 200_000}))),
    (2, |random| Fault::NextLives(json!({"exit_after_requests": random.between(1, 30)}))),
    (3, |random| Fault::NextLives(json!({"exit_mid_stream": {"after_frames": random.below(6), "code": 1}}))),
    (3, |random| Fault::NextLives(json!({"half_event_then_die": {"after_frames": random.below(6), "signal": 9}}))),
    (3, |random| {
        Fault::NextLives(
            json!({"truncate_mid_stream": {"after_frames": random.below(6), "end_chunk": random.chance(50)}}),
        )
    }),
    (3, |random| Fault::NextLives(json!({"reset_mid_stream": {"after_frames": random.below(6)}}))),
    (3, |random| Fault::NextLives(json!({"error_mid_stream": {"after_frames": random.below(6)}}))),
    // One that declares too few bytes cannot be found out: they are all there, and they are no JSON.
    (2, |random| Fault::NextLives(json!({"wrong_content_length": random.between(1, 500)}))),
    (2, |random| Fault::NextLives(json!({"truncate_body": random.below(40)}))),
    (2, |random| Fault::NextLives(json!({"slow_first_byte_ms": random.between(50, 4000)}))),
    (3, |random| Fault::NextLives(json!({"drip": {"interval_ms": random.between(5, 400)}}))),
    (2, |random| {
        Fault::NextLives(
            json!({"drip": {"interval_ms": random.between(5, 50)}, "exit_mid_stream": {"after_frames": random.below(6), "signal": 11}}),
        )
    }),
    (2, |random| Fault::NextLives(json!({"hold_mid_stream": {"after_frames": random.below(6)}}))),
    (2, |random| Fault::NextLives(json!({"hold_requests": [*random.pick(&["/v1/chat/completions", "/v1/messages"])]}))),
    (2, |_| Fault::NextLives(json!({"silent_paths": ["/metrics"]}))),
    (3, |random| {
        let failure = json!({"text": *random.pick(FAILING), "message": *random.pick(FAILURES)});
        Fault::NextLives(json!({"fail_on": [failure]}))
    }),
    (1, |_| Fault::NextLives(json!({"healthy_but_500": true}))),
    (2, |random| {
        let status = *random.pick(&[400, 404, 500, 503]);
        let body = json!({"error": {"code": status, "message": "scripted", "type": "server_error"}});
        Fault::NextLives(json!({"error_status": [{"path": "/v1/chat/completions", "status": status, "body": body}]}))
    }),
    (1, |_| Fault::NextLives(json!({"oversized_response_headers": 600_000}))),
];

/// Longer than each timeout of `setup.rs`.
const LONGER_THAN_ANY_PATIENCE: Duration = Duration::from_secs(4);

/// What fails where a computation does: all requests, those of three words or more, long ones, those of a few clients.
const FAILING: &[&str] = &["{", "w2", "w20", "c1"];

/// The last one is the request's own fault.
const FAILURES: &[&str] = &["Compute error.", "Invalid input batch.", "Context size has been exceeded."];

/// One in so many faults replaces the gateway, in a lane where that may be.
const REPLACEMENTS: u64 = 60;

/// Percentage of lulls where llama-server falls asleep in them.
const LULLS: u64 = 15;

const WORDS: &[&str] = &[
    "ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory",
    "E srv  llama_server: exiting due to model loading error",
    "CUDA error: an illegal memory access was encountered",
    "",
];

fn a_while(random: &mut Random) -> Duration {
    let longest = if random.chance(10) { 3500 } else { 900 };
    Duration::from_millis(random.between(20, longest))
}

fn lull(random: &mut Random) -> Fault {
    Fault::Lull(Duration::from_millis(random.between(100, 900)))
}

fn manner(random: &mut Random) -> Manner {
    *random.pick(&[Manner::Obliging, Manner::Silent])
}

/// A fault, and the pause after it.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) fault: Fault,
    pub(crate) pause: Duration,
}

/// So many faults, which follow from the seed.
pub(crate) fn plan(random: &mut Random, count: usize, setup: Setup, may_replace: bool) -> Vec<Step> {
    let step = |_| {
        let fault = if may_replace && random.below(REPLACEMENTS) == 0 {
            Fault::Replace
        } else if setup.sleeps && random.chance(LULLS) {
            lull(random)
        } else if !setup.is_real && random.chance(50) {
            random.weighted(SCRIPTED)(random)
        } else {
            random.weighted(COMMON)(random)
        };
        let longest = if random.chance(40) { 1500 } else { 300 };
        Step { fault, pause: Duration::from_millis(random.below(longest)) }
    };
    (0..count).map(step).collect()
}

#[test]
fn a_seed_has_one_plan_and_a_shorter_one_is_its_beginning() {
    let of = |seed, count| {
        let steps = plan(&mut Random::new(seed, 1), count, Setup::nth(1, false, true), true);
        steps.into_iter().map(|step| format!("{step:?}")).collect::<Vec<_>>()
    };
    assert_eq!(of(7, 500), of(7, 500));
    assert_eq!(of(7, 40), of(7, 500)[..40]);
    assert_ne!(of(7, 40), of(8, 40));
}
