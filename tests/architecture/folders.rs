//! Folders: few enough files side by side, each listed in the header of its `mod.rs`.

use std::collections::{BTreeMap, BTreeSet};

use super::sources;

/// Most source files side by side in one folder; files of tests are not counted.
const MOST_FILES: usize = 15;

#[test]
fn no_folder_holds_more_than_fifteen_files() {
    let mut folders: BTreeMap<String, usize> = BTreeMap::new();
    for source in sources::production() {
        *folders.entry(source.folder().to_owned()).or_default() += 1;
    }
    let mut sizes: Vec<(usize, String)> = folders.into_iter().map(|(folder, files)| (files, folder)).collect();
    sizes.sort_unstable_by(|one, other| other.cmp(one));
    println!("files side by side: {:?}", &sizes[..5]);
    for (files, folder) in sizes {
        assert!(files <= MOST_FILES, "src/{folder} holds {files} source files");
    }
}

#[test]
fn the_header_of_each_folder_lists_its_files() {
    let sources = sources::production();
    let folders: BTreeSet<&str> =
        sources.iter().map(|source| source.folder()).filter(|folder| !folder.is_empty()).collect();
    for folder in folders {
        if folder.starts_with("bin") {
            continue;
        }
        let path = format!("{folder}/mod.rs");
        let header = sources.iter().find(|source| source.path == path);
        let header = header.unwrap_or_else(|| panic!("src/{path} is missing: a folder's module is its mod.rs"));
        let lines = header.text.lines().map_while(|line| line.strip_prefix("//!"));
        let listed: BTreeSet<String> = lines
            .filter_map(|line| line.trim().strip_prefix("- `")?.split_once("`: ").map(|(name, _)| name.to_owned()))
            .collect();
        let within = sources.iter().filter_map(|source| source.path.strip_prefix(&format!("{folder}/")));
        let there: BTreeSet<String> = within
            .map(|name| name.split_once('/').map_or_else(|| name.to_owned(), |(inner, _)| format!("{inner}/")))
            .filter(|name| name != "mod.rs")
            .collect();
        assert!(there.is_subset(&listed), "src/{path} does not list {:?}", there.difference(&listed));
        // A module of tests may be listed too.
        for name in &listed {
            let target = sources::root().join("src").join(folder).join(name);
            assert!(target.exists(), "src/{path} lists {name}, which is not there");
        }
    }
}

/// Paths in backquotes; what stands for any name, such as `tests/it/FILE.rs`, has capitals.
#[test]
fn documents_name_files_that_exist() {
    let root = sources::root();
    let pages = sources::files_below(&root.join("docs"), "md").into_iter();
    let mut named = 0;
    for page in pages.chain(["README.md", "CONTRIBUTING.md", "docker/README.md"].map(|name| root.join(name))) {
        let text = std::fs::read_to_string(&page).unwrap_or_else(|_| panic!("{} can be read", page.display()));
        for path in text.split('`').skip(1).step_by(2) {
            let path = path.split("::").next().unwrap_or(path);
            let is_path = ["src/", "tests/", "benches/", "scripts/", "docker/"].iter().any(|top| path.starts_with(top));
            let is_abridged = path.contains("..");
            if is_path
                && !is_abridged
                && path.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "/._-".contains(c))
            {
                assert!(root.join(path).exists(), "{} names {path}, which does not exist", page.display());
                named += 1;
            }
        }
    }
    assert!(named > 20, "the paths were found");
}
