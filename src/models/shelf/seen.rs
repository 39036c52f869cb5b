//! What a file of a shelf is, by its header and by the files beside it.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::file_identity::FileIdentity;
use crate::models::check::{InspectedModel, Inspection};
use crate::models::companions::names::has_draft_name;
use crate::models::companions::projector::{ProjectorCandidate, is_projector};
use crate::models::error::FileProblem;
use crate::models::split::parts_of;

/// Endings of the files that a download program keeps beside a file of full size whose content has not yet arrived.
const DOWNLOAD_MARKS: [&str; 1] = [".aria2"];

/// A file as the last scan found it.
#[derive(Debug)]
pub(super) struct SeenFile {
    /// Of each part; empty if the file must be read again in any case.
    pub(super) stamps: Vec<Option<PartStamp>>,
    pub(super) finding: Finding,
}

impl SeenFile {
    /// Returns which file it is, or the first part of which model.
    pub(super) fn identity(&self) -> Option<FileIdentity> {
        self.stamps.first().copied().flatten().map(|(identity, ..)| identity)
    }
}

/// Identifies one state of a file: which one, its length in bytes, its modification time in seconds and nanoseconds.
pub(super) type PartStamp = (FileIdentity, u64, i64, i64);

/// What a file is.
#[derive(Debug, Clone)]
pub(super) enum Finding {
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

/// Looks at the file at `path`, unless it is as it was `earlier`.
pub(super) fn look(path: &Path, earlier: Option<SeenFile>) -> SeenFile {
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
pub(super) fn inspect(path: &Path) -> Result<Finding, FileProblem> {
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

fn stamps_of(path: &Path) -> Vec<Option<PartStamp>> {
    let stamp = |file: std::fs::Metadata| (FileIdentity::of(&file), file.len(), file.mtime(), file.mtime_nsec());
    parts_of(path).iter().map(|path| std::fs::metadata(path).ok().map(stamp)).collect()
}
