//! Models split into several files, `NAME-00001-of-00003.gguf`, as llama.cpp's gguf-split names them.
//!
//! llama-server gets the path of the first part and finds the others by their names in the same folder.

use std::path::{Path, PathBuf};

/// Ending of a model file, in any case.
const EXTENSION: &str = "gguf";
/// Digits in a part's number and in the number of parts.
const DIGITS: usize = 5;
/// Most parts of one model. A name with a larger number is an ordinary name.
const MAX_PARTS: u32 = 4096;

/// The position of one file in a set of parts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SplitPart {
    /// The prefix that all names of the set share.
    pub prefix: String,
    /// Number of this part, counted from 1.
    pub number: u32,
    /// Number of parts in the set.
    pub count: u32,
}

impl SplitPart {
    /// Parses a file name's stem. Returns `None` for a model in one file.
    #[must_use]
    pub fn of_stem(stem: &str) -> Option<Self> {
        let (rest, count) = number_at_end(stem)?;
        let (rest, number) = number_at_end(rest.strip_suffix("-of-")?)?;
        let prefix = rest.strip_suffix('-').filter(|prefix| !prefix.is_empty())?;
        let part = Self { prefix: prefix.to_owned(), number, count };
        (count <= MAX_PARTS && (1..=count).contains(&number)).then_some(part)
    }

    /// Parses the file name of `path`. Returns `None` for a model in one file.
    #[must_use]
    pub fn of_path(path: &Path) -> Option<Self> {
        Self::of_stem(path.file_stem()?.to_str()?)
    }

    /// Returns the paths of all parts of the set, in order, given the path of one of them.
    pub fn siblings(&self, path: &Path) -> impl Iterator<Item = PathBuf> + use<> {
        let (prefix, count) = (self.prefix.clone(), self.count);
        let dir = path.parent().unwrap_or(Path::new("")).to_owned();
        let extension = path.extension().unwrap_or(EXTENSION.as_ref()).to_owned();
        (1..=count).map(move |number| {
            let mut name = std::ffi::OsString::from(format!("{prefix}-{number:05}-of-{count:05}."));
            name.push(&extension);
            dir.join(name)
        })
    }
}

/// Returns the paths of all files of the model at `path`, which is its only file or any of its parts.
#[must_use]
pub fn parts_of(path: &Path) -> Vec<PathBuf> {
    SplitPart::of_path(path).map_or_else(|| vec![path.to_owned()], |part| part.siblings(path).collect())
}

/// Splits off five digits at the end of `text`.
fn number_at_end(text: &str) -> Option<(&str, u32)> {
    let (rest, digits) = text.split_at_checked(text.len().checked_sub(DIGITS)?)?;
    // The check also refuses a sign, which `parse` would take.
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { Some((rest, digits.parse().ok()?)) } else { None }
}

/// Whether the name ends in `.gguf`, in any case.
#[must_use]
pub fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(EXTENSION))
}

/// Returns the id of the model at `path`: its file name without `.gguf` and without the number of a part.
#[must_use]
pub fn id_of(path: &Path) -> String {
    let stem = if is_gguf(path) { path.file_stem() } else { path.file_name() };
    let stem = stem.unwrap_or_default().to_string_lossy();
    SplitPart::of_stem(&stem).map_or_else(|| stem.clone().into_owned(), |part| part.prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_part_is_parsed() {
        let part = SplitPart::of_stem("big-00002-of-00003").unwrap();
        assert_eq!((part.prefix.as_str(), part.number, part.count), ("big", 2, 3));
        for ordinary in [
            "big",
            "big-00000-of-00003",
            "big-00004-of-00003",
            "big-0001-of-0003",
            "-00001-of-00002",
            "big-00001-of-99999",
            "",
            "ü-0001",
        ] {
            assert_eq!(SplitPart::of_stem(ordinary), None, "{ordinary}");
        }
    }

    #[test]
    fn the_paths_of_all_parts_follow_from_one() {
        let path = Path::new("/m/big-00002-of-00002.gguf");
        let all: Vec<PathBuf> = SplitPart::of_path(path).unwrap().siblings(path).collect();
        assert_eq!(all, [Path::new("/m/big-00001-of-00002.gguf"), path]);
        assert_eq!(parts_of(path), all);
        assert_eq!(parts_of(Path::new("/m/lone.gguf")), [Path::new("/m/lone.gguf")]);
    }

    #[test]
    fn an_id_has_neither_ending_nor_part() {
        assert_eq!(id_of(Path::new("/m/Qwen3-4B-Q4_K_M.gguf")), "Qwen3-4B-Q4_K_M");
        assert_eq!(id_of(Path::new("sub/big-00001-of-00003.GGUF")), "big");
        assert_eq!(id_of(Path::new("phi-3.5")), "phi-3.5", "only .gguf is an ending");
    }
}
