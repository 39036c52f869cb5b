//! Answers that outlive the service: found again after a restart and after a kill, never given for another model, and a
//! file that cannot be used stops nothing.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use rusqlite::Connection;
use serde_json::{Value, json};

use super::cache::{CHAT, EMBEDDINGS, MARK, ask, metric};
use super::configuration::llamagate;
use super::leftovers::namespaces;
use super::support::{
    gateway::{Backend, Builder, Gateway},
    model_file::Kind,
    scripted::ScriptedModel,
    wait::{SOON, eventually},
};

/// A data folder that outlives the gateways of a test, with a model of the fake.
struct DataFolder {
    folder: tempfile::TempDir,
    model: ScriptedModel,
}

impl DataFolder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = ScriptedModel::create(folder.path(), "dummy.gguf", Kind::Chat, &json!({}));
        Self { folder, model }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("cache.db")
    }

    fn builder(&self) -> Builder {
        keeping(self.folder.path()).set("MODEL_PATH", self.model.path.display())
    }

    fn start(&self) -> Gateway {
        self.builder().start_ready()
    }

    fn requests(&self) -> usize {
        self.model.journal().requests(CHAT).len()
    }
}

fn keeping(data_dir: &Path) -> Builder {
    Gateway::builder().set("DATA_DIR", data_dir.display()).set_all(&[
        ("CACHE", "safe"),
        ("CACHE_PERSIST_TO_DISK", "true"),
        ("MAX_REQUESTS_PER_MINUTE", "100000"),
    ])
}

fn numbered(number: usize) -> Value {
    json!({"messages": [{"role": "user", "content": "x"}], "temperature": 0, "seed": number})
}

fn assert_sound(path: &Path) {
    let connection = Connection::open(path).unwrap();
    let verdict: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
}

#[track_caller]
fn wait_for_entries(gateway: &Gateway, entries: u64) {
    eventually("the answers are found again", SOON, || metric(gateway, "llamagate_cache_entries") == entries);
}

#[test]
fn a_restart_finds_answers_again_with_their_age() {
    let data = DataFolder::new();
    let mut gateway = data.start();
    let mut stream = numbered(2);
    stream["stream"] = json!(true);
    let first = ask(&gateway.client(), CHAT, &numbered(1), "miss").text();
    let events = gateway.client().stream(CHAT, &stream).events();
    gateway.stop();
    assert_eq!(fs::metadata(data.file()).unwrap().permissions().mode() & 0o777, 0o600);
    let connection = Connection::open(data.file()).unwrap();
    connection.execute("UPDATE answers SET kept = kept - 60000000", []).unwrap();
    drop(connection);
    let gateway = data.start();
    wait_for_entries(&gateway, 2);
    let again = ask(&gateway.client(), CHAT, &numbered(1), "hit");
    assert_eq!(again.text(), first);
    assert!((60..120).contains(&again.header("age").unwrap().parse::<u64>().unwrap()));
    let mut found = gateway.client().stream(CHAT, &stream);
    assert_eq!(found.head.header(MARK), Some("hit"));
    let data_of = |events: Vec<super::support::client::Event>| events.into_iter().map(|event| event.data);
    assert!(data_of(found.events()).eq(data_of(events)));
    assert_eq!(data.requests(), 2);
}

#[test]
fn answers_of_the_real_llama_server_are_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let start = || keeping(folder.path()).backend(Backend::Real { model: "tiny-embedding.gguf" }).start_ready();
    let body = json!({"input": ["a small bird", "rain"]});
    let mut gateway = start();
    let first = ask(&gateway.client(), EMBEDDINGS, &body, "miss").text();
    gateway.stop();
    let gateway = start();
    wait_for_entries(&gateway, 1);
    assert_eq!(ask(&gateway.client(), EMBEDDINGS, &body, "hit").text(), first);
}

