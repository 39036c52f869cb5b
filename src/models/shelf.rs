//! A folder of models as a shelf: every model below it is served under the name of its file.
//!
//! Owns the ids, and what is left out and why. A scan reads the header of a file once, and again only after the file
//! has changed. Files that are being written are left out until they are whole.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::bounds::{MOST_SHELF_MODELS, SHELF_ID_LENGTH};
use super::check::{InspectedModel, Inspection};
use super::companions::names::has_draft_name;
use super::companions::projector::{
    BrokenProjector, ProjectorCandidate, ProjectorFolder, ProjectorSearch, has_projector_name, is_projector,
};
use super::error::{FileProblem, ModelError};
use super::folder_walk::walk;
use super::hub;
use super::split::{id_of, parts_of};

/// Most files that one scan names one by one as left out.
const MOST_NAMED: usize = 10;
/// Endings of the files that a download program keeps beside a file of full size whose content has not yet arrived.
const DOWNLOAD_MARKS: [&str; 1] = [".aria2"];

/// What is known about the files below a folder from earlier scans.
#[derive(Debug, Default)]
pub struct Shelf {
    files: BTreeMap<PathBuf, SeenFile>,
    /// What the last scan left out, so that it is reported only once.
    reported: BTreeSet<PathBuf>,
}

/// A file as the last scan found it.
#[derive(Debug)]
struct SeenFile {
    /// Of each part; empty if the file must be read again in any case.
    stamps: Vec<Option<FileStamp>>,
    finding: Finding,
}

/// Identifies one state of a file: device, inode, length in bytes, modification time in seconds and nanoseconds.
type FileStamp = (u64, u64, u64, i64, i64);

/// What a file is.
#[derive(Debug, Clone)]
enum Finding {
    Model(Box<InspectedModel>),
    Projector(Box<ProjectorCandidate>),
    /// It belongs to a model and is none itself.
    Companion,
    Broken(BrokenShelfFile),
}

/// A file below the folder that cannot be served.
#[derive(Debug, Clone)]
pub struct BrokenShelfFile {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it; follows its path.
    pub fault: String,
    /// What to do about it.
    pub hint: &'static str,
    /// What is wrong with it and what to do, in one sentence without a path.
    pub sentence: String,
}

/// A model of the shelf.
#[derive(Debug, Clone, PartialEq)]
pub struct ShelfModel {
    /// The id that clients use.
    pub id: String,
    /// The id with its folder, if that is another name.
    pub alias: Option<String>,
    /// The file, or its first part.
    pub path: PathBuf,
    /// Its metadata and size.
    pub model: InspectedModel,
    /// The result of the search for its projector.
    pub projector: ProjectorSearch,
}

/// The result of one scan.
#[derive(Debug, Default)]
pub struct ShelfScan {
    /// The models, sorted by path.
    pub models: Vec<ShelfModel>,
    /// The files that cannot be served.
    pub broken: Vec<BrokenShelfFile>,
    /// Sentences about what is left out and was not before.
    pub notes: Vec<String>,
}

