//! A CA that speaks ACME (RFC 8555) over HTTPS: it checks signatures and nonces, looks at challenges with handshakes, and
//! issues certificates. It fails as a test says.
//!
//! - `jws.rs`: signed requests
//! - `routes.rs`: what is answered
//! - `validation.rs`: the look at a challenge

mod jws;
mod routes;
pub(crate) mod validation;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::ring, pki_types::PrivateKeyDer};
use serde_json::Value;

use super::certificates::TestIssuer;

/// What goes wrong with the requests that follow.
#[derive(Debug, Clone, Default)]
pub(crate) struct AcmeFaults {
    /// This many signed requests are refused for their nonce.
    pub(crate) bad_nonces: usize,
    /// All requests are answered with this status and text.
    pub(crate) is_away: Option<(u16, &'static str)>,
    /// Orders are refused with this status, type of problem, detail, and headers.
    pub(crate) refuses_orders: Option<(u16, &'static str, &'static str, &'static str)>,
    /// Challenges are found at this port, in place of the gateway's.
    pub(crate) looks_at: Option<u16>,
    /// Answers about orders ask for this wait before the next question.
    pub(crate) asks_to_wait: Option<&'static str>,
    /// Accounts get no other contacts.
    pub(crate) refuses_contacts: bool,
    /// Orders stay in progress until this is false.
    pub(crate) holds_orders: bool,
    /// What is wrong with the certificates that are issued.
    pub(crate) issues: Option<BadCertificate>,
    /// The directory names addresses without https.
    pub(crate) is_downgraded: bool,
    /// No challenge is offered by TLS-ALPN-01.
    pub(crate) has_other_challenges: bool,
}

/// What can be wrong with a certificate.
#[derive(Debug, Clone, Copy)]
pub(crate) enum BadCertificate {
    OtherKey,
    OtherNames,
    Expired,
    BrokenChain,
    NoCertificate,
}

/// From when and until when certificates are valid, in seconds from now.
pub(crate) type Life = (i64, i64);
/// A certificate that is not due.
pub(crate) const LONG: Life = (-60, 90 * 86_400);
/// One that is due as soon as it is there, and valid.
pub(crate) const DUE: Life = (-80 * 86_400, 10 * 86_400);

/// A running CA.
pub(crate) struct AcmeServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

pub(super) struct Shared {
    pub(super) issuer: TestIssuer,
    pub(super) url: String,
    tls: Arc<ServerConfig>,
    pub(super) state: Mutex<State>,
    /// Notified when the port, the faults or an order change.
    pub(super) changed: Condvar,
    has_ended: AtomicBool,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) faults: AcmeFaults,
    pub(super) life: Option<Life>,
    /// The port of the gateway, at which challenges are looked at.
    pub(super) port: Option<u16>,
    /// The key of external accounts and its name, if accounts need one.
    pub(super) binding: Option<(String, Vec<u8>)>,
    /// The window in which certificates should be renewed, in seconds from now.
    pub(super) window: Option<Life>,
    pub(super) nonces: BTreeSet<String>,
    pub(super) made: u64,
    pub(super) accounts: BTreeMap<String, KnownAccount>,
    pub(super) orders: Vec<KnownOrder>,
    pub(super) authorizations: Vec<KnownAuthorization>,
    /// The method and path of each request, in their order.
    pub(super) requests: Vec<String>,
    /// Why requests were refused that no client should make.
    pub(super) mistakes: Vec<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct KnownAccount {
    /// The coordinates of its key.
    pub(super) key: (String, String),
    pub(crate) contacts: Vec<String>,
    pub(crate) has_accepted_terms: bool,
    pub(crate) binding: Option<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct KnownOrder {
    pub(super) account: String,
    pub(crate) names: Vec<String>,
    pub(crate) replaces: Option<String>,
    pub(super) authorizations: Vec<usize>,
    pub(super) chain: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) struct KnownAuthorization {
    pub(super) name: String,
    pub(super) token: String,
    pub(super) is_asked: bool,
    /// `None` while nothing is known.
    pub(super) outcome: Option<Result<(), String>>,
}

/// A request on the wire.
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) body: Vec<u8>,
}

/// An answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl AcmeServer {
    pub(crate) fn start() -> Self {
        let issuer = TestIssuer::new("the CA of this test");
        let pair = issuer.issue("ca");
        let key = PrivateKeyDer::try_from(pair.key.clone()).expect("the key is one");
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("TLS can be set up").with_no_client_auth();
        let tls = builder.with_single_cert(vec![pair.certificate.into()], key).expect("the two belong together");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared {
            issuer,
            url: format!("https://{address}"),
            tls: Arc::new(tls),
            state: Mutex::default(),
            changed: Condvar::new(),
            has_ended: AtomicBool::new(false),
        });
        let of_acceptor = Arc::clone(&shared);
        let acceptor = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if of_acceptor.has_ended.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&of_acceptor);
                // A client that goes away in the middle is no failure of the CA.
                thread::spawn(move || shared.serve(stream));
            }
        });
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// Returns the value of `TLS_ACME_DIRECTORY`.
    pub(crate) fn directory(&self) -> String {
        format!("{}/directory", self.shared.url)
    }

    /// Returns what issues its certificates, its own included.
    pub(crate) fn issuer(&self) -> &TestIssuer {
        &self.shared.issuer
    }

    /// Writes the value of `TLS_ACME_CA` into this folder.
    pub(crate) fn write_root(&self, folder: &Path) -> String {
        self.shared.issuer.write_root(folder).display().to_string()
    }

    /// Looks at challenges at the port of this address from now on. Before, challenges wait.
    pub(crate) fn look_at(&self, url: &str) {
        let port = url.rsplit(':').next().and_then(|port| port.trim_end_matches('/').parse().ok());
        self.change(|state| state.port = Some(port.expect("an address has a port")));
    }

    /// Lets challenges wait until [`Self::look_at`] says where they are.
    pub(crate) fn look_nowhere(&self) {
        self.change(|state| state.port = None);
    }

    pub(crate) fn set_faults(&self, faults: AcmeFaults) {
        self.change(|state| state.faults = faults);
    }

    /// Sets how long certificates are valid.
    pub(crate) fn set_life(&self, life: Life) {
        self.change(|state| state.life = Some(life));
    }

    /// Sets the window in which certificates should be renewed.
    pub(crate) fn set_window(&self, window: Life) {
        self.change(|state| state.window = Some(window));
    }

    /// Asks for this key of external accounts.
    pub(crate) fn require_binding(&self, name: &str, key: &[u8]) {
        self.change(|state| state.binding = Some((name.to_owned(), key.to_vec())));
    }

    /// Forgets all accounts.
    pub(crate) fn forget_accounts(&self) {
        self.change(|state| state.accounts.clear());
    }

    pub(crate) fn accounts(&self) -> Vec<KnownAccount> {
        self.shared.state().accounts.values().cloned().collect()
    }

    pub(crate) fn orders(&self) -> Vec<KnownOrder> {
        self.shared.state().orders.clone()
    }

    /// Returns how many requests to this path there were.
    pub(crate) fn count(&self, path: &str) -> usize {
        self.shared
            .state()
            .requests
            .iter()
            .filter(|request| request.split_once(' ').is_some_and(|it| it.1 == path))
            .count()
    }

    /// Returns how often it was asked when a certificate should be renewed.
    pub(crate) fn count_advice(&self) -> usize {
        self.shared.state().requests.iter().filter(|request| request.starts_with("GET /renewal/")).count()
    }

    /// Returns why requests were refused that no client should make.
    pub(crate) fn mistakes(&self) -> Vec<String> {
        self.shared.state().mistakes.clone()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state());
        self.shared.changed.notify_all();
    }
}

