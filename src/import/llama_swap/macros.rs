//! Puts the values of llama-swap's macros and of environment variables in their places.
//!
//! Owns the bounds of that: macros name other macros. A variable that may hold a secret is never written out.

use std::cell::RefCell;
use std::collections::BTreeSet;

use crate::import::section::{DraftSection, PORT};
use crate::settings::values::is_secret;
use crate::settings::{Environment, YamlNode};

/// Most bytes of a text with its macros in place.
const EXPANDED_LENGTH: usize = 64 * 1024;
/// Deepest nesting of macros.
const MACRO_DEPTH: usize = 16;
/// Most macros that are put into one text, those within other macros too.
const MOST_SUBSTITUTIONS: usize = 1024;

/// The prefix of a macro that is an environment variable.
const VARIABLE: &str = "env.";

/// The macros of a file, and what may be read from the environment.
pub(super) struct Macros<'a> {
    global: Vec<(String, String)>,
    environment: &'a Environment,
    /// The names of the macros that were used.
    used: RefCell<BTreeSet<String>>,
}

/// The macros as one model sees them.
pub(super) struct MacroScope<'a> {
    macros: &'a Macros<'a>,
    /// Those of the model, which come first.
    own: Vec<(String, String)>,
    id: &'a str,
    /// What has to be said about macros and variables of the texts so far: each name, with a remark.
    remarks: RefCell<BTreeSet<(String, MacroRemark)>>,
}

/// What has to be said about a macro or a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum MacroRemark {
    WrittenOut,
    Unset,
    Secret,
    Unknown,
}

impl<'a> Macros<'a> {
    /// Reads a mapping of macros; those without a single value are left out.
    pub(super) fn read(node: Option<&YamlNode>, environment: &'a Environment, section: &mut DraftSection) -> Self {
        Self { global: entries(node, section), environment, used: RefCell::default() }
    }

    /// Returns the macros as a model with macros of its own sees them.
    pub(super) fn scope<'s>(&'s self, id: &'s str, own: Option<&YamlNode>, section: &mut DraftSection) -> MacroScope<'s>
    where
        'a: 's,
    {
        MacroScope { macros: self, own: entries(own, section), id, remarks: RefCell::default() }
    }

    /// Returns the names of the global macros that no text has used.
    pub(super) fn unused(&self) -> Vec<&str> {
        let used = self.used.borrow();
        self.global.iter().map(|(name, _)| name.as_str()).filter(|name| !used.contains(*name)).collect()
    }
}

impl MacroScope<'_> {
    /// Returns a text with all macros in their places.
    ///
    /// # Errors
    ///
    /// The macros are nested too deep, or the text becomes too long.
    pub(super) fn expand(&self, text: &str) -> Result<String, String> {
        let mut out = String::new();
        let mut budget = MOST_SUBSTITUTIONS;
        self.expand_into(text, 0, &mut budget, &mut out)?;
        Ok(out)
    }

    /// Returns the environment variable that a text stands for as a whole, directly or through macros.
    pub(super) fn variable_of(&self, text: &str) -> Option<String> {
        let mut text = text.trim().to_owned();
        for _ in 0..MACRO_DEPTH {
            let name = text.strip_prefix("${")?.strip_suffix('}')?;
            if let Some(variable) = name.strip_prefix(VARIABLE) {
                return Some(variable.to_owned());
            }
            text = self.value(name)?.trim().to_owned();
        }
        None
    }

    /// Adds what has to be said about the macros and variables of the texts so far.
    pub(super) fn remark(&self, section: &mut DraftSection) {
        for (name, remark) in self.remarks.take() {
            let name = format!("${{{name}}}");
            match remark {
                MacroRemark::WrittenOut => section.note(format!("{name} is written out as it was at the import")),
                MacroRemark::Unset => {
                    section.left_out(name, "the variable is not set here; write its value in its place")
                }
                MacroRemark::Secret => section.left_out(name, "it may be a secret, and is not written into a file"),
                MacroRemark::Unknown => section.left_out(name, "there is no macro of this name"),
            }
        }
    }

    fn expand_into(&self, text: &str, depth: usize, budget: &mut usize, out: &mut String) -> Result<(), String> {
        let mut rest = text;
        while let Some((before, name, after)) = next_macro(rest) {
            out.push_str(before);
            if depth == MACRO_DEPTH || *budget == 0 {
                return Err(format!("its macros are nested more than {MACRO_DEPTH} deep, or too many"));
            }
            *budget -= 1;
            self.substitute(name, depth, budget, out)?;
            rest = after;
            if out.len() > EXPANDED_LENGTH {
                break;
            }
        }
        out.push_str(rest);
        if out.len() > EXPANDED_LENGTH {
            return Err(format!("with its macros it has more than {EXPANDED_LENGTH} bytes"));
        }
        Ok(())
    }

    fn substitute(&self, name: &str, depth: usize, budget: &mut usize, out: &mut String) -> Result<(), String> {
        match name {
            "PORT" => out.push_str(PORT),
            "MODEL_ID" => out.push_str(self.id),
            _ => match (name.strip_prefix(VARIABLE), self.value(name)) {
                (Some(variable), _) => self.substitute_variable(variable, out),
                (None, Some(value)) => return self.expand_into(value, depth + 1, budget, out),
                (None, None) => self.keep(name, MacroRemark::Unknown, out),
            },
        }
        Ok(())
    }

    fn substitute_variable(&self, variable: &str, out: &mut String) {
        let name = format!("{VARIABLE}{variable}");
        match self.macros.environment.get(variable) {
            _ if is_secret_variable(variable) => self.keep(&name, MacroRemark::Secret, out),
            None => self.keep(&name, MacroRemark::Unset, out),
            Some(value) => {
                self.remarks.borrow_mut().insert((name, MacroRemark::WrittenOut));
                out.push_str(value);
            }
        }
    }

    /// Leaves a macro in the text as it is.
    fn keep(&self, name: &str, remark: MacroRemark, out: &mut String) {
        self.remarks.borrow_mut().insert((name.to_owned(), remark));
        out.push_str("${");
        out.push_str(name);
        out.push('}');
    }

    fn value(&self, name: &str) -> Option<&str> {
        let find = |list: &'_ [(String, String)]| list.iter().position(|(known, _)| known == name);
        if let Some(at) = find(&self.own) {
            return Some(&self.own[at].1);
        }
        let at = find(&self.macros.global)?;
        self.macros.used.borrow_mut().insert(name.to_owned());
        Some(&self.macros.global[at].1)
    }
}

