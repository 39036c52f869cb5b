//! Leases: which of a model's workers gets a request, or why none can.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::futures::Notified;

use super::Model;
use super::unavailable::Unavailable;
use crate::fleet::choice::Candidate;
use crate::fleet::lease::Lease;
use crate::fleet::member::Member;
use crate::pause_clock::ActiveInstant;
use crate::worker::{NotAccepted, RequestClass, WorkerState};

/// The needs of a request: its class, its key, its prompt, and the workers to avoid.
#[derive(Debug, Clone, Copy)]
pub struct LeaseRequest<'a> {
    /// The class of the request.
    pub class: RequestClass,
    /// The id of the API key that it was sent with.
    pub key: Option<&'a Arc<str>>,
    /// Hashes of the key together with prefixes of the prompt, the longest last.
    pub affinity: &'a [u64],
    /// Numbers of the workers that already failed to serve the request.
    pub avoid: &'a [u32],
    /// Numbers of the workers that cannot serve the request, because their API has nothing for it.
    pub unfit: &'a [u32],
}

/// Properties of a request that the choice of a worker depends on.
#[derive(Debug, Clone, Copy)]
struct ChoiceContext {
    /// Whether the request takes a slot of the worker.
    takes_slot: bool,
    /// Whether every remaining worker already failed to serve the request, so that a remote worker may get it again.
    may_retry: bool,
}

/// A worker and its index among those of its model.
type OpenMember<'a> = (usize, &'a Arc<Member>);

impl From<RequestClass> for LeaseRequest<'static> {
    fn from(class: RequestClass) -> Self {
        Self { class, key: None, affinity: &[], avoid: &[], unfit: &[] }
    }
}

impl Model {
    /// Returns how many requests may hold slots, including those on workers that get no new requests now; 0 if no
    /// worker can serve. One more request may start exactly if a worker that can serve has a free slot.
    pub fn slots(&self) -> usize {
        let now = self.now();
        let is_eligible = self.eligibility(now, &[]);
        let (mut slots, mut is_any_open) = (0_usize, false);
        for member in self.members() {
            let (in_use, is_open) = (member.slots_in_use(), is_eligible(member) && member.is_open(now));
            is_any_open |= is_open;
            slots = slots.saturating_add(if is_open { member.slots(now).max(in_use) } else { in_use });
        }
        if is_any_open { slots } else { 0 }
    }

    /// Leases a worker that can serve.
    ///
    /// # Errors
    ///
    /// Returns the most hopeful reason if no worker can serve the request now.
    pub fn lease(&self, request: &LeaseRequest<'_>) -> Result<Lease, Unavailable> {
        let takes_slot = match request.class {
            RequestClass::Inference(Some(fingerprint)) if self.is_blocked(fingerprint) => {
                return Err(Unavailable::Blocked);
            }
            RequestClass::Inference(fingerprint) => fingerprint.is_some(),
            RequestClass::ReadOnly => false,
        };
        let now = self.now();
        if let Some(lease) = self.lease_only_worker(request, takes_slot, now) {
            return Ok(lease);
        }
        let is_fit = |(_, member): &OpenMember<'_>| !request.unfit.contains(&member.number);
        let mut open: Vec<OpenMember<'_>> =
            self.open(now, &[request.avoid, request.unfit].concat()).filter(is_fit).collect();
        let is_avoided = |(_, member): &OpenMember<'_>| request.avoid.contains(&member.number);
        // Computed before the loop, because workers that turn out to be taken are removed from the list.
        let may_retry = open.iter().all(is_avoided);
        let mut reasons = None;
        while let Some(at) = self.choose(&open, request, ChoiceContext { takes_slot, may_retry }, now) {
            let (index, member) = open.swap_remove(at);
            match self.start_request(member, request, takes_slot, now) {
                Ok(lease) => {
                    self.choice.remember_served_by(request.affinity, index);
                    return Ok(lease);
                }
                Err(reason) => reasons = Unavailable::most_hopeful(reasons.into_iter().chain([reason])),
            }
        }
        let reason = match open.is_empty() {
            true => reasons.unwrap_or_else(|| self.unavailable_reason(now, request.unfit)),
            // Open workers are left, but none was chosen. If one has a free slot, the request was kept away from it,
            // because it already failed there; freeing any other slot would not help.
            false => {
                let is_avoided_with_free_slot =
                    |worker: &OpenMember<'_>| is_avoided(worker) && worker.1.candidate(worker.0, now).has_free_slot();
                let reason = if open.iter().any(is_avoided_with_free_slot) {
                    Unavailable::OnlyTriedBefore
                } else {
                    Unavailable::Busy
                };
                Unavailable::most_hopeful(reasons.into_iter().chain([reason])).unwrap_or(reason)
            }
        };
        Err(match reason {
            // The model may have free slots, but not at the workers that this request has to wait for: back in the queue,
            // it would be granted one of them again at once.
            Unavailable::Busy
            | Unavailable::Asleep
            | Unavailable::Loading
            | Unavailable::BeingProbed
            | Unavailable::QuotaExhausted
                if takes_slot && !request.unfit.is_empty() =>
            {
                Unavailable::OnlyTriedBefore
            }
            reason => reason,
        })
    }

