//! Applies the table of aliases to an environment.
//!
//! Owns which name wins where several set the same: a flag, then the real environment before `ENV_FILE`, and within each
//! our own name before aliases, of which the upper one of the table. A value is judged only if its name decides something.

use super::aliases::{
    ALIASES, AliasRow, AliasTarget, HF_MODEL_FILENAME, HF_MODEL_REPO, LOAD_BALANCER, RERANKER_MODEL_NAME, Translation,
};
use crate::settings::catalogue::TIERS;
use crate::settings::environment::Environment;
use crate::settings::options;
use crate::settings::problem::SettingProblem;
use crate::settings::source::Inputs;
use crate::settings::values::{Rejected, Value};

/// What the configuration file adds to the meaning of some names.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::settings) struct FileFacts {
    /// Whether there is one.
    pub(in crate::settings) is_present: bool,
    /// Whether it names models of its own.
    pub(in crate::settings) has_models: bool,
}

/// The environment with the names of other servers read as ours, and what is to be said about them.
pub(in crate::settings) struct BroughtNames {
    /// The environment, in which each variable of ours that is not set has the value that an alias gives it.
    pub(in crate::settings) environment: Environment,
    /// One line for each name that is read: `N_CTX read as CTX`.
    pub(in crate::settings) lines: Vec<BroughtLine>,
    /// Warnings: names that have no effect.
    pub(in crate::settings) warnings: Vec<String>,
    /// Values that cannot be translated.
    pub(in crate::settings) problems: Vec<SettingProblem>,
}

/// What one name is read as.
pub(in crate::settings) struct BroughtLine {
    /// The name.
    pub(in crate::settings) name: &'static str,
    /// The whole line, which begins with the name.
    pub(in crate::settings) text: String,
}

impl BroughtNames {
    /// Reads the names of the table in the environment of `inputs`.
    pub(in crate::settings) fn read(inputs: &Inputs, file: FileFacts) -> Self {
        let environment = inputs.environment.clone();
        let mut names = Self { environment, lines: Vec::new(), warnings: Vec::new(), problems: Vec::new() };
        let has_others = file.has_models || has_models_besides_reranker(inputs);
        for row in ALIASES {
            let Some(text) = inputs.environment.get(row.name) else { continue };
            // Two names of one model.
            let with_file = match (row.name == HF_MODEL_REPO, inputs.environment.get(HF_MODEL_FILENAME)) {
                (true, Some(file)) => Some(format!("{}/{file}", text.trim_end_matches('/'))),
                _ => None,
            };
            let text = with_file.as_deref().unwrap_or(text);
            let of_reranker = row.of_reranker.filter(|own| has_others || inputs.environment.get(own).is_some());
            match of_reranker.map_or(row.target, AliasTarget::Variable) {
                AliasTarget::Variable(own) => names.take_variable(row, own, text, inputs),
                AliasTarget::Described(_) if row.name == LOAD_BALANCER && !file.is_present => names.take_switch(text),
                // The row of the repository stands above.
                AliasTarget::Described(_)
                    if row.name == HF_MODEL_FILENAME && !names.lines.iter().any(|line| line.name == HF_MODEL_REPO) =>
                {
                    names.warn_of_no_effect(row.name, "it names a file of HF_MODEL_REPO, which names no model here");
                }
                AliasTarget::Described(meaning) => names.take_described(row, meaning, text),
                AliasTarget::Nothing(instead) => names.take_nothing(row, instead, text),
            }
        }
        names
    }

    /// Takes a name that sets a variable of ours, unless something else sets that.
    fn take_variable(&mut self, row: &'static AliasRow, own: &'static str, text: &str, inputs: &Inputs) {
        let name = row.name;
        let translation = (row.translate)(text);
        let value = match &translation {
            Ok(Translation::Text(other)) => Some(*other),
            Ok(Translation::Same) => Some(text),
            _ => None,
        };
        let flag = inputs.flags.get(own.to_ascii_lowercase().as_str());
        // ENV_FILE has a lower rank, whatever the names are.
        let is_above = self.environment.is_from_file(own) && !self.environment.is_from_file(name);
        let set = flag.map(String::as_str).or_else(|| self.environment.get(own).filter(|_| !is_above));
        if let Some(set) = set {
            if Some(set) != value {
                let flag = flag.and_then(|_| options::row(&own.to_ascii_lowercase()));
                let winner = match flag {
                    Some(row) => format!("--{}", row.flag()),
                    None => self.environment.name_of(own).to_owned(),
                };
                self.warnings.push(format!("{name} is ignored: {winner} is set too"));
            }
            return;
        }
        let value = match (translation, value) {
            (Err(rejected), _) => return self.refuse(row, text, &format!(" (read as {own})"), rejected),
            (Ok(Translation::AsIs(what)), _) => return self.add_line(name, format!("{own}: {what}")),
            (Ok(Translation::NoEffect(why)), _) => return self.warn_of_no_effect(name, why),
            (Ok(Translation::Same | Translation::Text(_)), value) => value.unwrap_or(text),
        };
        if let Some(set) = self.environment.get(own) {
            let loser = self.environment.name_of(own).to_owned();
            if set != value {
                self.warnings
                    .push(format!("{loser} of ENV_FILE is ignored: {name} is set in the environment, which wins"));
            }
            self.lines.retain(|line| line.name != loser);
        }
        if row.is_deprecated {
            self.warnings.push(format!("{name} is deprecated: use {own}"));
        }
        let is_same = self.environment.get(name) == Some(value);
        let translated = if is_same { String::new() } else { format!("={value}") };
        self.add_line(name, format!("{own}{translated}"));
        self.environment.set_by_alias(own, name, value.to_owned());
    }

