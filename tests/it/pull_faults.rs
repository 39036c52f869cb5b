//! `llamagate pull` where hosts, disks and other programs do what they should not; what must not be seen of it, and
//! what other programs make of the result.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::pull::{MODEL, Machine, PIECE, error_of, gguf};
use super::support::client::Client;
use super::support::gateway::test_models;
use super::support::mock_hub::{COMMIT, HubFaults, sha256};
use super::support::real_server::RealServer;
use super::support::wait::{ANSWERS, STOPS, eventually, eventually_some};

/// A later commit.
const NEXT: &str = "fedcba9876543210fedcba9876543210fedcba98";

fn spawn(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Addresses that are signed for reading refuse `HEAD`.
#[test]
fn a_host_that_refuses_head_was_no_host_of_files() {
    let machine = Machine::start(2 * PIECE);
    machine.hub.set_faults(HubFaults { refuses_head: true, ..HubFaults::default() });
    assert_eq!(fs::read(machine.pulled(MODEL)).unwrap(), machine.bytes);
    assert_eq!(machine.hub.bytes_sent(), machine.bytes.len() + 1, "one byte is asked for in place of the head");
}

/// Opening a pipe waits for a writer, as opening a file does on a network volume that hangs.
#[test]
fn a_volume_that_does_not_answer_held_up_ctrl_c() {
    let machine = Machine::start(PIECE);
    let refs = machine.cache().join("models--Org--Tiny-GGUF/refs");
    fs::create_dir_all(&refs).unwrap();
    nix::unistd::mkfifo(&refs.join("main"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut child = spawn(machine.command(MODEL));
    let link = machine.cache().join(format!("models--Org--Tiny-GGUF/snapshots/{COMMIT}/Tiny-Q4_K_M.gguf"));
    eventually("all but the name of the commit is there", ANSWERS, || link.exists());
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    let status = eventually_some("the program stops", STOPS, || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(130));
}

#[test]
fn a_commit_in_the_middle_of_a_download_changes_nothing_of_it() {
    let machine = Machine::start(3 * PIECE);
    machine.hub.set_faults(HubFaults { holds: true, ..HubFaults::default() });
    let child = spawn(machine.command(MODEL));
    eventually("bytes are asked for", ANSWERS, || machine.hub.requests().iter().any(|request| request.is_of_files));
    machine.hub.move_main(MODEL, NEXT);
    let next = gguf(machine.folder.path(), PIECE);
    machine.hub.add(&format!("{MODEL}@{NEXT}"), "Tiny-Q4_K_M.gguf", next.clone());
    machine.hub.release();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", error_of(&output));
    let path = String::from_utf8(output.stdout).unwrap();
    assert!(path.contains(COMMIT), "{path}");
    assert_eq!(fs::read(path.trim_end()).unwrap(), machine.bytes);
    // The next download brings what the commit has changed, beside the old one.
    let path = machine.pulled(MODEL);
    assert!(path.to_str().unwrap().contains(NEXT));
    assert_eq!(fs::read(path).unwrap(), next);
}

#[test]
fn a_model_that_the_hub_has_no_more_is_the_one_on_the_disk() {
    let machine = Machine::start(PIECE);
    let before = machine.pulled(MODEL);
    machine.hub.move_main(MODEL, NEXT);
    machine.hub.add(&format!("{MODEL}@{NEXT}"), "Tiny-Q8_0.gguf", gguf(machine.folder.path(), 100));
    assert!(machine.pulled("Org/Tiny-GGUF:Q8_0").to_str().unwrap().contains(NEXT));
    // `refs/main` names the new commit now.
    assert_eq!(machine.pulled("Org/Tiny-GGUF:Q4_K_M"), before);
    assert_eq!(machine.pulled("Org/Tiny-GGUF/Tiny-Q4_K_M.gguf"), before);
    let offline = machine.command("Org/Tiny-GGUF:Q4_K_M").env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&offline.stdout).trim_end(), before.to_str().unwrap(), "{}", error_of(&offline));
    assert!(machine.fails("Org/Tiny-GGUF:Q2_K").contains("it has no model Q2_K"));
}

#[test]
fn names_in_a_listing_that_lead_out_of_its_folder_are_not_there() {
    let machine = Machine::start(PIECE);
    let outside = machine.folder.path().join("outside-Q4_K_M.gguf");
    for name in
        ["../../../../outside-Q4_K_M.gguf", outside.to_str().unwrap(), "a/../../b-Q4_K_M.gguf", ".x-Q4_K_M.gguf"]
    {
        machine.hub.add("o/evil", name, machine.bytes.clone());
    }
    assert!(machine.fails("o/evil").contains("it holds no model"));
    machine.hub.add("o/evil", "Good-Q8_0.gguf", machine.bytes.clone());
    assert!(machine.pulled("o/evil").ends_with("Good-Q8_0.gguf"));
    assert!(!outside.exists());
}

#[test]
fn links_in_the_cache_do_not_lead_a_write_out_of_it() {
    let elsewhere = |machine: &Machine| {
        let folder = machine.folder.path().join("elsewhere");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("file"), "mine").unwrap();
        folder
    };
    // In place of the blob: the link is replaced, and not what it leads to.
    let machine = Machine::start(PIECE);
    let (file, blob) = (elsewhere(&machine).join("file"), machine.blobs().join(sha256(&machine.bytes)));
    fs::create_dir_all(machine.blobs()).unwrap();
    symlink(&file, &blob).unwrap();
    assert_eq!(fs::read(machine.pulled(MODEL)).unwrap(), machine.bytes);
    assert!(fs::symlink_metadata(&blob).unwrap().is_file());
    assert_eq!(fs::read(file).unwrap(), b"mine");
    // In place of a folder.
    for folder in ["blobs", "snapshots", "refs", &format!("snapshots/{COMMIT}")] {
        let machine = Machine::start(PIECE);
        let link = machine.cache().join("models--Org--Tiny-GGUF").join(folder);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(elsewhere(&machine), &link).unwrap();
        let said = machine.fails(MODEL);
        assert!(said.contains(link.to_str().unwrap()) && said.contains("it is a link that leads out of"), "{said}");
        assert_eq!(fs::read_dir(elsewhere(&machine)).unwrap().count(), 1, "{folder}");
    }
    // The user may keep the whole repository elsewhere.
    let machine = Machine::start(PIECE);
    fs::create_dir_all(machine.cache()).unwrap();
    symlink(elsewhere(&machine), machine.cache().join("models--Org--Tiny-GGUF")).unwrap();
    assert_eq!(fs::read(machine.pulled(MODEL)).unwrap(), machine.bytes);
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let machine = Machine::start(PIECE);
    fs::write(machine.cache(), "a file").unwrap();
    let said = machine.fails(MODEL);
    assert!(said.contains(machine.cache().to_str().unwrap()) && said.contains("cannot be created"), "{said}");
    assert!(machine.hub.requests().iter().all(|request| !request.is_of_files), "before any byte comes");
}

