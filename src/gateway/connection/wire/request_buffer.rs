//! The memory of requests that have arrived whole.
//!
//! The target, the header values and the body of such a request are pieces of one buffer, which counts them. A thread keeps
//! the buffers of requests that have been answered, with their counts, for the next ones: an allocation of both would cost
//! more than the copy. A connection without a request holds none.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};

use crate::gateway::bounds::{KEPT_REQUEST_BUFFERS, KEPT_REQUEST_SIZE};

thread_local! {
    static KEPT: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// The buffer of a connection's current request. Empty if there is none, or if the request is long.
#[derive(Default)]
pub(super) struct RequestBuffer(BytesMut);

impl RequestBuffer {
    /// Returns a copy of a request, which lives in this buffer if it is short.
    pub(super) fn copy(&mut self, request: &[u8]) -> Bytes {
        if request.len() > KEPT_REQUEST_SIZE {
            return Bytes::copy_from_slice(request);
        }
        self.0 = KEPT.with_borrow_mut(Vec::pop).unwrap_or_else(|| BytesMut::with_capacity(KEPT_REQUEST_SIZE));
        self.0.extend_from_slice(request);
        self.0.split().freeze()
    }

    /// Keeps the buffer for a later request once this one has been answered, unless a piece of it is still in use.
    pub(super) fn keep(&mut self) {
        let mut buffer = std::mem::take(&mut self.0);
        if buffer.try_reclaim(KEPT_REQUEST_SIZE) {
            KEPT.with_borrow_mut(|kept| {
                if kept.len() < KEPT_REQUEST_BUFFERS {
                    kept.push(buffer);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_once_no_piece_of_it_is_left() {
        let mut buffer = RequestBuffer::default();
        let first = buffer.copy(b"a request");
        let (place, piece) = (first.as_ptr(), first.slice(2..));
        drop(first);
        buffer.keep();
        let second = buffer.copy(b"another one");
        assert_eq!((&piece[..], &second[..]), (&b"request"[..], &b"another one"[..]));
        assert_ne!(second.as_ptr(), place, "a piece of the first one is still in use");
        let place = second.as_ptr();
        drop(second);
        buffer.keep();
        let third = buffer.copy(&[b'x'; KEPT_REQUEST_SIZE]);
        assert_eq!((third.as_ptr(), &third[..]), (place, &[b'x'; KEPT_REQUEST_SIZE][..]));
    }

    #[test]
    fn a_thread_keeps_no_more_than_the_most_of_them_and_no_long_one() {
        let mut buffers: Vec<RequestBuffer> = (0..2 * KEPT_REQUEST_BUFFERS).map(|_| RequestBuffer::default()).collect();
        let copies: Vec<Bytes> = buffers.iter_mut().map(|buffer| buffer.copy(b"x")).collect();
        drop(copies);
        buffers.iter_mut().for_each(RequestBuffer::keep);
        assert_eq!(KEPT.with_borrow(Vec::len), KEPT_REQUEST_BUFFERS);
        let long = vec![b'x'; KEPT_REQUEST_SIZE + 1];
        let mut buffer = RequestBuffer::default();
        assert_eq!(buffer.copy(&long), long);
        buffer.keep();
        assert_eq!(KEPT.with_borrow(Vec::len), KEPT_REQUEST_BUFFERS);
    }
}