#[test]
fn another_file_or_other_settings_get_no_answer_of_before() {
    let data = DataFolder::new();
    data.start().stop();
    let kept = |gateway: &mut Gateway, mark: &str| {
        ask(&gateway.client(), CHAT, &numbered(1), mark);
        gateway.stop();
    };
    kept(&mut data.start(), "miss");
    // Another file of the same size and the same time in its place.
    let path = &data.model.path;
    let time = fs::metadata(path).unwrap().modified().unwrap();
    let copy = path.with_extension("new");
    fs::copy(path, &copy).unwrap();
    fs::File::options().write(true).open(&copy).unwrap().set_modified(time).unwrap();
    fs::rename(&copy, path).unwrap();
    kept(&mut data.start(), "miss");
    let with = |name: &str, value: &str| data.builder().set(name, value).start_ready();
    kept(&mut with("CTX", "4096"), "miss");
    kept(&mut with("TOP_K", "5"), "miss");
    kept(&mut with("STRICT_PARAMETERS", "false"), "miss");
    // What answers do not depend on.
    let mut gateway = with("LOG_LEVEL", "debug");
    wait_for_entries(&gateway, 5);
    kept(&mut gateway, "hit");
}

#[test]
fn a_file_that_is_replaced_before_the_first_start_of_its_llama_server_is_noticed() {
    let data = DataFolder::new();
    let config = "models: {m: {file: dummy.gguf, preload: false}}\n";
    let settings = |builder: Builder| builder.set("MODELS_DIR", data.folder.path().display());
    let start =
        || settings(keeping(data.folder.path()).fakes(config, &[])).set("CONFIG_FILE", "llamagate.yaml").start();
    let mut gateway = start();
    ask(&gateway.client(), CHAT, &numbered(1), "miss");
    gateway.stop();
    let gateway = start();
    wait_for_entries(&gateway, 1);
    ask(&gateway.client(), CHAT, &numbered(1), "hit");
    assert_eq!(data.requests(), 1);
    let later = fs::metadata(&data.model.path).unwrap().modified().unwrap() + std::time::Duration::from_secs(60);
    fs::File::options().write(true).open(&data.model.path).unwrap().set_modified(later).unwrap();
    ask(&gateway.client(), CHAT, &numbered(2), "miss");
    ask(&gateway.client(), CHAT, &numbered(1), "miss");
    ask(&gateway.client(), CHAT, &numbered(1), "hit");
}

/// The file is that of all rounds. `LLAMAGATE_TEST_KILLS` makes it a long run.
#[test]
fn a_kill_leaves_a_sound_file_with_what_was_written() {
    let rounds: usize = std::env::var("LLAMAGATE_TEST_KILLS").map_or(3, |rounds| rounds.parse().unwrap());
    let data = DataFolder::new();
    let mut number = 0;
    for round in 0..rounds {
        let mut gateway = data.start();
        let before = metric_of_disk(&gateway, 0);
        for _ in 0..4 + round % 5 {
            number += 1;
            ask(&gateway.client(), CHAT, &numbered(number), "miss");
        }
        let at_least = metric_of_disk(&gateway, before + 4);
        for _ in 0..round % 3 {
            number += 1;
            ask(&gateway.client(), CHAT, &numbered(number), "miss");
        }
        gateway.signal(Signal::SIGKILL);
        gateway.wait_exit();
        assert_sound(&data.file());
        let connection = Connection::open(data.file()).unwrap();
        let rows: u32 = connection.query_row("SELECT count(*) FROM answers", [], |row| row.get(0)).unwrap();
        let rows = u64::from(rows);
        assert!((at_least..=number as u64).contains(&rows), "{at_least} <= {rows} <= {number} in round {round}");
    }
    let gateway = data.start();
    eventually("the answers are found again", SOON, || metric(&gateway, "llamagate_cache_entries") > 0);
    eventually("the first one too", SOON, || {
        gateway.client().post_json(CHAT, &numbered(1)).header(MARK) == Some("hit")
    });
}

/// Returns how many answers the file has, once these are that many.
#[track_caller]
fn metric_of_disk(gateway: &Gateway, at_least: u64) -> u64 {
    let mut found = 0;
    eventually("answers are on the disk", SOON, || {
        found = metric(gateway, "llamagate_cache_disk_entries");
        found >= at_least
    });
    found
}

/// Asks, and returns the warning that `/health` shows.
#[track_caller]
fn served_with_warning(gateway: &Gateway) -> String {
    ask(&gateway.client(), CHAT, &numbered(1), "miss");
    ask(&gateway.client(), CHAT, &numbered(1), "hit");
    let mut shown = String::new();
    eventually("a warning about the cache", SOON * 2, || {
        let health = gateway.anonymous().get("/health").json();
        let warnings = health["warnings"].as_array().cloned().unwrap_or_default();
        let mut texts = warnings.iter().filter_map(Value::as_str);
        shown = texts.find(|text| text.contains("answers are not kept on disk")).unwrap_or_default().to_owned();
        !shown.is_empty()
    });
    ask(&gateway.client(), CHAT, &numbered(1), "hit");
    assert!(metric(gateway, "llamagate_cache_disk_failures_total") > 0);
    // The log has a writer of its own.
    let reports = || gateway.output().matches("answers are not kept on disk").count();
    eventually("the log has it too", SOON, || reports() > 0);
    assert_eq!(reports(), 1, "one report a minute");
    shown
}

