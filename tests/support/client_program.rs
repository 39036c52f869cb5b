//! Programs of clients: scripts of `tests/clients` that use a gateway on this machine.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The variables by which programs find a proxy. A gateway on this machine is asked without one.
const PROXIES: [&str; 4] = ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];

/// Returns the path of a script of `tests/clients`.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// Runs a client's program. Panics with its output if it fails.
#[track_caller]
pub(crate) fn run_client(client: &mut Command) {
    for proxy in PROXIES {
        client.env_remove(proxy);
    }
    let output = client.output().unwrap_or_else(|error| panic!("cannot start {client:?}: {error}"));
    assert!(
        output.status.success(),
        "{client:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}
