//! `llamagate launch`: the configurations of coding agents are changed where they must be, after a yes, and kept beside.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::acme::{NAME, ping_as, start_issued, with_ca};
use super::support::{
    acme::AcmeServer,
    certificates::TestIssuer,
    client_program::{run_client, script},
    gateway::{Gateway, USER, python},
    terminal::Terminal,
};

fn command(gateway: &Gateway, home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llamagate"));
    command.arg("launch").args(arguments).env_clear().env("HOME", home);
    command.envs([("LLAMAGATE_URL", gateway.url()), ("LLAMAGATE_KEY", USER)]);
    command
}

fn launch(gateway: &Gateway, home: &Path, arguments: &[&str]) -> Output {
    command(gateway, home, arguments).output().unwrap()
}

const FILES: [(&str, &str); 5] = [
    ("claude", ".claude/settings.json"),
    ("codex", ".codex/config.toml"),
    ("opencode", ".config/opencode/opencode.json"),
    ("aider", ".aider.conf.yml"),
    ("continue", ".continue/config.yaml"),
];

#[test]
fn every_agent_is_pointed_at_the_service_once() {
    let gateway = Gateway::builder().start_ready();
    let home = tempfile::tempdir().unwrap();
    for (agent, file) in FILES {
        let refused = launch(&gateway, home.path(), &[agent]);
        assert_eq!(refused.status.code(), Some(78), "{refused:?}");
        let shown = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(shown.contains("\n+ ") && shown.contains("no terminal to ask on"), "{shown}");
        assert!(!shown.contains(USER), "the key is not shown: {shown}");
        let path = home.path().join(file);
        assert!(!path.exists(), "nothing is written unasked");
        let written = launch(&gateway, home.path(), &[agent, "--yes", "--json"]);
        let report: Value = serde_json::from_slice(&written.stdout).unwrap_or_else(|_| panic!("{written:?}"));
        assert_eq!((&report["model"], &report["changed"]), (&json!("dummy"), &json!(true)));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(gateway.url()) && text.contains("dummy"), "{text}");
        assert_eq!(text.contains(USER), agent == "aider", "only Aider needs the key in its file: {text}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = launch(&gateway, home.path(), &[agent, "--json"]);
        let report: Value = serde_json::from_slice(&again.stdout).unwrap_or_else(|_| panic!("{again:?}"));
        assert_eq!((&report["changed"], &report["backup"]), (&json!(false), &Value::Null));
    }
}

#[test]
fn a_configuration_that_was_there_is_shown_asked_about_and_kept_beside() {
    let gateway = Gateway::builder().start_ready();
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(".claude/settings.json");
    fs::create_dir(path.parent().unwrap()).unwrap();
    let before = "{\n  \"theme\": \"dark\"\n}\n";
    fs::write(&path, before).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    for (answer, is_written) in [("n\n", false), ("y\n", true)] {
        let mut terminal = Terminal::start(&mut command(&gateway, home.path(), &["claude"]));
        terminal.wait_for("Write this? [y/N]", 1);
        assert!(terminal.screen().contains("ANTHROPIC_BASE_URL"), "{}", terminal.screen());
        terminal.type_keys(answer);
        assert_eq!(terminal.wait_exit().success(), is_written);
        assert_eq!(fs::read_to_string(&path).unwrap() != before, is_written);
    }
    let after: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!((&after["theme"], &after["env"]["ANTHROPIC_BASE_URL"]), (&json!("dark"), &json!(gateway.url())));
    let backups = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let backups: Vec<_> = backups.filter(|path| path.extension().is_some_and(|end| end == "bak")).collect();
    assert_eq!(backups.len(), 1);
    assert_eq!(fs::read_to_string(&backups[0]).unwrap(), before);
    for path in [&path, &backups[0]] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o640, "{path:?}");
    }
}

