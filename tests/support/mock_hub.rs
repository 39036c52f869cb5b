//! A hub of models with the host that its files come from, which do what a test says: they cut, lie, limit and redirect.
//!
//! Two listeners: the hub redirects to the host of large files, as the real one does. That the real client takes it for the
//! hub is tested in `it/pull.rs`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::json;
use sha2::{Digest as _, Sha256};

/// The commit of `main` in every repository.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Bytes that are sent at once, and so the finest place at which a file can be cut.
const SENT_AT_ONCE: usize = 64 << 10;

/// What goes wrong with the requests that follow.
#[derive(Debug, Clone, Default)]
pub(crate) struct HubFaults {
    /// The hub answers with this head and body.
    pub(crate) hub_answer: Option<(String, String)>,
    /// The host of files answers so, as often as the number says.
    pub(crate) file_answer: Option<(usize, String, String)>,
    /// Each answer of the host of files ends after this number of bytes of its body, as often as the number says.
    pub(crate) cut: Option<(usize, usize)>,
    /// The host of files knows no ranges.
    pub(crate) has_no_ranges: bool,
    /// The host of files sends the wrong bytes.
    pub(crate) sends_wrong_bytes: bool,
    /// The hub names a size that is larger by this.
    pub(crate) size_lie: u64,
    /// The host of files redirects to itself.
    pub(crate) is_circle: bool,
    /// The pause of the host of files after each [`SENT_AT_ONCE`] bytes, so that a client keeps up with it.
    pub(crate) pause: Duration,
    /// The host of files waits for `release` before each answer.
    pub(crate) holds: bool,
    /// The hub says nothing of the file but where it is, and its host refuses `HEAD`, as addresses do that are signed for
    /// reading.
    pub(crate) refuses_head: bool,
    /// The address that the hub names for the host of files, in place of its own.
    pub(crate) files_at: Option<SocketAddr>,
    /// A token without which the repository is not shown.
    pub(crate) token: Option<String>,
}

/// A request that one of the two has received.
#[derive(Debug, Clone)]
pub(crate) struct HubRequest {
    pub(crate) is_of_files: bool,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
    /// The bytes of the file that were asked for.
    pub(crate) range: Option<Range<u64>>,
    /// The bytes of the body that were sent.
    pub(crate) sent: usize,
}

/// A running hub.
pub(crate) struct MockHub {
    hub: SocketAddr,
    files: SocketAddr,
    shared: Arc<Shared>,
    acceptors: Vec<JoinHandle<()>>,
}

/// A file of a repository.
struct HubFile {
    bytes: Vec<u8>,
    sha256: String,
}

struct Shared {
    /// The repositories: for each its files and their bytes.
    repositories: Mutex<BTreeMap<String, BTreeMap<String, Arc<HubFile>>>>,
    /// The commits of `main` that are not [`COMMIT`]. The files of those are in `repositories` as `ORG/NAME@COMMIT`.
    moved: Mutex<BTreeMap<String, String>>,
    faults: Mutex<HubFaults>,
    requests: Mutex<Vec<HubRequest>>,
    has_ended: AtomicBool,
    released: Mutex<bool>,
    release: Condvar,
}