impl Shelf {
    /// Scans the models below `dir`, as [`walk`] finds them.
    ///
    /// # Errors
    ///
    /// `dir` itself cannot be read; then nothing that is known is forgotten.
    pub fn scan(&mut self, dir: &Path) -> Result<ShelfScan, ModelError> {
        let below = walk(dir).map_err(|source| ModelError::Folder { dir: dir.to_owned(), source })?;
        let mut left_out: Vec<(PathBuf, String)> = below.skipped;
        let mut earlier = std::mem::take(&mut self.files);
        let mut revisions = HashMap::new();
        let mut paths = Vec::new();
        for path in below.models {
            if !is_of_current_revision(dir, &path, &mut revisions) {
                continue;
            }
            if paths.len() == MOST_SHELF_MODELS {
                let reason = format!("is one model too many: {MOST_SHELF_MODELS} are served at most");
                left_out.push((path, reason));
                break;
            }
            let seen = look(&dir.join(&path), earlier.remove(&path));
            if matches!(seen.finding, Finding::Model(_)) {
                paths.push(path.clone());
            }
            self.files.insert(path, seen);
        }
        let mut scan = ShelfScan::default();
        let folders = self.folders();
        let mut taken: BTreeMap<String, &Path> = BTreeMap::new();
        for (path, name) in paths.iter().zip(ids_of(&paths)) {
            let Some(SeenFile { finding: Finding::Model(model), .. }) = self.files.get(path) else { continue };
            let name = match name.checked() {
                Ok(name) => name,
                Err(fault) => {
                    left_out.push((path.clone(), fault.to_owned()));
                    continue;
                }
            };
            if let Some(other) = taken.get(&name.id) {
                left_out.push((path.clone(), format!("has the same id as {}", other.display())));
                continue;
            }
            taken.insert(name.id.clone(), path);
            let folder = path.parent().and_then(|parent| folders.get(parent));
            let full = dir.join(path);
            let width = model.metadata.embedding_length;
            let projector = folder.map(|folder| folder.search(&full, width)).unwrap_or_default();
            let model = InspectedModel::clone(model);
            scan.models.push(ShelfModel { id: name.id, alias: name.alias, path: full, model, projector });
        }
        for (path, seen) in &self.files {
            if let Finding::Broken(broken) = &seen.finding {
                left_out.push((path.clone(), broken.fault.clone()));
                scan.broken.push(broken.clone());
            }
        }
        scan.notes = self.report(left_out);
        Ok(scan)
    }

    /// Returns the models and projectors of each folder.
    fn folders(&self) -> HashMap<PathBuf, ProjectorFolder> {
        let mut folders: HashMap<PathBuf, ProjectorFolder> = HashMap::new();
        for (path, seen) in &self.files {
            let Some(parent) = path.parent() else { continue };
            let folder = folders.entry(parent.to_owned()).or_default();
            match &seen.finding {
                Finding::Model(_) => folder.models += 1,
                Finding::Projector(candidate) => folder.candidates.push(ProjectorCandidate::clone(candidate)),
                Finding::Broken(BrokenShelfFile { path, fault, hint, .. }) if has_projector_name(path) => {
                    folder.broken.push(BrokenProjector { path: path.clone(), fault: fault.clone(), hint });
                }
                Finding::Companion | Finding::Broken(_) => {}
            }
        }
        folders
    }

    /// Returns a sentence for each path that the last scan did not leave out.
    fn report(&mut self, left_out: Vec<(PathBuf, String)>) -> Vec<String> {
        let is_new = |(path, _): &&(PathBuf, String)| !self.reported.contains(path);
        let mut notes: Vec<String> = left_out
            .iter()
            .filter(is_new)
            .map(|(path, fault)| {
                format!("{:?} in the models folder is left out: it {fault}", path.display().to_string())
            })
            .collect();
        let more = notes.len().saturating_sub(MOST_NAMED);
        if more > 0 {
            notes.truncate(MOST_NAMED);
            notes.push(format!("{more} more files in the models folder are left out; `llamagate models` lists them"));
        }
        self.reported = left_out.into_iter().map(|(path, _)| path).collect();
        notes
    }
}

