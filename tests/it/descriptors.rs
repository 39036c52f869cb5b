//! File descriptors: the limit on connections leaves enough for probes and the health port, and a shortage is not taken
//! for a failure of llama-server.

use std::process::Command;

use serde_json::{Value, json};

use super::support::{
    client::RawClient,
    gateway::Gateway,
    resources::{limit_open_files, open_files},
    wait::{READY, SOON, eventually, eventually_some},
};

const CHAT: &str = "/v1/chat/completions";

fn chat() -> Value {
    json!({"messages": [{"role": "user", "content": "x"}]})
}

/// Returns the number of connections left for clients, from the warning in the log.
fn connections_left(gateway: &Gateway) -> usize {
    let connections = |text: String| text.split("leaves room for ").nth(1)?.split(' ').next()?.parse().ok();
    eventually_some("the gateway says how many connections it accepts", SOON, || connections(gateway.output()))
}

#[test]
fn clients_that_use_up_all_connections_block_neither_the_probes_nor_the_health_port() {
    let gateway = Gateway::builder().open_files(128, 256).start();
    gateway.wait_ready();
    assert!(gateway.output().contains("MAX_CONNECTIONS=1024"));
    let mut early = RawClient::connect(gateway.url());
    let request = gateway.client().request("POST", CHAT, chat().to_string().as_bytes());
    early.write(&request).unwrap();
    assert_eq!(early.read_response().unwrap().status(), 200);
    let limit = connections_left(&gateway);
    let before = gateway.open_fds();
    // More connections than descriptors: some wait in the backlog of the kernel.
    let idle: Vec<_> = (0..300).map(|_| RawClient::connect(gateway.url())).collect();
    eventually("all connections are in use", SOON, || gateway.open_fds() >= before + limit - 2);
    let probes = gateway.journal().requests("/health").len();
    gateway.journal().wait_for_requests("/health", probes + 2);
    assert_eq!(gateway.health().get("/health").json()["models"][0]["state"], "ready");
    early.write(&request).unwrap();
    assert_eq!(early.read_response().unwrap().status(), 200, "a client that is connected is served");
    assert_eq!(gateway.health().get("/readyz").status(), 200);
    drop(idle);
    assert_eq!(gateway.client().post_json(CHAT, &chat()).status(), 200);
    assert_eq!(gateway.journal().starts().len(), 1);
    assert!(!gateway.output().contains("could not be accepted"), "{}", gateway.output());
}

#[test]
fn the_soft_limit_is_raised_for_the_gateway_and_not_for_llama_server() {
    let gateway = Gateway::builder().open_files(300, 2000).start();
    gateway.wait_ready();
    assert_eq!(open_files(gateway.pid()), (2000, 2000));
    assert_eq!(gateway.child_pids().into_iter().map(open_files).collect::<Vec<_>>(), [(300, 2000)]);
    assert!(!gateway.output().contains("open files"), "the limit is high enough: {}", gateway.output());
}

#[test]
fn a_limit_that_leaves_no_connections_is_a_bad_configuration() {
    let (status, output) = Gateway::builder().open_files(100, 100).run_to_exit();
    assert_eq!(status.code(), Some(78), "{output}");
    assert!(output.contains("RLIMIT_NOFILE=100") && output.contains("hint: raise the hard limit"), "{output}");
    for (limit, code, words) in [("100", 78, "RLIMIT_NOFILE=100"), ("400", 0, "warning: the limit of 400 open files")] {
        let check = format!("ulimit -n {limit}; exec \"$0\" check --mock-backend");
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &check, env!("CARGO_BIN_EXE_llamagate")]).env_clear();
        let output = shell.envs([("DATA_DIR", "/nonexistent"), ("AUTH_ENABLED", "no")]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), text.contains(words)), (Some(code), true), "{text}");
    }
}

#[test]
fn a_shortage_of_descriptors_is_not_taken_for_a_silent_llama_server() {
    let gateway = Gateway::builder().start();
    gateway.wait_ready();
    let (soft, _) = open_files(gateway.pid());
    let mut client = RawClient::connect(gateway.url());
    let mut watcher = RawClient::connect(gateway.health_url());
    let request = gateway.client().request("POST", CHAT, chat().to_string().as_bytes());
    let ask = |client: &mut RawClient, request: &[u8]| {
        client.write(request).unwrap();
        client.read_response().unwrap()
    };
    let (ping, health) = ["/ping", "/health"].map(|path| gateway.anonymous().request("GET", path, b"")).into();
    // Both connections are accepted before the limit leaves no descriptor.
    assert_eq!(ask(&mut client, &ping).status(), 200);
    assert_eq!(ask(&mut watcher, &health).status(), 200);
    limit_open_files(gateway.pid(), 3);
    let _never_accepted = RawClient::connect(gateway.url());
    for _ in 0..3 {
        let answer = ask(&mut client, &request);
        assert_eq!(answer.json()["error"]["code"], "backend_unavailable", "the request does not wait in the queue");
    }
    let count = |words: &str| gateway.output().matches(words).count();
    eventually("a probe has failed for lack of descriptors", READY, || count("could not be probed") > 0);
    assert_eq!(ask(&mut watcher, &health).json()["models"][0]["state"], "ready");
    limit_open_files(gateway.pid(), soft);
    assert_eq!(ask(&mut client, &request).status(), 200);
    assert_eq!(gateway.anonymous().get("/ping").status(), 200);
    assert_eq!(count("could not be accepted"), 1, "logged once for all connections");
    assert_eq!(count("no longer answers"), 0);
}
