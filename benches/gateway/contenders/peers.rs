//! nginx and HAProxy as fast plain proxies: one thread, keep-alive connections, no log, no response buffering.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::contender::Contender;
use crate::measure::free_port;
use crate::pinned::{self, PROXY_CPU};

/// A proxy that the gateway is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Nginx,
    Haproxy,
}

impl Peer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }

    /// Returns its program: from the variable NGINX or HAPROXY, else from PATH or /usr/sbin.
    pub(crate) fn program(self) -> Option<PathBuf> {
        match std::env::var_os(self.name().to_uppercase()) {
            Some(given) => Some(given.into()).filter(|path: &PathBuf| path.is_file()),
            None => find(self.name()),
        }
    }

    /// Returns the first line of its version.
    pub(crate) fn version(self) -> Option<String> {
        let output = Command::new(self.program()?).arg("-v").output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).lines().next().map(str::to_owned)
    }

    /// Starts the proxy in front of a mock.
    pub(crate) fn start(self, mock: &Contender) -> Contender {
        let upstream = mock.address;
        let program = self.program().expect("it was found before");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let file = folder.path().join("peer.conf");
        let mut command = pinned::command(PROXY_CPU, program);
        match self {
            Self::Nginx => {
                fs::write(&file, nginx(address, upstream)).expect("the configuration can be written");
                command.arg("-p").arg(folder.path()).arg("-c").arg(&file).args(["-e", "stderr"]);
            }
            Self::Haproxy => {
                fs::write(&file, haproxy(address, upstream)).expect("the configuration can be written");
                command.arg("-q").arg("-db").arg("-f").arg(&file);
            }
        }
        let output = fs::File::create(folder.path().join("output")).expect("a file for its output");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        let mut contender = Contender::start(self.name(), &mut command, address, folder);
        contender.mock = mock.mock;
        contender
    }
}

/// Finds a program on PATH or in /usr/sbin, where Debian installs servers.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.find_map(|folder| Some(folder.join(name)).filter(|path| path.is_file()))
}

fn nginx(address: SocketAddr, upstream: SocketAddr) -> String {
    format!(
        "daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
pid nginx.pid;
error_log stderr error;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  gzip off;
  tcp_nodelay on;
  keepalive_requests 1000000000;
  keepalive_timeout 300s;
  client_max_body_size 16m;
  client_body_buffer_size 2m;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  upstream mock {{
    server {upstream};
    keepalive 512;
    keepalive_requests 1000000000;
    keepalive_timeout 300s;
  }}
  server {{
    listen {address} backlog=1024;
    location / {{
      proxy_pass http://mock;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_buffering off;
      proxy_buffer_size 64k;
      proxy_buffers 8 64k;
      proxy_read_timeout 300s;
    }}
  }}
}}
"
    )
}

fn haproxy(address: SocketAddr, upstream: SocketAddr) -> String {
    format!(
        "global
  nbthread 1
  maxconn 8192
defaults
  mode http
  option http-keep-alive
  option http-no-delay
  http-reuse always
  timeout connect 5s
  timeout client 300s
  timeout server 300s
  timeout http-keep-alive 300s
frontend bench
  bind {address} backlog 1024
  default_backend mock
backend mock
  server mock {upstream}
"
    )
}
