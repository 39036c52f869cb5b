//! The memory that loaded workers really used, kept in a file of `DATA_DIR` across restarts of the service.
//!
//! The numbers only make estimates better, so no fault of the disk is an error: a file that cannot be read is ignored,
//! one that cannot be written is left.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::task::spawn_blocking;
use tracing::{debug, warn};

use crate::file_replacement::{BY_UMASK, replace_unsynced};
use crate::hex::hex;
use crate::settings::catalogue::SpeculativeSetting;
use crate::worker::bounds::{LEARNED_FILE_BYTES, LEARNED_MODELS, LEARNED_TOLERANCE};
use crate::worker::plan::{Plan, Program};

/// The format of the file. A file of another format is ignored.
const VERSION: u32 = 1;

/// What the memory of a worker depends on: program, model file and what goes with it, arguments and other machines, and
/// whether it is measured on GPUs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct MemoryKey(String);

/// One state of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileState {
    /// Its bytes; for a model file those of all its parts.
    pub(crate) size: u64,
    /// Its modification time; for a model file that of the first part.
    pub(crate) modified: Option<SystemTime>,
}

/// The states of the files that a llama-server loads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct LoadedFiles {
    /// That of its model file; `None` for a worker that has none.
    pub(crate) model: Option<FileState>,
    /// Those of [`Plan::files_beside`], in that order; `None` for a file that cannot be looked at.
    pub(crate) beside: Vec<Option<FileState>>,
}

/// The memory that workers used, by [`MemoryKey`]. Clones share it.
#[derive(Clone)]
pub struct LearnedMemory(Arc<Mutex<Learned>>);

struct Learned {
    /// The file; `None` if nothing is kept.
    path: Option<PathBuf>,
    /// The last one used is the last one here.
    entries: Vec<LearnedEntry>,
    /// Whether a thread writes the file. It goes on until the file has the latest entries.
    is_writing: bool,
    has_changed: bool,
}

/// The memory of one worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct LearnedEntry {
    key: MemoryKey,
    /// The model's id, for people who read the file.
    model: String,
    bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct LearnedFile {
    version: u32,
    entries: Vec<LearnedEntry>,
}

impl FileState {
    /// Looks at a file; `None` if that fails. Blocks on the disk.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let metadata = path.metadata().ok()?;
        Some(Self { size: metadata.len(), modified: metadata.modified().ok() })
    }
}

impl MemoryKey {
    /// Returns the key of the worker with this plan. `files` are the present states of the files that it loads.
    pub(crate) fn of(plan: &Plan, files: &LoadedFiles, is_of_gpus: bool) -> Self {
        let mut hash = Sha256::new();
        let mut add = |part: &str| {
            // With its length, so that no two lists of parts are the same text.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        };
        add(if is_of_gpus { "gpu" } else { "host" });
        match &plan.program {
            Program::LlamaServer { binary, file: path, kind } => {
                let engine = &plan.engine;
                add(&binary.to_string_lossy());
                add(&path.to_string_lossy());
                add(&format!("{:?}", files.model));
                add(&format!("{} {} {} {:?} {kind}", engine.ctx.0, engine.parallel, engine.batch, engine.ngl));
                add(&format!("{:?}", plan.load_mode));
                engine.extra_args.words.iter().for_each(|argument| add(argument));
                // What is measured is the part on this machine. Keys of models without other machines stay as they were, and
                // so do those of models without anything else that goes with them.
                if !plan.companions.rpc.is_empty() {
                    add("rpc");
                    plan.companions.rpc.iter().for_each(|address| add(address));
                }
                let mut states = files.beside.iter();
                for path in plan.files_beside() {
                    add("beside");
                    add(&path.to_string_lossy());
                    add(&format!("{:?}", states.next().copied().flatten()));
                }
                let speculative = &plan.companions.speculative;
                if *speculative != SpeculativeSetting::default() {
                    add("speculative");
                    add(&format!("{speculative:?}"));
                }
            }
            Program::Command { argv, .. } => argv.iter().for_each(|word| add(word)),
            Program::RpcServer(program) => add(&program.address.to_string()),
        }
        Self(hex(&hash.finalize()[..16]))
    }
}

impl LearnedMemory {
    /// Returns a memory that is lost at the end of the service.
    pub fn without_file() -> Self {
        Self::of(None, Vec::new())
    }

