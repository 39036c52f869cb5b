//! The size of what a request keeps while its stages run. Each part is moved once when it is boxed, which is cheap up to
//! the size of a page.

use super::*;

/// The most that a part of the state of one request may take, in bytes. What only few requests need is boxed.
const PART: usize = 4 * 1024;

fn size_of_future<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn the_state_of_a_request_is_small() {
    let client = RequestSource::Platform("test");
    let whole = size_of_future(|(gateway, request): (Arc<Gateway>, Request<InboundBody>)| {
        gateway.respond(request, client, None)
    });
    let later = size_of_future(|(gateway, queued, record): (&'static Arc<Gateway>, Queued, Record)| {
        gateway.queue_and_forward(queued, record)
    });
    assert!(whole <= PART && later <= PART, "{whole} bytes before the queue, {later} after it");
}
