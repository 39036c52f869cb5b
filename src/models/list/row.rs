//! The models below one folder, as rows of a table or for serde.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::models::check::Inspection;
use crate::models::columns::aligned;
use crate::models::companions::projector::is_projector;
use crate::models::error::{FileProblem, ModelError};
use crate::models::folder_walk::walk;
use crate::models::kind::ModelKind;
use crate::models::places::PlaceKind;
use crate::models::shelf::names_of;
use crate::models::split::{SplitPart, id_of};

const HEADINGS: [&str; 7] = ["NAME", "ID", "KIND", "ARCHITECTURE", "QUANTISATION", "SIZE", "CONTEXT"];
/// Indices of the columns that are aligned at the right.
const NUMBER_COLUMNS: [usize; 2] = [5, 6];

/// One model below a folder, or a file or folder with the reason why it cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListedModel {
    /// Path relative to the folder; for a split model, that of its first part.
    pub name: String,
    /// The id that clients use when the folder is served: the file's name without `.gguf` and without the number of a
    /// part, with its folder if another model has that name too.
    pub id: String,
    /// What it is for; `None` if the file is not a model.
    pub kind: Option<ModelKind>,
    /// The architecture, such as `qwen3`.
    pub architecture: Option<String>,
    /// The quantisation, such as `Q4_K_M`.
    pub quantization: Option<String>,
    /// Size of all its files in bytes.
    pub size_bytes: u64,
    /// Number of its files that exist.
    pub files: usize,
    /// Whether it holds a chat template; `None` if the file could not be read.
    pub has_chat_template: Option<bool>,
    /// Context length that it was trained for, in tokens.
    pub context_length: Option<u64>,
    /// Why it cannot be served. The text follows the name.
    pub error: Option<String>,
    /// Whether it is a multimodal projector.
    #[serde(skip)]
    pub is_projector: bool,
}

/// Lists the models below `dir` by name, including unusable ones with the reason.
///
/// # Errors
///
/// `dir` itself cannot be read.
pub fn list(dir: &Path) -> Result<Vec<ListedModel>, ModelError> {
    rows_of(dir).map_err(|source| ModelError::Folder { dir: dir.to_owned(), source })
}

/// Lists the models below `dir` by name, including unusable ones with the reason.
///
/// # Errors
///
/// `dir` itself cannot be read.
pub(super) fn rows_of(dir: &Path) -> io::Result<Vec<ListedModel>> {
    let below = walk(dir)?;
    let mut rows: Vec<ListedModel> = below.models.iter().map(|path| ListedModel::at(dir, path)).collect();
    let served: Vec<usize> = (0..rows.len()).filter(|&row| rows[row].error.is_none()).collect();
    let paths: Vec<PathBuf> = served.iter().map(|&row| below.models[row].clone()).collect();
    for (row, name) in served.into_iter().zip(names_of(PlaceKind::Models, &paths)) {
        rows[row].id = name.id;
    }
    rows.extend(below.skipped.into_iter().map(|(path, reason)| ListedModel::skipped_folder(&path, reason)));
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(rows)
}

impl ListedModel {
    pub(super) fn at(dir: &Path, path: &Path) -> Self {
        let inspection = Inspection::of(&dir.join(path));
        // A split model whose first part is missing still has its name, because that is the name to configure.
        let first = SplitPart::of_path(path).and_then(|part| part.siblings(path).next());
        let model = inspection.metadata.as_ref();
        let architecture = model.map(|model| model.architecture.clone()).filter(|name| !name.is_empty());
        // A projector or an adapter has an architecture, but no kind; a later part has neither.
        let has_kind =
            matches!(inspection.problem, None | Some(FileProblem::MissingParts { .. } | FileProblem::Part { .. }));
        Self {
            name: first.as_deref().unwrap_or(path).display().to_string(),
            id: id_of(path),
            kind: model.filter(|_| has_kind && architecture.is_some()).map(ModelKind::of),
            architecture,
            quantization: model.map(|model| model.quantization.clone()),
            size_bytes: inspection.size_bytes,
            files: inspection.files,
            has_chat_template: model.map(|model| model.has_chat_template),
            context_length: model.and_then(|model| model.context_length),
            is_projector: matches!(inspection.problem, Some(FileProblem::NoModel { .. }))
                && model.is_some_and(is_projector),
            error: inspection.problem.map(|problem| problem.to_string()),
        }
    }

