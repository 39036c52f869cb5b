//! What still protects a gateway without API keys (`AUTH_ENABLED=false`): web pages may not drive it, and its orders are
//! only for the machine that it runs on.
//!
//! A browser sends the requests of any page to any address, a private one included. It hides the responses (CORS), but a
//! chat has been computed and a model unloaded by then. So a request that changes something must not come from a page of
//! another origin. Reading requests are left to CORS.
//!
//! Origins can be forged by a page that gives its own name to this machine (DNS rebinding). So this gateway's own page and
//! the routes of the scope `admin`, those that only read too, must be asked under a host that no page can have chosen;
//! `local_hosts.rs` knows these. Inference is served under any name, because clients reach the gateway by names of all kinds.
//!
//! Orders are accepted from the same machine only: from programs, and from this gateway's own page. They are the routes of the
//! scope `admin` that are not a GET, and those about the hub: a GET of these sends requests to other hosts, with the
//! operator's token.

use http::header::{FORWARDED, HOST, ORIGIN};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::local_hosts::{LocalHosts, is_address_or_localhost};
use crate::gateway::client_address::{AddressProof, ClientAddress};
use crate::gateway::routes::route::{Route, RouteAccess, RouteTarget};
use crate::keys::Scope;
use crate::refusal::Refusal;
use crate::settings::values::Origins;

/// The relation of a page to this origin, as browsers report it (Fetch Metadata).
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The host that a client sent its request to, as proxies report it.
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The headers with which proxies say that a request is another machine's.
static SET_BY_PROXIES: [HeaderName; 3] =
    [FORWARDED, HeaderName::from_static("x-forwarded-for"), HeaderName::from_static("x-real-ip")];

/// Checks the requests to a gateway without keys.
pub(super) struct KeylessGuard {
    /// `CORS_ORIGINS`
    origins: Origins,
    hosts: LocalHosts,
}

impl KeylessGuard {
    /// `own_hosts` are the names under which clients reach this machine; one that begins with a dot stands for all names
    /// that end so.
    pub(super) fn new(origins: Origins, own_hosts: &[String]) -> Self {
        Self { hosts: LocalHosts::new(own_hosts, &origins), origins }
    }

    /// Checks that a request may do what it asks for.
    ///
    /// # Errors
    /// [`Refusal::OriginNotAllowed`] for a page of another origin, [`Refusal::HostNotAllowed`] for a host that a page may
    /// have chosen, [`Refusal::LoopbackRequired`] for an order that does not come from this machine.
    pub(super) fn check(&self, parts: &Parts, route: &Route, client: ClientAddress) -> Result<(), Refusal> {
        let is_for_admins = matches!(route.access, RouteAccess::Key(Scope::Admin) | RouteAccess::AnyKey);
        let is_reading = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
        let is_order = is_for_admins && (!is_reading || matches!(route.target, RouteTarget::Hub(_)));
        if is_reading && !is_order {
            let is_page = matches!(route.target, RouteTarget::Page(_));
            return if is_for_admins || is_page { self.check_host(parts, client) } else { Ok(()) };
        }
        let is_from_page = is_from_another_site(&parts.headers);
        match single_origin(&parts.headers) {
            Origin::None if is_from_page && (is_order || self.origins != Origins::Any) => {
                return Err(Refusal::OriginNotAllowed { origin: None, is_order });
            }
            Origin::None => {}
            Origin::One(origin) if !is_order && self.may_send(origin, parts, client) => {}
            // This gateway's own page. `check_is_local` looks whether another one may have this name.
            Origin::One(origin) if is_order && is_same_host(origin, requested_authority(parts)) => {}
            Origin::One(origin) | Origin::Several(origin) => {
                let origin = Some(String::from_utf8_lossy(origin.as_bytes()).into_owned());
                return Err(Refusal::OriginNotAllowed { origin, is_order });
            }
        }
        if is_order { check_is_local(parts, client) } else { Ok(()) }
    }

