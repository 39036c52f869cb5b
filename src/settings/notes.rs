//! What is found wrong while the configuration is read, collected so that all of it is reported at once.
//!
//! Owns how places and faults are worded, so that every problem of the file reads alike.

use super::problem::SettingProblem;
use std::collections::BTreeSet;

/// What is wrong with a configuration, and what should be changed.
#[derive(Default)]
pub(super) struct FileNotes {
    /// What the problems are about.
    pub(super) subject: String,
    /// What is wrong.
    pub(super) problems: Vec<SettingProblem>,
    /// What works but should be changed.
    pub(super) warnings: Vec<String>,
    /// Places whose values mean nothing here.
    pub(super) ignored: BTreeSet<String>,
}

impl FileNotes {
    /// Notes a problem with what stands at `place`.
    pub(super) fn problem(&mut self, place: &str, fault: impl AsRef<str>, hint: Option<String>) {
        let fault = format!("{}: {}", printable(place), fault.as_ref());
        self.problems.push(SettingProblem { subject: self.subject.clone(), fault, hint });
    }

    /// One warning for everything that is ignored.
    pub(super) fn warnings(&mut self) -> Vec<String> {
        let mut warnings = std::mem::take(&mut self.warnings);
        if !self.ignored.is_empty() {
            let places: Vec<&str> = self.ignored.iter().map(String::as_str).collect();
            warnings.push(format!("{}: ignored, without meaning here: {}", self.subject, places.join(", ")));
        }
        warnings
    }
}

/// Control characters must not reach a terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A suggestion for a word that is not known, if one of the known words is like it.
pub(super) fn did_you_mean<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let similarity =
        |candidate: &str| strsim::jaro_winkler(&word.to_ascii_lowercase(), &candidate.to_ascii_lowercase());
    let best = known.map(|candidate| (similarity(candidate), candidate)).max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(score, _)| *score > 0.8).map(|(_, candidate)| format!("did you mean {candidate}?"))
}