#[test]
fn a_broken_a_foreign_and_a_newer_file_stop_nothing_and_are_left_as_they_are() {
    for (words, make) in [
        ("not a database", (|path| fs::write(path, "no database, long as it is\n".repeat(200)).unwrap()) as fn(&Path)),
        ("version 99", |path| {
            let sql = "CREATE TABLE x (a); PRAGMA application_id = 1818714977; PRAGMA user_version = 99";
            Connection::open(path).unwrap().execute_batch(sql).unwrap();
        }),
        ("another program", |path| Connection::open(path).unwrap().execute_batch("CREATE TABLE mine (a)").unwrap()),
    ] {
        let data = DataFolder::new();
        make(&data.file());
        let before = fs::read(data.file()).unwrap();
        let mut gateway = data.start();
        let warning = served_with_warning(&gateway);
        assert!(warning.contains(words), "{warning}");
        gateway.stop();
        assert_eq!(fs::read(data.file()).unwrap(), before, "{words}");
    }
}

#[test]
fn of_two_gateways_with_one_folder_the_second_goes_on_in_memory_until_the_first_has_ended() {
    let data = DataFolder::new();
    let mut first = data.start();
    ask(&first.client(), CHAT, &numbered(7), "miss");
    metric_of_disk(&first, 1);
    let second = data.start();
    let warning = served_with_warning(&second);
    assert!(warning.contains("another process uses the file"), "{warning}");
    first.stop();
    assert_eq!(metric_of_disk(&second, 2), 2);
    eventually("the warning goes", SOON, || second.anonymous().get("/health").json()["warnings"] == json!([]));
    ask(&second.client(), CHAT, &numbered(7), "hit");
}

#[test]
fn a_file_that_may_not_be_written_stops_nothing() {
    if geteuid().is_root() {
        println!("skipped: permissions do not bind root");
        return;
    }
    let data = DataFolder::new();
    fs::write(data.file(), "").unwrap();
    fs::set_permissions(data.file(), Permissions::from_mode(0o400)).unwrap();
    let gateway = data.start();
    served_with_warning(&gateway);
    fs::set_permissions(data.file(), Permissions::from_mode(0o600)).unwrap();
    metric_of_disk(&gateway, 1);
}

#[test]
fn a_full_and_a_read_only_disk_stop_nothing() {
    for (options, words) in [("size=16k", "full"), ("ro", "Read-only")] {
        let data = DataFolder::new();
        let disk = data.folder.path().join("disk");
        fs::create_dir(&disk).unwrap();
        let mount = format!("mount -t tmpfs -o {options} tmpfs {} && ", disk.display());
        let Some(command) = namespaces(&[], &mount) else { return };
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let logs = data.folder.path().join("logs");
        let builder = data.builder().set("DATA_DIR", disk.display()).set("LOG_DIR", logs.display());
        let gateway = builder.set("USAGE_DB", "off").under(&command).start_ready();
        let warning = served_with_warning(&gateway);
        assert!(warning.contains(words), "{warning}");
    }
}

#[test]
fn check_tells_that_it_has_no_effect_without_the_cache() {
    let data = DataFolder::new();
    let folder = data.folder.path().to_str().unwrap().to_owned();
    let path = data.model.path.to_str().unwrap().to_owned();
    let told = |cache: &str| {
        let settings = [
            ("DATA_DIR", folder.as_str()),
            ("MODEL_PATH", &path),
            ("AUTH_ENABLED", "false"),
            ("CACHE_PERSIST_TO_DISK", "true"),
            ("CACHE", cache),
            ("LLAMA_SERVER", super::support::fake_server::program()),
        ];
        let output = llamagate(&["check"], &settings);
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let text = told("off");
    assert!(text.contains("CACHE_PERSIST_TO_DISK=true has no effect: CACHE is off"), "{text}");
    let text = told("safe");
    assert!(!text.contains("has no effect"), "{text}");
}
