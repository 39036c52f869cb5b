//! `scripts/collect-diagnostics.sh`: what it packs about a service that runs or has ended, and that it packs no secret.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use super::support::{
    fake_server,
    gateway::{ADMIN, EXPIRED, Gateway, LIMITED, USER},
    remote::{Remote, Reply},
    resources,
};

const WRONG: &str = "sk-wrong0123456789wrong0123456789wrong01234";
/// Keys of remote backends, from the environment and from the configuration file. Their form does not show that they
/// are secrets.
const REMOTE_KEY: &str = "remote-1-opens-sesame";
const OTHER_REMOTE_KEY: &str = "remote-2-opens-sesame";
/// Variables of the service that hold secrets, with their values.
const VARIABLES: [(&str, &str); 9] = [
    ("HF_TOKEN", "hf_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefgh"),
    ("RUNPOD_API_KEY", "rpa_ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789abcdef"),
    ("RUNPOD_AI_API_KEY", "ABCDEFGHIJKLMNOPQRSTUVWXYZ-queue"),
    ("REMOTE_KEY", REMOTE_KEY),
    ("DATABASE_PASSWORD", "correct horse battery staple"),
    ("WEBHOOK_SECRET", "correct horse"),
    ("MASTER_TOKEN", "first line of it\nsecond line of it"),
    ("CLOUD_CREDENTIAL", "open sesame of one cloud"),
    ("CLOUD_CREDENTIALS", "open sesame of all clouds"),
];
/// Lines of a log, with the secrets in them, which can be recognized only by their form or by the words around them.
const RECOGNIZABLE: [(&str, &[&str]); 15] = [
    ("GET /?token=abcdefghijkl&n=1", &["abcdefghijkl"]),
    ("{\"token\": \"12345678:AAHdqTcvCH1v\"}", &["AAHdqTcvCH1v"]),
    ("the password is opensesame1", &["opensesame1"]),
    ("Cookie: id=opensesame2; theme=opensesame3", &["opensesame2", "opensesame3"]),
    ("{\"set-cookie\": \"id=opensesame4; Path=/; opensesame5\"}", &["opensesame4", "opensesame5"]),
    ("it was AKIAIOSFODNN7EXAMPLE again", &["IOSFODNN7"]),
    ("aws_secret_access_key = wJalrXUtnFEMI", &["wJalrXUtnFEMI"]),
    ("API key: opensesame6", &["opensesame6"]),
    ("my-credentials=opensesame7", &["opensesame7"]),
    ("--cloud-credential opensesame8", &["opensesame8"]),
    ("Credentials: opensesame9", &["opensesame9"]),
    ("-----BEGIN RSA PRIVATE KEY-----", &[]),
    ("MIIEowIBAAKCAQEA1\nMIIEowIBAAKCAQEA2", &["MIIEowIBAAKCAQEA1", "MIIEowIBAAKCAQEA2"]),
    ("-----END RSA PRIVATE KEY----- and on", &[]),
    ("x -----BEGIN PRIVATE KEY-----\\nMIIEowIBAAKCAQEA3\\n-----END PRIVATE KEY----- y", &["MIIEowIBAAKCAQEA3"]),
];
/// Lines of llama-server that look similar but contain no secret.
const HARMLESS: &str = "slot update_slots: id  0 | n_tokens = 512, token: 12\n\
    print_info: EOS token             = 151645 '<|im_end|>'\n\
    print_info: EOG token = <|endoftext|>, max token length = 256\n\
    next token:   198: 'abcdefgh', time per token = 0.0345678 ms, first token: 123.456789ms\n\
    llama_model_loader: - tensor token_embd.weight, tokenizer.ggml.add_bos_token bool = false\n\
    control-looking token: 128247 '</s>' was not control-type; password is\n";

/// Creates a folder with llamagate and the programs of a minimal container, and returns its path.
fn link_programs(folder: &Path) -> PathBuf {
    let bin = folder.join("bin");
    fs::create_dir(&bin).unwrap();
    let path = std::env::var_os("PATH").unwrap();
    let coreutils = "cat date df dirname env head mkdir mktemp nproc rm sleep tail timeout uname wc";
    for name in ["bash", "tar", "gzip"].into_iter().chain(coreutils.split(' ')) {
        let program = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file());
        symlink(program.unwrap_or_else(|| panic!("there is no {name}")), bin.join(name)).unwrap();
    }
    symlink(env!("CARGO_BIN_EXE_llamagate"), bin.join("llamagate")).unwrap();
    bin
}