/// Looks at the file at `path`, unless it is as it was `earlier`.
fn look(path: &Path, earlier: Option<SeenFile>) -> SeenFile {
    if has_download_mark(path) {
        let broken = broken(path, "is being downloaded".to_owned(), "wait for the end of the download");
        return SeenFile { stamps: Vec::new(), finding: Finding::Broken(broken) };
    }
    let stamps = stamps_of(path);
    match earlier {
        Some(earlier) if !stamps.is_empty() && earlier.stamps == stamps => earlier,
        earlier => {
            let finding = inspect(path);
            if stamps_of(path) != stamps {
                let broken = broken(path, "is being written".to_owned(), "wait until it is whole");
                return SeenFile { stamps: Vec::new(), finding: Finding::Broken(broken) };
            }
            match (finding, earlier) {
                // A volume that does not answer for a moment takes no model off the shelf.
                (Err(error), Some(earlier)) if is_passing(&error) => earlier,
                (Err(error), _) => {
                    let stamps = if error.io().is_some() { Vec::new() } else { stamps };
                    SeenFile { stamps, finding: Finding::Broken(broken(path, error.to_string(), error.hint())) }
                }
                (Ok(finding), _) => SeenFile { stamps, finding },
            }
        }
    }
}

/// Reads the headers of the file at `path` and of its further parts.
fn inspect(path: &Path) -> Result<Finding, FileProblem> {
    let inspection = Inspection::of(path);
    match (inspection.problem, inspection.metadata) {
        (None | Some(FileProblem::NoModel { .. }), Some(metadata)) if is_projector(&metadata) => {
            Ok(Finding::Projector(Box::new(ProjectorCandidate::new(path, &metadata))))
        }
        (Some(FileProblem::NoModel { .. }), _) => Ok(Finding::Companion),
        (Some(problem), _) => Err(problem),
        (None, _) if has_draft_name(path) => Ok(Finding::Companion),
        (None, Some(metadata)) => {
            Ok(Finding::Model(Box::new(InspectedModel { metadata, size_bytes: inspection.size_bytes })))
        }
        (None, None) => Err(FileProblem::Gguf(io::Error::from(io::ErrorKind::NotFound).into())),
    }
}

fn broken(path: &Path, fault: String, hint: &'static str) -> BrokenShelfFile {
    let sentence = format!("the model file {fault}; {hint}");
    BrokenShelfFile { path: path.to_owned(), fault, hint, sentence }
}

/// Whether the file may be as good as it was: it is there, and only could not be read now.
fn is_passing(problem: &FileProblem) -> bool {
    let lasting = [io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied];
    problem.io().is_some_and(|error| !lasting.contains(&error.kind()))
}

fn has_download_mark(path: &Path) -> bool {
    DOWNLOAD_MARKS.iter().any(|mark| {
        let mut name = OsString::from(path);
        name.push(mark);
        Path::new(&name).exists()
    })
}

fn stamps_of(path: &Path) -> Vec<Option<FileStamp>> {
    let stamp = |file: std::fs::Metadata| (file.dev(), file.ino(), file.len(), file.mtime(), file.mtime_nsec());
    parts_of(path).iter().map(|path| std::fs::metadata(path).ok().map(stamp)).collect()
}

/// Where a file lies in a folder with the layout of Hugging Face's cache: `models--ORG--NAME/snapshots/REVISION/...`.
struct HubPlace {
    /// The folder of the repository.
    repository: PathBuf,
    revision: OsString,
    /// The folder that an id may name: `ORG/NAME`, and the folders below the revision.
    folder: PathBuf,
}

impl HubPlace {
    fn of(path: &Path) -> Option<Self> {
        let parts: Vec<&std::ffi::OsStr> = path.parent()?.iter().collect();
        let at = parts.windows(3).position(|window| {
            window[0].to_str().is_some_and(|name| name.starts_with("models--")) && window[1] == "snapshots"
        })?;
        let name = parts[at].to_str()?.strip_prefix("models--")?.replacen("--", "/", 1);
        Some(Self {
            repository: parts[..=at].iter().collect(),
            revision: parts[at + 2].to_owned(),
            folder: PathBuf::from(name).join(parts[at + 3..].iter().collect::<PathBuf>()),
        })
    }
}

