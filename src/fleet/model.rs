//! One model: what it is, and which of its workers gets a request.

use super::changes::Changes;
use super::lease::Lease;
use super::member::{Member, Place};
use super::report::{ModelStatus, Overall};
use crate::models::Kind;
use crate::settings::catalogue::{Rewrite, Strategy};
use crate::worker::{self, Endpoint, Errand, Fingerprint, NotNow, State};
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a model is, for those who ask which there are.
#[derive(Debug, Clone, PartialEq)]
pub struct Card {
    /// The id that clients use.
    pub id: String,
    /// Other names for it.
    pub aliases: Vec<String>,
    /// What it is for.
    pub kind: Kind,
    /// The tier that it belongs to.
    pub tier: Option<String>,
    /// Whether lists leave it out.
    pub unlisted: bool,
    /// Bytes of its files, where they are here.
    pub size_bytes: Option<u64>,
    /// Tokens that a request may use, where that is known.
    pub context_length: Option<u64>,
    /// The quantisation, such as `Q4_K_M`.
    pub quantization: Option<String>,
    /// The architecture, such as `qwen3`.
    pub architecture: Option<String>,
    /// Whether the file brings a chat template.
    pub has_chat_template: Option<bool>,
}

/// How a model's requests are treated.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Terms {
    /// What is changed in them.
    pub rewrite: Rewrite,
    /// How a worker is chosen.
    pub strategy: Strategy,
    /// Whether its own workers serve only when no remote one can.
    pub remote_first: bool,
    /// Names of the models or tiers that take over when it cannot serve, in this order.
    pub fallbacks: Vec<String>,
}

/// One model and the workers that serve it.
pub struct Model {
    id: String,
    card: ArcSwap<Card>,
    terms: ArcSwap<Terms>,
    members: Vec<Arc<Member>>,
    /// How many wait for it.
    wanting: Arc<AtomicUsize>,
}

/// What a request wants of a model.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// What is to be done.
    pub errand: Errand,
    /// Hashes of the key and of longer and longer beginnings of the prompt.
    pub affinity: &'a [u64],
    /// Numbers of the workers that have failed at it before.
    pub avoid: &'a [u32],
}

/// Why no worker can be leased now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unavailable {
    /// All slots of those that can serve are taken.
    Busy,
    /// It has broken a connection, and will be asked at once whether it still serves.
    Doubted,
    /// It is starting or loading, or will be started again.
    Loading,
    /// It was put away because nobody used it, and is started for whoever wants it.
    Asleep,
    /// It does not answer, or is being stopped.
    Down,
    /// It has failed for good.
    Failed,
    /// There is none behind this service.
    Absent,
    /// Workers died each time they served this request.
    Poisonous,
    /// A worker died while it served this request, and another of which that is true is in flight.
    Suspected,
}

/// Somebody who waits for a model: its workers that serve stay awake, and as many more are woken as are needed.
pub struct Want {
    wanting: Arc<AtomicUsize>,
    _wants: Vec<worker::Want>,
}

impl From<Errand> for Wish<'static> {
    fn from(errand: Errand) -> Self {
        Self { errand, affinity: &[], avoid: &[] }
    }
}

impl Model {
    /// A model with these workers; without any it serves nothing.
    pub fn new(card: Card, terms: Terms, members: Vec<Arc<Member>>) -> Self {
        let id = card.id.clone();
        let (card, terms) = (ArcSwap::from_pointee(card), ArcSwap::from_pointee(terms));
        Self { id, card, terms, members, wanting: Arc::default() }
    }

    /// Gives it other names and other terms, which no worker has to be started anew for. The id stays.
    pub fn describe(&self, card: Card, terms: Terms) {
        self.card.store(Arc::new(card));
        self.terms.store(Arc::new(terms));
    }

    /// What it is.
    pub fn card(&self) -> Arc<Card> {
        self.card.load_full()
    }

    /// How its requests are treated.
    pub fn terms(&self) -> Arc<Terms> {
        self.terms.load_full()
    }

