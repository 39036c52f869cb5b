//! Commands that ask a service over HTTP: which one they ask and with which key, how they tell errors, and what `usage`,
//! `audit` and `chat` show.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use super::configuration::llamagate;
use super::support::{
    gateway::{ADMIN, Backend, Gateway, USER},
    terminal::Terminal,
    wait::{SOON, eventually, eventually_some},
};

/// Runs the program against this service. `LLAMAGATE_KEY` is the secret.
fn run(gateway: &Gateway, secret: &str, arguments: &[&str]) -> Output {
    llamagate(arguments, &[("LLAMAGATE_URL", gateway.url()), ("LLAMAGATE_KEY", secret)])
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    text(&output.stdout)
}

/// Returns a port on which nothing listens.
pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn chat_once(gateway: &Gateway) {
    let body = json!({"messages": [{"role": "user", "content": "one two"}], "max_tokens": 4});
    assert_eq!(gateway.client().post_json("/v1/chat/completions", &body).status(), 200);
}

#[test]
fn usage_over_http_agrees_with_the_file() {
    let gateway = Gateway::builder().start_ready();
    chat_once(&gateway);
    chat_once(&gateway);
    let data = gateway.data_dir().display().to_string();
    let of_file = |arguments: &[&str]| succeeded(&llamagate(arguments, &[("DATA_DIR", &data)]));
    eventually("both requests are in the file", SOON, || {
        let rows: Value = serde_json::from_str(&of_file(&["usage", "--json", "--by", "key"])).unwrap();
        rows[0]["requests"] == 2
    });
    for arguments in [
        vec!["usage", "--by", "key,model"],
        vec!["usage", "--json", "--by", "day,person", "--name", "user"],
        vec!["usage", "--by", "model", "--name", "nothing-of-this-name"],
        vec!["usage", "--by", "hour,key", "--from", "2020-01-01", "--name", "user"],
    ] {
        let over_http = succeeded(&run(&gateway, ADMIN, &arguments));
        assert_eq!(over_http.lines().next(), of_file(&arguments).lines().next(), "{arguments:?}");
        // The question itself is no request for a model.
        assert_eq!(over_http, of_file(&arguments), "{arguments:?}");
    }
    assert!(succeeded(&run(&gateway, USER, &["usage", "--by", "key"])).contains("user"), "a key sees its own rows");
    let refused = run(&gateway, ADMIN, &["usage", "--by", "keys"]);
    assert_eq!(refused.status.code(), Some(78));
    assert!(text(&refused.stderr).starts_with("error: --by is \"keys\""), "{refused:?}");
    let misplaced = run(&gateway, ADMIN, &["usage", "--usage-db", "/tmp/x.db"]);
    assert!(text(&misplaced.stderr).contains("--usage-db has no effect on a service"), "{misplaced:?}");
}

#[test]
fn the_audit_comes_in_pages_as_json_and_csv_for_administrators_alone() {
    let gateway = Gateway::builder().start_ready();
    let admin = gateway.client_with(ADMIN);
    for _ in 0..3 {
        assert_eq!(admin.post_json("/reload", &json!({})).status(), 200);
    }
    assert_eq!(admin.post_json("/v1/models/=nothing/unload", &json!({})).status(), 404);
    let all = eventually_some("four acts are recorded", SOON, || {
        let page = admin.get("/audit").json();
        (page["data"].as_array().unwrap().len() == 4).then_some(page)
    });
    assert_eq!((&all["object"], &all["has_more"], all.get("next")), (&json!("list"), &json!(false), None));
    let first = admin.get("/audit?limit=3").json();
    assert_eq!(first["data"][0]["target"], "=nothing", "the newest first: {first}");
    let rest = admin.get(&format!("/audit?after={}", first["next"])).json();
    assert_eq!((rest["data"].as_array().unwrap().len(), &rest["data"][0]), (1, &all["data"][3]));
    let csv = admin.header("Accept", "text/csv").get("/audit?limit=1");
    assert!(csv.header("x-llamagate-next").is_some());
    let lines: Vec<String> = csv.text().lines().map(str::to_owned).collect();
    assert_eq!(lines[0], "time,key,address,act,target,status,outcome");
    assert!(
        lines[1].ends_with(",admin,127.0.0.1,POST /v1/models/{id}/unload,'=nothing,404,model_not_found"),
        "{lines:?}"
    );
    let admin = gateway.client_with(ADMIN);
    assert_eq!(admin.get("/audit?from=2027-01-01").status(), 400);
    assert_eq!(gateway.client().get("/audit").json()["error"]["code"], "scope_required");
    let table = succeeded(&run(&gateway, ADMIN, &["audit", "--limit", "2"]));
    assert!(table.lines().count() == 2 && table.contains("POST /reload"), "{table}");
    let acts: Value = serde_json::from_str(&succeeded(&run(&gateway, ADMIN, &["audit", "--json"]))).unwrap();
    assert_eq!(acts, all["data"]);
}

