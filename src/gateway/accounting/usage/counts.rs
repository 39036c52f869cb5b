//! The fields in which an answer tells how many tokens it cost: their names, their places, and what they add up to.
//!
//! OpenAI's and Anthropic's `usage`, llama-server's `timings` and the fields of its `/completion`. How they are found in the
//! bytes is `scan.rs`'s; which of them counts is decided in `mod.rs`.

/// The longest name of a field that matters.
pub(super) const LONGEST_NAME: usize = 27;

/// A field that holds a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UsageField {
    PromptTokens,
    CompletionTokens,
    InputTokens,
    OutputTokens,
    CacheReadInputTokens,
    CacheCreationInputTokens,
    CacheN,
    PromptN,
    PredictedN,
    TokensEvaluated,
    TokensPredicted,
}

const FIELDS: usize = UsageField::TokensPredicted as usize + 1;

/// An object in which something matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UsageObject {
    /// The answer, one of an array of answers, or an event.
    Response,
    /// `response` or `message`: an answer within an event.
    Wrapper,
    Usage,
    Timings,
}

/// A field's name, once it has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UsageName {
    Count(UsageField),
    Object(UsageObject),
    Unknown,
}

/// The counts that one answer or event has told so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct UsageFields {
    counts: [u64; FIELDS],
    /// Which counts have been told: a bit for each field.
    told: u16,
}

/// Counts of prompt and answer, where they were told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TokenCounts {
    pub(crate) prompt: Option<u64>,
    pub(crate) completion: Option<u64>,
}

/// What one answer or event told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct UsageReport {
    /// From `usage`.
    pub(super) usage: TokenCounts,
    /// From `timings`, or from the fields of `/completion`.
    pub(super) measured: TokenCounts,
    /// Whether `usage` stood in a `message`: the beginning of a stream, not its sum.
    pub(super) is_opening: bool,
}

impl TokenCounts {
    /// Adds what another answer told.
    pub(super) fn add(&mut self, other: Self) {
        let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.saturating_add(b)),
            (a, b) => a.or(b),
        };
        *self = Self { prompt: sum(self.prompt, other.prompt), completion: sum(self.completion, other.completion) };
    }

    /// Each count, or else that of `other`.
    pub(super) fn or(self, other: Self) -> Self {
        Self { prompt: self.prompt.or(other.prompt), completion: self.completion.or(other.completion) }
    }
}

impl UsageFields {
    pub(super) fn set(&mut self, field: UsageField, count: u64) {
        self.counts[field as usize] = count;
        self.told |= 1 << field as u16;
    }

    fn get(&self, field: UsageField) -> Option<u64> {
        (self.told & 1 << field as u16 != 0).then(|| self.counts[field as usize])
    }

    /// What they add up to.
    pub(super) fn report(&self, opens: bool) -> UsageReport {
        let field = |field: UsageField| self.get(field);
        let cached = |field: UsageField| self.get(field).unwrap_or(0);
        // Anthropic's count of the input leaves out what was in a cache.
        let input = field(UsageField::InputTokens).map(|tokens| {
            tokens
                .saturating_add(cached(UsageField::CacheReadInputTokens))
                .saturating_add(cached(UsageField::CacheCreationInputTokens))
        });
        let timings = TokenCounts {
            prompt: field(UsageField::PromptN).map(|tokens| tokens.saturating_add(cached(UsageField::CacheN))),
            completion: field(UsageField::PredictedN),
        };
        let native =
            TokenCounts { prompt: field(UsageField::TokensEvaluated), completion: field(UsageField::TokensPredicted) };
        UsageReport {
            usage: TokenCounts {
                prompt: field(UsageField::PromptTokens).or(input),
                completion: field(UsageField::CompletionTokens).or(field(UsageField::OutputTokens)),
            },
            measured: timings.or(native),
            is_opening: opens,
        }
    }
}

impl UsageReport {
    pub(super) fn add(&mut self, other: Self) {
        self.usage.add(other.usage);
        self.measured.add(other.measured);
        self.is_opening |= other.is_opening;
    }
}

impl UsageField {
    pub(super) fn object(self) -> UsageObject {
        match self {
            Self::TokensEvaluated | Self::TokensPredicted => UsageObject::Response,
            Self::CacheN | Self::PromptN | Self::PredictedN => UsageObject::Timings,
            _ => UsageObject::Usage,
        }
    }
}

impl UsageName {
    pub(super) fn of(bytes: &[u8]) -> Self {
        match bytes {
            b"usage" => Self::Object(UsageObject::Usage),
            b"timings" => Self::Object(UsageObject::Timings),
            b"response" | b"message" => Self::Object(UsageObject::Wrapper),
            b"prompt_tokens" => Self::Count(UsageField::PromptTokens),
            b"completion_tokens" => Self::Count(UsageField::CompletionTokens),
            b"input_tokens" => Self::Count(UsageField::InputTokens),
            b"output_tokens" => Self::Count(UsageField::OutputTokens),
            b"cache_read_input_tokens" => Self::Count(UsageField::CacheReadInputTokens),
            b"cache_creation_input_tokens" => Self::Count(UsageField::CacheCreationInputTokens),
            b"cache_n" => Self::Count(UsageField::CacheN),
            b"prompt_n" => Self::Count(UsageField::PromptN),
            b"predicted_n" => Self::Count(UsageField::PredictedN),
            b"tokens_evaluated" => Self::Count(UsageField::TokensEvaluated),
            b"tokens_predicted" => Self::Count(UsageField::TokensPredicted),
            _ => Self::Unknown,
        }
    }
}
