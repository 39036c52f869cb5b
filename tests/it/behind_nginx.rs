//! The gateway behind a real nginx, with the snippet of docs/DEPLOYMENT.md.

use std::{fs, net::TcpListener, path::Path, process::Command};

use serde_json::json;

use super::accounts::access_log_line;
use super::support::{
    client::Client,
    gateway::{Gateway, USER, nginx},
    process::Process,
    wait::{STARTS, eventually},
};

const CHAT: &str = "/v1/chat/completions";
const GUIDE: &str = include_str!("../../docs/DEPLOYMENT.md");

struct Nginx {
    url: String,
    _process: Process,
    _folder: tempfile::TempDir,
}

impl Nginx {
    /// Starts nginx in front of a gateway.
    fn start(gateway: &Gateway) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let snippet = GUIDE.split_once("```nginx\n").unwrap().1.split_once("```").unwrap().0;
        let snippet = snippet.replace("http://127.0.0.1:8000", gateway.url());
        assert!(snippet.contains(gateway.url()), "the snippet names the gateway");
        let file = folder.path().join("nginx.conf");
        fs::write(&file, configuration(folder.path(), port, &snippet)).unwrap();
        let mut command = Command::new(nginx());
        command.args(["-p", folder.path().to_str().unwrap(), "-c", file.to_str().unwrap(), "-e", "stderr"]);
        let process = Process::start("nginx", &mut command, folder.path());
        let url = format!("http://127.0.0.1:{port}");
        eventually("nginx answers", STARTS, || Client::new(&url).try_send("GET", "/ping", b"").is_ok());
        Self { url, _process: process, _folder: folder }
    }

    fn client(&self) -> Client {
        Client::new(&self.url).key(USER)
    }
}

fn configuration(folder: &Path, port: u16, snippet: &str) -> String {
    let folder = folder.display();
    format!(
        "daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nevents {{}}\nhttp {{\n\
         access_log off;\n\
         client_body_temp_path {folder}/body;\nproxy_temp_path {folder}/proxy;\n\
         fastcgi_temp_path {folder}/fastcgi;\nuwsgi_temp_path {folder}/uwsgi;\nscgi_temp_path {folder}/scgi;\n\
         server {{\nlisten 127.0.0.1:{port};\n{snippet}\n}}\n}}\n"
    )
}

fn trusting() -> [(&'static str, &'static str); 1] {
    [("TRUSTED_PROXIES", "127.0.0.1")]
}

#[test]
fn each_event_of_a_stream_arrives_before_the_next_is_made() {
    let script = json!({"hold_mid_stream": {"after_frames": 2}});
    let gateway = Gateway::builder().script(script).set_all(&trusting()).start_ready();
    let nginx = Nginx::start(&gateway);
    let body = json!({"messages": [{"role": "user", "content": "hi"}], "stream": true});
    let mut stream = nginx.client().stream(CHAT, &body);
    assert!(stream.next_event().is_some(), "it arrives while llama-server waits");
    gateway.control().release_all_requests();
    assert!(stream.events().last().is_some_and(|event| event.is_done()));
    assert!(stream.is_complete());
}

#[test]
fn the_access_log_names_the_client_and_not_nginx() {
    let gateway = Gateway::builder().set_all(&trusting()).start_ready();
    let nginx = Nginx::start(&gateway);
    let body = json!({"messages": [{"role": "user", "content": "hi"}]});
    for (id, sent, expected) in [
        ("direct", None, "127.0.0.1"),
        // This test has the address of a trusted proxy, so the address in front of its own counts.
        ("forwarded", Some("203.0.113.5, 192.0.2.66"), "192.0.2.66"),
    ] {
        let client = nginx.client().header("X-Request-Id", id);
        let client = match sent {
            Some(sent) => client.header("X-Forwarded-For", sent),
            None => client,
        };
        assert_eq!(client.post_json(CHAT, &body).status(), 200);
        assert_eq!(access_log_line(&gateway, id)["client"], expected, "{id}");
    }
}

#[test]
fn a_body_that_is_too_large_is_refused_by_the_gateway_which_names_its_setting() {
    let gateway = Gateway::builder().set_all(&trusting()).set("MAX_REQUEST_BODY_SIZE", "2MiB").start_ready();
    let nginx = Nginx::start(&gateway);
    let long = |bytes: usize| json!({"messages": [{"role": "user", "content": "x".repeat(bytes)}]});
    assert_eq!(nginx.client().post_json(CHAT, &long(1_500_000)).status(), 200, "more than nginx's default of 1 MB");
    let refused = nginx.client().post_json(CHAT, &long(3_000_000));
    assert_eq!(refused.status(), 413);
    assert!(refused.text().contains("MAX_REQUEST_BODY_SIZE"), "{}", refused.text());
}