#[test]
fn what_is_shown_has_no_secret_in_it() {
    let gateway = Gateway::builder().start_ready();
    let home = tempfile::tempdir().unwrap();
    let before =
        "openai-api-key: sk-of-before\nother-token: sk-beside\napi-key:\n  - gemini=sk-in-a-list\ndark-mode: true\n";
    fs::write(home.path().join(".aider.conf.yml"), before).unwrap();
    let shown = launch(&gateway, home.path(), &["aider"]);
    let shown = String::from_utf8_lossy(&shown.stderr).into_owned();
    assert!(!shown.contains("sk-") && !shown.contains(USER), "{shown}");
    assert!(shown.contains("- openai-api-key: ***\n") && shown.contains("+ model: \"openai/dummy\"\n"), "{shown}");
}

#[test]
fn yaml_in_braces_is_refused_and_stays_as_it_is() {
    let gateway = Gateway::builder().start_ready();
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(".aider.conf.yml");
    for before in ["{dark-mode: true}\n", "\"model\": gpt\n"] {
        fs::write(&path, before).unwrap();
        let refused = launch(&gateway, home.path(), &["aider", "--yes"]);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        let fault = ".aider.conf.yml: it is not written as one key on a line, so nothing can be added: ";
        assert!(String::from_utf8_lossy(&refused.stderr).contains(fault), "{refused:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
    }
}

#[test]
fn what_cannot_be_changed_is_left_as_it_is() {
    let gateway = Gateway::builder().start_ready();
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(".codex/config.toml");
    fs::create_dir(path.parent().unwrap()).unwrap();
    fs::write(&path, "model = [").unwrap();
    let refused = launch(&gateway, home.path(), &["codex", "--yes"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("config.toml: it is no TOML"), "{refused:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "model = [");
    let unknown = launch(&gateway, home.path(), &["aider", "--yes", "--model", "a/b c"]);
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("404 model_not_found"), "{unknown:?}");
    assert!(!home.path().join(".aider.conf.yml").exists());
}

/// Regression: the file with the key of such a certificate was printed as what agents must trust.
#[test]
fn with_a_certificate_of_a_ca_an_agent_is_pointed_at_its_name_and_told_to_trust_the_ca() {
    let (ca, folder, home) = (AcmeServer::start(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let builder = with_ca(&ca, folder.path()).set("TLS_ACME_DOMAINS", format!("{NAME},localhost"));
    let gateway = start_issued(&ca, builder);
    gateway.wait_ready();
    let path = home.path().join(".claude/settings.json");

    // The service is found by its address, for which the certificate is not.
    let refused = launch(&gateway, home.path(), &["claude", "--yes"]);
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(78), 0), "{refused:?}");
    let advice = format!("is for {NAME}, and agents take it for no other: give --url https://{NAME}, with the port");
    assert!(String::from_utf8_lossy(&refused.stderr).contains(&advice), "{refused:?}");

    let url = gateway.url().replace("127.0.0.1", "localhost");
    let other = TestIssuer::new("another CA").write_root(home.path()).display().to_string();
    let refused = launch(&gateway, home.path(), &["claude", "--yes", "--url", &url, "--cacert", &other]);
    assert_eq!(refused.status.code(), Some(69), "{refused:?}");
    assert!(!path.exists(), "nothing is written of a service that may be another one");

    let root = ca.write_root(folder.path());
    let written = launch(&gateway, home.path(), &["claude", "--yes", "--url", &url, "--cacert", &root]);
    assert!(written.status.success(), "{written:?}");
    let expected = format!(
        "{} is written. Start it: claude\n\
         It must trust the certificate: export NODE_EXTRA_CA_CERTS={root} SSL_CERT_FILE={root}\n\
         It reads the key from the environment: export LLAMAGATE_KEY=...\n",
        path.display()
    );
    assert_eq!(String::from_utf8_lossy(&written.stdout), expected);
    let settings: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(settings["env"]["ANTHROPIC_BASE_URL"], json!(url));

    // What is printed suffices for the service: its certificate is of the CA, and clients that trust the file are served.
    assert_eq!(ping_as(&url, "localhost", ca.issuer().client_config(None)).unwrap(), "HTTP/1.1 200 OK");
    let mut client = Command::new(python());
    client.arg(script("https_client.py")).args([&format!("{url}/v1"), USER]);
    run_client(client.env("SSL_CERT_FILE", &root));
}
