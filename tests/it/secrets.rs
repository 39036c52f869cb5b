//! No secret is written to logs, output, command lines or environments.

use std::{fs, path::Path};

use serde_json::json;

use super::support::{
    gateway::{ADMIN, Backend, EXPIRED, Gateway, LIMITED, USER},
    resources,
};

/// Returns the paths and the texts of all files below `folder`.
fn texts_below(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the log folder can be read").flatten() {
        if entry.path().is_dir() {
            found.extend(texts_below(&entry.path()));
        } else {
            let text = String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned();
            found.push((entry.path().display().to_string(), text));
        }
    }
    found
}

#[test]
fn no_secret_is_in_anything_that_the_service_writes() {
    let mut gateway =
        Gateway::builder().backend(Backend::Real { model: "tiny-chat.gguf" }).set("LOG_LEVEL", "trace").start();
    gateway.wait_ready();
    let body = json!({"messages": [{"role": "user", "content": "my-private-prompt"}], "max_tokens": 3});
    for secret in [USER, ADMIN, LIMITED, EXPIRED, "wrong-secret-0123456789"] {
        gateway.client_with(secret).post_json(&format!("/v1/chat/completions?key={secret}"), &body);
    }
    // Regression: a key that stood in the path came into the access log.
    for secret in [USER, ADMIN, "wrong-secret-0123456789"] {
        gateway.client_with(secret).get(&format!("/v1/models/{secret}"));
        gateway.client_with(secret).get(&format!("/none/{secret}?x"));
    }
    let child = gateway.child_pids().into_iter().next().expect("llama-server runs");
    let argv = resources::cmdline(child);
    let key_file = argv
        .iter()
        .position(|word| word == "--api-key-file")
        .map(|at| argv[at + 1].clone())
        .expect("the key is passed in a file");
    let backend_key = fs::read_to_string(&key_file).unwrap();
    assert!(backend_key.len() > 40);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(&key_file).unwrap().permissions().mode() & 0o777, 0o600);
    let environment = resources::environ(child).join("\n");
    gateway.stop();
    assert!(!Path::new(&key_file).exists(), "the key file is removed with the service");

    let mut places = texts_below(&gateway.data_dir().join("logs"));
    places.push(("output".into(), gateway.output()));
    places.push(("argv".into(), argv.join(" ")));
    places.push(("environment".into(), environment));
    assert!(places.len() > 6, "the log files were found");
    for (place, text) in &places {
        for secret in
            [USER, ADMIN, LIMITED, EXPIRED, "wrong-secret-0123456789", backend_key.trim(), "my-private-prompt"]
        {
            assert!(!text.contains(secret), "a secret is in {place}");
        }
    }
}
