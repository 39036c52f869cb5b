//! Turns arguments of llama-server into keys of a model.
//!
//! Owns how options depend on each other. What becomes of each is a row of `targets.rs`, else an argument in `args`, if our
//! loader takes it there.

use serde_json::{Map, Value as Json, json};

use super::options::OptionName;
use super::targets::{Target, target_of};
use crate::import::acceptance::{KeyPlace, set_or_leave_out};
use crate::import::section::{DraftSection, DraftValue, PORT};
use crate::settings::values::{ArgumentsPlace, ExtraArgs, is_secret, looks_like_an_option, takes_any_text};

/// An option as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::import) struct GivenOption {
    /// What it means.
    pub(in crate::import) name: OptionName,
    /// How it was spelled, with dashes.
    pub(in crate::import) spelled: String,
    /// Its values.
    pub(in crate::import) values: Vec<String>,
}

/// The keys that arguments become.
#[derive(Debug, Default)]
pub(in crate::import) struct ServerKeys {
    /// The keys and the comments.
    pub(in crate::import) section: DraftSection,
    /// The file or the model of the hub; `None` if no argument names one.
    pub(in crate::import) file: Option<String>,
    /// Other names of the model.
    pub(in crate::import) aliases: Vec<String>,
}

/// Divides words into options with their values.
pub(in crate::import) fn read_arguments(words: &[String], section: &mut DraftSection) -> Vec<GivenOption> {
    let mut options: Vec<GivenOption> = Vec::new();
    let mut rest = words.iter().cloned().peekable();
    while let Some(word) = rest.next() {
        if !looks_like_an_option(&word) {
            section.left_out("a word", "it belongs to no option");
            continue;
        }
        let (spelled, inline) = match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word.clone(), None),
        };
        let name = OptionName::of_flag(&spelled);
        let mut values: Vec<String> = inline.into_iter().collect();
        if takes_any_text(&name.main) || takes_any_text(&spelled) {
            values.extend(rest.next_if(|_| values.is_empty()));
        } else if !name.is_switch {
            while let Some(value) = rest.next_if(|next| !looks_like_an_option(next)) {
                values.push(value);
            }
        }
        options.push(GivenOption { name, spelled, values });
    }
    options
}

/// Turns options into keys of a model. Of an option that is given twice, the later one counts, as in llama-server.
pub(in crate::import) fn translate(options: &[GivenOption]) -> ServerKeys {
    let mut translation = Translation::default();
    for option in options {
        translation.take(option);
    }
    translation.finish()
}

/// The options read so far.
#[derive(Debug, Default)]
struct Translation {
    comments: DraftSection,
    file: Option<String>,
    repository: Option<String>,
    repository_file: Option<String>,
    context: Option<String>,
    slots: Option<String>,
    kind: Option<&'static str>,
    adapters: Vec<Json>,
    /// The members of `speculative`.
    drafting: Map<String, Json>,
    /// Keys whose value is independent of other options, each with the option that it came from.
    others: Vec<(&'static str, String, DraftValue)>,
    arguments: Vec<String>,
    aliases: Vec<String>,
}

impl Translation {
    fn take(&mut self, option: &GivenOption) {
        let target = target_of(&option.name.main);
        let value = option.values.first().cloned().unwrap_or_default();
        match target {
            Target::Argument => self.take_argument(option),
            Target::Nothing(reason) => self.comments.left_out(&option.spelled, reason),
            Target::Kind(kind) => self.take_kind(kind),
            Target::ProjectorSwitch if option.name.is_negated => {
                self.take_key("mmproj", option, DraftValue::text("none"))
            }
            // Projectors beside the model are found without it.
            Target::ProjectorSwitch => {}
            Target::Port if value == PORT => {}
            Target::Port => {
                self.comments.left_out(&option.spelled, "the gateway chooses the port, from PORT_BACKEND on")
            }
            _ if value.is_empty() => self.comments.left_out(&option.spelled, "it has no value"),
            Target::File => self.file = Some(value),
            Target::Repository => self.repository = Some(value),
            Target::RepositoryFile => self.repository_file = Some(value),
            Target::Context => self.context = Some(value),
            Target::Slots => self.slots = Some(value),
            Target::Layers => self.take_key("ngl", option, layers(&value)),
            Target::Threads => self.take_key("threads", option, or_zero(&value)),
            Target::Idle => self.take_key("ttl", option, or_zero(&value)),
            Target::Preload if is_true(&value) => self.take_key("preload", option, DraftValue::yes()),
            Target::Preload => {}
            Target::SameText(key) => self.take_key(key, option, DraftValue::text(value)),
            Target::SameList(key) => self.take_key(key, option, DraftValue::Words(in_list(&value).collect())),
            Target::Adapters => self.adapters.extend(in_list(&value).map(|file| json!({"file": file}))),
            Target::ScaledAdapters => self.take_scaled_adapters(option),
            Target::Drafting(member) => match value.parse::<f64>() {
                Ok(number) => _ = self.drafting.insert(member.to_owned(), number_of(number)),
                Err(_) => self.comments.left_out(&option.spelled, "it is no number"),
            },
            Target::SameValue(key) => self.take_key(key, option, DraftValue::number(&value)),
            Target::Names => {
                self.aliases.extend(in_list(&value));
            }
        }
        if !matches!(target, Target::Argument | Target::ScaledAdapters | Target::Nothing(_)) && option.values.len() > 1
        {
            self.comments.left_out(&option.spelled, "of its values only the first counts");
        }
    }

