//! `llamagate fit`: what it says of a model's memory, beside what the real llama-server takes, and how little of a model on
//! the network it fetches.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::support::gateway::{python, real_llama_server, smollm, test_models};
use super::support::mock_hub::MockHub;
use super::support::process::Process;
use llamagate::models::check_readable;
use llamagate::models::estimate::{MemoryDemand, MemoryEstimate, MemoryOptions};

const MIB: f64 = 1024.0 * 1024.0;
/// Half of the last digit of llama-server's numbers, in bytes.
const ROUNDING: f64 = 0.006 * MIB;

/// The buffers that a llama-server logs, in bytes.
#[derive(Debug, Default)]
struct Taken {
    weights: f64,
    cache: f64,
    compute: f64,
    output: f64,
}

impl Taken {
    /// Loads a model. Weights are not packed again for this CPU, because a GPU does not do that either.
    fn by(file: &Path, context: u64, slots: u64, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(real_llama_server());
        command.arg("-m").arg(file).args(["--host", "127.0.0.1", "--port", "0", "-ngl", "0", "-t", "1", "--no-repack"]);
        command.args(["-c", &context.to_string(), "-np", &slots.to_string(), "--verbosity", "4", "--offline"]);
        command.args(["--no-warmup"]);
        let mut server = Process::start("llama-server", command.args(arguments), folder.path());
        server.wait_for_line("model loaded");
        let mut taken = Self::default();
        // For example "load_tensors:   CPU_Mapped model buffer size =    92.10 MiB"
        for line in server.output().lines() {
            let Some((what, size)) = line.split_once("buffer size =") else { continue };
            let Some(size) = size.trim().strip_suffix(" MiB") else { continue };
            let sum = match what.split_whitespace().next_back() {
                Some("model") => &mut taken.weights,
                Some("KV" | "RS") => &mut taken.cache,
                Some("compute") => &mut taken.compute,
                Some("output") => &mut taken.output,
                other => panic!("a buffer of another kind: {other:?}"),
            };
            *sum += size.trim().parse::<f64>().unwrap() * MIB;
        }
        taken
    }

    fn total(&self) -> f64 {
        self.weights + self.cache + self.compute + self.output
    }
}

/// Compares the estimate with what llama-server takes: weights and cache within 1 %, the sum from 0.9 to 1.5 of it.
#[track_caller]
fn compare(file: &Path, context: u64, slots: u64, arguments: &[&str]) {
    let taken = Taken::by(file, context, slots, arguments);
    let words: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
    let demand = MemoryDemand { ctx_total: context, slots, options: MemoryOptions::of_arguments(&words).unwrap() };
    let model = check_readable(file).unwrap();
    let said = MemoryEstimate::of(&model.metadata, model.size_bytes, &demand);
    let ratio = said.total() as f64 / taken.total();
    let row = format!(
        "{} -c {context} -np {slots} {}: weights {:.2} of {:.2}, cache {:.2} of {:.2}, compute {:.2} of {:.2}, sum {ratio:.2}",
        file.file_name().unwrap().display(),
        arguments.join(" "),
        said.weights as f64 / MIB,
        taken.weights / MIB,
        said.cache as f64 / MIB,
        taken.cache / MIB,
        said.compute as f64 / MIB,
        taken.compute / MIB,
    );
    println!("{row}");
    let is_close = |said: u64, taken: f64| (said as f64 - taken).abs() <= taken * 0.01 + ROUNDING;
    assert!(is_close(said.weights, taken.weights) && is_close(said.cache, taken.cache), "{row}");
    assert!((0.9..=1.5).contains(&ratio), "{row}");
    assert!(said.compute as f64 + ROUNDING >= taken.compute * 0.9, "{row}");
}

#[test]
fn the_numbers_are_those_of_llama_server() {
    for (context, slots, arguments) in [
        (1024, 1, &[][..]),
        (8192, 2, &[]),
        (8192, 1, &["-ctk", "q8_0", "-ctv", "q8_0", "-fa", "on"]),
        (8192, 1, &["-ctk", "q8_0", "-ub", "256", "-fa", "on"]),
    ] {
        compare(&smollm(), context, slots, arguments);
    }
    for (name, arguments) in [
        ("tiny-chat.gguf", &[][..]),
        ("tiny-qwen3-reranker.gguf", &[]),
        ("tiny-embedding.gguf", &["--embedding", "-b", "512", "-ub", "512"]),
        ("tiny-rerank.gguf", &["--reranking", "-b", "512", "-ub", "512"]),
    ] {
        compare(&test_models().join(name), 1024, 2, arguments);
    }
}