    /// Checks that a page cannot have chosen the host that a request names. A trusted proxy has decided that itself. A
    /// request that names none (HTTP/1.0) is no browser's.
    ///
    /// # Errors
    /// [`Refusal::HostNotAllowed`] with the host.
    fn check_host(&self, parts: &Parts, client: ClientAddress) -> Result<(), Refusal> {
        let is_named = parts.uri.authority().is_some() || parts.headers.contains_key(HOST);
        let requested = requested_authority(parts);
        let host = requested.as_ref().map_or("", |authority| authority.host());
        if !is_named || client.proof == AddressProof::Proxy || self.hosts.contains(host) {
            return Ok(());
        }
        Err(Refusal::HostNotAllowed(host.to_owned()))
    }

    /// Whether a page of this origin may send requests that change something.
    fn may_send(&self, origin: &HeaderValue, parts: &Parts, client: ClientAddress) -> bool {
        let is_listed = match &self.origins {
            Origins::Off => false,
            Origins::Any => true,
            Origins::List(list) => list.iter().any(|listed| origin == listed.as_str()),
        };
        is_listed
            || is_same_host(origin, requested_authority(parts))
            || client.proof == AddressProof::Proxy && is_same_host(origin, forwarded_authority(&parts.headers))
    }
}

/// The `Origin` headers of a request.
enum Origin<'a> {
    None,
    One(&'a HeaderValue),
    /// No browser sends several.
    Several(&'a HeaderValue),
}

fn single_origin(headers: &HeaderMap) -> Origin<'_> {
    let mut origins = headers.get_all(ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) => Origin::None,
        (Some(origin), None) => Origin::One(origin),
        (Some(origin), Some(_)) => Origin::Several(origin),
    }
}

/// Whether the browser says that a page of another origin has sent the request.
fn is_from_another_site(headers: &HeaderMap) -> bool {
    headers.get_all(SEC_FETCH_SITE).iter().any(|site| site == "cross-site" || site == "same-site")
}

/// Returns the host and port that the request was sent to: `:authority` of HTTP/2, or `Host`.
fn requested_authority(parts: &Parts) -> Option<Authority> {
    let host = || parts.headers.get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    parts.uri.authority().cloned().or_else(host)
}

/// Returns the host and port that a client sent its request to, as its proxy says. A page cannot add this header without
/// a preflight.
fn forwarded_authority(headers: &HeaderMap) -> Option<Authority> {
    headers.get(X_FORWARDED_HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok())
}

/// Whether the page comes from the host and port that it sends the request to. The schemes may differ: a proxy in front
/// may have taken TLS off.
fn is_same_host(origin: &HeaderValue, requested: Option<Authority>) -> bool {
    let Some((scheme, page)) = origin.to_str().ok().and_then(|origin| origin.split_once("://")) else { return false };
    let default_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return false,
    };
    let (Ok(page), Some(requested)) = (Authority::try_from(page), requested) else { return false };
    let port = |authority: &Authority| authority.port_u16().unwrap_or(default_port);
    page.host().eq_ignore_ascii_case(requested.host()) && port(&page) == port(&requested)
}

/// Checks that an order comes from a program on this machine.
fn check_is_local(parts: &Parts, client: ClientAddress) -> Result<(), Refusal> {
    let is_from_unknown_client = match client.proof {
        AddressProof::Connection => SET_BY_PROXIES.iter().any(|name| parts.headers.contains_key(name)),
        AddressProof::Proxy => false,
        AddressProof::Unclear => true,
    };
    if !client.address.to_canonical().is_loopback() {
        Err(Refusal::LoopbackRequired("it came from another address"))
    } else if is_from_unknown_client {
        Err(Refusal::LoopbackRequired(
            "it came through a proxy that is not in TRUSTED_PROXIES or does not name its client",
        ))
    } else if !requested_authority(parts).is_some_and(|authority| is_address_or_localhost(authority.host())) {
        Err(Refusal::LoopbackRequired("its Host is neither an address nor localhost"))
    } else {
        Ok(())
    }
}

#[cfg(test)]
#[path = "keyless_tests.rs"]
mod tests;
