//! The files of TLS: what they may hold, how they are followed while the service runs, settings that do not fit together, and
//! commands that ask a service over HTTPS.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Output,
    sync::atomic::{AtomicBool, Ordering},
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::configuration::llamagate;
use super::service_commands::free_port;
use super::support::{
    certificates::{IssuedPair, TestIssuer, openssl, replace, shown_certificate},
    client::{Client, RawClient},
    gateway::{ADMIN, Gateway, USER},
    wait::{ANSWERS, READY, SOON, eventually},
};

const CHAT: &str = "/v1/chat/completions";

fn body() -> Value {
    json!({"messages": [{"role": "user", "content": "x"}]})
}

/// Starts a gateway with the pair of this folder.
fn with_pair_of(folder: &Path) -> Gateway {
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    Gateway::builder().set("TLS_CERT", certificate.display()).set("TLS_KEY", key.display()).start_ready()
}

#[track_caller]
fn wait_shown(gateway: &Gateway, pair: &IssuedPair) {
    let is_shown = || shown_certificate(gateway.url()) == pair.certificate;
    eventually("the new certificate is shown", ANSWERS, is_shown);
}

fn warnings(gateway: &Gateway) -> Vec<String> {
    let health = gateway.health().get("/health").json();
    serde_json::from_value(health["warnings"].clone()).unwrap_or_default()
}

fn metrics(gateway: &Gateway) -> String {
    gateway.health().header("Accept", "text/plain").get("/metrics").text()
}

#[test]
fn a_certificate_is_replaced_under_load_and_no_request_is_lost() {
    let (issuer, folder) = (TestIssuer::new("ours"), tempfile::tempdir().unwrap());
    issuer.issue("one").write(folder.path());
    let gateway = with_pair_of(folder.path());
    let mut kept = RawClient::connect(gateway.url());
    let request = gateway.client().request("POST", CHAT, body().to_string().as_bytes());
    let mut ask_kept = || {
        kept.write(&request).unwrap();
        assert_eq!(kept.read_response().unwrap().status(), 200);
    };
    ask_kept();
    let is_done = AtomicBool::new(false);
    let answered = std::thread::scope(|threads| {
        let load = threads.spawn(|| {
            let mut answered = 0;
            while !is_done.load(Ordering::Acquire) {
                let answer = gateway.client().post_json(CHAT, &body());
                assert_eq!((answer.status(), answer.complete), (200, true));
                answered += 1;
            }
            answered
        });
        let two = issuer.issue("two");
        two.write(folder.path());
        wait_shown(&gateway, &two);
        is_done.store(true, Ordering::Release);
        load.join().unwrap()
    });
    assert!(answered > 0);
    ask_kept();
    eventually("it is counted", SOON, || {
        metrics(&gateway).contains("llamagate_tls_reloads_total{outcome=\"replaced\"} 1")
    });
    assert!(
        metrics(&gateway).contains("llamagate_tls_certificate_expiry_timestamp_seconds{source=\"files\"} 4070908800")
    );
}

/// Kubernetes replaces the link `..data`, through which the files of a volume lead.
#[test]
fn a_volume_whose_link_is_replaced_is_followed() {
    let (issuer, folder) = (TestIssuer::new("ours"), tempfile::tempdir().unwrap());
    let version = |name: &str| {
        let of_version = folder.path().join(name);
        fs::create_dir(&of_version).unwrap();
        let pair = issuer.issue(name);
        pair.write(&of_version);
        let _ = symlink(name, folder.path().join("..data_tmp"));
        fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data")).unwrap();
        pair
    };
    let first = version("first");
    for file in ["cert.pem", "key.pem"] {
        symlink(Path::new("..data").join(file), folder.path().join(file)).unwrap();
    }
    let gateway = with_pair_of(folder.path());
    assert_eq!(shown_certificate(gateway.url()), first.certificate);
    let second = version("second");
    wait_shown(&gateway, &second);
}

