//! How many downloads and listeners there may be, and how often downloads are told of.

use std::time::Duration;

/// Most downloads that run at once; one that the start waits for runs in any case.
pub(super) const MOST_RUNNING: usize = 2;
/// Most downloads that have not ended: those that run and those that wait for their turn.
pub(super) const MOST_UNFINISHED: usize = 32;
/// Most ended downloads that are remembered; the oldest goes first.
pub(super) const MOST_ENDED: usize = 64;
/// Most listeners of all downloads together.
pub(super) const MOST_FOLLOWERS: usize = 64;
/// Shortest time between two events of one download, but for its last one.
pub(super) const EVENT_INTERVAL: Duration = Duration::from_millis(500);
/// Longest time in which a listener hears nothing.
pub(super) const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);
/// Most characters of a name that an error repeats.
pub(super) const SHOWN_NAME: usize = 128;
/// Time between two lines of the log about a download.
pub(super) const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// Most looks at the disk for models that are ordered; each has a thread until the disk answers.
pub(super) const LOOKS_AT_ONCE: usize = 4;
/// Longest wait for a look at the disk, and for its turn: the folders may be on a volume that does not answer.
pub(super) const LOOK_WAIT: Duration = Duration::from_secs(10);
/// Longest wait for a scan of the models after a download.
pub(super) const SCAN_WAIT: Duration = Duration::from_secs(10);
/// Longest wait for a cancelled download to stop.
pub(super) const CANCEL_WAIT: Duration = Duration::from_secs(5);
