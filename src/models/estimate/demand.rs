//! What a model is to be loaded for, and what llama-server's arguments say about its memory: the types of the cache, and how
//! many tokens it computes at once.

use crate::models::quant;

/// Tokens that llama-server computes at once without `--ubatch-size`.
const DEFAULT_BATCH: u64 = 512;
/// The types that `--cache-type-k` and `--cache-type-v` take, with their numbers in ggml.
const CACHE_TYPES: [(&str, u32); 9] = [
    ("f32", 0),
    ("f16", 1),
    ("bf16", 30),
    ("q8_0", 8),
    ("q4_0", 2),
    ("q4_1", 3),
    ("iq4_nl", 20),
    ("q5_0", 6),
    ("q5_1", 7),
];

/// The type of keys or of values in the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheType(u32);

impl CacheType {
    /// f16, which llama-server uses if it is not told otherwise.
    pub const F16: Self = Self(1);

    /// Returns the type with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        CACHE_TYPES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, number)| Self(*number))
    }

    /// Returns the bytes of a row of this many numbers. A row is whole blocks.
    pub(super) fn row_bytes(self, numbers: u64) -> u64 {
        quant::tensor_type(self.0).map_or(0, |kind| numbers.div_ceil(kind.block).saturating_mul(kind.bytes))
    }
}

/// The arguments of llama-server that change how much memory it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryOptions {
    /// `--cache-type-k`
    pub keys: CacheType,
    /// `--cache-type-v`
    pub values: CacheType,
    /// `--ubatch-size`: tokens that are computed at once.
    pub batch: u64,
    /// `--swa-full`: layers with a sliding window keep the whole context.
    pub keeps_whole_window: bool,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self { keys: CacheType::F16, values: CacheType::F16, batch: DEFAULT_BATCH, keeps_whole_window: false }
    }
}

impl MemoryOptions {
    /// Reads the options out of the words of `EXTRA_ARGS`.
    ///
    /// # Errors
    /// The option whose value llama-server does not know.
    pub fn of_arguments(words: &[String]) -> Result<Self, String> {
        let mut options = Self::default();
        for (at, word) in words.iter().enumerate() {
            let value = words.get(at + 1).map(String::as_str).unwrap_or_default();
            let unknown = || format!("{word} {value}");
            match word.as_str() {
                "-ctk" | "--cache-type-k" => options.keys = CacheType::named(value).ok_or_else(unknown)?,
                "-ctv" | "--cache-type-v" => options.values = CacheType::named(value).ok_or_else(unknown)?,
                "-ub" | "--ubatch-size" => options.batch = value.parse().map_err(|_| unknown())?,
                "--swa-full" => options.keeps_whole_window = true,
                _ => {}
            }
        }
        Ok(options)
    }
}

/// What a model is to be loaded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryDemand {
    /// Tokens of context over all slots.
    pub ctx_total: u64,
    /// Number of slots; each has its share of the context.
    pub slots: u64,
    /// What llama-server's arguments say.
    pub options: MemoryOptions,
}

impl MemoryDemand {
    /// Returns the tokens of context of one slot.
    pub(super) fn context_of_slot(&self) -> u64 {
        self.ctx_total / self.slots.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_out_of_arguments() {
        let read = |text: &str| MemoryOptions::of_arguments(&text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let options = read("-fa on -ctk q8_0 --cache-type-v Q4_0 -ub 256 --swa-full").unwrap();
        assert_eq!((options.keys.row_bytes(64), options.values.row_bytes(64)), (68, 36));
        assert_eq!((options.batch, options.keeps_whole_window), (256, true));
        assert_eq!(read("--threads 4"), Ok(MemoryOptions::default()));
        assert_eq!(read("-ctk q9"), Err("-ctk q9".to_owned()));
        assert_eq!(read("-ub many"), Err("-ub many".to_owned()));
    }
}
