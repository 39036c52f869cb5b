//! The JSON fields that report token counts: their names, the objects that hold them, and their sums.
//!
//! Covers OpenAI's and Anthropic's `usage`, llama-server's `timings` and the fields of its `/completion`. `scan.rs` finds
//! them in the bytes of a response; `mod.rs` decides which of them count.

/// The longest name in [`UsageName::of`], in bytes, if every character is written as an escape.
pub(super) const LONGEST_NAME: usize = "cache_creation_input_tokens".len() * "\\u0000".len();

/// A field that holds a token count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UsageField {
    PromptTokens,
    CompletionTokens,
    InputTokens,
    OutputTokens,
    CacheReadInputTokens,
    CacheCreationInputTokens,
    CachedTokens,
    CacheN,
    PromptN,
    PredictedN,
    DraftN,
    DraftNAccepted,
    TokensEvaluated,
    TokensPredicted,
}

const FIELDS: usize = UsageField::TokensPredicted as usize + 1;

/// An object that may hold token counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UsageObject {
    /// The whole response, one element of an array of responses, or the data of an event.
    Response,
    /// `response` or `message`: the response within the data of an event.
    Wrapper,
    /// `usage`
    Usage,
    /// `prompt_tokens_details` or `input_tokens_details` in `usage`
    Details,
    /// llama-server's `timings`
    Timings,
}

/// The meaning of a member's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UsageName {
    /// The member is a token count.
    Count(UsageField),
    /// The member is an object that may hold token counts.
    Object(UsageObject),
    /// Any other member.
    Unknown,
}

/// The counts that one response or event has reported so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct UsageFields {
    counts: [u64; FIELDS],
    /// Which counts are set, as a bit set indexed by [`UsageField`].
    present: u16,
}

/// The tokens of a prompt and of its completion, those of the prompt that were cached, and those of the completion that were
/// drafted; `None` where a count is unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TokenCounts {
    pub(crate) prompt: Option<u64>,
    pub(crate) completion: Option<u64>,
    /// Tokens of the prompt that were found in a cache.
    pub(crate) cached: Option<u64>,
    /// Tokens that were drafted.
    pub(crate) drafted: Option<u64>,
    /// Those of them that were right.
    pub(crate) accepted: Option<u64>,
}

/// The counts that one response or event reported, by source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct UsageReport {
    /// The counts in `usage`.
    pub(super) usage: TokenCounts,
    /// The counts in `timings`, or else in the fields of `/completion`.
    pub(super) measured: TokenCounts,
    /// Whether the event has a `message`, as Anthropic's `message_start` has: its counts are those at the start of the stream,
    /// not the totals.
    pub(super) is_opening: bool,
}

impl TokenCounts {
    /// Adds the counts of another response or choice.
    pub(crate) fn add(&mut self, other: Self) {
        // Saturates: the numbers come from the response and may have any size.
        let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.saturating_add(b)),
            (a, b) => a.or(b),
        };
        *self = Self {
            prompt: sum(self.prompt, other.prompt),
            completion: sum(self.completion, other.completion),
            cached: sum(self.cached, other.cached),
            drafted: sum(self.drafted, other.drafted),
            accepted: sum(self.accepted, other.accepted),
        };
    }

    /// Fills each unknown count with that of `other`.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            prompt: self.prompt.or(other.prompt),
            completion: self.completion.or(other.completion),
            cached: self.cached.or(other.cached),
            drafted: self.drafted.or(other.drafted),
            accepted: self.accepted.or(other.accepted),
        }
    }
}

impl UsageFields {
    /// Sets a count; a later value of the same field replaces it.
    pub(super) fn set(&mut self, field: UsageField, count: u64) {
        self.counts[field as usize] = count;
        self.present |= 1 << field as u16;
    }

    fn get(&self, field: UsageField) -> Option<u64> {
        (self.present & 1 << field as u16 != 0).then(|| self.counts[field as usize])
    }

