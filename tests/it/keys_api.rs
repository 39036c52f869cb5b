//! Keys over HTTP: what `keyctl` does, in force with the answer, on the same file, and never with a secret but once.

use std::{fs, process::Command, thread};

use serde_json::{Value, json};

use super::support::{
    client::{Client, RawClient, Response},
    gateway::{ADMIN, Gateway, USER},
    wait::{SOON, eventually},
};

fn admin(gateway: &Gateway) -> Client {
    gateway.client_with(ADMIN)
}

fn send(client: &Client, method: &str, path: &str, body: &Value) -> Response {
    client.send(method, path, body.to_string().as_bytes())
}

#[track_caller]
fn make(gateway: &Gateway, body: &Value) -> Value {
    let answer = admin(gateway).post_json("/keys", body);
    assert_eq!(answer.status(), 201, "{}", answer.text());
    answer.json()
}

/// Returns the status of a list of models that is asked for with this secret.
fn use_of(gateway: &Gateway, secret: &str) -> u16 {
    gateway.client_with(secret).get("/v1/models").status()
}

#[track_caller]
fn assert_refused(answer: &Response, status: u16, code: &str, word: &str) {
    let error = &answer.json()["error"];
    assert_eq!((answer.status(), error["code"].as_str()), (status, Some(code)), "{error}");
    assert!(error["message"].as_str().is_some_and(|message| message.contains(word)), "{error}");
}

