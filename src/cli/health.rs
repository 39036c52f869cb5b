//! `llamagate health`: asks the health port of the service on this machine.

use super::arguments::{Flags, detect_platform, resolve_inputs};
use super::output::{fail, print, refuse};
use crate::dial::Trust;
use crate::http_client::{ClientOptions, HttpClient};
use crate::settings::{Environment, resolve_only};
use bytes::Bytes;
use http::Request;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;
use std::time::Duration;

/// Longest time that `llamagate health` waits for the answer of the health port.
const HEALTH_CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs `llamagate health`.
pub(super) fn run(flags: Flags, environment: Environment) -> ExitCode {
    let platform = detect_platform(&environment);
    // The service may run well with what the configuration was before a mistake came in.
    let inputs = resolve_inputs(flags.0, environment);
    let listen = match resolve_only(&inputs, &platform, &["host", "port_health"]) {
        Ok((settings, _)) => settings.listen,
        Err(problems) => return refuse(&problems),
    };
    let host = match listen.host {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        host => host,
    };
    let url = format!("http://{}/ping", std::net::SocketAddr::new(host, listen.port_health));
    let asked = async {
        let options = ClientOptions { connect_timeout: HEALTH_CHECK_TIMEOUT, keep_idle: None, follow_redirects: false };
        let client = HttpClient::new(&Trust::None, &options)?;
        let request = Request::get(&url).body(Bytes::new()).map_err(io::Error::other)?;
        client.send(request, HEALTH_CHECK_TIMEOUT).await.map_err(io::Error::other)
    };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return fail("no runtime");
    };
    match runtime.block_on(asked).map(|response| response.status().as_u16()) {
        Ok(200) => print("serving\n"),
        Ok(204) => print("loading\n"),
        Ok(status) => return fail(&format!("{url} answered {status}")),
        Err(_) => return fail(&format!("{url} did not answer")),
    }
    ExitCode::SUCCESS
}
