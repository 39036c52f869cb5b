//! The dashboard of Grafana and the alert rules in `deploy/grafana`: they fit the schemas, and ask only for metrics, labels and
//! values that there are.

use std::collections::{BTreeMap, BTreeSet};

use llamagate::{refusal::CODES, telemetry::metrics::metrics_reference};
use serde_json::Value;

use super::support::{
    deploy::{deploy, run_tool},
    gateway::Gateway,
};

/// Labels that Prometheus adds.
const OF_PROMETHEUS: [&str; 3] = ["job", "instance", "le"];

/// Returns the labels of each series by its name, as the reference lists the metrics.
fn series() -> BTreeMap<String, BTreeSet<String>> {
    let mut series = BTreeMap::new();
    let reference = metrics_reference();
    for row in reference.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let name = cells[0].trim_matches(['|', ' ', '`']);
        let labels: BTreeSet<String> = cells[2].split(", ").filter(|label| *label != "-").map(str::to_owned).collect();
        match cells[1] {
            "histogram" => {
                for end in ["bucket", "sum", "count"] {
                    series.insert(format!("{name}_{end}"), labels.clone());
                }
            }
            _ => _ = series.insert(name.to_owned(), labels),
        }
    }
    series
}

/// Returns what the dashboard and the rules ask for; `None` without the tools.
fn uses() -> Option<Vec<Value>> {
    let files = [deploy("grafana/llamagate.json"), deploy("grafana/alerts.yaml")];
    Some(run_tool("read_dashboards.py", &files, "")?.as_array().unwrap().clone())
}

#[test]
fn every_metric_and_label_of_the_dashboard_and_the_alerts_is_there() {
    let Some(uses) = uses() else { return };
    let series = series();
    assert!(uses.len() > 40 && series.len() > 50, "both were found");
    for used in &uses {
        let name = used["metric"].as_str().unwrap();
        let labels = series.get(name).unwrap_or_else(|| panic!("there is no {name}: {used}"));
        let matched = used["labels"].as_array().unwrap().iter().map(|label| label["name"].as_str().unwrap());
        let by = used["by"].as_array().unwrap().iter().map(|label| label.as_str().unwrap());
        for label in matched.chain(by) {
            assert!(OF_PROMETHEUS.contains(&label) || labels.contains(label), "{name} has no label {label}: {used}");
        }
    }
}

#[test]
fn states_and_codes_that_alerts_name_are_there() {
    let Some(uses) = uses() else { return };
    let gateway = Gateway::builder().start_ready();
    let text = gateway.health().get("/metrics?format=prometheus").text();
    let mut found = 0;
    for label in uses.iter().flat_map(|used| used["labels"].as_array().unwrap()) {
        for value in label["value"].as_str().unwrap().split('|') {
            match label["name"].as_str().unwrap() {
                "state" => assert!(text.contains(&format!("state=\"{value}\"")), "no worker is ever {value}"),
                "code" => assert!(CODES.iter().any(|(_, code)| *code == value), "there is no code {value}"),
                _ => continue,
            }
            found += 1;
        }
    }
    assert!(found > 5, "they were found");
}

#[test]
fn each_fault_that_an_operator_should_hear_of_has_an_alert() {
    let Some(uses) = uses() else { return };
    let asked: BTreeSet<&str> = uses
        .iter()
        .filter(|used| used["where"].as_str().unwrap().starts_with("Llamagate"))
        .map(|used| used["metric"].as_str().unwrap())
        .collect();
    for metric in [
        "llamagate_worker_state",
        "llamagate_worker_restarts_total",
        "llamagate_requests_waiting",
        "llamagate_queue_seconds_bucket",
        "llamagate_budget_left",
        "llamagate_limits_store_fallbacks_total",
        "llamagate_tls_certificate_expiry_timestamp_seconds",
        "llamagate_usage_write_failures_total",
        "llamagate_cache_disk_failures_total",
        "llamagate_log_lines_lost",
    ] {
        assert!(asked.contains(metric), "no alert asks for {metric}");
    }
}