impl Drop for AcmeServer {
    fn drop(&mut self) {
        self.shared.has_ended.store(true, Ordering::SeqCst);
        self.shared.changed.notify_all();
        let _ = TcpStream::connect(self.address); // the acceptor looks whether it has ended
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Waits until `find` returns something, or the CA ends.
    pub(super) fn wait_for<T>(&self, mut find: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
        let mut state = self.state();
        loop {
            if self.has_ended.load(Ordering::SeqCst) {
                return None;
            }
            if let Some(found) = find(&mut state) {
                return Some(found);
            }
            state = self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    fn serve(self: Arc<Self>, stream: TcpStream) {
        let Ok(connection) = ServerConnection::new(Arc::clone(&self.tls)) else { return };
        let mut reader = BufReader::new(StreamOwned::new(connection, stream));
        while let Some(request) = read_request(&mut reader) {
            let away = {
                let mut state = self.state();
                state.requests.push(format!("{} {}", request.method, request.path));
                state.faults.is_away
            };
            let answer = match away {
                Some((status, text)) => Answer { status, headers: Vec::new(), body: text.to_owned() },
                None => self.answer(&request),
            };
            let mut head = format!("HTTP/1.1 {} X\r\nContent-Length: {}\r\n", answer.status, answer.body.len());
            for (name, value) in &answer.headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            // The length of an answer to HEAD is that of the answer to GET.
            let body = if request.method == "HEAD" { "" } else { &answer.body };
            if reader.get_mut().write_all(format!("{head}\r\n{body}").as_bytes()).is_err()
                || reader.get_mut().flush().is_err()
            {
                return;
            }
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path, body })
}

impl Answer {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        let headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
        Self { status, headers, body: body.to_string() }
    }

    pub(super) fn problem(status: u16, kind: &str, detail: &str) -> Self {
        let kind = format!("urn:ietf:params:acme:error:{kind}");
        let body = serde_json::json!({"type": kind, "detail": detail, "status": status}).to_string();
        let headers = vec![("Content-Type".to_owned(), "application/problem+json".to_owned())];
        Self { status, headers, body }
    }

    pub(super) fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }
}