#[test]
fn a_broken_pair_keeps_the_one_of_before_and_is_told_once() {
    let (issuer, folder) = (TestIssuer::new("ours"), tempfile::tempdir().unwrap());
    let first = issuer.issue("first");
    first.write(folder.path());
    let gateway = with_pair_of(folder.path());
    replace(&folder.path().join("cert.pem"), "no certificate");
    eventually("it is told", ANSWERS + ANSWERS, || {
        warnings(&gateway).iter().any(|text| text.starts_with("TLS_CERT is not taken"))
    });
    assert_eq!(shown_certificate(gateway.url()), first.certificate);
    assert!(metrics(&gateway).contains("llamagate_tls_reloads_total{outcome=\"failed\"} 1"));
    let answer = gateway.client_with(ADMIN).post_json("/reload", &json!({}));
    assert!(answer.status() >= 400 && answer.text().contains("TLS_CERT"), "{}", answer.text());

    let second = issuer.issue("second");
    second.write(folder.path());
    wait_shown(&gateway, &second);
    eventually("the warning ends", SOON, || warnings(&gateway).is_empty());
    assert_eq!(gateway.output().matches("the TLS certificate of before stays in use").count(), 1);
}

#[test]
fn a_signal_to_reload_takes_a_new_pair_and_new_authorities_of_clients() {
    let (issuer, clients, folder) = (TestIssuer::new("s"), TestIssuer::new("c"), tempfile::tempdir().unwrap());
    let (certificate, key) = issuer.issue("one").write(folder.path());
    let root = clients.write_root(folder.path());
    let gateway = Gateway::builder()
        .set("TLS_CERT", certificate.display())
        .set("TLS_KEY", key.display())
        .set("TLS_CLIENT_CA", root.display())
        .start_ready();
    let ask = |certificate: &IssuedPair| {
        let mut client = RawClient::over(gateway.url(), issuer.client_config(Some(certificate)))?;
        client.write(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")?;
        client.read_response().map(|answer| answer.status())
    };
    let (old, others) = (clients.issue("a"), TestIssuer::new("d"));
    assert_eq!(ask(&old).unwrap(), 200);
    others.write_root(folder.path());
    gateway.signal(Signal::SIGHUP);
    eventually("clients of the other authority are let in", ANSWERS, || {
        ask(&others.issue("b")).is_ok_and(|it| it == 200)
    });
    assert!(ask(&old).is_err());
}

#[test]
fn a_certificate_that_has_expired_is_served_and_warned_about() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = TestIssuer::new("ours").issue_until("old", 2020).write(folder.path());
    let gateway = with_pair_of(folder.path());
    assert_eq!(gateway.client().post_json(CHAT, &body()).status(), 200);
    let expected = "the TLS certificate has expired on 2020-01-01: clients refuse it";
    assert_eq!(warnings(&gateway), [expected]);
    let data = folder.path().display().to_string();
    let output = llamagate(
        &["check"],
        &[
            ("DATA_DIR", &data),
            ("MOCK_BACKEND", "true"),
            ("AUTH_ENABLED", "false"),
            ("TLS_CERT", &certificate.display().to_string()),
            ("TLS_KEY", &key.display().to_string()),
        ],
    );
    assert!(String::from_utf8_lossy(&output.stderr).contains(expected), "{output:?}");
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(stdout.contains("valid until 2020-01-01") && stdout.contains("\nSHA-256 "), "{stdout}");
}

#[test]
fn keys_in_each_usual_form_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (made, key, certificate) = (path("made.pem"), path("key.pem"), path("cert.pem"));
    for (kind, form) in [
        (&["ecparam", "-genkey", "-noout", "-name", "prime256v1"][..], &["ec"][..]),
        (&["ecparam", "-genkey", "-noout", "-name", "secp384r1"], &["pkcs8", "-topk8", "-nocrypt"]),
        (&["genrsa", "2048"], &["rsa", "-traditional"]),
        (&["genrsa", "2048"], &["pkcs8", "-topk8", "-nocrypt"]),
        (&["genpkey", "-algorithm", "ed25519"], &["pkey"]),
    ] {
        let out =
            if kind[0] == "genrsa" { vec!["genrsa", "-out", &made, "2048"] } else { [kind, &["-out", &made]].concat() };
        openssl(&out);
        openssl(&[form, &["-in", &made, "-out", &key]].concat());
        openssl(&["req", "-x509", "-new", "-key", &made, "-subj", "/CN=x", "-days", "9", "-out", &certificate]);
        let gateway = with_pair_of(folder.path());
        assert_eq!(gateway.anonymous().get("/ping").status(), 200, "{kind:?} {form:?}");
    }
}

