//! What a request is charged when its record closes: the limits and budgets of its key, the quota of its worker, and the
//! ledger.

use std::sync::{Arc, PoisonError};

use super::record::{CLIENT_LEFT, NamedAct, RecordData};
use super::usage::TokenCounts;
use crate::amount::Amount;
use crate::gateway::admission::budget::account::Use;
use crate::gateway::admission::budget::reservation::BudgetReservation;
use crate::gateway::bounds::BYTES_PER_TOKEN;
use crate::ledger::{AdminAct, UsageEvent};

impl RecordData {
    /// Counts the tokens of the request and charges what it has spent to its key and its worker.
    pub(super) fn charge_tokens(&self, tokens: TokenCounts, spent: u64) {
        let Some(model) = &self.model else { return };
        let metrics = &self.accounting.metrics;
        metrics.count_tokens(model, self.key.as_deref(), tokens.prompt, tokens.completion);
        metrics.count_drafted(model, tokens.drafted, tokens.accepted);
        if self.last_text_at.is_none() {
            // Those of a stream are counted as they come.
            model.count_whole(tokens.completion);
        }
        if let Some(meter) = self.meter.as_ref().filter(|_| spent > 0) {
            meter.charge_tokens(spent);
        }
        // For the quota of a remote worker.
        if let Some(worker) = &self.worker {
            worker.spend(spent);
        }
    }

    /// Returns the tokens to charge. What another server has not reported is estimated by the length of the text, because
    /// the request was not free.
    pub(super) fn spent_tokens(&self, tokens: TokenCounts) -> u64 {
        if let (Some(calls), false) = (&self.calls, self.is_call) {
            return calls.lock().unwrap_or_else(PoisonError::into_inner).spent;
        }
        let (mut prompt, mut completion) = (tokens.prompt.unwrap_or(0), tokens.completion.unwrap_or(0));
        if let Some(counter) = self.token_counter.as_deref().filter(|_| self.is_foreign) {
            if tokens.prompt.is_none() {
                prompt = self.bytes_in / BYTES_PER_TOKEN;
            }
            if self.is_generated && !counter.is_reported() {
                let text = if counter.is_stream() { self.streamed_text } else { self.bytes_out };
                completion = completion.max(text / BYTES_PER_TOKEN);
            }
        }
        prompt.saturating_add(completion)
    }

    /// Replaces what was reserved of the budgets by what the request has used, and records that in the ledger, if the
    /// request was for a worker or was refused on its way to one.
    pub(super) fn record_usage(&mut self, tokens: TokenCounts, spent: u64, status: u16) {
        // A refusal within a stream that has begun has the status of the stream.
        let refused = self.code.filter(|code| status >= 400 || *code != CLIENT_LEFT && self.slots.time.is_zero());
        let charged = Use {
            requests: refused.is_none().into(),
            tokens: spent.saturating_add(self.unreported_prompt(tokens)),
            cost: Amount::from_nanos(self.slots.cost_nanos),
        };
        let reservation = self.reservation.take();
        let is_budgeted = reservation.is_some();
        if let Some(reservation) = reservation {
            if let Some(prompt) = tokens.prompt.filter(|prompt| *prompt > 0) {
                reservation.learn(self.bytes_in, prompt);
            }
            reservation.settle(charged);
        }
        let ledger = &self.accounting.ledger;
        if !ledger.is_on() || !self.is_for_worker || self.model.is_none() && refused.is_none() {
            return;
        }
        ledger.record(UsageEvent {
            time: self.time,
            key: self.key.as_ref().map(|key| Arc::clone(&key.id)),
            person: self.person.take(),
            model: self.model.as_ref().map(|model| model.id.shared()),
            refused,
            prompt_tokens: tokens.prompt.unwrap_or(0),
            cached_tokens: tokens.cached.unwrap_or(0),
            completion_tokens: tokens.completion.unwrap_or(0),
            is_budgeted,
            charged_tokens: charged.tokens,
            slot_time: self.slots.time,
            first_byte: self.first_byte.filter(|_| refused.is_none()),
            cost_nanos: self.slots.cost_nanos,
            machine_cost_nanos: self.slots.machine_cost_nanos,
        });
    }

    /// Returns the tokens of a prompt that a worker has read, by estimate, if the client left before they were reported.
    fn unreported_prompt(&self, tokens: TokenCounts) -> u64 {
        let has_left = self.code == Some(CLIENT_LEFT) && !self.slots.time.is_zero() && tokens.prompt.is_none();
        self.reservation.as_ref().filter(|_| has_left).map_or(0, BudgetReservation::prompt)
    }

    /// Records in the ledger what an administrator has done, or could not do.
    pub(super) fn record_act(&mut self, status: u16) {
        let Some(act) = self.act.take() else { return };
        let NamedAct { route, target } = *act;
        let act = AdminAct {
            time: self.time,
            key: self.key.as_deref().map(|key| key.id.to_string()),
            address: self.client,
            act: format!("{} {}", route.method.as_str(), route.path),
            target,
            status,
            outcome: self.code.unwrap_or("ok").to_owned(),
        };
        self.accounting.acts.add(&act);
        self.accounting.ledger.record_act(act);
    }
}
