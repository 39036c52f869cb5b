//! Which of a model's workers gets a request, and why none does.

use super::Model;
use super::unavailable::Unavailable;
use crate::fleet::choice::Candidate;
use crate::fleet::lease::Lease;
use crate::fleet::member::Member;
use crate::pause_clock::ActiveInstant;
use crate::worker::{NotAccepted, RequestClass, WorkerState};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::futures::Notified;

/// What a request wants of a model.
#[derive(Debug, Clone, Copy)]
pub struct LeaseRequest<'a> {
    /// What is to be done.
    pub class: RequestClass,
    /// Hashes of the key and of longer and longer beginnings of the prompt.
    pub affinity: &'a [u64],
    /// Numbers of the workers that have failed at it before.
    pub avoid: &'a [u32],
}

/// What the choice of a worker depends on beside the request.
#[derive(Debug, Clone, Copy)]
struct Choosing {
    /// Whether the request takes a slot of the worker.
    takes_slot: bool,
    /// Whether every worker left has failed at the request before, so that a remote one may get it again.
    may_go_back: bool,
}

/// A worker that can serve, and its place among those of its model.
type OpenMember<'a> = (usize, &'a Arc<Member>);

impl From<RequestClass> for LeaseRequest<'static> {
    fn from(errand: RequestClass) -> Self {
        Self { class: errand, affinity: &[], avoid: &[] }
    }
}

impl Model {
    /// How many requests may hold slots, those included that hold one at a worker which is sent nothing now: none when
    /// nobody can serve. One more may come exactly when a worker that can serve has a free slot.
    pub fn slots(&self) -> usize {
        let now = ActiveInstant::now();
        let is_eligible = self.eligibility(now, &[]);
        let (mut slots, mut is_any_open) = (0_usize, false);
        for member in self.members() {
            let (taken, is_open) = (member.slots_in_use(), is_eligible(member) && member.is_open(now));
            is_any_open |= is_open;
            slots = slots.saturating_add(if is_open { member.slots(now).max(taken) } else { taken });
        }
        if is_any_open { slots } else { 0 }
    }

    /// A lease on a worker that can serve.
    pub fn lease(&self, wish: &LeaseRequest<'_>) -> Result<Lease, Unavailable> {
        let takes_slot = match wish.class {
            RequestClass::Inference(Some(fingerprint)) if self.is_blocked(fingerprint) => {
                return Err(Unavailable::Blocked);
            }
            RequestClass::Inference(fingerprint) => fingerprint.is_some(),
            RequestClass::ReadOnly => false,
        };
        let now = ActiveInstant::now();
        let mut open: Vec<OpenMember<'_>> = self.open(now, wish.avoid).collect();
        let is_avoided = |(_, member): &OpenMember<'_>| wish.avoid.contains(&member.number);
        // Also where the others are taken in this very moment, and so leave the list.
        let may_go_back = open.iter().all(is_avoided);
        let mut reasons = None;
        while let Some(at) = self.choose(&open, wish, Choosing { takes_slot, may_go_back }, now) {
            let (index, member) = open.swap_remove(at);
            match self.begin(member, wish.class, takes_slot, now) {
                Ok(lease) => {
                    self.choice.remember_served_by(wish.affinity, index);
                    return Ok(lease);
                }
                Err(reason) => reasons = Unavailable::most_hopeful(reasons.into_iter().chain([reason])),
            }
        }
        match open.is_empty() {
            true => Err(reasons.unwrap_or_else(|| self.why_not(now))),
            // Whoever is suspected, or has failed elsewhere, waits for something else than any slot.
            false => {
                let is_left = |of: &OpenMember<'_>| is_avoided(of) && of.1.candidate(of.0, now).has_free_slot();
                let full = if open.iter().any(is_left) { Unavailable::OnlyTriedBefore } else { Unavailable::Busy };
                Err(Unavailable::most_hopeful(reasons.into_iter().chain([full])).unwrap_or(full))
            }
        }
    }

    /// Begins a request at this worker.
    fn begin(
        &self,
        member: &Arc<Member>,
        errand: RequestClass,
        takes_slot: bool,
        now: ActiveInstant,
    ) -> Result<Lease, Unavailable> {
        let endpoint = member.handle().endpoint().ok_or_else(|| why_not(member, now))?;
        let slot = match takes_slot {
            true => Some(member.take_slot(now, &self.slot_freed).ok_or(Unavailable::Busy)?),
            false => None,
        };
        let in_flight = endpoint.begin(errand).map_err(|reason| match reason {
            NotAccepted::Closed => why_not(member, now),
            NotAccepted::Suspected => Unavailable::Suspected,
        })?;
        let pass = member.take_pass(now).ok_or_else(|| why_not(member, now))?;
        Ok(Lease::new(in_flight, member, slot, pass))
    }

