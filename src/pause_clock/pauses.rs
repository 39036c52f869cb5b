//! Detects pauses: a thread records a beat every [`BEAT_INTERVAL`], and a gap of [`MIN_PAUSE`] between two beats is a
//! pause.
//!
//! Every read of the clock checks for a gap too, because after a pause a timer may fire before the next beat. The beat
//! has its own thread, because tokio's threads may be busy, which is not a pause. A shorter gap counts as time. Of each
//! pause, [`BEAT_INTERVAL`] still counts as time, so that waits end even if the program is paused over and over.
//!
//! There is one log of pauses for the whole process, because it is the process that is paused.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

/// Time between two beats of the thread that detects pauses.
pub const BEAT_INTERVAL: Duration = Duration::from_millis(250);

/// Shortest gap between two beats that counts as a pause. Longer than [`BEAT_INTERVAL`].
pub const MIN_PAUSE: Duration = Duration::from_secs(1);

static PAUSE_LOG: PauseLog = PauseLog::new();

/// Zero of the nanoseconds in [`PAUSE_LOG`]; set before the first beat.
static START: OnceLock<Instant> = OnceLock::new();

/// Detects pauses until it is dropped. Owns the thread that beats.
#[derive(Debug)]
pub struct PauseClock {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The pauses so far, in nanoseconds of the kernel's monotonic clock, which runs during a pause.
#[derive(Debug)]
struct PauseLog {
    /// The last beat; 0 while no [`PauseClock`] runs. Stored (release) after `paused`, so a thread that loads (acquire)
    /// a beat also sees every pause before it.
    beat: AtomicU64,
    /// The sum of all pauses.
    paused: AtomicU64,
    /// Held by every writer; readers take no lock.
    writer: Mutex<()>,
}

impl PauseLog {
    const fn new() -> Self {
        Self { beat: AtomicU64::new(0), paused: AtomicU64::new(0), writer: Mutex::new(()) }
    }

    fn total(&self) -> u64 {
        self.paused.load(Ordering::Relaxed)
    }

    /// Returns the current time and the sum of all pauses before it. No pause lies between reading the two.
    fn read<T>(&self, clock: impl Fn() -> (T, u64)) -> (T, u64) {
        loop {
            let before = self.total();
            let (time, now) = clock();
            let beat = self.beat.load(Ordering::Acquire);
            if beat != 0 && is_pause(now.saturating_sub(beat)) {
                self.record_beat(now);
            }
            // A pause between the two reads of the sum may lie before or after `time`: read both again.
            if self.total() == before {
                return (time, before);
            }
        }
    }

    /// Records that the program runs now, and a pause if the last beat is long ago.
    fn record_beat(&self, now: u64) {
        let _writer = self.lock();
        // Loaded under the lock: of several threads that saw the same gap, only the first still finds it.
        let beat = self.beat.load(Ordering::Relaxed);
        if beat == 0 {
            return;
        }
        let gap = now.saturating_sub(beat);
        if is_pause(gap) {
            self.paused.fetch_add(gap - nanoseconds(BEAT_INTERVAL), Ordering::Relaxed);
        }
        // Callers read their clock before they wait for the lock, so `now` may be older than the last beat.
        self.beat.store(beat.max(now), Ordering::Release);
    }

    /// Starts detecting pauses.
    fn start(&self, now: u64) {
        let _writer = self.lock();
        self.beat.store(now.max(1), Ordering::Release);
    }