fn keyctl(gateway: &Gateway, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyctl"));
    let output = command.arg("--file").arg(gateway.keys_file()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

fn listed(gateway: &Gateway, name: &str) -> Option<Value> {
    let list = admin(gateway).get("/keys").json();
    list["data"].as_array().unwrap().iter().find(|key| key["id"] == name).cloned()
}

#[test]
fn a_key_is_made_used_rotated_changed_and_removed_each_in_force_with_the_answer() {
    let gateway = Gateway::builder().start_ready();
    let body =
        json!({"name": "app", "rate_limit": 600, "expires": "30d", "models": ["dummy"], "cost_per_month": 12.50});
    let answer = admin(&gateway).post_json("/keys", &body);
    assert_eq!((answer.status(), answer.header("Location")), (201, Some("/keys/app")), "{}", answer.text());
    assert_eq!(answer.header("Cache-Control"), Some("no-store"));
    let made = answer.json();
    let first = made["secret"].as_str().unwrap().to_owned();
    assert_eq!(use_of(&gateway, &first), 200);
    assert_eq!((&made["rate_limit"], &made["cost_per_month"]), (&json!(600), &json!("12.5")));
    assert_eq!(
        (&made["standing"], &made["source"], &made["scope"]),
        (&json!("valid"), &json!("file"), &json!(["inference"]))
    );

    let answer = send(&admin(&gateway), "POST", "/keys/app/rotate", &json!({"overlap": "1h"}));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let second = answer.json()["secret"].as_str().unwrap().to_owned();
    assert!(answer.json()["old_secret_expires"].is_string(), "{}", answer.text());
    assert_eq!((use_of(&gateway, &first), use_of(&gateway, &second)), (200, 200));
    assert_eq!(listed(&gateway, "app").unwrap()["secrets"].as_array().unwrap().len(), 2);

    let answer = admin(&gateway).send("POST", "/keys/app/rotate", b"");
    let third = answer.json()["secret"].as_str().unwrap().to_owned();
    assert_eq!([&first, &second, &third].map(|secret| use_of(&gateway, secret)), [401, 401, 200]);

    let change = json!({"rate_limit": null, "models": null, "max_concurrent": 3, "expires": "never"});
    let answer = send(&admin(&gateway), "PATCH", "/keys/app", &change);
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let key = answer.json();
    assert_eq!([&key["rate_limit"], &key["models"], &key["expires"]], [&Value::Null; 3]);
    assert_eq!((&key["max_concurrent"], use_of(&gateway, &third)), (&json!(3), 200));

    let answer = admin(&gateway).send("DELETE", "/keys/app", b"");
    assert_eq!(answer.json(), json!({"object": "key", "id": "app", "deleted": true}));
    assert_eq!(use_of(&gateway, &third), 401);
    assert_eq!(listed(&gateway, "app"), None);
    let text = fs::read_to_string(gateway.keys_file()).unwrap();
    assert!(text.starts_with("# keys of a test\n") && !text.contains("app:"), "comments stay");
}

#[test]
fn a_list_of_many_keys_comes_in_pages() {
    let many = (0..1_003).map(|n| format!("k{n:04}:many-secret-0123456789-{n}\n")).collect::<String>();
    let keys = format!("{many}admin:{ADMIN}:100000 scope=inference,admin\n");
    let gateway = Gateway::builder().keys(&keys).start_ready();
    let first = admin(&gateway).get("/keys").json();
    assert_eq!((first["data"].as_array().unwrap().len(), &first["has_more"]), (1_000, &json!(true)));
    let rest = admin(&gateway).get(&format!("/keys?after={}", first["next"].as_str().unwrap())).json();
    assert_eq!((rest["data"].as_array().unwrap().len(), &rest["has_more"]), (4, &json!(false)));
}

#[test]
fn the_list_shows_standing_and_use_and_no_secret() {
    let gateway = Gateway::builder().start_ready();
    let body = json!({"model": "dummy", "messages": [{"role": "user", "content": "x"}]});
    assert_eq!(gateway.client().post_json("/v1/chat/completions", &body).status(), 200);
    let answer = admin(&gateway).get("/keys");
    let text = answer.text();
    assert!([ADMIN, USER, "sha256"].iter().all(|secret| !text.contains(secret)), "{text}");
    let names: Vec<Value> = answer.json()["data"].as_array().unwrap().iter().map(|key| key["id"].clone()).collect();
    assert_eq!(names, ["admin", "expired", "limited", "user"]);
    assert_eq!((&answer.json()["has_more"], &answer.json()["next"]), (&json!(false), &Value::Null));
    let rest = admin(&gateway).get("/keys?after=limited").json();
    assert_eq!((rest["data"].as_array().unwrap().len(), &rest["data"][0]["id"]), (1, &json!("user")));
    assert_refused(&admin(&gateway).get("/keys?limit=5"), 400, "invalid_parameter", "known is: after");
    assert_eq!(listed(&gateway, "expired").unwrap()["standing"], "expired");
    eventually("the request is counted", SOON, || listed(&gateway, "user").unwrap()["used"]["day"]["requests"] == 1);
}

#[test]
fn only_administrators_may_see_or_change_keys() {
    let gateway = Gateway::builder().start_ready();
    for (method, path) in [
        ("GET", "/keys"),
        ("POST", "/keys"),
        ("POST", "/keys/user/rotate"),
        ("PATCH", "/keys/user"),
        ("DELETE", "/keys/user"),
    ] {
        assert_refused(&gateway.client().send(method, path, b"{}"), 403, "scope_required", "admin");
        assert_eq!(gateway.anonymous().send(method, path, b"{}").status(), 401, "{method} {path}");
        assert_eq!(gateway.health().send(method, path, b"{}").status(), 404, "{method} {path}");
    }
}

#[test]
fn what_is_not_right_is_refused_by_name_and_changes_nothing() {
    let gateway = Gateway::builder().start_ready();
    let before = fs::read(gateway.keys_file()).unwrap();
    let admin = admin(&gateway);
    let post = |body: Value| admin.post_json("/keys", &body);
    assert_refused(&post(json!({"name": "a", "rate_limt": 5})), 400, "invalid_parameter", "did you mean rate_limit?");
    assert_refused(&post(json!({"name": "a", "scope": "root"})), 400, "invalid_parameter", "inference, admin, metrics");
    assert_refused(&post(json!({"name": "a", "expires": "2020-01-01"})), 400, "invalid_parameter", "in the past");
    assert_refused(&post(json!({"name": "a", "models": ["m".repeat(9000)]})), 400, "invalid_parameter", "fewer models");
    assert_refused(&post(json!({"name": "user"})), 409, "key_exists", "/keys/user/rotate");
    assert_refused(&admin.send("POST", "/keys", b"name=a"), 400, "bad_request", "JSON");
    assert_refused(&admin.send("POST", "/keys/none/rotate", b""), 404, "key_not_found", "none");
    assert_refused(&send(&admin, "PATCH", "/keys/user", &json!({})), 400, "bad_request", "changes nothing");
    assert_refused(&admin.send("DELETE", "/keys/none", b""), 404, "key_not_found", "none");
    assert_refused(&admin.send("DELETE", "/keys/user?now=true", b""), 400, "invalid_parameter", "now");
    assert_eq!(fs::read(gateway.keys_file()).unwrap(), before);
}

#[test]
fn an_administrator_is_not_locked_out_by_accident() {
    let gateway = Gateway::builder().start_ready();
    let admin = admin(&gateway);
    assert_refused(&admin.send("DELETE", "/keys/admin", b""), 409, "own_key", "force=true");
    assert_refused(&send(&admin, "PATCH", "/keys/admin", &json!({"scope": "inference"})), 409, "own_key", "force=true");
    let ended = json!({"expires": "2020-01-01"});
    assert_refused(&send(&admin, "PATCH", "/keys/admin", &ended), 409, "own_key", "force=true");
    assert_eq!(send(&admin, "PATCH", "/keys/admin", &json!({"rate_limit": 9000})).status(), 200);
    for name in ["user", "limited", "expired"] {
        assert_eq!(admin.send("DELETE", &format!("/keys/{name}"), b"").status(), 200, "{name}");
    }
    // The gateway would keep the last key in force.
    assert_refused(&admin.send("DELETE", "/keys/admin?force=true", b""), 409, "last_key", "another");
    make(&gateway, &json!({"name": "next", "scope": ["admin"]}));
    assert_eq!(admin.send("DELETE", "/keys/admin?force=true", b"").status(), 200);
    assert_eq!(admin.get("/keys").status(), 401);
}

#[test]
fn a_key_file_that_cannot_be_changed_is_told_without_its_path() {
    let gateway = Gateway::builder().start_ready();
    let (file, text) = (gateway.keys_file(), fs::read(gateway.keys_file()).unwrap());
    fs::write(&file, [text.as_slice(), b"# \xff\n"].concat()).unwrap();
    let refused = admin(&gateway).post_json("/keys", &json!({"name": "a"}));
    assert_refused(&refused, 503, "keys_unavailable", "line 6 of the key file is not UTF-8 text");
    assert!(!refused.text().contains("api_keys.txt"), "{}", refused.text());
    fs::remove_file(&file).unwrap();
    let refused = admin(&gateway).post_json("/keys", &json!({"name": "a"}));
    assert_refused(&refused, 503, "keys_unavailable", "does not exist");
    assert!(!file.exists(), "a new file would end the keys that are in force");
    assert_eq!(use_of(&gateway, USER), 200);
}

#[test]
fn without_keys_there_is_nothing_to_change() {
    let gateway = Gateway::builder().without_keys().start_ready();
    assert_refused(&gateway.anonymous().get("/keys"), 404, "keys_off", "AUTH_ENABLED");
    assert_refused(&gateway.anonymous().post_json("/keys", &json!({"name": "a"})), 404, "keys_off", "AUTH_ENABLED");
    let mut page = RawClient::connect(gateway.url());
    page.write(b"GET /keys HTTP/1.1\r\nHost: evil.example\r\n\r\n").unwrap();
    assert_refused(&page.read_response().unwrap(), 403, "origin_not_allowed", "evil.example");
}

#[test]
fn the_key_of_the_environment_is_shown_and_stays() {
    let gateway = Gateway::builder().set("LLAMAGATE_API_KEY", "secret-of-the-service-1").start_ready();
    assert_eq!(listed(&gateway, "env").unwrap()["source"], "environment");
    let admin = admin(&gateway);
    assert_refused(&admin.post_json("/keys", &json!({"name": "env"})), 409, "key_exists", "env");
    for (method, path) in [("DELETE", "/keys/env"), ("POST", "/keys/env/rotate")] {
        assert_refused(&admin.send(method, path, b""), 409, "key_not_in_file", "LLAMAGATE_API_KEY");
    }
    assert_refused(&send(&admin, "PATCH", "/keys/env", &json!({"models": ["m"]})), 409, "key_not_in_file", "variable");
}

#[test]
fn the_service_and_keyctl_lose_nothing_of_each_other() {
    const EACH: usize = 8;
    let gateway = Gateway::builder().start_ready();
    thread::scope(|scope| {
        scope
            .spawn(|| (0..EACH).for_each(|n| _ = keyctl(&gateway, &["generate", "--name", &format!("by-keyctl-{n}")])));
        scope.spawn(|| (0..EACH).for_each(|n| _ = make(&gateway, &json!({"name": format!("by-http-{n}")}))));
        scope.spawn(|| (0..EACH).for_each(|n| _ = make(&gateway, &json!({"name": format!("by-other-{n}")}))));
    });
    let names: Vec<Value> = serde_json::from_str(&keyctl(&gateway, &["list", "--json"])).unwrap();
    assert_eq!(names.len(), 4 + 3 * EACH);
    make(&gateway, &json!({"name": "last"}));
    let list = admin(&gateway).get("/keys").json();
    assert_eq!(list["data"].as_array().unwrap().len(), 4 + 3 * EACH + 1);
}

#[test]
fn too_many_new_secrets_have_to_wait() {
    let gateway = Gateway::builder().start_ready();
    let admin = admin(&gateway);
    let answers = (0..40).map(|n| admin.post_json("/keys", &json!({"name": format!("k{n}")})));
    let refused = answers.into_iter().find(|answer| answer.status() != 201).expect("one is refused");
    assert_refused(&refused, 429, "rate_limit_exceeded", "new secrets of API keys");
    assert!(refused.header("Retry-After").is_some());
    let refused = admin.send("POST", "/keys/user/rotate", b"");
    assert_refused(&refused, 429, "rate_limit_exceeded", "new secrets");
    assert_eq!(send(&admin, "PATCH", "/keys/user", &json!({"rate_limit": 5})).status(), 200);
    assert_eq!(admin.send("DELETE", "/keys/user", b"").status(), 200);
}

#[test]
fn each_order_is_in_the_audit_and_no_secret_is_in_any_log() {
    let mut gateway = Gateway::builder().set("LOG_LEVEL", "debug").start_ready();
    let made = make(&gateway, &json!({"name": "app"}));
    let rotated = admin(&gateway).send("POST", "/keys/app/rotate", b"").json();
    assert_eq!(admin(&gateway).post_json("/keys", &json!({"name": "app"})).status(), 409);
    assert_eq!(send(&admin(&gateway), "PATCH", "/keys/app", &json!({"priority": "low"})).status(), 200);
    assert_eq!(admin(&gateway).send("DELETE", "/keys/app", b"").status(), 200);
    assert!(gateway.stop().success());
    let mut command = Command::new(env!("CARGO_BIN_EXE_llamagate"));
    let output = command.args(["audit", "--json"]).env_clear().env("DATA_DIR", gateway.data_dir()).output().unwrap();
    let audit: Value = serde_json::from_slice(&output.stdout).expect("the audit is JSON");
    let acts: Vec<(String, &Value, &Value)> = audit
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .map(|act| (act["act"].as_str().unwrap().to_owned(), &act["target"], &act["status"]))
        .collect();
    let app = &json!("app");
    let want = [
        ("POST /keys", 201),
        ("POST /keys/{id}/rotate", 200),
        ("POST /keys", 409),
        ("PATCH /keys/{id}", 200),
        ("DELETE /keys/{id}", 200),
    ];
    let want: Vec<(String, &Value, Value)> = want.map(|(act, status)| (act.to_owned(), app, json!(status))).into();
    assert_eq!(acts, want.iter().map(|(act, target, status)| (act.clone(), *target, status)).collect::<Vec<_>>());
    for secret in [&made["secret"], &rotated["secret"]] {
        let secret = secret.as_str().unwrap();
        assert!(!gateway.output().contains(secret));
        for file in files_below(gateway.data_dir()) {
            let text = fs::read(&file).unwrap();
            assert!(!text.windows(secret.len()).any(|part| part == secret.as_bytes()), "{}", file.display());
        }
    }
}

fn files_below(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] })
        .filter(|path| path.is_file())
        .collect()
}
