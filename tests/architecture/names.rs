//! Names: questions answer, commands command, and one noun means one thing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::declarations::TypeDefinition;
use super::sources;

/// Most of all type definitions, in per cent, whose name stands in another file too.
const MOST_SHARED: f64 = 12.0;

#[test]
fn a_function_that_asks_returns_bool() {
    let mut asked = 0;
    let mut wrong = Vec::new();
    for folder in ["src", "tests", "benches"] {
        for source in sources::below(folder) {
            asked += source.questions.len();
            let unanswered = source.questions.iter().filter(|question| !question.has_answer);
            wrong.extend(unanswered.map(|question| format!("{folder}/{}: {}", source.path, question.name)));
        }
    }
    println!("functions that ask: {asked}, without an answer: {}", wrong.len());
    assert!(asked > 50, "the functions were found");
    assert!(wrong.is_empty(), "named like a question, but they return no bool: {wrong:#?}");
}

#[test]
fn type_names_stand_in_one_file() {
    let sources = sources::production();
    let definitions: Vec<(&str, &TypeDefinition)> = sources
        .iter()
        .flat_map(|source| source.types.iter().map(|definition| (source.path.as_str(), definition)))
        .collect();
    let mut files: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for &(file, definition) in &definitions {
        files.entry(&definition.name).or_default().insert(file);
    }
    let shared = definitions.iter().filter(|(_, definition)| files[definition.name.as_str()].len() > 1).count();
    let share =
        100.0 * f64::from(u32::try_from(shared).unwrap()) / f64::from(u32::try_from(definitions.len()).unwrap());
    println!("types: {}, with a name that another file has too: {shared} ({share:.1} %)", definitions.len());
    assert!(definitions.len() > 300, "the types were found");
    assert!(share < MOST_SHARED, "{share:.1} % of all types share their name with one in another file");

    let mut visible: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for &(file, definition) in definitions.iter().filter(|(_, definition)| definition.is_visible) {
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
