//! What is asked and what is answered, byte for byte. The mock and the driver both make it from here.
//!
//! Every request carries a tag of its own, and every answer and every frame brings it back: an answer that was mixed
//! up with another one shows, and so does a lost or changed byte.

use memchr::memmem;
use serde::{Deserialize, Serialize};

/// Length of a tag.
pub(crate) const TAG: usize = 16;

/// Deltas of a stream, between the frame with the role and the last two.
pub(crate) const DELTAS: usize = 64;

/// One kind of request.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Ask {
    /// Size of the request body, in bytes.
    pub(crate) request: usize,
    /// Size of the answer's body, in bytes; a stream has its own.
    pub(crate) answer: usize,
    /// Service time of an answer; time between two frames of a stream; in microseconds.
    pub(crate) pause: u64,
    pub(crate) stream: bool,
    /// Which model is asked for.
    pub(crate) model: Name,
}

/// How a request names its model: not at all, or by the number of one.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Name {
    None,
    Id(u16),
    Alias(u16),
}

impl Name {
    /// The name; both kinds are as long.
    pub(crate) fn text(self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Id(number) => Some(format!("model-{number:04}")),
            Self::Alias(number) => Some(format!("alias-{number:04}")),
        }
    }
}

impl Ask {
    /// A body of this size each way, answered at once.
    pub(crate) const fn json(size: usize) -> Self {
        Self { request: size, answer: size, pause: 0, stream: false, model: Name::None }
    }

    /// A stream with so many microseconds between two frames.
    pub(crate) const fn stream(pause: u64) -> Self {
        Self { request: 256, answer: 0, pause, stream: true, model: Name::None }
    }

    /// The request body; the tag belongs at [`Ask::TAG_AT`].
    pub(crate) fn request_body(&self) -> Vec<u8> {
        let Self { answer, pause, stream, .. } = self;
        let model = self.model.text().map(|name| format!("\"model\":\"{name}\",")).unwrap_or_default();
        let mut body = format!(
            "{{\"user\":\"{:0>TAG$}\",\"max_tokens\":{answer},\"seed\":{pause},\"stream\":{stream},{model}\
             \"messages\":[{{\"role\":\"user\",\"content\":\"",
            0
        )
        .into_bytes();
        fill(&mut body, self.request, b"\"}]}");
        body
    }

    /// Where the tag is in a request body.
    pub(crate) const TAG_AT: usize = 9;

    /// Reads a request body: what is asked, and the tag.
    pub(crate) fn read(body: &[u8]) -> Option<(Self, [u8; TAG])> {
        let head = &body[..body.len().min(512)];
        let after = |name: &[u8]| memmem::find(head, name).map(|at| &head[at + name.len()..]);
        let number = |name: &[u8]| {
            let digits = after(name)?.iter().take_while(|byte| byte.is_ascii_digit());
            Some(digits.fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0')))
        };
        let tag = after(b"\"user\":\"")?.first_chunk::<TAG>()?;
        let ask = Self {
            request: body.len(),
            answer: number(b"\"max_tokens\":")? as usize,
            pause: number(b"\"seed\":")?,
            stream: after(b"\"stream\":")?.starts_with(b"true"),
            model: Name::None,
        };
        Some((ask, *tag))
    }
}

/// An answer's body: its bytes, where the tag belongs, and where each frame ends.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) bytes: Vec<u8>,
    pub(crate) tags: Vec<usize>,
    pub(crate) ends: Vec<usize>,
}

impl Answer {
    /// The answer to what is asked, with an empty tag.
    pub(crate) fn to(ask: &Ask) -> Self {
        if ask.stream { Self::frames() } else { Self::json(ask.answer) }
    }

    fn json(size: usize) -> Self {
        let mut bytes = format!(
            "{{\"id\":\"{:0>TAG$}\",\"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"",
            0
        )
        .into_bytes();
        let end = b"\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":16,\"completion_tokens\":8,\"total_tokens\":24}}";
        fill(&mut bytes, size, end);
        Self { ends: vec![bytes.len()], bytes, tags: vec![7] }
    }

    fn frames() -> Self {
        let mut answer = Self { bytes: Vec::new(), tags: Vec::new(), ends: Vec::new() };
        answer.frame(r#""choices":[{"index":0,"delta":{"role":"assistant","content":null},"finish_reason":null}]"#);
        for n in 0..DELTAS {
            let delta = format!(r#"{{"content":" token{n:02}"}}"#);
            answer.frame(&format!(r#""choices":[{{"index":0,"delta":{delta},"finish_reason":null}}]"#));
        }
        answer.frame(
            r#""choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":16,"completion_tokens":64,"total_tokens":80},"timings":{"prompt_n":16,"prompt_ms":20.0,"predicted_n":64,"predicted_ms":1280.0}"#,
        );
        answer.bytes.extend(b"data: [DONE]\n\n");
        answer.ends.push(answer.bytes.len());
        answer
    }

    fn frame(&mut self, rest: &str) {
        self.bytes.extend(b"data: {\"id\":\"");
        self.tags.push(self.bytes.len());
        self.bytes.extend([b'0'; TAG]);
        self.bytes.extend(format!("\",\"object\":\"chat.completion.chunk\",\"created\":0,{rest}}}\n\n").bytes());
        self.ends.push(self.bytes.len());
    }

    /// Puts a tag wherever one belongs.
    pub(crate) fn tag(&mut self, tag: &[u8; TAG]) {
        for &at in &self.tags {
            self.bytes[at..at + TAG].copy_from_slice(tag);
        }
    }
}

/// Letters without a pattern up to the size, less the end, which follows.
fn fill(bytes: &mut Vec<u8>, size: usize, end: &[u8]) {
    let mut state = 0x9E37_79B9_u32;
    while bytes.len() + end.len() < size {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes.push(b'a' + (state >> 24) as u8 % 26);
    }
    bytes.extend(end);
}
