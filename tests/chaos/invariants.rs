//! What must hold the whole time: the states that follow each other, the counts of the line, and the books.

use super::{
    door::{Door, Target},
    judge::Outcome,
    support::{client::Client, wait},
};
use llamagate::worker::State;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// MAX_CONCURRENT_REQUESTS of every gateway here.
pub(crate) const SLOTS: u64 = 4;
/// MAX_QUEUE_SIZE of every gateway here: less than there are clients, so that it fills up.
pub(crate) const LINE: u64 = 6;

/// Time between two looks at the health port.
const LOOK: Duration = Duration::from_millis(20);

/// The longest that the health port may take to answer on a machine that others use too; a gateway that is stopped for
/// a moment by SIGSTOP is in it.
const HEALTH_ANSWERS: Duration = Duration::from_secs(5);

/// What the clients of one gateway have counted.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    /// Requests that the gateway must have counted, and those that it may have counted.
    pub(crate) certain: u64,
    pub(crate) possible: u64,
    /// Bytes of the bodies that came whole.
    pub(crate) bytes: u64,
    /// Outcomes of all gateways of the lane.
    pub(crate) totals: BTreeMap<Outcome, u64>,
    life: u64,
}

impl Accounts {
    /// The next gateway starts with empty books.
    pub(crate) fn begin_life(&mut self) {
        let totals = std::mem::take(&mut self.totals);
        *self = Accounts { totals, life: self.life + 1, ..Accounts::default() };
    }

    /// One more request that the gateway counts or not.
    pub(crate) fn may_count(&mut self) {
        self.possible += 1;
    }

    pub(crate) fn note(&mut self, life: u64, is_counted: bool, outcome: Outcome, bytes: Option<usize>) {
        if life == self.life && is_counted {
            match outcome {
                Outcome::Left | Outcome::Excused => self.possible += 1,
                _ => self.certain += 1,
            }
            self.bytes += bytes.unwrap_or(0) as u64;
        }
        *self.totals.entry(outcome).or_default() += 1;
    }

    /// What the gateway's own books say when nothing is in flight, or why they are wrong.
    pub(crate) fn check(&self, metrics: &Value) -> Result<(), String> {
        let of = |name: &str| metrics["gateway"][name].as_u64().unwrap_or(u64::MAX);
        let counted = of("requests");
        if counted < self.certain || counted > self.certain + self.possible {
            let (certain, possible) = (self.certain, self.possible);
            return Err(format!("{counted} requests counted, {certain} were answered and {possible} left"));
        }
        if of("requests_success") + of("requests_error") != counted {
            return Err(format!("successes and errors are not all requests: {metrics}"));
        }
        if of("bytes_sent") < self.bytes {
            return Err(format!("{} bytes counted, clients have {}", of("bytes_sent"), self.bytes));
        }
        Ok(())
    }
}

/// A state, told apart further where the count of restarts tells more: a worker in backoff whose restart has been
/// counted is about to be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    Stopped,
    Starting,
    Loading,
    Ready,
    Unhealthy,
    Pausing,
    Counted,
    Draining,
    /// Stopped after a life. Nothing here lets a worker go and starts it again (IDLE_UNLOAD would).
    Ended,
}

/// Which may follow which (`worker/state.rs`, events left out), and whether a restart is counted on the way.
/// None may fail for good: the budget of restarts is as good as endless.
const STEPS: &[(Node, Node, u64)] = {
    use Node as N;
    &[
        (N::Stopped, N::Starting, 0),
        (N::Stopped, N::Pausing, 0),
        (N::Starting, N::Loading, 0),
        (N::Starting, N::Ready, 0),
        (N::Starting, N::Pausing, 0),
        (N::Starting, N::Draining, 0),
        (N::Loading, N::Ready, 0),
        (N::Loading, N::Pausing, 0),
        (N::Loading, N::Draining, 0),
        (N::Ready, N::Unhealthy, 0),
        (N::Ready, N::Pausing, 0),
        (N::Ready, N::Draining, 0),
        (N::Unhealthy, N::Ready, 0),
        (N::Unhealthy, N::Pausing, 0),
        (N::Unhealthy, N::Draining, 0),
        (N::Pausing, N::Counted, 1),
        (N::Pausing, N::Ended, 0),
        (N::Counted, N::Starting, 0),
        (N::Counted, N::Pausing, 0),
        (N::Draining, N::Ended, 0),
    ]
};

impl Node {
    fn is_seen_as(self, state: &str) -> bool {
        let seen = match self {
            Node::Stopped | Node::Ended => State::Stopped,
            Node::Starting => State::Starting,
            Node::Loading => State::Loading,
            Node::Ready => State::Ready,
            Node::Unhealthy => State::Unhealthy,
            Node::Pausing | Node::Counted => State::Backoff,
            Node::Draining => State::Draining,
        };
        seen.as_str() == state
    }
}

/// All that a worker may be in, by what has been seen of it.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    possible: BTreeSet<Node>,
    seen: Option<(String, u64)>,
}