#[test]
fn settings_that_do_not_fit_together_and_files_that_do_not_are_refused_by_name() {
    let (issuer, folder) = (TestIssuer::new("ours"), tempfile::tempdir().unwrap());
    let (certificate, key) = issuer.issue("one").write(folder.path());
    let other = tempfile::tempdir().unwrap();
    let (_, other_key) = issuer.issue("two").write(other.path());
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let other_key = other_key.display().to_string();
    let locked = folder.path().join("locked.pem").display().to_string();
    openssl(&["pkey", "-in", &key, "-aes256", "-passout", "pass:secret", "-out", &locked]);
    for (settings, expected) in [
        (&[("TLS_CERT", &*certificate)][..], "TLS_CERT: there is no TLS_KEY"),
        (&[("TLS_KEY", &key)], "TLS_KEY: there is no TLS_CERT"),
        (
            &[("TLS_CERT", &certificate), ("TLS_KEY", &key), ("TLS_SELF_SIGNED", "true")],
            "TLS_SELF_SIGNED=true: TLS_CERT",
        ),
        (&[("TLS_CLIENT_CA", &certificate)], "TLS_CLIENT_CA: there is no TLS"),
        (&[("TLS_HEALTH", "true")], "TLS_HEALTH=true: there is no TLS"),
        (&[("TLS_CERT", &certificate), ("TLS_KEY", &other_key)], "its private key belongs to another certificate"),
        (&[("TLS_CERT", &certificate), ("TLS_KEY", &certificate)], "it holds no private key in PEM"),
        (&[("TLS_CERT", &key), ("TLS_KEY", &key)], "it holds no certificate in PEM"),
        (&[("TLS_CERT", &certificate), ("TLS_KEY", &locked)], "its private key is encrypted"),
        (&[("TLS_CERT", "/no/such.pem"), ("TLS_KEY", &key)], "it cannot be read"),
        (&[("TLS_SELF_SIGNED", "true"), ("TLS_CLIENT_CA", &key)], "it holds no certificate in PEM"),
    ] {
        let (status, output) = Gateway::builder().set_all(settings).run_to_exit();
        assert_eq!(status.code(), Some(78), "{output}");
        assert!(output.contains(expected), "{expected}: {output}");
    }
}

#[test]
fn a_certificate_that_the_service_makes_is_kept_over_restarts_with_a_private_key() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().display().to_string();
    let start = |public: &str| {
        Gateway::builder()
            .secure()
            .set("TLS_SELF_SIGNED", true)
            .set_all(&[("DATA_DIR", &data), ("PUBLIC_IPADDR", public)])
            .start()
    };
    let mut shown = BTreeSet::new();
    for _ in 0..2 {
        let mut gateway = start("192.0.2.7");
        shown.insert(shown_certificate(gateway.url()));
        assert_eq!(gateway.stop().code(), Some(0));
    }
    assert_eq!(shown.len(), 1);
    let key = folder.path().join("tls/self-signed.key");
    assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    let gateway = start("192.0.2.8");
    assert!(!shown.contains(&shown_certificate(gateway.url())), "the machine has another address");
    assert!(gateway.output().contains("192.0.2.8") && gateway.output().contains("SHA-256 fingerprint"));
}

/// Regression: a key that the service could not read was taken for none, and the pair that clients trusted was replaced.
#[test]
fn a_kept_certificate_that_cannot_be_read_fails_the_start_and_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let builder = || Gateway::builder().secure().set("DATA_DIR", folder.path().display());
    let mut gateway = builder().start();
    let shown = shown_certificate(gateway.url());
    assert_eq!(gateway.stop().code(), Some(0));
    let (key, aside) = (folder.path().join("tls/self-signed.key"), folder.path().join("aside"));
    fs::rename(&key, &aside).unwrap();
    // No user can read it as a file, root included.
    fs::create_dir(&key).unwrap();
    let (status, output) = builder().run_to_exit();
    assert_eq!(status.code(), Some(78), "{output}");
    assert!(output.contains("the certificate that is kept cannot be read"), "{output}");
    fs::remove_dir(&key).unwrap();
    fs::rename(&aside, &key).unwrap();
    let gateway = builder().start();
    assert_eq!(shown_certificate(gateway.url()), shown);
}

#[test]
fn a_key_that_other_users_can_read_is_warned_about_once() {
    let folder = tempfile::tempdir().unwrap();
    let (_, key) = TestIssuer::new("ours").issue("one").write(folder.path());
    let set_mode = |mode| fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
    let warning = "WARN other users can read or write TLS_KEY";
    // As in a volume of Kubernetes.
    set_mode(0o440);
    let gateway = with_pair_of(folder.path());
    assert!(!gateway.output().contains(warning));
    set_mode(0o644);
    eventually("the next look tells it", ANSWERS, || gateway.output().contains(warning));
    assert_eq!(gateway.client_with(ADMIN).post_json("/reload", &json!({})).status(), 200);
    assert_eq!(gateway.output().matches(warning).count(), 1);
}

