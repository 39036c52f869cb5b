//! Generated documentation is what the tables say. `UPDATE_DOCS=1` writes it instead.

use std::{fs, path::Path};

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