    fn skipped_folder(path: &Path, reason: String) -> Self {
        Self {
            name: format!("{}/", path.display()),
            id: String::new(),
            kind: None,
            architecture: None,
            quantization: None,
            size_bytes: 0,
            files: 0,
            has_chat_template: None,
            context_length: None,
            error: Some(reason),
            is_projector: false,
        }
    }

    fn cells(&self) -> [String; HEADINGS.len()] {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        [
            printable(&self.name),
            or_dash(Some(printable(&self.id)).filter(|id| !id.is_empty() && self.error.is_none())),
            or_dash(self.kind.map(|kind| kind.to_string())),
            or_dash(self.architecture.as_deref().map(printable)),
            or_dash(self.quantization.clone()),
            human_size(self.size_bytes),
            or_dash(self.context_length.map(|tokens| tokens.to_string())),
        ]
    }
}

/// Formats the models as a table with aligned columns. The reason of an unusable one follows in a line of its own.
#[must_use]
pub fn table(models: &[ListedModel]) -> String {
    let rows = models.iter().map(|model| (model.cells(), model.error.as_deref()));
    table_of(HEADINGS, &NUMBER_COLUMNS, rows)
}

/// Formats rows under headings. The reason of an unusable one follows in a line of its own.
pub(super) fn table_of<'a, const N: usize>(
    headings: [&str; N],
    numbers: &[usize],
    rows: impl Iterator<Item = ([String; N], Option<&'a str>)>,
) -> String {
    let (cells, reasons): (Vec<[String; N]>, Vec<Option<&str>>) =
        std::iter::once((headings.map(str::to_owned), None)).chain(rows).unzip();
    let mut text = String::new();
    for (line, reason) in aligned(&cells, numbers).into_iter().zip(reasons) {
        text.push_str(&line);
        text.push('\n');
        if let Some(reason) = reason {
            let _ = writeln!(text, "  ! {}", printable(reason));
        }
    }
    text
}

/// Formats a size in bytes for people: `640 B`, `4.5 KiB`, `2.3 GiB`.
#[must_use]
pub fn human_size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit_bytes = 1;
    let mut text = String::new();
    for unit in ["KiB", "MiB", "GiB", "TiB"] {
        unit_bytes *= 1024;
        let tenths = (u128::from(bytes) * 10 + unit_bytes / 2) / unit_bytes;
        text = format!("{}.{} {unit}", tenths / 10, tenths % 10);
        // Compared after rounding, so that nothing reads 1024.0 KiB.
        if tenths < 10_240 {
            break;
        }
    }
    text
}

