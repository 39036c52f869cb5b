//! Why none of a model's workers can serve a request, and which of several reasons counts.

/// The reasons why no worker can be leased now. Of several reasons the most hopeful one counts;
/// [`Unavailable::hopefulness`] ranks them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// A worker died while it served this request, and another request under the same suspicion is in flight.
    Suspected,
    /// The only workers with a free slot already failed to serve this request, or their API has nothing for it, and
    /// another worker can serve it.
    OnlyTriedBefore,
    /// All slots of the workers that can serve are taken.
    Busy,
    /// The worker broke a connection and is about to be probed.
    BeingProbed,
    /// The worker is starting or loading, or will be restarted.
    Loading,
    /// The worker was unloaded because it was idle; a request wakes it.
    Asleep,
    /// The quota of the remote backend is exhausted for now.
    QuotaExhausted,
    /// The breaker of the remote backend is open.
    BreakerOpen,
    /// The worker does not answer its probes, or is being stopped.
    Down,
    /// The worker has failed permanently.
    Failed,
    /// The model has no worker.
    Absent,
    /// Workers died each time they served this request.
    Blocked,
}

impl Unavailable {
    /// Returns how soon the request may be served in spite of this reason: the higher, the sooner.
    ///
    /// The order is behaviour: it decides whether a request waits, goes to another model or is refused, and with which
    /// error.
    fn hopefulness(self) -> u8 {
        match self {
            Self::Suspected => 11,
            Self::OnlyTriedBefore => 10,
            Self::Busy => 9,
            Self::BeingProbed => 8,
            Self::Loading => 7,
            Self::Asleep => 6,
            Self::QuotaExhausted => 5,
            Self::BreakerOpen => 4,
            Self::Down => 3,
            Self::Failed => 2,
            Self::Absent => 1,
            Self::Blocked => 0,
        }
    }

    /// Returns the most hopeful of these reasons, or `None` if there is none.
    pub(super) fn most_hopeful(reasons: impl IntoIterator<Item = Self>) -> Option<Self> {
        reasons.into_iter().max_by_key(|reason| reason.hopefulness())
    }
}

#[cfg(test)]
mod tests {
    use super::Unavailable::{self, *};

    /// From the most hopeful to the least.
    const ORDER: [Unavailable; 12] = [
        Suspected,
        OnlyTriedBefore,
        Busy,
        BeingProbed,
        Loading,
        Asleep,
        QuotaExhausted,
        BreakerOpen,
        Down,
        Failed,
        Absent,
        Blocked,
    ];

    #[test]
    fn each_reason_is_more_hopeful_than_those_after_it() {
        for (at, reason) in ORDER.into_iter().enumerate() {
            for other in &ORDER[at + 1..] {
                assert!(reason.hopefulness() > other.hopefulness(), "{reason:?} {other:?}");
            }
            let rest = ORDER[at..].iter().rev().copied();
            assert_eq!(Unavailable::most_hopeful(rest), Some(reason));
        }
        assert_eq!(Unavailable::most_hopeful([]), None);
    }
}
