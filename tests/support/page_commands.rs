//! The commands of a page of the documentation, run as they stand there.

use std::{fs, path::Path, process::Command};

use super::gateway::{ADMIN, Gateway, USER};

/// The address that the pages show.
const SHOWN_ADDRESS: &str = "http://localhost:8000";

/// The names under which the pages show a key.
const SHOWN_KEYS: [&str; 2] = ["SECRET", "KEY"];
/// What pages call a key of the scope `admin`.
const SHOWN_ADMIN_KEY: &str = "ADMIN_KEY";

/// Runs each block of commands with `curl` of `docs/NAME`, with the address and the key of this gateway. Returns what
/// each has printed. Fails if there are fewer than `least`, or if one fails.
#[track_caller]
pub(crate) fn run_page(name: &str, gateway: &Gateway, least: usize) -> Vec<CommandOutput> {
    run_page_where(name, gateway, least, |_| true)
}

/// Does the same with the blocks for which `is_wanted` is true.
#[track_caller]
pub(crate) fn run_page_where(
    name: &str,
    gateway: &Gateway,
    least: usize,
    is_wanted: impl Fn(&str) -> bool,
) -> Vec<CommandOutput> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)).unwrap();
    let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let outputs: Vec<CommandOutput> =
        blocks.filter(|block| block.contains("curl ") && is_wanted(block)).map(|block| run(block, gateway)).collect();
    assert!(outputs.len() >= least, "docs/{name}: only {} commands were found", outputs.len());
    outputs
}

/// A block of commands, and what it has printed.
pub(crate) struct CommandOutput {
    pub(crate) command: String,
    pub(crate) text: String,
}

#[track_caller]
fn run(block: &str, gateway: &Gateway) -> CommandOutput {
    let command = block.replace(SHOWN_ADDRESS, gateway.url());
    let mut bash = Command::new("bash");
    bash.args(["-e", "-o", "pipefail", "-c", &command.replace("curl ", "curl -sS --noproxy '*' --fail-with-body ")]);
    bash.envs(SHOWN_KEYS.map(|name| (name, USER))).env(SHOWN_ADMIN_KEY, ADMIN);
    let output = bash.output().expect("bash starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command}: {text}{}", String::from_utf8_lossy(&output.stderr));
    CommandOutput { command, text }
}