    /// Takes `FILE:SCALE,...`, or `FILE SCALE` as older builds have it.
    fn take_scaled_adapters(&mut self, option: &GivenOption) {
        let items: Vec<String> = match option.values.as_slice() {
            [file, scale] => vec![format!("{file}:{scale}")],
            values => values.iter().flat_map(|value| in_list(value)).collect(),
        };
        for item in items {
            let scaled = item.rsplit_once(':').and_then(|(file, scale)| Some((file, scale.parse::<f64>().ok()?)));
            match scaled {
                Some((file, scale)) => self.adapters.push(json!({"file": file, "scale": scale})),
                None => self.comments.left_out(&option.spelled, "an adapter has no scale"),
            }
        }
    }

    /// Of `--embeddings` and `--reranking` together, the latter decides.
    fn take_kind(&mut self, kind: &'static str) {
        if self.kind != Some("rerank") {
            self.kind = Some(kind);
        }
    }

    fn take_key(&mut self, key: &'static str, option: &GivenOption, value: DraftValue) {
        self.others.retain(|(known, ..)| *known != key);
        self.others.push((key, option.spelled.clone(), value));
    }

    fn take_argument(&mut self, option: &GivenOption) {
        let words: Vec<String> = [&option.spelled].into_iter().chain(&option.values).cloned().collect();
        let is_hidden = is_secret(&option.name.main) && !option.name.is_switch;
        match ExtraArgs::checked(words, ArgumentsPlace::Model) {
            Err(rejected) => self.comments.left_out(&option.spelled, rejected.hint.unwrap_or(rejected.allowed)),
            Ok(_) if is_hidden || option.values.iter().any(|value| may_be_secret(value)) => {
                self.comments.left_out(&option.spelled, "its value may be a secret, and is not written into a file");
            }
            Ok(checked) if checked.words.is_empty() => {
                let reason = checked.warnings.first().and_then(|warning| warning.split_once(": "));
                self.comments.left_out(&option.spelled, reason.map_or("it has no effect here", |(_, reason)| reason));
            }
            Ok(checked) => {
                checked.warnings.into_iter().for_each(|warning| self.comments.note(warning));
                self.arguments.extend(checked.words);
            }
        }
    }

    fn finish(mut self) -> ServerKeys {
        let mut section = std::mem::take(&mut self.comments);
        let file = self.file_key(&mut section);
        let mut set =
            |key: &str, source: &str, value| set_or_leave_out(&mut section, KeyPlace::File, (source, key), value);
        if let Some(kind) = self.kind {
            set("kind", "the kind", DraftValue::text(kind));
        }
        let has_draft = self.others.iter().any(|(key, ..)| *key == "draft");
        for (key, source, value) in std::mem::take(&mut self.others) {
            set(key, &source, value);
        }
        match (self.drafting.is_empty(), has_draft) {
            (true, _) => {}
            (false, false) => section.left_out("the sizes of drafts", "there is no draft model"),
            (false, true) => {
                let value = DraftValue::Flow(Json::Object(std::mem::take(&mut self.drafting)));
                set_or_leave_out(&mut section, KeyPlace::File, ("the sizes of drafts", "speculative"), value);
            }
        }
        if !self.adapters.is_empty() {
            let value = DraftValue::Flow(Json::Array(std::mem::take(&mut self.adapters)));
            set_or_leave_out(&mut section, KeyPlace::File, ("--lora", "lora"), value);
        }
        self.set_context(&mut section);
        if !self.arguments.is_empty() {
            let value = DraftValue::Words(self.arguments);
            set_or_leave_out(&mut section, KeyPlace::File, ("the other arguments", "args"), value);
        }
        ServerKeys { section, file, aliases: self.aliases }
    }