    /// Leases the worker of a model that has only one, as most have. Without a lease, [`Model::lease`] finds out why.
    fn lease_only_worker(&self, request: &LeaseRequest<'_>, takes_slot: bool, now: ActiveInstant) -> Option<Lease> {
        let [member] = self.members.as_slice() else { return None };
        // A local worker is looked at once, as the request starts: it has no breaker and no quota, which are asked last.
        let is_closed = member.is_remote() && !member.is_open(now);
        if !request.avoid.is_empty() || !request.unfit.is_empty() || is_closed {
            return None;
        }
        let lease = self.start_request(member, request, takes_slot, now).ok()?;
        self.choice.remember_served_by(request.affinity, 0);
        Some(lease)
    }

    /// Starts a request at this worker.
    ///
    /// # Errors
    ///
    /// Returns why the worker cannot serve it after all: its state may have changed since it was chosen.
    fn start_request(
        &self,
        member: &Arc<Member>,
        request: &LeaseRequest<'_>,
        takes_slot: bool,
        now: ActiveInstant,
    ) -> Result<Lease, Unavailable> {
        let endpoint = member.handle().endpoint().ok_or_else(|| self.reason_of(member, now))?;
        let slot = match takes_slot {
            true => Some(member.take_slot(now, &self.slot_freed).ok_or(Unavailable::Busy)?),
            false => None,
        };
        let in_flight = endpoint.begin(request.class, request.key).map_err(|reason| match reason {
            NotAccepted::Closed => self.reason_of(member, now),
            NotAccepted::Suspected => Unavailable::Suspected,
        })?;
        // Last: slot and in-flight guard are undone when they are dropped, but a request that was taken from the quota
        // is not.
        let pass = member.take_pass(now).ok_or_else(|| self.reason_of(member, now))?;
        Ok(Lease::new(in_flight, member, slot, pass))
    }

    /// Returns the position in `open` of the worker to use: a worker that has not failed to serve the request, if one
    /// has a free slot. A remote worker that failed gets the request again only if no other worker can serve it; a
    /// local one may, because it is probed or restarted after a failure. A request without a slot does not wait for
    /// one.
    fn choose(
        &self,
        open: &[OpenMember<'_>],
        request: &LeaseRequest<'_>,
        context: ChoiceContext,
        now: ActiveInstant,
    ) -> Option<usize> {
        let ChoiceContext { takes_slot, may_retry } = context;
        // The common case of one worker needs no strategy.
        if let ([_], false) = (open, takes_slot) {
            return Some(0);
        }
        let candidate = |(index, member): &OpenMember<'_>| {
            let candidate = member.candidate(*index, now);
            if takes_slot { candidate } else { Candidate { slots: usize::MAX, ..candidate } }
        };
        let strategy = self.policy.load().strategy;
        let pick = |may_serve: &dyn Fn(&Member) -> bool| {
            let fitting = open.iter().filter(|(_, member)| may_serve(member));
            self.choice.pick(strategy, &fitting.map(candidate).collect::<Vec<_>>(), request.affinity)
        };
        let is_new = |member: &Member| !request.avoid.contains(&member.number);
        let index = match request.avoid {
            [] => pick(&|_| true),
            _ => pick(&is_new).or_else(|| pick(&|member| may_retry || is_new(member) || !member.is_remote())),
        }?;
        open.iter().position(|(other, _)| *other == index)
    }

