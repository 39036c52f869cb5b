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
        let name = row.trim_end_matches(" |").rsplit("| ").next().expect("a row has a last cell").trim_matches('`');
        let (file, test) = name.rsplit_once("::").unwrap_or_else(|| panic!("no test in: {row}"));
        let file = if file.starts_with("src/") { root.join(file) } else { root.join(format!("tests/it/{file}.rs")) };
        let source = fs::read_to_string(&file).unwrap_or_else(|_| panic!("there is no {}", file.display()));
        let (before, _) = source.split_once(&format!("fn {test}(")).unwrap_or_else(|| panic!("there is no {name}"));
        let attribute = before.trim_end().trim_end_matches("async").trim_end();
        let line = attribute.rsplit_once('\n').map_or(attribute, |(_, line)| line).trim();
        assert!(line.starts_with("#[") && line.contains("test"), "{name} is not a test: {line}");
    }
}
