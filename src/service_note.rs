//! The note of a running service: where it listens and which process it is. Commands of the same user on the same machine
//! find the service by it.
//!
//! Owns the file, which holds no secret. It lies in shared memory or the temporary folder, not in `DATA_DIR`, because
//! that may be a volume of several machines.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::file_replacement::{OWNER_ONLY, remove_leftovers, replace_unsynced};
use crate::os::here;
use crate::os::identity::ProcessIdentity;

const PREFIX: &str = "llamagate-service-";

/// Bytes that are read at most of a note; none that this program writes is longer.
const NOTE_SIZE: u64 = 16 * 1024;

/// Most notes that are looked at.
const MOST_NOTES: usize = 1_000;

/// Where a service listens, and which process it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceNote {
    /// The address of the gateway's port as clients on this machine reach it.
    pub gateway: SocketAddr,
    /// The same of the health port.
    pub health: SocketAddr,
    /// The TLS of the gateway's port; `None` if it speaks plain HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<NotedTls>,
    /// `DATA_DIR`, without links in it.
    pub data_dir: PathBuf,
    /// The version of the program.
    pub version: String,
    /// The process as [`ProcessIdentity`] writes it.
    process: String,
    /// Whether one of its arguments is empty.
    #[serde(default)]
    has_empty_argument: bool,
}

/// The certificate that a service shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotedTls {
    /// The SHA-256 of the certificate, which its connections are recognised by.
    pub fingerprint: [u8; 32],
    /// The file of the certificate, which other programs may trust; `None` if it comes from a CA by ACME, whose file has the
    /// key in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// The first name that it is for, if it comes from a CA by ACME.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether the health port speaks TLS too.
    pub is_on_health_port: bool,
}

/// Removes the note when it is dropped.
#[derive(Debug)]
pub struct PublishedNote {
    path: PathBuf,
    note: Mutex<ServiceNote>,
}

impl ServiceNote {
    /// Returns the note of this process, which listens on these addresses.
    ///
    /// # Errors
    /// The system does not tell which process this is.
    pub fn of_this_process(
        gateway: SocketAddr,
        health: SocketAddr,
        tls: Option<NotedTls>,
        data_dir: &Path,
    ) -> io::Result<Self> {
        let pid = i32::try_from(std::process::id()).map_err(io::Error::other)?;
        let process = ProcessIdentity::of(pid)?.to_text();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let (gateway, health) = (reachable(gateway), reachable(health));
        let has_empty_argument = std::env::args_os().any(|argument| argument.is_empty());
        Ok(Self { gateway, health, tls, data_dir: without_links(data_dir), version, process, has_empty_argument })
    }

    /// Writes the note for the user's own eyes, until the value that is returned is dropped. Notes of services that have
    /// ended without removing theirs are removed.
    ///
    /// # Errors
    /// It can be written in none of the folders; contains the last error.
    pub fn publish(&self) -> io::Result<PublishedNote> {
        for (path, _) in all().into_iter().filter(|(_, note)| note.has_ended()) {
            remove_leftovers(&path);
            let _ = fs::remove_file(path);
        }
        let text = serde_json::to_vec(self)?;
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for folder in folders() {
            let path = folder.join(format!("{PREFIX}{}", uuid::Uuid::now_v7().simple()));
            match write(&path, &text) {
                Ok(()) => return Ok(PublishedNote { path, note: Mutex::new(self.clone()) }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Returns the services of this user that run with this `DATA_DIR`.
    pub fn running(data_dir: &Path) -> Vec<Self> {
        let data_dir = without_links(data_dir);
        let notes = all().into_iter().map(|(_, note)| note);
        notes.filter(|note| note.data_dir == data_dir && note.process().is_some_and(|one| one.is_running())).collect()
    }

    /// Returns the service of this user that listens on this port of the loopback interface.
    pub fn on_port(port: u16) -> Option<Self> {
        let is_it = |note: &Self| note.gateway.port() == port && note.is_of_running_process();
        all().into_iter().map(|(_, note)| note).find(is_it)
    }

    /// Returns the address of the gateway's port, without a path.
    pub fn gateway_url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.gateway)
    }

    /// Returns the address of the health port, without a path.
    pub fn health_url(&self) -> String {
        let has_tls = self.tls.as_ref().is_some_and(|tls| tls.is_on_health_port);
        format!("{}://{}", if has_tls { "https" } else { "http" }, self.health)
    }

    /// Returns the id of the process, or `None` if it is of another container or an earlier boot.
    pub fn pid(&self) -> Option<i32> {
        self.process().map(|process| process.pid)
    }

    /// Returns whether the service was started with an argument that is empty.
    pub fn has_empty_argument(&self) -> bool {
        self.has_empty_argument
    }

    /// Returns whether the process that wrote it is running. A later process with the same id is another one.
    pub fn is_of_running_process(&self) -> bool {
        self.process().is_some_and(|process| process.is_running())
    }

    /// Whether the process has ended for certain: one of another container may be running.
    fn has_ended(&self) -> bool {
        self.process().is_some_and(|process| !process.is_running())
    }

    fn process(&self) -> Option<ProcessIdentity> {
        ProcessIdentity::parse(&self.process)
    }
}

impl PublishedNote {
    /// Notes that the service shows another certificate. Blocks on the disk.
    ///
    /// # Errors
    /// The note cannot be replaced.
    pub fn set_fingerprint(&self, fingerprint: [u8; 32]) -> io::Result<()> {
        let mut note = self.note.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tls) = &mut note.tls {
            tls.fingerprint = fingerprint;
        }
        replace_unsynced(&self.path, &serde_json::to_vec(&*note)?, OWNER_ONLY)
    }
}

impl Drop for PublishedNote {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Returns the address at which a client on this machine reaches a socket that listens on this one.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, address.port())
}

