//! The size of what a request keeps while its stages run: what is touched while many requests wait should fit into the CPU's
//! caches, and its blocks into the bins of the allocator that cost least.

use super::*;

/// The most that a part of the state of one request may take, in bytes: glibc keeps freed blocks up to this size at hand for
/// each thread. What only few requests need is boxed.
const PART: usize = 1032;

fn size_of_future<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn the_state_of_a_request_is_small() {
    type Begun = (Arc<Gateway>, Box<Parts>, RequestSource, Record, Box<ResponseContext>);
    let whole = size_of_future(|(gateway, parts, source, record, context): Begun| {
        gateway.run_stages(parts, source, record, context)
    });
    let later = size_of_future(|(gateway, queued, record): (&'static Arc<Gateway>, Box<Queued>, Record)| {
        gateway.queue_and_forward(queued, record)
    });
    let queued = size_of::<Queued>();
    assert!(
        whole <= PART && later <= PART && queued <= PART,
        "{whole} bytes before the queue, {later} after it, {queued} through both"
    );
}