/// Writes models of several shapes, whose weights are zeros.
fn shaped_models(folder: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/make_shaped_models.py");
    let made = Command::new(python()).arg(script).arg(folder).output().unwrap();
    assert!(made.status.success(), "{}", said(&made));
}

#[test]
fn windows_and_states_of_layers_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    shaped_models(folder.path());
    for (name, context, slots, arguments) in [
        ("dense.gguf", 4096, 1, &[][..]),
        ("dense.gguf", 65536, 1, &[]),
        ("wide.gguf", 8192, 4, &[]),
        ("sliding.gguf", 4096, 1, &[]),
        ("sliding.gguf", 16384, 2, &[]),
        ("sliding.gguf", 16384, 2, &["--swa-full"]),
        ("hybrid.gguf", 8192, 2, &[]),
        ("state.gguf", 8192, 2, &[]),
    ] {
        compare(&folder.path().join(name), context, slots, arguments);
    }
}

/// A machine without a GPU that is looked at: the memory is always given.
struct Machine {
    folder: tempfile::TempDir,
    hub: MockHub,
}

impl Machine {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("models")).unwrap();
        Self { folder, hub: MockHub::start() }
    }

    fn models(&self) -> PathBuf {
        self.folder.path().join("models")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_llamagate"));
        command.env_clear().env("HF_ENDPOINT", self.hub.url()).env("HF_HUB_CACHE", self.folder.path().join("hub"));
        command.env("DATA_DIR", self.folder.path()).env("MODELS_DIR", self.models()).stdin(Stdio::null());
        command.env("DOWNLOAD_RETRIES", "1").arg("fit").args(arguments);
        command
    }

    #[track_caller]
    fn run(&self, arguments: &[&str], status: i32) -> String {
        let output = self.command(arguments).output().unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(status), "{said}");
        said
    }

    #[track_caller]
    fn json(&self, arguments: &[&str], status: i32) -> Value {
        serde_json::from_str(&self.run(&[arguments, &["--json"]].concat(), status)).unwrap()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn what_does_not_fit_is_told_with_what_would() {
    let machine = Machine::start();
    let model = smollm();
    let name = model.to_str().unwrap();
    let fits = machine.run(&[name, "--ctx", "4096", "--parallel", "2", "--memory", "1GiB"], 0);
    assert!(fits.contains("fits, with all layers on the GPU") && fits.contains("KV cache"), "{fits}");
    assert!(fits.contains("180.0 MiB  CTX=4096 PARALLEL=2"), "{fits}");
    // 92 MiB of weights and 22.5 MiB for each 1024 tokens.
    let found = machine.json(&[name, "--ctx", "8192", "--parallel", "1", "--memory", "200MiB"], 1);
    assert_eq!((found["fits"].as_bool(), found["layers"].as_u64()), (Some(false), Some(30)));
    let ctx = found["ctx"].as_u64().unwrap();
    let ngl = found["ngl"].as_u64().unwrap();
    assert!((2048..8192).contains(&ctx) && (10..30).contains(&ngl), "{found}");
    // What is proposed is true.
    let proposed = ctx.to_string();
    machine.run(&[name, "--ctx", &proposed, "--parallel", "1", "--memory", "200MiB"], 0);
    let longer = (ctx + 256).to_string();
    machine.run(&[name, "--ctx", &longer, "--parallel", "1", "--memory", "200MiB"], 1);
    let small = machine.run(&[name, "--ctx", "8192", "--parallel", "1", "--memory", "30MiB"], 1);
    assert!(small.contains("NGL=0 runs on the CPU") && !small.contains("CTX=512"), "{small}");
    let none = machine.run(&[name, "--ngl", "0", "--memory", "30MiB"], 1);
    assert!(none.contains("does not fit, and would not with CTX=512 on the CPU"), "{none}");
    let quantised = machine.json(
        &[name, "--ctx", "8192", "--parallel", "1", "--memory", "1GiB", "--extra-args", "-ctk q8_0 -ctv q8_0"],
        0,
    );
    assert_eq!(quantised["cache"].as_u64(), Some(100_270_080));
}

/// Regression: a model was compared with the settings of all models, whatever the configuration said of it.
#[test]
fn a_model_of_the_configuration_is_compared_with_its_own_settings() {
    let machine = Machine::start();
    fs::copy(smollm(), machine.models().join("smol.gguf")).unwrap();
    let elsewhere = machine.folder.path().join("elsewhere.gguf");
    fs::copy(smollm(), &elsewhere).unwrap();
    let config = machine.folder.path().join("llamagate.yaml");
    let text = format!(
        "models:\n  long: {{file: smol.gguf, ctx: 8192, parallel: 2, args: [-ctk, q8_0, -ctv, q8_0], aliases: [gpt-4o]}}\n  \
         cpu: {{file: {}, ctx: 2048, ngl: 0}}\n  run: {{command: [serve, \"{{port}}\"]}}\n",
        elsewhere.display()
    );
    fs::write(&config, text).unwrap();
    let config = config.display().to_string();
    let fit = |arguments: &[&str]| machine.json(&[arguments, &["--memory", "2GiB", "--config", &config]].concat(), 0);
    let of_flags = machine.json(
        &["smol", "--memory", "2GiB", "--ctx", "8192", "--parallel", "2", "--extra-args", "-ctk q8_0 -ctv q8_0"],
        0,
    );
    for name in ["long", "gpt-4o"] {
        assert_eq!(fit(&[name])["cache"], of_flags["cache"], "{name}");
    }
    assert_ne!(fit(&["smol"])["cache"], of_flags["cache"], "a file that is no name of a model");
    // What is given with the command comes first.
    let shorter = fit(&["long", "--ctx", "4096"])["cache"].as_u64().unwrap();
    assert_eq!(fit(&["long"])["cache"].as_u64(), Some(2 * shorter));
    assert_eq!(fit(&["cpu"])["asked"]["ctx"].as_u64(), Some(2048), "its file is outside of the models folder");
    machine.run(&["run", "--memory", "2GiB", "--config", &config], 78);
}

#[test]
fn of_a_model_on_the_network_only_the_header_comes() {
    let machine = Machine::start();
    shaped_models(machine.folder.path());
    let wide = fs::read(machine.folder.path().join("wide.gguf")).unwrap();
    machine.hub.add("Org/Wide-GGUF", "Wide-F16.gguf", wide.clone());
    machine.hub.add("Org/Wide-GGUF", "mmproj-Wide-F16.gguf", vec![7; 3 << 20]);
    let remote = machine.json(&["Org/Wide-GGUF:F16", "--memory", "2GiB", "--ctx", "4096", "--parallel", "1"], 0);
    let sent = machine.hub.bytes_sent();
    // The header is smaller than the first range.
    assert!(sent <= 1 << 20 && wide.len() > 50 << 20, "{sent} bytes came");
    assert_eq!(remote["projector"].as_u64(), Some(3 << 20));
    fs::rename(machine.folder.path().join("wide.gguf"), machine.models().join("wide.gguf")).unwrap();
    let local = machine.json(&["wide", "--memory", "2GiB", "--ctx", "4096", "--parallel", "1"], 0);
    for key in ["weights", "cache", "compute", "output", "layers"] {
        assert_eq!(local[key], remote[key], "{key}");
    }
    assert!(!machine.folder.path().join("hub").exists(), "nothing is written");
    // Of a long header range after range comes, no more than twice its length.
    machine.hub.forget_requests();
    machine.hub.add("Org/Long-GGUF", "Long.gguf", with_long_header(5 << 20, 40 << 20));
    machine.json(&["Org/Long-GGUF", "--memory", "2GiB"], 0);
    let sent = machine.hub.bytes_sent();
    assert!(sent > 5 << 20 && sent <= 10 << 20, "{sent} bytes came");
}

/// Returns a model with a header of about this length, and a file of this size.
fn with_long_header(header: usize, size: usize) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let mut file = [b"GGUF".as_slice(), &3_u32.to_le_bytes(), &0_u64.to_le_bytes(), &2_u64.to_le_bytes()].concat();
    file.extend([text("general.architecture"), 8_u32.to_le_bytes().to_vec(), text("llama")].concat());
    file.extend([text("a.long.text"), 8_u32.to_le_bytes().to_vec(), text(&"x".repeat(header))].concat());
    file.resize(size, 0);
    file
}

#[test]
fn names_and_values_that_mean_nothing_are_refused() {
    let machine = Machine::start();
    machine.hub.add("Org/Page", "Page.gguf", b"<html>".to_vec());
    for (arguments, status, words) in [
        (&["none"][..], 78, "there is no model"),
        (&["Org/None"], 78, "has no repository Org/None"),
        (&["Org/Page"], 78, "is no GGUF file"),
        (&["../x"], 78, "leads out of the models folder"),
        (&["none", "--memory", "much"], 78, "--memory: expected a size"),
        (&["none", "--ctx", "few"], 78, "CTX"),
        (&["none", "--extra-args", "-ctk q9"], 78, "-ctk q9"),
    ] {
        let refused = machine.run(arguments, status);
        assert!(refused.contains(words), "{arguments:?}: {refused}");
    }
    let offline = machine.command(&["Org/Page"]).env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert_eq!(offline.status.code(), Some(78), "{}", said(&offline));
    fs::write(machine.models().join("cut.gguf"), b"GGUF\x03\0\0\0").unwrap();
    assert!(machine.run(&["cut"], 1).contains("cut short"));
}