#[test]
fn of_two_programs_on_one_volume_one_goes_on_where_the_other_was_killed() {
    let machine = Machine::start(24 * PIECE);
    machine.hub.set_faults(HubFaults { pause: Duration::from_millis(20), ..HubFaults::default() });
    let mut first = spawn(machine.command(MODEL));
    eventually("some pieces come", ANSWERS, || machine.hub.bytes_sent() > 4 * PIECE);
    machine.hub.set_faults(HubFaults::default());
    let second = spawn(machine.command(MODEL));
    let pid = first.id();
    eventually("the second waits for the lock", ANSWERS, || {
        machine.hub.requests().iter().filter(|request| request.method == "HEAD").count() >= 2
    });
    assert!(first.try_wait().unwrap().is_none());
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
    first.wait().unwrap();
    let output = second.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", error_of(&output));
    let path = String::from_utf8(output.stdout).unwrap();
    assert!(fs::read(path.trim_end()).unwrap() == machine.bytes, "other bytes");
    let twice = machine.hub.bytes_sent() - machine.bytes.len();
    assert!(twice <= 4 * 2 * PIECE, "{twice} bytes came twice");
}

/// Returns every file below a folder, with its name, as one text.
fn everything_below(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        text += &format!("{}\n", path.display());
        if path.is_dir() {
            text += &everything_below(&path);
        } else {
            text += &String::from_utf8_lossy(&fs::read(&path).unwrap());
        }
    }
    text
}

