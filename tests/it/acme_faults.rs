//! Certificates of a CA by ACME: a CA that refuses, lies or is away, files that are damaged, settings that do not fit.

use std::{collections::BTreeSet, fs, os::unix::fs::symlink};

use nix::sys::signal::Signal;
use serde_json::json;

use super::{
    acme::{
        CHAT, NAME, body, ca_folder, metric, orders, ping_as, shown_names, start_issued, start_looked_at, stop,
        wait_issued, with_ca, with_kept,
    },
    service_commands::free_port,
    support::{
        acme::{AcmeFaults, AcmeServer, BadCertificate, DUE, LONG},
        certificates::shown_certificate,
        gateway::Gateway,
        wait::{ANSWERS, eventually},
    },
};

/// Returns each fault of a CA, the outcome that is counted, and what the log says of it.
fn faults() -> Vec<(AcmeFaults, &'static str, &'static str)> {
    let none = AcmeFaults::default;
    let issues = |bad| AcmeFaults { issues: Some(bad), ..none() };
    let refuses = |refusal| AcmeFaults { refuses_orders: Some(refusal), ..none() };
    vec![
        (AcmeFaults { is_away: Some((503, "<html>")), ..none() }, "failed", "answered 503 Service Unavailable"),
        (AcmeFaults { is_away: Some((200, "<html>")), ..none() }, "failed", "failed to (de)serialize JSON"),
        (
            refuses((429, "rateLimited", "too many certificates", "")),
            "rate_limited",
            "rateLimited: too many certificates",
        ),
        (
            refuses((403, "rejectedIdentifier", "not for\nthis name", "")),
            "failed",
            "rejectedIdentifier: not for this name",
        ),
        (refuses((500, "serverInternal", "broken", "")), "failed", "serverInternal: broken"),
        (
            AcmeFaults { looks_at: Some(free_port()), ..none() },
            "failed",
            "could not validate llm.example.org: unauthorized: Conn",
        ),
        (AcmeFaults { has_other_challenges: true, ..none() }, "failed", "offers no TLS-ALPN-01 for llm.example.org"),
        (AcmeFaults { bad_nonces: 1000, ..none() }, "failed", "badNonce"),
        (AcmeFaults { is_downgraded: true, ..none() }, "failed", "names an address without https"),
        (issues(BadCertificate::OtherKey), "failed", "its private key belongs to another certificate"),
        (issues(BadCertificate::OtherNames), "failed", "the certificate is for other.example.org"),
        (issues(BadCertificate::Expired), "failed", "the certificate has expired on"),
        (issues(BadCertificate::BrokenChain), "failed", "its chain does not lead to the last certificate"),
        (issues(BadCertificate::NoCertificate), "failed", "it holds no certificate in PEM"),
    ]
}

#[test]
fn whatever_the_ca_does_the_certificate_of_before_stays_until_a_good_one_comes() {
    let (ca, folder) = (AcmeServer::start(), tempfile::tempdir().unwrap());
    ca.set_life(DUE);
    let gateway = with_ca(&ca, folder.path()).start_ready();
    ca.look_at(gateway.url());
    wait_issued(&gateway, 1.0);
    // Each wait is longer than the one before it, but for an order to reload.
    let try_again = || gateway.signal(Signal::SIGHUP);
    for (fault, outcome, expected) in faults() {
        ca.set_faults(fault.clone());
        try_again();
        let told = || gateway.output().matches(expected).count();
        // An order of before the fault may have brought a certificate until then, but none does after it.
        eventually(expected, ANSWERS, || told() >= 1);
        let shown = shown_certificate(gateway.url());
        try_again();
        eventually("it is tried again", ANSWERS, || told() >= 2);
        assert_eq!(shown_certificate(gateway.url()), shown, "{expected}");
        assert!(orders(&gateway, outcome) >= 1.0, "{outcome}: {expected}");
        let warnings = gateway.health().get("/health").json()["warnings"].to_string();
        assert!(warnings.contains("no TLS certificate for llm.example.org: "), "{warnings}");
        assert!(warnings.contains("the TLS certificate of before stays in use"), "{warnings}");
        let issued = orders(&gateway, "issued");
        ca.set_faults(AcmeFaults::default());
        try_again();
        wait_issued(&gateway, issued + 1.0);
    }
    assert_eq!(ping_as(gateway.url(), NAME, ca.issuer().client_config(None)).unwrap(), "HTTP/1.1 200 OK");
    let issued = orders(&gateway, "issued");
    ca.set_life(LONG);
    try_again();
    wait_issued(&gateway, issued + 1.0);
    let is_silent = || gateway.health().get("/health").json()["warnings"] == json!([]);
    eventually("nothing is warned about", ANSWERS, is_silent);
    assert_eq!(gateway.client().post_json(CHAT, &body()).status(), 200);
}