/// Runs the script with these variables and no others, and returns the packed files by name.
fn collect(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> BTreeMap<String, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/collect-diagnostics.sh");
    let run = Command::new(folder.join("bin/bash"))
        .arg(script)
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .env("PATH", folder.join("bin"))
        .env("TMPDIR", folder)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(run.status.success(), "{run:?}");
    let archive = PathBuf::from(String::from_utf8(run.stdout).unwrap().trim());
    assert_eq!(fs::metadata(&archive).unwrap().permissions().mode() & 0o777, 0o600);
    let unpacked = tempfile::tempdir_in(folder).unwrap();
    let tar = Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(unpacked.path()).status().unwrap();
    assert!(tar.success());
    fs::remove_file(archive).unwrap();
    let mut packed = BTreeMap::new();
    read(&unpacked.path().join("llamagate-diagnostics"), "", &mut packed);
    packed
}

/// Reads the files below `folder` into `into`.
fn read(folder: &Path, prefix: &str, into: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            read(&entry.path(), &format!("{name}/"), into);
        } else {
            into.insert(name, String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned());
        }
    }
}

#[track_caller]
fn assert_has(packed: &BTreeMap<String, String>, name: &str, words: &[&str]) {
    let text = packed.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", packed.keys()));
    for word in words {
        assert!(text.contains(word), "{word} is not in {name}: {text}");
    }
}

#[track_caller]
fn assert_no_secret(packed: &BTreeMap<String, String>, more: &[&str]) {
    let lines = VARIABLES.iter().flat_map(|(_, value)| value.lines());
    let in_lines = RECOGNIZABLE.iter().flat_map(|(_, secrets)| secrets.iter().copied());
    let keys = [USER, ADMIN, LIMITED, EXPIRED, WRONG, OTHER_REMOTE_KEY];
    let secrets = lines.chain(in_lines).chain(keys).chain(more.iter().copied());
    for secret in secrets {
        for (name, text) in packed {
            assert!(!text.contains(secret) && !name.contains(secret), "{secret} is in {name}: {text}");
        }
    }
}

/// Writes a log that the service itself would not write: with secrets in it, a secret in a file name, and longer than
/// what the script packs.
fn write_careless_log(folder: &Path) {
    let mut text: String = (0..600).map(|line| format!("line {line} of many: n_tokens = 5, token: 12\n")).collect();
    for (name, value) in VARIABLES {
        text += &format!("{name}={value}\n{value} and {value} again\n");
    }
    text += &format!("GET / Authorization: Bearer {USER}\n{{\"api_key\": \"{ADMIN}\"}}\n--api-key {LIMITED} {WRONG}\n");
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("20990101_000000_careless.log"), &text).unwrap();
    fs::write(folder.join(format!("20990102_000000_{}.log", VARIABLES[0].1)), "its name is a secret\n").unwrap();
}

