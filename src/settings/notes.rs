//! Collects problems and warnings while the configuration is read, so that all are reported at once.
//!
//! Owns the format of locations and faults, so that all problems of the file read alike.

use std::collections::BTreeSet;

use super::problem::SettingProblem;

/// The problems and warnings of one configuration.
#[derive(Default)]
pub(super) struct FileNotes {
    /// The subject of the problems: the path of the file.
    pub(super) subject: String,
    /// The problems, which prevent a start.
    pub(super) problems: Vec<SettingProblem>,
    /// The warnings: things that work but should be changed.
    pub(super) warnings: Vec<String>,
    /// Locations of LiteLLM's keys that this gateway ignores.
    pub(super) ignored: BTreeSet<String>,
}

impl FileNotes {
    /// Records a problem with the value at `location`.
    pub(super) fn problem(&mut self, location: &str, fault: impl AsRef<str>, hint: Option<String>) {
        let fault = format!("{}: {}", printable(location), fault.as_ref());
        self.problems.push(SettingProblem { subject: self.subject.clone(), fault, hint });
    }

    /// Takes the warnings, with one more for all ignored keys together.
    pub(super) fn take_warnings(&mut self) -> Vec<String> {
        let mut warnings = std::mem::take(&mut self.warnings);
        if !self.ignored.is_empty() {
            let locations: Vec<&str> = self.ignored.iter().map(String::as_str).collect();
            warnings.push(format!(
                "{}: ignored, because they have no meaning here: {}",
                self.subject,
                locations.join(", ")
            ));
        }
        warnings
    }
}

/// Returns the text with control characters replaced by U+FFFD: they must not reach a terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Returns a suggestion for an unknown word, if one of the known words is similar to it.
pub(super) fn did_you_mean<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let similarity =
        |candidate: &str| strsim::jaro_winkler(&word.to_ascii_lowercase(), &candidate.to_ascii_lowercase());
    let best = known.map(|candidate| (similarity(candidate), candidate)).max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(score, _)| *score > 0.8).map(|(_, candidate)| format!("did you mean {candidate}?"))
}
