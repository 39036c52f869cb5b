//! `llamagate health`: asks the health port of the service on this machine.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http::Request;

use super::client::ShownCertificate;
use super::inputs::{Flags, detect_platform, resolve_inputs};
use super::output::{fail, print, report_problems};
use super::runtime;
use crate::dial::Trust;
use crate::http_client::{ClientOptions, HttpClient};
use crate::settings::{Environment, resolve_only};

/// Longest time that `llamagate health` waits for the answer of the health port.
const HEALTH_CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs `llamagate health`.
pub(super) fn run(flags: Flags, environment: Environment) -> ExitCode {
    let shown = ShownCertificate::of_environment(&environment);
    // Only the settings that are needed: the service may be running fine with the configuration as it was before a
    // mistake was made in another setting.
    let inputs = resolve_inputs(flags.0, environment);
    let platform = detect_platform(&inputs.environment);
    let keys =
        ["host", "port", "port_health", "tls_cert", "tls_key", "tls_self_signed", "tls_acme_domains", "tls_health"];
    let (listen, has_tls) = match resolve_only(&inputs, &platform, &keys) {
        Ok((settings, _)) => (settings.listen.clone(), settings.has_health_tls()),
        Err(problems) => return report_problems(&problems),
    };
    let host = match listen.host {
        // A service that listens on all addresses is asked on the loopback address.
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        host => host,
    };
    let scheme = if has_tls { "https" } else { "http" };
    let url = format!("{scheme}://{}/ping", std::net::SocketAddr::new(host, listen.port_health));
    let trust = match trust(has_tls, shown.as_ref()) {
        Ok(trust) => trust,
        Err(error) => return fail(&error),
    };
    let request = async {
        let options = ClientOptions {
            connect_timeout: HEALTH_CHECK_TIMEOUT,
            keep_idle: None,
            follow_redirects: false,
            use_proxy: false,
        };
        let client = HttpClient::new(&trust, &options)?;
        let ping = Request::get(&url).body(Bytes::new()).map_err(io::Error::other)?;
        client.send(ping, HEALTH_CHECK_TIMEOUT).await.map_err(io::Error::other)
    };
    let runtime = match runtime::on_this_thread() {
        Ok(runtime) => runtime,
        Err(problem) => return fail(&problem),
    };
    match runtime.block_on(request).map(|response| response.status().as_u16()) {
        Ok(200) => print("serving\n"),
        Ok(204) => print("loading\n"),
        Ok(status) => return fail(&format!("{url} answered {status}")),
        Err(_) => return fail(&format!("{url} did not answer")),
    }
    ExitCode::SUCCESS
}

/// Returns what the connection trusts, and the certificate that it shows. What listens on this machine is asked whether it
/// listens: its certificate tells nothing more.
///
/// # Errors
/// The certificate that is to be shown cannot be used, or TLS cannot be set up.
fn trust(has_tls: bool, shown: Option<&ShownCertificate>) -> Result<Trust, String> {
    if !has_tls {
        return Ok(Trust::None);
    }
    let trust = Trust::of_any_certificate().map_err(|error| format!("no TLS: {error}"))?;
    shown.map_or(Ok(trust.clone()), |shown| shown.add_to(trust).map_err(|error| error.to_string()))
}