    /// Waits until a slot is released, from the moment the future is enabled.
    pub fn slot_freed(&self) -> Notified<'_> {
        self.slot_freed.notified()
    }

    /// Checks whether a worker can serve, without leasing it.
    ///
    /// # Errors
    ///
    /// Returns the most hopeful reason if none can.
    pub fn available(&self) -> Result<(), Unavailable> {
        let now = self.now();
        if self.open(now, &[]).next().is_none() { Err(self.unavailable_reason(now, &[])) } else { Ok(()) }
    }

    /// Whether a worker other than these can serve now, or, if no worker can, is being woken or loaded.
    pub fn has_another(&self, excluded: &[u32]) -> bool {
        let now = self.now();
        let is_other = |member: &Member| !excluded.contains(&member.number);
        let is_starting = |member: &Arc<Member>| {
            let reason = reason_of_owner(member);
            is_other(member) && matches!(reason, Unavailable::Asleep | Unavailable::Loading)
        };
        let mut open = self.open(now, excluded).peekable();
        match open.peek() {
            Some(_) => open.any(|(_, member)| is_other(member)),
            None => self.members().any(is_starting),
        }
    }

    /// Returns the time until a remote worker whose breaker is open, or whose quota is exhausted, may get requests
    /// again.
    pub fn available_in(&self) -> Option<Duration> {
        self.members().filter_map(|member| member.available_in()).min()
    }

    /// Returns the workers that can serve now. With `remote_first`, local workers are included only if no remote worker
    /// can serve that has not already failed.
    pub(super) fn open<'a>(
        &'a self,
        now: ActiveInstant,
        avoid: &[u32],
    ) -> impl Iterator<Item = OpenMember<'a>> + use<'a> {
        self.eligible(now, avoid).filter(move |(_, member)| member.is_open(now))
    }

    /// Returns the workers that may serve, or may be woken to serve, under the routing policy.
    pub(super) fn eligible<'a>(
        &'a self,
        now: ActiveInstant,
        avoid: &[u32],
    ) -> impl Iterator<Item = OpenMember<'a>> + use<'a> {
        let is_eligible = self.eligibility(now, avoid);
        self.members.iter().enumerate().filter(move |(_, member)| is_eligible(member))
    }

    /// Returns the predicate for [`Model::eligible`]: with `remote_first`, only remote workers while one can serve that
    /// has not already failed.
    fn eligibility(&self, now: ActiveInstant, avoid: &[u32]) -> impl Fn(&Member) -> bool + use<> {
        let is_open_remote =
            |member: &Arc<Member>| member.is_remote() && !avoid.contains(&member.number) && member.is_open(now);
        let only_remote = self.is_mixed && self.policy.load().remote_first && self.members().any(is_open_remote);
        move |member| !only_remote || member.is_remote()
    }

    /// Returns the time for breakers and quotas, which only remote workers have. Most requests ask several times, so the
    /// clock is not read where nothing depends on it. Where it is, it is read each time: a request that finds its worker
    /// closed by an older reading would not be woken when it opens.
    fn now(&self) -> ActiveInstant {
        if self.has_remotes { ActiveInstant::fresh() } else { self.made }
    }

    /// Whether a worker other than these can serve, now or later.
    pub fn has_fit_worker(&self, unfit: &[u32]) -> bool {
        let may_serve = |member: &Arc<Member>| member.handle().state().state != WorkerState::Failed;
        self.members().any(|member| !unfit.contains(&member.number) && may_serve(member))
    }

    /// Returns the most hopeful reason why the workers other than these cannot serve.
    fn unavailable_reason(&self, now: ActiveInstant, unfit: &[u32]) -> Unavailable {
        let fit = self.members().filter(|member| !unfit.contains(&member.number));
        let reasons = fit.map(|member| self.reason_of(member, now));
        Unavailable::most_hopeful(reasons).unwrap_or(Unavailable::Absent)
    }

    /// Returns why no request may be sent to this worker now.
    fn reason_of(&self, member: &Member, now: ActiveInstant) -> Unavailable {
        match unavailable_reason(member, now) {
            // Something else starts it when requests wait.
            Unavailable::Down if member.is_remote() && self.policy.load().waits_for_remotes => Unavailable::Loading,
            reason => reason,
        }
    }
}

/// Returns why this worker gets no request now, according to its supervisor, its breaker and its quota.
fn unavailable_reason(member: &Member, now: ActiveInstant) -> Unavailable {
    let reason = reason_of_owner(member);
    match reason {
        Unavailable::BeingProbed if member.is_quota_exhausted(now) => Unavailable::QuotaExhausted,
        Unavailable::BeingProbed if member.is_breaker_open(now) => Unavailable::BreakerOpen,
        other => other,
    }
}

/// Returns why the worker cannot serve, according to its supervisor alone, without breaker and quota.
fn reason_of_owner(member: &Member) -> Unavailable {
    let worker = member.handle().state();
    match worker.state {
        WorkerState::Failed => Unavailable::Failed,
        _ if worker.is_asleep => Unavailable::Asleep,
        // It broke a connection, or is just being unloaded or found dead.
        WorkerState::Ready => Unavailable::BeingProbed,
        WorkerState::Stopped | WorkerState::Starting | WorkerState::Loading | WorkerState::Backoff => {
            Unavailable::Loading
        }
        WorkerState::Unhealthy | WorkerState::Draining => Unavailable::Down,
    }
}
