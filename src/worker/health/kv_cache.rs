//! How much of its KV cache a llama-server uses for requests in progress, by its `GET /slots`.
//!
//! It is asked only while requests are in flight. Prompts that are kept for later requests do not count, because they give
//! way to any request that needs the room.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::Deserialize;

/// The share of a llama-server's KV cache that requests in progress use, as it was last seen.
#[derive(Debug, Default)]
pub(crate) struct KvCacheGauge {
    /// The bits of the share, from 0 to 1; of no number if the server does not tell it. Relaxed is enough for both fields: they
    /// guard no other data.
    share: AtomicU64,
    /// Whether the server of this load was asked.
    is_asked: AtomicBool,
}

/// What a llama-server says of its KV cache.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum KvCacheUse {
    /// The share that requests in progress use, from 0 to 1.
    Share(f64),
    /// It does not tell: it has no such route, or leaves out what is needed.
    Untold,
}

impl KvCacheGauge {
    /// Sets what the server has said.
    pub(crate) fn set(&self, usage: KvCacheUse) {
        let share = match usage {
            KvCacheUse::Share(share) => share,
            KvCacheUse::Untold => f64::NAN,
        };
        self.share.store(share.to_bits(), Ordering::Relaxed);
        self.is_asked.store(true, Ordering::Relaxed);
    }

    /// Notes that no request is in progress. Returns whether the server has to be asked nevertheless, which tells once after
    /// each load whether it tells its share at all.
    pub(crate) fn set_idle(&self) -> bool {
        if self.get().is_some() {
            self.share.store(0, Ordering::Relaxed);
        }
        !self.is_asked.load(Ordering::Relaxed)
    }

    /// Notes that a load has ended: nothing is used, and the server was not asked yet.
    pub(crate) fn reset(&self) {
        self.share.store(0, Ordering::Relaxed);
        self.is_asked.store(false, Ordering::Relaxed);
    }

    /// Returns the share, from 0 to 1; `None` if the server does not tell it. A scheduler would take 0 for a free server.
    pub(crate) fn get(&self) -> Option<f64> {
        let share = f64::from_bits(self.share.load(Ordering::Relaxed));
        (!share.is_nan()).then_some(share)
    }
}

/// One slot, as llama-server describes it.
#[derive(Deserialize)]
struct SlotState {
    #[serde(default)]
    n_ctx: u64,
    #[serde(default)]
    is_processing: bool,
    /// Tokens of the prompt and of the answer so far; `None` of a slot without a request, and of an older llama-server.
    n_prompt_tokens: Option<u64>,
}

/// Reads the answer to `GET /slots` of a llama-server with room for `context` tokens in all slots together.
pub(crate) fn usage_of(slots: &[u8], context: u64) -> KvCacheUse {
    let share = || {
        let slots: Vec<SlotState> = serde_json::from_slice(slots).ok()?;
        let busy = slots.iter().filter(|slot| slot.is_processing);
        let used: u64 = busy.map(|slot| slot.n_prompt_tokens).sum::<Option<u64>>()?;
        // A model may have less context than was asked for. With `--kv-unified` each slot reports the room of all.
        let room = slots.iter().map(|slot| slot.n_ctx).sum::<u64>().min(context);
        (room > 0).then(|| (used as f64 / room as f64).min(1.0))
    };
    share().map_or(KvCacheUse::Untold, KvCacheUse::Share)
}

#[cfg(test)]
mod tests {
    use super::KvCacheUse::{Share, Untold};
    use super::*;

    #[test]
    fn the_slots_of_a_real_llama_server_are_read() {
        let slots = br#"[
            {"id":0,"n_ctx":2048,"speculative":false,"is_processing":true,"id_task":0,"n_prompt_tokens":512,
             "n_prompt_tokens_processed":12,"params":{"seed":4294967295},"next_token":[{"n_decoded":9}]},
            {"id":1,"n_ctx":2048,"speculative":false,"is_processing":false,"id_task":7,"n_prompt_tokens":2000},
            {"id":2,"n_ctx":2048,"speculative":false,"is_processing":false}]"#;
        assert_eq!(usage_of(slots, 6144), Share(512.0 / 6144.0));
        assert_eq!(usage_of(slots, 1 << 20), Share(512.0 / 6144.0), "the model has less context");
        assert_eq!(usage_of(slots, 2048), Share(0.25), "the slots share their room");
        assert_eq!(usage_of(slots, 256), Share(1.0));
    }

    #[test]
    fn other_answers_have_no_share() {
        for answer in ["", "[]", "{}", r#"{"error": {"code": 501}}"#, r#"[{"id": 0, "is_processing": true}]"#, "[1]"] {
            assert_eq!(usage_of(answer.as_bytes(), 4096), Untold, "{answer}");
        }
        assert_eq!(usage_of(br#"[{"id": 0, "n_ctx": 64, "is_processing": true}]"#, 64), Untold, "an older one");
        assert_eq!(usage_of(br#"[{"id": 0, "n_ctx": 64, "is_processing": false}]"#, 64), Share(0.0));
    }

    #[test]
    fn a_gauge_has_no_share_of_a_server_that_does_not_tell_it_until_the_next_load() {
        let gauge = KvCacheGauge::default();
        assert_eq!((gauge.get(), gauge.set_idle()), (Some(0.0), true), "it was not asked yet");
        gauge.set(Share(0.75));
        assert_eq!(gauge.get(), Some(0.75));
        assert_eq!((gauge.set_idle(), gauge.get()), (false, Some(0.0)));
        gauge.set(Untold);
        assert_eq!((gauge.set_idle(), gauge.get()), (false, None), "also while it has no request");
        gauge.reset();
        assert_eq!((gauge.get(), gauge.set_idle()), (Some(0.0), true));
    }
}
