//! One model: what it is, and which of its workers gets a request.

use super::card::{Card, Terms};
use super::changes::Changes;
use super::choice::{Candidate, Choice};
use super::lease::Lease;
use super::member::Member;
use super::report::{ModelStatus, Overall};
use super::tally::Snapshot;
use crate::awake::Instant;
use crate::worker::{self, Errand, Fingerprint, NotNow, State, Status};
use arc_swap::ArcSwap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// One model and the workers that serve it.
pub struct Model {
    id: String,
    card: ArcSwap<Card>,
    terms: ArcSwap<Terms>,
    members: Vec<Arc<Member>>,
    /// Whether some are remote and some are not.
    is_mixed: bool,
    choice: Choice,
    /// How many wait for it.
    wanting: Arc<AtomicUsize>,
    /// Told of each slot that is given back.
    freed: Arc<Notify>,
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
    /// A worker died while it served this request, and another of which that is true is in flight.
    Suspected,
    /// Only those have a free slot that have failed at it before, where another one can serve.
    Avoided,
    /// All slots of those that can serve are taken.
    Busy,
    /// It has broken a connection, and will be asked at once whether it still serves.
    Doubted,
    /// It is starting or loading, or will be started again.
    Loading,
    /// It was put away because nobody used it, and is started for whoever wants it.
    Asleep,
    /// It has been asked for as much as it may be in a minute.
    Spent,
    /// It has failed too often, and is left alone for a while.
    Resting,
    /// It does not answer, or is being stopped.
    Down,
    /// It has failed for good.
    Failed,
    /// There is none behind this service.
    Absent,
    /// Workers died each time they served this request.
    Poisonous,
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
        let choice = Choice::seeded(RandomState::new().hash_one(&id));
        let remotes = members.iter().filter(|member| member.is_remote()).count();
        let is_mixed = remotes > 0 && remotes < members.len();
        Self { id, card, terms, members, is_mixed, choice, wanting: Arc::default(), freed: Arc::default() }
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
    pub fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members.iter()
    }

    /// How many requests may hold slots, those included that hold one at a worker which is sent nothing now: none when
    /// nobody can serve. One more may come exactly when a worker that can serve has a free slot.
    pub fn slots(&self) -> usize {
        let now = Instant::now();
        let is_eligible = self.eligibility(now, &[]);
        let (mut slots, mut is_any_open) = (0_usize, false);
        for member in self.members() {
            let (taken, is_open) = (member.taken(), is_eligible(member) && member.is_open(now));
            is_any_open |= is_open;
            slots = slots.saturating_add(if is_open { member.slots(now).max(taken) } else { taken });
        }
        if is_any_open { slots } else { 0 }
    }

    /// A lease on a worker that can serve.
    pub fn lease(&self, wish: &Wish<'_>) -> Result<Lease, Unavailable> {
        let takes_slot = match wish.errand {
            Errand::Work(Some(fingerprint)) if self.refuses(fingerprint) => return Err(Unavailable::Poisonous),
            Errand::Work(fingerprint) => fingerprint.is_some(),
            Errand::Look => false,
        };
        let now = Instant::now();
        let mut open: Vec<Open<'_>> = self.open(now, wish.avoid).collect();
        let mut reasons = None;
        while let Some(at) = self.choose(&open, wish, takes_slot, now) {
            let (index, member) = open.swap_remove(at);
            match self.begin(member, wish.errand, takes_slot, now) {
                Ok(lease) => {
                    self.choice.served_by(wish.affinity, index);
                    return Ok(lease);
                }
                Err(reason) => reasons = reasons.into_iter().chain([reason]).min(),
            }
        }
        match open.is_empty() {
            true => Err(reasons.unwrap_or_else(|| self.why_not(now))),
            // Whoever is suspected, or has failed elsewhere, waits for something else than any slot.
            false => {
                let is_avoided = |(index, member): &Open<'_>| {
                    wish.avoid.contains(&member.number) && member.candidate(*index, now).has_room()
                };
                let full = if open.iter().any(is_avoided) { Unavailable::Avoided } else { Unavailable::Busy };
                Err(reasons.map_or(full, |reason| reason.min(full)))
            }
        }
    }

    /// Begins a request at this worker.
    fn begin(
        &self,
        member: &Arc<Member>,
        errand: Errand,
        takes_slot: bool,
        now: Instant,
    ) -> Result<Lease, Unavailable> {
        let endpoint = member.handle().endpoint().ok_or_else(|| why_not(member, now))?;
        let slot = match takes_slot {
            true => Some(member.take_slot(now, &self.freed).ok_or(Unavailable::Busy)?),
            false => None,
        };
        let in_flight = endpoint.begin(errand).map_err(|reason| match reason {
            NotNow::Closed => why_not(member, now),
            NotNow::Suspected => Unavailable::Suspected,
        })?;
        let pass = member.pass(now).ok_or_else(|| why_not(member, now))?;
        Ok(Lease::new(in_flight, member, slot, pass))
    }

    /// The place in this list of the worker that is to serve: one that has not failed at it before, if there is one with
    /// a free slot. To a remote one that has it goes back only where no other can serve; one of its own has been looked
    /// after meanwhile. Whoever takes no slot waits for none.
    fn choose(&self, open: &[Open<'_>], wish: &Wish<'_>, takes_slot: bool, now: Instant) -> Option<usize> {
        if let ([_], false) = (open, takes_slot) {
            return Some(0);
        }
        let candidate = |(index, member): &Open<'_>| {
            let candidate = member.candidate(*index, now);
            if takes_slot { candidate } else { Candidate { slots: usize::MAX, ..candidate } }
        };
        let strategy = self.terms.load().strategy;
        let pick = |may_serve: &dyn Fn(&Member) -> bool| {
            let fit = open.iter().filter(|(_, member)| may_serve(member));
            self.choice.pick(strategy, &fit.map(candidate).collect::<Vec<_>>(), wish.affinity)
        };
        let is_new = |member: &Member| !wish.avoid.contains(&member.number);
        let is_alone = !open.iter().any(|(_, member)| is_new(member));
        let index = match wish.avoid {
            [] => pick(&|_| true),
            _ => pick(&is_new).or_else(|| pick(&|member| is_alone || is_new(member) || !member.is_remote())),
        }?;
        open.iter().position(|(other, _)| *other == index)
    }

    /// Waits until a slot is given back, from when the future is enabled.
    pub fn slot_freed(&self) -> Notified<'_> {
        self.freed.notified()
    }

    /// Whether a lease would be granted now, without taking one.
    pub fn available(&self) -> Result<(), Unavailable> {
        let now = Instant::now();
        if self.open(now, &[]).next().is_none() { Err(self.why_not(now)) } else { Ok(()) }
    }

    /// Whether another worker than these can serve now, or is woken or being loaded for whoever waits because none can.
    pub fn has_another(&self, than: &[u32]) -> bool {
        let now = Instant::now();
        let is_other = |member: &Member| !than.contains(&member.number);
        let is_on_its_way = |member: &Arc<Member>| {
            let reason = why_not_of(member);
            is_other(member) && matches!(reason, Unavailable::Asleep | Unavailable::Loading)
        };
        let mut open = self.open(now, than).peekable();
        match open.peek() {
            Some(_) => open.any(|(_, member)| is_other(member)),
            None => self.members().any(is_on_its_way),
        }
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
        let now = Instant::now();
        let mut covered = 0;
        let mut wants = Vec::new();
        for (_, member) in self.eligible(now, &[]) {
            let state = member.handle().state().0;
            // It is not woken by that, or serves already, or nobody knows when it will.
            let covers = !matches!(state, State::Failed | State::Ready | State::Backoff);
            if state == State::Ready || (state != State::Failed && covered <= before) {
                wants.push(member.handle().want());
            }
            covered = covered.saturating_add(if covers { member.slots(now) } else { 0 });
        }
        Want { wanting: Arc::clone(&self.wanting), _wants: wants }
    }

    /// Starts its workers, also those that were given up. The state that it is in now, or goes to.
    pub fn wake(&self) -> State {
        let before = self.state();
        for member in self.members() {
            member.handle().wake();
        }
        match before {
            State::Ready | State::Loading => before,
            _ if self.has_worker() => State::Starting,
            _ => before,
        }
    }

    /// Stops its workers once they have served what they are serving; who asks next starts them again. The state that
    /// those which run here go to.
    pub fn put_away(&self) -> State {
        let before = self.own().map(|member| member.handle().state().0).min_by_key(|state| distance(*state));
        for member in self.members() {
            member.handle().put_away();
        }
        match before {
            None | Some(State::Backoff | State::Stopped) => State::Stopped,
            Some(State::Failed) => State::Failed,
            Some(_) => State::Draining,
        }
    }

    /// Whether others run all its workers, which are neither started nor stopped here.
    pub fn is_remote(&self) -> bool {
        self.has_worker() && self.own().next().is_none()
    }

    fn own(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members().filter(|member| !member.is_remote())
    }

    /// Shows nothing of its workers in the metrics any more.
    pub fn take_down(&self) {
        for member in self.members() {
            member.handle().take_down();
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

    /// Whether a load that has failed leaves nobody to wait for: none serves, and no other is on its way, or will be as
    /// soon as it is wanted. Where one has found no room beside pinned models, those that sleep need not try: they are as
    /// large.
    pub fn is_hopeless(&self) -> bool {
        let is_crowded_out = self.members().any(|member| member.handle().is_crowded_out());
        let is_on_its_way = |member: &Arc<Member>| match member.handle().state() {
            (State::Starting | State::Loading | State::Ready, _) => true,
            (_, asleep) => asleep && !is_crowded_out,
        };
        let others = self.members.len() > 1 && self.members().any(is_on_its_way);
        self.open(Instant::now(), &[]).next().is_none() && !others
    }

    /// The state that is shown of it: that of the worker which is nearest to serving.
    pub fn state(&self) -> State {
        nearest(self.members().map(|member| member.handle().state().0))
    }

    /// Those that can serve now. Where remote ones come first, the others are among them only if no remote one can serve
    /// that has not failed before.
    fn open<'a>(&'a self, now: Instant, avoid: &[u32]) -> impl Iterator<Item = Open<'a>> + use<'a> {
        self.eligible(now, avoid).filter(move |(_, member)| member.is_open(now))
    }

    /// Those that may serve, or be started for whoever waits.
    fn eligible<'a>(&'a self, now: Instant, avoid: &[u32]) -> impl Iterator<Item = Open<'a>> + use<'a> {
        let is_eligible = self.eligibility(now, avoid);
        self.members.iter().enumerate().filter(move |(_, member)| is_eligible(member))
    }

    /// Which may: only remote ones where these come first and one can serve that has not failed before.
    fn eligibility(&self, now: Instant, avoid: &[u32]) -> impl Fn(&Member) -> bool + use<> {
        let is_open_remote =
            |member: &Arc<Member>| member.is_remote() && !avoid.contains(&member.number) && member.is_open(now);
        let only_remote = self.is_mixed && self.terms.load().remote_first && self.members().any(is_open_remote);
        move |member| !only_remote || member.is_remote()
    }

    /// The most hopeful of the reasons why its workers cannot serve.
    fn why_not(&self, now: Instant) -> Unavailable {
        self.members().map(|member| why_not(member, now)).min().unwrap_or(Unavailable::Absent)
    }

    /// In how long a worker that is left alone for now may be sent requests again.
    pub fn opens_in(&self) -> Option<Duration> {
        self.members().filter_map(|member| member.opens_in()).min()
    }

    /// What its workers have done, for `/lb/stats`.
    pub fn stats(&self) -> Vec<Snapshot> {
        self.members().map(|member| member.snapshot()).collect()
    }

    /// What is shown of it, and the sum of that if there is a worker. Each worker is looked at once, so that the two
    /// agree.
    pub(super) fn report(&self) -> (Option<Overall>, ModelStatus) {
        let seen: Vec<Status> = self.members().map(|member| member.handle().status()).collect();
        let sum = seen.iter().map(|status| Overall::of((status.state, status.asleep))).min();
        let status = ModelStatus {
            id: self.id.clone(),
            state: nearest(seen.iter().map(|status| status.state)),
            restarts: seen.iter().map(|status| status.restarts).sum(),
            last_exit: seen.into_iter().find_map(|status| status.last_exit),
        };
        (sum, status)
    }
}

