//! `llamagate pull`: models come from a hub that cuts, lies and limits, into a cache that other programs read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::support::gateway::retrieval_python;
use super::support::mock_hub::{COMMIT, HubFaults, MockHub, sha256};
use super::support::model_file::{self, Kind};
use super::support::wait::{ANSWERS, eventually};

pub(super) const MODEL: &str = "Org/Tiny-GGUF";
pub(super) const PIECE: usize = 1 << 20;

/// A hub with one repository, and a machine that pulls from it.
pub(super) struct Machine {
    pub(super) hub: MockHub,
    pub(super) folder: tempfile::TempDir,
    /// The bytes of the model in `MODEL`.
    pub(super) bytes: Vec<u8>,
}

impl Machine {
    /// Starts a hub whose model has about this number of bytes.
    pub(super) fn start(size: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bytes = gguf(folder.path(), size);
        let hub = MockHub::start();
        hub.add(MODEL, "Tiny-Q4_K_M.gguf", bytes.clone());
        hub.add(MODEL, "Tiny-Q8_0.gguf", gguf(folder.path(), size / 2));
        hub.add(MODEL, "README.md", b"# Tiny".to_vec());
        Self { hub, folder, bytes }
    }

    pub(super) fn cache(&self) -> PathBuf {
        self.folder.path().join("hub")
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.cache().join("models--Org--Tiny-GGUF/blobs")
    }

    pub(super) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_llamagate"));
        command.env_clear().env("HF_ENDPOINT", self.hub.url()).env("HF_HUB_CACHE", self.cache());
        command.env("DATA_DIR", self.folder.path()).env("DOWNLOAD_RETRIES", "3").args(["pull", name]);
        command
    }

    pub(super) fn pull(&self, name: &str) -> Output {
        self.command(name).output().unwrap()
    }

    /// Pulls a model, which must succeed, and returns its path.
    #[track_caller]
    pub(super) fn pulled(&self, name: &str) -> PathBuf {
        let output = self.pull(name);
        assert_eq!(output.status.code(), Some(0), "{}", error_of(&output));
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end())
    }

    /// Pulls a model, which must fail, and returns what is said of it.
    #[track_caller]
    pub(super) fn fails(&self, name: &str) -> String {
        let output = self.pull(name);
        assert!(matches!(output.status.code(), Some(1 | 78)), "{}", error_of(&output));
        error_of(&output)
    }

    /// Returns whether no file has its final name.
    pub(super) fn is_empty(&self) -> bool {
        let entries = fs::read_dir(self.blobs()).into_iter().flatten().flatten();
        entries.filter(|entry| !entry.file_name().to_string_lossy().ends_with(".incomplete")).count() == 0
    }
}

pub(super) fn error_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Returns a GGUF file of about this size: a header, and bytes of which no two pieces are equal.
pub(super) fn gguf(folder: &Path, size: usize) -> Vec<u8> {
    let path = folder.join("made.gguf");
    model_file::write(&path, Kind::Chat);
    let mut bytes = fs::read(&path).unwrap();
    fs::remove_file(path).unwrap();
    bytes.extend((0..size as u64 / 8).flat_map(|at| at.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()));
    bytes
}

#[test]
fn a_model_comes_by_its_quantisation_and_lies_as_the_hubs_clients_lay_it() {
    let machine = Machine::start(9 * PIECE + 100);
    let path = machine.pulled(&format!("{MODEL}:Q4_K_M"));
    assert_eq!(path, machine.cache().join(format!("models--Org--Tiny-GGUF/snapshots/{COMMIT}/Tiny-Q4_K_M.gguf")));
    assert_eq!(fs::read(&path).unwrap(), machine.bytes);
    let target = fs::read_link(&path).unwrap();
    assert_eq!(target, Path::new("../../blobs").join(sha256(&machine.bytes)));
    assert_eq!(fs::read_to_string(machine.cache().join("models--Org--Tiny-GGUF/refs/main")).unwrap(), COMMIT);
    assert_eq!(machine.hub.bytes_sent(), machine.bytes.len(), "nothing came twice");

    machine.hub.forget_requests();
    for name in [MODEL, "hf:Org/Tiny-GGUF:q4_k_m", "Org/Tiny-GGUF/Tiny-Q4_K_M.gguf"] {
        assert_eq!(machine.pulled(name), path, "{name}");
    }
    assert_eq!(machine.hub.bytes_sent(), 0, "what is there is not fetched");
    // And each of these names is one that the service takes.
    for name in [MODEL, "hf:Org/Tiny-GGUF:q4_k_m", "Org/Tiny-GGUF/Tiny-Q4_K_M.gguf"] {
        let mut check = Command::new(env!("CARGO_BIN_EXE_llamagate"));
        check.env_clear().args(["check", name]).env("HF_HUB_CACHE", machine.cache());
        check.env("DATA_DIR", machine.folder.path()).env("LLAMA_SERVER", "/bin/true").env("AUTH_ENABLED", "false");
        let output = check.output().unwrap();
        let said = error_of(&output) + &String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("Tiny-Q4_K_M") && !said.contains("there is no model"), "{name}: {said}");
    }
}