/// Returns whether the value of an environment variable may be a secret, by its name.
pub(super) fn is_secret_variable(name: &str) -> bool {
    let option = format!("--{}", name.to_ascii_lowercase().replace('_', "-"));
    is_secret(&option) || option.ends_with("-key") || option.contains("token")
}

/// Returns what is before the next macro, its name, and what follows it.
fn next_macro(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once("${")?;
    let (name, after) = rest.split_once('}')?;
    Some((before, name, after))
}

fn entries(node: Option<&YamlNode>, section: &mut DraftSection) -> Vec<(String, String)> {
    let Some(YamlNode::Map(entries)) = node else {
        if node.is_some_and(|node| *node != YamlNode::Null) {
            section.left_out("macros", "it is no mapping");
        }
        return Vec::new();
    };
    let mut macros = Vec::with_capacity(entries.len());
    for (name, value) in entries {
        match value.scalar() {
            Some(value) => macros.push((name.clone(), value)),
            None => section.left_out(format!("macros.{name}"), "it is no single value"),
        }
    }
    macros
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(macros: &str, text: &str) -> (Result<String, String>, String) {
        let environment = Environment::from([("HOME", "/home/me"), ("API_TOKEN", "sesame")]);
        let node = YamlNode::parse(macros).unwrap();
        let mut section = DraftSection::default();
        let macros = Macros::read(Some(&node), &environment, &mut section);
        let scope = macros.scope("an-id", None, &mut section);
        let result = scope.expand(text);
        scope.remark(&mut section);
        let mut comments = String::new();
        section.print(0, &mut comments);
        (result, comments)
    }

    #[test]
    fn macros_variables_and_the_names_of_llama_swap_are_put_in_place() {
        let (text, comments) = expand("{a: '-c ${b}', b: 4096, d: '${env.HOME}/m'}", "x ${a} ${PORT} ${MODEL_ID} ${d}");
        assert_eq!(text.unwrap(), "x -c 4096 {port} an-id /home/me/m");
        assert_eq!(comments, "# ${env.HOME} is written out as it was at the import\n");
    }

    #[test]
    fn what_is_unknown_unset_or_a_secret_stays_and_is_named() {
        let (text, comments) = expand("{}", "${no} ${env.NONE} ${env.API_TOKEN} ${open");
        assert_eq!(text.unwrap(), "${no} ${env.NONE} ${env.API_TOKEN} ${open");
        assert_eq!(comments.matches("# left out: ").count(), 3, "{comments}");
        assert!(!comments.contains("sesame"));
    }

    #[test]
    fn macros_that_name_themselves_or_grow_without_end_are_refused() {
        assert!(expand("{a: '${a}'}", "${a}").0.is_err());
        let doubling: String =
            (1..15).map(|at| format!("a{at}: '{}'\n", format!("${{a{}}}", at - 1).repeat(9))).collect();
        assert!(expand(&format!("a0: {}\n{doubling}", "x".repeat(100)), "${a14}").0.is_err());
        assert!(expand(&format!("a0: ''\n{doubling}"), "${a14}").0.is_err());
        assert!(expand(&format!("a: {}", "x".repeat(60_000)), "${a}${a}").0.is_err());
    }
}
