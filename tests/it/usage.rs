//! The usage ledger: what `GET /usage` and the commands say agrees with what clients were answered, over restarts and kills,
//! and a file that cannot be used stops nothing.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use rusqlite::Connection;
use serde_json::{Value, json};

use super::configuration::llamagate;
use super::leftovers::namespaces;
use super::support::{
    gateway::{ADMIN, Backend, Builder, Gateway, LIMITED, USER},
    wait::{SOON, eventually, eventually_some},
};

const CHAT: &str = "/v1/chat/completions";

fn chat() -> Value {
    json!({"messages": [{"role": "user", "content": "one two three"}], "max_tokens": 4, "temperature": 0})
}

#[track_caller]
fn ask(gateway: &Gateway, body: &Value) -> Value {
    let answer = gateway.client().post_json(CHAT, body);
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.json()
}

/// Returns the rows of `GET /usage` with this key and query.
#[track_caller]
fn usage(gateway: &Gateway, secret: &str, query: &str) -> Vec<Value> {
    let answer = gateway.client_with(secret).get(&format!("/usage{query}"));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(answer.json()["object"], "list");
    answer.json()["data"].as_array().unwrap().clone()
}

/// Returns the rows once they are about this many requests, refused ones included. A request is recorded once its answer was
/// sent, which may be after the client has read it.
#[track_caller]
fn usage_of(gateway: &Gateway, secret: &str, query: &str, requests: u64) -> Vec<Value> {
    eventually_some("the requests are recorded", SOON, || {
        let rows = usage(gateway, secret, query);
        let found: u64 = rows.iter().map(|row| number(row, "requests") + number(row, "refused")).sum();
        (found == requests).then_some(rows)
    })
}

fn number(row: &Value, name: &str) -> u64 {
    row[name].as_u64().unwrap_or_else(|| panic!("{name} in {row}"))
}

fn assert_sound(path: &Path) {
    let connection = Connection::open(path).unwrap();
    let verdict: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
}

fn sum_in_file(path: &Path, column: &str) -> u64 {
    let connection = Connection::open(path).unwrap();
    let sum: i64 = connection
        .query_row(&format!("SELECT total({column}) FROM usage"), [], |row| row.get::<_, f64>(0))
        .unwrap() as i64;
    sum as u64
}

#[test]
fn the_ledger_has_the_counts_of_the_real_llama_server_and_keeps_them_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("made/usage.db");
    let start = || {
        let backend = Backend::Real { model: "tiny-chat.gguf" };
        Gateway::builder().backend(backend).set("USAGE_DB", file.display()).set("PRICE_PER_HOUR", "3600").start_ready()
    };
    let mut gateway = start();
    let (mut prompt, mut cached, mut completion) = (0, 0, 0);
    for stream in [false, true, false] {
        let mut body = chat();
        body["stream"] = json!(stream);
        let answer = match stream {
            false => ask(&gateway, &body),
            true => {
                body["stream_options"] = json!({"include_usage": true});
                let events = gateway.client().stream(CHAT, &body).events();
                let is_usage = |event: &Value| event["usage"].is_object();
                events.iter().filter(|event| !event.is_done()).map(|event| event.json()).find(is_usage).unwrap()
            }
        };
        let usage = &answer["usage"];
        prompt += number(usage, "prompt_tokens");
        cached += number(&usage["prompt_tokens_details"], "cached_tokens");
        completion += number(usage, "completion_tokens");
    }
    assert!(cached > 0, "the prompt was repeated");
    let assert_row = |gateway: &Gateway| {
        let rows = usage_of(gateway, USER, "?by=key,model", 3);
        assert_eq!(rows.len(), 1, "{rows:?}");
        let row = &rows[0];
        let counts = ["requests", "refused", "prompt_tokens", "cached_tokens", "completion_tokens"];
        assert_eq!(counts.map(|name| number(row, name)), [3, 0, prompt, cached, completion], "{row}");
        assert_eq!((&row["key"], &row["model"]), (&json!("user"), &json!("tiny-chat")));
        let (slot, cost) = (row["slot_seconds"].as_f64().unwrap(), row["cost"].as_f64().unwrap());
        assert!(slot > 0.0 && (slot - cost).abs() < 1e-3, "one slot at one unit a second: {row}");
    };
    assert_row(&gateway);
    gateway.stop();
    assert_sound(&file);
    let gateway = start();
    assert_row(&gateway);
}