#[test]
fn parts_and_the_projector_come_along() {
    let machine = Machine::start(PIECE);
    let (hub, folder) = (&machine.hub, machine.folder.path());
    let part = |size| gguf(folder, size);
    hub.add("o/big", "BF16/Big-BF16-00001-of-00002.gguf", part(100));
    hub.add("o/big", "BF16/Big-BF16-00002-of-00002.gguf", part(200));
    hub.add("o/big", "mmproj-Big-F16.gguf", part(300));
    hub.add("o/big", "mmproj-Big-Q8_0.gguf", part(400));
    let path = machine.pulled("o/big:BF16");
    let snapshot = path.parent().unwrap().parent().unwrap();
    assert!(path.ends_with("BF16/Big-BF16-00001-of-00002.gguf"));
    assert!(snapshot.join("BF16/Big-BF16-00002-of-00002.gguf").is_file());
    assert!(snapshot.join("mmproj-Big-F16.gguf").is_file() && !snapshot.join("mmproj-Big-Q8_0.gguf").exists());
    let listed = Command::new(env!("CARGO_BIN_EXE_llamagate"))
        .env_clear()
        .args(["check", "o/big:BF16", "--mock-backend"])
        .env("HF_HUB_CACHE", machine.cache())
        .env("DATA_DIR", folder)
        .output()
        .unwrap();
    assert!(!error_of(&listed).contains("there is no model"), "{}", error_of(&listed));
}

#[test]
fn the_real_client_takes_the_hub_for_one_and_both_find_what_the_other_fetched() {
    let machine = Machine::start(3 * PIECE);
    let python = |code: &str, offline: bool| {
        let mut command = Command::new(retrieval_python());
        command.env_clear().env("HF_ENDPOINT", machine.hub.url()).env("HF_HUB_CACHE", machine.cache());
        command.env("HF_HUB_DISABLE_XET", "1").env("HF_HUB_DISABLE_TELEMETRY", "1").env("HOME", machine.folder.path());
        command.env("HF_HUB_OFFLINE", if offline { "1" } else { "0" });
        let output = command.args(["-c", code]).output().unwrap();
        assert!(output.status.success(), "{}", error_of(&output));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    };
    let download =
        |file: &str| format!("from huggingface_hub import hf_hub_download as d; print(d('{MODEL}', '{file}'))");
    // What the real client has fetched is not fetched again.
    let theirs = python(&download("Tiny-Q8_0.gguf"), false);
    machine.hub.forget_requests();
    assert_eq!(machine.pulled(&format!("{MODEL}:Q8_0")), Path::new(&theirs));
    assert_eq!(machine.hub.bytes_sent(), 0);
    // And the other way round, without the network.
    let ours = machine.pulled(MODEL);
    assert_eq!(python(&download("Tiny-Q4_K_M.gguf"), true), ours.to_str().unwrap());
    let scan = "from huggingface_hub import scan_cache_dir as s; i = s(); \
                print(len(i.warnings), [(r.repo_id, r.nb_files) for r in i.repos])";
    assert_eq!(python(scan, true), format!("0 [('{MODEL}', 2)]"));
}

#[test]
fn what_breaks_in_the_middle_goes_on_where_it_ended() {
    let machine = Machine::start(20 * PIECE);
    machine.hub.set_faults(HubFaults { cut: Some((PIECE + PIECE / 2, 6)), ..HubFaults::default() });
    let path = machine.pulled(MODEL);
    assert_eq!(fs::read(path).unwrap(), machine.bytes);
    assert_eq!(machine.hub.bytes_sent(), machine.bytes.len(), "no byte came twice");
}

