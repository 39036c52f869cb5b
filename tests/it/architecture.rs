//! Who may use whom, and what only one file may do: the house as docs/ARCHITECTURE.md draws it.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn sources() -> Vec<(PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![src.clone()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("src can be read").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("sources can be read");
                found.push((path.strip_prefix(&src).expect("it is below src").to_owned(), text));
            }
        }
    }
    assert!(found.len() > 40, "the sources were found");
    found
}

/// The modules of this crate that a text names, the tests at its end left out.
fn uses(text: &str) -> Vec<String> {
    let own = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let mut names = Vec::new();
    for (at, _) in own.match_indices("crate::") {
        let rest = &own[at + "crate::".len()..];
        if let Some(inner) = rest.strip_prefix('{') {
            let inner = inner.split("};").next().unwrap_or(inner);
            names.extend(inner.split(',').map(|name| name.trim().split("::").next().unwrap_or_default().to_owned()));
        } else {
            names.push(rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect());
        }
    }
    names
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let may_use: &[(&str, &[&str])] = &[
        ("platform", &[]),
        ("refusal", &[]),
        ("rate_bucket", &[]),
        ("settings", &["models", "platform"]),
        ("telemetry", &["settings"]),
        ("keys", &[]),
        ("models", &[]),
        ("awake", &[]),
        ("dial", &["awake", "settings"]),
        ("http_client", &["awake", "dial"]),
        ("worker", &["awake", "dial", "http_client", "models", "telemetry", "settings"]),
        ("fleet", &["awake", "models", "rate_bucket", "settings", "worker"]),
        ("gateway", &["awake", "dial", "fleet", "keys", "models", "rate_bucket", "refusal", "settings", "telemetry"]),
        ("runpod", &["awake", "dial", "fleet", "gateway", "http_client", "settings", "telemetry"]),
        ("operator", &["fleet", "keys", "telemetry", "refusal"]),
        ("preflight", &["descriptors", "keys", "models", "settings"]),
        ("descriptors", &["settings"]),
    ];
    for (path, text) in sources() {
        let module = path.iter().next().and_then(|name| name.to_str()).unwrap_or_default().trim_end_matches(".rs");
        let Some((_, allowed)) = may_use.iter().find(|(name, _)| *name == module) else { continue };
        for used in uses(&text) {
            assert!(used == module || allowed.contains(&used.as_str()), "{} uses {used}", path.display());
        }
    }
}

#[test]
fn unsafe_code_and_new_processes_are_in_one_file() {
    for (path, text) in sources() {
        if path != Path::new("worker/process/spawner.rs") {
            assert!(!text.contains("unsafe {"), "{}", path.display());
            assert!(!text.contains("Command::new("), "{}", path.display());
        }
    }
}
