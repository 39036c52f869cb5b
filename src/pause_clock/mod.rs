//! Time that counts only while this program runs.
//!
//! A platform may stop the whole container for seconds or hours (SIGSTOP and SIGCONT, or a suspended machine), with
//! requests in flight. The kernel's clock goes on meanwhile, so that afterwards every timer is due at once although nobody
//! had a chance to act. Whatever ends a request or a connection for being slow therefore counts in this time: an
//! [`ActiveInstant`] of this module stands still while the program does, and waits for it are prolonged by each pause. What has
//! to agree with others who went on (limits of rate, idle connections, measurements) stays with the kernel's clock.
//!
//! [`PauseClock`] notices pauses; `ledger.rs` says how. While none beats, which is the case in unit tests, nothing is ever a
//! pause and this is the runtime's clock. A program that gets no processor for long looks as if it had been paused, which
//! is just as well: it could not act either.
//!
//! Owns neither the waits nor what follows from them.
//!
//! - `clock.rs`: [`ActiveInstant`], [`ActiveSleep`], and waits that a pause prolongs
//! - `pauses.rs`: how pauses are noticed and added up
//! - `timer.rs`: hyper's own waits in this time

mod clock;
mod pauses;
mod timer;

pub use clock::{ActiveInstant, ActiveSleep, paused, sleep, timeout, timeout_at};
pub use pauses::{BEAT_INTERVAL, PAUSE_LEAST, PauseClock};
pub use timer::ActiveTimer;
