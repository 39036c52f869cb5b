//! Scalar values: yes or no, numbers, durations, sizes, words.

use std::fmt;
use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use super::value::{Rejected, Value};
use crate::models::ModelKind;

impl Value for bool {
    fn parse(text: &str) -> Result<Self, Rejected> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err(Rejected::new("true, false, 1, 0, yes, no, on or off")),
        }
    }
}

/// `SERVE_MODELS_DIR`: whether the models below `MODELS_DIR` are served under the names of their files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServeModelsDir {
    /// If no model is named otherwise.
    Auto,
    /// Also beside models that are named.
    Always,
    /// Not at all.
    Never,
}

impl Value for ServeModelsDir {
    fn parse(text: &str) -> Result<Self, Rejected> {
        if text.eq_ignore_ascii_case("auto") {
            return Ok(Self::Auto);
        }
        match bool::parse(text) {
            Ok(true) => Ok(Self::Always),
            Ok(false) => Ok(Self::Never),
            Err(_) => Err(Rejected::new("auto, true or false")),
        }
    }
}

impl Value for String {
    fn parse(text: &str) -> Result<Self, Rejected> {
        Ok(text.to_owned())
    }
}

impl Value for PathBuf {
    fn parse(text: &str) -> Result<Self, Rejected> {
        if text.contains('\0') { Err(Rejected::new("a path without NUL bytes")) } else { Ok(PathBuf::from(text)) }
    }
}

impl Value for IpAddr {
    fn parse(text: &str) -> Result<Self, Rejected> {
        // `[::1]` is accepted too, as URLs write it.
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if bare.eq_ignore_ascii_case("localhost") {
            return Ok(IpAddr::from([127, 0, 0, 1]));
        }
        bare.parse().map_err(|_| {
            Rejected::new("an IP address of this machine")
                .with_hint("0.0.0.0 listens on all IPv4 addresses, :: on IPv6 too")
        })
    }
}

macro_rules! whole_number {
    ($($type:ty, $low:literal, $high:expr;)+) => {$(
        impl Value for $type {
            fn parse(text: &str) -> Result<Self, Rejected> {
                text.parse().map_err(|_| Rejected::new(format!("a whole number from {} to {}", $low, $high)))
            }
        }
    )+};
}

whole_number! {
    u16, 0, u16::MAX;
    u32, 0, u32::MAX;
    usize, 0, usize::MAX;
    NonZeroU32, 1, u32::MAX;
    NonZeroUsize, 1, usize::MAX;
}

/// An empty text means that the setting is unset.
impl<T: Value> Value for Option<T> {
    fn parse(text: &str) -> Result<Self, Rejected> {
        if text.is_empty() { Ok(None) } else { T::parse(text).map(Some) }
    }

    fn masked(text: &str) -> String {
        T::masked(text)
    }
}

/// A limit that `0` switches off; any other text must be a valid value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZeroIsOff<T>(pub Option<T>);

impl<T: Value + PartialEq + Zero> Value for ZeroIsOff<T> {
    fn parse(text: &str) -> Result<Self, Rejected> {
        // Types of their own have no zero.
        if text == "0" {
            return Ok(Self(None));
        }
        let value = T::parse(text).map_err(|mut rejected| {
            rejected.allowed.push_str(", 0 = off");
            rejected
        })?;
        Ok(Self(if value.is_zero() { None } else { Some(value) }))
    }
}

impl ZeroIsOff<Seconds> {
    /// Returns the duration, or `None` if it is switched off.
    pub fn duration(self) -> Option<Duration> {
        self.0.map(|seconds| seconds.0)
    }
}

/// Types with a zero that [`ZeroIsOff`] can read as "off".
pub trait Zero {
    /// Returns whether the value is zero.
    fn is_zero(&self) -> bool;
}

impl Zero for usize {
    fn is_zero(&self) -> bool {
        *self == 0
    }
}

impl Zero for ByteSize {
    fn is_zero(&self) -> bool {
        self.0 == 0
    }
}

impl Zero for Seconds {
    fn is_zero(&self) -> bool {
        self.0.is_zero()
    }
}

/// A duration: `300`, `300s`, `5m`, `2h`, `1d`, `500ms`; a bare number means seconds, fractions are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub Duration);

/// The longest duration of a setting, one leap year: a longer one is surely a typo, and timers must not overflow.
pub const LONGEST_DURATION: Duration = Duration::from_secs(366 * 24 * 3600);