    /// Reads the file. A file that is broken is ignored with a warning, and replaced at the next measurement. Blocks on the
    /// disk.
    pub fn load(path: &Path) -> Self {
        let entries = match read(path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                warn!(path = %path.display(), %error, "the memory that models used before is not known: the file is ignored");
                Vec::new()
            }
        };
        Self::of(Some(path.to_owned()), entries)
    }

    fn of(path: Option<PathBuf>, entries: Vec<LearnedEntry>) -> Self {
        Self(Arc::new(Mutex::new(Learned { path, entries, is_writing: false, has_changed: false })))
    }

    /// Returns the bytes that such a worker used the last time, if that is known.
    pub(crate) fn bytes(&self, key: &MemoryKey) -> Option<u64> {
        let mut learned = self.lock();
        let at = learned.entries.iter().position(|entry| entry.key == *key)?;
        let entry = learned.entries.remove(at);
        let bytes = entry.bytes;
        learned.entries.push(entry);
        Some(bytes)
    }

    /// Records what such a worker used. The file is written, on another thread, only if that is news.
    pub(crate) fn record(&self, key: &MemoryKey, model: &str, bytes: u64) {
        let is_writer = {
            let mut learned = self.lock();
            learned.record(LearnedEntry { key: key.clone(), model: model.to_owned(), bytes });
            // One thread at a time: a disk that does not answer blocks one, not one for each load.
            let is_due = learned.has_changed && learned.path.is_some();
            is_due && !std::mem::replace(&mut learned.is_writing, is_due)
        };
        if is_writer {
            let learned = self.clone();
            drop(spawn_blocking(move || learned.write_changes()));
        }
    }