    /// Stops detecting pauses. The sum stays.
    fn stop(&self) {
        let _writer = self.lock();
        self.beat.store(0, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_pause(gap: u64) -> bool {
    gap >= nanoseconds(MIN_PAUSE)
}

const fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

/// Reads tokio's clock and the sum of all pauses before that time.
pub(super) fn read_clock() -> (Instant, Duration) {
    let Some(start) = START.get() else { return (Instant::now(), Duration::ZERO) };
    let clock = || {
        let now = Instant::now();
        (now, u64::try_from(now.saturating_duration_since(*start).as_nanos()).unwrap_or(u64::MAX))
    };
    let (now, paused) = PAUSE_LOG.read(clock);
    (now, Duration::from_nanos(paused))
}

/// Returns the sum of the pauses that are known, without checking for another one.
pub(super) fn known_paused() -> Duration {
    Duration::from_nanos(PAUSE_LOG.total())
}

impl PauseClock {
    /// Starts the thread that beats, and detects pauses from now on.
    ///
    /// # Errors
    ///
    /// The system cannot start a thread.
    pub fn start() -> io::Result<Self> {
        let start = START.get_or_init(Instant::now);
        PAUSE_LOG.start(nanoseconds(start.elapsed()));
        let stop = Arc::new(AtomicBool::new(false));
        let should_stop = Arc::clone(&stop);
        let thread = thread::Builder::new().name("beat".to_owned()).spawn(move || {
            let mut reported = known_paused();
            while !should_stop.load(Ordering::Acquire) {
                // Parked rather than asleep, so that `drop` does not wait for the rest of the interval.
                thread::park_timeout(BEAT_INTERVAL);
                PAUSE_LOG.record_beat(nanoseconds(start.elapsed()));
                let paused = known_paused();
                if paused > reported {
                    info!(
                        "this program did not run for {:.1} s; no timeout counts them",
                        (paused - reported).as_secs_f64()
                    );
                    reported = paused;
                }
            }
        });
        // Without a thread that beats, every wait longer than a second would look like a pause.
        if thread.is_err() {
            PAUSE_LOG.stop();
        }
        Ok(Self { stop, thread: Some(thread?) })
    }
}

impl Drop for PauseClock {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
        // After the thread has ended, so that no beat follows.
        PAUSE_LOG.stop();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const BEAT: u64 = nanoseconds(BEAT_INTERVAL);
    const MIN: u64 = nanoseconds(MIN_PAUSE);
    const HOUR: u64 = 3_600_000_000_000;

    fn started() -> PauseLog {
        let pauses = PauseLog::new();
        pauses.start(1);
        pauses
    }

    /// Reads the log at this time and returns the sum of all pauses.
    fn paused_at(pauses: &PauseLog, now: u64) -> u64 {
        pauses.read(|| ((), now)).1
    }

    #[test]
    fn a_gap_between_two_beats_is_a_pause_less_one_interval() {
        let pauses = started();
        pauses.record_beat(1 + BEAT);
        pauses.record_beat(1 + BEAT + HOUR);
        assert_eq!(pauses.total(), HOUR - BEAT);
        pauses.record_beat(1 + BEAT + HOUR + MIN);
        assert_eq!(pauses.total(), HOUR + MIN - 2 * BEAT);
    }

    #[test]
    fn a_late_beat_is_no_pause() {
        let pauses = started();
        let mut now = 1;
        for _ in 0..100 {
            now += MIN - 1;
            pauses.record_beat(now);
        }
        assert_eq!(paused_at(&pauses, now + MIN - 1), 0);
    }

    #[test]
    fn a_read_before_the_beat_finds_the_pause_and_the_beat_does_not_count_it_again() {
        let pauses = started();
        assert_eq!(paused_at(&pauses, 1 + HOUR), HOUR - BEAT);
        assert_eq!(paused_at(&pauses, 2 + HOUR), HOUR - BEAT);
        pauses.record_beat(3 + HOUR);
        assert_eq!(pauses.total(), HOUR - BEAT);
    }

    #[test]
    fn no_pause_is_found_before_the_start_and_after_the_stop() {
        let pauses = PauseLog::new();
        assert_eq!(paused_at(&pauses, HOUR), 0);
        pauses.start(HOUR);
        assert_eq!(paused_at(&pauses, 2 * HOUR), HOUR - BEAT);
        pauses.stop();
        pauses.record_beat(3 * HOUR);
        assert_eq!(paused_at(&pauses, 4 * HOUR), HOUR - BEAT);
    }

    #[test]
    fn a_clock_that_is_behind_the_last_beat_changes_nothing() {
        let pauses = started();
        pauses.record_beat(BEAT);
        pauses.record_beat(1);
        assert_eq!(paused_at(&pauses, 1), 0);
        assert_eq!(paused_at(&pauses, BEAT + MIN - 1), 0);
    }

    #[test]
    fn a_pause_during_a_read_makes_it_read_again() {
        let pauses = started();
        let reads = Cell::new(0);
        let (time, paused) = pauses.read(|| {
            reads.set(reads.get() + 1);
            // The program is paused after the clock was read, and the next beat records that first.
            if reads.get() == 1 {
                pauses.record_beat(1 + HOUR);
                return (BEAT, BEAT);
            }
            (HOUR + 2, HOUR + 2)
        });
        assert_eq!((reads.get(), time, paused), (2, HOUR + 2, HOUR - BEAT));
    }

    #[test]
    fn threads_that_read_at_once_count_a_pause_once() {
        let pauses = started();
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| assert_eq!(paused_at(&pauses, 1 + HOUR), HOUR - BEAT));
            }
        });
        assert_eq!(pauses.total(), HOUR - BEAT);
    }
}
