//! Generated documentation is what the tables say; `UPDATE_DOCS=1` writes it instead. Tests and files that documentation
//! names are there.

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
        for file in inner.chain([entry.path()]).filter(|path| path.is_file() && !path.ends_with("tests.rs")) {
            there.insert(file.strip_prefix(&worker).expect("it is below").to_string_lossy().into_owned());
        }
    }
    assert_eq!(named, there);
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