/// Returns a folder by the path that all who mean it have in common.
fn without_links(folder: &Path) -> PathBuf {
    folder.canonicalize().or_else(|_| std::path::absolute(folder)).unwrap_or_else(|_| folder.to_owned())
}

/// Returns the folders in which notes are written, in order of preference.
fn folders() -> Vec<PathBuf> {
    let disk = [std::env::temp_dir(), PathBuf::from("/tmp")];
    let mut folders: Vec<PathBuf> = here::memory_folder().into_iter().chain(disk).collect();
    folders.dedup();
    folders
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY).open(path)?;
    file.write_all(text).inspect_err(|_| _ = fs::remove_file(path))
}

/// Returns all notes of this user, with their paths.
fn all() -> Vec<(PathBuf, ServiceNote)> {
    let entries = folders().into_iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let is_note = |entry: &fs::DirEntry| entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
    let paths = entries.filter(is_note).map(|entry| entry.path()).take(MOST_NOTES);
    paths.filter_map(|path| Some((path.clone(), read(&path)?))).collect()
}

/// Reads a note. Every user may write to these folders, so that of another one, which could send a key of this user
/// anywhere, is none.
fn read(path: &Path) -> Option<ServiceNote> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file: File = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let metadata = file.metadata().ok()?;
    let is_ours =
        metadata.is_file() && metadata.uid() == nix::unistd::geteuid().as_raw() && metadata.mode() & 0o077 == 0;
    let mut text = Vec::new();
    let read = is_ours.then(|| file.take(NOTE_SIZE).read_to_end(&mut text));
    read?.ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn note(data_dir: &Path) -> ServiceNote {
        let any = "0.0.0.0:8000".parse().unwrap();
        ServiceNote::of_this_process(any, "[::]:8001".parse().unwrap(), None, data_dir).unwrap()
    }

    #[test]
    fn a_note_is_found_by_its_data_dir_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        let published = note(folder.path()).publish().unwrap();
        assert_eq!(fs::metadata(&published.path).unwrap().permissions().mode() & 0o777, 0o600);
        let found = ServiceNote::running(&link);
        assert_eq!(found, [note(folder.path())]);
        assert_eq!(found[0].gateway.to_string(), "127.0.0.1:8000");
        assert_eq!(found[0].health.to_string(), "[::1]:8001");
        drop(published);
        assert_eq!(ServiceNote::running(folder.path()), []);
    }

    #[test]
    fn a_note_of_a_process_whose_id_was_given_to_another_one_is_stale_and_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let mut stale = note(folder.path());
        let mut words: Vec<String> = stale.process.split(' ').map(str::to_owned).collect();
        words[1] = "1".to_owned();
        stale.process = words.join(" ");
        let published = stale.publish().unwrap();
        assert_eq!((ServiceNote::running(folder.path()), stale.is_of_running_process()), (vec![], false));
        let _other = note(folder.path()).publish().unwrap();
        assert!(!published.path.exists(), "the next service removes it");
    }

    #[test]
    fn a_note_tells_the_certificate_that_the_service_shows_now() {
        let folder = tempfile::tempdir().unwrap();
        let certificate_file = Some("/cert.pem".into());
        let tls =
            NotedTls { fingerprint: [1; 32], certificate: certificate_file, name: None, is_on_health_port: false };
        let published = ServiceNote { tls: Some(tls), ..note(folder.path()) }.publish().unwrap();
        published.set_fingerprint([2; 32]).unwrap();
        let found = ServiceNote::running(folder.path()).remove(0);
        assert_eq!(found.tls.as_ref().unwrap().fingerprint, [2; 32]);
        assert_eq!(
            (found.gateway_url(), found.health_url()),
            ("https://127.0.0.1:8000".into(), "http://[::1]:8001".into())
        );
        assert_eq!(fs::metadata(&published.path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_note_that_others_may_write_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let published = note(folder.path()).publish().unwrap();
        fs::set_permissions(&published.path, fs::Permissions::from_mode(0o622)).unwrap();
        assert_eq!(ServiceNote::running(folder.path()), []);
    }
}
