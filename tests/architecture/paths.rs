//! The paths that a file names and that lead into its own crate.

use std::collections::BTreeSet;

use syn::visit::Visit;

use super::sources::is_test_only;

/// Returns the paths that the `use` lines and the code of a file name, from the crate's root on; `module` is its own path.
pub(crate) fn named_paths(syntax: &syn::File, module: &[String]) -> BTreeSet<Vec<String>> {
    let mut paths = Paths { module: module.to_vec(), found: BTreeSet::new() };
    paths.visit_file(syntax);
    paths.found
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
