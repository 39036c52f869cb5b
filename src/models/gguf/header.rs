//! Reads the GGUF header as a stream of keys, values and tensor descriptions. Every length is checked before it is
//! used.
//!
//! Knows the layout of the format (`docs/gguf.md` of ggml) and which keys to keep, but not what they mean.

use std::io::{self, BufRead, BufReader, Read};

use super::bounds::{MAX_ARRAY_DEPTH, MAX_DIMS, MAX_KEY, MAX_LAYERS, MAX_METADATA_BYTES, MAX_STRING};
use super::error::GgufError;

const MAGIC: &[u8] = b"GGUF";
/// Size of the read buffer, in bytes.
const READ_BUFFER: usize = 64 << 10;

/// Keys that are kept by their full name. Text values are kept only for these.
const KEPT: [&str; 21] = [
    "adapter.type",
    "clip.audio.projection_dim",
    "clip.has_audio_encoder",
    "clip.has_vision_encoder",
    "clip.vision.projection_dim",
    "general.alignment",
    "general.architecture",
    "general.file_type",
    "general.name",
    "general.type",
    "split.count",
    "split.no",
    "tokenizer.chat_template",
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.cls_token_id",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.model",
    "tokenizer.ggml.padding_token_id",
    "tokenizer.ggml.seperator_token_id",
    TOKENS,
    "tokenizer.ggml.unknown_token_id",
];
/// The key of the vocabulary.
pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
/// Keys that are kept for every architecture, whose name comes before the first dot.
const KEPT_ENDINGS: [&str; 25] = [
    ".attention.causal",
    ".attention.head_count",
    ".attention.head_count_kv",
    ".attention.key_length",
    ".attention.key_length_swa",
    ".attention.sliding_window",
    ".attention.sliding_window_pattern",
    ".attention.value_length",
    ".attention.value_length_swa",
    ".block_count",
    ".classifier.pooling_type",
    ".context_length",
    ".embedding_length",
    ".expert_feed_forward_length",
    ".expert_used_count",
    ".feed_forward_length",
    ".full_attention_interval",
    ".pooling_type",
    ".shortconv.l_cache",
    ".ssm.conv_kernel",
    ".ssm.group_count",
    ".ssm.inner_size",
    ".ssm.state_size",
    ".token_shift_count",
    ".wkv.head_size",
];

/// What a chat template has, by the names that it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TemplateFacts {
    /// Whether it takes tools.
    pub has_tools: bool,
    /// Whether it has a place for what the model thinks.
    pub has_thinking: bool,
}

impl TemplateFacts {
    /// Looks at the text of a template.
    #[must_use]
    pub fn of(text: &[u8]) -> Self {
        let names = |name: &str| memchr::memmem::find(text, name.as_bytes()).is_some();
        Self { has_tools: names("tools"), has_thinking: names("<think>") || names("enable_thinking") }
    }
}

/// The value of a key that is kept.
#[derive(Debug)]
pub(super) enum GgufValue {
    Whole(i128),
    Flag(bool),
    Text(String),
    List(Vec<u64>),
    Template(TemplateFacts),
    /// An array of this many elements, which are not kept.
    Count(u64),
    /// A list of this many tokens, which are not kept.
    Vocabulary {
        count: u64,
        yes_no: Option<YesNoTokens>,
    },
    /// The key exists, but its value is not kept.
    Present,
}

/// The words with which a reranker without a ranking head answers, by their numbers in its vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct YesNoTokens {
    /// The token `yes`.
    pub yes: u32,
    /// The token `no`.
    pub no: u32,
}

/// One entry of the tensor table.
#[derive(Debug)]
pub(super) struct Tensor {
    pub(super) name: Vec<u8>,
    dims: [u64; MAX_DIMS as usize],
    rank: usize,
    pub(super) kind: u32,
    pub(super) offset: u64,
}

impl Tensor {
    pub(super) fn dims(&self) -> &[u64] {
        &self.dims[..self.rank]
    }
}

/// A reader of the header. Counts the bytes that it has read, and never reads past [`MAX_METADATA_BYTES`].
pub(super) struct Header<R> {
    source: BufReader<R>,
    read: u64,
}

