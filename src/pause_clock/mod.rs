//! A clock that stands still while this program is paused.
//!
//! A platform may freeze the whole container for seconds or hours while requests are in flight. SIGSTOP and the cgroup
//! freezer stop every thread of this program and of its llama-servers. The kernel, the clients and remote backends go
//! on: data arrives in socket buffers, TCP timers run, and `CLOCK_MONOTONIC`, which `std::time::Instant` and tokio's
//! timers use, keeps counting. After SIGCONT or a thaw every timer is therefore due at once, although neither side had
//! time to act. (When Linux itself is suspended, `CLOCK_MONOTONIC` stops too, and there is nothing to correct; a paused
//! virtual machine may see either.) So every wait that ends a request, a connection or a worker for being slow uses
//! [`ActiveInstant`], which leaves pauses out: timeouts of requests and streams, waits in the queue, probes, loads,
//! hang detection. Waits that must agree with the outside world stay on the kernel's clock: rate limits, idle
//! connections, measured durations.
//!
//! [`PauseClock`] detects pauses; `pauses.rs` says how. Without one, as in most unit tests, no pause is ever found and
//! this clock equals tokio's. A program that gets no CPU time for a second or longer is treated as paused, because it
//! could not act in that time either.
//!
//! Does not own the waits themselves, nor what their callers do when time is up.
//!
//! - `clock.rs`: [`ActiveInstant`], [`ActiveSleep`], and timeouts that leave pauses out
//! - `held_reading.rs`: [`OneReadingPerPoll`], for tasks that ask for the time often
//! - `lazy_timer.rs`: [`LazyTimer`], for a deadline that is moved often
//! - `pauses.rs`: detects pauses and adds them up
//! - `timer.rs`: hyper's timer on this clock

mod clock;
mod held_reading;
mod lazy_timer;
mod pauses;
mod timer;

pub use clock::{ActiveInstant, ActiveSleep, fresh_kernel_now, kernel_now, sleep, timeout, timeout_at, total_paused};
pub use held_reading::OneReadingPerPoll;
pub use lazy_timer::LazyTimer;
pub use pauses::{BEAT_INTERVAL, MIN_PAUSE, PauseClock};
pub use timer::ActiveTimer;
