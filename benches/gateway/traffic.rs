//! The bytes of requests and responses, for the mock and the driver.
//!
//! Each request has a unique tag, which each response and each frame repeats. So a response to another request is
//! noticed, and so is a lost or changed byte.

use memchr::memmem;
use serde::{Deserialize, Serialize};

/// Length of a tag.
pub(crate) const TAG: usize = 16;

/// Number of deltas of a stream, between the frame with the role and the last two frames.
pub(crate) const DELTAS: usize = 64;

/// One kind of request and its response.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Exchange {
    /// Size of the request body, in bytes.
    pub(crate) request_size: usize,
    /// Size of the response body, in bytes; of a stream, its number of deltas. It is `max_tokens` of the request.
    pub(crate) response_size: usize,
    /// Service time of a response, or time between two frames of a stream, in microseconds.
    pub(crate) pause: u64,
    pub(crate) stream: bool,
    /// The model of the request.
    pub(crate) model: ModelName,
}

/// How a request names its model: by the id or by the alias of the model with this number.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum ModelName {
    Id(u16),
    Alias(u16),
}

impl ModelName {
    /// The name that a mock without `--alias` has for its model.
    pub(crate) const OF_MOCK: Self = Self::Id(0);

    /// Returns the name; ids and aliases have the same length.
    pub(crate) fn text(self) -> String {
        match self {
            Self::Id(number) => format!("model-{number:04}"),
            Self::Alias(number) => format!("alias-{number:04}"),
        }
    }
}

impl Exchange {
    /// Returns an exchange with bodies of this size, answered at once.
    pub(crate) const fn json(size: usize) -> Self {
        Self { request_size: size, response_size: size, pause: 0, stream: false, model: ModelName::OF_MOCK }
    }

    /// Returns a stream with this pause between two frames, in microseconds.
    pub(crate) const fn stream(pause: u64) -> Self {
        Self { request_size: 256, response_size: DELTAS, pause, stream: true, model: ModelName::OF_MOCK }
    }

    /// Returns the request body; the tag goes to [`Exchange::TAG_AT`].
    pub(crate) fn request_body(&self) -> Vec<u8> {
        let Self { response_size, pause, stream, .. } = self;
        let model = self.model.text();
        let mut body = format!(
            "{{\"user\":\"{:0>TAG$}\",\"max_tokens\":{response_size},\"seed\":{pause},\"stream\":{stream},\
             \"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":\"",
            0
        )
        .into_bytes();
        fill(&mut body, self.request_size, b"\"}]}");
        body
    }

    /// The offset of the tag in a request body.
    pub(crate) const TAG_AT: usize = 9;

    /// Parses a request body: the exchange and the tag. The mock ignores the model's name.
    pub(crate) fn read(body: &[u8]) -> Option<(Self, [u8; TAG])> {
        let head = &body[..body.len().min(512)];
        let after = |name: &[u8]| memmem::find(head, name).map(|at| &head[at + name.len()..]);
        let number = |name: &[u8]| {
            let digits = after(name)?.iter().take_while(|byte| byte.is_ascii_digit());
            Some(digits.fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0')))
        };
        let tag = after(b"\"user\":\"")?.first_chunk::<TAG>()?;
        let exchange = Self {
            request_size: body.len(),
            response_size: number(b"\"max_tokens\":")? as usize,
            pause: number(b"\"seed\":")?,
            // A proxy may leave out what is the default.
            stream: after(b"\"stream\":").is_some_and(|value| value.starts_with(b"true")),
            model: ModelName::OF_MOCK,
        };
        Some((exchange, *tag))
    }
}

/// A response body: its bytes, the offsets of the tags, and the end of each frame.
#[derive(Debug, Clone)]
pub(crate) struct ResponseBody {
    pub(crate) bytes: Vec<u8>,
    pub(crate) tags: Vec<usize>,
    pub(crate) ends: Vec<usize>,
}

impl ResponseBody {
    /// Returns the response body of an exchange, with an empty tag and this name of the model.
    pub(crate) fn to(exchange: &Exchange, model: &str) -> Self {
        if exchange.stream { Self::stream_body(model) } else { Self::json(exchange.response_size, model) }
    }

    fn json(size: usize, model: &str) -> Self {
        let mut bytes = format!(
            "{{\"id\":\"{:0>TAG$}\",\"model\":\"{model}\",\"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"",
            0
        )
        .into_bytes();
        let end = b"\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":16,\"completion_tokens\":8,\"total_tokens\":24}}";
        fill(&mut bytes, size, end);
        Self { ends: vec![bytes.len()], bytes, tags: vec![7] }
    }

    fn stream_body(model: &str) -> Self {
        let mut body = Self { bytes: Vec::new(), tags: Vec::new(), ends: Vec::new() };
        let role = r#""choices":[{"index":0,"delta":{"role":"assistant","content":null},"finish_reason":null}]"#;
        body.push_frame(model, role);
        for n in 0..DELTAS {
            let delta = format!(r#"{{"content":" token{n:02}"}}"#);
            body.push_frame(model, &format!(r#""choices":[{{"index":0,"delta":{delta},"finish_reason":null}}]"#));
        }
        body.push_frame(
            model,
            r#""choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":16,"completion_tokens":64,"total_tokens":80},"timings":{"prompt_n":16,"prompt_ms":20.0,"predicted_n":64,"predicted_ms":1280.0}"#,
        );
        body.bytes.extend(b"data: [DONE]\n\n");
        body.ends.push(body.bytes.len());
        body
    }

    fn push_frame(&mut self, model: &str, rest: &str) {
        self.bytes.extend(b"data: {\"id\":\"");
        self.tags.push(self.bytes.len());
        self.bytes.extend([b'0'; TAG]);
        let middle = r#"","object":"chat.completion.chunk","created":0,"model":""#;
        self.bytes.extend(format!("{middle}{model}\",{rest}}}\n\n").bytes());
        self.ends.push(self.bytes.len());
    }

    /// Writes the tag to all its places.
    pub(crate) fn tag(&mut self, tag: &[u8; TAG]) {
        for &at in &self.tags {
            self.bytes[at..at + TAG].copy_from_slice(tag);
        }
    }
}

/// Appends pseudo-random letters and then `end`, up to `size` bytes in all.
fn fill(bytes: &mut Vec<u8>, size: usize, end: &[u8]) {
    let mut state = 0x9E37_79B9_u32;
    while bytes.len() + end.len() < size {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes.push(b'a' + (state >> 24) as u8 % 26);
    }
    bytes.extend(end);
}