#[test]
fn a_command_finds_the_service_of_its_data_dir_and_says_where_none_answers() {
    let mut gateway = Gateway::builder().start_ready();
    let data = gateway.data_dir().display().to_string();
    let ask = |more: &[(&str, &str)]| {
        let variables = [&[("DATA_DIR", data.as_str()), ("LLAMAGATE_KEY", USER)], more].concat();
        llamagate(&["chat", "dummy", "hello", "--max-tokens", "2"], &variables)
    };
    assert_eq!(succeeded(&ask(&[])), "tok0 tok1 \n");
    gateway.stop();
    let port = free_port().to_string();
    let refused = ask(&[("PORT", &port)]);
    assert_eq!(refused.status.code(), Some(69), "{refused:?}");
    let message = format!("error: no service answers at http://127.0.0.1:{port}: ");
    assert!(text(&refused.stderr).starts_with(&message), "{refused:?}");
    let elsewhere = llamagate(&["chat", "m", "x", "--url", "ftp://x"], &[]);
    assert_eq!(elsewhere.status.code(), Some(78), "{elsewhere:?}");
}

/// What a key of the service's own environment opens for the service, it opens for a command of the same environment.
#[test]
fn the_key_of_the_environment_is_sent_to_the_service_of_this_machine_and_nowhere_else() {
    let key = "a-key-of-the-environment";
    let gateway = Gateway::builder().set("LLAMAGATE_API_KEY", key).start_ready();
    let data = gateway.data_dir().display().to_string();
    let arguments = ["chat", "dummy", "hello", "--max-tokens", "1"];
    let local = llamagate(&arguments, &[("DATA_DIR", &data), ("LLAMAGATE_API_KEY", key)]);
    assert_eq!(succeeded(&local), "tok0 \n");
    let named = llamagate(&arguments, &[("LLAMAGATE_URL", gateway.url()), ("LLAMAGATE_API_KEY", key)]);
    assert!(text(&named.stderr).contains("missing_api_key"), "{named:?}");
}

#[test]
fn an_error_is_told_with_message_hint_and_request_id() {
    let gateway = Gateway::builder().start_ready();
    let refused = run(&gateway, USER, &["audit"]);
    let shown = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{shown}");
    assert!(shown.contains("(403 scope_required)\n    hint: give a key whose scope is admin"), "{shown}");
    let id = shown.split("request id: ").nth(1).expect("it is told").trim().to_owned();
    let log = gateway.data_dir().join("logs/access");
    eventually("the access log has the id", SOON, || {
        let files = fs::read_dir(&log).into_iter().flatten().flatten();
        files.filter_map(|file| fs::read_to_string(file.path()).ok()).any(|text| text.contains(&id))
    });
    let refused = run(&gateway, "wrong-key-0123456789", &["audit", "--json"]);
    let error: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!((&error["error"]["status"], &error["error"]["code"]), (&json!(401), &json!("invalid_api_key")));
    assert!(!text(&refused.stdout).contains("wrong-key"), "{refused:?}");
}