impl Value for Seconds {
    fn parse(text: &str) -> Result<Self, Rejected> {
        let duration = parse_duration(text).filter(|duration| *duration <= LONGEST_DURATION);
        let rejected = || Rejected::new("a duration up to a year such as 300, 300s, 5m, 2h or 500ms");
        duration.map(Self).ok_or_else(rejected)
    }
}

/// Reads a duration of any length.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = match unit.trim() {
        "" | "s" | "sec" => 1.0,
        "ms" => 0.001,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    // Fails for negative numbers, NaN and overflow.
    Duration::try_from_secs_f64(number * scale).ok()
}

/// A size in bytes: `10485760`, `10MiB` or `10M` (binary, as nginx, logrotate and Docker read it), `10MB` (decimal).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub usize);

impl Value for ByteSize {
    fn parse(text: &str) -> Result<Self, Rejected> {
        let rejected = || Rejected::new("a size above 0 such as 10485760, 10MiB or 10MB");
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let scale: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kib" | "ki" | "k" => 1 << 10,
            "mib" | "mi" | "m" => 1 << 20,
            "gib" | "gi" | "g" => 1 << 30,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            _ => return Err(rejected()),
        };
        let bytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(scale)).ok_or_else(rejected)?;
        match usize::try_from(bytes) {
            Ok(bytes) if bytes > 0 => Ok(Self(bytes)),
            _ => Err(rejected()),
        }
    }
}

/// Which answers are kept for the same request of later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheMode {
    /// None.
    Off,
    /// Those that the same request would get again.
    Safe,
    /// Those too that are drawn by chance.
    All,
}

impl Value for CacheMode {
    fn parse(text: &str) -> Result<Self, Rejected> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "off" => Self::Off,
            "safe" => Self::Safe,
            "all" => Self::All,
            _ => return Err(Rejected::new("off, safe or all")),
        })
    }
}

/// The memory that all loaded models together may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryBudgetSetting {
    /// All memory that there is.
    Auto,
    /// This many bytes.
    Bytes(u64),
}

impl Value for MemoryBudgetSetting {
    fn parse(text: &str) -> Result<Self, Rejected> {
        if text.eq_ignore_ascii_case("auto") {
            return Ok(Self::Auto);
        }
        let rejected = |rejected: Rejected| Rejected { allowed: format!("auto, or {}", rejected.allowed), ..rejected };
        ByteSize::parse(text).map(|bytes| Self::Bytes(bytes.0 as u64)).map_err(rejected)
    }
}

impl Value for ModelKind {
    fn parse(text: &str) -> Result<Self, Rejected> {
        [Self::Chat, Self::Embedding, Self::Rerank]
            .into_iter()
            .find(|kind| text.eq_ignore_ascii_case(kind.as_str()))
            .ok_or_else(|| Rejected::new("chat, embedding or rerank"))
    }
}

/// A share of the requests, above 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::settings) struct Weight(pub(in crate::settings) f64);

impl Value for Weight {
    fn parse(text: &str) -> Result<Self, Rejected> {
        match text.parse() {
            Ok(weight) if weight > 0.0 && weight <= 1e6 => Ok(Self(weight)),
            _ => Err(Rejected::new("a number above 0, up to a million").with_hint("the default weight is 1")),
        }
    }
}

/// A text that is never printed or logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The number of layers on the GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GpuLayers {
    /// llama-server puts as many layers on the GPU as its memory takes.
    Auto,
    /// This many layers; a number above that of the model means all.
    Count(u32),
}

impl Value for GpuLayers {
    fn parse(text: &str) -> Result<Self, Rejected> {
        match text.to_ascii_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            // llama-server takes a count above the model's layers as all layers; -1 is what llama-cpp-python has for it.
            "all" | "-1" => Ok(Self::Count(999)),
            number => number
                .parse()
                .map(Self::Count)
                .map_err(|_| Rejected::new("a whole number from 0, auto, or all").with_hint("0 runs on the CPU only")),
        }
    }
}

/// Context length of one slot, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context(pub u32);

impl Value for Context {
    fn parse(text: &str) -> Result<Self, Rejected> {
        // `16k` as guides and llama.cpp's model cards write it.
        let (number, scale) = text.strip_suffix(['k', 'K']).map_or((text, 1), |number| (number, 1024));
        match number.parse::<u32>().ok().and_then(|number| number.checked_mul(scale)) {
            Some(tokens) if tokens >= 32 => Ok(Self(tokens)),
            _ => Err(Rejected::new("a number of tokens from 32").with_hint("8192 suits chats, 32768 long documents")),
        }
    }
}

