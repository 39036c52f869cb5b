//! How pauses are noticed: a thread beats, and a gap between two beats is a pause.
//!
//! Whoever judges whether time is up looks too: after a pause a timer may well fire before the next beat. The beat has a
//! thread of its own because the runtime's threads may be busy, which is no pause. A pause shorter than [`PAUSE_LEAST`]
//! counts as time. Of a gap [`BEAT_INTERVAL`] counts as time, lest a program that is paused over and over never gets to
//! the end of a wait.
//!
//! The account is one for the whole process, since it is the process that is paused.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::time::Instant;
use tracing::info;

/// Time between two signs of life of this program, from which it learns that it was paused.
pub const BEAT_INTERVAL: Duration = Duration::from_millis(250);

/// Shortest time without a sign of life that counts as a pause. Longer than [`BEAT_INTERVAL`].
pub const PAUSE_LEAST: Duration = Duration::from_secs(1);

static LEDGER: Ledger = Ledger::new();

/// From when the ledger's clock counts; set before the first beat.
static START: OnceLock<Instant> = OnceLock::new();

/// Notices pauses until it is dropped.
#[derive(Debug)]
pub struct PauseClock {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What is known of pauses, in nanoseconds of a clock that goes on meanwhile.
#[derive(Debug)]
struct Ledger {
    /// The last beat; 0 while nobody beats. Written after `paused`, so whoever sees a beat sees all pauses before it.
    beat: AtomicU64,
    /// The sum of all pauses.
    paused: AtomicU64,
    /// Only one at a time writes.
    writer: Mutex<()>,
}

impl Ledger {
    const fn new() -> Self {
        Self { beat: AtomicU64::new(0), paused: AtomicU64::new(0), writer: Mutex::new(()) }
    }

    fn found(&self) -> u64 {
        self.paused.load(Ordering::Relaxed)
    }

    /// The present and the sum of all pauses before it, none of which came between the two.
    fn read<T>(&self, clock: impl Fn() -> (T, u64)) -> (T, u64) {
        loop {
            let before = self.found();
            let (time, now) = clock();
            let beat = self.beat.load(Ordering::Acquire);
            if beat != 0 && is_pause(now.saturating_sub(beat)) {
                self.beat(now);
            }
            if self.found() == before {
                return (time, before);
            }
        }
    }

    /// The program runs now.
    fn beat(&self, now: u64) {
        let _writer = self.lock();
        let beat = self.beat.load(Ordering::Relaxed);
        if beat == 0 {
            return;
        }
        let gap = now.saturating_sub(beat);
        if is_pause(gap) {
            self.paused.fetch_add(gap - nanoseconds(BEAT_INTERVAL), Ordering::Relaxed);
        }
        self.beat.store(beat.max(now), Ordering::Release);
    }

    /// From now on somebody beats.
    fn start(&self, now: u64) {
        let _writer = self.lock();
        self.beat.store(now.max(1), Ordering::Release);
    }

