//! Certificates of a CA by ACME, from Pebble, the ACME server of Let's Encrypt for tests.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use llamagate::dial::Trust;
use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};
use serde_json::json;

use super::{
    acme::{CHAT, NAME, body, open_as, orders, shown_names, wait_issued},
    service_commands::free_port,
    support::{
        certificates::{TestIssuer, shown_certificate},
        gateway::Gateway,
        process::Process,
        wait::{ANSWERS, STARTS, eventually},
    },
};

/// Returns Pebble's program, if this machine has one.
fn pebble() -> Option<PathBuf> {
    let program = std::env::var_os("LLAMAGATE_TEST_PEBBLE").map(PathBuf::from);
    if program.is_none() {
        eprintln!("LLAMAGATE_TEST_PEBBLE is not set: nothing is asked of a real CA");
    }
    program
}

/// A running Pebble, with a name server that leads all names to this machine.
struct Pebble {
    _server: Process,
    _names: Process,
    port: u16,
    management: u16,
    root: PathBuf,
}

impl Pebble {
    /// Starts it. It looks at challenges at `gateway`, and asks for this key of external accounts, if there is one.
    fn start(program: &Path, folder: &Path, gateway: u16, binding: Option<(&str, &str)>) -> Self {
        let issuer = TestIssuer::new("the authority of Pebble's own address");
        let own = folder.join("own");
        fs::create_dir(&own).unwrap();
        let (certificate, key) = issuer.issue("pebble").write(&own);
        let root = issuer.write_root(&own);
        let (port, management, names) = (free_port(), free_port(), free_port());
        let mut config = json!({"pebble": {
            "listenAddress": format!("127.0.0.1:{port}"), "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": certificate, "privateKey": key, "httpPort": free_port(), "tlsPort": gateway,
            "ocspResponderURL": "", "externalAccountBindingRequired": binding.is_some(),
        }});
        if let Some((name, key)) = binding {
            config["pebble"]["externalAccountMACKeys"] = json!({name: key});
        }
        let file = own.join("pebble.json");
        fs::write(&file, config.to_string()).unwrap();
        let mut server = Command::new(program.with_file_name("pebble-challtestsrv"));
        server.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dns01", &format!("127.0.0.1:{names}")]);
        server.args([
            "-http01",
            "",
            "-https01",
            "",
            "-tlsalpn01",
            "",
            "-management",
            &format!("127.0.0.1:{}", free_port()),
        ]);
        let names_of = Process::start("challtestsrv", &mut server, &own);
        let mut server = Command::new(program);
        server.arg("-config").arg(&file).args(["-dnsserver", &format!("127.0.0.1:{names}")]);
        // Some of its nonces are refused, as it does by itself, and it does not wait before it looks.
        server.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_WFE_NONCEREJECT", "5");
        let server = Process::start("pebble", &mut server, &own);
        eventually("Pebble listens", STARTS, || TcpStream::connect(("127.0.0.1", port)).is_ok());
        eventually("its roots are shown", STARTS, || TcpStream::connect(("127.0.0.1", management)).is_ok());
        Self { _server: server, _names: names_of, port, management, root }
    }

    /// Returns a configuration that trusts what it issues.
    fn trusting(&self, folder: &Path) -> Arc<ClientConfig> {
        let config = Trust::of_any_certificate().and_then(|trust| trust.config()).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TcpStream::connect(("127.0.0.1", self.management)).unwrap();
        let mut stream = StreamOwned::new(ClientConnection::new(config, name).unwrap(), stream);
        stream.write_all(b"GET /roots/0 HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer); // it may close without the end mark of TLS
        let file = folder.join("issued-by.pem");
        fs::write(&file, answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        Trust::of_file(&file).unwrap().config().unwrap()
    }
}

#[test]
fn certificates_come_from_a_real_ca_and_are_renewed() {
    let Some(program) = pebble() else { return };
    for binding in [None, Some(("kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"))] {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let pebble = Pebble::start(&program, folder.path(), port, binding);
        let start = |names: &str| {
            let mut builder = Gateway::builder()
                .set("PORT", port)
                .set("DATA_DIR", folder.path().display())
                .set("TLS_ACME_DOMAINS", names)
                .set("TLS_ACME_ACCEPT_TERMS", true)
                .set("TLS_ACME_DIRECTORY", format!("https://127.0.0.1:{}/dir", pebble.port))
                .set("TLS_ACME_CA", pebble.root.display())
                .set("TLS_ACME_CONTACT", "ops@example.org")
                .set("TLS_ACME_RETRY", "1s");
            if let Some((name, key)) = binding {
                builder = builder.set_all(&[("TLS_ACME_EAB_KID", name), ("TLS_ACME_EAB_HMAC_KEY", key)]);
            }
            builder.start_ready()
        };
        let mut gateway = start(NAME);
        wait_issued(&gateway, 1.0);
        assert!(open_as(gateway.url(), NAME, pebble.trusting(folder.path())).is_ok());
        assert_eq!(gateway.client().post_json(CHAT, &body()).status(), 200);
        let shown = shown_certificate(gateway.url());
        assert_eq!(gateway.stop().code(), Some(0));
        let mut gateway = start(NAME);
        assert_eq!(shown_certificate(gateway.url()), shown);
        assert_eq!(gateway.stop().code(), Some(0));
        // The same account, another certificate.
        let gateway = start("llm.example.org,www.example.org");
        eventually("both names are shown", ANSWERS, || shown_names(gateway.url()).len() == 2);
        assert_eq!((orders(&gateway, "issued"), orders(&gateway, "failed")), (1.0, 0.0));
        assert!(open_as(gateway.url(), "www.example.org", pebble.trusting(folder.path())).is_ok());
        assert!(!gateway.output().contains("an account has been opened"));
    }
}
