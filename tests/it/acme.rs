//! Certificates of a CA by ACME: the first one, renewals, changes of the names, and what is kept. What goes wrong is in
//! `acme_faults`; real programs are in `acme_real`.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
    sync::Arc,
};

use nix::sys::signal::Signal;
use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};
use serde_json::{Value, json};
use x509_parser::prelude::*;

use super::support::{
    acme::{AcmeFaults, AcmeServer, DUE, LONG, validation::taking_any},
    certificates::shown_certificate,
    client_program::{run_client, script},
    gateway::{ADMIN, Builder, Gateway, USER, python},
    wait::{ANSWERS, SOON, eventually},
};

pub(super) const CHAT: &str = "/v1/chat/completions";
pub(super) const NAME: &str = "llm.example.org";

pub(super) fn body() -> Value {
    json!({"messages": [{"role": "user", "content": "x"}]})
}

/// Returns the settings of a gateway whose certificate this CA issues, and that trusts the CA by a file in this folder.
pub(super) fn with_ca(ca: &AcmeServer, folder: &Path) -> Builder {
    Gateway::builder()
        .set("TLS_ACME_DOMAINS", NAME)
        .set("TLS_ACME_ACCEPT_TERMS", true)
        .set("TLS_ACME_DIRECTORY", ca.directory())
        .set("TLS_ACME_CA", ca.write_root(folder))
        .set("TLS_ACME_RETRY", "100ms")
}

/// Returns the same settings of a gateway that keeps its state in this folder, for the next one or for one beside it. It has
/// no ledger, of which each service needs its own.
pub(super) fn with_kept(ca: &AcmeServer, folder: &Path) -> Builder {
    with_ca(ca, folder).set("DATA_DIR", folder.display()).set("USAGE_DB", "off")
}

/// Starts a gateway, and has the CA look at its challenges and at those of no gateway before it.
#[track_caller]
pub(super) fn start_looked_at(ca: &AcmeServer, builder: Builder) -> Gateway {
    ca.look_nowhere();
    let gateway = builder.start();
    ca.look_at(gateway.url());
    gateway
}

/// Starts a gateway, and waits until the CA has issued it a certificate.
#[track_caller]
pub(super) fn start_issued(ca: &AcmeServer, builder: Builder) -> Gateway {
    let gateway = start_looked_at(ca, builder);
    wait_issued(&gateway, 1.0);
    gateway
}

/// Stops a gateway, which must end well.
#[track_caller]
pub(super) fn stop(mut gateway: Gateway) {
    assert_eq!(gateway.stop().code(), Some(0));
}

/// Returns the value of a metric that begins a line so; 0 if there is none.
pub(super) fn metric(gateway: &Gateway, line: &str) -> f64 {
    let text = gateway.health().header("Accept", "text/plain").get("/metrics").text();
    text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok()).unwrap_or_default()
}

pub(super) fn orders(gateway: &Gateway, outcome: &str) -> f64 {
    metric(gateway, &format!("llamagate_tls_acme_orders_total{{outcome=\"{outcome}\"}}"))
}

/// Waits until this many certificates have been issued.
#[track_caller]
pub(super) fn wait_issued(gateway: &Gateway, count: f64) {
    let is_issued = || orders(gateway, "issued") >= count;
    eventually(&format!("{count} certificates are issued"), ANSWERS, is_issued);
}

/// Returns the names of the certificate that is shown.
pub(super) fn shown_names(url: &str) -> BTreeSet<String> {
    let shown = shown_certificate(url);
    let (_, parsed) = X509Certificate::from_der(&shown).unwrap();
    let names = parsed.subject_alternative_name().unwrap().unwrap();
    let texts = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    texts.collect()
}

