//! Which logs there are: that of each worker, and the access log.

use jiff::Timestamp;
use serde::Serialize;

use crate::fleet::Fleet;
use crate::telemetry::access::AccessLog;
use crate::telemetry::files::LogFolder;

/// The name of the access log.
const ACCESS: &str = "access";

/// What the names of workers' logs begin with.
const WORKERS: &str = "workers/";

/// A log under its name. Clients never name files.
pub(in crate::gateway::live_api) struct NamedLog {
    pub(in crate::gateway::live_api) name: String,
    pub(in crate::gateway::live_api) folder: LogFolder,
    worker: Option<(String, u32)>,
}

/// A log as it is listed.
#[derive(Serialize)]
pub(in crate::gateway::live_api) struct LogEntry {
    name: String,
    kind: &'static str,
    model: Option<String>,
    worker: Option<u32>,
    /// The size of its newest file; `None` while there is no file.
    bytes: Option<u64>,
    modified_at: Option<Timestamp>,
}

impl NamedLog {
    /// Returns what is listed of the log. Blocks on the disk.
    pub(in crate::gateway::live_api) fn entry(self) -> LogEntry {
        let file = self.folder.newest().and_then(|path| path.metadata().ok());
        let modified = file.as_ref().and_then(|file| file.modified().ok());
        let (model, worker) = self.worker.unzip();
        LogEntry {
            name: self.name,
            kind: if model.is_some() { "worker" } else { "access" },
            model,
            worker,
            bytes: file.map(|file| file.len()),
            modified_at: modified.and_then(|time| Timestamp::try_from(time).ok()),
        }
    }
}

/// Returns the logs that are written.
pub(in crate::gateway::live_api) fn logs(fleet: &Fleet, access: &AccessLog) -> Vec<NamedLog> {
    let access = NamedLog { name: ACCESS.to_owned(), folder: access.folder().clone(), worker: None };
    let snapshot = fleet.snapshot();
    let workers = snapshot.models().iter().flat_map(|model| {
        model.members().filter_map(|member| {
            let (model, number, folder) = (model.id(), member.number, member.log_folder()?.clone());
            Some(NamedLog { name: name_of(model, number), folder, worker: Some((model.to_owned(), number)) })
        })
    });
    std::iter::once(access).chain(workers).filter(|log| log.folder.is_written()).collect()
}

/// Returns the name of a worker's log. No two workers have the same.
fn name_of(model: &str, number: u32) -> String {
    let model = model.replace('%', "%25").replace('@', "%40");
    if number == 0 { format!("{WORKERS}{model}") } else { format!("{WORKERS}{model}@{number}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_of_models_with_odd_names_have_logs_of_their_own() {
        let names = [("org/m", 0), ("org/m", 1), ("org/m@1", 0), ("org/m%401", 0)];
        let names = names.map(|(model, number)| name_of(model, number));
        assert_eq!(names[..2], ["workers/org/m", "workers/org/m@1"]);
        let unique: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len());
    }
}
