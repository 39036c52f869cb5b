//! Mixed traffic without faults, and between two parts of it a look at what the idle gateway holds: memory, descriptors,
//! threads, the files of its databases, and other files.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{Everything, Pace, checks::files_below, neighbours::REPOSITORIES};
use crate::{
    checks::recovery::until_soon,
    fleet::MODELS,
    random::Random,
    shared::Shared,
    support::{resources, wait},
};

/// Parts of a soak; after each the idle gateway is looked at. Growth counts from the end of the first quarter on: until then
/// pools and the allocator's arenas fill.
const PARTS: u32 = 12;
/// The same for one that is shorter than [`LONG`].
const FEW_PARTS: u32 = 2;
const LONG: Duration = Duration::from_secs(300);
/// The longest pause of a client between two requests, in milliseconds.
const LONGEST_PAUSE: u64 = 2000;
/// Time between two jobs, and between two of what operators do: replace the certificate, order a model, reload, restart the
/// collector.
const JOB_INTERVAL: Duration = Duration::from_secs(4);
const CARE_INTERVAL: Duration = Duration::from_secs(5);
/// How long the gateway is idle before a look, beside the wait for its models to be unloaded; and in a long soak, where the
/// runtime's threads for blocking work end first, which wait for 10 seconds.
const IDLE_TIME: Duration = Duration::from_secs(1);
const LONG_IDLE_TIME: Duration = Duration::from_secs(12);

/// The longest that jobs which wait at the platform take.
const JOBS_DONE: Duration = Duration::from_secs(60);

/// How many more descriptors and threads there may be: connections that are kept for a while, and threads for blocking work.
const MORE_DESCRIPTORS: usize = 8;
const MORE_THREADS: usize = 8;

/// How much resident memory may grow, in KiB. What the allocator keeps of a peak differs from look to look.
const MAX_GROWTH_KIB: u64 = 8 * 1024;
/// How much the files of the ledger may grow, in KiB: it has a row for each hour, key and model, and one for each order of an
/// administrator. The file of the cache has a bound.
const MAX_LEDGER_KIB: u64 = 1024;
const MAX_CACHE_KIB: u64 = 1024;

/// What the idle gateway holds.
#[derive(Debug, Clone, Copy)]
struct Holdings {
    resident_kib: u64,
    descriptors: usize,
    threads: usize,
    ledger_kib: u64,
    cache_kib: u64,
    /// Files that are no database and no log.
    files: usize,
}

/// Runs a soak of this many seconds. Returns a table.
///
/// # Errors
///
/// What grows, or what is wrong with an answer.
pub(crate) fn soak(mut random: Random, seconds: usize) -> Result<String, String> {
    let own = Random::new(random.next(), 7);
    let mut everything = Everything::start(own, false);
    let shared = Shared::new(everything.fleet.target());
    let pace = Pace { is_real: false, longest_pause: LONGEST_PAUSE };
    let whole = Duration::from_secs(seconds as u64);
    let table = everything.with_clients(&shared, random, pace, |lane| lane.run_parts(&shared, whole));
    let table = table.and_then(|table| everything.check_end(&shared).map(|()| table));
    let table = everything.explain(table)?;
    Ok(format!("{table}  {}", everything.around.report()))
}

impl Everything {
    fn run_parts(&mut self, shared: &Shared, whole: Duration) -> Result<String, String> {
        let parts = if whole < LONG { FEW_PARTS } else { PARTS };
        let mut table = String::from(
            "| second | resident KiB | descriptors | threads | ledger KiB | cache KiB | files | requests |\n",
        );
        let (begin, mut looks) = (Instant::now(), Vec::new());
        for number in 1..=parts {
            self.run_part(shared, (whole / parts * number).saturating_sub(begin.elapsed()))?;
            let now = self.look(shared, if whole < LONG { IDLE_TIME } else { LONG_IDLE_TIME })?;
            let Holdings { resident_kib, descriptors, threads, ledger_kib, cache_kib, files } = now;
            let requests: u64 = shared.counts().totals.values().sum();
            let second = begin.elapsed().as_secs();
            let row = format!(
                "| {second} | {resident_kib} | {descriptors} | {threads} | {ledger_kib} | {cache_kib} | {files} | {requests} |"
            );
            println!("{row}");
            table += &format!("{row}\n");
            looks.push(now);
        }
        let (early, late) = (looks[looks.len() / 4], looks[looks.len() - 1]);
        let has_grown = late.resident_kib > early.resident_kib + MAX_GROWTH_KIB
            || late.descriptors > early.descriptors + MORE_DESCRIPTORS
            || late.threads > early.threads + MORE_THREADS
            || late.ledger_kib > early.ledger_kib + MAX_LEDGER_KIB
            || late.cache_kib > early.cache_kib + MAX_CACHE_KIB
            || late.files > early.files;
        match has_grown {
            true => Err(format!("something grows: {early:?} became {late:?}\n{table}")),
            false => Ok(table),
        }
    }