impl MockHub {
    /// Starts a hub without repositories.
    pub(crate) fn start() -> Self {
        let shared = Arc::new(Shared {
            repositories: Mutex::default(),
            moved: Mutex::default(),
            faults: Mutex::default(),
            requests: Mutex::default(),
            has_ended: AtomicBool::new(false),
            released: Mutex::new(false),
            release: Condvar::new(),
        });
        let listen = || TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let (hub, files) = (listen(), listen());
        let address = |listener: &TcpListener| listener.local_addr().expect("a listener has an address");
        let (hub_address, files_address) = (address(&hub), address(&files));
        let accept = |listener: TcpListener, is_of_files: bool| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    if shared.has_ended.load(Ordering::SeqCst) {
                        return;
                    }
                    let shared = Arc::clone(&shared);
                    // A client that goes away in the middle is no failure of the hub.
                    thread::spawn(move || shared.serve(stream, is_of_files, files_address));
                }
            })
        };
        let acceptors = vec![accept(hub, false), accept(files, true)];
        Self { hub: hub_address, files: files_address, shared, acceptors }
    }

    /// Returns the value of `HF_ENDPOINT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.hub)
    }

    /// Returns the address of the host of files.
    pub(crate) fn files(&self) -> SocketAddr {
        self.files
    }

    /// Adds a file to a repository.
    pub(crate) fn add(&self, repository: &str, file: &str, bytes: Vec<u8>) {
        let added = HubFile { sha256: sha256(&bytes), bytes };
        let mut repositories = self.shared.repositories.lock().unwrap();
        repositories.entry(repository.to_owned()).or_default().insert(file.to_owned(), Arc::new(added));
    }

    /// Moves `main` of a repository to another commit, which has no files yet. Those of [`COMMIT`] stay there.
    pub(crate) fn move_main(&self, repository: &str, commit: &str) {
        self.shared.repositories.lock().unwrap().entry(format!("{repository}@{commit}")).or_default();
        self.shared.moved.lock().unwrap().insert(repository.to_owned(), commit.to_owned());
    }

    /// Sets what goes wrong from now on.
    pub(crate) fn set_faults(&self, faults: HubFaults) {
        *self.shared.faults.lock().unwrap() = faults;
    }

    /// Lets all held answers go.
    pub(crate) fn release(&self) {
        *self.shared.released.lock().unwrap() = true;
        self.shared.release.notify_all();
    }

    /// Returns the requests so far.
    pub(crate) fn requests(&self) -> Vec<HubRequest> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Forgets the requests so far.
    pub(crate) fn forget_requests(&self) {
        self.shared.requests.lock().unwrap().clear();
    }

    /// Returns how many bytes of files were sent so far.
    pub(crate) fn bytes_sent(&self) -> usize {
        self.requests().iter().filter(|request| request.is_of_files).map(|request| request.sent).sum()
    }
}

impl Drop for MockHub {
    fn drop(&mut self) {
        self.shared.has_ended.store(true, Ordering::SeqCst);
        self.release();
        for address in [self.hub, self.files] {
            let _ = TcpStream::connect(address);
        }
        for acceptor in self.acceptors.drain(..) {
            let _ = acceptor.join();
        }
    }
}

