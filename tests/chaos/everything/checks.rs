//! What must hold in the lane with everything on after each round, and at the end: downloads end whole and leave no part
//! behind, the feed has no listener when none listens, each job is answered once, the certificate is the one in the file, and
//! the files of the ledger and the cache are sound.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use llamagate::tls::LOOK_INTERVAL;
use nix::sys::signal::Signal;

use super::{Everything, dialects::check_each_call, neighbours::REPOSITORIES};
use crate::{
    checks::{
        invariants::check_database,
        jobs::{check_results, find_unanswered},
        recovery::until_soon,
    },
    fleet::{MODELS, check_round},
    shared::Shared,
    support::{certificates::shown_certificate, mock_hub::HubFaults, wait},
};

/// The longest that a download takes when the hub is well.
const DOWNLOADED: Duration = Duration::from_secs(60);
/// The longest that the answers to all jobs may take after the last fault: the last attempts to post a result are half a
/// minute apart.
const ANSWERED: Duration = Duration::from_secs(45);
/// The longest that jobs which wait at the platform take.
const JOBS_TAKEN: Duration = Duration::from_secs(60);
/// The longest that the gateway takes to show a certificate whose files have been replaced.
const CERTIFICATE_FOLLOWED: Duration = Duration::from_secs(12);

impl Everything {
    /// Ends all faults and checks that everything works again. Returns how long the slowest model took.
    pub(super) fn check_round(&mut self, shared: &Shared) -> Result<Duration, String> {
        self.repair(None);
        self.fleet.repair(None, shared);
        self.check_downloads(shared)?;
        self.fleet.pause_clients(shared)?;
        until_soon(|| self.check_listeners())?;
        // First, because a job that is served is in flight as a request is.
        self.finish_jobs()?;
        let took = check_round(&mut self.fleet, shared)?;
        // A certificate that was replaced only now is followed later.
        if self.around.shown.1.elapsed() > LOOK_INTERVAL * 2 {
            self.check_certificate()?;
        }
        Ok(took)
    }

    /// Checks that each download can be ended with a hub that is well, and leaves no part behind. Removes the models.
    pub(super) fn check_downloads(&self, shared: &Shared) -> Result<(), String> {
        self.around.hub.set_faults(HubFaults::default());
        let cache = self.around.folder.path().join("hub");
        let listed = self.downloads(shared)?;
        let is_listed =
            |name: &&str| listed.iter().any(|it| it["model"].as_str().is_some_and(|it| it.starts_with(*name)));
        let ordered: Vec<&str> = REPOSITORIES.into_iter().filter(is_listed).collect();
        let begin = Instant::now();
        for repository in &ordered {
            loop {
                // The list may begin with one that was cancelled when all of it had come: an order finds it there.
                let state = self.order(repository, shared)?;
                if state == "done" {
                    break;
                }
                if begin.elapsed() > wait::patient(DOWNLOADED) {
                    let downloads = self.downloads(shared)?;
                    return Err(format!("{repository} does not come from a hub that is well: {state}\n{downloads:#?}"));
                }
                thread::sleep(wait::POLL * 10);
            }
        }
        let parts: Vec<PathBuf> = files_below(&cache).into_iter().filter(|path| is_part(path)).collect();
        if !parts.is_empty() {
            let sizes: Vec<u64> = parts.iter().map(|path| path.metadata().map_or(0, |it| it.len())).collect();
            let (downloads, all) = (self.downloads(shared)?, files_below(&cache));
            return Err(format!("parts of downloads are left: {parts:?} {sizes:?}\n{downloads:#?}\n{all:#?}"));
        }
        for repository in ordered {
            // What uses a model for a moment, as a look at the disk does, keeps it.
            until_soon(|| self.remove_model(repository, shared))?;
            let folder = cache.join(format!("models--{}", repository.replace('/', "--"))).join("snapshots");
            let left = files_below(&folder);
            if !left.is_empty() {
                return Err(format!("{repository} is removed, and these files are left: {left:?}"));
            }
        }
        Ok(())
    }

    fn remove_model(&self, repository: &str, shared: &Shared) -> Result<(), String> {
        shared.counts().add_possible_call();
        let path = format!("/v1/models/{}:Q8_0", repository.replace('/', "%2F"));
        let response = self.admin().try_send("DELETE", &path, b"").map_err(|error| error.to_string())?;
        match response.status() {
            200 => Ok(()),
            status => Err(format!("DELETE {path}: {status} {}", response.text())),
        }
    }

