//! The checks that need no model file: keys, file descriptors, the queue, files that are written, the address.

use std::io;
use std::net::TcpListener;

use nix::unistd::{AccessFlags, access};

use super::keys::open_keys;
use crate::descriptors::{self, Descriptors};
use crate::keys::Store;
use crate::platform;
use crate::settings::{Config, Environment, RunpodQueue, SettingProblem, Settings};
use crate::tls::{CertificateSource, LeafFacts};

/// The result of the checks that need no model file.
pub struct Prepared {
    /// The API keys, if any route asks for one.
    pub keys: Option<Store>,
    /// How the file descriptors are divided.
    pub descriptors: Descriptors,
    /// The RunPod queue that jobs are polled from.
    pub queue: Option<RunpodQueue>,
    /// Where the certificate comes from, if the service speaks TLS.
    pub certificate_source: Option<CertificateSource>,
    /// What the certificate of files says of itself.
    pub certificate: Option<LeafFacts>,
}

/// Checks everything except the models. Fast even if the disk with the models is slow.
///
/// # Errors
///
/// All problems that were found.
pub fn ready(config: &Config, environment: &Environment) -> Result<Prepared, Vec<SettingProblem>> {
    let settings = &config.settings;
    let mut problems = Vec::new();
    let queue = RunpodQueue::read(settings, environment).map_err(|found| problems.extend(found)).ok().flatten();
    let asks_for_keys = settings.access.auth_enabled || settings.access.metrics_auth_enabled;
    // A queue worker gets its requests as jobs, so it may start without a key: HTTP requests that need one are then all
    // refused.
    let has_key = settings.access.llamagate_api_key.is_some() || settings.access.auth_keys_file.exists();
    let keys = if asks_for_keys && (queue.is_none() || has_key) {
        open_keys(settings).map_err(|problem| problems.push(problem)).ok()
    } else {
        None
    };
    let public_address = platform::public_ip(|name| environment.get(name));
    let certificate_source = CertificateSource::of_settings(settings, public_address);
    let certificate = certificate_source.as_ref().map(CertificateSource::check).transpose();
    let certificate = certificate.map_err(|error| problems.push(error.problem())).ok().flatten().flatten();
    problems.extend(bad_log_file(settings));
    problems.extend(foreign_host(settings));
    problems.extend(bad_port_file(settings));
    // Even with other problems, so that all of them are reported at once.
    let descriptors = descriptors::allocate(config).map_err(|problem| problems.push(problem)).ok();
    match descriptors {
        Some(descriptors) if problems.is_empty() => {
            Ok(Prepared { keys, descriptors, queue, certificate_source, certificate })
        }
        _ => Err(problems),
    }
}

/// Returns a problem if `PORT_FILE` names what cannot be replaced by a file. Its folder may still be missing: it is made.
fn bad_port_file(settings: &Settings) -> Option<SettingProblem> {
    let path = settings.listen.port_file.as_ref()?;
    let problem = |fault: String, hint: &str| SettingProblem {
        subject: format!("PORT_FILE={:?}", path.display().to_string()),
        fault,
        hint: Some(hint.to_owned()),
    };
    if path.is_dir() {
        return Some(problem("is a folder".to_owned(), "name a file in it, such as .port"));
    }
    if path.exists() && !path.is_file() {
        return Some(problem("is no regular file".to_owned(), "name a file that may be replaced"));
    }
    let absolute = std::path::absolute(path).ok()?;
    let folder = absolute.ancestors().skip(1).find(|folder| folder.exists())?;
    let shown = folder.display();
    if !folder.is_dir() {
        return Some(problem(format!("{shown} is no folder"), "name a file in a folder"));
    }
    let access = access(folder, AccessFlags::W_OK | AccessFlags::X_OK);
    access.err().map(|error| problem(format!("{shown} cannot be written: {error}"), "name a file in another folder"))
}

/// Returns a problem if `HOST` is no address of this machine. Asks the kernel with a port of its own choice.
fn foreign_host(settings: &Settings) -> Option<SettingProblem> {
    let host = settings.listen.host;
    let error = TcpListener::bind((host, 0)).err()?;
    (error.kind() == io::ErrorKind::AddrNotAvailable).then(|| SettingProblem {
        subject: format!("HOST={host}"),
        fault: "this machine has no such address".to_owned(),
        hint: Some(
            "0.0.0.0 listens on all IPv4 addresses, :: on IPv6 too; `ip address` lists those there are".to_owned(),
        ),
    })
}

/// Returns a problem if `LOG_FILE` names a folder.
fn bad_log_file(settings: &Settings) -> Option<SettingProblem> {
    let path = settings.logs.log_file.as_ref().filter(|path| settings.logs.log_to_file && path.is_dir())?;
    Some(SettingProblem {
        subject: format!("LOG_FILE={:?}", path.display().to_string()),
        fault: "is a folder".to_owned(),
        hint: Some("name a file; LOG_DIR names the folder of all other logs".to_owned()),
    })
}
