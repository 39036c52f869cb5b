//! The invariant of responses of workers.

use crate::gateway::exchange::read_response;

/// Checks the response of a worker: where it ends, and what of it is the body, does not depend on the pieces in which it
/// arrives. The first byte sets where it is cut.
pub fn worker_response(data: &[u8]) {
    let Some((cut, bytes)) = data.split_first() else { return };
    let cut = usize::from(*cut).min(bytes.len());
    let (whole, in_two) = (read_response(&[bytes]), read_response(&[&bytes[..cut], &bytes[cut..]]));
    assert_eq!(whole, in_two, "cut at {cut}");
    if let Some((status, body, rest)) = whole {
        assert!(!status.is_informational(), "what comes before the response is skipped");
        assert!(body.len() + rest.len() < bytes.len(), "neither has a byte of the head");
        assert!(bytes.ends_with(&rest));
    }
}