#[test]
fn a_ca_that_asks_for_a_wait_is_not_asked_before_not_even_by_a_reload() {
    let (ca, folder) = (AcmeServer::start(), tempfile::tempdir().unwrap());
    let refusal = (429, "rateLimited", "later", "3600");
    ca.set_faults(AcmeFaults { refuses_orders: Some(refusal), ..AcmeFaults::default() });
    let gateway = with_ca(&ca, folder.path()).start();
    ca.look_at(gateway.url());
    eventually("the log names the wait", ANSWERS, || gateway.output().contains("in 1h"));
    ca.set_faults(AcmeFaults::default());
    gateway.signal(Signal::SIGHUP);
    eventually("it is reloaded", ANSWERS, || gateway.output().contains("configuration and keys reloaded"));
    assert_eq!((ca.count("/order"), orders(&gateway, "rate_limited"), orders(&gateway, "issued")), (1, 1.0, 0.0));
    assert_eq!(shown_names(gateway.url()), BTreeSet::from(["localhost".to_owned()]));
}

#[test]
fn a_short_wait_that_the_ca_asks_for_is_kept_and_then_it_is_asked_again() {
    let (ca, folder) = (AcmeServer::start(), tempfile::tempdir().unwrap());
    ca.set_faults(AcmeFaults { refuses_orders: Some((503, "serverInternal", "later", "1")), ..AcmeFaults::default() });
    let gateway = with_ca(&ca, folder.path()).start();
    ca.look_at(gateway.url());
    eventually("the log tells it", ANSWERS, || gateway.output().contains("serverInternal: later"));
    ca.set_faults(AcmeFaults::default());
    wait_issued(&gateway, 1.0);
    assert_eq!(orders(&gateway, "failed"), 1.0);
}

#[test]
fn after_a_failure_a_reload_orders_at_once() {
    let (ca, folder) = (AcmeServer::start(), tempfile::tempdir().unwrap());
    ca.set_faults(AcmeFaults { looks_at: Some(free_port()), ..AcmeFaults::default() });
    let gateway = with_ca(&ca, folder.path()).set("TLS_ACME_RETRY", "1h").start();
    ca.look_at(gateway.url());
    eventually("it has failed", ANSWERS, || orders(&gateway, "failed") == 1.0);
    assert_eq!(gateway.client().get("/v1/models").status(), 200, "the stand-in serves");
    ca.set_faults(AcmeFaults::default());
    gateway.signal(Signal::SIGHUP);
    wait_issued(&gateway, 1.0);
    assert_eq!(metric(&gateway, "llamagate_tls_reloads_total{outcome=\"replaced\"}"), 1.0);
}

#[test]
fn a_nonce_that_is_refused_twice_and_an_account_that_is_forgotten_are_got_over() {
    let (ca, folder) = (AcmeServer::start(), tempfile::tempdir().unwrap());
    ca.set_faults(AcmeFaults { bad_nonces: 2, ..AcmeFaults::default() });
    ca.set_life(DUE);
    let gateway = with_ca(&ca, folder.path()).start();
    ca.look_at(gateway.url());
    wait_issued(&gateway, 1.0);
    ca.forget_accounts();
    let issued = orders(&gateway, "issued");
    wait_issued(&gateway, issued + 1.0);
    eventually("the log tells it", ANSWERS, || gateway.output().contains("knows the account of before no longer"));
    // An order that was in progress may have failed.
    assert!(orders(&gateway, "failed") <= 1.0);
    assert_eq!((ca.accounts().len(), ca.mistakes()), (1, vec![]));
}