/// Replaces control characters. Names come from untrusted files, and an escape sequence must not reach a terminal.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::sample::GgufSample;

    #[test]
    fn models_are_listed_sorted_and_parts_are_one_row() {
        let dir = tempfile::tempdir().unwrap();
        GgufSample::chat().write(dir.path(), "zeta.gguf");
        GgufSample::of("bert").uint("bert.pooling_type", 1).write(dir.path(), "sub/embed.GGUF");
        GgufSample::chat().write(dir.path(), "big-00001-of-00003.gguf");
        GgufSample::default().write(dir.path(), "big-00002-of-00003.gguf");
        GgufSample::of("clip").write(dir.path(), "mmproj.gguf");
        std::fs::write(dir.path().join("fake.gguf"), "<html>").unwrap();
        std::fs::write(dir.path().join("notes.txt"), "x").unwrap();
        std::fs::write(dir.path().join("._zeta.gguf"), "x").unwrap();
        let rows = list(dir.path()).unwrap();
        let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["big-00001-of-00003.gguf", "fake.gguf", "mmproj.gguf", "sub/embed.GGUF", "zeta.gguf"]);
        let [big, fake, mmproj, embed, zeta] = rows.as_slice() else { panic!() };
        assert_eq!((big.id.as_str(), big.kind), ("big", Some(ModelKind::Chat)));
        assert!(big.error.as_deref().unwrap().contains("part 3 of 3 is missing"));
        assert_eq!(big.size_bytes, (GgufSample::chat().bytes().len() + GgufSample::default().bytes().len()) as u64);
        assert_eq!((big.files, big.has_chat_template, embed.has_chat_template), (2, Some(true), Some(false)));
        assert_eq!((fake.files, fake.has_chat_template), (1, None));
        assert!(fake.error.is_some() && fake.kind.is_none());
        assert!(mmproj.error.is_some() && mmproj.kind.is_none());
        assert_eq!((embed.id.as_str(), embed.kind), ("embed", Some(ModelKind::Embedding)));
        assert_eq!(zeta.quantization.as_deref(), Some("Q4_K_M"));
        assert_eq!((zeta.context_length, zeta.error.as_ref()), (Some(4096), None));
    }

    #[test]
    fn links_to_files_are_listed_and_loops_of_links_end() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let file = GgufSample::chat().write(elsewhere.path(), "blob.gguf");
        std::os::unix::fs::symlink(&file, dir.path().join("linked.gguf")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("broken.gguf")).unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("sub/loop")).unwrap();
        let rows = list(dir.path()).unwrap();
        let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["broken.gguf", "linked.gguf"]);
        assert!(rows[0].error.is_some() && rows[1].error.is_none());
    }

    #[test]
    fn a_split_model_without_its_first_part_is_one_row() {
        let dir = tempfile::tempdir().unwrap();
        GgufSample::default().write(dir.path(), "big-00002-of-00002.gguf");
        let rows = list(dir.path()).unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].name.as_str(), rows[0].kind), ("big-00001-of-00002.gguf", None));
        assert!(rows[0].error.as_deref().unwrap().contains("part 1 of 2 is missing"));
    }

    #[test]
    fn a_folder_too_deep_is_reported_and_a_missing_folder_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        GgufSample::chat().write(dir.path(), "1/2/3/4/5/6/7/8/seen.gguf");
        GgufSample::chat().write(dir.path(), "1/2/3/4/5/6/7/8/9/unseen.gguf");
        let rows = list(dir.path()).unwrap();
        assert_eq!(rows.len(), 2);
        assert!(rows[0].name.ends_with("/9/") && rows[0].error.as_deref().unwrap().contains("deeper"));
        assert!(matches!(list(&dir.path().join("none")), Err(ModelError::Folder { .. })));
    }

    #[test]
    fn the_table_is_aligned_and_holds_no_escape_sequences() {
        let dir = tempfile::tempdir().unwrap();
        GgufSample::chat().write(dir.path(), "tiny.gguf");
        GgufSample::of("x\u{1b}[31m").write(dir.path(), "a-longer-name.gguf");
        std::fs::write(dir.path().join("fake.gguf"), "<html>").unwrap();
        let text = table(&list(dir.path()).unwrap());
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("NAME                ID             KIND  ARCHITECTURE  QUANTISATION"), "{text}");
        assert!(
            lines.iter().any(|line| line.starts_with("tiny.gguf           tiny           chat  llama         Q4_K_M")),
            "{text}"
        );
        assert!(lines.iter().any(|line| line.starts_with("  ! is not a GGUF file")), "{text}");
        assert!(!text.contains('\u{1b}'));
        assert_eq!(table(&[]).lines().count(), 1);
    }

    #[test]
    fn sizes_are_rounded_to_one_decimal() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (4608, "4.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (2_469_606_195, "2.3 GiB"),
            (1 << 50, "1024.0 TiB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
    }
}
