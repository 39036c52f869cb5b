//! Names: questions answer, commands command, and one noun means one thing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use syn::visit::Visit;

use super::sources::{self, Source};

/// How a function's name begins that asks a question.
const QUESTIONS: &[&str] = &["is_", "has_", "may_", "can_", "should_"];

/// Most of all type definitions, in per cent, whose name stands in another file too.
const MOST_SHARED: f64 = 12.0;

#[test]
fn a_function_that_asks_returns_bool() {
    let mut asked = 0;
    let mut wrong = Vec::new();
    for folder in ["src", "tests", "benches"] {
        for source in sources::below(folder) {
            let mut functions = Functions::default();
            functions.visit_file(&syn::parse_file(&source.text).expect("it was parsed before"));
            for (name, answers) in functions.found {
                asked += 1;
                if !answers {
                    wrong.push(format!("{folder}/{}: {name}", source.path));
                }
            }
        }
    }
    println!("functions that ask: {asked}, without an answer: {}", wrong.len());
    assert!(asked > 50, "the functions were found");
    assert!(wrong.is_empty(), "named like a question, but they return no bool: {wrong:#?}");
}

/// The functions named like questions, and whether each returns a `bool`.
#[derive(Default)]
struct Functions {
    found: Vec<(String, bool)>,
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        // The name of a test is a sentence about its subject.
        if function
            .attrs
            .iter()
            .all(|attribute| attribute.path().segments.last().is_none_or(|last| last.ident != "test"))
        {
            self.visit_signature(&function.sig);
        }
        self.visit_block(&function.block);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        let name = signature.ident.to_string();
        if QUESTIONS.iter().any(|beginning| name.starts_with(beginning)) {
            let answers = matches!(&signature.output, syn::ReturnType::Type(_, output) if is_answer(output));
            self.found.push((name, answers));
        }
    }
}

/// Whether this type is `bool`, `Option<bool>` or `Poll<bool>`.
fn is_answer(output: &syn::Type) -> bool {
    let syn::Type::Path(path) = output else { return false };
    let Some(last) = path.path.segments.last() else { return false };
    match (last.ident.to_string().as_str(), &last.arguments) {
        ("bool", syn::PathArguments::None) => true,
        ("Option" | "Poll", syn::PathArguments::AngleBracketed(arguments)) => {
            arguments.args.iter().any(|one| matches!(one, syn::GenericArgument::Type(inner) if is_answer(inner)))
        }
        _ => false,
    }
}

#[test]
fn type_names_stand_in_one_file() {
    let definitions: Vec<(String, Definition)> = sources::production().iter().flat_map(definitions).collect();
    let mut files: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (file, definition) in &definitions {
        files.entry(&definition.name).or_default().insert(file);
    }
    let shared = definitions.iter().filter(|(_, definition)| files[definition.name.as_str()].len() > 1).count();
    let share =
        100.0 * f64::from(u32::try_from(shared).unwrap()) / f64::from(u32::try_from(definitions.len()).unwrap());
    println!("types: {}, with a name that another file has too: {shared} ({share:.1} %)", definitions.len());
    assert!(definitions.len() > 300, "the types were found");
    assert!(share < MOST_SHARED, "{share:.1} % of all types share their name with one in another file");

    let mut visible: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (file, definition) in definitions.iter().filter(|(_, definition)| definition.is_visible) {
        visible.entry(&definition.name).or_default().insert(file);
    }
    visible.retain(|_, files| files.len() > 1);
    assert!(visible.is_empty(), "types that other files see and that share their name: {visible:#?}");
}

#[test]
fn the_glossary_names_types_that_exist() {
    let page = fs::read_to_string(sources::root().join("docs/GLOSSARY.md")).expect("the page can be read");
    let sources = sources::production();
    // As text, because a macro may define a type.
    let is_defined = |name: &str| {
        let kinds = ["struct", "enum", "trait"].map(|kind| format!("{kind} {name}"));
        let is_end = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        let defines = |text: &str, definition: &String| {
            text.match_indices(definition.as_str()).any(|(at, found)| is_end(&text[at + found.len()..]))
        };
        sources.iter().any(|source| kinds.iter().any(|kind| defines(&source.text, kind)))
    };
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ") && line.contains('`')).collect();
    assert!(rows.len() >= 15, "the rows were found");
    for row in rows {
        let cell = row.trim_end_matches(" |").rsplit("| ").next().expect("a row has a last cell");
        let name = cell.trim_matches('`');
        assert!(is_defined(name), "the glossary names the type {name}, which does not exist");
    }
}

struct Definition {
    name: String,
    /// Whether another file can name it.
    is_visible: bool,
}

fn definitions(source: &Source) -> Vec<(String, Definition)> {
    let mut found = Vec::new();
    collect(&source.syntax.items, &mut found);
    found.into_iter().map(|definition| (source.path.clone(), definition)).collect()
}

fn collect(items: &[syn::Item], found: &mut Vec<Definition>) {
    for item in items {
        let (name, visibility) = match item {
            syn::Item::Struct(item) => (&item.ident, &item.vis),
            syn::Item::Enum(item) => (&item.ident, &item.vis),
            syn::Item::Trait(item) => (&item.ident, &item.vis),
            syn::Item::Type(item) => (&item.ident, &item.vis),
            syn::Item::Mod(module) => {
                if let Some((_, items)) = &module.content {
                    collect(items, found);
                }
                continue;
            }
            _ => continue,
        };
        let is_visible = !matches!(visibility, syn::Visibility::Inherited);
        found.push(Definition { name: name.to_string(), is_visible });
    }
}
