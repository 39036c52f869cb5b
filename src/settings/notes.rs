//! Collects problems and warnings while the configuration is read, so that all are reported at once.
//!
//! Owns the format of locations and faults, so that all problems of the file read alike.

use std::collections::{BTreeMap, BTreeSet};

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
    /// Locations of LiteLLM's keys that this gateway does not obey, each with what it does in their place.
    pub(super) advice: BTreeMap<String, String>,
    /// The entries of `model_list` that are left out, because no backend here can serve them.
    pub(super) left_out: Vec<LeftOutEntry>,
}

/// An entry of `model_list` that is left out.
#[derive(Debug, Clone)]
pub(super) struct LeftOutEntry {
    /// The location of the entry, such as `model_list[0]`.
    pub(super) location: String,
    /// `model_name`.
    pub(super) name: String,
    pub(super) reason: LeftOutReason,
}

/// Why an entry of `model_list` cannot be served, and what to do.
#[derive(Debug, Clone)]
pub(super) struct LeftOutReason {
    pub(super) fault: String,
    pub(super) hint: String,
    /// Whether nothing but the name says what is meant, so that the user may mean a similar one.
    pub(super) is_name_unknown: bool,
}

impl FileNotes {
    /// Records a problem with the value at `location`.
    pub(super) fn problem(&mut self, location: &str, fault: impl AsRef<str>, hint: Option<String>) {
        let fault = format!("{}: {}", printable(location), fault.as_ref());
        self.problems.push(SettingProblem { subject: self.subject.clone(), fault, hint });
    }

    /// Adds the problems and warnings of a part of the configuration that was read apart.
    pub(super) fn absorb(&mut self, other: Self) {
        // No `..`: a new field does not compile until it is added here.
        let Self { subject: _, problems, warnings, ignored, advice, left_out } = other;
        self.problems.extend(problems);
        self.warnings.extend(warnings);
        self.ignored.extend(ignored);
        self.advice.extend(advice);
        self.left_out.extend(left_out);
    }

    /// Returns whether an entry of this name is left out.
    pub(super) fn is_left_out(&self, name: &str) -> bool {
        self.left_out.iter().any(|entry| entry.name == name)
    }

    /// Records a problem for each entry that was left out, in place of the warnings.
    pub(super) fn refuse_left_out(&mut self) {
        for LeftOutEntry { location, name, reason } in std::mem::take(&mut self.left_out) {
            let fault = format!("{name:?} cannot be served: {}", reason.fault);
            self.problem(&location, fault, Some(reason.hint));
        }
    }

    /// Takes the warnings: those of the file, one for each entry that is left out and for each key that is not obeyed,
    /// and one for all ignored keys together.
    pub(super) fn take_warnings(&mut self) -> Vec<String> {
        let mut warnings = std::mem::take(&mut self.warnings);
        let subject = &self.subject;
        warnings.extend(std::mem::take(&mut self.left_out).into_iter().map(
            |LeftOutEntry { location, name, reason }| {
                let LeftOutReason { fault, hint, .. } = reason;
                format!("{subject}: {}: {name:?} is left out: {fault}; {hint}", printable(&location))
            },
        ));
        let advice = std::mem::take(&mut self.advice);
        warnings.extend(advice.into_iter().map(|(key, hint)| format!("{subject}: {key} is not obeyed: {hint}")));
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