    /// Sums the counts up. `is_opening` goes into the report unchanged.
    pub(super) fn report(&self, is_opening: bool) -> UsageReport {
        let field = |field: UsageField| self.get(field);
        let cached = |field: UsageField| self.get(field).unwrap_or(0);
        // Anthropic's `input_tokens` leaves out the cached part of the prompt.
        let input = field(UsageField::InputTokens).map(|tokens| {
            tokens
                .saturating_add(cached(UsageField::CacheReadInputTokens))
                .saturating_add(cached(UsageField::CacheCreationInputTokens))
        });
        // `prompt_n` counts only the prompt tokens that were processed; `cache_n` is the part found in the slot's cache.
        let timings = TokenCounts {
            prompt: field(UsageField::PromptN).map(|tokens| tokens.saturating_add(cached(UsageField::CacheN))),
            completion: field(UsageField::PredictedN),
            cached: field(UsageField::CacheN),
            drafted: field(UsageField::DraftN),
            accepted: field(UsageField::DraftNAccepted),
        };
        let native = TokenCounts {
            prompt: field(UsageField::TokensEvaluated),
            completion: field(UsageField::TokensPredicted),
            ..TokenCounts::default()
        };
        UsageReport {
            // OpenAI's names, or else Anthropic's, which OpenAI's responses use as well.
            usage: TokenCounts {
                prompt: field(UsageField::PromptTokens).or(input),
                completion: field(UsageField::CompletionTokens).or(field(UsageField::OutputTokens)),
                cached: field(UsageField::CachedTokens).or(field(UsageField::CacheReadInputTokens)),
                ..TokenCounts::default()
            },
            measured: timings.or(native),
            is_opening,
        }
    }
}

impl UsageReport {
    /// Adds the counts of another response of the same array.
    pub(super) fn add(&mut self, other: Self) {
        self.usage.add(other.usage);
        self.measured.add(other.measured);
        self.is_opening |= other.is_opening;
    }
}

impl UsageField {
    /// Returns the object that holds this field.
    pub(super) fn object(self) -> UsageObject {
        match self {
            Self::TokensEvaluated | Self::TokensPredicted => UsageObject::Response,
            Self::CachedTokens => UsageObject::Details,
            Self::CacheN | Self::PromptN | Self::PredictedN | Self::DraftN | Self::DraftNAccepted => {
                UsageObject::Timings
            }
            _ => UsageObject::Usage,
        }
    }
}

impl UsageName {
    /// Returns the meaning of a name.
    pub(super) fn of(name: &[u8]) -> Self {
        match name {
            b"usage" => Self::Object(UsageObject::Usage),
            b"timings" => Self::Object(UsageObject::Timings),
            b"response" | b"message" => Self::Object(UsageObject::Wrapper),
            b"prompt_tokens_details" | b"input_tokens_details" => Self::Object(UsageObject::Details),
            b"prompt_tokens" => Self::Count(UsageField::PromptTokens),
            b"completion_tokens" => Self::Count(UsageField::CompletionTokens),
            b"input_tokens" => Self::Count(UsageField::InputTokens),
            b"output_tokens" => Self::Count(UsageField::OutputTokens),
            b"cache_read_input_tokens" => Self::Count(UsageField::CacheReadInputTokens),
            b"cache_creation_input_tokens" => Self::Count(UsageField::CacheCreationInputTokens),
            b"cached_tokens" => Self::Count(UsageField::CachedTokens),
            b"cache_n" => Self::Count(UsageField::CacheN),
            b"prompt_n" => Self::Count(UsageField::PromptN),
            b"predicted_n" => Self::Count(UsageField::PredictedN),
            b"draft_n" => Self::Count(UsageField::DraftN),
            b"draft_n_accepted" => Self::Count(UsageField::DraftNAccepted),
            b"tokens_evaluated" => Self::Count(UsageField::TokensEvaluated),
            b"tokens_predicted" => Self::Count(UsageField::TokensPredicted),
            _ => Self::Unknown,
        }
    }
}