/// Whether the file belongs to the revision of its repository that counts, if it lies in one. `revisions` keeps the
/// answers for one scan.
fn is_of_current_revision(dir: &Path, path: &Path, revisions: &mut HashMap<PathBuf, Option<OsString>>) -> bool {
    let Some(place) = HubPlace::of(path) else { return true };
    let current = revisions.entry(place.repository).or_insert_with_key(|repository| {
        let snapshot = hub::find_snapshot(dir.join(repository)).ok()?;
        snapshot.file_name().map(OsString::from)
    });
    current.as_ref() == Some(&place.revision)
}

/// The id of a model, and its name with its folder if that differs.
pub(super) struct ShelfName {
    pub(super) id: String,
    pub(super) alias: Option<String>,
    is_unicode: bool,
}

impl ShelfName {
    /// Returns the name if clients can ask for it.
    ///
    /// # Errors
    ///
    /// Returns why they cannot; follows "it".
    fn checked(self) -> Result<Self, &'static str> {
        let has_control = self.id.chars().any(char::is_control);
        if !self.is_unicode {
            Err("has a name that is not UTF-8")
        } else if has_control || self.id.trim() != self.id || self.id.is_empty() {
            Err("has a name with control characters or with spaces at its ends")
        } else if self.id.len() > SHELF_ID_LENGTH {
            Err("has a name that is too long for an id")
        } else {
            Ok(Self { alias: self.alias.filter(|alias| alias.len() <= SHELF_ID_LENGTH), ..self })
        }
    }
}