/// What had come of an unfinished piece was thrown away at each break.
#[test]
fn a_network_that_breaks_within_every_piece_brought_nothing() {
    for (cut, size) in [(1, 0), (100, 4096), (4096, 300_000), (65_536, 3 * PIECE), (PIECE - 1, 5 * PIECE)] {
        let machine = Machine::start(size);
        machine.hub.set_faults(HubFaults { cut: Some((cut, usize::MAX)), ..HubFaults::default() });
        let output = machine.command(MODEL).env("DOWNLOAD_RETRIES", "0").output().unwrap();
        assert_eq!(output.status.code(), Some(0), "cut after {cut}: {}", error_of(&output));
        let path = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end());
        assert!(fs::read(path).unwrap() == machine.bytes, "cut after {cut}: other bytes");
        assert_eq!(machine.hub.bytes_sent(), machine.bytes.len(), "cut after {cut}: no byte came twice");
    }
}

#[test]
fn a_download_that_is_killed_goes_on_with_what_had_arrived() {
    let machine = Machine::start(64 * PIECE);
    let blob = sha256(&machine.bytes);
    let part = machine.blobs().join(format!("{blob}.incomplete"));
    let kills = std::env::var("PULL_KILLS").map_or(6, |kills| kills.parse().unwrap());
    machine.hub.set_faults(HubFaults { pause: Duration::from_millis(1), ..HubFaults::default() });
    let mut wasted = 0;
    for kill in 0..kills {
        if kill % 6 == 0 {
            let _ = fs::remove_dir_all(machine.cache());
            wasted = 0;
            machine.hub.forget_requests();
        }
        // At another byte each time.
        let bytes = machine.hub.bytes_sent() + 5 * PIECE + kill * 333_333 % (3 * PIECE);
        let mut child = machine.command(MODEL).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        eventually("some bytes come", ANSWERS, || machine.hub.bytes_sent() >= bytes);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(part.exists() && !machine.blobs().join(&blob).exists());
        // Of each of the four connections an unfinished piece, and what was on its way.
        wasted += 4 * 2 * PIECE;
        if kill % 6 == 5 {
            let path = machine.pulled(MODEL);
            assert!(fs::read(path).unwrap() == machine.bytes, "other bytes");
            let twice = machine.hub.bytes_sent() - machine.bytes.len();
            assert!(twice <= wasted, "{twice} bytes came twice, of {wasted} that may");
            assert!(!part.exists());
        }
    }
}

#[test]
fn two_programs_bring_a_model_once() {
    let machine = Machine::start(6 * PIECE);
    machine.hub.set_faults(HubFaults { holds: true, ..HubFaults::default() });
    let pulls: Vec<_> =
        (0..3).map(|_| machine.command(MODEL).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()).collect();
    eventually("the first asks for bytes", ANSWERS, || {
        machine.hub.requests().iter().any(|request| request.is_of_files)
    });
    machine.hub.release();
    for pull in pulls {
        let output = pull.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", error_of(&output));
    }
    assert_eq!(machine.hub.bytes_sent(), machine.bytes.len());
}

#[test]
fn the_token_goes_to_the_hub_alone_and_is_never_shown() {
    let machine = Machine::start(2 * PIECE);
    let token = "hf_8Qn2MyLongTokenZ";
    machine.hub.set_faults(HubFaults { token: Some(token.to_owned()), ..HubFaults::default() });
    let gated = machine.fails(MODEL);
    assert!(gated.contains(&format!("{}/{MODEL}", machine.hub.url())) && gated.contains("HF_TOKEN"), "{gated}");
    let mut command = machine.command(MODEL);
    let output = command.env("HF_TOKEN", token).env("LOG_LEVEL", "trace").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", error_of(&output));
    let shown = error_of(&output) + &String::from_utf8_lossy(&output.stdout);
    assert!(!shown.contains("8Qn2") && !shown.contains("s3cr3t-signature"), "{shown}");
    let of_files = |is_of_files| machine.hub.requests().into_iter().filter(move |one| one.is_of_files == is_of_files);
    assert!(of_files(true).all(|request| request.authorization.is_none()));
    assert!(of_files(false).any(|request| request.authorization.is_some()));
    // The file of the hub's own tools is read too.
    fs::write(machine.folder.path().join("token"), format!("{token}\n")).unwrap();
    let mut command = machine.command("Org/Tiny-GGUF:Q8_0");
    let output = command.env("HF_TOKEN_PATH", machine.folder.path().join("token")).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", error_of(&output));
}