#[test]
fn commands_on_this_machine_know_the_certificate_and_others_are_told_it() {
    let gateway = Gateway::builder().secure().set("TLS_HEALTH", true).start_ready();
    let data = gateway.data_dir().display().to_string();
    let port = gateway.health_url().rsplit(':').next().unwrap().to_owned();
    let run = |arguments: &[&str], variables: &[(&str, &str)]| -> (bool, String) {
        let Output { status, stdout, stderr } =
            llamagate(arguments, &[&[("LLAMAGATE_KEY", ADMIN)][..], variables].concat());
        (status.success(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
    };
    let of_data_dir = [("DATA_DIR", &*data)];
    let (is_good, text) = run(&["status"], &of_data_dir);
    assert!(is_good && text.contains(gateway.url()) && text.contains("ready"), "{text}");
    let (is_good, text) = run(&["ps"], &of_data_dir);
    assert!(is_good, "{text}");
    let (is_good, text) = run(&["ps", "--url", gateway.url()], &[]);
    assert!(is_good, "a service of this user is recognised by its port: {text}");
    let health = [("PORT_HEALTH", &*port), ("HOST", "127.0.0.1"), ("TLS_SELF_SIGNED", "true"), ("TLS_HEALTH", "true")];
    assert_eq!(run(&["health"], &health), (true, "serving\n".to_owned()));

    let file = gateway.data_dir().join("tls/self-signed.pem").display().to_string();
    assert!(run(&["ps", "--url", gateway.url(), "--cacert", &file], &[]).0);
    assert!(run(&["ps"], &[("LLAMAGATE_URL", gateway.url()), ("LLAMAGATE_CA", &file)]).0);
    let other = tempfile::tempdir().unwrap();
    let root = TestIssuer::new("theirs").write_root(other.path()).display().to_string();
    let (is_good, text) = run(&["ps", "--url", gateway.url(), "--cacert", &root], &[]);
    assert!(!is_good && text.contains("is not trusted"), "{text}");
}

#[test]
fn commands_show_a_certificate_where_the_service_asks_for_one() {
    let (servers, clients, folder) = (TestIssuer::new("s"), TestIssuer::new("c"), tempfile::tempdir().unwrap());
    let (certificate, key) = servers.issue("server").write(folder.path());
    let root = clients.write_root(folder.path());
    let gateway = Gateway::builder().set("TLS_CERT", certificate.display()).set("TLS_KEY", key.display());
    let gateway = gateway.set("TLS_CLIENT_CA", root.display()).set("TLS_HEALTH", true).start();
    // The health port answers no probe without a certificate.
    eventually("it is ready", READY, || gateway.output().contains("llamagate is ready"));
    let data = gateway.data_dir().display().to_string();
    let health_port = gateway.health_url().rsplit(':').next().unwrap().to_owned();
    let run = |arguments: &[&str], variables: &[(&str, &str)]| -> (bool, String) {
        let base = [("LLAMAGATE_KEY", ADMIN), ("DATA_DIR", &*data)];
        let Output { status, stdout, stderr } = llamagate(arguments, &[&base[..], variables].concat());
        (status.success(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
    };
    let own = tempfile::tempdir().unwrap();
    let (alice, alice_key) = clients.issue("alice").write(own.path());
    let both = own.path().join("both.pem");
    let joined = [fs::read(&alice).unwrap(), fs::read(&alice_key).unwrap()].concat();
    fs::write(&both, joined).unwrap();
    let [alice, alice_key, both] = [alice, alice_key, both].map(|path| path.display().to_string());
    let variables = [("LLAMAGATE_CERT", &*alice), ("LLAMAGATE_CERT_KEY", &*alice_key)];

    assert!(!run(&["ps"], &[]).0, "without a certificate there is no connection");
    for (arguments, variables) in [
        (&["ps", "--cert", &alice, "--cert-key", &alice_key][..], &[][..]),
        (&["ps", "--cert", &both], &[]),
        (&["ps"], &variables),
        (&["ps"], &[("LLAMAGATE_CERT", &*both)]),
        (&["ps", "--cert", &alice], &[("LLAMAGATE_CERT_KEY", &*alice_key)]),
        (&["logs"], &variables),
        (&["audit", "--url", gateway.url()], &variables),
    ] {
        let (is_good, text) = run(arguments, variables);
        assert!(is_good, "{arguments:?}: {text}");
    }
    let (is_good, text) = run(&["status"], &variables);
    assert!(is_good && text.contains("ready"), "{text}");
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let place = [("HOST", "127.0.0.1"), ("PORT_HEALTH", &*health_port), ("TLS_HEALTH", "true")];
    let place = [&place[..], &[("TLS_CERT", &*certificate), ("TLS_KEY", &*key)]].concat();
    assert!(!run(&["health"], &place).0);
    assert_eq!(run(&["health"], &[&place[..], &variables].concat()), (true, "serving\n".to_owned()));

    let other_key = key.as_str();
    for (arguments, words) in [
        (&["ps", "--cert", &alice, "--cert-key", other_key][..], "it is no key of the certificate"),
        (&["ps", "--cert", &alice_key, "--cert-key", &alice_key], "it holds no certificate in PEM"),
        (&["ps", "--cert", &alice], "it holds no private key in PEM"),
        (&["ps", "--cert", "/no/such.pem"], "No such file"),
        (&["ps", "--cert-key", &alice_key], "--cert"),
    ] {
        let (is_good, text) = run(arguments, &[]);
        assert!(!is_good && text.contains(words) && !text.contains("PRIVATE"), "{arguments:?}: {text}");
    }
    let (is_good, text) = run(&["health"], &[&place[..], &[("LLAMAGATE_CERT", "/no/such.pem")]].concat());
    assert!(!is_good && text.contains("LLAMAGATE_CERT: "), "{text}");
}

#[test]
fn tls_that_a_platform_or_its_probes_cannot_speak_is_warned_about() {
    let folder = tempfile::tempdir().unwrap();
    let root = TestIssuer::new("clients").write_root(folder.path()).display().to_string();
    let data = folder.path().display().to_string();
    let base = [("DATA_DIR", &*data), ("MOCK_BACKEND", "true"), ("AUTH_ENABLED", "false"), ("TLS_SELF_SIGNED", "true")];
    let check = |variables: &[(&str, &str)]| {
        let output = llamagate(&["check"], &[&base[..], variables].concat());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let exposed = "every machine that reaches the port can use the models";
    assert!(check(&[]).contains(exposed));
    let with_clients = check(&[("TLS_CLIENT_CA", &root)]);
    assert!(!with_clients.contains(exposed) && !with_clients.contains("probes"), "{with_clients}");
    let probed = check(&[("TLS_CLIENT_CA", &root), ("TLS_HEALTH", "true")]);
    assert!(probed.contains("probes without a certificate are refused"), "{probed}");
    let behind = check(&[("RUNPOD_ENDPOINT_ID", "e")]);
    assert!(behind.contains("RunPod's load balancer speaks plain HTTP"), "{behind}");
    assert!(!folder.path().join("tls").exists(), "a check makes no certificate");
}

#[test]
fn one_port_for_both_speaks_tls_for_probes_too() {
    let port = free_port().to_string();
    let client = Client::new(&format!("https://127.0.0.1:{port}"));
    let (_process, _folder) = Gateway::builder().secure().set("PORT", &port).set("PORT_HEALTH", &port).launch();
    let is_serving = || client.try_send("GET", "/ping", b"").is_ok_and(|answer| answer.status() == 200);
    eventually("probes are answered", READY, is_serving);
    assert_eq!(client.clone().key(USER).post_json(CHAT, &body()).status(), 200);
    assert_eq!(client.get("/health").json()["status"], "ok");
    let health = [("PORT", &*port), ("PORT_HEALTH", &port), ("HOST", "127.0.0.1"), ("TLS_SELF_SIGNED", "true")];
    assert_eq!(String::from_utf8_lossy(&llamagate(&["health"], &health).stdout), "serving\n");
}

#[test]
fn a_service_drains_over_tls() {
    let mut gateway = Gateway::builder().script(json!({"hold_requests": [CHAT]})).secure().start_ready();
    let mut client = RawClient::connect(gateway.url());
    client.write(&gateway.client().request("POST", CHAT, body().to_string().as_bytes())).unwrap();
    gateway.journal().wait_for_requests(CHAT, 1);
    gateway.signal(Signal::SIGTERM);
    eventually("new requests are refused", ANSWERS, || {
        gateway
            .client()
            .try_send("POST", CHAT, body().to_string().as_bytes())
            .is_ok_and(|answer| answer.status() == 503)
    });
    gateway.control().release_all_requests();
    let answer = client.read_response().unwrap();
    assert_eq!((answer.status(), answer.complete), (200, true));
    assert_eq!(gateway.wait_exit().code(), Some(0));
}
