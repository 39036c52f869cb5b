//! Checks of the documentation: generated pages are up to date (`UPDATE_DOCS=1` rewrites them), and the tests, files,
//! links and causes that documents name exist.

use std::{collections::BTreeSet, fs, path::Path};

use llamagate::worker::FailureCause;

/// Asserts that `docs/<name>` equals `text`, or writes it if `UPDATE_DOCS` is set.
fn assert_up_to_date(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, text).expect("docs can be written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "docs/{name} is stale: UPDATE_DOCS=1 cargo test --test it docs");
}

#[test]
fn docs_configuration_is_up_to_date() {
    assert_up_to_date("CONFIGURATION.md", &llamagate::settings::configuration_reference());
}

#[test]
fn docs_metrics_is_up_to_date() {
    assert_up_to_date("METRICS.md", &llamagate::telemetry::metrics::metrics_reference());
}

#[test]
fn docs_routes_is_up_to_date() {
    assert_up_to_date("ROUTES.md", &llamagate::gateway::routes_reference());
}

#[test]
fn docs_parameters_is_up_to_date() {
    assert_up_to_date("PARAMETERS.md", &llamagate::gateway::parameters_reference());
}

#[test]
fn docs_traces_has_the_table_of_attributes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/TRACES.md");
    let page = fs::read_to_string(path).expect("a page can be read");
    let (before, rest) = page.split_once("<!-- attributes -->\n").expect("a mark of the beginning");
    let (_, after) = rest.split_once("<!-- /attributes -->").expect("a mark of the end");
    let table = llamagate::traces::attributes_reference();
    assert_up_to_date("TRACES.md", &format!("{before}<!-- attributes -->\n{table}<!-- /attributes -->{after}"));
}

/// The figures of the overhead stand in one place, so that no page has older ones.
#[test]
fn readme_has_the_headline_of_the_benchmark() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(root.join(name)).expect("a page can be read");
    let (benchmark, readme) = (read("docs/BENCHMARK.md"), read("README.md"));
    let figures = headline(&benchmark);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(root.join("README.md"), readme.replace(headline(&readme), figures)).expect("the page can be written");
    }
    let found = read("README.md");
    assert!(figures.lines().count() > 5, "the figures were found");
    assert!(headline(&found) == figures, "the README's figures are stale: UPDATE_DOCS=1 cargo test --test it docs");
}

/// Returns the lines between the marks of the headline.
fn headline(page: &str) -> &str {
    let (_, rest) = page.split_once("<!-- headline").expect("a mark of the beginning");
    let (_, rest) = rest.split_once("-->\n").expect("the end of the mark");
    rest.split_once("<!-- /headline -->").expect("a mark of the end").0
}

#[test]
fn every_link_of_the_docs_has_a_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(root.join("docs")).expect("docs can be read").flatten().map(|entry| entry.path());
    let pages = docs.filter(|path| path.extension().is_some_and(|end| end == "md")).chain([root.join("README.md")]);
    let mut links = 0;
    for page in pages {
        let text = fs::read_to_string(&page).expect("a page can be read");
        // A line break may follow the text of a link, but never splits its target.
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { page.clone() } else { page.with_file_name(file) };
            assert!(path.exists(), "{}: {target} does not exist", page.display());
            if !anchor.is_empty() {
                let linked = fs::read_to_string(&path).expect("a page can be read");
                assert!(anchors(&linked).contains(anchor), "{}: {target} has no such heading", page.display());
            }
            links += 1;
        }
    }
    assert!(links > 30, "the links were found");
}

/// Returns the anchors that GitHub makes of the headings of a page.
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
    let page = fs::read_to_string(root.join("docs/TROUBLESHOOTING.md")).expect("the file can be read");
    assert!(FailureCause::ALL.len() > 20, "the causes were found");
    for cause in FailureCause::ALL.map(FailureCause::as_str) {
        assert!(page.contains(&format!("`{cause}`")), "{cause} is not in docs/TROUBLESHOOTING.md");
    }
}

