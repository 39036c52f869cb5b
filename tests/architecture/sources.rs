//! The sources as the rules see them: each file, its module path, its syntax, and the files that it uses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::Visit;

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
    /// Without items that exist only in tests.
    pub(crate) syntax: syn::File,
    /// The modules in files of their own that exist only in tests.
    test_modules: Vec<TestModule>,
}

/// A module in a file of its own that exists only in tests.
#[derive(Clone)]
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
pub(crate) fn production() -> Vec<Source> {
    let sources = below("src");
    let test_only: Vec<TestModule> = sources.iter().flat_map(|source| source.test_modules.clone()).collect();
    let is_test_only = |source: &Source| {
        test_only.iter().any(|module| match module {
            TestModule::Path(module) => source.module.starts_with(module),
            TestModule::File(file) => source.path == *file,
        })
    };
    sources.into_iter().filter(|source| !is_test_only(source)).collect()
}

/// Returns every Rust file below a folder of the repository.
pub(crate) fn below(folder: &str) -> Vec<Source> {
    let top = root().join(folder);
    let mut found = Vec::new();
    for path in files_below(&top, "rs") {
        let text = fs::read_to_string(&path).expect("sources can be read");
        let mut syntax = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let path = slashed(path.strip_prefix(&top).expect("it lies below"));
        let module = module_of(&path);
        let test_modules = test_only_modules(&syntax, &path, &module);
        syntax.items.retain(|item| !is_test_only(attributes(item)));
        found.push(Source { path, module, text, syntax, test_modules });
    }
    assert!(!found.is_empty(), "no sources below {folder}");
    found
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

fn is_test_only(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.require_list().is_ok_and(|list| {
                let text = list.tokens.to_string();
                text.contains("test") && !text.contains("not")
            })
    })
}

/// Which file uses which, by path: what `use` lines and paths in code name. Files of the same crate only.
pub(crate) fn uses(sources: &[Source]) -> BTreeMap<String, BTreeSet<String>> {
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
        let mut paths = Paths { module: source.module.clone(), found: BTreeSet::new() };
        paths.visit_file(&source.syntax);
        let mut used = BTreeSet::new();
        for path in paths.found.into_iter().filter(|path| !is_of_tests(path)) {
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

/// Collects the paths of a file that lead into its own crate, from the crate's root on.
struct Paths {
    module: Vec<String>,
    found: BTreeSet<Vec<String>>,
}

impl Paths {
    fn add(&mut self, segments: &[String]) {
        let Some(first) = segments.first() else { return };
        let mut path = match first.as_str() {
            "crate" | "llamagate" => Vec::new(),
            "self" => self.module.clone(),
            "super" => self.module[..self.module.len().saturating_sub(1)].to_vec(),
            // A child of this module may be named without `self`.
            _ => {
                let mut path = self.module.clone();
                path.push(first.clone());
                path
            }
        };
        for segment in &segments[1..] {
            if segment == "super" {
                path.pop();
            } else if segment != "self" {
                path.push(segment.clone());
            }
        }
        self.found.insert(path);
    }

    fn add_tree(&mut self, tree: &syn::UseTree, prefix: &mut Vec<String>) {
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.add_tree(&path.tree, prefix);
                prefix.pop();
            }
            syn::UseTree::Name(name) => {
                prefix.push(name.ident.to_string());
                self.add(prefix);
                prefix.pop();
            }
            syn::UseTree::Rename(name) => {
                prefix.push(name.ident.to_string());
                self.add(prefix);
                prefix.pop();
            }
            syn::UseTree::Glob(_) => self.add(prefix),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_tree(tree, prefix)),
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add_tree(&item.tree, &mut Vec::new());
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if segments.len() > 1 {
            self.add(&segments);
        }
        syn::visit::visit_path(self, path);
    }

    /// Paths within a macro's arguments are tokens: those that say where they begin are found all the same.
    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        // `pub(in crate::settings)` uses nothing.
        let text = call.tokens.to_string().replace(" :: ", "::").replace("in crate::", "");
        for word in text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')) {
            if word.starts_with("crate::") || word.starts_with("super::") {
                self.add(&word.split("::").map(str::to_owned).collect::<Vec<_>>());
            }
        }
        syn::visit::visit_macro(self, call);
    }

    /// `pub(in crate::settings)` uses nothing.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    /// What a module within the file uses in tests does not count.
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if is_test_only(&module.attrs) || module.content.is_none() {
            return;
        }
        self.module.push(module.ident.to_string());
        syn::visit::visit_item_mod(self, module);
        self.module.pop();
    }
}
