//! What a conversion results in: sections and models, how they are printed, and how many things have no counterpart.
//!
//! Which values our own loader takes is asked in `acceptance.rs`.

use std::fmt::Write as _;

use super::section::{DraftSection, print_comment};
use super::yaml;

/// Spaces by which a section is indented in the one around it.
const INDENT: usize = 2;

/// A model of the new file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct DraftModel {
    /// The id, as the source has it.
    pub(super) id: String,
    /// Other names, which become the key `aliases` in `names.rs`.
    pub(super) aliases: Vec<String>,
    /// The keys under `models:`; without any, the model has none there.
    pub(super) keys: DraftSection,
    /// The keys of `litellm_params` for a remote backend, if the model has one.
    pub(super) remote: Option<DraftSection>,
    /// Why it could not be converted, if it could not.
    pub(super) fault: Option<String>,
}

impl DraftModel {
    /// Returns a model without keys.
    pub(super) fn of(id: &str) -> Self {
        Self { id: id.to_owned(), aliases: Vec::new(), keys: DraftSection::default(), remote: None, fault: None }
    }

    /// Returns a model that could not be converted, for this reason.
    pub(super) fn failed(id: &str, fault: impl Into<String>) -> Self {
        Self { fault: Some(fault.into()), ..Self::of(id) }
    }
}

/// The new file.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Draft {
    /// Comments at the top.
    pub(super) head: DraftSection,
    /// `server:`
    pub(super) server: DraftSection,
    /// `defaults:`
    pub(super) defaults: DraftSection,
    /// `models:` and `model_list:`
    pub(super) models: Vec<DraftModel>,
}

impl Draft {
    /// Returns the text of the file.
    pub(super) fn print(&self) -> String {
        let mut out = String::new();
        self.head.print(0, &mut out);
        for (name, section) in [("server", &self.server), ("defaults", &self.defaults)] {
            print_section(name, section, &mut out);
        }
        if self.models.iter().any(|model| model.keys.has_keys()) {
            out.push_str("models:\n");
        }
        for model in &self.models {
            print_model(model, &mut out);
        }
        if self.models.iter().any(|model| model.remote.is_some()) {
            out.push_str("model_list:\n");
        }
        for (model, remote) in self.models.iter().filter_map(|model| Some((model, model.remote.as_ref()?))) {
            let _ = writeln!(out, "{:INDENT$}- model_name: {}", "", yaml::text(&model.id));
            let _ = writeln!(out, "{:INDENT$}  litellm_params:", "");
            remote.print(3 * INDENT, &mut out);
        }
        out
    }

    /// Returns how many things of the source have no counterpart. A model that could not be converted is not counted.
    pub(super) fn left_out_count(&self) -> usize {
        let models = self.models.iter().flat_map(|model| [Some(&model.keys), model.remote.as_ref()]);
        let sections = [&self.head, &self.server, &self.defaults].map(Some).into_iter().chain(models);
        sections.flatten().map(DraftSection::left_out_count).sum()
    }
}

fn print_section(name: &str, section: &DraftSection, out: &mut String) {
    match section.has_keys() {
        true => {
            let _ = writeln!(out, "{name}:");
            section.print(INDENT, out);
        }
        false => section.print(0, out),
    }
}

fn print_model(model: &DraftModel, out: &mut String) {
    if let Some(fault) = &model.fault {
        print_comment(INDENT, &format!("not converted: {}: {fault}", yaml::comment(&model.id)), out);
    }
    if model.keys.has_keys() {
        let _ = writeln!(out, "{:INDENT$}{}:", "", yaml::text(&model.id));
    }
    model.keys.print(2 * INDENT, out);
}

#[cfg(test)]
mod tests {
    use super::super::section::DraftValue;
    use super::*;

    #[test]
    fn a_draft_is_printed_with_its_comments_in_place() {
        let mut keys = DraftSection::default();
        keys.note("a remark");
        keys.set("file", DraftValue::text("a b.gguf"));
        keys.left_out("cmd\nStop", "a reason");
        keys.set("preload", DraftValue::yes());
        keys.set("file", DraftValue::text("c.gguf"));
        let remote = DraftSection::of("api_base", DraftValue::text("http://h/v1"));
        let model = |id: &str, keys, remote, fault| DraftModel { keys, remote, fault, ..DraftModel::of(id) };
        let draft = Draft {
            server: DraftSection::of("port_backend", DraftValue::Plain("5800".to_owned())),
            models: vec![
                model("one", keys, None, None),
                model("two", DraftSection::default(), None, Some("it has no model".to_owned())),
                model("on", DraftSection::default(), Some(remote), None),
            ],
            ..Draft::default()
        };
        assert_eq!(draft.left_out_count(), 1);
        let expected = "\
server:
  port_backend: 5800
models:
  one:
    # a remark
    file: c.gguf
    # left out: cmd\\u{a}Stop: a reason
    preload: true
  # not converted: two: it has no model
model_list:
  - model_name: \"on\"
    litellm_params:
      api_base: \"http://h/v1\"
";
        assert_eq!(draft.print(), expected);
    }
}
