//! `llamagate rm`: what goes, what stays, and when nothing does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::support::gateway::{real_llama_server, retrieval_python, test_models};
use super::support::mock_hub::{COMMIT, HubFaults, MockHub};
use super::support::model_file::{self, Kind};
use super::support::process::Process;
use super::support::wait::{ANSWERS, eventually};

const MODEL: &str = "Org/Tiny-GGUF";

/// A hub with one repository of two models, and a machine with a models folder and a cache.
struct Machine {
    hub: MockHub,
    folder: tempfile::TempDir,
}

impl Machine {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("models")).unwrap();
        let hub = MockHub::start();
        for (file, kind) in [("Tiny-Q4_K_M.gguf", Kind::Chat), ("Tiny-Q8_0.gguf", Kind::Embedding)] {
            hub.add(MODEL, file, gguf(folder.path(), kind));
        }
        Self { hub, folder }
    }

    fn repository(&self) -> PathBuf {
        self.folder.path().join("hub/models--Org--Tiny-GGUF")
    }

    fn models(&self) -> PathBuf {
        self.folder.path().join("models")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_llamagate"));
        command.env_clear().env("HF_ENDPOINT", self.hub.url()).env("HF_HUB_CACHE", self.folder.path().join("hub"));
        command.env("DATA_DIR", self.folder.path()).env("MODELS_DIR", self.models()).stdin(Stdio::null());
        command.args(arguments);
        command
    }

    /// Runs a command, which must end with this status. Returns its output, the error last.
    #[track_caller]
    fn run(&self, arguments: &[&str], status: i32) -> String {
        let output = self.command(arguments).output().unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(status), "{said}");
        said
    }

    /// Answers the question of `rm` on a terminal.
    fn answer(&self, model: &str, answer: &str) -> String {
        let code = "import os, pty, sys\n\
            pid, fd = pty.fork()\n\
            if pid == 0: os.execv(sys.argv[1], [sys.argv[1], 'rm', sys.argv[2]])\n\
            text = b''\n\
            while b'[y/N]' not in text: text += os.read(fd, 1024)\n\
            os.write(fd, sys.argv[3].encode() + b'\\n')\n\
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))";
        let mut command = Command::new(retrieval_python());
        command.env_clear().env("HF_HUB_CACHE", self.folder.path().join("hub")).env("DATA_DIR", self.folder.path());
        command.args(["-c", code, env!("CARGO_BIN_EXE_llamagate"), model, answer]);
        said(&command.output().unwrap()).trim().to_owned()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn gguf(folder: &Path, kind: Kind) -> Vec<u8> {
    let path = folder.join("made.gguf");
    model_file::write(&path, kind);
    let bytes = fs::read(&path).unwrap();
    fs::remove_file(path).unwrap();
    bytes
}

#[test]
fn a_pulled_model_goes_and_comes_back_and_the_cache_is_sound() {
    let machine = Machine::start();
    machine.run(&["pull", "Org/Tiny-GGUF:Q4_K_M"], 0);
    machine.run(&["pull", "Org/Tiny-GGUF:Q8_0"], 0);
    let readme = machine.repository().join("snapshots").join(COMMIT).join("README.md");
    fs::write(&readme, "# of another program").unwrap();
    let scan = || {
        let code = "from huggingface_hub import scan_cache_dir as s; i = s(); \
                    print(len(i.warnings), [(r.repo_id, sorted(f.file_name for v in r.revisions for f in v.files)) for r in i.repos])";
        let mut command = Command::new(retrieval_python());
        command.env_clear().env("HF_HUB_CACHE", machine.folder.path().join("hub")).env("HOME", machine.folder.path());
        said(&command.args(["-c", code]).output().unwrap()).trim().to_owned()
    };
    let blobs = || fs::read_dir(machine.repository().join("blobs")).unwrap().count();
    let planned = machine.run(&["rm", "Org/Tiny-GGUF:Q4_K_M", "--dry-run"], 0);
    assert!(planned.contains("Tiny-Q4_K_M.gguf (link)") && planned.contains("frees "), "{planned}");
    assert!(!planned.contains("Q8_0") && blobs() == 2, "{planned}");

    machine.run(&["rm", "Org/Tiny-GGUF:Q4_K_M", "--yes"], 0);
    assert_eq!(blobs(), 1);
    assert_eq!(scan(), "0 [('Org/Tiny-GGUF', ['README.md', 'Tiny-Q8_0.gguf'])]");
    assert!(machine.run(&["rm", "Org/Tiny-GGUF:Q4_K_M", "--yes"], 78).contains("has no model Q4_K_M"));

    machine.run(&["pull", "Org/Tiny-GGUF:Q4_K_M"], 0);
    machine.run(&["rm", "Org/Tiny-GGUF:Q4_K_M", "hf:Org/Tiny-GGUF/Tiny-Q8_0.gguf", "--yes"], 0);
    assert_eq!(scan(), "0 [('Org/Tiny-GGUF', ['README.md'])]");
    fs::remove_file(readme).unwrap();
    machine.run(&["pull", MODEL], 0);
    machine.run(&["rm", MODEL, "--yes"], 0);
    assert!(!machine.repository().exists());
    assert_eq!(scan(), "0 []");
}

#[test]
fn json_tells_what_goes_and_what_it_frees() {
    let machine = Machine::start();
    let path = machine.models().join("m.gguf");
    model_file::write(&path, Kind::Chat);
    let size = fs::metadata(&path).unwrap().len();
    let run = |arguments: &[&str], status| -> Value {
        let output = machine.command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let planned = run(&["rm", "m", "--json", "--dry-run"], 0);
    let file = &planned["models"][0]["files"][0];
    assert_eq!((planned["state"].as_str(), planned["bytes_freed"].as_u64()), (Some("planned"), Some(size)));
    assert_eq!(
        (file["kind"].as_str(), file["path"].as_str().map(Path::new)),
        (Some("file"), Some(&*path.canonicalize().unwrap()))
    );
    let refused = run(&["rm", "m", "--json"], 78);
    assert!(refused["error"].as_str().unwrap().contains("no terminal") && path.exists());
    assert_eq!(run(&["rm", "m", "--json", "--yes"], 0)["state"], "removed");
    assert!(!path.exists());
    assert_eq!(run(&["rm", "m", "--json", "--yes"], 78)["state"], "failed");
}

#[test]
fn without_a_yes_nothing_goes() {
    let machine = Machine::start();
    let path = machine.models().join("m.gguf");
    model_file::write(&path, Kind::Chat);
    let refused = machine.run(&["rm", "m"], 78);
    assert!(refused.contains("no terminal to ask on") && refused.contains("--yes"), "{refused}");
    for answer in ["n", "", "maybe"] {
        assert_eq!(machine.answer("m", answer), "1", "{answer:?}");
        assert!(path.exists(), "{answer:?}");
    }
    assert_eq!(machine.answer("m", "y"), "0");
    assert!(!path.exists());
}

#[test]
fn a_wrong_name_among_right_ones_removes_nothing() {
    let machine = Machine::start();
    let path = machine.models().join("m.gguf");
    model_file::write(&path, Kind::Chat);
    fs::write(machine.folder.path().join("outside.gguf"), "mine").unwrap();
    let outside = machine.folder.path().join("outside.gguf");
    for (name, words) in [
        ("none", "there is no model"),
        ("../outside.gguf", "leads out of the models folder"),
        (outside.to_str().unwrap(), "neither below MODELS_DIR nor in HF_HUB_CACHE"),
        ("/etc/passwd", "is not a model file"),
        ("/", "is not a model file"),
        ("Org/None", "there is no model"),
        ("https://a.example/x.gguf?secret=s3cr3t", "is an address"),
    ] {
        let refused = machine.run(&["rm", "m", name, "--yes"], 78);
        assert!(refused.contains(words) && !refused.contains("s3cr3t"), "{name}: {refused}");
    }
    assert!(path.exists() && outside.exists());
    assert_eq!(machine.command(&["rm"]).output().unwrap().status.code(), Some(2), "a name is needed");
}

#[test]
fn a_model_that_llama_server_has_loaded_stays() {
    let machine = Machine::start();
    let path = machine.models().join("tiny-chat.gguf");
    fs::copy(test_models().join("tiny-chat.gguf"), &path).unwrap();
    for arguments in [&[][..], &["--load-mode", "none"]] {
        let mut command = Command::new(real_llama_server());
        command.arg("-m").arg(&path).args([
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "-c",
            "256",
            "-ngl",
            "0",
            "--offline",
        ]);
        let mut server = Process::start("llama-server", command.args(arguments), machine.folder.path());
        server.wait_for_line("model loaded");
        let refused = machine.run(&["rm", "tiny-chat", "--yes"], 1);
        assert!(refused.contains(&format!("is in use by process {} (", server.pid())), "{refused}");
        server.kill();
        assert!(path.exists());
    }
    machine.run(&["rm", "tiny-chat", "--yes"], 0);
    assert!(!path.exists());
}

#[test]
fn a_download_that_goes_on_stays_and_its_part_goes_afterwards() {
    let machine = Machine::start();
    machine.hub.set_faults(HubFaults { holds: true, ..HubFaults::default() });
    let mut pull = machine.command(&["pull", MODEL]);
    let mut pull = pull.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let parts = || {
        let entries = fs::read_dir(machine.repository().join("blobs")).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(".incomplete")).count()
    };
    eventually("a part is there", ANSWERS, || parts() == 1);
    let refused = machine.run(&["rm", MODEL, "--yes"], 1);
    assert!(refused.contains("is being downloaded"), "{refused}");
    assert_eq!(parts(), 1);
    pull.kill().unwrap();
    pull.wait().unwrap();
    let removed = machine.run(&["rm", MODEL, "--yes"], 0);
    assert!(removed.contains("not finished"), "{removed}");
    assert!(!machine.repository().exists());
}

/// Says where the stores of other programs are, in the models folder.
#[test]
fn a_store_that_a_variable_names_loses_nothing_whether_or_not_it_is_served() {
    let machine = Machine::start();
    let (lm, ollama) = (machine.models().join("lm"), machine.models().join("ol"));
    let theirs = lm.join("pub/repo/theirs.gguf");
    let blob = ollama.join("blobs/sha256-ab");
    for path in [&theirs, &blob] {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        model_file::write(path, Kind::Chat);
    }
    for stores in ["auto", "none"] {
        for name in [Path::new("theirs"), &theirs, &blob] {
            let mut command = machine.command(&["rm"]);
            command.arg(name).arg("--yes").env("MODEL_STORES", stores);
            let output = command.env("LM_STUDIO_MODELS", &lm).env("OLLAMA_MODELS", &ollama).output().unwrap();
            let said = said(&output);
            assert_eq!(output.status.code(), Some(78), "{name:?}: {said}");
            assert!(said.contains("lies in the store of another program"), "{name:?}: {said}");
        }
    }
    assert!(theirs.exists() && blob.exists());
    let fits = |name: &str| {
        let mut command = machine.command(&["fit", name]);
        command.env("LM_STUDIO_MODELS", &lm).env("OLLAMA_MODELS", &ollama).output().unwrap()
    };
    let output = fits("lmstudio:pub/repo");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

/// llama-server closes the file of an adapter once it has read it.
#[test]
fn an_adapter_was_removed_that_a_llama_server_had_been_started_with() {
    let machine = Machine::start();
    fs::copy(test_models().join("tiny-chat.gguf"), machine.models().join("tiny-chat.gguf")).unwrap();
    for (file, seed) in [("a.gguf", 1), ("b.gguf", 2)] {
        model_file::write_lora(&machine.models().join(file), "llama", seed);
    }
    let mut command = Command::new(real_llama_server());
    // Relative, as a user writes it.
    command.current_dir(machine.models()).args(["-m", "tiny-chat.gguf", "--lora-scaled", "a.gguf:1,b.gguf:0.5"]);
    command.args(["--host", "127.0.0.1", "--port", "0", "-c", "256", "-ngl", "0", "--offline"]);
    let mut server = Process::start("llama-server", &mut command, machine.folder.path());
    server.wait_for_line("model loaded");
    for file in ["a.gguf", "b.gguf"] {
        let refused = machine.run(&["rm", machine.models().join(file).to_str().unwrap(), "--yes"], 1);
        assert!(refused.contains(&format!("is in use by process {} (", server.pid())), "{refused}");
        assert!(machine.models().join(file).exists());
    }
    server.kill();
    machine.run(&["rm", machine.models().join("a.gguf").to_str().unwrap(), "--yes"], 0);
}
