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
/// collector. Each of these is done in every part, however short that is.
const JOB_INTERVAL: Duration = Duration::from_secs(4);
const CARE_INTERVAL: Duration = Duration::from_secs(5);
const CARES: u32 = 5;
/// How long the gateway is idle before a look, beside the wait for its models to be unloaded; and in a long soak, where the
/// runtime's threads for blocking work end first, which wait for 10 seconds.
const IDLE_TIME: Duration = Duration::from_secs(1);
const LONG_IDLE_TIME: Duration = Duration::from_secs(12);

/// How many times more of all that follows a short soak may have: its first look comes while pools and arenas still fill.
const SHORT_FACTOR: u64 = 3;

/// How many more descriptors and threads there may be: connections that are kept for a while, and threads for blocking work.
const MORE_DESCRIPTORS: u64 = 8;
const MORE_THREADS: u64 = 8;

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
    descriptors: u64,
    threads: u64,
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
        let (begin, mut looks, mut before) = (Instant::now(), Vec::new(), 0);
        for _ in 0..parts {
            self.run_part(shared, whole / parts)?;
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
            if requests == std::mem::replace(&mut before, requests) {
                return Err(format!("a part proves nothing, because it had no request\n{table}"));
            }
        }
        let (early, late) = (looks[(looks.len() / 4).saturating_sub(1)], looks[looks.len() - 1]);
        let factor = if whole < LONG { SHORT_FACTOR } else { 1 };
        let has_grown = late.resident_kib > early.resident_kib + factor * MAX_GROWTH_KIB
            || late.descriptors > early.descriptors + factor * MORE_DESCRIPTORS
            || late.threads > early.threads + factor * MORE_THREADS
            || late.ledger_kib > early.ledger_kib + factor * MAX_LEDGER_KIB
            || late.cache_kib > early.cache_kib + factor * MAX_CACHE_KIB
            || late.files > early.files;
        match has_grown {
            true => Err(format!("something grows: {early:?} became {late:?}\n{table}")),
            false => Ok(table),
        }
    }

    /// Lets traffic run for a while, and does what operators do.
    fn run_part(&mut self, shared: &Shared, time: Duration) -> Result<(), String> {
        let begin = Instant::now();
        let interval = CARE_INTERVAL.min(time / (CARES + 1));
        let (mut next_job, mut next_care, mut cares) = (Duration::ZERO, interval, 0);
        while begin.elapsed() < time {
            if begin.elapsed() >= next_job {
                next_job += JOB_INTERVAL;
                self.around.offer_job(&mut self.random);
                shared.counts().add_possible();
            }
            if begin.elapsed() >= next_care {
                next_care += interval;
                self.take_care(cares, shared)?;
                cares += 1;
            }
            thread::sleep(wait::POLL * 20);
            let violations = shared.violations();
            if !violations.is_empty() {
                return Err(violations.join("\n"));
            }
        }
        // A slow machine may not have come to all of them.
        (cares..CARES).try_for_each(|number| self.take_care(number, shared))?;
        self.bring_collector_back()
    }

    fn bring_collector_back(&self) -> Result<(), String> {
        until_soon(|| match self.around.collector.come_back() {
            true => Ok(()),
            false => Err("another program has the port of the collector".to_owned()),
        })
    }

    fn take_care(&mut self, number: u32, shared: &Shared) -> Result<(), String> {
        match number % CARES {
            0 => self.around.replace_certificate(),
            1 => return self.order(REPOSITORIES[(number / CARES) as usize % REPOSITORIES.len()], shared).map(drop),
            2 => self.around.collector.leave(),
            3 => return self.bring_collector_back(),
            _ => {
                shared.counts().add_possible_call();
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
        self.finish_jobs()?;
        self.fleet.check_idle(shared)?;
        for model in MODELS.iter().chain(&["vectors", "ranks"]) {
            shared.counts().add_possible_call();
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
            descriptors: resources::fds(pid) as u64,
            threads: resources::threads(pid).len() as u64,
            ledger_kib: size_of("usage.db"),
            cache_kib: size_of("cache.db"),
            files: files.iter().filter(|path| !is_database(path) && !ending(path).starts_with("log")).count(),
        };
        shared.set_paused(false);
        Ok(holdings)
    }
}