/// Returns the ids of the models at these paths below one folder: the file name without `.gguf`. Where several have the
/// same, those in folders have the folder before it.
pub(super) fn ids_of(paths: &[PathBuf]) -> Vec<ShelfName> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for path in paths {
        *counts.entry(id_of(path)).or_default() += 1;
    }
    let name = |path: &PathBuf| {
        let base = id_of(path);
        let folder = HubPlace::of(path).map(|place| place.folder).or_else(|| path.parent().map(Path::to_owned));
        let with_folder = folder.filter(|folder| !folder.as_os_str().is_empty()).map(|folder| {
            let parts: Vec<_> = folder.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            format!("{}/{base}", parts.join("/"))
        });
        let is_shared = counts.get(&base).is_some_and(|count| *count > 1);
        let (id, alias) = match with_folder {
            Some(full) if is_shared => (full, None),
            other => (base, other),
        };
        ShelfName { id, alias, is_unicode: path.to_str().is_some() }
    };
    paths.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStringExt;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::models::sample::GgufSample;

    fn ids(scan: &ShelfScan) -> Vec<&str> {
        scan.models.iter().map(|model| model.id.as_str()).collect()
    }

    #[test]
    fn every_model_has_the_name_of_its_file_and_a_folder_only_where_names_clash() {
        let dir = tempfile::tempdir().unwrap();
        let chat = GgufSample::chat();
        for name in ["top.gguf", "a/same.gguf", "b/c/same.GGUF", "a/own.gguf", "a/top.gguf", "Ein Modell äöü.gguf"] {
            chat.write(dir.path(), name);
        }
        chat.uint("split.count", 2).write(dir.path(), "big-00001-of-00002.gguf");
        GgufSample::default().write(dir.path(), "big-00002-of-00002.gguf");
        let scan = Shelf::default().scan(dir.path()).unwrap();
        assert_eq!(ids(&scan), ["Ein Modell äöü", "own", "a/same", "a/top", "b/c/same", "big", "top"]);
        let aliases: Vec<_> = scan.models.iter().filter_map(|model| model.alias.as_deref()).collect();
        assert_eq!(aliases, ["a/own"]);
        assert!(scan.notes.is_empty() && scan.broken.is_empty(), "{:?}", scan.notes);
    }

    #[test]
    fn what_cannot_be_served_is_left_out_and_reported_once() {
        let dir = tempfile::tempdir().unwrap();
        let chat = GgufSample::chat();
        chat.write(dir.path(), "good.gguf");
        chat.write(dir.path(), "good.GGUF");
        chat.write(dir.path(), "blank .gguf");
        chat.write(dir.path(), "line\nfeed.gguf");
        chat.write(dir.path(), &format!("{}.gguf", "x".repeat(245)));
        chat.write(dir.path(), "half-00001-of-00002.gguf");
        chat.write(dir.path(), "aria.gguf");
        fs::write(dir.path().join("aria.gguf.aria2"), "").unwrap();
        fs::write(dir.path().join("page.gguf"), "<html>").unwrap();
        symlink("nowhere", dir.path().join("link.gguf")).unwrap();
        let bytes = chat.bytes();
        fs::write(dir.path().join(OsString::from_vec(b"\xff.gguf".to_vec())), &bytes).unwrap();
        fs::write(dir.path().join("short.gguf"), &bytes[..bytes.len() - 1]).unwrap();
        GgufSample::of("clip").write(dir.path(), "mmproj.gguf");
        GgufSample::chat().text("general.type", "adapter").write(dir.path(), "lora.gguf");
        GgufSample::chat().write(dir.path(), "good-draft.gguf");
        let mut shelf = Shelf::default();
        let scan = shelf.scan(dir.path()).unwrap();
        assert_eq!(ids(&scan), ["good", &"x".repeat(245)]);
        let notes = scan.notes.join("\n");
        for (name, reason) in [
            ("good.gguf", "has the same id as good.GGUF"),
            ("blank .gguf", "spaces at its ends"),
            ("line\\nfeed.gguf", "control characters"),
            ("half-00001-of-00002.gguf", "part 2 of 2 is missing"),
            ("aria.gguf", "is being downloaded"),
            ("page.gguf", "is not a GGUF file"),
            ("link.gguf", "cannot be read"),
            ("short.gguf", "is cut short"),
            (".gguf", "is not UTF-8"),
        ] {
            let line = notes.lines().find(|line| line.contains(name) && line.contains(reason));
            assert!(line.is_some_and(|line| line.contains("is left out: it ")), "{name}: {notes}");
        }
        assert_eq!(scan.notes.len(), 9, "companions need no word: {notes}");
        assert!(shelf.scan(dir.path()).unwrap().notes.is_empty(), "a second scan repeats nothing");
    }

    #[test]
    fn a_file_is_taken_when_it_is_whole_and_leaves_when_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = GgufSample::chat().bytes();
        let path = dir.path().join("m.gguf");
        let mut shelf = Shelf::default();
        let mut notes = 0;
        for length in [0, 3, 40, bytes.len() - 1] {
            fs::write(&path, &bytes[..length]).unwrap();
            let scan = shelf.scan(dir.path()).unwrap();
            notes += scan.notes.len();
            assert!(scan.models.is_empty() && scan.broken.len() == 1, "{length}");
        }
        assert_eq!(notes, 1, "one line for a file that grows");
        fs::write(&path, &bytes).unwrap();
        assert_eq!(ids(&shelf.scan(dir.path()).unwrap()), ["m"]);
        GgufSample::of("bert").uint("bert.pooling_type", 1).write(dir.path(), "m.gguf");
        assert_eq!(shelf.scan(dir.path()).unwrap().models[0].model.metadata.architecture, "bert");
        fs::remove_file(&path).unwrap();
        assert!(shelf.scan(dir.path()).unwrap().models.is_empty());
        fs::write(&path, "<html>").unwrap();
        assert_eq!(shelf.scan(dir.path()).unwrap().notes.len(), 1, "it is reported again after it was gone");
    }

    #[test]
    fn a_header_is_read_again_only_after_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = GgufSample::chat().write(dir.path(), "m.gguf");
        let mut shelf = Shelf::default();
        shelf.scan(dir.path()).unwrap();
        let modified = path.metadata().unwrap().modified().unwrap();
        // Other bytes of the same length under the same stamp: only a second read would see them.
        let length = path.metadata().unwrap().len() as usize;
        fs::write(&path, vec![0; length]).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert_eq!(ids(&shelf.scan(dir.path()).unwrap()), ["m"]);
        assert!(Shelf::default().scan(dir.path()).unwrap().models.is_empty());
    }

    #[test]
    fn the_number_of_models_is_bounded_and_the_cut_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..MOST_SHELF_MODELS + 2 {
            GgufSample::chat().write(dir.path(), &format!("{number:04}.gguf"));
        }
        let mut shelf = Shelf::default();
        let scan = shelf.scan(dir.path()).unwrap();
        assert_eq!((scan.models.len(), scan.notes.len()), (MOST_SHELF_MODELS, 1));
        assert!(scan.notes[0].contains("1000 are served at most"), "{:?}", scan.notes);
        assert_eq!(shelf.scan(dir.path()).unwrap().models.len(), MOST_SHELF_MODELS);
    }

    #[test]
    fn loops_of_links_end_and_folders_that_cannot_be_read_are_reported() {
        let dir = tempfile::tempdir().unwrap();
        GgufSample::chat().write(dir.path(), "sub/one.gguf");
        GgufSample::chat().write(dir.path(), "closed/two.gguf");
        symlink(dir.path(), dir.path().join("sub/loop")).unwrap();
        let closed = dir.path().join("closed");
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
        let is_closed = fs::read_dir(&closed).is_err();
        let scan = Shelf::default().scan(dir.path()).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        // The superuser may read every folder.
        if is_closed {
            assert_eq!(ids(&scan), ["one"]);
            assert!(scan.notes[0].contains("closed") && scan.notes[0].contains("cannot be read"), "{:?}", scan.notes);
        } else {
            assert_eq!(ids(&scan), ["two", "one"]);
        }
        assert!(matches!(Shelf::default().scan(&dir.path().join("none")), Err(ModelError::Folder { .. })));
    }

    #[test]
    fn of_a_hub_cache_only_the_current_revision_is_served() {
        let dir = tempfile::tempdir().unwrap();
        let chat = GgufSample::chat();
        for repository in ["models--org--one", "hub/models--org--two"] {
            chat.write(dir.path(), &format!("{repository}/snapshots/aaa/m.gguf"));
            chat.write(dir.path(), &format!("{repository}/snapshots/bbb/m.gguf"));
            chat.write(dir.path(), &format!("{repository}/snapshots/aaa/old.gguf"));
            fs::create_dir(dir.path().join(repository).join("refs")).unwrap();
            fs::write(dir.path().join(repository).join("refs/main"), "bbb").unwrap();
        }
        chat.write(dir.path(), "hub/models--org--two/snapshots/bbb/Q8_0/n.gguf");
        let scan = Shelf::default().scan(dir.path()).unwrap();
        assert_eq!(ids(&scan), ["n", "org/two/m", "org/one/m"]);
        assert_eq!(scan.models[0].alias.as_deref(), Some("org/two/Q8_0/n"));
    }

    #[test]
    fn a_projector_on_the_shelf_belongs_to_the_model_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        GgufSample::chat().write(dir.path(), "vl/see.gguf");
        let projector = GgufSample::of("clip").write(dir.path(), "vl/mmproj-F16.gguf");
        GgufSample::chat().write(dir.path(), "text.gguf");
        let mut shelf = Shelf::default();
        let found = |scan: &ShelfScan, id: &str| {
            let model = scan.models.iter().find(|model| model.id == id).unwrap();
            model.projector.found.as_ref().map(|projector| projector.path.clone())
        };
        let scan = shelf.scan(dir.path()).unwrap();
        assert_eq!((found(&scan, "see"), found(&scan, "text")), (Some(projector.clone()), None));
        fs::remove_file(&projector).unwrap();
        assert_eq!(found(&shelf.scan(dir.path()).unwrap(), "see"), None);
    }
}