#[test]
fn tokens_and_signatures_are_in_no_output_and_no_file() {
    let (token, signature, query) = ("hf_8Qn2MyLongTokenZ", "s3cr3t-signature", "s3cr3t-query");
    let machine = Machine::start(3 * PIECE);
    let mut shown = String::new();
    let mut run = |faults: HubFaults, name: &str, word: &str, code: i32| {
        machine.hub.set_faults(HubFaults { token: faults.token.clone().or(Some(token.to_owned())), ..faults });
        let mut command = machine.command(name);
        command.args([word]).env("HF_TOKEN", token).env("LOG_LEVEL", "trace").env("DOWNLOAD_RETRIES", "0");
        let output = command.env("DOWNLOAD_CONNECTIONS", "1").output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", error_of(&output));
        shown += &(error_of(&output) + &String::from_utf8_lossy(&output.stdout));
    };
    let none = HubFaults::default;
    // What hosts say of a request may repeat it.
    let echo = format!("no access to /x?signature={signature} with {token}");
    for head in ["403 Forbidden", "404 Not Found", "500 Internal Server Error"] {
        run(HubFaults { file_answer: Some((9, head.into(), echo.clone())), ..none() }, MODEL, "--json", 1);
        run(
            HubFaults { hub_answer: Some((head.replace("403", "400"), json!({"error": echo}).to_string())), ..none() },
            "Org/Other",
            "--json",
            if head.starts_with("404") { 78 } else { 1 },
        );
    }
    run(HubFaults { is_circle: true, ..none() }, MODEL, "--json", 1);
    run(HubFaults { cut: Some((PIECE, 1)), sends_wrong_bytes: true, ..none() }, MODEL, "--json", 1);
    run(none(), MODEL, "--json", 0);
    let (host, hash) = (machine.hub.url().replace("http://", ""), "ab".repeat(32));
    run(none(), &format!("https://{host}/m.gguf?X-Sig={query}#sha256={hash}"), "--json", 1);
    run(none(), &format!("https://{host}/m.gguf?X-Sig={query}"), "--json", 78);
    let mut check = Command::new(env!("CARGO_BIN_EXE_llamagate"));
    check.env_clear().args(["check", &format!("https://{host}/m.gguf?X-Sig={query}#sha256={hash}")]);
    check.env("DATA_DIR", machine.folder.path()).env("LLAMA_SERVER", "/bin/true").env("HF_TOKEN", token);
    let output = check.output().unwrap();
    shown += &(error_of(&output) + &String::from_utf8_lossy(&output.stdout));
    shown += &everything_below(machine.folder.path());
    for secret in [token, signature, query] {
        let at = shown.find(secret);
        assert_eq!(at, None, "{secret}: {:?}", at.map(|at| &shown[at.saturating_sub(200)..at]));
    }
}

#[test]
fn llama_server_finds_what_was_pulled_by_the_same_name() {
    let machine = Machine::start(PIECE);
    machine.hub.add("Org/Chat-GGUF", "Chat-Q8_0.gguf", fs::read(test_models().join("tiny-chat.gguf")).unwrap());
    machine.pulled("Org/Chat-GGUF:Q8_0");
    for variable in ["HF_HUB_CACHE", "LLAMA_CACHE"] {
        let server = RealServer::start_of_cache(variable, &machine.cache(), "Org/Chat-GGUF:Q8_0");
        let body = json!({"prompt": "Hello", "n_predict": 2});
        let answer = Client::new(server.url()).post_json("/completion", &body);
        assert_eq!(answer.status(), 200, "{variable}: {}", answer.text());
    }
}