/// Opens a connection to a server under this name.
pub(super) fn open_as(
    url: &str,
    name: &str,
    config: Arc<ClientConfig>,
) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let stream = TcpStream::connect(url.trim_start_matches("https://"))?;
    stream.set_read_timeout(Some(ANSWERS))?;
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(ClientConnection::new(config, name).map_err(io::Error::other)?, stream);
    stream.conn.complete_io(&mut stream.sock)?;
    Ok(stream)
}

/// Asks for `/ping` under this name; returns the line of the status.
pub(super) fn ping_as(url: &str, name: &str, config: Arc<ClientConfig>) -> io::Result<String> {
    let mut stream = open_as(url, name, config)?;
    stream.write_all(b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Returns the one folder of a CA.
pub(super) fn ca_folder(data: &Path) -> std::path::PathBuf {
    let mut folders: Vec<_> = fs::read_dir(data.join("tls/acme")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(folders.len(), 1, "{folders:?}");
    folders.remove(0)
}

#[test]
fn a_certificate_for_all_names_comes_from_the_ca_and_clients_are_served_meanwhile() {
    let (ca, folder) = (AcmeServer::start(), tempfile::tempdir().unwrap());
    let gateway = with_ca(&ca, folder.path())
        .set("TLS_ACME_DOMAINS", "LLM.example.org, www.example.org,localhost")
        .set("TLS_ACME_CONTACT", "ops@example.org")
        .set("TLS_HEALTH", true)
        .start_ready();
    eventually("the CA is asked for an order", ANSWERS, || ca.orders().len() == 1);
    // Before: a stand-in, by which chats are served, and which is warned about.
    assert_eq!(gateway.client().post_json(CHAT, &body()).status(), 200);
    assert_eq!(shown_names(gateway.url()), BTreeSet::from(["localhost".to_owned()]));
    assert!(
        ping_as(gateway.url(), "localhost", ca.issuer().client_config(None)).is_err(),
        "no authority vouches for it"
    );
    let warnings = gateway.health().get("/health").json()["warnings"].to_string();
    assert!(warnings.contains("no TLS certificate has come from the CA yet"), "{warnings}");
    let expiry = "llamagate_tls_certificate_expiry_timestamp_seconds{source=\"acme\"}";
    assert_eq!(metric(&gateway, expiry), 0.0);

    ca.look_at(gateway.url());
    wait_issued(&gateway, 1.0);
    for name in [NAME, "www.example.org", "localhost"] {
        let trusting = ca.issuer().client_config(None);
        assert_eq!(ping_as(gateway.url(), name, trusting).unwrap(), "HTTP/1.1 200 OK");
    }
    assert_eq!(shown_certificate(gateway.health_url()), shown_certificate(gateway.url()));
    assert_eq!(metric(&gateway, "llamagate_tls_handshakes_total{outcome=\"challenge\"}"), 3.0);
    assert!(metric(&gateway, expiry) > 1.7e9);
    eventually("nothing is warned about", SOON, || gateway.health().get("/health").json()["warnings"] == json!([]));
    assert_eq!(ca.mistakes(), [""; 0]);
    let accounts = ca.accounts();
    assert_eq!((accounts.len(), &*accounts[0].contacts), (1, &["mailto:ops@example.org".to_owned()][..]));
    assert!(accounts[0].has_accepted_terms);
    for file in ["account.json", "certificate.pem"] {
        let path = ca_folder(gateway.data_dir()).join(file);
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
    let root = ca.write_root(folder.path());
    let mut client = Command::new(python());
    client
        .arg(script("https_client.py"))
        .args([&format!("{}/v1", gateway.url().replace("127.0.0.1", "localhost")), USER]);
    run_client(client.env("SSL_CERT_FILE", &root));
    let port = gateway.url().rsplit(':').next().unwrap().to_owned();
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--cacert", &root]).args([
        "--resolve",
        &format!("{NAME}:{port}:127.0.0.1"),
        &format!("https://{NAME}:{port}/ping"),
    ]);
    let output = curl.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_restart_uses_what_is_kept_and_asks_the_ca_for_nothing() {
    let (ca, folder) = (AcmeServer::start(), tempfile::tempdir().unwrap());
    let builder = || with_kept(&ca, folder.path());
    let gateway = start_issued(&ca, builder());
    let shown = shown_certificate(gateway.url());
    stop(gateway);
    // As processes leave them that were killed, with keys.
    let drafts = [".certificate.pem.0011223344556677.new", ".account.json.0011223344556677.new"];
    let drafts = drafts.map(|name| ca_folder(folder.path()).join(name));
    drafts.iter().for_each(|draft| fs::write(draft, "half a key").unwrap());
    ca.set_faults(AcmeFaults { is_away: Some((503, "closed")), ..AcmeFaults::default() });
    let asked = ca.count("/directory");
    let gateway = builder().start();
    assert_eq!(shown_certificate(gateway.url()), shown, "from the first handshake on");
    eventually("the CA is asked what it offers", ANSWERS, || ca.count("/directory") > asked);
    assert!(!drafts.iter().any(|draft| draft.exists()), "no key is left");
    assert_eq!((ca.orders().len(), ca.accounts().len(), orders(&gateway, "failed")), (1, 1, 0.0));
    assert_eq!(gateway.health().get("/health").json()["warnings"], json!([]));
}

#[test]
fn a_renewal_is_taken_up_while_a_stream_goes_on() {
    let (ca, folder) = (AcmeServer::start(), tempfile::tempdir().unwrap());
    ca.set_life(DUE);
    let gateway = with_ca(&ca, folder.path()).script(json!({"hold_mid_stream": {"after_frames": 2}})).start_ready();
    let asked = json!({"messages": body()["messages"], "stream": true});
    let mut stream = gateway.client().stream(CHAT, &asked);
    ca.look_at(gateway.url());
    wait_issued(&gateway, 1.0);
    let first = shown_certificate(gateway.url());
    ca.set_life(LONG);
    eventually("another certificate is shown", ANSWERS, || shown_certificate(gateway.url()) != first);
    // All that were due were replaced, and this one is not.
    wait_issued(&gateway, 2.0);
    gateway.control().release_all_requests();
    assert!(stream.events().last().is_some_and(|event| event.is_done()) && stream.is_complete());
    assert_eq!((ca.accounts().len(), ca.mistakes().len()), (1, 0));
}

#[test]
fn names_that_a_reload_changes_are_ordered_and_the_certificate_of_before_is_shown_meanwhile() {
    let config =
        |names: &str| format!("models:\n  dummy: {{file: dummy.gguf}}\nserver: {{tls_acme_domains: \"{names}\"}}\n");
    let (ca, folder) = (AcmeServer::start(), tempfile::tempdir().unwrap());
    let gateway = Gateway::builder()
        .fakes(&config(NAME), &[("dummy.gguf", json!({}))])
        .set("TLS_ACME_ACCEPT_TERMS", true)
        .set("TLS_ACME_DIRECTORY", ca.directory())
        .set("TLS_ACME_CA", ca.write_root(folder.path()))
        .start();
    let reload = |config: &str| {
        gateway.rewrite_config(config);
        assert_eq!(gateway.client_with(ADMIN).post_json("/reload", &json!({})).status(), 200);
    };
    ca.look_at(gateway.url());
    wait_issued(&gateway, 1.0);
    ca.set_faults(AcmeFaults { holds_orders: true, ..AcmeFaults::default() });
    reload(&config("new.example.org, llm.example.org"));
    eventually("an order is made", ANSWERS, || ca.orders().len() == 2);
    assert_eq!(shown_names(gateway.url()), BTreeSet::from([NAME.to_owned()]));
    ca.set_faults(AcmeFaults::default());
    wait_issued(&gateway, 2.0);
    let both = BTreeSet::from([NAME.to_owned(), "new.example.org".to_owned()]);
    assert_eq!(shown_names(gateway.url()), both);
    // Fewer names are other names too; a reload without a change orders nothing.
    reload(&config("new.example.org"));
    wait_issued(&gateway, 3.0);
    assert_eq!(shown_names(gateway.url()), BTreeSet::from(["new.example.org".to_owned()]));
    reload(&config("new.example.org"));
    // None at all would be no TLS.
    reload("models:\n  dummy: {file: dummy.gguf}\n");
    eventually("the log tells it", ANSWERS, || gateway.output().contains("TLS_ACME_DOMAINS begins or ends"));
    assert_eq!(ca.orders().len(), 3);
    assert_eq!(shown_names(gateway.url()), BTreeSet::from(["new.example.org".to_owned()]));
}

#[test]
fn two_gateways_with_one_data_folder_order_once() {
    let (ca, folder) = (AcmeServer::start(), tempfile::tempdir().unwrap());
    let start = || with_kept(&ca, folder.path()).start();
    let first = start();
    eventually("the first one orders", ANSWERS, || ca.orders().len() == 1);
    let second = start();
    ca.look_at(first.url());
    wait_issued(&first, 1.0);
    let shown = shown_certificate(first.url());
    eventually("the second one finds it", ANSWERS, || shown_certificate(second.url()) == shown);
    eventually("it warns no longer", ANSWERS, || second.health().get("/health").json()["warnings"] == json!([]));
    assert_eq!((ca.orders().len(), ca.accounts().len(), orders(&second, "issued")), (1, 1, 0.0));
}

/// Regression: the second one took the advice about the old certificate for one about the new one, and ordered again.
#[test]
fn two_gateways_with_one_data_folder_order_once_when_the_ca_advises_it() {
    let (ca, folder) = (AcmeServer::start(), tempfile::tempdir().unwrap());
    let builder = || with_kept(&ca, folder.path());
    let later = (40 * 86_400, 41 * 86_400);
    ca.set_window(later);
    let gateway = start_issued(&ca, builder());
    eventually("the CA is asked for advice", ANSWERS, || ca.count_advice() == 1);
    let shown = shown_certificate(gateway.url());
    stop(gateway);
    ca.look_nowhere();
    ca.set_window((-20, -10));
    let first = builder().start();
    eventually("the first one orders", ANSWERS, || ca.orders().len() == 2);
    let second = builder().start();
    eventually("both know that it is due", ANSWERS, || ca.count_advice() == 3);
    ca.set_window(later);
    ca.look_at(first.url());
    wait_issued(&first, 1.0);
    eventually("the second one finds it", ANSWERS, || shown_certificate(second.url()) != shown);
    eventually("both ask about the new one", ANSWERS, || ca.count_advice() >= 5);
    assert_eq!((ca.orders().len(), orders(&second, "issued")), (2, 0.0));
    assert_eq!(shown_certificate(first.url()), shown_certificate(second.url()));
}

#[test]
fn a_connection_of_the_ca_carries_no_request_and_other_clients_get_no_challenge() {
    let (ca, folder) = (AcmeServer::start(), tempfile::tempdir().unwrap());
    let gateway = with_ca(&ca, folder.path()).start_ready();
    eventually("the challenge is shown", ANSWERS, || open_as(gateway.url(), NAME, taking_any(&["acme-tls/1"])).is_ok());
    let mut stream = open_as(gateway.url(), &NAME.to_uppercase(), taking_any(&["acme-tls/1"])).unwrap();
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"acme-tls/1"[..]));
    let _ = stream.write_all(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"); // it may be closed already
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer); // it is closed, or reset because of the request
    assert_eq!(answer, b"");
    for other in ["other.example.org", "127.0.0.1"] {
        assert!(open_as(gateway.url(), other, taking_any(&["acme-tls/1"])).is_err(), "{other}");
    }
    // Beside another protocol it is no look of a CA.
    let stream = open_as(gateway.url(), NAME, taking_any(&["acme-tls/1", "http/1.1"])).unwrap();
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    ca.look_at(gateway.url());
    wait_issued(&gateway, 1.0);
    assert!(open_as(gateway.url(), NAME, taking_any(&["acme-tls/1"])).is_err(), "the challenge is over");
    let plain = Gateway::builder().secure().start_ready();
    assert!(open_as(plain.url(), NAME, taking_any(&["acme-tls/1"])).is_err(), "without ACME it is no protocol");
}

#[test]
fn the_account_is_bound_and_its_contacts_follow_the_setting() {
    let (ca, folder) = (AcmeServer::start(), tempfile::tempdir().unwrap());
    ca.require_binding("kid-1", b"a key of sixteen");
    let builder = |contact: &str| {
        with_kept(&ca, folder.path())
            .set_all(&[("TLS_ACME_EAB_KID", "kid-1"), ("TLS_ACME_EAB_HMAC_KEY", "YSBrZXkgb2Ygc2l4dGVlbg")])
            .set("TLS_ACME_CONTACT", contact)
    };
    let gateway = start_issued(&ca, builder("a@example.org"));
    assert_eq!(ca.accounts()[0].binding.as_deref(), Some("kid-1"));
    assert!(!gateway.output().contains("YSBrZXk"));
    stop(gateway);
    // They are told with the next order.
    fs::remove_file(ca_folder(folder.path()).join("certificate.pem")).unwrap();
    let _gateway = builder("a@example.org,b@example.org").start();
    let expected = ["mailto:a@example.org", "mailto:b@example.org"].map(str::to_owned);
    eventually("the CA knows the new one", ANSWERS, || ca.accounts()[0].contacts == expected);
    assert_eq!(ca.accounts().len(), 1);
}

#[test]
fn a_certificate_is_renewed_when_the_ca_says_so() {
    let (ca, folder) = (AcmeServer::start(), tempfile::tempdir().unwrap());
    // Later than the certificate that is due: the bound of the program counts. Then a window in the past.
    ca.set_window((40 * 86_400, 41 * 86_400));
    let builder = || with_kept(&ca, folder.path());
    stop(start_issued(&ca, builder()));
    ca.set_window((-20, -10));
    let _gateway = start_issued(&ca, builder());
    let replaced: Vec<_> = ca.orders().into_iter().map(|order| order.replaces.is_some()).collect();
    assert_eq!(replaced[..2], [false, true], "the second one names the first");
    assert_eq!(ca.mistakes(), [""; 0]);
}

#[test]
fn another_ca_has_a_folder_of_its_own_and_the_one_of_before_is_found_again() {
    let (first, second, folder) = (AcmeServer::start(), AcmeServer::start(), tempfile::tempdir().unwrap());
    let builder = |ca: &AcmeServer| with_kept(ca, folder.path());
    let gateway = start_issued(&first, builder(&first));
    let shown = shown_certificate(gateway.url());
    stop(gateway);
    let gateway = start_issued(&second, builder(&second));
    assert_eq!(ping_as(gateway.url(), NAME, second.issuer().client_config(None)).unwrap(), "HTTP/1.1 200 OK");
    stop(gateway);
    let gateway = start_looked_at(&first, builder(&first));
    assert_eq!((shown_certificate(gateway.url()), first.orders().len()), (shown, 1));
}

#[test]
fn a_service_that_orders_stops_at_once() {
    let (ca, folder) = (AcmeServer::start(), tempfile::tempdir().unwrap());
    let mut gateway = with_ca(&ca, folder.path()).start();
    // The CA never looks, so that the order stays in progress.
    eventually("the CA is asked for an order", ANSWERS, || ca.orders().len() == 1);
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait_exit().code(), Some(0));
    assert!(!gateway.output().contains("did not end in time"), "{}", gateway.output());
}