    /// The id that clients use.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its workers, in the order of their numbers.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().map(|member| &**member)
    }

    /// The slots of all workers that can serve now.
    pub fn slots(&self) -> usize {
        self.open().iter().map(|(member, _)| member.slots()).sum()
    }

    /// A lease on a worker that can serve.
    pub fn lease(&self, wish: &Wish<'_>) -> Result<Lease, Unavailable> {
        let takes_slot = match wish.errand {
            Errand::Work(Some(fingerprint)) if self.refuses(fingerprint) => return Err(Unavailable::Poisonous),
            Errand::Work(fingerprint) => fingerprint.is_some(),
            Errand::Look => false,
        };
        let mut open = self.open();
        // Stable: among the others the order stays.
        open.sort_by_key(|(member, _)| (wish.avoid.contains(&member.number), member.taken()));
        let mut reason = self.why_not();
        for (member, endpoint) in open {
            let slot = match takes_slot.then(|| member.take_slot()) {
                None => None,
                Some(None) => {
                    reason = reason.min(Unavailable::Busy);
                    continue;
                }
                Some(slot) => slot,
            };
            match endpoint.begin(wish.errand) {
                Ok(in_flight) => return Ok(Lease::new(in_flight, Arc::clone(member), slot)),
                Err(NotNow::Closed) => {}
                Err(NotNow::Suspected) => return Err(Unavailable::Suspected),
            }
        }
        Err(reason)
    }

    /// Whether a lease would be granted now, without taking one.
    pub fn available(&self) -> Result<(), Unavailable> {
        if self.open().is_empty() { Err(self.why_not()) } else { Ok(()) }
    }

    /// Whether another worker than these can serve now.
    pub fn has_another(&self, than: &[u32]) -> bool {
        self.open().iter().any(|(member, _)| !than.contains(&member.number))
    }

    /// Whether workers died each time they served the request with this fingerprint.
    pub fn refuses(&self, fingerprint: Fingerprint) -> bool {
        self.members().any(|member| member.handle().refuses(fingerprint))
    }

    /// Whether a worker died while it served the request with this fingerprint, which may have to wait for its turn.
    pub fn suspects(&self, fingerprint: Fingerprint) -> bool {
        self.members().any(|member| member.handle().suspects(fingerprint))
    }

    /// Wakes as many workers as are needed for one more who waits, and keeps them awake as long as what is returned
    /// lives.
    pub fn want(&self) -> Want {
        let before = self.wanting.fetch_add(1, Ordering::SeqCst);
        let mut covered = 0;
        let mut wants = Vec::new();
        for member in self.eligible() {
            let is_ready = member.handle().is_ready();
            if is_ready || covered <= before {
                wants.push(member.handle().want());
            }
            covered += if is_ready { 0 } else { member.slots() };
        }
        Want { wanting: Arc::clone(&self.wanting), _wants: wants }
    }

    /// Starts its workers, also those that were given up.
    pub fn wake(&self) {
        for member in self.members() {
            member.handle().wake();
        }
    }

    /// Stops its workers once they have served what they are serving; who asks next starts them again.
    pub fn put_away(&self) {
        for member in self.members() {
            member.handle().put_away();
        }
    }

    /// Whether there is any worker for it, be it ready or not.
    pub fn has_worker(&self) -> bool {
        !self.members.is_empty()
    }

    /// What happens from now on; nothing ever does to a model without a worker.
    pub fn changes(&self) -> Option<Changes> {
        self.has_worker().then(|| Changes::of(self.members()))
    }

    /// Whether a load that has failed leaves nobody to wait for: none serves, and no other is on its way.
    pub fn is_hopeless(&self) -> bool {
        let on_its_way = |member: &Member| matches!(member.handle().state().0, State::Starting | State::Loading);
        let others = if self.members.len() > 1 { self.members().any(on_its_way) } else { false };
        self.open().is_empty() && !others
    }

    /// The state that is shown of it: that of the worker which is nearest to serving.
    pub fn state(&self) -> State {
        self.members()
            .map(|member| member.handle().state().0)
            .min_by_key(|state| distance(*state))
            .unwrap_or(State::Stopped)
    }

    /// Those that can serve now, with the way to them.
    fn open(&self) -> Vec<(&Arc<Member>, Arc<Endpoint>)> {
        let reachable = |place: fn(Place) -> bool| {
            let members = self.members.iter().filter(move |member| place(member.place));
            members.filter_map(|member| Some((member, member.endpoint()?))).collect::<Vec<_>>()
        };
        if !self.terms.load().remote_first {
            return reachable(|_| true);
        }
        let remotes = reachable(|place| place == Place::Remote);
        if remotes.is_empty() { reachable(|place| place != Place::Remote) } else { remotes }
    }

    /// Those that may be started for whoever waits.
    fn eligible(&self) -> impl Iterator<Item = &Member> {
        let remote_serves = self.terms.load().remote_first
            && self.members().any(|member| member.place == Place::Remote && member.endpoint().is_some());
        self.members().filter(move |member| !remote_serves || member.place == Place::Remote)
    }

    /// The most hopeful of the reasons why its workers cannot serve.
    fn why_not(&self) -> Unavailable {
        self.members().map(|member| why_not(member)).min().unwrap_or(Unavailable::Absent)
    }

    /// What its workers have done, for `/lb/stats`.
    pub fn stats(&self) -> Vec<serde_json::Value> {
        self.members().map(|member| serde_json::json!({"worker": member.number, "kind": member.place})).collect()
    }

    /// What is shown of it, and the sum of that if there is a worker.
    pub(super) fn report(&self) -> (Option<Overall>, ModelStatus) {
        let sum = self.members().map(|member| Overall::of(member.handle().state())).min();
        let statuses = || self.members().map(|member| member.handle().status());
        let status = ModelStatus {
            id: self.id.clone(),
            state: self.state(),
            restarts: statuses().map(|status| status.restarts).sum(),
            last_exit: statuses().find_map(|status| status.last_exit),
        };
        (sum, status)
    }
}

impl Drop for Want {
    fn drop(&mut self) {
        self.wanting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How far a worker in this state is from serving.
fn distance(state: State) -> u8 {
    match state {
        State::Ready => 0,
        State::Loading => 1,
        State::Starting => 2,
        State::Backoff => 3,
        State::Unhealthy => 4,
        State::Draining => 5,
        State::Stopped => 6,
        State::Failed => 7,
    }
}

/// Why no request may be sent to this worker now.
fn why_not(member: &Member) -> Unavailable {
    match member.handle().state() {
        (State::Failed, _) => Unavailable::Failed,
        (_, true) => Unavailable::Asleep,
        // It has broken a connection, or is just being put to sleep or found dead.
        (State::Ready, _) => Unavailable::Doubted,
        (State::Stopped | State::Starting | State::Loading | State::Backoff, _) => Unavailable::Loading,
        (State::Unhealthy | State::Draining, _) => Unavailable::Down,
    }
}
