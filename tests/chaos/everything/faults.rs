//! The kinds of faults of the lane with everything on, and how each is applied and ended.

use std::{
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{Everything, neighbours::REPOSITORIES};
use crate::{
    fleet::{self, FleetFault},
    random::Random,
    shared::Shared,
    support::{
        client::Client,
        gateway::ADMIN,
        mock_hub::HubFaults,
        remote::Reply,
        runpod::{Route, ScriptedResponse},
    },
};

/// The models beside the six.
const OTHERS: [&str; 2] = ["vectors", "ranks"];

/// A fault.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// One of the lane with six models.
    Fleet(FleetFault),
    /// The llama-server of the model for embeddings, or for scores, is killed.
    KillOther(&'static str),
    /// The remote backend does this for a while.
    Remote(RemoteTrouble, Duration),
    /// The platform answers the next calls of a route with this status.
    PlatformStatus(Route, u16, u64),
    /// The platform closes the connections of a route for a while.
    PlatformDrops(Route, Duration),
    /// Callers cancel jobs.
    CancelJobs(u64),
    /// The collector of traces is away for a while.
    CollectorAway(Duration),
    /// The certificate is replaced while connections are open.
    ReplaceCertificate,
    /// The file of the certificate is damaged for a while.
    BreakCertificate(Duration),
    /// A download is ordered from a hub that does this.
    Download(&'static str, HubTrouble),
    /// All downloads are cancelled.
    CancelDownloads,
    /// The key file is written again.
    ReplaceKeys(u64),
}

/// What a remote backend does wrong.
#[derive(Debug, Clone, Copy)]
pub(super) enum RemoteTrouble {
    DiesMidStream,
    Closes,
    Fails,
    Busy,
    ClosesKept,
}

/// What the hub does wrong.
#[derive(Debug, Clone, Copy)]
pub(super) enum HubTrouble {
    Nothing,
    Cuts(usize),
    SendsWrongBytes,
    IsBusy,
    IsSlow,
    KnowsNoRanges,
}

/// The action that ends a lasting fault.
pub(super) enum Repair {
    Remote,
    Platform(Route),
    Collector,
    Certificate,
}

/// Draws a fault with its parameters.
pub(super) fn draw(random: &mut Random, is_real: bool) -> Fault {
    let time = Duration::from_millis(random.between(20, 900));
    let route = *random.pick(&[Route::Take, Route::TakeBatch, Route::Done, Route::Stream, Route::Stop, Route::Ping]);
    match random.below(40) {
        0..17 => Fault::Fleet(fleet_fault(random, is_real)),
        17..19 => {
            let other = *random.pick(&OTHERS);
            Fault::KillOther(other)
        }
        19..23 => {
            use RemoteTrouble::{Busy, Closes, ClosesKept, DiesMidStream, Fails};
            Fault::Remote(*random.pick(&[DiesMidStream, Closes, Fails, Busy, ClosesKept]), time)
        }
        23..25 => Fault::PlatformStatus(route, *random.pick(&[500, 502, 503]), random.between(1, 2)),
        25 => Fault::PlatformDrops(route, time),
        26..28 => Fault::CancelJobs(random.between(1, 2)),
        28..30 => Fault::CollectorAway(time),
        30..32 => Fault::ReplaceCertificate,
        32 => Fault::BreakCertificate(time),
        33..37 => {
            use HubTrouble::{Cuts, IsBusy, IsSlow, KnowsNoRanges, Nothing, SendsWrongBytes};
            let cut = random.between(1, 2 << 20) as usize;
            let trouble =
                *random.pick(&[Nothing, Cuts(cut), Cuts(cut), SendsWrongBytes, IsBusy, IsSlow, KnowsNoRanges]);
            let repository = *random.pick(&REPOSITORIES);
            Fault::Download(repository, trouble)
        }
        37 => Fault::CancelDownloads,
        _ => Fault::ReplaceKeys(random.next()),
    }
}

/// Draws a fault of the lane with six models; the real llama-server has no scripts.
fn fleet_fault(random: &mut Random, is_real: bool) -> FleetFault {
    match fleet::draw(random) {
        FleetFault::NextStarts(model, _) | FleetFault::StopAnswering(model, _) if is_real => {
            FleetFault::Kill(model, Signal::SIGKILL)
        }
        fault => fault,
    }
}

impl RemoteTrouble {
    fn reply(self) -> Reply {
        match self {
            Self::DiesMidStream => Reply::DieMidStream,
            Self::Closes => Reply::Close,
            Self::Fails => {
                Reply::Status(500, json!({"error": {"message": "broken", "code": 500, "type": "server_error"}}))
            }
            Self::Busy => Reply::Busy(429, "1"),
            Self::ClosesKept => Reply::ServeAndClose,
        }
    }
}

impl HubTrouble {
    fn faults(self) -> HubFaults {
        let none = HubFaults::default();
        match self {
            Self::Nothing => none,
            Self::Cuts(after) => HubFaults { cut: Some((after, 3)), ..none },
            Self::SendsWrongBytes => HubFaults { sends_wrong_bytes: true, ..none },
            Self::IsBusy => {
                HubFaults { file_answer: Some((4, "503 Service Unavailable".to_owned(), "busy".to_owned())), ..none }
            }
            Self::IsSlow => HubFaults { pause: Duration::from_millis(20), ..none },
            Self::KnowsNoRanges => HubFaults { has_no_ranges: true, ..none },
        }
    }
}

impl Everything {
    pub(super) fn apply(&mut self, fault: Fault, shared: &Shared) -> Result<(), String> {
        match fault {
            Fault::Fleet(fault) => {
                // A reload reads the certificate too, and changes nothing while that is damaged.
                if matches!(fault, FleetFault::Reload(_)) {
                    self.around.mend_certificate();
                }
                self.fleet.apply(&fault, shared)?;
            }
            Fault::KillOther(model) => self.fleet.signal_workers(model, Signal::SIGKILL),
            Fault::Remote(trouble, time) => {
                self.around.remote.set_reply(trouble.reply());
                self.repair_after(time, Repair::Remote);
            }
            Fault::PlatformStatus(route, status, times) => {
                let response = ScriptedResponse::status(status);
                self.around.platform.script_responses(route, (0..times).map(|_| response.clone()));
            }
            Fault::PlatformDrops(route, time) => {
                self.around.platform.drop_calls(route);
                self.repair_after(time, Repair::Platform(route));
            }
            Fault::CancelJobs(count) => {
                let recent = &self.around.offered[self.around.offered.len().saturating_sub(count as usize)..];
                let ids: Vec<String> = recent.iter().filter_map(|job| job["id"].as_str()).map(str::to_owned).collect();
                let stopped: Vec<Value> = ids.iter().map(|id| json!(id)).collect();
                self.around.platform.stop(&stopped);
                self.around.cancelled.extend(ids);
            }
            Fault::CollectorAway(time) => {
                self.around.collector.leave();
                self.repair_after(time, Repair::Collector);
            }
            Fault::ReplaceCertificate => self.around.replace_certificate(),
            Fault::BreakCertificate(time) => {
                self.around.break_certificate();
                self.repair_after(time, Repair::Certificate);
            }
            Fault::Download(repository, trouble) => {
                self.around.hub.set_faults(trouble.faults());
                self.order(repository, shared)?;
                self.fleet.note("downloads");
            }
            Fault::CancelDownloads => self.cancel_downloads(shared)?,
            Fault::ReplaceKeys(comment) => {
                let path = self.fleet.process.keys_file();
                let text = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
                let draft = path.with_extension("draft");
                let lines = text.lines().filter(|line| !line.starts_with('#'));
                let text: String = lines.map(|line| format!("{line}\n")).collect();
                std::fs::write(&draft, format!("# version {comment}\n{text}")).map_err(|error| error.to_string())?;
                let mode = std::fs::Permissions::from_mode(0o600);
                std::fs::set_permissions(&draft, mode).map_err(|error| error.to_string())?;
                std::fs::rename(draft, path).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    /// Returns a client with the administrator's key.
    pub(super) fn admin(&self) -> Client {
        self.fleet.process.client_with(ADMIN)
    }

    /// Orders the model of a repository. Returns the state of its download.
    pub(super) fn order(&self, repository: &str, shared: &Shared) -> Result<String, String> {
        shared.counts().add_possible_call();
        let body = json!({"model": format!("{repository}:Q8_0")}).to_string();
        let response = self.admin().try_send("POST", "/v1/models/download", body.as_bytes());
        let response = response.map_err(|error| format!("no response to an order: {error}"))?;
        match response.status() {
            200 | 202 => Ok(response.json()["state"].as_str().unwrap_or_default().to_owned()),
            status => Err(format!("an order of {repository} got {status} {}", response.text())),
        }
    }

    fn cancel_downloads(&self, shared: &Shared) -> Result<(), String> {
        for download in self.downloads(shared)? {
            if !matches!(download["state"].as_str(), Some("done" | "failed" | "cancelled")) {
                let path = format!("/v1/models/downloads/{}", download["id"].as_str().unwrap_or_default());
                shared.counts().add_possible_call();
                let response = self.admin().try_send("DELETE", &path, b"").map_err(|error| error.to_string())?;
                if response.status() != 200 {
                    return Err(format!("DELETE {path}: {} {}", response.status(), response.text()));
                }
            }
        }
        Ok(())
    }

    /// Returns the list of downloads.
    pub(super) fn downloads(&self, shared: &Shared) -> Result<Vec<Value>, String> {
        shared.counts().add_possible_call();
        let response = self.admin().try_send("GET", "/v1/models/downloads", b"").map_err(|error| error.to_string())?;
        let list: Value =
            serde_json::from_slice(&response.body).map_err(|error| format!("{error}: {}", response.text()))?;
        list["data"].as_array().cloned().ok_or_else(|| format!("no list of downloads: {list}"))
    }

    fn repair_after(&mut self, after: Duration, repair: Repair) {
        self.repairs.push((Instant::now() + after, repair));
    }

    /// Ends the faults that are due to end by `until`, or all.
    pub(super) fn repair(&mut self, until: Option<Instant>) {
        let is_due = |(when, _): &(Instant, Repair)| until.is_none_or(|until| *when <= until);
        let (due, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.repairs).into_iter().partition(is_due);
        self.repairs = rest;
        for (when, repair) in due {
            match repair {
                Repair::Remote => self.around.remote.set_reply(Reply::Serve),
                Repair::Platform(route) => self.around.platform.restore(route),
                // Another program may have its port for a moment.
                Repair::Collector => {
                    if !self.around.collector.come_back() {
                        self.repairs.push((when, Repair::Collector));
                    }
                }
                Repair::Certificate => self.around.mend_certificate(),
            }
        }
    }
}