/// Returns the SHA-256 of bytes as the hub writes it.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Shared {
    fn serve(&self, stream: TcpStream, is_of_files: bool, files: SocketAddr) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        while let Some(request) = read_request(&mut reader, is_of_files)? {
            let at = {
                let mut requests = self.requests.lock().unwrap();
                requests.push(request.clone());
                requests.len() - 1
            };
            let faults = self.faults.lock().unwrap().clone();
            if is_of_files {
                self.send_file(&stream, &request, &faults, at)?;
                return Ok(());
            }
            let answer = self.hub_answer(&request, &faults, files);
            (&stream).write_all(&answer)?;
        }
        Ok(())
    }

    fn hub_answer(&self, request: &HubRequest, faults: &HubFaults, files: SocketAddr) -> Vec<u8> {
        if let Some((head, body)) = &faults.hub_answer {
            return whole(head, body.as_bytes(), request);
        }
        if faults
            .token
            .as_ref()
            .is_some_and(|token| request.authorization.as_deref() != Some(&format!("Bearer {token}")))
        {
            let body = json!({"error": "Access to this repository is restricted."}).to_string();
            return whole("403 Forbidden\r\nX-Error-Code: GatedRepo", body.as_bytes(), request);
        }
        let repositories = self.repositories.lock().unwrap();
        let path = request.path.split('?').next().unwrap_or_default();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let missing =
            |code: &str| whole(&format!("404 Not Found\r\nX-Error-Code: {code}"), br#"{"error":"Not found"}"#, request);
        match parts.as_slice() {
            ["api", "models"] => {
                let found = found_by(&request.path, repositories.keys().filter(|name| !name.contains('@')));
                whole("200 OK\r\nContent-Type: application/json", found.to_string().as_bytes(), request)
            }
            ["api", "models", org, name, rest @ ..] => {
                let repository = format!("{org}/{name}");
                if !repositories.contains_key(&repository) {
                    return missing("RepoNotFound");
                }
                let commit = match rest {
                    [] | ["revision", "main"] => self.main_of(&repository),
                    ["revision", commit] => (*commit).to_owned(),
                    _ => return missing("EntryNotFound"),
                };
                let Some(found) = repositories.get(&key_of(&repository, &commit)) else {
                    return missing("RevisionNotFound");
                };
                let has_sizes = request.path.contains("blobs=true");
                let sibling = |(file, held): (&String, &Arc<HubFile>)| match has_sizes {
                    true => {
                        json!({"rfilename": file, "size": 133, "lfs": {"sha256": held.sha256, "size": held.bytes.len()}})
                    }
                    false => json!({"rfilename": file}),
                };
                let siblings: Vec<_> = found.iter().map(sibling).collect();
                let body = json!({"id": format!("{org}/{name}"), "sha": commit, "siblings": siblings, "tags": [], "private": false});
                whole("200 OK\r\nContent-Type: application/json", body.to_string().as_bytes(), request)
            }
            [org, name, "resolve", revision, file @ ..] => {
                let repository = format!("{org}/{name}");
                let commit = if *revision == "main" { self.main_of(&repository) } else { (*revision).to_owned() };
                let Some(found) = repositories.get(&key_of(&repository, &commit)) else {
                    return missing("RepoNotFound");
                };
                let Some(found) = found.get(&file.join("/")) else { return missing("EntryNotFound") };
                let (hash, size) = (&found.sha256, found.bytes.len() as u64 + faults.size_lie);
                let files = faults.files_at.unwrap_or(files);
                let location = format!("Location: http://{files}/{hash}?signature=s3cr3t-signature");
                if faults.refuses_head {
                    return whole(&format!("302 Found\r\n{location}"), b"", request);
                }
                let head = format!(
                    "302 Found\r\nX-Repo-Commit: {commit}\r\nX-Linked-Etag: \"{hash}\"\r\nX-Linked-Size: {size}\r\n\
                     ETag: \"of-the-pointer\"\r\n{location}"
                );
                whole(&head, b"", request)
            }
            _ => missing("EntryNotFound"),
        }
    }

    fn send_file(
        &self,
        mut stream: &TcpStream,
        request: &HubRequest,
        faults: &HubFaults,
        at: usize,
    ) -> std::io::Result<()> {
        if faults.holds {
            let released = self.released.lock().unwrap();
            drop(self.release.wait_while(released, |released| !*released).unwrap());
        }
        if faults.refuses_head && request.method == "HEAD" {
            return stream.write_all(&whole("403 Forbidden", b"", request));
        }
        if faults.is_circle {
            return stream.write_all(&whole(&format!("302 Found\r\nLocation: {}", request.path), b"", request));
        }
        let answer = {
            let mut faults = self.faults.lock().unwrap();
            faults.file_answer.as_mut().filter(|(left, ..)| *left > 0).map(|(left, head, body)| {
                *left -= 1;
                (head.clone(), body.clone())
            })
        };
        if let Some((head, body)) = answer {
            return stream.write_all(&whole(&head, body.as_bytes(), request));
        }
        let hash = request.path.trim_start_matches('/').split('?').next().unwrap_or_default();
        let found = {
            let repositories = self.repositories.lock().unwrap();
            repositories.values().flat_map(BTreeMap::values).find(|file| file.sha256 == hash).cloned()
        };
        let Some(found) = found else { return stream.write_all(&whole("403 Forbidden", b"expired", request)) };
        let bytes = &found.bytes;
        let size = bytes.len() as u64;
        let range = request.range.clone().filter(|_| !faults.has_no_ranges);
        let (start, end) = range.as_ref().map_or((0, size), |range| (range.start, range.end.min(size)));
        let status = match &range {
            Some(_) => format!("206 Partial Content\r\nContent-Range: bytes {start}-{}/{size}", end.saturating_sub(1)),
            None => "200 OK".to_owned(),
        };
        let length = end - start;
        let head =
            format!("HTTP/1.1 {status}\r\nETag: \"{hash}\"\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        if request.method == "HEAD" {
            return Ok(());
        }
        let most = self.cut_of_next();
        let body = &bytes[start as usize..end as usize];
        let body = &body[..most.unwrap_or(body.len()).min(body.len())];
        for chunk in body.chunks(SENT_AT_ONCE) {
            let wrong: Vec<u8> = chunk.iter().map(|byte| byte ^ u8::from(faults.sends_wrong_bytes)).collect();
            stream.write_all(&wrong)?;
            if let Some(request) = self.requests.lock().unwrap().get_mut(at) {
                request.sent += chunk.len();
            }
            thread::sleep(faults.pause);
        }
        Ok(())
    }

    fn main_of(&self, repository: &str) -> String {
        self.moved.lock().unwrap().get(repository).cloned().unwrap_or_else(|| COMMIT.to_owned())
    }

    /// Returns after how many bytes the next answer ends.
    fn cut_of_next(&self) -> Option<usize> {
        let mut faults = self.faults.lock().unwrap();
        let (bytes, left) = faults.cut.as_mut().filter(|(_, left)| *left > 0)?;
        *left -= 1;
        Some(*bytes)
    }
}