#[test]
fn the_archive_describes_the_service_and_contains_no_secret() {
    let remote = Remote::start(Reply::Serve);
    let api_base = remote.url();
    let config = format!(
        "models: {{local: {{file: local.gguf, preload: true}}}}\n\
         model_list:\n\
         \x20 - {{model_name: far, litellm_params: {{api_base: \"{api_base}\", api_key: os.environ/REMOTE_KEY}}}}\n\
         \x20 - {{model_name: farther, litellm_params: {{api_base: \"{api_base}\", api_key: {OTHER_REMOTE_KEY}}}}}\n"
    );
    let mut gateway = Gateway::builder()
        .fakes(&config, &[("local.gguf", json!({}))])
        .set_all(&VARIABLES)
        .set("EXTRA_ARGS", "--jinja")
        .set("LOG_LEVEL", "debug")
        .start_ready();
    let body = |model: &str| json!({"model": model, "messages": [{"role": "user", "content": "my-private-prompt"}]});
    for secret in [USER, ADMIN, LIMITED, EXPIRED, WRONG] {
        for model in ["local", "far", "farther"] {
            gateway.client_with(secret).post_json(&format!("/v1/chat/completions?key={secret}"), &body(model));
        }
    }
    let worker = gateway.child_pids().into_iter().next().expect("llama-server runs");
    let argv = resources::cmdline(worker);
    let key_file =
        argv.iter().skip_while(|word| *word != "--api-key-file").nth(1).expect("the key is passed in a file");
    let backend_key = fs::read_to_string(key_file).unwrap();
    let backend_key = backend_key.trim();

    let logs = gateway.data_dir().join("logs");
    write_careless_log(&logs.join("llama/local"));
    fs::create_dir(logs.join("elsewhere")).unwrap();
    symlink(gateway.keys_file(), logs.join("elsewhere/20990101_000000_keys.log")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    link_programs(folder.path());
    let (data_dir, keys_file) = (gateway.data_dir().to_str().unwrap().to_owned(), gateway.keys_file());
    let port = gateway.health_url().rsplit(':').next().unwrap().to_owned();
    let base = [
        ("DATA_DIR", data_dir.as_str()),
        ("AUTH_KEYS_FILE", keys_file.to_str().unwrap()),
        ("LLAMA_SERVER", fake_server::program()),
    ];
    let all: Vec<(&str, &str)> = base.into_iter().chain(VARIABLES).chain([("PORT_HEALTH", &*port)]).collect();

    let packed = collect(folder.path(), &[], &all);
    assert_no_secret(&packed, &[backend_key, "my-private-prompt"]);
    assert_has(&packed, "versions.txt", &[concat!("llamagate ", env!("CARGO_PKG_VERSION")), "Linux"]);
    assert_has(&packed, "settings.txt", &["MAX_QUEUE_SIZE", "environment variable DATA_DIR", "local.gguf"]);
    assert_has(&packed, "health.txt", &["200 OK", "\"status\":\"ok\"", "\"state\":\"ready\""]);
    assert_has(&packed, "metrics.txt", &["gateway_requests_total", "llamagate_build_info"]);
    let gateway_line = format!("gateway: pid {}", gateway.pid());
    let worker_line = format!("child: pid {worker}, parent {}", gateway.pid());
    assert_has(&packed, "processes.txt", &[&gateway_line, &worker_line, "--api-key-file", "Max open files"]);
    assert_has(&packed, "limits.txt", &["open files"]);
    assert_has(&packed, "memory-and-disk.txt", &["MemTotal", &data_dir]);
    assert_has(&packed, "gpu.txt", &["nvidia-smi"]);
    let careless = "logs/llama/local/20990101_000000_careless.log";
    assert_has(
        &packed,
        careless,
        &["line 599 of many: n_tokens = 5, token: 12", "HF_TOKEN=***", "Authorization: ***", "\"api_key\": \"***\""],
    );
    assert!(!packed[careless].contains("line 99 of many"), "only the end of the log is packed");
    assert_has(&packed, "logs/llama/local/20990102_000000____.log", &["its name is a secret"]);
    assert!(packed.iter().any(|(name, text)| name.starts_with("logs/_boot/") && text.contains("llamagate starts")));
    assert!(
        packed.iter().any(|(name, text)| name.starts_with("logs/access/") && text.contains("/v1/chat/completions"))
    );
    assert!(!packed.keys().any(|name| name.starts_with("logs/elsewhere/")), "links are not followed");
    for name in packed.keys() {
        assert_has(&packed, "contents.txt", &[name]);
    }

    // Without the variables of the service, secrets are recognized only by their form or by the words around them.
    fs::remove_dir_all(logs.join("llama/local")).unwrap();
    let known = [VARIABLES[0].1, VARIABLES[1].1, WRONG, backend_key].join(" twice ");
    let mut lines = format!("api_key: {ADMIN}\nauthorization=Basic {USER}\nhttp://me:{LIMITED}@host/path\n");
    lines.extend(RECOGNIZABLE.map(|(line, _)| format!("{line}\n")));
    fs::write(logs.join("llama/20990101_000000_careless.log"), format!("{known} {known}\n{lines}{HARMLESS}")).unwrap();
    let rest_of_a_key = "MIIEowIBAAKCAQEA4\n-----END PRIVATE KEY-----\n";
    fs::create_dir(logs.join("cut")).unwrap();
    fs::write(logs.join("cut/20990101_000000_cut.log"), rest_of_a_key).unwrap();
    let bad = [&base[..], &[("CTX", "lots")]].concat();
    let packed = collect(folder.path(), &["--port-health", &port], &bad);
    assert_no_secret(&packed, &[backend_key, "my-private-prompt", "MIIEowIBAAKCAQEA4"]);
    assert_has(
        &packed,
        "contents.txt",
        &["left out, because a secret was still in it: logs/cut/20990101_000000_cut.log"],
    );
    assert_has(&packed, "health.txt", &["200 OK"]);
    let kept = ["*** twice ***", "http://***host/path", "RSA PRIVATE KEY-----***\n and on", "-----*** y", HARMLESS];
    assert_has(&packed, "logs/llama/20990101_000000_careless.log", &kept);
    assert_has(&packed, "settings.txt", &["CTX=\"lots\"", "exit status 78"]);
    assert!(
        packed.keys().any(|name| name.starts_with("logs/access/")),
        "the logs are found despite the bad configuration"
    );

    gateway.stop();
    fs::remove_dir_all(&logs).unwrap();
    let output = folder.path().join("named.tar.gz");
    let packed = collect(folder.path(), &["--output", output.to_str().unwrap()], &all);
    assert_no_secret(&packed, &[backend_key, "my-private-prompt"]);
    assert_has(&packed, "health.txt", &["no answer"]);
    assert_has(&packed, "settings.txt", &["exit status 0"]);
    assert_has(&packed, "contents.txt", &["no logs were found below"]);
}