    /// Returns the value of `file`.
    fn file_key(&self, section: &mut DraftSection) -> Option<String> {
        let Some(repository) = &self.repository else {
            if self.repository_file.is_some() {
                section.left_out("--hf-file", "there is no repository");
            }
            if self.file.as_deref().is_some_and(|file| !file.starts_with('/')) {
                section.note("file is relative: it is looked for below MODELS_DIR");
            }
            return self.file.clone();
        };
        if self.file.is_some() {
            section.left_out("--model", "the model of the hub goes into HF_HUB_CACHE");
        }
        match &self.repository_file {
            None => Some(repository.clone()),
            Some(file) => {
                let name = repository.split_once(':').map_or(repository.as_str(), |(name, _)| name);
                Some(format!("{name}/{file}"))
            }
        }
    }

    /// Sets `ctx` and `parallel`. The context of llama-server is that of all slots together, ours that of one.
    fn set_context(&mut self, section: &mut DraftSection) {
        let mut slots = 1;
        match self.slots.as_deref().map(|text| (text, text.parse::<i64>())) {
            None => {}
            Some((_, Ok(count))) if count <= 0 => {
                section.left_out("--parallel", "llama-server would choose; here PARALLEL is the default");
            }
            Some((text, count)) => {
                let value = DraftValue::number(text);
                set_or_leave_out(section, KeyPlace::File, ("--parallel", "parallel"), value);
                slots = count.map_or(1, i64::unsigned_abs);
            }
        }
        let Some(text) = &self.context else { return };
        let value = match text.parse::<u64>() {
            Ok(0) => {
                section.left_out("--ctx-size", "0 is the context that the file names; here CTX is the default");
                return;
            }
            Ok(total) => {
                if total % slots != 0 {
                    section.note(format!("ctx is for one slot: {total} tokens for {slots} slots do not divide evenly"));
                }
                DraftValue::Plain((total / slots).to_string())
            }
            Err(_) => DraftValue::number(text),
        };
        set_or_leave_out(section, KeyPlace::File, ("--ctx-size", "ctx"), value);
    }
}

/// Returns a number without a fraction as a whole one.
fn number_of(number: f64) -> Json {
    let whole = number.to_string().parse::<u64>();
    whole.map_or_else(|_| json!(number), |whole| json!(whole))
}

/// Returns the texts that commas separate, without empty ones.
fn in_list(text: &str) -> impl Iterator<Item = String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned)
}

/// Returns whether a text looks like a secret, whatever it is the value of.
pub(in crate::import) fn may_be_secret(text: &str) -> bool {
    let has_user = text.split_once("://").is_some_and(|(_, rest)| {
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        host.contains('@')
    });
    has_user || ["sk-", "hf_"].iter().any(|prefix| text.starts_with(prefix))
}

/// Returns whether a value of a preset means yes, as llama-server reads it.
pub(in crate::import) fn is_true(value: &str) -> bool {
    ["on", "enabled", "true", "1"].contains(&value)
}

/// Returns a number from 0; one below it means the default, which is 0 here.
fn or_zero(text: &str) -> DraftValue {
    match text.parse::<i64>() {
        Ok(number) if number < 0 => DraftValue::Plain("0".to_owned()),
        _ => DraftValue::number(text),
    }
}

/// Returns layers on the GPU; llama-server's numbers below 0 are words here.
fn layers(text: &str) -> DraftValue {
    match text {
        "-1" => DraftValue::text("auto"),
        "-2" => DraftValue::text("all"),
        _ => DraftValue::number(text),
    }
}

#[cfg(test)]
#[path = "arguments_tests.rs"]
mod tests;
