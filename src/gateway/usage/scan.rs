//! Reads the token counts out of an answer's JSON while its bytes go by.
//!
//! The JSON may come in any pieces, have its fields in any order and be of any size: nothing is kept but the place
//! where the reader stands. A count is taken only from its own place, so words of the model, which are strings or lie
//! deeper, are never taken for one. What is no JSON has no counts. What the counts mean is decided in `usage.rs`.

use memchr::memchr2;

/// The longest name of a field that matters.
const LONGEST_NAME: usize = 27;

/// The bytes that are looked at together where only brackets and quotes matter.
const STRIDE: usize = 64;

/// A field that holds a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
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
enum Place {
    /// The answer, one of an array of answers, or an event.
    Answer,
    /// `response` or `message`: an answer within an event.
    Wrapper,
    Usage,
    Timings,
}

/// A field's name, once it has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Count(Field),
    Opens(Place),
    Unknown,
}

/// Counts of prompt and answer, where they were told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::gateway) struct Counts {
    pub(in crate::gateway) prompt: Option<u64>,
    pub(in crate::gateway) completion: Option<u64>,
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

/// The reader.
#[derive(Debug)]
pub(super) struct Scanner {
    /// Open brackets.
    depth: u32,
    /// The places that are open, outermost first, and the depth within each.
    places: [(Place, u32); 3],
    open: usize,
    text: Text,
    /// Whether the next string of the innermost place is a name.
    at_name: bool,
    name: Name,
    number: Option<u64>,
    name_bytes: [u8; LONGEST_NAME],
    name_length: usize,
    fields: [Option<u64>; FIELDS],
    opens: bool,
    /// The sum of the answers that are closed.
    closed: Report,
}

/// Whether the reader stands in a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Outside,
    Name,
    Value,
    /// After a backslash.
    Escape(bool),
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

impl Scanner {
    pub(super) fn new() -> Self {
        Self {
            depth: 0,
            places: [(Place::Answer, 0); 3],
            open: 0,
            text: Text::Outside,
            at_name: false,
            name: Name::Unknown,
            number: None,
            name_bytes: [0; LONGEST_NAME],
            name_length: 0,
            fields: [None; FIELDS],
            opens: false,
            closed: Report::default(),
        }
    }

    /// What has been told so far, by an answer that is still open too.
    pub(super) fn report(&self) -> Report {
        let mut report = self.closed;
        report.add(self.current());
        report
    }