    fn write_changes(&self) {
        loop {
            let (path, entries) = {
                let mut learned = self.lock();
                let is_due = std::mem::take(&mut learned.has_changed);
                match learned.path.clone().filter(|_| is_due) {
                    Some(path) => (path, learned.entries.clone()),
                    None => {
                        learned.is_writing = false;
                        return;
                    }
                }
            };
            if let Err(error) = write(&path, entries) {
                debug!(path = %path.display(), %error, "the memory that models use is not kept for the next start");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Learned> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Learned {
    fn record(&mut self, new: LearnedEntry) {
        let known = self.entries.iter().position(|entry| entry.key == new.key).map(|at| self.entries.remove(at));
        let is_close = |known: &LearnedEntry| known.bytes.abs_diff(new.bytes) <= known.bytes / LEARNED_TOLERANCE;
        match known.filter(is_close) {
            Some(known) => self.entries.push(known),
            None => {
                self.entries.push(new);
                self.has_changed = true;
            }
        }
        // The ones that were not used for the longest time go first.
        let excess = self.entries.len().saturating_sub(LEARNED_MODELS);
        self.entries.drain(..excess);
    }
}

/// Reads the entries of a file.
///
/// # Errors
///
/// The file cannot be read, is too large, is not JSON, or has another format.
fn read(path: &Path) -> io::Result<Vec<LearnedEntry>> {
    let mut text = String::new();
    fs::File::open(path)?.take(LEARNED_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LEARNED_FILE_BYTES {
        return Err(io::Error::other(format!("it is larger than {LEARNED_FILE_BYTES} bytes")));
    }
    let file: LearnedFile = serde_json::from_str(&text)?;
    if file.version != VERSION {
        return Err(io::Error::other(format!("its version is {}, not {VERSION}", file.version)));
    }
    let excess = file.entries.len().saturating_sub(LEARNED_MODELS);
    // A worker without memory was never measured.
    Ok(file.entries.into_iter().skip(excess).filter(|entry| entry.bytes > 0).collect())
}

/// Replaces the file, so that a reader never sees half of it.
///
/// # Errors
///
/// The disk does not take it.
fn write(path: &Path, entries: Vec<LearnedEntry>) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut text = serde_json::to_string_pretty(&LearnedFile { version: VERSION, entries })?;
    text.push('\n');
    replace_unsynced(path, text.as_bytes(), BY_UMASK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::ModelKind;
    use crate::settings::catalogue::LoadMode;
    use crate::settings::{Environment, Inputs, resolve};
    use crate::telemetry::files::{LogFolder, LogRules};
    use crate::worker::plan::{CompanionFiles, Need};
    use crate::worker::served_files::ServedFiles;
    use std::collections::BTreeSet;
    use std::os::unix::fs::PermissionsExt;

    fn key(name: &str) -> MemoryKey {
        MemoryKey(name.to_owned())
    }

    /// Records as a worker does, but writes on this thread.
    fn record(learned: &LearnedMemory, name: &str, bytes: u64) -> bool {
        let is_news = {
            let mut inner = learned.lock();
            inner.record(LearnedEntry { key: key(name), model: name.to_owned(), bytes });
            inner.has_changed
        };
        learned.write_changes();
        is_news
    }

    fn plan_with(companions: CompanionFiles) -> Plan {
        let environment: Environment = [("MODEL_PATH", "/m.gguf")].into_iter().collect();
        let platform = crate::platform::detect(|name| environment.get(name), Path::new("/nowhere"));
        let settings = resolve(&Inputs { environment, ..Inputs::default() }, &platform).unwrap().config.settings;
        let (binary, file) = ("/bin/llama-server".into(), "/m.gguf".into());
        Plan {
            model: "m".to_owned(),
            number: 0,
            program: Program::LlamaServer { binary, file, kind: ModelKind::Chat },
            engine: settings.engine,
            load_mode: LoadMode::default(),
            projector: None,
            companions,
            files: ServedFiles::default(),
            gives_token_vectors: false,
            environment: Vec::new(),
            logs: LogFolder::open("/nowhere".into(), LogRules { is_written: false, keep: 1, part_size: None }),
            instance: String::new(),
            preload: true,
            pinned: false,
            need: Need::Estimated(0),
        }
    }

    /// The measure of a model on one machine once counted after it was divided among several, and the other way round.
    #[test]
    fn each_division_among_machines_is_measured_by_itself() {
        let of = |rpc: &[&str]| {
            let rpc = rpc.iter().map(|address| (*address).to_owned()).collect();
            let plan = plan_with(CompanionFiles { rpc, ..CompanionFiles::default() });
            MemoryKey::of(&plan, &LoadedFiles::default(), true)
        };
        let (alone, one, two) = (of(&[]), of(&["10.0.0.2:1"]), of(&["10.0.0.2:1", "10.0.0.3:1"]));
        assert!(alone != one && one != two && alone != two);
        assert_eq!(one, of(&["10.0.0.2:1"]));
    }

    /// The measure of a model once counted after it got a draft model, an adapter or a projector, and the other way round.
    #[test]
    fn what_goes_with_a_model_is_measured_with_it() {
        let of_plan = |plan: &Plan, draft: Option<FileState>| {
            MemoryKey::of(plan, &LoadedFiles { model: None, beside: vec![draft] }, true)
        };
        let of = |companions: CompanionFiles| of_plan(&plan_with(companions), None);
        let with_draft = || CompanionFiles { draft: Some("/draft.gguf".into()), ..CompanionFiles::default() };
        let speculative = SpeculativeSetting { ctx: Some(8192), ..SpeculativeSetting::default() };
        let with_projector = Plan { projector: Some("/p.gguf".into()), ..plan_with(CompanionFiles::default()) };
        let replaced = FileState { size: 1, modified: None };
        let keys = [
            of(CompanionFiles::default()),
            of(with_draft()),
            of(CompanionFiles { draft: Some("/other.gguf".into()), ..CompanionFiles::default() }),
            of(CompanionFiles { speculative, ..with_draft() }),
            of(CompanionFiles { adapters: vec![("/adapter.gguf".into(), 1.0)], ..CompanionFiles::default() }),
            of_plan(&with_projector, None),
            of_plan(&plan_with(with_draft()), Some(replaced)),
        ];
        let distinct: BTreeSet<&MemoryKey> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        assert_eq!(keys[1], of(with_draft()));
    }

    #[test]
    fn what_was_measured_is_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/learned.json");
        let learned = LearnedMemory::load(&path);
        assert_eq!(learned.bytes(&key("a")), None);
        assert!(record(&learned, "a", 1000) && record(&learned, "b", 2000));
        assert!(!record(&learned, "a", 1050), "so small a difference is not worth a write");
        assert!(record(&learned, "b", 3000));
        let restarted = LearnedMemory::load(&path);
        assert_eq!(["a", "b", "c"].map(|name| restarted.bytes(&key(name))), [Some(1000), Some(3000), None]);
        let names: Vec<_> =
            fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["learned.json"], "no draft is left");
    }

    #[test]
    fn a_file_that_cannot_be_used_is_ignored_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("learned.json");
        let large = format!("{{\"version\":1,\"entries\":[]}}{}", " ".repeat(LEARNED_FILE_BYTES as usize));
        for text in [
            "",
            "{",
            "[]",
            "{\"version\":1}",
            "{\"version\":2,\"entries\":[]}",
            "{\"version\":1,\"entries\":[{\"key\":\"a\",\"model\":\"a\",\"bytes\":-1}]}",
            "{\"version\":1,\"entries\":[{\"key\":\"a\",\"model\":\"a\",\"bytes\":1e300}]}",
            &large,
        ] {
            fs::write(&path, text).unwrap();
            assert!(read(&path).is_err(), "{text:.40}");
            let learned = LearnedMemory::load(&path);
            assert_eq!(learned.bytes(&key("a")), None);
            assert!(record(&learned, "a", 7));
            assert_eq!(LearnedMemory::load(&path).bytes(&key("a")), Some(7));
        }
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(read(&path).is_err());
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(record(&LearnedMemory::load(&path), "a", 7), "a folder in its place is no fault either");
        let zero = "{\"version\":1,\"entries\":[{\"key\":\"a\",\"model\":\"a\",\"bytes\":0}]}";
        fs::write(folder.path().join("zero"), zero).unwrap();
        assert_eq!(LearnedMemory::load(&folder.path().join("zero")).bytes(&key("a")), None);
    }

    #[test]
    fn a_disk_that_takes_no_file_is_no_fault() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken/learned.json");
        fs::write(folder.path().join("taken"), "a file in place of the folder").unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o500)).unwrap();
        for path in [path, folder.path().join("read-only"), "/dev/null/learned.json".into()] {
            let learned = LearnedMemory::load(&path);
            assert!(record(&learned, "a", 7));
            assert_eq!(learned.bytes(&key("a")), Some(7), "it is known until the end of the service");
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    }

    #[test]
    fn the_number_of_entries_is_bounded_and_the_least_recently_used_go_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("learned.json");
        let learned = LearnedMemory::load(&path);
        for at in 0..LEARNED_MODELS {
            learned.lock().record(LearnedEntry { key: key(&at.to_string()), model: String::new(), bytes: 1 });
        }
        assert_eq!(learned.bytes(&key("0")), Some(1));
        assert!(record(&learned, "new", 1));
        let restarted = LearnedMemory::load(&path);
        let known = |name: &str| restarted.bytes(&key(name)).is_some();
        assert!(known("0") && known("new") && !known("1") && known("2"));
        assert_eq!(restarted.lock().entries.len(), LEARNED_MODELS);
        assert!(path.metadata().unwrap().len() < LEARNED_FILE_BYTES / 4, "room for long names");
    }
}