    /// Takes the switch of `model_list` where there is no configuration file, which could have one.
    fn take_switch(&mut self, text: &str) {
        match bool::parse(text) {
            Ok(false) => self.add_line(LOAD_BALANCER, "the switch of model_list: there is none".to_owned()),
            _ => self.warnings.push(format!(
                "{LOAD_BALANCER} has no effect without a configuration file: set CONFIG_FILE=./reranker_config.yaml"
            )),
        }
    }

    fn take_described(&mut self, row: &'static AliasRow, meaning: &str, text: &str) {
        let meaning = plain(meaning);
        match (row.translate)(text) {
            Ok(Translation::AsIs(what)) => self.add_line(row.name, format!("{meaning}: {what}")),
            Ok(Translation::NoEffect(why)) => self.warn_of_no_effect(row.name, why),
            Ok(Translation::Same | Translation::Text(_)) => self.add_line(row.name, meaning),
            Err(rejected) => self.refuse(row, text, "", rejected),
        }
    }

    fn take_nothing(&mut self, row: &'static AliasRow, instead: &str, text: &str) {
        match (row.translate)(text) {
            Ok(Translation::AsIs(what)) => {
                let text = format!("{} asks for what happens anyway: {what}", row.name);
                self.lines.push(BroughtLine { name: row.name, text });
            }
            Ok(Translation::NoEffect(why)) => self.warn_of_no_effect(row.name, why),
            // Whatever the value is: it decides nothing.
            Ok(Translation::Same | Translation::Text(_)) | Err(_) => self.warn_of_no_effect(row.name, instead),
        }
    }

    fn add_line(&mut self, name: &'static str, meaning: String) {
        self.lines.push(BroughtLine { name, text: format!("{name} read as {meaning}") });
    }

    fn warn_of_no_effect(&mut self, name: &str, why: &str) {
        self.warnings.push(format!("{name} has no effect: {}", plain(why)));
    }

    fn refuse(&mut self, row: &AliasRow, text: &str, read_as: &str, rejected: Rejected) {
        self.problems.push(SettingProblem {
            subject: format!("{}={text:?}{read_as}", row.name),
            fault: format!("expected {}", rejected.allowed),
            hint: rejected.hint,
        });
    }
}

/// Whether flags or variables name models of which some are not the rerank model of [`TIERS`]. A single model of
/// `MODEL_NAME` or `MODEL_PATH` may be the reranker itself.
fn has_models_besides_reranker(inputs: &Inputs) -> bool {
    let get = |variable: &str| {
        let flag = inputs.flags.get(variable.to_ascii_lowercase().as_str()).map(String::as_str);
        flag.or_else(|| inputs.environment.get(variable))
    };
    let is_named = |prefix: &str| {
        let backend = get(&format!("{prefix}_BACKEND")).is_some_and(|backend| backend.contains("://"));
        backend || get(&format!("{prefix}_MODEL_PATH")).is_some()
    };
    let has_single = ["MODEL_NAME", "MODEL_PATH"].into_iter().any(|variable| get(variable).is_some());
    let has_shelf = get("SERVE_MODELS_DIR").is_some_and(|value| bool::parse(value) == Ok(true));
    let has_reranker = is_named("RERANKER") || get(RERANKER_MODEL_NAME).is_some();
    let mut others = TIERS.iter().filter(|(prefix, _)| *prefix != "RERANKER");
    has_shelf || (has_single && has_reranker) || others.any(|(prefix, _)| is_named(prefix))
}

/// Returns the text without the quotes of Markdown.
fn plain(text: &str) -> String {
    text.replace('`', "")
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