    /// The place in this list of the worker that is to serve: one that has not failed at it before, if there is one with
    /// a free slot. To a remote one that has it goes back only where no other can serve; one of its own has been looked
    /// after meanwhile. Whoever takes no slot waits for none.
    fn choose(
        &self,
        open: &[OpenMember<'_>],
        wish: &LeaseRequest<'_>,
        choosing: Choosing,
        now: ActiveInstant,
    ) -> Option<usize> {
        let Choosing { takes_slot, may_go_back } = choosing;
        if let ([_], false) = (open, takes_slot) {
            return Some(0);
        }
        let candidate = |(index, member): &OpenMember<'_>| {
            let candidate = member.candidate(*index, now);
            if takes_slot { candidate } else { Candidate { slots: usize::MAX, ..candidate } }
        };
        let strategy = self.policy.load().strategy;
        let pick = |may_serve: &dyn Fn(&Member) -> bool| {
            let fit = open.iter().filter(|(_, member)| may_serve(member));
            self.choice.pick(strategy, &fit.map(candidate).collect::<Vec<_>>(), wish.affinity)
        };
        let is_new = |member: &Member| !wish.avoid.contains(&member.number);
        let index = match wish.avoid {
            [] => pick(&|_| true),
            _ => pick(&is_new).or_else(|| pick(&|member| may_go_back || is_new(member) || !member.is_remote())),
        }?;
        open.iter().position(|(other, _)| *other == index)
    }

    /// Waits until a slot is given back, from when the future is enabled.
    pub fn slot_freed(&self) -> Notified<'_> {
        self.slot_freed.notified()
    }

    /// Whether a lease would be granted now, without taking one.
    pub fn available(&self) -> Result<(), Unavailable> {
        let now = ActiveInstant::now();
        if self.open(now, &[]).next().is_none() { Err(self.why_not(now)) } else { Ok(()) }
    }

    /// Whether another worker than these can serve now, or is woken or being loaded for whoever waits because none can.
    pub fn has_another(&self, than: &[u32]) -> bool {
        let now = ActiveInstant::now();
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

    /// In how long a worker that is left alone for now may be sent requests again.
    pub fn available_in(&self) -> Option<Duration> {
        self.members().filter_map(|member| member.available_in()).min()
    }

    /// Those that can serve now. Where remote ones come first, the others are among them only if no remote one can serve
    /// that has not failed before.
    pub(super) fn open<'a>(
        &'a self,
        now: ActiveInstant,
        avoid: &[u32],
    ) -> impl Iterator<Item = OpenMember<'a>> + use<'a> {
        self.eligible(now, avoid).filter(move |(_, member)| member.is_open(now))
    }

    /// Those that may serve, or be started for whoever waits.
    pub(super) fn eligible<'a>(
        &'a self,
        now: ActiveInstant,
        avoid: &[u32],
    ) -> impl Iterator<Item = OpenMember<'a>> + use<'a> {
        let is_eligible = self.eligibility(now, avoid);
        self.members.iter().enumerate().filter(move |(_, member)| is_eligible(member))
    }

    /// Which may: only remote ones where these come first and one can serve that has not failed before.
    fn eligibility(&self, now: ActiveInstant, avoid: &[u32]) -> impl Fn(&Member) -> bool + use<> {
        let is_open_remote =
            |member: &Arc<Member>| member.is_remote() && !avoid.contains(&member.number) && member.is_open(now);
        let only_remote = self.is_mixed && self.policy.load().remote_first && self.members().any(is_open_remote);
        move |member| !only_remote || member.is_remote()
    }

    /// The most hopeful of the reasons why its workers cannot serve.
    fn why_not(&self, now: ActiveInstant) -> Unavailable {
        let reasons = self.members().map(|member| why_not(member, now));
        Unavailable::most_hopeful(reasons).unwrap_or(Unavailable::Absent)
    }
}

/// Why no request may be sent to this worker now.
fn why_not(member: &Member, now: ActiveInstant) -> Unavailable {
    let by_its_owner = why_not_of(member);
    match by_its_owner {
        Unavailable::BeingProbed if member.is_quota_exhausted(now) => Unavailable::QuotaExhausted,
        Unavailable::BeingProbed if member.is_breaker_open(now) => Unavailable::BreakerOpen,
        other => other,
    }
}

/// The same, as far as its owner knows.
fn why_not_of(member: &Member) -> Unavailable {
    let worker = member.handle().state();
    match worker.state {
        WorkerState::Failed => Unavailable::Failed,
        _ if worker.is_asleep => Unavailable::Asleep,
        // It has broken a connection, or is just being put to sleep or found dead.
        WorkerState::Ready => Unavailable::BeingProbed,
        WorkerState::Stopped | WorkerState::Starting | WorkerState::Loading | WorkerState::Backoff => {
            Unavailable::Loading
        }
        WorkerState::Unhealthy | WorkerState::Draining => Unavailable::Down,
    }
}