#[test]
fn a_model_may_have_its_own_price_and_idling_costs_the_rest() {
    let models = "models:\n  dear: {file: a.gguf, price_per_hour: 36000}\n  usual: {file: b.gguf}\n";
    let files = [("a.gguf", json!({})), ("b.gguf", json!({}))];
    let gateway = Gateway::builder().fakes(models, &files).set("PRICE_PER_HOUR", "3600").start_ready();
    for model in ["dear", "usual"] {
        let mut body = chat();
        body["model"] = json!(model);
        ask(&gateway, &body);
    }
    let rows = usage_of(&gateway, ADMIN, "?by=key,model", 2);
    let [idle, dear, usual] = &rows[..] else { panic!("three rows: {rows:?}") };
    assert_eq!((&idle["key"], &idle["model"], number(idle, "requests")), (&json!("idle"), &json!(null), 0));
    assert!(idle["cost"].as_f64().unwrap() > 0.0, "one unit a second, and nearly nothing was asked: {idle}");
    for (row, name, price) in [(dear, "dear", 10.0), (usual, "usual", 1.0)] {
        let (slot, cost) = (row["slot_seconds"].as_f64().unwrap(), row["cost"].as_f64().unwrap());
        assert_eq!(row["model"], name);
        assert!((cost - slot * price).abs() < 1e-4 * price, "{row}");
    }
    // No key has a part in what idling costs.
    assert_eq!(usage(&gateway, USER, "?by=key").len(), 1);
    assert_eq!(usage(&gateway, ADMIN, "?by=model").len(), 2);
}

#[test]
fn a_key_sees_its_own_rows_and_an_admin_all_of_them() {
    let gateway = Gateway::builder().start_ready();
    ask(&gateway, &chat());
    assert_eq!(gateway.client_with(LIMITED).post_json(CHAT, &chat()).status(), 200);
    assert_eq!(gateway.client().post_json(CHAT, &json!({"temperature": "hot"})).status(), 400);
    assert_eq!(gateway.client_with("wrong-secret-0123456789").post_json(CHAT, &chat()).status(), 401);
    let own = usage_of(&gateway, USER, "?by=key", 2);
    assert_eq!(own.len(), 1, "{own:?}");
    assert_eq!((number(&own[0], "requests"), number(&own[0], "refused")), (1, 1));
    let all = usage_of(&gateway, ADMIN, "?by=key", 4);
    let keys: Vec<_> = all.iter().map(|row| row["key"].as_str()).collect();
    assert_eq!(keys, [None, Some("limited"), Some("user")], "{all:?}");
    assert_eq!((number(&all[0], "requests"), number(&all[0], "refused")), (0, 1), "no key was valid");
    assert_eq!(gateway.anonymous().get("/usage").status(), 401);

    let first = gateway.client_with(ADMIN).get("/usage?by=key&limit=2").json();
    assert_eq!((&first["has_more"], first["data"].as_array().unwrap().len()), (&json!(true), 2));
    let rest = usage(&gateway, ADMIN, &format!("?by=key&limit=2&after={}", first["next"]));
    assert_eq!(rest.len(), 1);

    let csv = gateway.client_with(ADMIN).header("Accept", "text/csv").get("/usage?by=key");
    assert!(csv.header("content-type").is_some_and(|kind| kind.starts_with("text/csv")));
    let text = csv.text();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("key,requests,refused,prompt_tokens,"), "{text}");
    assert!(lines[2].starts_with("limited,1,0,") && lines[3].starts_with("user,1,1,"), "{text}");
}

#[test]
fn from_and_to_choose_hours_and_what_is_wrong_is_refused_by_name() {
    let gateway = Gateway::builder().start_ready();
    ask(&gateway, &chat());
    assert_eq!(usage_of(&gateway, USER, "?from=2020-01-01&to=2999-01-01", 1).len(), 1);
    assert_eq!(usage(&gateway, USER, "?to=2020-01-01").len(), 0);
    assert_eq!(usage(&gateway, USER, "?from=2999-01-01T00:00:00%2B01:00").len(), 0);
    for (query, name) in
        [("from=x", "from"), ("by=week", "by"), ("limit=0", "limit"), ("key=other", "key"), ("to", "to")]
    {
        let answer = gateway.client().get(&format!("/usage?{query}"));
        assert_eq!(answer.status(), 400, "{query}");
        assert!(answer.json()["error"]["message"].as_str().unwrap().contains(name), "{}", answer.text());
    }
    let off = Gateway::builder().set("USAGE_DB", "off").start_ready();
    ask(&off, &chat());
    let answer = off.client().get("/usage");
    assert_eq!((answer.status(), &answer.json()["error"]["code"]), (404, &json!("usage_off")));
    assert!(!off.data_dir().join("usage.db").exists());
}