    /// Nobody beats any more.
    fn stop(&self) {
        let _writer = self.lock();
        self.beat.store(0, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_pause(gap: u64) -> bool {
    gap >= nanoseconds(PAUSE_LEAST)
}

const fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

/// The runtime's clock, and how long this program did not run so far.
pub(super) fn read_clock() -> (Instant, Duration) {
    let Some(start) = START.get() else { return (Instant::now(), Duration::ZERO) };
    let clock = || {
        let now = Instant::now();
        (now, u64::try_from(now.saturating_duration_since(*start).as_nanos()).unwrap_or(u64::MAX))
    };
    let (now, paused) = LEDGER.read(clock);
    (now, Duration::from_nanos(paused))
}

/// How long this program did not run, without another look.
pub(super) fn found() -> Duration {
    Duration::from_nanos(LEDGER.found())
}

impl PauseClock {
    /// Notices pauses from now on.
    pub fn start() -> io::Result<Self> {
        let start = START.get_or_init(Instant::now);
        LEDGER.start(nanoseconds(start.elapsed()));
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let thread = thread::Builder::new().name("beat".to_owned()).spawn(move || {
            let mut told = found();
            while !is_over.load(Ordering::Acquire) {
                thread::park_timeout(BEAT_INTERVAL);
                LEDGER.beat(nanoseconds(start.elapsed()));
                let paused = found();
                if paused > told {
                    info!(
                        "this program did not run for {:.1} s; no timeout counts them",
                        (paused - told).as_secs_f64()
                    );
                    told = paused;
                }
            }
        });
        if thread.is_err() {
            LEDGER.stop();
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
        LEDGER.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const BEAT: u64 = nanoseconds(BEAT_INTERVAL);
    const LEAST: u64 = nanoseconds(PAUSE_LEAST);
    const HOUR: u64 = 3_600_000_000_000;

    fn started() -> Ledger {
        let ledger = Ledger::new();
        ledger.start(1);
        ledger
    }

    fn paused_at(ledger: &Ledger, now: u64) -> u64 {
        ledger.read(|| ((), now)).1
    }

    #[test]
    fn a_gap_between_two_beats_is_a_pause_but_for_one_interval() {
        let ledger = started();
        ledger.beat(1 + BEAT);
        ledger.beat(1 + BEAT + HOUR);
        assert_eq!(ledger.found(), HOUR - BEAT);
        ledger.beat(1 + BEAT + HOUR + LEAST);
        assert_eq!(ledger.found(), HOUR + LEAST - 2 * BEAT);
    }

    #[test]
    fn a_late_beat_is_no_pause() {
        let ledger = started();
        let mut now = 1;
        for _ in 0..100 {
            now += LEAST - 1;
            ledger.beat(now);
        }
        assert_eq!(paused_at(&ledger, now + LEAST - 1), 0);
    }

    #[test]
    fn whoever_looks_before_the_beat_finds_the_pause_and_the_beat_does_not_find_it_again() {
        let ledger = started();
        assert_eq!(paused_at(&ledger, 1 + HOUR), HOUR - BEAT);
        assert_eq!(paused_at(&ledger, 2 + HOUR), HOUR - BEAT);
        ledger.beat(3 + HOUR);
        assert_eq!(ledger.found(), HOUR - BEAT);
    }

    #[test]
    fn while_nobody_beats_nothing_is_a_pause() {
        let ledger = Ledger::new();
        assert_eq!(paused_at(&ledger, HOUR), 0);
        ledger.start(HOUR);
        assert_eq!(paused_at(&ledger, 2 * HOUR), HOUR - BEAT);
        ledger.stop();
        ledger.beat(3 * HOUR);
        assert_eq!(paused_at(&ledger, 4 * HOUR), HOUR - BEAT);
    }

    #[test]
    fn a_clock_that_is_behind_the_beat_finds_nothing_and_undoes_nothing() {
        let ledger = started();
        ledger.beat(BEAT);
        ledger.beat(1);
        assert_eq!(paused_at(&ledger, 1), 0);
        assert_eq!(paused_at(&ledger, BEAT + LEAST - 1), 0);
    }

    #[test]
    fn a_pause_in_the_midst_of_a_look_makes_it_look_again() {
        let ledger = started();
        let looks = Cell::new(0);
        let (time, paused) = ledger.read(|| {
            looks.set(looks.get() + 1);
            // The clock was read, the program was paused, and the beat is first to know.
            if looks.get() == 1 {
                ledger.beat(1 + HOUR);
                return (BEAT, BEAT);
            }
            (HOUR + 2, HOUR + 2)
        });
        assert_eq!((looks.get(), time, paused), (2, HOUR + 2, HOUR - BEAT));
    }

    #[test]
    fn many_who_look_at_once_find_a_pause_once() {
        let ledger = started();
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| assert_eq!(paused_at(&ledger, 1 + HOUR), HOUR - BEAT));
            }
        });
        assert_eq!(ledger.found(), HOUR - BEAT);
    }
}