macro_rules! words {
    ($($(#[doc = $doc:literal])+ $type:ident { $($(#[doc = $variant_doc:literal])+ $variant:ident $word:literal $(or $other:literal)*,)+ })+) => {$(
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $type { $($(#[doc = $variant_doc])+ $variant,)+ }

        impl Value for $type {
            fn parse(text: &str) -> Result<Self, Rejected> {
                match text.to_ascii_lowercase().as_str() {
                    $($word $(| $other)* => Ok(Self::$variant),)+
                    _ => Err(Rejected::new([$($word),+].join(", "))),
                }
            }
        }
    )+};
}

words! {
    /// The format of log lines.
    LogFormat {
        /// One readable line per record.
        Text "text",
        /// One JSON object per line.
        Json "json",
    }
    /// The lowest level of log lines that are written.
    LogLevel {
        /// Only what needs an operator's action.
        Error "error" or "critical" or "fatal",
        /// Also what may need an operator's action.
        Warn "warn" or "warning",
        /// Also what happened.
        Info "info",
        /// Also how it happened.
        Debug "debug",
        /// Everything.
        Trace "trace",
    }
    /// How RunPod sends work to this process.
    RunpodMode {
        /// The process takes jobs from the platform's queue.
        Queue "queue",
        /// Requests arrive over HTTP from the load balancer.
        Http "http",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::values::{ExtraArgs, Origins};
    use proptest::prelude::*;

    #[test]
    fn booleans_take_eight_words_in_any_case_and_nothing_else() {
        for text in ["true", "1", "YES", "On"] {
            assert_eq!(bool::parse(text), Ok(true), "{text}");
        }
        for text in ["false", "0", "No", "OFF"] {
            assert_eq!(bool::parse(text), Ok(false), "{text}");
        }
        for text in ["enabled", "2", "tru", "y", " "] {
            assert!(bool::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_take_bare_seconds_and_units() {
        for (text, millis) in
            [("300", 300_000), ("300s", 300_000), ("5m", 300_000), ("1.5s", 1_500), ("500ms", 500), ("2h", 7_200_000)]
        {
            assert_eq!(Seconds::parse(text).unwrap().0, Duration::from_millis(millis), "{text}");
        }
        for text in ["", "-1", "5 minutes", "1e9d", "400d", "s", "1.2.3s", "NaN"] {
            assert!(Seconds::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_zero_switches_a_limit_off() {
        assert_eq!(ZeroIsOff::<Seconds>::parse("0").unwrap().0, None);
        assert_eq!(ZeroIsOff::<Seconds>::parse("0s").unwrap().0, None);
        assert_eq!(ZeroIsOff::<usize>::parse("7").unwrap().0, Some(7));
        assert!(ZeroIsOff::<Seconds>::parse("off").is_err());
        assert!(ZeroIsOff::<usize>::parse("-1").is_err());
    }

    #[test]
    fn sizes_distinguish_binary_and_decimal_units() {
        assert_eq!(ByteSize::parse("10485760").unwrap().0, 10_485_760);
        assert_eq!(ByteSize::parse("10MiB").unwrap().0, 10_485_760);
        assert_eq!(ByteSize::parse("10MB").unwrap().0, 10_000_000);
        for (text, bytes) in
            [("100k", 102_400), ("10M", 10_485_760), ("1g", 1 << 30), ("2Gi", 2 << 30), ("3 KB", 3_000)]
        {
            assert_eq!(ByteSize::parse(text).unwrap().0, bytes, "{text}");
        }
        for text in ["0", "0M", "10t", "1.5G", "M", "ten", "99999999999999999999", "18446744073709551615GiB"] {
            assert!(ByteSize::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_context_may_be_given_in_units_of_1024_tokens() {
        for (text, tokens) in [("32", 32), ("16384", 16_384), ("16k", 16_384), ("128K", 131_072)] {
            assert_eq!(Context::parse(text).unwrap().0, tokens, "{text}");
        }
        for text in ["31", "0k", "k", "16 k", "16kk", "4194304k", "16m", "-1k"] {
            assert!(Context::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC{0,40}") {
            let _ = (bool::parse(&text), Seconds::parse(&text), ByteSize::parse(&text), Origins::parse(&text));
            let _ = (ExtraArgs::parse(&text), ExtraArgs::masked(&text), GpuLayers::parse(&text), IpAddr::parse(&text));
        }
    }
}
