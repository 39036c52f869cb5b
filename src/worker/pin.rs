//! Whether a worker stays loaded although other models want its memory, or although no request comes for it.
//!
//! Owns what the two kinds of pins mean. The demand of a worker holds its pin; eviction and the owner of the worker obey it.

use serde::Serialize;

/// Why a worker keeps its memory, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pin {
    /// It does not: it makes room for other models.
    #[default]
    Off,
    /// Its configuration says so: it is never evicted, and unloaded after its idle time.
    Configured,
    /// An administrator has ordered it: it is never evicted, and no idle time ends it.
    Ordered,
}

impl Pin {
    /// Returns the pin of a configuration.
    pub(super) fn of_configuration(is_pinned: bool) -> Self {
        if is_pinned { Self::Configured } else { Self::Off }
    }

    /// Returns whether the worker is never evicted.
    #[must_use]
    pub fn is_on(self) -> bool {
        self != Self::Off
    }

    /// Returns whether only an order or the end of its process unloads the worker.
    #[must_use]
    pub fn outlasts_idle_time(self) -> bool {
        self == Self::Ordered
    }
}