impl<R: Read> Header<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source: BufReader::with_capacity(READ_BUFFER, source), read: 0 }
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.read
    }

    /// Reads the magic and the version. Returns the version.
    ///
    /// # Errors
    ///
    /// The file is not a GGUF, is big-endian, or has a version other than 2 and 3.
    pub(super) fn read_version(&mut self) -> Result<u32, GgufError> {
        let mut first = Vec::with_capacity(MAGIC.len());
        self.source.by_ref().take(MAGIC.len() as u64).read_to_end(&mut first)?;
        if first != MAGIC {
            return Err(GgufError::NotGguf { first });
        }
        self.read = MAGIC.len() as u64;
        match self.u32()? {
            version @ 2..=3 => Ok(version),
            // A small number with its bytes swapped: the format has no other mark for the byte order.
            swapped if swapped != 0 && swapped.trailing_zeros() >= 16 => Err(GgufError::BigEndian),
            found => Err(GgufError::Version { found }),
        }
    }

    /// Reads the next key and its value. Returns `None` for a key that is not kept, and skips its value.
    ///
    /// # Errors
    ///
    /// The header ends, a length is beyond its bound, or a type does not exist.
    pub(super) fn read_key_value(&mut self) -> Result<Option<(String, GgufValue)>, GgufError> {
        let key = String::from_utf8_lossy(&self.string("the length of a key", MAX_KEY)?).into_owned();
        let kind = self.u32()?;
        let whole = KEPT.contains(&key.as_str());
        if !whole && !KEPT_ENDINGS.iter().any(|ending| key.ends_with(ending)) {
            self.skip_value(kind, 0)?;
            return Ok(None);
        }
        // The numbers are those of `enum gguf_type` (ggml/include/gguf.h).
        let value = match kind {
            8 if key == "tokenizer.chat_template" => self.template()?,
            7 => GgufValue::Flag(self.array::<1>()? != [0]),
            8 if whole => {
                let text = self.string("the length of a value", MAX_STRING)?;
                GgufValue::Text(String::from_utf8_lossy(&text).into_owned())
            }
            9 if key == TOKENS => self.vocabulary()?,
            9 => self.list()?,
            _ => match self.whole(kind)? {
                Some(number) => GgufValue::Whole(number),
                None => {
                    self.skip_value(kind, 0)?;
                    GgufValue::Present
                }
            },
        };
        Ok(Some((key, value)))
    }

    /// Reads the next entry of the tensor table.
    ///
    /// # Errors
    ///
    /// The header ends, or a length is beyond its bound.
    pub(super) fn read_tensor(&mut self) -> Result<Tensor, GgufError> {
        let name = self.string("the length of a tensor's name", MAX_STRING)?;
        let count = self.u32()?;
        bounded("the number of dimensions", count.into(), MAX_DIMS.into())?;
        let rank = count as usize;
        let mut dims = [0; MAX_DIMS as usize];
        for dim in &mut dims[..rank] {
            *dim = self.u64()?;
        }
        Ok(Tensor { name, dims, rank, kind: self.u32()?, offset: self.u64()? })
    }

    /// Reads what a chat template has, by the names that it uses. One that is longer than a text that is kept is skipped.
    fn template(&mut self) -> Result<GgufValue, GgufError> {
        let length = self.u64()?;
        if length > MAX_STRING {
            self.skip(length)?;
            return Ok(GgufValue::Present);
        }
        // Safe to allocate at once, because `length` is within its bound.
        let mut text = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        self.fill(&mut text)?;
        Ok(GgufValue::Template(TemplateFacts::of(&text)))
    }

    /// Reads an array of whole numbers or of flags; counts the elements of any other array.
    fn list(&mut self) -> Result<GgufValue, GgufError> {
        let element = self.u32()?;
        let count = self.u64()?;
        if count > MAX_LAYERS || !matches!(element, 0..=5 | 7 | 10 | 11) {
            self.skip_elements(element, count, 1)?;
            return Ok(GgufValue::Count(count));
        }
        let mut list = Vec::new();
        for _ in 0..count {
            list.push(self.whole(element)?.and_then(|number| u64::try_from(number).ok()).unwrap_or(0));
        }
        Ok(GgufValue::List(list))
    }

    /// Reads the list of tokens: their number, and the places of those that a reranker answers with.
    fn vocabulary(&mut self) -> Result<GgufValue, GgufError> {
        let element = self.u32()?;
        let count = self.u64()?;
        if element != 8 {
            self.skip_elements(element, count, 1)?;
            return Ok(GgufValue::Count(count));
        }
        let (mut yes, mut no) = (None, None);
        // Each element takes at least 8 bytes, so the bound on bytes also bounds this loop.
        for at in 0..count {
            let length = self.u64()?;
            match length {
                3 if self.array()? == *b"yes" => yes = yes.or(u32::try_from(at).ok()),
                2 if self.array()? == *b"no" => no = no.or(u32::try_from(at).ok()),
                2 | 3 => {}
                _ => self.skip(length)?,
            }
        }
        Ok(GgufValue::Vocabulary { count, yes_no: yes.zip(no).map(|(yes, no)| YesNoTokens { yes, no }) })
    }

    /// Reads a whole number of this type. Returns `None`, and reads nothing, for other types.
    fn whole(&mut self, kind: u32) -> Result<Option<i128>, GgufError> {
        Ok(Some(match kind {
            0 => u8::from_le_bytes(self.array()?).into(),
            1 => i8::from_le_bytes(self.array()?).into(),
            2 => u16::from_le_bytes(self.array()?).into(),
            3 => i16::from_le_bytes(self.array()?).into(),
            4 => self.u32()?.into(),
            5 => i32::from_le_bytes(self.array()?).into(),
            7 => i128::from(self.array::<1>()? != [0]),
            10 => self.u64()?.into(),
            11 => i64::from_le_bytes(self.array()?).into(),
            _ => return Ok(None),
        }))
    }

    fn skip_value(&mut self, kind: u32, depth: u32) -> Result<(), GgufError> {
        match kind {
            8 => {
                let length = self.u64()?;
                self.skip(length)
            }
            9 => {
                let element = self.u32()?;
                let count = self.u64()?;
                self.skip_elements(element, count, depth + 1)
            }
            _ => self.skip(scalar_bytes(kind)?),
        }
    }

    fn skip_elements(&mut self, element: u32, count: u64, depth: u32) -> Result<(), GgufError> {
        bounded("the nesting of arrays", depth.into(), MAX_ARRAY_DEPTH.into())?;
        if matches!(element, 8 | 9) {
            // Each element takes at least 8 bytes, so the bound on bytes also bounds this loop.
            (0..count).try_for_each(|_| self.skip_value(element, depth))
        } else {
            self.skip(count.saturating_mul(scalar_bytes(element)?))
        }
    }

    fn string(&mut self, what: &'static str, limit: u64) -> Result<Vec<u8>, GgufError> {
        let length = bounded(what, self.u64()?, limit)?;
        // Safe to allocate at once, because `length` is within its bound.
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Reads a number of 8 bytes.
    ///
    /// # Errors
    ///
    /// The header ends.
    pub(super) fn u64(&mut self) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), GgufError> {
        let end = self.end_of(bytes.len() as u64)?;
        self.source.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => GgufError::TruncatedHeader { read: self.read },
            _ => GgufError::Io(error),
        })?;
        self.read = end;
        Ok(())
    }

    fn skip(&mut self, length: u64) -> Result<(), GgufError> {
        let end = self.end_of(length)?;
        while self.read < end {
            let available = match self.source.fill_buf() {
                Ok([]) => return Err(GgufError::TruncatedHeader { read: self.read }),
                Ok(bytes) => bytes.len() as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let step = available.min(end - self.read);
            self.source.consume(usize::try_from(step).unwrap_or(usize::MAX));
            self.read += step;
        }
        Ok(())
    }

    /// Returns where the next `length` bytes end, if that is within the bound on the header.
    fn end_of(&self, length: u64) -> Result<u64, GgufError> {
        bounded("the size of the header", self.read.saturating_add(length), MAX_METADATA_BYTES)
    }
}

/// Returns the size in bytes of a value of this fixed-size type.
fn scalar_bytes(kind: u32) -> Result<u64, GgufError> {
    match kind {
        0 | 1 | 7 => Ok(1),
        2 | 3 => Ok(2),
        4..=6 => Ok(4),
        10..=12 => Ok(8),
        _ => Err(GgufError::Malformed(format!("value type {kind} does not exist"))),
    }
}

/// Returns `found`, unless it is beyond its limit.
///
/// # Errors
///
/// [`GgufError::TooLarge`] if it is.
pub(super) fn bounded(what: &'static str, found: u64, limit: u64) -> Result<u64, GgufError> {
    if found > limit { Err(GgufError::TooLarge { what, found, limit }) } else { Ok(found) }
}