/// Regression: a new account may not replace a certificate that another one ordered, and was refused until it had expired.
#[test]
fn a_certificate_is_renewed_although_the_account_that_ordered_it_is_lost() {
    let (ca, folder) = (AcmeServer::start(), tempfile::tempdir().unwrap());
    ca.set_window((40 * 86_400, 41 * 86_400));
    let builder = || with_kept(&ca, folder.path());
    stop(start_issued(&ca, builder()));
    ca.forget_accounts();
    ca.set_window((-20, -10));
    let gateway = start_issued(&ca, builder());
    assert_eq!(orders(&gateway, "failed"), 0.0);
    assert!(ca.orders()[1].replaces.is_none(), "it is an order like the first one");
}

/// Regression: a wait that no clock can hold ended the task, and nothing was ordered any more.
#[test]
fn an_endless_wait_in_the_middle_of_an_order_does_not_hold_it_up() {
    let (ca, folder) = (AcmeServer::start(), tempfile::tempdir().unwrap());
    ca.set_faults(AcmeFaults { asks_to_wait: Some("18446744073709551615"), ..AcmeFaults::default() });
    let gateway = with_ca(&ca, folder.path()).start();
    ca.look_at(gateway.url());
    wait_issued(&gateway, 1.0);
    assert_eq!(orders(&gateway, "failed"), 0.0);
}

/// Regression: each took the certificate of the other one for its own, and they ordered again and again.
#[test]
fn two_gateways_with_one_data_folder_and_other_names_do_not_order_in_turns() {
    let (ca, folder) = (AcmeServer::start(), tempfile::tempdir().unwrap());
    let start = |name: &str| start_issued(&ca, with_kept(&ca, folder.path()).set("TLS_ACME_DOMAINS", name));
    let first = start(NAME);
    let second = start("other.example.org");
    let warnings = || first.health().get("/health").json()["warnings"].to_string();
    eventually("the first one warns", ANSWERS, || warnings().contains("it is for other names"));
    assert_eq!(shown_names(first.url()), BTreeSet::from([NAME.to_owned()]));
    assert_eq!(shown_names(second.url()), BTreeSet::from(["other.example.org".to_owned()]));
    assert_eq!(ca.orders().len(), 2);
}

/// Regression: contacts that the CA refused failed every order.
#[test]
fn contacts_that_the_ca_does_not_take_do_not_hold_an_order_up() {
    let (ca, folder) = (AcmeServer::start(), tempfile::tempdir().unwrap());
    let builder = |contact: &str| with_kept(&ca, folder.path()).set("TLS_ACME_CONTACT", contact);
    stop(start_issued(&ca, builder("a@example.org")));
    fs::remove_file(ca_folder(folder.path()).join("certificate.pem")).unwrap();
    ca.set_faults(AcmeFaults { refuses_contacts: true, ..AcmeFaults::default() });
    let gateway = start_issued(&ca, builder("b@example.org"));
    eventually("the log tells it", ANSWERS, || gateway.output().contains("the CA does not take these addresses"));
    assert_eq!(orders(&gateway, "failed"), 0.0);
}

#[test]
fn kept_files_that_are_damaged_are_got_again_and_ones_that_cannot_be_read_fail_the_start() {
    let (ca, folder) = (AcmeServer::start(), tempfile::tempdir().unwrap());
    let builder = || with_kept(&ca, folder.path());
    stop(start_issued(&ca, builder()));
    let kept = ca_folder(folder.path());
    let pair = kept.join("certificate.pem");
    // The last two are good JSON, and no account all the same.
    let keyless = r#"{"contacts": [], "credentials": {}}"#;
    let bad_key = format!(
        r#"{{"contacts": [], "credentials": {{"id": "{0}", "key_pkcs8": "AAAA", "directory": "{0}"}}}}"#,
        ca.directory()
    );
    let damages = [
        ("certificate.pem", "half a"),
        ("certificate.pem", ""),
        ("account.json", "{"),
        ("account.json", keyless),
        ("account.json", bad_key.as_str()),
    ];
    for (file, text) in damages {
        fs::write(kept.join(file), text).unwrap();
        if file == "account.json" {
            fs::remove_file(&pair).unwrap();
        }
        let gateway = start_issued(&ca, builder());
        eventually("the log tells it", ANSWERS, || gateway.output().contains("another one is"));
        stop(gateway);
    }
    assert_eq!((ca.orders().len(), ca.accounts().len()), (6, 4));
    fs::remove_file(&pair).unwrap();
    // No user can read it as a file, root included.
    fs::create_dir(&pair).unwrap();
    let (status, output) = builder().run_to_exit();
    assert_eq!(status.code(), Some(78), "{output}");
    assert!(output.contains("the certificate that is kept cannot be read"), "{output}");
}

