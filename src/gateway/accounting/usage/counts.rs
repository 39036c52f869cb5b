//! The fields in which an answer tells how many tokens it cost: their names, their places, and what they add up to.
//!
//! OpenAI's and Anthropic's `usage`, llama-server's `timings` and the fields of its `/completion`. How they are found in the
//! bytes is `scan.rs`'s; which of them counts is decided in `mod.rs`.

/// The longest name of a field that matters.
pub(super) const LONGEST_NAME: usize = 27;

/// A field that holds a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
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

const FIELDS: usize = Field::TokensPredicted as usize + 1;

/// An object in which something matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The answer, one of an array of answers, or an event.
    Answer,
    /// `response` or `message`: an answer within an event.
    Wrapper,
    Usage,
    Timings,
}

/// A field's name, once it has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Count(Field),
    Opens(Place),
    Unknown,
}

/// The counts that one answer or event has told so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fields {
    counts: [u64; FIELDS],
    /// Which counts have been told: a bit for each field.
    told: u16,
}

/// Counts of prompt and answer, where they were told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) prompt: Option<u64>,
    pub(crate) completion: Option<u64>,
}

/// What one answer or event told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// From `usage`.
    pub(super) usage: Counts,
    /// From `timings`, or from the fields of `/completion`.
    pub(super) measured: Counts,
    /// Whether `usage` stood in a `message`: the beginning of a stream, not its sum.
    pub(super) opens: bool,
}

impl Counts {
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

impl Fields {
    pub(super) fn set(&mut self, field: Field, count: u64) {
        self.counts[field as usize] = count;
        self.told |= 1 << field as u16;
    }

    fn get(&self, field: Field) -> Option<u64> {
        (self.told & 1 << field as u16 != 0).then(|| self.counts[field as usize])
    }

    /// What they add up to.
    pub(super) fn report(&self, opens: bool) -> Report {
        let field = |field: Field| self.get(field);
        let cached = |field: Field| self.get(field).unwrap_or(0);
        // Anthropic's count of the input leaves out what was in a cache.
        let input = field(Field::InputTokens).map(|tokens| {
            tokens
                .saturating_add(cached(Field::CacheReadInputTokens))
                .saturating_add(cached(Field::CacheCreationInputTokens))
        });
        let timings = Counts {
            prompt: field(Field::PromptN).map(|tokens| tokens.saturating_add(cached(Field::CacheN))),
            completion: field(Field::PredictedN),
        };
        let native = Counts { prompt: field(Field::TokensEvaluated), completion: field(Field::TokensPredicted) };
        Report {
            usage: Counts {
                prompt: field(Field::PromptTokens).or(input),
                completion: field(Field::CompletionTokens).or(field(Field::OutputTokens)),
            },
            measured: timings.or(native),
            opens,
        }
    }
}

impl Report {
    pub(super) fn add(&mut self, other: Self) {
        self.usage.add(other.usage);
        self.measured.add(other.measured);
        self.opens |= other.opens;
    }
}

impl Field {
    pub(super) fn place(self) -> Place {
        match self {
            Self::TokensEvaluated | Self::TokensPredicted => Place::Answer,
            Self::CacheN | Self::PromptN | Self::PredictedN => Place::Timings,
            _ => Place::Usage,
        }
    }
}

impl Name {
    pub(super) fn of(bytes: &[u8]) -> Self {
        match bytes {
            b"usage" => Self::Opens(Place::Usage),
            b"timings" => Self::Opens(Place::Timings),
            b"response" | b"message" => Self::Opens(Place::Wrapper),
            b"prompt_tokens" => Self::Count(Field::PromptTokens),
            b"completion_tokens" => Self::Count(Field::CompletionTokens),
            b"input_tokens" => Self::Count(Field::InputTokens),
            b"output_tokens" => Self::Count(Field::OutputTokens),
            b"cache_read_input_tokens" => Self::Count(Field::CacheReadInputTokens),
            b"cache_creation_input_tokens" => Self::Count(Field::CacheCreationInputTokens),
            b"cache_n" => Self::Count(Field::CacheN),
            b"prompt_n" => Self::Count(Field::PromptN),
            b"predicted_n" => Self::Count(Field::PredictedN),
            b"tokens_evaluated" => Self::Count(Field::TokensEvaluated),
            b"tokens_predicted" => Self::Count(Field::TokensPredicted),
            _ => Self::Unknown,
        }
    }
}