#[test]
fn one_question_is_answered_with_standard_input_behind_it_and_as_json() {
    let gateway = Gateway::builder().start_ready();
    let mut child = Command::new(env!("CARGO_BIN_EXE_llamagate"))
        .args(["chat", "dummy", "Summarize:", "--json", "--system", "Be brief."])
        .env_clear()
        .envs([("LLAMAGATE_URL", gateway.url()), ("LLAMAGATE_KEY", USER)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"a text\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let answer: Value = serde_json::from_str(&succeeded(&output)).unwrap();
    assert_eq!((&answer["model"], &answer["finish_reason"]), (&json!("dummy"), &json!("stop")), "{answer}");
    assert!(answer["content"].as_str().unwrap().starts_with("tok0 tok1 "), "{answer}");
    assert_eq!(answer["usage"]["completion_tokens"], 8, "{answer}");
    let body = bodies(&gateway).pop().unwrap();
    assert_eq!(body["messages"][0], json!({"role": "system", "content": "Be brief."}));
    assert_eq!(body["messages"][1], json!({"role": "user", "content": "Summarize:\n\na text"}));
    let empty = run(&gateway, USER, &["chat", "dummy"]);
    assert!(text(&empty.stderr).contains("there is no question"), "{empty:?}");
    let picture = run(&gateway, USER, &["chat", "dummy", "x", "--image", "/dev/null"]);
    assert!(text(&picture.stderr).contains("--image /dev/null: expected a PNG"), "{picture:?}");
}

#[test]
fn a_stream_that_breaks_off_is_no_answer() {
    let gateway = Gateway::builder().script(json!({"truncate_mid_stream": {"after_frames": 3}})).start_ready();
    let cut = run(&gateway, USER, &["chat", "dummy", "x"]);
    assert_eq!(cut.status.code(), Some(1), "{cut:?}");
    assert!(text(&cut.stdout).starts_with("tok0 ") && text(&cut.stderr).starts_with("error: "), "{cut:?}");
}

#[test]
fn the_real_llama_server_answers_in_a_pipe() {
    let gateway = Gateway::builder().backend(Backend::Real { model: "tiny-chat.gguf" }).start_ready();
    let output = run(&gateway, USER, &["chat", "--json", "--max-tokens", "4", "tiny-chat", "Hello"]);
    let answer: Value = serde_json::from_str(&succeeded(&output)).unwrap();
    assert!(answer["tokens_per_second"].as_f64().unwrap() > 0.0, "{answer}");
    assert!(answer["usage"]["prompt_tokens"].as_u64().unwrap() > 0, "{answer}");
}

/// Returns the bodies of all chats that have reached llama-server.
fn bodies(gateway: &Gateway) -> Vec<Value> {
    let requests = gateway.journal().requests("/v1/chat/completions");
    requests.iter().map(|request| serde_json::from_str(request["body"].as_str().unwrap()).unwrap()).collect()
}

fn conversation(gateway: &Gateway) -> Terminal {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llamagate"));
    command.args(["chat", "dummy"]).env_clear().current_dir(gateway.data_dir());
    Terminal::start(command.envs([("LLAMAGATE_URL", gateway.url()), ("LLAMAGATE_KEY", USER)]))
}

#[test]
fn a_conversation_keeps_its_messages_obeys_its_commands_and_is_saved() {
    let gateway = Gateway::builder().start_ready();
    let mut terminal = conversation(&gateway);
    // The editor asks the terminal for pasted text as a whole each time that it begins to read.
    let mut lines = 0;
    let mut type_line = |keys: &str, shown: &str, times: usize| {
        lines += 1;
        terminal.wait_for("\u{1b}[?2004h", lines);
        terminal.type_keys(keys);
        terminal.wait_for(shown, times);
    };
    type_line("/system Be brief.\r", "the system prompt is set", 1);
    type_line("first question\r", "(8 tokens", 1);
    type_line("second question\r", "(8 tokens", 2);
    type_line("/modle\r", "did you mean /model?", 1);
    type_line("/model\r", "dummy", 2);
    type_line("/save talk.json\r", "saved to talk.json", 1);
    type_line("\u{3}", "/exit or Ctrl-D leaves", 1);
    type_line("/clear\r", "forgotten", 1);
    type_line("third question\r", "(8 tokens", 3);
    type_line("/exit\r", "/exit", 2);
    assert!(terminal.wait_exit().success());
    let counts: Vec<usize> = bodies(&gateway).iter().map(|body| body["messages"].as_array().unwrap().len()).collect();
    assert_eq!(counts, [2, 4, 2]);
    let saved = fs::read_to_string(gateway.data_dir().join("talk.json")).unwrap();
    let saved: Value = serde_json::from_str(&saved).unwrap();
    assert_eq!(saved["messages"][1]["content"], "first question", "{saved}");
    assert!(terminal.screen().contains("\u{1b}[2m("), "figures are dimmed: {:?}", terminal.screen());
}

#[test]
fn ctrl_c_stops_an_answer_and_not_the_conversation() {
    let gateway = Gateway::builder().script(json!({"hold_mid_stream": {"after_frames": 4}})).start_ready();
    let mut terminal = conversation(&gateway);
    terminal.wait_for("\u{1b}[?2004h", 1);
    terminal.type_keys("a question\r");
    terminal.wait_for("tok1", 1);
    terminal.interrupt();
    terminal.wait_for("(stopped", 1);
    terminal.wait_for("\u{1b}[?2004h", 2);
    terminal.type_keys("/help\r");
    terminal.wait_for("Ctrl-C           stops an answer", 1);
    terminal.wait_for("\u{1b}[?2004h", 3);
    terminal.type_keys("\u{4}");
    assert!(terminal.wait_exit().success());
    gateway.journal().wait_for_event("disconnect");
}

/// The editor once forgot what it had read beyond the first line.
#[test]
fn lines_that_are_typed_ahead_while_an_answer_comes_are_all_read() {
    let gateway = Gateway::builder().script(json!({"hold_mid_stream": {"after_frames": 4}})).start_ready();
    let mut terminal = conversation(&gateway);
    terminal.wait_for("\u{1b}[?2004h", 1);
    terminal.type_keys("first\r");
    terminal.wait_for("tok1", 1);
    // The last one is not finished yet.
    terminal.type_keys("second\rthird\rfou");
    gateway.control().release_all_requests();
    terminal.wait_for("(8 tokens", 3);
    terminal.type_keys("rth\r");
    terminal.wait_for("(8 tokens", 4);
    terminal.type_keys("\u{4}");
    assert!(terminal.wait_exit().success());
    let asked: Vec<String> = bodies(&gateway)
        .iter()
        .map(|body| body["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(asked, ["first", "second", "third", "fourth"]);
}