/// What is issued counts against the limits of the CA, so nothing is ordered that could not be kept.
#[test]
fn nothing_is_ordered_that_could_not_be_kept() {
    let (ca, folder) = (AcmeServer::start(), tempfile::tempdir().unwrap());
    fs::create_dir(folder.path().join("tls")).unwrap();
    // It leads to no folder, and none can be made in its place.
    symlink(folder.path().join("none"), folder.path().join("tls/acme")).unwrap();
    let gateway = start_looked_at(&ca, with_kept(&ca, folder.path()));
    eventually("it fails", ANSWERS, || orders(&gateway, "failed") >= 2.0);
    eventually("the log tells it", ANSWERS, || gateway.output().contains("it cannot be written"));
    let warnings = gateway.health().get("/health").json()["warnings"].to_string();
    assert!(warnings.contains("a file in DATA_DIR cannot") && !warnings.contains("/tls/acme"), "{warnings}");
    assert_eq!(ca.count("/order"), 0);
}

#[test]
fn settings_that_no_certificate_could_come_of_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pem");
    fs::write(&empty, "").unwrap();
    let many: Vec<String> = (0..101).map(|nth| format!("n{nth}.example.org")).collect();
    for (settings, expected) in [
        (&[("TLS_ACME_DOMAINS", "*.example.org")][..], "\"*.example.org\" is a wildcard"),
        (&[("TLS_ACME_DOMAINS", "a.example.org,192.0.2.7")], "\"192.0.2.7\" is an address"),
        (&[("TLS_ACME_DOMAINS", "a.example.org,a.example.org")], "\"a.example.org\" is there twice"),
        (&[("TLS_ACME_DOMAINS", &many.join(","))], "at most 100 names"),
        (&[("TLS_ACME_DIRECTORY", "http://ca.example.org/dir")], "TLS_ACME_DIRECTORY"),
        (&[("TLS_ACME_ACCEPT_TERMS", "false")], "the terms of service of the CA are not accepted"),
        (&[("TLS_SELF_SIGNED", "true")], "TLS_ACME_DOMAINS: TLS_SELF_SIGNED=true makes another certificate"),
        (&[("TLS_CERT", "/c.pem"), ("TLS_KEY", "/k.pem")], "TLS_ACME_DOMAINS: TLS_CERT and TLS_KEY name another"),
        (&[("TLS_ACME_EAB_KID", "kid")], "only one of TLS_ACME_EAB_KID and TLS_ACME_EAB_HMAC_KEY"),
        (&[("TLS_ACME_EAB_KID", "kid"), ("TLS_ACME_EAB_HMAC_KEY", "?secret?")], "TLS_ACME_EAB_HMAC_KEY"),
        (&[("TLS_ACME_RETRY", "10ms")], "expected at least 100ms"),
        (&[("TLS_ACME_RETRY", "7h")], "expected at most 6h"),
        (&[("TLS_ACME_CONTACT", "nobody")], "TLS_ACME_CONTACT"),
        (&[("TLS_ACME_CA", "/no/such.pem")], "TLS_ACME_CA"),
        (&[("TLS_ACME_CA", &empty.display().to_string())], "it holds no certificate in PEM"),
    ] {
        let base = [("TLS_ACME_DOMAINS", NAME), ("TLS_ACME_ACCEPT_TERMS", "true")];
        let (status, output) = Gateway::builder().set_all(&base).set_all(settings).run_to_exit();
        assert_eq!(status.code(), Some(78), "{output}");
        assert!(output.contains(expected) && !output.contains("?secret?"), "{expected}: {output}");
    }
}
