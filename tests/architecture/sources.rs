//! The sources as the rules see them: each file, its module path, what it declares, and the files that it uses. Each
//! file is parsed once, for all rules.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::declarations::{Question, TypeDefinition, questions, type_definitions};
use super::paths::named_paths;

/// The folders of the repository with sources.
pub(crate) const FOLDERS: [&str; 4] = ["src", "tests", "benches", "fuzz/fuzz_targets"];

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// One file of production code.
pub(crate) struct Source {
    /// Path below the folder that was read, with `/`.
    pub(crate) path: String,
    /// Module path below the crate: `["gateway", "queue"]`; empty for the crate's root.
    pub(crate) module: Vec<String>,
    pub(crate) text: String,
    /// The types that it defines, without those that exist only in tests.
    pub(crate) types: Vec<TypeDefinition>,
    /// The functions that are named like questions, those of tests included.
    pub(crate) questions: Vec<Question>,
    /// The paths into its own crate that it names, without those of items that exist only in tests.
    named_paths: BTreeSet<Vec<String>>,
    /// The modules in files of their own that exist only in tests.
    test_modules: Vec<TestModule>,
}

/// A module in a file of its own that exists only in tests.
enum TestModule {
    /// By its path below the crate, with all modules below it.
    Path(Vec<String>),
    /// By its file, where `#[path]` names one.
    File(String),
}

impl Source {
    /// The folder in which the file lies, with `/`; empty at the top.
    pub(crate) fn folder(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }
}

/// Returns every file of `src/` but those that exist only in tests.
pub(crate) fn production() -> Vec<&'static Source> {
    let sources = below("src");
    let is_test_only = |source: &Source| {
        sources.iter().flat_map(|source| &source.test_modules).any(|module| match module {
            TestModule::Path(module) => source.module.starts_with(module),
            TestModule::File(file) => source.path == *file,
        })
    };
    sources.iter().filter(|source| !is_test_only(source)).collect()
}

/// Returns every Rust file below one of [`FOLDERS`].
pub(crate) fn below(folder: &str) -> &'static [Source] {
    static SOURCES: [OnceLock<Vec<Source>>; FOLDERS.len()] = [const { OnceLock::new() }; FOLDERS.len()];
    let index = FOLDERS.iter().position(|known| *known == folder).expect("it is one of FOLDERS");
    SOURCES[index].get_or_init(|| read_below(folder))
}

fn read_below(folder: &str) -> Vec<Source> {
    let top = root().join(folder);
    let read = |path: PathBuf| read(&path, slashed(path.strip_prefix(&top).expect("it lies below")));
    let found: Vec<Source> = files_below(&top, "rs").into_iter().map(read).collect();
    assert!(!found.is_empty(), "no sources below {folder}");
    found
}

/// Reads the file; `path` is what is said of it.
fn read(file: &Path, path: String) -> Source {
    let text = fs::read_to_string(file).expect("sources can be read");
    let mut syntax = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let module = module_of(&path);
    let test_modules = test_only_modules(&syntax, &path, &module);
    let questions = questions(&syntax);
    syntax.items.retain(|item| !is_test_only(attributes(item)));
    let (types, named_paths) = (type_definitions(&syntax), named_paths(&syntax, &module));
    Source { path, module, text, types, questions, named_paths, test_modules }
}

/// Returns the files below a folder that have this extension, sorted.
pub(crate) fn files_below(top: &Path, extension: &str) -> Vec<PathBuf> {
    let mut folders = vec![top.to_owned()];
    let mut found = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|_| panic!("{} can be read", folder.display())).flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.insert(path);
            }
        }
    }
    found.into_iter().collect()
}

fn slashed(path: &Path) -> String {
    path.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
}

fn module_of(path: &str) -> Vec<String> {
    let mut module: Vec<String> = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if matches!(module.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        module.pop();
    }
    module
}

/// Returns the modules in files of their own that this file declares under `#[cfg(test)]`.
fn test_only_modules(syntax: &syn::File, path: &str, parent: &[String]) -> Vec<TestModule> {
    let declared = syntax.items.iter().filter_map(|item| match item {
        syn::Item::Mod(module) if module.content.is_none() && is_test_only(&module.attrs) => Some(module),
        _ => None,
    });
    declared
        .map(|module| match file_named_by(&module.attrs) {
            Some(name) => {
                TestModule::File(path.rsplit_once('/').map_or(name.clone(), |(folder, _)| format!("{folder}/{name}")))
            }
            None => TestModule::Path([parent, &[module.ident.to_string()]].concat()),
        })
        .collect()
}

/// Returns the value of `#[path = "..."]`.
fn file_named_by(attributes: &[syn::Attribute]) -> Option<String> {
    let path = attributes.iter().find(|attribute| attribute.path().is_ident("path"))?;
    match &path.meta.require_name_value().ok()?.value {
        syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(name), .. }) => Some(name.value()),
        _ => None,
    }
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether one of the attributes limits an item to tests.
pub(crate) fn is_test_only(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.require_list().is_ok_and(|list| {
                let text = list.tokens.to_string();
                text.contains("test") && !text.contains("not")
            })
    })
}

/// Which file uses which, by path: what `use` lines and paths in code name. Files of the same crate only.
pub(crate) fn uses(sources: &[&'static Source]) -> BTreeMap<String, BTreeSet<String>> {
    let files: BTreeMap<&[String], &str> =
        sources.iter().map(|source| (source.module.as_slice(), source.path.as_str())).collect();
    let is_of_tests = |path: &[String]| {
        sources.iter().flat_map(|source| &source.test_modules).any(|module| match module {
            TestModule::Path(module) => path.starts_with(module),
            TestModule::File(_) => false,
        })
    };
    let mut uses = BTreeMap::new();
    for source in sources {
        let mut used = BTreeSet::new();
        for path in source.named_paths.iter().filter(|path| !is_of_tests(path)) {
            // The longest part of the path that is a file; the crate's root stands for no file.
            let file = (1..=path.len()).rev().find_map(|length| files.get(&path[..length]));
            if let Some(&file) = file
                && file != source.path
            {
                used.insert(file.to_owned());
            }
        }
        uses.insert(source.path.clone(), used);
    }
    uses
}
