//! The proxies that the gateway is compared with: one core, keep-alive connections on both sides, no log, no response
//! buffering.
//!
//! - `plain.rs`: the configurations of nginx, HAProxy and Envoy, which pass bytes on
//! - `model_gateways.rs`: those of LiteLLM and SMG, which read requests

mod model_gateways;
mod plain;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::contender::Contender;
use crate::measure::free_port;
use crate::pinned::{self, PROXY_CPU};
use crate::plan::Expected;
use crate::traffic::ModelName;

/// A proxy that the gateway is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Nginx,
    Haproxy,
    Envoy,
    Smg,
    Litellm,
}

impl Peer {
    /// All proxies, the fastest first.
    pub(crate) const ALL: [Self; 5] = [Self::Nginx, Self::Haproxy, Self::Envoy, Self::Smg, Self::Litellm];

    /// Returns its name, which is also that of its program.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Smg => "smg",
            Self::Litellm => "litellm",
        }
    }

    /// Returns its program: from the variable NGINX, HAPROXY and so on; else from the environment that
    /// scripts/bench-peers.sh makes; else from PATH or /usr/sbin.
    pub(crate) fn program(self) -> Option<PathBuf> {
        let name = self.name();
        let made = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/bench-peers").join(name).join("bin").join(name);
        match std::env::var_os(name.to_uppercase()) {
            Some(given) => Some(given.into()).filter(|path: &PathBuf| path.is_file()),
            None => Some(made).filter(|path| path.is_file()).or_else(|| find(name)),
        }
    }

    /// Returns its version: the first line that it prints about it.
    pub(crate) fn version(self) -> Option<String> {
        let flag = if matches!(self, Self::Nginx | Self::Haproxy) { "-v" } else { "--version" };
        let output = Command::new(self.program()?).arg(flag).output().ok()?;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned();
        text.lines().next().map(str::to_owned)
    }

    /// LiteLLM reads answers and writes them in its own form.
    fn expected(self) -> Expected {
        if self == Self::Litellm { Expected::Rewritten } else { Expected::AsSent }
    }

    /// Starts the proxy in front of a mock.
    ///
    /// # Errors
    ///
    /// Why it does not serve requests here, as one sentence.
    pub(crate) fn start(self, mock: &Contender) -> Result<Contender, String> {
        let program = self.program().ok_or("it is missing: scripts/bench-peers.sh installs it")?;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        // Envoy knows by the ending that it is YAML; the others do not care.
        let file = folder.path().join("peer.yaml");
        let mut command = pinned::command(PROXY_CPU, program);
        let write = |text: String| fs::write(&file, text).expect("the configuration can be written");
        match self {
            Self::Nginx => {
                write(plain::nginx(address, mock.address));
                command.arg("-p").arg(folder.path()).arg("-c").arg(&file).args(["-e", "stderr"]);
            }
            Self::Haproxy => {
                write(plain::haproxy(address, mock.address));
                command.arg("-q").arg("-db").arg("-f").arg(&file);
            }
            Self::Envoy => {
                write(plain::envoy(address, mock.address));
                command.arg("-c").arg(&file).args(["--concurrency", "1", "--disable-hot-restart", "-l", "error"]);
            }
            Self::Smg => model_gateways::smg(&mut command, address, mock.address),
            Self::Litellm => {
                write(model_gateways::litellm(mock.address));
                model_gateways::litellm_command(&mut command, address, &file);
            }
        }
        let output = fs::File::create(folder.path().join("output")).expect("a file for its output");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        let mut contender = Contender::start(self.name(), &mut command, address, folder)?;
        (contender.mock, contender.expected) = (mock.mock, self.expected());
        contender.wait_until("serves requests", |contender| contender.has_answered(ModelName::OF_MOCK))?;
        Ok(contender)
    }
}

/// Finds a program on PATH or in /usr/sbin, where Debian installs servers.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.find_map(|folder| Some(folder.join(name)).filter(|path| path.is_file()))
}