    /// Lets traffic run for a while, and does what operators do.
    fn run_part(&mut self, shared: &Shared, time: Duration) -> Result<(), String> {
        let begin = Instant::now();
        let (mut next_job, mut next_care, mut cares) = (Duration::ZERO, CARE_INTERVAL, 0_usize);
        while begin.elapsed() < time {
            if begin.elapsed() >= next_job {
                next_job += JOB_INTERVAL;
                self.around.offer_job(&mut self.random);
                shared.counts().add_possible();
            }
            if begin.elapsed() >= next_care {
                next_care += CARE_INTERVAL;
                self.take_care(cares, shared)?;
                cares += 1;
            }
            thread::sleep(wait::POLL * 20);
            let violations = shared.violations();
            if !violations.is_empty() {
                return Err(violations.join("\n"));
            }
        }
        self.around.collector.come_back();
        Ok(())
    }

    fn take_care(&mut self, number: usize, shared: &Shared) -> Result<(), String> {
        match number % 5 {
            0 => self.around.replace_certificate(),
            1 => return self.order(REPOSITORIES[number / 5 % REPOSITORIES.len()], shared),
            2 => self.around.collector.leave(),
            3 => self.around.collector.come_back(),
            _ => {
                shared.counts().add_possible();
                let answer = self.admin().try_send("POST", "/reload", b"").map_err(|error| error.to_string())?;
                if answer.status() != 200 {
                    return Err(format!("POST /reload: {} {}", answer.status(), answer.text()));
                }
            }
        }
        Ok(())
    }

    /// Waits until no request is left and no model is loaded, and looks at what the gateway holds.
    fn look(&mut self, shared: &Shared, idle_time: Duration) -> Result<Holdings, String> {
        self.check_downloads(shared)?;
        self.fleet.pause_clients(shared)?;
        until_soon(|| self.check_listeners())?;
        let begin = Instant::now();
        while self.around.platform.waiting_jobs() > 0 {
            if begin.elapsed() > wait::patient(JOBS_DONE) {
                return Err(format!("{} jobs are not taken", self.around.platform.waiting_jobs()));
            }
            thread::sleep(wait::POLL);
        }
        self.check_jobs()?;
        self.fleet.check_idle(shared)?;
        for model in MODELS.iter().chain(&["vectors", "ranks"]) {
            shared.counts().add_possible();
            let path = format!("/v1/models/{model}/unload");
            self.admin().try_send("POST", &path, b"").map_err(|error| error.to_string())?;
        }
        let is_unloaded = || match self.fleet.process.child_pids().len() {
            0 => Ok(()),
            count => Err(format!("{count} models stay loaded")),
        };
        until_soon(is_unloaded)?;
        thread::sleep(idle_time);
        let pid = self.fleet.process.pid();
        let folders = [self.fleet.process.data_dir(), self.around.folder.path()];
        let files: Vec<_> = folders.into_iter().flat_map(files_below).collect();
        let ending =
            |path: &std::path::Path| path.extension().and_then(|it| it.to_str()).unwrap_or_default().to_owned();
        let is_database = |path: &std::path::Path| ending(path).starts_with("db");
        let size_of = |name: &str| {
            let is_part =
                |path: &&std::path::PathBuf| path.file_name().is_some_and(|it| it.to_string_lossy().starts_with(name));
            files.iter().filter(is_part).map(|path| path.metadata().map_or(0, |it| it.len())).sum::<u64>() >> 10
        };
        let holdings = Holdings {
            resident_kib: resources::resident_kib(pid),
            descriptors: resources::fds(pid),
            threads: resources::threads(pid).len(),
            ledger_kib: size_of("usage.db"),
            cache_kib: size_of("cache.db"),
            files: files.iter().filter(|path| !is_database(path) && !ending(path).starts_with("log")).count(),
        };
        shared.set_paused(false);
        Ok(holdings)
    }
}
