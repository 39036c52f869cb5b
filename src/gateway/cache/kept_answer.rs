//! An answer that is kept: its head, and its pieces as they were sent.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::fleet::ModelRevision;
use crate::gateway::response::in_progress::ResponseAborted;
use crate::gateway::response::shared::PieceSource;
use crate::gateway::upstream::retry::{X_LLAMAGATE_ATTEMPTS, X_LLAMAGATE_WORKER};

/// Bytes that each answer takes besides its pieces and its headers: the entry of the store, and the buffers.
const OVERHEAD: usize = 512;

/// Bytes that each header takes besides its name and its value.
const HEADER_OVERHEAD: usize = 64;

/// The head of an answer that several clients get.
#[derive(Debug, Clone)]
pub(super) struct SharedHead {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
}

impl SharedHead {
    /// Returns a response with this head, for a client that no worker was asked for.
    pub(super) fn replayed(&self) -> Response<()> {
        let mut response = self.response(());
        for name in [X_LLAMAGATE_WORKER, X_LLAMAGATE_ATTEMPTS] {
            response.headers_mut().remove(name);
        }
        response
    }

    /// Returns a response with this head.
    pub(super) fn response<B>(&self, body: B) -> Response<B> {
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.clone();
        response
    }

    /// Returns a head that holds no memory but its own: a value may be a piece of a larger block.
    fn copied(&self) -> Self {
        let mut headers = HeaderMap::with_capacity(self.headers.len());
        for (name, value) in &self.headers {
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                headers.append(name.clone(), value);
            }
        }
        Self { status: self.status, headers }
    }
}

/// An answer that is kept.
#[derive(Debug)]
pub(super) struct KeptAnswer {
    /// The id of the model that has given it.
    pub(super) model: String,
    /// Which form of it.
    pub(super) revision: ModelRevision,
    pub(super) head: Arc<SharedHead>,
    bytes: Bytes,
    /// Where each piece ends.
    ends: Box<[usize]>,
    /// How old it was when it came here: answers outlive the service on the disk.
    age_before: Duration,
    since: Instant,
}

impl KeptAnswer {
    /// Keeps an answer, from now on. Head and pieces are copied: each may hold a buffer that is larger than itself.
    pub(super) fn new<'a>(
        (model, revision): (&str, ModelRevision),
        head: &SharedHead,
        pieces: impl Iterator<Item = &'a Bytes>,
    ) -> Self {
        let (mut bytes, mut ends) = (BytesMut::new(), Vec::new());
        for piece in pieces {
            bytes.extend_from_slice(piece);
            ends.push(bytes.len());
        }
        let bytes = Bytes::copy_from_slice(&bytes);
        Self::restored((model, revision), Arc::new(head.copied()), (bytes, ends.into()), Duration::ZERO)
    }

    /// Keeps an answer on, which was kept for this time before. `ends` says where each piece of its bytes ends.
    pub(super) fn restored(
        (model, revision): (&str, ModelRevision),
        head: Arc<SharedHead>,
        (bytes, ends): (Bytes, Box<[usize]>),
        age_before: Duration,
    ) -> Self {
        Self { model: model.to_owned(), revision, head, bytes, ends, age_before, since: Instant::now() }
    }

    /// Returns for how long it has been kept.
    pub(super) fn age(&self) -> Duration {
        self.age_at(Instant::now())
    }

    /// Returns for how long it has been kept at this time.
    pub(super) fn age_at(&self, at: Instant) -> Duration {
        self.age_before.saturating_add(at.saturating_duration_since(self.since))
    }

    /// Returns all its pieces in one.
    pub(super) fn body(&self) -> &Bytes {
        &self.bytes
    }

    /// Returns where each piece ends.
    pub(super) fn ends(&self) -> &[usize] {
        &self.ends
    }

    /// Returns the memory that it takes, in bytes.
    pub(super) fn size(&self) -> usize {
        let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            name.as_str().len() + value.len() + HEADER_OVERHEAD
        };
        let headers: usize = self.head.headers.iter().map(header).sum();
        OVERHEAD + headers + self.bytes.len() + size_of_val(&*self.ends) + self.model.len()
    }

    fn piece(&self, index: usize) -> Option<Bytes> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        Some(self.bytes.slice(start..end))
    }
}

/// Reads an answer that is kept.
pub(super) struct KeptReader {
    answer: Arc<KeptAnswer>,
    next: usize,
}

impl KeptReader {
    /// Begins with the first piece.
    pub(super) fn new(answer: Arc<KeptAnswer>) -> Self {
        Self { answer, next: 0 }
    }
}

impl PieceSource for KeptReader {
    fn poll_piece(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, ResponseAborted>>> {
        let piece = self.answer.piece(self.next);
        self.next += 1;
        Poll::Ready(piece.map(Ok))
    }

    fn is_over(&self) -> bool {
        self.next >= self.answer.ends.len()
    }

    fn error_code(&self) -> Option<&'static str> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http::header::{CONTENT_LENGTH, VARY};

    use super::*;

    #[test]
    fn an_answer_is_read_piece_by_piece_as_it_was_given() {
        let pieces = ["data: 1\n\n", "", "data: [DONE]\n\n"].map(|piece| Bytes::from_static(piece.as_bytes()));
        let head = SharedHead { status: StatusCode::OK, headers: HeaderMap::new() };
        let answer = Arc::new(KeptAnswer::new(("m", ModelRevision::default()), &head, pieces.iter()));
        assert!(answer.size() > OVERHEAD + pieces.concat().len());
        for _ in 0..2 {
            let mut reader = KeptReader::new(Arc::clone(&answer));
            let context = &mut Context::from_waker(Waker::noop());
            for piece in &pieces {
                assert!(!reader.is_over());
                let Poll::Ready(Some(Ok(read))) = reader.poll_piece(context) else { panic!("there is a piece") };
                assert_eq!(read, piece);
            }
            assert!(reader.is_over());
            assert!(matches!(reader.poll_piece(context), Poll::Ready(None)));
        }
    }

    /// Regression: a length of a few bytes kept the block that it was cut from, which no bound counts.
    #[test]
    fn the_head_of_a_kept_answer_holds_no_memory_but_its_own() {
        let block = Bytes::from(vec![b'1'; 1024]);
        let mut headers = HeaderMap::with_capacity(90);
        headers.append(CONTENT_LENGTH, HeaderValue::from_maybe_shared(block.slice(..2)).unwrap());
        headers.append(VARY, HeaderValue::from_static("a"));
        headers.append(VARY, HeaderValue::from_static("b"));
        let head = SharedHead { status: StatusCode::OK, headers };
        let kept = KeptAnswer::new(("m", ModelRevision::default()), &head, std::iter::empty()).head;
        assert_eq!((kept.status, &kept.headers), (head.status, &head.headers));
        assert_eq!(head.headers[CONTENT_LENGTH].as_bytes().as_ptr(), block.as_ptr());
        assert_ne!(kept.headers[CONTENT_LENGTH].as_bytes().as_ptr(), block.as_ptr());
        assert!(kept.headers.capacity() < head.headers.capacity());
    }
}