#[test]
fn a_stream_that_the_client_leaves_counts_the_pieces_that_came() {
    let gateway = Gateway::builder().script(json!({"hold_mid_stream": {"after_frames": 3}})).start_ready();
    let mut body = chat();
    body["stream"] = json!(true);
    let mut stream = gateway.client().stream(CHAT, &body);
    for _ in 0..3 {
        stream.next_event().expect("three events come");
    }
    drop(stream);
    eventually("the stream is recorded", SOON, || {
        usage(&gateway, USER, "")
            .iter()
            .any(|row| (number(row, "requests"), number(row, "completion_tokens")) == (1, 3))
    });
}

#[test]
fn a_translated_request_counts_once() {
    let backend = Backend::Real { model: "tiny-embedding.gguf" };
    let gateway = Gateway::builder().backend(backend).start_ready();
    let texts = vec!["hello there"; 100];
    let answer = gateway.client().post_json("/embed", &json!({"inputs": texts}));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let rows = usage_of(&gateway, USER, "?by=key", 1);
    assert_eq!(number(&rows[0], "requests"), 1, "{rows:?}");
    assert!(number(&rows[0], "prompt_tokens") >= 200, "of both calls: {rows:?}");
}

/// The file is that of all rounds. `LLAMAGATE_TEST_KILLS` makes it a long run.
#[test]
fn a_kill_loses_the_last_moment_at_most_and_writes_nothing_twice() {
    let rounds: u64 = std::env::var("LLAMAGATE_TEST_KILLS").map_or(3, |rounds| rounds.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("usage.db");
    let (mut sent, mut at_least) = (0, 0);
    for round in 0..rounds {
        let mut gateway =
            Gateway::builder().set("USAGE_DB", file.display()).set("MAX_REQUESTS_PER_MINUTE", 100_000).start_ready();
        for _ in 0..5 + round % 7 {
            ask(&gateway, &chat());
            sent += 1;
        }
        at_least += 5 + round % 7;
        // What a reader has seen is in the file; what follows may be.
        usage_of(&gateway, USER, "", at_least);
        for _ in 0..round % 5 {
            ask(&gateway, &chat());
            sent += 1;
        }
        gateway.signal(Signal::SIGKILL);
        gateway.wait_exit();
        assert_sound(&file);
        let found = sum_in_file(&file, "requests");
        assert!((at_least..=sent).contains(&found), "{at_least} <= {found} <= {sent} in round {round}");
        // What was lost stays lost, and the file opens again.
        (sent, at_least) = (found, found);
        let connection = Connection::open(&file).unwrap();
        let of_budgets = "SELECT total(requests) FROM budgets WHERE period = 'month' AND person = ''";
        let budgets: f64 = connection.query_row(of_budgets, [], |row| row.get(0)).unwrap();
        assert_eq!(budgets as u64, found, "budgets and usage are one transaction");
    }
}

/// Asks, and returns the warning that `/health` shows.
#[track_caller]
fn served_with_warning(gateway: &Gateway) -> String {
    for _ in 0..3 {
        ask(gateway, &chat());
    }
    let mut shown = String::new();
    eventually("a warning about usage", SOON * 2, || {
        let health = gateway.anonymous().get("/health").json();
        let warnings = health["warnings"].as_array().cloned().unwrap_or_default();
        let of_usage = warnings.iter().filter_map(Value::as_str).find(|text| text.contains("usage is not recorded"));
        shown = of_usage.unwrap_or_default().to_owned();
        !shown.is_empty()
    });
    ask(gateway, &chat());
    let metrics = gateway.health().header("Accept", "text/plain").get("/metrics").text();
    let failures = metrics.lines().find_map(|line| line.strip_prefix("llamagate_usage_write_failures_total "));
    assert!(failures.is_some_and(|count| count != "0"), "{metrics}");
    let reports = || gateway.output().matches("usage is not recorded").count();
    eventually("the log has it", SOON, || reports() > 0);
    assert_eq!(reports(), 1, "one report a minute");
    shown
}

fn with_file(file: &Path) -> Builder {
    Gateway::builder().set("USAGE_DB", file.display())
}

#[test]
fn a_broken_a_foreign_and_a_newer_file_stop_nothing_and_are_left_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.db");
    fs::write(&broken, "this is no database, however long it is looked at\n".repeat(100)).unwrap();
    let newer = folder.path().join("newer.db");
    with_file(&newer).start_ready().stop();
    Connection::open(&newer).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    let foreign = folder.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE mine (a)").unwrap();
    for (file, words) in [(&broken, "not a database"), (&newer, "version 99"), (&foreign, "another program")] {
        let before = fs::read(file).unwrap();
        let mut gateway = with_file(file).start_ready();
        let warning = served_with_warning(&gateway);
        assert!(warning.contains(words), "{warning}");
        let answer = gateway.client().get("/usage");
        assert_eq!((answer.status(), &answer.json()["error"]["code"]), (503, &json!("usage_unavailable")));
        assert!(!answer.text().contains("usage.db") && !answer.text().contains(".db"), "{}", answer.text());
        gateway.stop();
        assert_eq!(fs::read(file).unwrap(), before, "{words}");
    }
}

