//! Generated documentation is what the tables say; `UPDATE_DOCS=1` writes it instead. Tests, files, links and causes that
//! documentation names are there.

use llamagate::worker::Cause;
use std::{collections::BTreeSet, fs, path::Path};

fn is_fresh(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, text).expect("docs can be written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "docs/{name} is stale: UPDATE_DOCS=1 cargo test --test it docs");
}

#[test]
fn docs_configuration_is_fresh() {
    is_fresh("CONFIGURATION.md", &llamagate::settings::configuration_reference());
}

#[test]
fn docs_metrics_is_fresh() {
    is_fresh("METRICS.md", &llamagate::telemetry::metrics::metrics_reference());
}

#[test]
fn the_table_of_the_workers_files_is_complete() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/ARCHITECTURE.md")).expect("it can be read");
    let table = text.split("### The worker's files").nth(1).expect("the table is there");
    let worker = root.join("src/worker");
    let named: BTreeSet<String> = table
        .lines()
        .skip_while(|line| !line.starts_with("| `"))
        .map_while(|line| line.strip_prefix("| `")?.split('`').next().map(str::to_owned))
        .collect();
    let mut there = BTreeSet::new();
    for entry in fs::read_dir(&worker).expect("src/worker can be read").flatten() {
        let inner = fs::read_dir(entry.path()).into_iter().flatten().flatten().map(|entry| entry.path());
        for file in
            inner.chain([entry.path()]).filter(|path| path.is_file() && !path.to_string_lossy().ends_with("tests.rs"))
        {
            there.insert(file.strip_prefix(&worker).expect("it is below").to_string_lossy().into_owned());
        }
    }
    assert_eq!(named, there);
}

#[test]
fn every_link_of_the_docs_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(root.join("docs")).expect("docs can be read").flatten().map(|entry| entry.path());
    let pages = docs.filter(|path| path.extension().is_some_and(|end| end == "md")).chain([root.join("README.md")]);
    let mut links = 0;
    for page in pages {
        let text = fs::read_to_string(&page).expect("a page can be read");
        // A link may be wrapped behind its text, not within its target.
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { page.clone() } else { page.with_file_name(file) };
            assert!(path.exists(), "{}: {target} leads nowhere", page.display());
            if !anchor.is_empty() {
                let there = fs::read_to_string(&path).expect("a page can be read");
                assert!(anchors(&there).contains(anchor), "{}: {target} has no such heading", page.display());
            }
            links += 1;
        }
    }
    assert!(links > 30, "the links were found");
}

/// The headings of a page, as GitHub writes them in links.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let slug = |heading: &str| {
        let kept = heading.to_lowercase().replace(' ', "-");
        kept.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
    };
    headings.map(slug).collect()
}

#[test]
fn troubleshooting_names_every_cause() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/TROUBLESHOOTING.md")).expect("it can be read");
    assert!(Cause::ALL.len() > 20, "the causes were found");
    for cause in Cause::ALL.map(Cause::as_str) {
        assert!(page.contains(&format!("`{cause}`")), "{cause} is not in docs/TROUBLESHOOTING.md");
    }
}

#[test]
fn every_test_that_the_table_of_faults_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("docs/FAULTS.md")).expect("the table can be read");
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| fault")).collect();
    assert!(rows.len() > 30, "the table was found");
    for row in rows {
        let name = row.trim_end_matches(" |").rsplit("| ").next().expect("a row has a last cell").trim_matches('`');
        let (file, test) = name.rsplit_once("::").unwrap_or_else(|| panic!("no test in: {row}"));
        let file = if file.starts_with("src/") { root.join(file) } else { root.join(format!("tests/it/{file}.rs")) };
        let source = fs::read_to_string(&file).unwrap_or_else(|_| panic!("there is no {}", file.display()));
        let (before, _) = source.split_once(&format!("fn {test}(")).unwrap_or_else(|| panic!("there is no {name}"));
        let attribute = before.trim_end().trim_end_matches("async").trim_end();
        let line = attribute.rsplit_once('\n').map_or(attribute, |(_, line)| line).trim();
        assert!(line.starts_with("#[") && line.contains("test"), "{name} is no test: {line}");
    }
}