/// Returns what a search finds: repositories whose names hold its words, as far as its limit goes.
fn found_by<'a>(path: &str, names: impl Iterator<Item = &'a String>) -> serde_json::Value {
    let value = |name: &str| {
        let mut pairs =
            path.split_once('?').map_or("", |(_, query)| query).split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(found, _)| *found == name).map(|(_, value)| value.replace('+', " ").to_lowercase())
    };
    let (words, limit) = (value("search").unwrap_or_default(), value("limit").and_then(|limit| limit.parse().ok()));
    let has_words = |name: &&String| words.split(' ').all(|word| name.to_lowercase().contains(word));
    let described = |(number, name): (usize, &String)| {
        json!({
            "id": name, "downloads": 1000 - number, "likes": 7, "lastModified": "2026-01-02T03:04:05.000Z",
            "gated": if name.contains("Gated") { json!("manual") } else { json!(false) },
            "gguf": {"total": 134_515_008, "architecture": "llama", "context_length": 8192},
        })
    };
    names.filter(has_words).take(limit.unwrap_or(1000)).enumerate().map(described).collect()
}

/// Returns under which name the files of a commit are kept.
fn key_of(repository: &str, commit: &str) -> String {
    if commit == COMMIT { repository.to_owned() } else { format!("{repository}@{commit}") }
}

fn whole(head: &str, body: &[u8], request: &HubRequest) -> Vec<u8> {
    let close = if request.is_of_files { "close" } else { "keep-alive" };
    let mut answer =
        format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: {close}\r\n\r\n", body.len()).into_bytes();
    if request.method != "HEAD" {
        answer.extend_from_slice(body);
    }
    answer
}

fn read_request(reader: &mut impl BufRead, is_of_files: bool) -> std::io::Result<Option<HubRequest>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut request = HubRequest { is_of_files, method, path, authorization: None, range: None, sent: 0 };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { return Ok(Some(request)) };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => request.authorization = Some(value.trim().to_owned()),
            "range" => {
                let (first, last) = value.trim().trim_start_matches("bytes=").split_once('-').unwrap_or_default();
                let last = last.parse::<u64>().map_or(u64::MAX, |last| last + 1);
                request.range = first.parse().ok().map(|first| first..last);
            }
            _ => {}
        }
    }
}