#[test]
fn what_a_locked_file_could_not_take_is_written_once_when_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("usage.db");
    let gateway = with_file(&file).start_ready();
    ask(&gateway, &chat());
    usage_of(&gateway, USER, "", 1);
    let other = Connection::open(&file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(served_with_warning(&gateway).contains("locked"));
    other.execute_batch("COMMIT").unwrap();
    eventually("everything is written", SOON * 2, || sum_in_file(&file, "requests") == 5);
    eventually("the warning goes", SOON, || gateway.anonymous().get("/health").json()["warnings"] == json!([]));
    assert_eq!(number(&usage(&gateway, USER, "?by=key")[0], "requests"), 5);
}

#[test]
fn a_file_that_may_not_be_written_stops_nothing() {
    if geteuid().is_root() {
        println!("skipped: permissions do not bind root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("usage.db");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o400)).unwrap();
    let gateway = with_file(&file).start_ready();
    served_with_warning(&gateway);
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    eventually("everything is written", SOON * 2, || sum_in_file(&file, "requests") == 4);
}

#[test]
fn a_full_and_a_read_only_disk_stop_nothing() {
    for (options, words) in [("size=64k", "full"), ("ro", "unable to open")] {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk");
        fs::create_dir(&disk).unwrap();
        let mount = format!("mount -t tmpfs -o {options} tmpfs {} && ", disk.display());
        let Some(command) = namespaces(&[], &mount) else { return };
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let gateway = with_file(&disk.join("usage.db")).under(&command).start_ready();
        let warning = served_with_warning(&gateway);
        assert!(warning.contains(words), "{warning}");
    }
}

#[test]
fn administrators_acts_are_kept_and_the_commands_show_what_is_in_the_file() {
    let gateway = Gateway::builder().start_ready();
    ask(&gateway, &chat());
    let admin = gateway.client_with(ADMIN);
    assert_eq!(admin.send("POST", "/reload", b"").status(), 200);
    assert_eq!(admin.send("POST", "/v1/models/nothing/unload", b"").status(), 404);
    assert_eq!(gateway.client().send("POST", "/reload", b"").status(), 403);
    assert_eq!(
        admin.post_json("/v1/models/download", &json!({"model": "https://host/f.gguf?sig=secret"})).status() / 100,
        4
    );
    usage_of(&gateway, ADMIN, "", 1);
    let data = gateway.data_dir().display().to_string();
    let run = |arguments: &[&str]| {
        let output = llamagate(arguments, &[("DATA_DIR", &data)]);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let acts: Value = eventually_some("three acts are recorded", SOON, || {
        usage(&gateway, ADMIN, "");
        let acts: Value = serde_json::from_str(&run(&["audit", "--json"])).unwrap();
        (acts.as_array().unwrap().len() == 3).then_some(acts)
    });
    let acts: Vec<_> = acts
        .as_array()
        .unwrap()
        .iter()
        .map(|act| {
            [&act["act"], &act["target"], &act["outcome"], &act["key"], &act["address"]]
                .map(|text| text.as_str().unwrap_or("-").to_owned())
        })
        .collect();
    assert_eq!(acts.len(), 3, "{acts:?}");
    assert_eq!(acts[2], ["POST /reload", "", "ok", "admin", "127.0.0.1"]);
    assert_eq!(acts[1], ["POST /v1/models/{id}/unload", "nothing", "model_not_found", "admin", "127.0.0.1"]);
    assert_eq!(acts[0][1], "https://host/f.gguf", "without its query");
    assert!(run(&["audit", "--limit", "1"]).lines().count() == 1);
    let rows: Value = serde_json::from_str(&run(&["usage", "--json", "--by", "key", "--name", "user"])).unwrap();
    assert_eq!((rows.as_array().unwrap().len(), number(&rows[0], "requests")), (1, 1));
    let table = run(&["usage"]);
    assert!(table.lines().last().unwrap().starts_with("total"), "{table}");
    let keyctl = env!("CARGO_BIN_EXE_keyctl");
    let output =
        Command::new(keyctl).args(["usage", "--name", "user"]).env_clear().env("DATA_DIR", &data).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && table.lines().count() == 3 && table.starts_with("start"), "{table}");
    let wrong = llamagate(&["usage", "--by", "week"], &[("DATA_DIR", &data)]);
    assert!(!wrong.status.success() && String::from_utf8_lossy(&wrong.stderr).contains("--by"), "{wrong:?}");
}
