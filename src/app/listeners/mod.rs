//! The listeners of the gateway port and the health port, and their public addresses.
//!
//! Owns the addresses that are listened on and the separate thread of the health port. How requests are answered is the
//! gateway's business.
//!
//! - `certificates.rs`: the certificate of the service

pub(super) mod certificates;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use http::Request;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::cores::Cores;
use crate::file_replacement::{BY_UMASK, replace_unsynced};
use crate::gateway::listen::{HeadRefuser, InboundBody, ServedPort};
use crate::gateway::{Gateway, listen};
use crate::platform;
use crate::service_note::{PublishedNote, ServiceNote};
use crate::settings::{Inputs, Settings};
use crate::tls::CertificateStore;

/// The bound listeners of the service.
pub(super) struct Listeners {
    pub(super) gateway: TcpListener,
    /// `None` if both ports are the same; then the gateway's listener serves both.
    pub(super) health: Option<TcpListener>,
}

impl Listeners {
    /// Binds both ports, or one if they are the same.
    ///
    /// # Errors
    ///
    /// Returns an error that names the port, the address, the setting and what to do if one cannot be bound.
    pub(super) fn bind(settings: &Settings) -> io::Result<Self> {
        let (gateway_scheme, _) = schemes(settings);
        let gateway = listener(settings, settings.listen.port, ("gateway", gateway_scheme), "PORT")?;
        let health = if settings.has_shared_port() { None } else { Some(bind_health(settings)?) };
        Ok(Self { gateway, health })
    }

    /// Publishes where the service listens, for commands on this machine. They get along without it, so a note that cannot be
    /// written is only reported.
    pub(super) fn publish_note(
        &self,
        settings: &Settings,
        certificates: Option<&CertificateStore>,
    ) -> Option<PublishedNote> {
        let publish = || {
            let gateway = self.gateway.local_addr()?;
            let health = self.health.as_ref().map_or(Ok(gateway), TcpListener::local_addr)?;
            let tls = certificates.map(|store| certificates::noted(store, settings));
            ServiceNote::of_this_process(gateway, health, tls, &settings.files.data_dir)?.publish()
        };
        let failed =
            |error: &io::Error| info!(%error, "commands on this machine will not find this service by themselves");
        publish().inspect_err(failed).ok()
    }

    /// Logs the public addresses of the ports, if the platform maps them.
    pub(super) fn log_public_addresses(&self, settings: &Settings, inputs: &Inputs) {
        let (scheme, health_scheme) = schemes(settings);
        let public = |listener: &TcpListener| {
            let port = listener.local_addr().ok()?.port();
            platform::public_address(|name| inputs.environment.get(name), port)
        };
        match (public(&self.gateway), self.health.as_ref().and_then(public)) {
            (Some(gateway), Some(health)) => {
                info!("reachable from outside: {scheme}://{gateway}, health port {health_scheme}://{health}")
            }
            (Some(gateway), None) => info!("reachable from outside: {scheme}://{gateway}"),
            (None, _) => {}
        }
    }
}

/// Binds the health port.
///
/// # Errors
///
/// It cannot be bound, as [`Listeners::bind`] says.
pub(super) fn bind_health(settings: &Settings) -> io::Result<TcpListener> {
    let (_, scheme) = schemes(settings);
    listener(settings, settings.listen.port_health, ("health port", scheme), "PORT_HEALTH")
}

/// Returns the schemes of the gateway's and the health port's addresses.
fn schemes(settings: &Settings) -> (&'static str, &'static str) {
    let scheme = |has_tls: bool| if has_tls { "https" } else { "http" };
    (scheme(settings.has_tls()), scheme(settings.has_health_tls()))
}

/// Binds one port of this name and scheme, which `setting` sets.
fn listener(settings: &Settings, port: u16, (name, scheme): (&str, &str), setting: &str) -> io::Result<TcpListener> {
    let address = SocketAddr::new(settings.listen.host, port);
    let listener = listen::bind(address).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "; another program has the port, perhaps a second llamagate: set {setting}, or end that program (`ss -ltnp` shows it)"
            ),
            io::ErrorKind::PermissionDenied => {
                format!("; this user may not use the port: set {setting} to one from 1024")
            }
            _ => format!("; check HOST and {setting}"),
        };
        io::Error::new(error.kind(), format!("{name} cannot listen on {address}: {error}{hint}"))
    })?;
    info!("{name} listens on {scheme}://{}", listener.local_addr()?);
    Ok(listener)
}

/// Serves the gateway's port on these cores until `stop` is cancelled and its connections have ended.
pub(super) async fn serve_gateway(cores: Cores, port: ServedPort, gateway: Arc<Gateway>, stop: CancellationToken) {
    let refuser = Arc::clone(&gateway);
    let refuse: HeadRefuser = Arc::new(move |raw_head, refusal, peer| refuser.refuse_head(raw_head, refusal, peer));
    let service = move |request: Request<InboundBody>, peer: IpAddr| Arc::clone(&gateway).serve(request, peer);
    listen::serve(cores, port, service, refuse, stop).await;
}

/// Serves the health port on its own thread and runtime, so that it answers while the gateway's are saturated.
///
/// # Errors
///
/// Returns an error if the listener cannot be converted, or if the runtime or the thread cannot be created.
pub(super) fn serve_health_on_its_own_thread(
    port: ServedPort,
    gateway: Arc<Gateway>,
    stop: CancellationToken,
) -> io::Result<std::thread::JoinHandle<()>> {
    let ServedPort { listener, limits, tls } = port;
    // A Tokio listener belongs to the runtime that registered it.
    let listener = listener.into_std()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("health-port".to_owned()).spawn(move || {
        runtime.block_on(async move {
            let refuser = Arc::clone(&gateway);
            let refuse: HeadRefuser =
                Arc::new(move |raw_head, refusal, _| refuser.refuse_health_head(raw_head, refusal));
            let service = move |request: Request<InboundBody>, peer: IpAddr| {
                let gateway = Arc::clone(&gateway);
                async move { gateway.serve_health(request, peer).await }
            };
            match TcpListener::from_std(listener) {
                Ok(listener) => {
                    let port = ServedPort { listener, limits, tls };
                    listen::serve(Cores::of_this_runtime(), port, service, refuse, stop).await;
                }
                Err(error) => error!(%error, "the health port cannot be served"),
            }
        });
    })
}

/// Writes the gateway's port to `path` (`PORT_FILE`). Makes its folder if there is none.
///
/// # Errors
///
/// Returns an error, prefixed with the setting and the path, if the file cannot be written.
pub(super) fn write_port_file(path: &Path, port: u16) -> io::Result<()> {
    let with_path = |error: io::Error| io::Error::new(error.kind(), format!("PORT_FILE {}: {error}", path.display()));
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(with_path)?;
    }
    replace_unsynced(path, format!("{port}\n").as_bytes(), BY_UMASK).map_err(with_path)
}