impl Drop for Want {
    fn drop(&mut self) {
        self.wanting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The state that is nearest to serving, of workers in these states.
fn nearest(states: impl Iterator<Item = State>) -> State {
    states.min_by_key(|state| distance(*state)).unwrap_or(State::Stopped)
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

/// A worker that can serve, and its place among those of its model.
type Open<'a> = (usize, &'a Arc<Member>);

/// Why no request may be sent to this worker now.
fn why_not(member: &Member, now: Instant) -> Unavailable {
    let by_its_owner = why_not_of(member);
    match by_its_owner {
        Unavailable::Doubted if member.is_spent(now) => Unavailable::Spent,
        Unavailable::Doubted if member.rests(now) => Unavailable::Resting,
        other => other,
    }
}

/// The same, as far as its owner knows.
fn why_not_of(member: &Member) -> Unavailable {
    match member.handle().state() {
        (State::Failed, _) => Unavailable::Failed,
        (_, true) => Unavailable::Asleep,
        // It has broken a connection, or is just being put to sleep or found dead.
        (State::Ready, _) => Unavailable::Doubted,
        (State::Stopped | State::Starting | State::Loading | State::Backoff, _) => Unavailable::Loading,
        (State::Unhealthy | State::Draining, _) => Unavailable::Down,
    }
}

#[cfg(test)]
mod tests;
