//! How much of its KV cache a llama-server uses for requests in progress, by its `GET /slots`.
//!
//! It is asked only while requests are in flight. Prompts that are kept for later requests do not count, because they give
//! way to any request that needs the room.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;

/// The share of a llama-server's KV cache that requests in progress use, as it was last seen.
#[derive(Debug, Default)]
pub(crate) struct KvCacheGauge(AtomicU64);

impl KvCacheGauge {
    /// Sets the share, from 0 to 1.
    pub(crate) fn set(&self, share: f64) {
        // Relaxed is enough: the value guards no other data.
        self.0.store(share.to_bits(), Ordering::Relaxed);
    }

    /// Returns the share, from 0 to 1.
    pub(crate) fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// One slot, as llama-server describes it. Of an older one that does not tell its tokens, nothing counts as used.
#[derive(Deserialize)]
struct SlotState {
    #[serde(default)]
    n_ctx: u64,
    #[serde(default)]
    is_processing: bool,
    /// Tokens of the prompt and of the answer so far.
    #[serde(default)]
    n_prompt_tokens: u64,
}

/// Reads the answer to `GET /slots` of a llama-server with room for `context` tokens in all slots together. Returns the
/// share of that room that requests in progress use, from 0 to 1; `None` if the answer is something else.
pub(crate) fn usage_of(slots: &[u8], context: u64) -> Option<f64> {
    let slots: Vec<SlotState> = serde_json::from_slice(slots).ok()?;
    let used: u64 = slots.iter().filter(|slot| slot.is_processing).map(|slot| slot.n_prompt_tokens).sum();
    // A model may have less context than was asked for. With `--kv-unified` each slot reports the room of all.
    let room = slots.iter().map(|slot| slot.n_ctx).sum::<u64>().min(context);
    (room > 0).then(|| (used as f64 / room as f64).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slots_of_a_real_llama_server_are_read() {
        let slots = br#"[
            {"id":0,"n_ctx":2048,"speculative":false,"is_processing":true,"id_task":0,"n_prompt_tokens":512,
             "n_prompt_tokens_processed":12,"params":{"seed":4294967295},"next_token":[{"n_decoded":9}]},
            {"id":1,"n_ctx":2048,"speculative":false,"is_processing":false,"id_task":7,"n_prompt_tokens":2000},
            {"id":2,"n_ctx":2048,"speculative":false,"is_processing":false}]"#;
        assert_eq!(usage_of(slots, 6144), Some(512.0 / 6144.0));
        assert_eq!(usage_of(slots, 1 << 20), Some(512.0 / 6144.0), "the model has less context");
        assert_eq!(usage_of(slots, 2048), Some(0.25), "the slots share their room");
        assert_eq!(usage_of(slots, 256), Some(1.0));
    }

    #[test]
    fn other_answers_have_no_share() {
        for answer in ["", "[]", "{}", r#"{"error": {"code": 501}}"#, r#"[{"id": 0, "is_processing": true}]"#, "[1]"] {
            assert_eq!(usage_of(answer.as_bytes(), 4096), None, "{answer}");
        }
        assert_eq!(usage_of(br#"[{"id": 0, "n_ctx": 64, "is_processing": true}]"#, 64), Some(0.0), "an older one");
    }

    #[test]
    fn a_gauge_begins_at_nothing() {
        let gauge = KvCacheGauge::default();
        assert_eq!(gauge.get(), 0.0);
        gauge.set(0.75);
        assert_eq!(gauge.get(), 0.75);
    }
}