#[test]
fn every_test_that_faults_md_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("docs/FAULTS.md")).expect("the table can be read");
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| fault")).collect();
    assert!(rows.len() > 30, "the table was found");
    for row in rows {
        assert_names_a_test(row);
    }
}

/// Asserts that there is a test of the name in the last cell of a row: `module::test` of `tests/it`, or `src/FILE::test`.
#[track_caller]
fn assert_names_a_test(row: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let name = row.trim_end_matches(" |").rsplit("| ").next().expect("a row has a last cell").trim_matches('`');
    let (file, test) = name.rsplit_once("::").unwrap_or_else(|| panic!("no test in: {row}"));
    let file = if file.starts_with("src/") { root.join(file) } else { root.join(format!("tests/it/{file}.rs")) };
    let source = fs::read_to_string(&file).unwrap_or_else(|_| panic!("there is no {}", file.display()));
    let (before, _) = source.split_once(&format!("fn {test}(")).unwrap_or_else(|| panic!("there is no {name}"));
    let attribute = before.trim_end().trim_end_matches("async").trim_end();
    let line = attribute.rsplit_once('\n').map_or(attribute, |(_, line)| line).trim();
    assert!(line.starts_with("#[") && line.contains("test"), "{name} is not a test: {line}");
}

#[test]
fn every_client_of_clients_md_is_pinned_and_has_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/CLIENTS.md")).expect("the page can be read");
    let sections = |title| rows_of(&page, title);
    let (python, node, applications) = (sections("Python"), sections("Node.js"), sections("Applications"));
    for row in python.iter().chain(&node).chain(&applications) {
        let state = &row[row.len() - 2];
        assert!(["works", "left out"].contains(&state.as_str()), "no state: {row:?}");
    }
    let pins = pins_of_python(&root.join("tests/clients"));
    for row in &python {
        assert!(pins.contains(&(row[0].clone(), row[1].clone())), "not pinned in this version: {row:?}");
    }
    let lock = fs::read_to_string(root.join("tests/clients/node/package-lock.json")).expect("the lock can be read");
    assert!(!lock.contains("\"resolved\""), "the lock names no server");
    let lock: serde_json::Value = serde_json::from_str(&lock).expect("the lock is JSON");
    let packages = &lock["packages"];
    for row in &node {
        assert_eq!(packages[format!("node_modules/{}", row[0])]["version"], *row[1], "{row:?}");
    }
    // Schemas are written with it; it is no client.
    let wanted = packages[""]["dependencies"].as_object().expect("packages are wanted").keys();
    for name in wanted.filter(|name| *name != "zod") {
        assert!(node.iter().any(|row| row[0] == *name), "{name} is not on the page");
    }
    assert!(python.len() > 20 && node.len() > 8 && applications.len() > 8, "the tables were found");
}

/// Returns the cells of the rows of the table below a heading, each of which names a test.
fn rows_of(page: &str, heading: &str) -> Vec<Vec<String>> {
    let (_, section) = page.split_once(&format!("## {heading}\n")).unwrap_or_else(|| panic!("no section {heading}"));
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut rows = Vec::new();
    for row in section.lines().filter(|line| line.starts_with("| ")).skip(1) {
        assert_names_a_test(row);
        let cells = row.trim_matches(['|', ' ']).split(" | ");
        rows.push(cells.map(|cell| cell.trim_matches('`').to_owned()).collect());
    }
    rows
}

/// Returns the name and version of each package in the lists of this folder.
fn pins_of_python(folder: &Path) -> BTreeSet<(String, String)> {
    let files = fs::read_dir(folder).expect("the folder can be read").flatten().map(|entry| entry.path());
    let lists = files.filter(|path| path.extension().is_some_and(|end| end == "txt"));
    let mut pins = BTreeSet::new();
    for list in lists {
        let text = fs::read_to_string(&list).expect("a list can be read");
        let lines = text.lines().filter_map(|line| line.split('#').next()?.trim().split_once("=="));
        pins.extend(lines.map(|(name, version)| (name.to_owned(), version.to_owned())));
    }
    pins
}