    /// Checks that the feed has no listener.
    pub(super) fn check_listeners(&self) -> Result<(), String> {
        match self.metric("llamagate_feed_listeners") {
            Some(0) => Ok(()),
            count => Err(format!("no client listens to the feed, and the metric says {count:?}")),
        }
    }

    /// Returns the value of a metric without labels.
    fn metric(&self, name: &str) -> Option<u64> {
        let text = self.fleet.process.health().header("Accept", "text/plain").get("/metrics").text();
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// Waits until no job waits at the platform and each that was handed out has a result.
    pub(super) fn finish_jobs(&self) -> Result<(), String> {
        let begin = Instant::now();
        while self.around.platform.waiting_jobs() > 0 {
            if begin.elapsed() > wait::patient(JOBS_TAKEN) {
                return Err(format!("{} jobs are not taken", self.around.platform.waiting_jobs()));
            }
            thread::sleep(wait::POLL);
        }
        self.check_jobs()
    }

    /// Waits until each job that was handed out has a result, and checks that none has more results than that.
    fn check_jobs(&self) -> Result<(), String> {
        let begin = Instant::now();
        loop {
            check_results(&self.around.platform)?;
            match find_unanswered(&self.around.platform, &self.around.cancelled) {
                None => return Ok(()),
                Some(id) if begin.elapsed() > wait::patient(ANSWERED) => {
                    return Err(format!("{id} was taken and is not answered"));
                }
                Some(_) => thread::sleep(wait::POLL),
            }
        }
    }

    /// Checks that some job was served. Offers more of them until one is.
    fn check_some_job_served(&mut self, shared: &Shared) -> Result<(), String> {
        let begin = Instant::now();
        while self.around.platform.results().values().all(|(_, result)| result["error"].is_string()) {
            if begin.elapsed() > wait::patient(ANSWERED) {
                return Err(format!("no job was served: {}", self.around.report()));
            }
            if self.around.platform.waiting_jobs() == 0 {
                self.around.offer_job(&mut self.random);
                shared.counts().add_possible();
            }
            thread::sleep(wait::POLL * 10);
        }
        Ok(())
    }

    /// Checks that each part has done something: one that does nothing breaks no other.
    fn check_all_used(&mut self, shared: &Shared) -> Result<(), String> {
        check_each_call(&self.fleet.target(), shared)?;
        self.check_some_job_served(shared)?;
        if self.metric("llamagate_cache_hits_total").is_none_or(|hits| hits == 0) {
            return Err("nothing was answered from the cache".to_owned());
        }
        if self.snapshots.load(Ordering::SeqCst) == 0 {
            return Err("no listener has got a snapshot from the feed".to_owned());
        }
        Ok(())
    }

    /// Checks that connections get the certificate that is in the file.
    fn check_certificate(&self) -> Result<(), String> {
        let begin = Instant::now();
        while shown_certificate(self.fleet.process.url()) != self.around.shown.0 {
            if begin.elapsed() > wait::patient(CERTIFICATE_FOLLOWED) {
                return Err(format!("the certificate is not shown after {CERTIFICATE_FOLLOWED:?}"));
            }
            thread::sleep(wait::POLL * 10);
        }
        Ok(())
    }

    /// Stops the gateway, and checks that it leaves nothing behind.
    pub(super) fn check_end(&mut self, shared: &Shared) -> Result<(), String> {
        self.check_certificate()?;
        self.check_all_used(shared)?;
        self.finish_jobs()?;
        self.fleet.check_idle(shared)?;
        for model in MODELS {
            self.fleet.signal_workers(model, Signal::SIGCONT);
        }
        self.fleet.check_stop()?;
        self.check_jobs()?;
        if self.around.collector.exports() == 0 {
            return Err("the collector has got nothing".to_owned());
        }
        let files = files_below(self.fleet.process.data_dir());
        let databases: Vec<&PathBuf> =
            files.iter().filter(|path| path.extension().is_some_and(|it| it == "db")).collect();
        if databases.len() < 2 {
            return Err(format!("the ledger and the cache have a file each: {databases:?}"));
        }
        databases.into_iter().try_for_each(|path| check_database(path))
    }
}

fn is_part(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "incomplete")
}

/// Returns all files below a folder, without following links.
pub(super) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files_below(&entry.path())),
            Ok(_) => found.push(entry.path()),
            Err(_) => {}
        }
    }
    found
}
