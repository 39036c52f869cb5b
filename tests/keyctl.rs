//! Runs the program keyctl as a user does, and checks its output, its exit status and the key file.
#![expect(clippy::disallowed_methods, reason = "the program under test is a process")]
#![expect(clippy::unwrap_used, reason = "test helpers fail by panicking")]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread;

use tempfile::TempDir;

struct Keyctl {
    dir: TempDir,
}

struct CommandOutput {
    status: i32,
    out: String,
    err: String,
}

impl Keyctl {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn with(text: &str) -> Self {
        let keyctl = Self::new();
        fs::write(keyctl.file(), text).unwrap();
        keyctl
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("api_keys.txt")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    fn command(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyctl"));
        command.args(args.split_whitespace()).env("AUTH_KEYS_FILE", self.file());
        command
    }

    fn run(&self, args: &str) -> CommandOutput {
        self.command(args).stdin(Stdio::null()).output().unwrap().into()
    }

    /// Runs a command that must succeed, and returns its standard output without the newline.
    fn run_ok(&self, args: &str) -> String {
        let output = self.run(args);
        assert_eq!(output.status, 0, "{args}: {}", output.err);
        output.out.trim_end().to_owned()
    }

    fn verify(&self, secret: &str) -> CommandOutput {
        let mut child =
            self.command("verify").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(secret.as_bytes()).unwrap();
        child.wait_with_output().unwrap().into()
    }
}

impl From<Output> for CommandOutput {
    fn from(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

#[test]
fn a_change_keeps_the_secret_and_the_other_members() {
    let keyctl = Keyctl::with("# ours\na:0123456789abcdef:5 models=m\n");
    keyctl.run_ok("change --name a --set rate_limit=60 --set priority=low --unset models");
    assert_eq!(keyctl.text(), "# ours\na:0123456789abcdef:60 priority=low\n");
    for (arguments, words) in [
        ("change --name a --set rate_limt=5", "did you mean rate_limit?"),
        ("change --name a --set rate_limit", "has no value"),
        ("change --name a --set priority=urgent", "priority is not one of"),
        ("change --name b --unset models", "no key named 'b'"),
    ] {
        let output = keyctl.run(arguments);
        assert!(output.status == 1 && output.err.contains(words), "{arguments}: {}", output.err);
    }
    assert_eq!(keyctl.run("change --name a").status, 2);
}

#[test]
fn a_full_disk_left_an_empty_key_file_that_stops_the_next_start() {
    let keyctl = Keyctl::new();
    // As on a full disk: every write into a file fails.
    let program = env!("CARGO_BIN_EXE_keyctl");
    let script = format!("trap '' XFSZ; ulimit -f 0; exec {program} generate --name app");
    let full_disk = || Command::new("sh").args(["-c", &script]).env("AUTH_KEYS_FILE", keyctl.file()).output().unwrap();
    let output = full_disk();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read_dir(keyctl.dir.path()).unwrap().count(), 0, "no file is left");
    fs::write(keyctl.file(), "a:0123456789abcdef\n").unwrap();
    assert_eq!(full_disk().status.code(), Some(1));
    assert_eq!(keyctl.text(), "a:0123456789abcdef\n");
    // An empty file of the user's own stays.
    fs::write(keyctl.file(), "").unwrap();
    assert_eq!((full_disk().status.code(), keyctl.text().as_str()), (Some(1), ""));
}

#[test]
fn generate_prints_the_secret_once_and_stores_its_hash_in_a_private_file() {
    let keyctl = Keyctl::new();
    let output = keyctl.run("generate --name my-app");
    let secret = output.out.strip_suffix('\n').unwrap();
    assert!(secret.starts_with("sk-") && secret.len() == 46, "{secret}");
    assert!(output.err.contains("my-app") && output.err.contains("within 5 s"), "{}", output.err);
    assert!(!output.err.contains(secret) && !keyctl.text().contains(secret));
    assert!(keyctl.text().starts_with("my-app:sha256="), "{}", keyctl.text());
    assert_eq!(fs::metadata(keyctl.file()).unwrap().mode() & 0o777, 0o600);
    assert_eq!(keyctl.verify(secret).status, 0);
}

#[test]
fn every_option_of_generate_reaches_the_line() {
    let keyctl = Keyctl::new();
    let secret = keyctl.run_ok(
        "generate --plain --name a --rate-limit 60 --expires 2999-01-01 --scope inference,admin --models m,bge-m3 \
         --tokens-per-minute 5000 --max-concurrent 2",
    );
    let want = format!(
        "a:{secret}:60:2999-01-01T00:00:00Z scope=inference,admin models=m,bge-m3 tokens_per_minute=5000 max_concurrent=2\n"
    );
    assert_eq!(keyctl.text(), want);
}

#[test]
fn options_work_before_and_after_the_verb_and_file_wins_over_the_environment() {
    let keyctl = Keyctl::new();
    let other = keyctl.dir.path().join("other.txt");
    for (n, order) in ["--quiet --file F generate --name N", "generate --name N --file F -q"].iter().enumerate() {
        // The path is replaced last, because the random name of its folder may contain any letter.
        let args = order.replace("--name N", &format!("--name n{n}")).replace(" F", &format!(" {}", other.display()));
        let output = keyctl.run(&args);
        assert_eq!((output.status, output.err.as_str()), (0, ""), "{args}");
    }
    assert!(!keyctl.file().exists());
    assert_eq!(fs::read_to_string(other).unwrap().lines().count(), 2);
}

#[test]
fn refusals_exit_1_with_a_hint_and_wrong_usage_exits_2() {
    let keyctl = Keyctl::with("# kept\na:0123456789abcdef\n");
    for (args, hint) in [
        ("generate --name a", "rotate"),
        ("generate --name b --expires 2001-01-01", "--expires 30d"),
        ("remove --name unknown", "keyctl list"),
        ("rotate --name unknown", "keyctl list"),
        ("list --file nowhere.txt", "generate --name"),
    ] {
        let output = keyctl.run(args);
        let hint_line = output.err.lines().find(|line| line.starts_with("hint: ")).unwrap_or_default();
        assert_eq!((output.status, output.out.as_str()), (1, ""), "{args}");
        assert!(output.err.starts_with("error: ") && hint_line.contains(hint), "{args}: {}", output.err);
    }
    for args in [
        "",
        "conjure",
        "generate",
        "generate --name a:b",
        "generate --name b --rate-limit 0",
        "generate --name b --expires soon",
        "generate --name b --scope root",
        "generate --name b --scope=",
        "generate --name b --models=",
        "rotate --name a --overlap 24",
    ] {
        assert_eq!(keyctl.run(args).status, 2, "{args}");
    }
    assert_eq!(keyctl.text(), "# kept\na:0123456789abcdef\n");
}

#[test]
fn without_a_given_file_keyctl_explains_how_to_give_one() {
    let keyctl = Keyctl::new();
    let home = keyctl.dir.path();
    let output: CommandOutput = keyctl
        .command("list")
        .env_remove("AUTH_KEYS_FILE")
        .envs([("HOME", home), ("XDG_DATA_HOME", home), ("DATA_DIR", home)])
        .output()
        .unwrap()
        .into();
    assert_ne!(output.status, 0);
    assert!(output.err.contains("hint: "), "{}", output.err);
}

#[test]
fn keyctl_looked_into_another_file_than_the_gateway() {
    let keyctl = Keyctl::with("of-the-gateway:0123456789abcdef\n");
    let folder = tempfile::tempdir().unwrap();
    let env_file = folder.path().join(".env");
    fs::write(&env_file, format!("export AUTH_KEYS_FILE=\"{}\"\r\n", keyctl.file().display())).unwrap();
    let (data, env_file) = (folder.path().to_str().unwrap(), env_file.to_str().unwrap());
    let run = |args: &[&str], variables: &[(&str, &str)]| -> CommandOutput {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyctl"));
        command.args(args).env_clear().env("DATA_DIR", data).envs(variables.iter().copied());
        command.output().unwrap().into()
    };
    fs::write(folder.path().join("api_keys.txt"), "of-the-folder:0123456789abcdeg\n").unwrap();
    for (args, variables, expected) in [
        (&["list"][..], &[("ENV_FILE", env_file)][..], "of-the-gateway"),
        (&["--env-file", env_file, "list"], &[], "of-the-gateway"),
        (&["list", "--env-file", env_file], &[], "of-the-gateway"),
        (&["list"], &[], "of-the-folder"),
        (&["list"], &[("AUTH_KEYS_FILE", "")], "of-the-folder"),
        (&["list"], &[("AUTH_KEYS_FILE", "/nope"), ("ENV_FILE", env_file)], "/nope"),
    ] {
        let output = run(args, variables);
        let text = format!("{}{}", output.out, output.err);
        assert!(text.contains(expected), "{args:?} {variables:?}: {text}");
    }
    // The configuration file counts too.
    let config = format!("server: {{auth_keys_file: {:?}}}\n", keyctl.file().display().to_string());
    fs::write(folder.path().join("llamagate.yaml"), config).unwrap();
    assert!(run(&["list"], &[]).out.contains("of-the-gateway"));
    let output = run(&["list", "--env-file", "/nope/.env"], &[]);
    assert_eq!(output.status, 1, "{}", output.err);
    assert!(output.err.contains("ENV_FILE=\"/nope/.env\": cannot be read"), "{}", output.err);
    let output = run(&["list", "--env-file", "/nope/.env", "--file", &keyctl.file().display().to_string()], &[]);
    assert_eq!(output.status, 0, "{}", output.err);
}

#[test]
fn list_shows_every_key_and_no_secret_and_warns_of_bad_lines_without_quoting() {
    let keyctl = Keyctl::with("a:0123456789abcdef:60:2001-01-01\nb:short-secret\nc:0123456789abcdefc\n");
    let output = keyctl.run("list");
    let lines: Vec<_> = output.out.lines().collect();
    assert_eq!(lines.len(), 3, "{}", output.out);
    assert!(lines[1].contains("60/min") && lines[1].ends_with("expired"));
    assert!(output.err.contains("line 2 is skipped") && output.err.contains("2 keys configured"), "{}", output.err);
    assert!(!format!("{}{}", output.out, output.err).contains("short-secret"));
    let json: serde_json::Value = serde_json::from_str(&keyctl.run_ok("list --json")).unwrap();
    assert_eq!(json[1]["key_id"], "c");
    assert!(!json.to_string().contains("0123456789"));
}

#[test]
fn rotate_ends_the_old_secret_at_once_or_after_the_overlap() {
    let keyctl = Keyctl::new();
    let first = keyctl.run_ok("generate --name a --rate-limit 7");
    let second = keyctl.run_ok("rotate --name a");
    assert_eq!(keyctl.verify(&first).status, 1);
    let third = keyctl.run_ok("rotate --name a --overlap 24h");
    for secret in [&second, &third] {
        let output = keyctl.verify(secret);
        assert_eq!(output.status, 0, "{}", output.out);
        assert!(output.out.contains("'a'"));
    }
    assert_eq!(keyctl.text().matches(":7").count(), 2, "{}", keyctl.text());
    keyctl.run_ok("remove --name a");
    assert_eq!(keyctl.text(), "");
}

#[test]
fn verify_says_why_a_secret_is_not_valid() {
    let keyctl = Keyctl::with("a:0123456789abcdef::2001-01-01\n");
    for (secret, why) in [
        ("0123456789abcdef\n", "expired: key 'a'"),
        ("0123456789abcdeg", "unknown"),
        ("", "malformed"),
        (&"x".repeat(1000), "malformed"),
    ] {
        let output = keyctl.verify(secret);
        assert_eq!(output.status, 1);
        assert!(output.out.starts_with(why), "{}", output.out);
    }
}

#[test]
fn prune_drops_only_expired_lines() {
    let keyctl = Keyctl::with("# one\na:0123456789abcdef::2001-01-01\nbad\nb:0123456789abcdefb\n");
    let output = keyctl.run("prune");
    assert!(output.err.contains("dropped 1 expired line: a"), "{}", output.err);
    assert_eq!(keyctl.text(), "# one\nbad\nb:0123456789abcdefb\n");
    assert!(keyctl.run("prune").err.contains("no key has expired"));
}

#[test]
fn removing_the_last_key_warns_that_a_running_gateway_keeps_it() {
    let keyctl = Keyctl::with("a:0123456789abcdef\n");
    let output = keyctl.run("remove --name a --quiet");
    assert_eq!(output.status, 0);
    assert!(output.err.starts_with("warning: ") && output.err.contains("keeps the keys it has"), "{}", output.err);
}

#[test]
fn concurrent_runs_lose_no_key() {
    let keyctl = Keyctl::with("# first line\n");
    thread::scope(|scope| {
        for n in 0..16 {
            let keyctl = &keyctl;
            scope.spawn(move || {
                keyctl.run_ok(&format!("generate --quiet --name n{n}"));
                if n % 2 == 0 {
                    keyctl.run_ok(&format!("rotate --quiet --name n{n}"));
                }
            });
        }
    });
    let text = keyctl.text();
    assert_eq!(text.lines().count(), 17, "{text}");
    assert_eq!(keyctl.run_ok("list --quiet").lines().count(), 17);
    assert_eq!(fs::read_dir(keyctl.dir.path()).unwrap().count(), 1, "no other file is left in the folder");
}

/// A mounted file cannot be replaced by rename. The test needs the right to mount; without it, it prints so and passes.
#[test]
fn a_bind_mounted_file_is_written_in_place_by_concurrent_runs_too() {
    let keyctl = Keyctl::with("");
    let source = keyctl.dir.path().join("on-the-host.txt");
    fs::write(&source, "# mounted\n").unwrap();
    let mount = |program: &str, args: &[&std::ffi::OsStr]| {
        Command::new(program).args(args).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    if !mount("mount", &["--bind".as_ref(), source.as_ref(), keyctl.file().as_ref()]) {
        eprintln!("skipped: this user cannot mount");
        return;
    }
    thread::scope(|scope| {
        for n in 0..8 {
            let keyctl = &keyctl;
            scope.spawn(move || keyctl.run_ok(&format!("generate --quiet --name n{n}")));
        }
    });
    assert!(mount("umount", &[keyctl.file().as_ref()]));
    let text = fs::read_to_string(&source).unwrap();
    assert!(text.starts_with("# mounted\nn") && text.lines().count() == 9, "{text}");
    assert_eq!(fs::metadata(&source).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn an_existing_file_becomes_private() {
    let keyctl = Keyctl::with("a:0123456789abcdef\n");
    fs::set_permissions(keyctl.file(), fs::Permissions::from_mode(0o644)).unwrap();
    keyctl.run_ok("generate --name b");
    assert_eq!(fs::metadata(keyctl.file()).unwrap().mode() & 0o777, 0o600);
}
