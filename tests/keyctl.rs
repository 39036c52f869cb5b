//! keyctl as a user runs it: the real program, its output streams, its exit status and the file it leaves.
#![expect(clippy::disallowed_methods, reason = "the program under test is a process")]
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it by panicking, too")]

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

struct Ran {
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

    fn run(&self, args: &str) -> Ran {
        self.command(args).stdin(Stdio::null()).output().unwrap().into()
    }

    /// Runs what must succeed, and returns its standard output without the newline.
    fn ok(&self, args: &str) -> String {
        let ran = self.run(args);
        assert_eq!(ran.status, 0, "{args}: {}", ran.err);
        ran.out.trim_end().to_owned()
    }

    fn verify(&self, secret: &str) -> Ran {
        let mut child =
            self.command("verify").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(secret.as_bytes()).unwrap();
        child.wait_with_output().unwrap().into()
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

#[test]
fn generate_prints_the_secret_once_and_stores_its_hash_in_a_private_file() {
    let keyctl = Keyctl::new();
    let ran = keyctl.run("generate --name my-app");
    let secret = ran.out.strip_suffix('\n').unwrap();
    assert!(secret.starts_with("sk-") && secret.len() == 46, "{secret}");
    assert!(ran.err.contains("my-app") && ran.err.contains("within 5 s"), "{}", ran.err);
    assert!(!ran.err.contains(secret) && !keyctl.text().contains(secret));
    assert!(keyctl.text().starts_with("my-app:sha256="), "{}", keyctl.text());
    assert_eq!(fs::metadata(keyctl.file()).unwrap().mode() & 0o777, 0o600);
    assert_eq!(keyctl.verify(secret).status, 0);
}

#[test]
fn every_option_of_generate_reaches_the_line() {
    let keyctl = Keyctl::new();
    let secret = keyctl.ok(
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
        // The path last: the random name of its folder may hold any letter.
        let args = order.replace("--name N", &format!("--name n{n}")).replace(" F", &format!(" {}", other.display()));
        let ran = keyctl.run(&args);
        assert_eq!((ran.status, ran.err.as_str()), (0, ""), "{args}");
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
        ("remove --name nobody", "keyctl list"),
        ("rotate --name nobody", "keyctl list"),
        ("list --file nowhere.txt", "generate --name"),
    ] {
        let ran = keyctl.run(args);
        let hint_line = ran.err.lines().find(|line| line.starts_with("hint: ")).unwrap_or_default();
        assert_eq!((ran.status, ran.out.as_str()), (1, ""), "{args}");
        assert!(ran.err.starts_with("error: ") && hint_line.contains(hint), "{args}: {}", ran.err);
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
fn without_any_file_named_keyctl_says_how_to_name_one_or_finds_its_own() {
    let keyctl = Keyctl::new();
    let home = keyctl.dir.path();
    let ran: Ran = keyctl
        .command("list")
        .env_remove("AUTH_KEYS_FILE")
        .envs([("HOME", home), ("XDG_DATA_HOME", home), ("DATA_DIR", home)])
        .output()
        .unwrap()
        .into();
    assert_ne!(ran.status, 0);
    assert!(ran.err.contains("hint: "), "{}", ran.err);
}

#[test]
fn list_shows_every_key_and_no_secret_and_warns_of_bad_lines_without_quoting() {
    let keyctl = Keyctl::with("a:0123456789abcdef:60:2001-01-01\nb:short-secret\nc:0123456789abcdefc\n");
    let ran = keyctl.run("list");
    let lines: Vec<_> = ran.out.lines().collect();
    assert_eq!(lines.len(), 3, "{}", ran.out);
    assert!(lines[1].contains("60/min") && lines[1].ends_with("expired"));
    assert!(ran.err.contains("line 2 is skipped") && ran.err.contains("2 keys configured"), "{}", ran.err);
    assert!(!format!("{}{}", ran.out, ran.err).contains("short-secret"));
    let json: serde_json::Value = serde_json::from_str(&keyctl.ok("list --json")).unwrap();
    assert_eq!(json[1]["key_id"], "c");
    assert!(!json.to_string().contains("0123456789"));
}

#[test]
fn rotate_ends_the_old_secret_at_once_or_after_the_overlap() {
    let keyctl = Keyctl::new();
    let first = keyctl.ok("generate --name a --rate-limit 7");
    let second = keyctl.ok("rotate --name a");
    assert_eq!(keyctl.verify(&first).status, 1);
    let third = keyctl.ok("rotate --name a --overlap 24h");
    for secret in [&second, &third] {
        let ran = keyctl.verify(secret);
        assert_eq!(ran.status, 0, "{}", ran.out);
        assert!(ran.out.contains("'a'"));
    }
    assert_eq!(keyctl.text().matches(":7").count(), 2, "{}", keyctl.text());
    keyctl.ok("remove --name a");
    assert_eq!(keyctl.text(), "");
}

#[test]
fn verify_tells_why_a_secret_is_not_valid() {
    let keyctl = Keyctl::with("a:0123456789abcdef::2001-01-01\n");
    for (secret, why) in [
        ("0123456789abcdef\n", "expired: key 'a'"),
        ("0123456789abcdeg", "unknown"),
        ("", "malformed"),
        (&"x".repeat(1000), "malformed"),
    ] {
        let ran = keyctl.verify(secret);
        assert_eq!(ran.status, 1);
        assert!(ran.out.starts_with(why), "{}", ran.out);
    }
}

#[test]
fn prune_drops_expired_lines_alone() {
    let keyctl = Keyctl::with("# one\na:0123456789abcdef::2001-01-01\nbad\nb:0123456789abcdefb\n");
    let ran = keyctl.run("prune");
    assert!(ran.err.contains("dropped 1 expired line: a"), "{}", ran.err);
    assert_eq!(keyctl.text(), "# one\nbad\nb:0123456789abcdefb\n");
    assert!(keyctl.run("prune").err.contains("no key has expired"));
}

#[test]
fn taking_the_last_key_away_warns_that_a_running_gateway_keeps_it() {
    let keyctl = Keyctl::with("a:0123456789abcdef\n");
    let ran = keyctl.run("remove --name a --quiet");
    assert_eq!(ran.status, 0);
    assert!(ran.err.starts_with("warning: ") && ran.err.contains("keeps the keys it has"), "{}", ran.err);
}

#[test]
fn concurrent_runs_lose_nothing() {
    let keyctl = Keyctl::with("# first line\n");
    thread::scope(|scope| {
        for n in 0..16 {
            let keyctl = &keyctl;
            scope.spawn(move || {
                keyctl.ok(&format!("generate --quiet --name n{n}"));
                if n % 2 == 0 {
                    keyctl.ok(&format!("rotate --quiet --name n{n}"));
                }
            });
        }
    });
    let text = keyctl.text();
    assert_eq!(text.lines().count(), 17, "{text}");
    assert_eq!(keyctl.ok("list --quiet").lines().count(), 17);
    assert_eq!(fs::read_dir(keyctl.dir.path()).unwrap().count(), 1, "nothing is left beside the file");
}

/// A file mounted onto another cannot be renamed over. Needs the right to mount; says so and passes without it.
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
            scope.spawn(move || keyctl.ok(&format!("generate --quiet --name n{n}")));
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
    keyctl.ok("generate --name b");
    assert_eq!(fs::metadata(keyctl.file()).unwrap().mode() & 0o777, 0o600);
}