    /// Reads on.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while let Some((&first, rest)) = bytes.split_first() {
            bytes = match self.text {
                Text::Outside if self.innermost().is_some_and(|(_, depth)| depth == self.depth) => {
                    self.take(first);
                    rest
                }
                Text::Outside => match next_mark(bytes) {
                    None => return,
                    Some(at) => {
                        self.take_mark(bytes[at]);
                        &bytes[at + 1..]
                    }
                },
                Text::Escape(in_name) => {
                    self.text = if in_name { Text::Name } else { Text::Value };
                    rest
                }
                Text::Name | Text::Value => self.read_string(bytes),
            };
        }
    }

    fn innermost(&self) -> Option<(Place, u32)> {
        self.open.checked_sub(1).map(|at| self.places[at])
    }

    fn read_string<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let in_name = self.text == Text::Name;
        let end = memchr2(b'"', b'\\', bytes);
        if in_name {
            self.keep_name(&bytes[..end.unwrap_or(bytes.len())]);
        }
        let Some(end) = end else { return &[] };
        if bytes[end] == b'\\' {
            // No name that matters has one.
            self.name_length = usize::MAX;
            self.text = Text::Escape(in_name);
        } else {
            if in_name {
                self.name = self.name_bytes.get(..self.name_length).map_or(Name::Unknown, Name::of);
                self.at_name = false;
            }
            self.text = Text::Outside;
        }
        &bytes[end + 1..]
    }

    fn keep_name(&mut self, part: &[u8]) {
        let end = self.name_length.saturating_add(part.len());
        match self.name_bytes.get_mut(self.name_length..end) {
            Some(room) => {
                room.copy_from_slice(part);
                self.name_length = end;
            }
            None => self.name_length = usize::MAX,
        }
    }

    /// One byte in an object that matters, outside its strings.
    fn take(&mut self, byte: u8) {
        match byte {
            b'0'..=b'9' => {
                let digit = u64::from(byte - b'0');
                self.number = Some(self.number.unwrap_or(0).saturating_mul(10).saturating_add(digit));
            }
            b',' => {
                self.end_of_value();
                self.at_name = true;
            }
            b'}' | b']' => {
                self.end_of_value();
                self.close();
            }
            b'"' => self.begin_string(self.at_name),
            b'{' | b'[' => self.begin_value(byte == b'{'),
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b':' => self.number = None,
            // A fraction, an exponent, a sign, `null`: no count.
            _ => self.name = Name::Unknown,
        }
    }

    /// A bracket or a quote elsewhere.
    fn take_mark(&mut self, byte: u8) {
        match byte {
            b'"' => self.begin_string(false),
            b'{' | b'[' => self.begin_value(byte == b'{'),
            _ => self.close(),
        }
    }

    fn begin_string(&mut self, is_name: bool) {
        self.text = if is_name { Text::Name } else { Text::Value };
        self.name_length = 0;
    }

    /// An object or an array begins.
    fn begin_value(&mut self, is_object: bool) {
        let place = match self.innermost() {
            // At the top, or in an array there, stand the answers.
            None if self.depth <= 1 => Some(Place::Answer),
            Some((within, depth)) if depth == self.depth => match (within, self.name) {
                (Place::Answer, Name::Opens(place)) => Some(place),
                (Place::Wrapper, Name::Opens(Place::Usage)) => Some(Place::Usage),
                _ => None,
            },
            _ => None,
        };
        self.depth = self.depth.saturating_add(1);
        let Some(place) = place.filter(|_| is_object) else { return };
        if let Some(room) = self.places.get_mut(self.open) {
            *room = (place, self.depth);
            self.open += 1;
            self.at_name = true;
            if place == Place::Wrapper {
                self.opens = self.name_bytes.starts_with(b"message");
            }
        }
    }

    fn close(&mut self) {
        if let Some((place, depth)) = self.innermost()
            && depth == self.depth
        {
            self.open -= 1;
            if place == Place::Answer {
                self.closed.add(self.current());
                self.fields = [None; FIELDS];
                self.opens = false;
            }
        }
        self.depth = self.depth.saturating_sub(1);
        self.name = Name::Unknown;
    }

    fn end_of_value(&mut self) {
        if let (Name::Count(field), Some((place, _))) = (self.name, self.innermost())
            && field.place() == place
            && self.number.is_some()
        {
            self.fields[field as usize] = self.number;
        }
        self.name = Name::Unknown;
        self.number = None;
    }

    fn current(&self) -> Report {
        let field = |field: Field| self.fields[field as usize];
        let cached = |field: Field| self.fields[field as usize].unwrap_or(0);
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
            opens: self.opens,
        }
    }
}

impl Report {
    fn add(&mut self, other: Self) {
        self.usage.add(other.usage);
        self.measured.add(other.measured);
        self.opens |= other.opens;
    }
}

impl Field {
    fn place(self) -> Place {
        match self {
            Self::TokensEvaluated | Self::TokensPredicted => Place::Answer,
            Self::CacheN | Self::PromptN | Self::PredictedN => Place::Timings,
            _ => Place::Usage,
        }
    }
}

impl Name {
    fn of(bytes: &[u8]) -> Self {
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

/// The next bracket or quote. An embedding is a long way without one, so the way is made in strides.
fn next_mark(bytes: &[u8]) -> Option<usize> {
    let is_mark = |byte: &u8| *byte == b'"' || matches!(*byte | 0x20, b'{' | b'}');
    let mut passed = 0;
    for stride in bytes.chunks_exact(STRIDE) {
        // No early exit: so the compiler makes vector instructions of it.
        if stride.iter().fold(false, |found, byte| found | is_mark(byte)) {
            break;
        }
        passed += STRIDE;
    }
    bytes[passed..].iter().position(is_mark).map(|at| passed + at)
}
