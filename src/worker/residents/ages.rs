//! Since when workers have waited for memory in vain, while nobody wants them for a moment: requests may give up sooner
//! than what is in use has to make room, and whoever tries again must not wait from the start.

use super::Lodger;
use crate::awake::Instant;
use crate::worker::bounds::CLAIM_GRACE;
use std::sync::Arc;

/// Those that have left the line without having been loaded, each for [`CLAIM_GRACE`].
#[derive(Default)]
pub(super) struct Ages(Vec<Age>);

struct Age {
    lodger: Lodger,
    since: Instant,
    until: Instant,
}

impl Ages {
    /// This one has waited since then, and does not now.
    pub(super) fn keep(&mut self, lodger: Lodger, since: Instant) {
        self.0.push(Age { lodger, since, until: Instant::now() + CLAIM_GRACE });
    }

    /// Since when one has waited that comes back, if it is not too late.
    pub(super) fn take(&mut self, lodger: &Lodger) -> Option<Instant> {
        let now = Instant::now();
        self.0.retain(|age| age.until > now);
        let at = self.0.iter().position(|age| Arc::ptr_eq(&age.lodger.wants, &lodger.wants))?;
        Some(self.0.swap_remove(at).since)
    }

    /// A model has had its turn.
    pub(super) fn forget(&mut self, model: &str) {
        self.0.retain(|age| age.lodger.model != model);
    }
}