#[test]
fn a_hub_that_lies_leaves_nothing_under_a_final_name() {
    for (faults, words) in [
        (HubFaults { sends_wrong_bytes: true, ..HubFaults::default() }, "arrived with the SHA-256"),
        (HubFaults { size_lie: 3, ..HubFaults::default() }, "was asked for"),
        (HubFaults { is_circle: true, ..HubFaults::default() }, "redirects in a circle"),
        (
            HubFaults {
                hub_answer: Some(("200 OK\r\nContent-Type: text/html".into(), "<html>a page</html>".into())),
                ..HubFaults::default()
            },
            "does not answer as the hub does",
        ),
        (
            HubFaults {
                hub_answer: Some(("302 Found\r\nLocation: ftp://elsewhere.invalid/x".into(), String::new())),
                ..HubFaults::default()
            },
            "redirects to an address without TLS",
        ),
        (
            HubFaults {
                hub_answer: Some(("401 Unauthorized".into(), r#"{"error":"Repository not found"}"#.into())),
                ..HubFaults::default()
            },
            "has no repository Org/Tiny-GGUF, or keeps it private",
        ),
    ] {
        let machine = Machine::start(2 * PIECE);
        machine.hub.set_faults(faults);
        let said = machine.fails(MODEL);
        assert!(said.contains(words) && said.lines().count() <= 3, "{words}: {said}");
        assert!(machine.is_empty(), "{words}");
        machine.hub.set_faults(HubFaults::default());
        assert_eq!(fs::read(machine.pulled(MODEL)).unwrap(), machine.bytes, "the next download is right: {words}");
    }
}

#[test]
fn a_hub_that_is_busy_or_behind_a_page_is_asked_again() {
    for (head, body) in [
        ("429 Too Many Requests\r\nRetry-After: 1", ""),
        ("429 Too Many Requests\r\nRateLimit: \"resolvers\";r=0;t=1", ""),
        ("503 Service Unavailable", "busy"),
        ("403 Forbidden", "Request has expired"),
        ("200 OK\r\nContent-Type: text/html", "<html>log in</html>"),
    ] {
        let machine = Machine::start(2 * PIECE);
        machine.hub.set_faults(HubFaults { file_answer: Some((2, head.into(), body.into())), ..HubFaults::default() });
        assert_eq!(fs::read(machine.pulled(MODEL)).unwrap(), machine.bytes, "{head}");
    }
}

#[test]
fn a_host_without_ranges_sends_the_file_over_one_connection() {
    let machine = Machine::start(5 * PIECE + 17);
    machine.hub.set_faults(HubFaults { has_no_ranges: true, cut: Some((2 * PIECE, 1)), ..HubFaults::default() });
    assert_eq!(fs::read(machine.pulled(MODEL)).unwrap(), machine.bytes);
}

#[test]
fn a_file_that_is_no_gguf_gets_no_name() {
    let machine = Machine::start(PIECE);
    machine.hub.add("o/page", "Page-Q4_K_M.gguf", b"<html>this is no model</html>".to_vec());
    let output = machine.pull("o/page");
    assert_eq!(output.status.code(), Some(78), "{}", error_of(&output));
    assert!(error_of(&output).contains("is no GGUF file"), "{}", error_of(&output));
    assert!(error_of(&output).contains("it was removed"), "{}", error_of(&output));
    // What was kept of it was listed as a download that is not complete.
    assert_eq!(fs::read_dir(machine.cache().join("models--o--page/blobs")).unwrap().count(), 0);
}

#[test]
fn names_that_mean_nothing_are_refused_before_the_hub_is_asked() {
    let machine = Machine::start(PIECE);
    for (name, code, words) in [
        ("nothing", 78, "names no model on the network"),
        ("Org/Tiny-GGUF/../../x.gguf", 78, "names no model on the network"),
        ("https://a.example/x.gguf", 78, "needs its SHA-256"),
    ] {
        let output = machine.pull(name);
        assert_eq!(output.status.code(), Some(code), "{name}");
        assert!(error_of(&output).contains(words), "{}", error_of(&output));
    }
    assert!(machine.hub.requests().is_empty());
    for (name, words) in [
        ("Org/None", "has no repository Org/None"),
        ("Org/Tiny-GGUF:Q2_K", "it has no model Q2_K; there is Tiny-Q4_K_M.gguf, Tiny-Q8_0.gguf"),
        ("Org/Tiny-GGUF/none.gguf", "there is no file none.gguf"),
    ] {
        let said = machine.fails(name);
        assert!(said.contains(words), "{said}");
    }
    let offline = machine.command(MODEL).env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert_eq!(offline.status.code(), Some(78), "{}", error_of(&offline));
    assert!(error_of(&offline).contains("HF_HUB_OFFLINE forbids"), "{}", error_of(&offline));
    let path = machine.pulled(MODEL);
    let offline = machine.command(MODEL).env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert_eq!(offline.status.code(), Some(0), "{}", error_of(&offline));
    assert_eq!(String::from_utf8_lossy(&offline.stdout).trim_end(), path.to_str().unwrap(), "what is there is found");
}

/// The first part has its name last, so a model is there as a whole or not at all.
#[test]
fn a_split_model_that_was_killed_between_its_parts_was_taken_for_a_broken_one() {
    let machine = Machine::start(PIECE);
    let part = |size| gguf(machine.folder.path(), size);
    machine.hub.add("o/big", "Big-Q8_0-00001-of-00002.gguf", part(100));
    machine.hub.add("o/big", "Big-Q8_0-00002-of-00002.gguf", part(6 * PIECE));
    machine.hub.set_faults(HubFaults { pause: Duration::from_millis(20), ..HubFaults::default() });
    let mut child = machine.command("o/big").stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    eventually("the second part comes", ANSWERS, || machine.hub.bytes_sent() > PIECE);
    child.kill().unwrap();
    child.wait().unwrap();
    let snapshot = machine.cache().join("models--o--big/snapshots").join(COMMIT);
    assert!(!snapshot.exists(), "no file has its name");
    machine.hub.set_faults(HubFaults::default());
    let path = machine.pulled("o/big");
    assert!(
        path.ends_with("Big-Q8_0-00001-of-00002.gguf") && path.with_file_name("Big-Q8_0-00002-of-00002.gguf").is_file()
    );
}

#[test]
fn a_link_out_of_the_cache_is_not_written_through() {
    let machine = Machine::start(PIECE);
    let outside = machine.folder.path().join("outside");
    fs::write(&outside, "mine").unwrap();
    fs::create_dir_all(machine.blobs()).unwrap();
    let part = machine.blobs().join(format!("{}.incomplete", sha256(&machine.bytes)));
    std::os::unix::fs::symlink(&outside, &part).unwrap();
    let said = machine.fails(MODEL);
    assert!(said.contains("cannot be created"), "{said}");
    assert_eq!(fs::read(&outside).unwrap(), b"mine");
}

#[test]
fn ctrl_c_keeps_what_has_arrived() {
    let machine = Machine::start(8 * PIECE);
    let mut command = machine.command(MODEL);
    let child = command.env("DOWNLOAD_MAX_RATE", "2MiB").stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    eventually("some pieces come", ANSWERS, || machine.hub.bytes_sent() > 3 * PIECE);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = thread::spawn(|| child.wait_with_output().unwrap()).join().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", error_of(&output));
    assert!(error_of(&output).contains("what has arrived is kept"));
    assert!(machine.is_empty());
    assert_eq!(fs::read(machine.pulled(MODEL)).unwrap(), machine.bytes);
}

#[test]
fn json_tells_the_end_in_one_object() {
    let machine = Machine::start(PIECE);
    let output = machine.command(MODEL).arg("--json").output().unwrap();
    let last: Value = serde_json::from_slice(output.stdout.split(|byte| *byte == b'\n').rev().nth(1).unwrap()).unwrap();
    assert_eq!((last["state"].as_str(), last["bytes"].as_u64()), (Some("done"), Some(machine.bytes.len() as u64)));
    let output = machine.command("Org/None").arg("--json").output().unwrap();
    let last: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), last["state"].as_str()), (Some(78), Some("failed")));
}

