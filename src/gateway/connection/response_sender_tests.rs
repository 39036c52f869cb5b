use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use http_body::{Frame, SizeHint};
use http_body_util::Full;
use proptest::prelude::*;

use super::*;

/// A client that takes this many bytes of each write, and then none until it is asked again.
struct SlowClient {
    taken: Vec<u8>,
    writes: usize,
    at_once: usize,
    is_busy: bool,
}

impl SlowClient {
    fn new(at_once: usize) -> Self {
        Self { taken: Vec::new(), writes: 0, at_once, is_busy: false }
    }
}

impl AsyncWrite for SlowClient {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.is_busy = !self.is_busy;
        if self.is_busy {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let offered: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).take(self.at_once).collect();
        self.taken.extend_from_slice(&offered);
        self.writes += 1;
        Poll::Ready(Ok(offered.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A body whose pieces come one by one; `None` is an error.
struct Pieces {
    left: VecDeque<Option<Bytes>>,
    length: Option<u64>,
    is_due: bool,
}

impl Pieces {
    fn of(pieces: impl IntoIterator<Item = Vec<u8>>, length: Option<u64>) -> Self {
        Self { left: pieces.into_iter().map(|piece| Some(piece.into())).collect(), length, is_due: false }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.is_due = !self.is_due;
        if self.is_due {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let next = self.left.pop_front();
        Poll::Ready(next.map(|piece| piece.map(Frame::data).ok_or_else(|| io::ErrorKind::Other.into())))
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Returns what the client gets, without the date, and whether all of it was sent.
fn sent<B>(response: Response<B>, is_last: bool, at_once: usize) -> (String, bool)
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (mut sender, mut client) = (ResponseSender::new(response, is_last), SlowClient::new(at_once));
    let context = &mut Context::from_waker(std::task::Waker::noop());
    let outcome = loop {
        if let Poll::Ready(outcome) = sender.poll_send(context, &mut client) {
            break outcome;
        }
    };
    let text = String::from_utf8_lossy(&client.taken).into_owned();
    let lines = text.split_inclusive("\r\n").filter(|line| !line.starts_with("date: "));
    (lines.collect::<String>().replace("\r\n", "\n"), outcome.is_ok())
}

fn full(text: &'static str) -> Full<Bytes> {
    Full::new(Bytes::from_static(text.as_bytes()))
}

#[test]
fn a_response_has_its_headers_and_a_length_where_it_is_known() {
    let response = Response::builder().header("x-a", "1").header("x-a", "2").body(full("hi")).unwrap();
    let expected = "HTTP/1.1 200 OK\nx-a: 1\nx-a: 2\ncontent-length: 2\n\nhi";
    for at_once in [1, 7, 1000] {
        assert_eq!(sent(response.clone(), false, at_once), (expected.to_owned(), true));
    }
    let head = |response: Response<Full<Bytes>>| sent(response, false, 1000).0;
    let of_worker = Response::builder().status(503).header("content-length", "2").body(full("no")).unwrap();
    assert_eq!(head(of_worker), "HTTP/1.1 503 Service Unavailable\ncontent-length: 2\n\nno");
    assert_eq!(head(Response::new(full(""))), "HTTP/1.1 200 OK\ncontent-length: 0\n\n");
    let without = Response::builder().status(204).header("content-length", "0").body(full("")).unwrap();
    assert_eq!(head(without), "HTTP/1.1 204 No Content\n\n");
}

#[test]
fn a_body_of_unknown_length_is_sent_in_chunks() {
    let body = Pieces::of([b"0123456789abcdef!".to_vec(), Vec::new(), b"x".to_vec()], None);
    let expected = "HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n11\n0123456789abcdef!\n1\nx\n0\n\n";
    assert_eq!(sent(Response::new(body), false, 5), (expected.to_owned(), true));
    let with_length = Response::builder().header("content-length", "3");
    let (text, _) = sent(with_length.body(Pieces::of([b"abc".to_vec()], None)).unwrap(), false, 5);
    assert_eq!(text, "HTTP/1.1 200 OK\ncontent-length: 3\n\nabc", "a worker has told it");
}

/// A body of one piece, which knows that it is the last one. It counts as held while the other half of its `Arc` lives.
struct LastPiece(Option<Bytes>, #[expect(dead_code, reason = "held for its drop")] Arc<()>);

impl Body for LastPiece {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}

/// Regression: what a response holds, such as a key's permit, was held until a slow client had read a large last piece,
/// and the end of the chunks took a write of its own.
#[test]
fn a_body_is_dropped_with_its_last_piece_and_the_end_is_sent_with_it() {
    for length in [10, COPIED_PIECE, COPIED_PIECE + 1, 100_000] {
        let held = Arc::new(());
        let body = LastPiece(Some(vec![b'x'; length].into()), Arc::clone(&held));
        let mut sender = ResponseSender::new(Response::new(body), false);
        let (context, mut client) = (&mut Context::from_waker(std::task::Waker::noop()), SlowClient::new(usize::MAX));
        assert!(sender.poll_send(context, &mut client).is_pending(), "the client is busy");
        assert_eq!(Arc::strong_count(&held), 1, "nothing of {length} bytes is sent yet");
        assert!(matches!(sender.poll_send(context, &mut client), Poll::Ready(Ok(()))));
        assert!(client.taken.ends_with(b"x\r\n0\r\n\r\n"));
        assert_eq!(client.writes, 1, "{length} bytes");
    }
}

#[test]
fn the_last_response_says_so() {
    let (text, _) = sent(Response::new(full("")), true, 100);
    assert_eq!(text, "HTTP/1.1 200 OK\ncontent-length: 0\nconnection: close\n\n");
    let closed = Response::builder().header("connection", "close").body(full("")).unwrap();
    let sender = ResponseSender::new(closed.clone(), false);
    assert!(sender.is_last());
    assert_eq!(sent(closed, false, 100).0, text);
}

#[test]
fn a_body_that_fails_or_ends_too_early_ends_the_connection() {
    let mut failing = Pieces::of([b"ab".to_vec()], None);
    failing.left.push_back(None);
    let (text, is_whole) = sent(Response::new(failing), false, 100);
    assert_eq!((text.ends_with("2\nab\n"), is_whole), (true, false), "what came before is sent: {text}");
    let (_, is_whole) = sent(Response::new(Pieces::of([b"ab".to_vec()], Some(3))), false, 100);
    assert!(!is_whole);
    let (text, is_whole) = sent(Response::new(Pieces::of([b"abcd".to_vec()], Some(3))), false, 100);
    assert!(text.ends_with("\n\nabc") && is_whole, "no more than was announced: {text}");
}

#[test]
fn a_response_has_the_time_once() {
    let head =
        |response: Response<Full<Bytes>>| String::from_utf8(ResponseSender::new(response, false).buffer).unwrap();
    let own = head(Response::new(full("")));
    let date = own.lines().find_map(|line| line.strip_prefix("date: ")).expect("a date");
    assert!(date.ends_with(" GMT") && date.len() == "Thu, 01 Jan 1970 00:00:00 GMT".len(), "{date}");
    let of_worker = Response::builder().header("date", "then").body(full("")).unwrap();
    assert_eq!(head(of_worker).matches("date: ").count(), 1);
}

proptest! {
    #[test]
    fn pieces_of_any_length_arrive_in_order(
        lengths in prop::collection::vec(prop_oneof![0..20_usize, 4000..9000_usize], 0..6),
        at_once in 1..20_000_usize,
        is_known: bool,
    ) {
        let pieces: Vec<Vec<u8>> =
            lengths.iter().enumerate().map(|(at, length)| vec![b'a' + at as u8; *length]).collect();
        let whole = pieces.concat();
        let length = is_known.then_some(whole.len() as u64);
        let (text, is_whole) = sent(Response::new(Pieces::of(pieces, length)), false, at_once);
        let (_, body) = text.split_once("\n\n").unwrap();
        let letters: String = match is_known {
            true => body.to_owned(),
            false => body.lines().skip(1).step_by(2).collect(),
        };
        prop_assert!(is_whole && letters.as_bytes() == whole);
    }
}