impl Steps {
    /// Takes the next sight of a worker, or says why it cannot follow on those before.
    pub(crate) fn see(&mut self, state: &str, restarts: u64) -> Result<(), String> {
        let every = STEPS.iter().flat_map(|(from, to, _)| [*from, *to]);
        let reached: BTreeSet<Node> = match &self.seen {
            None => every.collect(),
            Some((_, before)) => {
                let more = restarts.checked_sub(*before).ok_or(format!("restarts went from {before} to {restarts}"))?;
                self.after(more)
            }
        };
        let possible: BTreeSet<Node> = reached.into_iter().filter(|node| node.is_seen_as(state)).collect();
        if possible.is_empty() {
            return Err(format!("{:?} was followed by {:?}", self.seen, (state, restarts)));
        }
        self.possible = possible;
        self.seen = Some((state.to_owned(), restarts));
        Ok(())
    }

    /// What can be reached with exactly so many more restarts.
    fn after(&self, restarts: u64) -> BTreeSet<Node> {
        let mut known: BTreeSet<(Node, u64)> = self.possible.iter().map(|node| (*node, 0)).collect();
        loop {
            let next = |(node, count): &(Node, u64)| {
                let (node, count) = (*node, *count);
                let steps = STEPS.iter().filter(move |(from, ..)| *from == node);
                steps.map(move |(_, to, more)| (*to, count + more)).filter(|(_, count)| *count <= restarts)
            };
            let new: Vec<_> = known.iter().flat_map(next).filter(|place| !known.contains(place)).collect();
            if new.is_empty() {
                return known.into_iter().filter(|(_, count)| *count == restarts).map(|(node, _)| node).collect();
            }
            known.extend(new);
        }
    }
}

/// Looks at the health port until the lane is over; returns the longest answer.
pub(crate) fn watch(door: &Door) -> Duration {
    let mut longest = Duration::ZERO;
    let mut steps = (u64::MAX, Steps::default());
    let mut looks = 0_u64;
    while !door.is_over() {
        std::thread::sleep(LOOK);
        let target = door.target();
        if door.is_closed() {
            continue;
        }
        if steps.0 != target.life {
            steps = (target.life, Steps::default());
        }
        let begin = Instant::now();
        looks += 1;
        let look = if looks.is_multiple_of(16) { is_alive(&target) } else { look(&target, &mut steps.1) };
        let took = begin.elapsed();
        if door.excuses(&target) {
            continue;
        }
        longest = longest.max(took);
        if let Err(what) = look {
            door.violation(format!("health port: {what}"));
        }
        if took > wait::patient(HEALTH_ANSWERS) {
            door.violation(format!("the health port took {took:?}"));
        }
    }
    longest
}

fn is_alive(target: &Target) -> Result<(), String> {
    let answer = Client::new(&target.health_url).try_send("GET", "/livez", b"").map_err(|e| e.to_string())?;
    if answer.status() == 200 { Ok(()) } else { Err(format!("/livez says {}", answer.status())) }
}

fn look(target: &Target, steps: &mut Steps) -> Result<(), String> {
    let answer = Client::new(&target.health_url).try_send("GET", "/health", b"").map_err(|e| e.to_string())?;
    let health: Value = serde_json::from_slice(&answer.body).map_err(|e| format!("{e}: {}", answer.text()))?;
    let (active, waiting) = (health["queue"]["active"].as_u64(), health["queue"]["waiting"].as_u64());
    if active.is_none_or(|active| active > SLOTS) || waiting.is_none_or(|waiting| waiting > LINE) {
        return Err(format!("{active:?} are active and {waiting:?} wait"));
    }
    let worker = &health["models"][0];
    let (Some(state), Some(restarts)) = (worker["state"].as_str(), worker["restarts"].as_u64()) else {
        return Err(format!("no state in {health}"));
    };
    if (answer.status() == 200) != (state == "ready") {
        return Err(format!("{} while {state}", answer.status()));
    }
    steps.see(state, restarts)
}

#[test]
fn steps_that_skip_what_must_be_between_are_found() {
    let walk = |sights: &[(&str, u64)]| {
        let mut steps = Steps::default();
        sights.iter().try_for_each(|(state, restarts)| steps.see(state, *restarts))
    };
    walk(&[("starting", 0), ("ready", 0), ("unhealthy", 0), ("ready", 0), ("backoff", 0), ("backoff", 1)]).unwrap();
    walk(&[("ready", 0), ("ready", 3), ("loading", 4), ("backoff", 4), ("starting", 5)]).unwrap();
    for wrong in [
        &[("ready", 0), ("loading", 0)][..],
        &[("ready", 0), ("backoff", 1), ("ready", 1), ("starting", 1)],
        &[("failed", 0), ("starting", 0)],
        &[("ready", 2), ("ready", 1)],
        &[("unhealthy", 0), ("starting", 0)],
        &[("draining", 0), ("ready", 0)],
    ] {
        assert!(walk(wrong).is_err(), "{wrong:?}");
    }
}