#[test]
fn sigterm_ended_a_download_without_a_last_object() {
    let machine = Machine::start(8 * PIECE);
    let mut command = machine.command(MODEL);
    command.arg("--json").env("DOWNLOAD_MAX_RATE", "2MiB").stderr(Stdio::piped()).stdout(Stdio::piped());
    let child = command.spawn().unwrap();
    eventually("some pieces come", ANSWERS, || machine.hub.bytes_sent() > 3 * PIECE);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{}", error_of(&output));
    let last: Value = serde_json::from_slice(output.stdout.split(|byte| *byte == b'\n').rev().nth(1).unwrap()).unwrap();
    assert_eq!(last["state"], "stopped", "{last}");
    assert!(machine.is_empty());
}

#[test]
fn a_model_that_is_whole_was_not_found_while_the_hub_was_away() {
    let machine = Machine::start(PIECE);
    let path = machine.pulled(MODEL);
    // A port that was free a moment ago.
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let pull = |name: &str| {
        let mut command = machine.command(name);
        command.env("HF_ENDPOINT", format!("http://{away}")).env("DOWNLOAD_RETRIES", "0").output().unwrap()
    };
    let output = pull(MODEL);
    assert_eq!(output.status.code(), Some(0), "{}", error_of(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), path.to_str().unwrap());
    assert!(error_of(&output).contains("warning: the hub gives no answer"), "{}", error_of(&output));
    let output = pull("Org/Tiny-GGUF:Q8_0");
    assert_eq!(output.status.code(), Some(1), "{}", error_of(&output));
}
