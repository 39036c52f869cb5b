//! Where the service is that a subcommand asks, and with which key.
//!
//! The address is that of `--url`, else that of `LLAMAGATE_URL`, else that of the service that runs on this machine with
//! the same `DATA_DIR`, else `HOST` and `PORT`. The key is that of `--key`, else that of `LLAMAGATE_KEY`, else, if no
//! address was given, `LLAMAGATE_API_KEY`: a service of this machine has it from there, too.
//!
//! Over HTTPS, the certificate is that of `--cacert`, else of `LLAMAGATE_CA`, else the very one that a service of this user on
//! this machine shows, else one that the machine trusts. The one that is shown to the service is that of `--cert`, else of
//! `LLAMAGATE_CERT`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use http::HeaderValue;
use url::Url;

use super::args::{ClientArgs, RemoteArgs};
use super::certificate::{CA_VARIABLE, ExpectedCertificate, ShownCertificate};
use super::error::CallError;
use crate::cli::command_settings::{SERVICE, resolve_groups};
use crate::dial::Trust;
use crate::service_note::ServiceNote;
use crate::settings::{Environment, Settings};
use crate::tls::CertificateSource;

const URL_VARIABLE: &str = "LLAMAGATE_URL";
const KEY_VARIABLE: &str = "LLAMAGATE_KEY";

/// Where the service is, and the key.
#[derive(Debug, Clone)]
pub(in crate::cli) struct ServiceAddress {
    /// Ends without a slash.
    base: String,
    /// Host and port, for messages.
    host: String,
    is_loopback: bool,
    certificate: ExpectedCertificate,
    /// What it is shown over HTTPS.
    shown: Option<ShownCertificate>,
    /// `Authorization`
    authorization: Option<HeaderValue>,
    /// The key itself, for the configuration of other programs.
    key: Option<String>,
}

impl ServiceAddress {
    /// Finds the service that these arguments mean.
    ///
    /// # Errors
    /// [`CallError`] if the address or the key has no valid form, a setting is wrong, or several services are meant.
    pub(in crate::cli) fn of(arguments: ClientArgs, environment: Environment) -> Result<Self, CallError> {
        Self::find(&arguments.remote, arguments.flags.0, environment)
    }

    /// As [`Self::of`], with the flags of the settings.
    ///
    /// # Errors
    /// As for [`Self::of`].
    pub(in crate::cli) fn find(
        remote: &RemoteArgs,
        flags: BTreeMap<&'static str, String>,
        environment: Environment,
    ) -> Result<Self, CallError> {
        let variable = |name: &str| environment.get(name).map(|text| (name.to_owned(), text.to_owned()));
        let flag = |name: &str, text: &Option<String>| text.as_ref().map(|text| (name.to_owned(), text.clone()));
        let url = flag("--url", &remote.url).or_else(|| variable(URL_VARIABLE));
        let mut key = flag("--key", &remote.key).or_else(|| variable(KEY_VARIABLE));
        let given = remote.cacert.clone().map(|path| ("--cacert".to_owned(), path));
        let mut given = given.or_else(|| variable(CA_VARIABLE).map(|(source, path)| (source, PathBuf::from(path))));
        let shown = ShownCertificate::find((remote.cert.clone(), remote.cert_key.clone()), &environment);
        let base = match url {
            Some((source, text)) => {
                if let Some(key) = flags.keys().next() {
                    let flag = key.replace('_', "-");
                    return Err(CallError::Usage(format!("--{flag} has no effect beside {source}")));
                }
                // Not shown, because a key may be in it.
                parse(&text).map_err(|fault| CallError::Usage(format!("{source} is not usable: {fault}")))?
            }
            None => {
                let settings = resolve_groups(flags, environment, &[SERVICE]).map_err(CallError::Reported)?;
                let service_key = settings.access.llamagate_api_key.as_ref();
                key = key.or_else(|| Some(("LLAMAGATE_API_KEY".to_owned(), service_key?.reveal().to_owned())));
                let (base, own_certificate) = local(&settings)?;
                given = given.or(own_certificate);
                base
            }
        };
        let authorization = key.as_ref().map(|(source, text)| authorization(source, text)).transpose()?;
        let certificate = ExpectedCertificate::find(given, &base, is_loopback(&base))?;
        if base.scheme() != "https" && shown.as_ref().is_some_and(ShownCertificate::is_of_flag) {
            return Err(CallError::Usage("--cert has no effect: the address does not begin with https://".to_owned()));
        }
        let shown = shown.filter(|_| base.scheme() == "https");
        Ok(Self { shown, ..Self::new(&base, certificate, authorization, key.map(|(_, text)| text)) })
    }

    /// Returns the address of the health port of this service, which needs no key. Over TLS it may want this certificate.
    pub(in crate::cli) fn of_health_port(note: &ServiceNote, shown: Option<ShownCertificate>) -> Self {
        let (base, host) = (note.health_url(), note.health.to_string());
        let tls = note.tls.clone().filter(|tls| tls.is_on_health_port);
        let shown = shown.filter(|_| tls.is_some());
        let certificate = tls.map_or(ExpectedCertificate::OfMachine, ExpectedCertificate::Noted);
        Self { base, host, is_loopback: true, certificate, shown, authorization: None, key: None }
    }

    /// Whether the arguments or the environment name a service, so that it is asked where there is another way.
    pub(in crate::cli) fn is_named(remote: &RemoteArgs, environment: &Environment) -> bool {
        remote.url.is_some() || remote.key.is_some() || environment.get(URL_VARIABLE).is_some()
    }

    fn new(
        base: &Url,
        certificate: ExpectedCertificate,
        authorization: Option<HeaderValue>,
        key: Option<String>,
    ) -> Self {
        let name = base.host_str().unwrap_or_default();
        let port = base.port_or_known_default().unwrap_or_default();
        let text = base.as_str().trim_end_matches('/');
        let text = text.strip_suffix("/v1").unwrap_or(text).trim_end_matches('/').to_owned();
        let host = format!("{name}:{port}");
        Self { base: text, host, is_loopback: is_loopback(base), certificate, shown: None, authorization, key }
    }

    /// Returns the address, without a slash at its end.
    pub(in crate::cli) fn base(&self) -> &str {
        &self.base
    }

    /// Returns host and port.
    pub(in crate::cli) fn host(&self) -> &str {
        &self.host
    }

    /// Whether the service is on this machine, so that no proxy stands in between.
    pub(in crate::cli) fn is_loopback(&self) -> bool {
        self.is_loopback
    }

    /// Returns which certificates connections trust, and which one they show.
    ///
    /// # Errors
    /// [`CallError`] if a file that names one cannot be used.
    pub(in crate::cli) fn trust(&self) -> Result<Trust, CallError> {
        let trust = self.certificate.trust()?;
        self.shown.as_ref().map_or(Ok(trust.clone()), |shown| shown.add_to(trust))
    }

    /// Returns the file of certificates that other programs must trust to ask the service; `None` if they need none.
    pub(in crate::cli) fn certificate_file(&self) -> Option<&Path> {
        self.certificate.file()
    }

    /// Returns the name that other programs must ask for, because the certificate is for no address of this machine; `None` if
    /// the address will do.
    pub(in crate::cli) fn certificate_name(&self) -> Option<&str> {
        self.certificate.name()
    }

    /// Whether the service is shown a certificate.
    pub(in crate::cli) fn has_client_certificate(&self) -> bool {
        self.shown.is_some()
    }

    /// Returns the value of `Authorization`.
    pub(in crate::cli) fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    /// Returns the key.
    pub(in crate::cli) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }
}

fn is_loopback(base: &Url) -> bool {
    match base.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Reads an address. `http://` may be left out.
fn parse(text: &str) -> Result<Url, &'static str> {
    const EXPECTED: &str = "expected an address such as http://127.0.0.1:8000";
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url = Url::parse(&with_scheme).map_err(|_| EXPECTED)?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(EXPECTED);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a key does not belong into the address: give it as LLAMAGATE_KEY");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("expected an address without a query");
    }
    Ok(url)
}

fn authorization(source: &str, key: &str) -> Result<HeaderValue, CallError> {
    let header = HeaderValue::try_from(format!("Bearer {key}")).ok().filter(|_| !key.is_empty());
    let mut header = header.ok_or_else(|| CallError::Usage(format!("{source} has no form that a key can have")))?;
    header.set_sensitive(true);
    Ok(header)
}

/// Returns the address of the service on this machine, and the file of its certificate if none of its notes tells one.
fn local(settings: &Settings) -> Result<(Url, Option<(String, PathBuf)>), CallError> {
    let running = ServiceNote::running(&settings.files.data_dir);
    let mut certificate = None;
    let url = match running.as_slice() {
        [one] => one.gateway_url(),
        [] => {
            let own = CertificateSource::of_settings(settings, None).filter(CertificateSource::is_self_signed);
            let file = own.and_then(|own| own.certificate_file().map(Path::to_owned)).filter(|file| file.exists());
            certificate = file.map(|file| ("TLS_SELF_SIGNED".to_owned(), file));
            let scheme = if settings.has_tls() { "https" } else { "http" };
            format!("{scheme}://{}", SocketAddr::new(reachable(settings.listen.host), settings.listen.port))
        }
        several => {
            let urls: Vec<String> = several.iter().map(ServiceNote::gateway_url).collect();
            let urls = urls.join(" and ");
            return Err(CallError::Usage(format!(
                "several services run with this DATA_DIR: give --url, one of {urls}"
            )));
        }
    };
    let url = Url::parse(&url).map_err(|error| CallError::Usage(error.to_string()))?;
    Ok((url, certificate))
}

/// A service that listens on all addresses is asked on the loopback address.
fn reachable(host: IpAddr) -> IpAddr {
    match host {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        host => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> Result<ServiceAddress, String> {
        let (url, key) = (Some(url.to_owned()), Some("a-key".to_owned()));
        let remote = RemoteArgs { url, key, ..RemoteArgs::default() };
        ServiceAddress::find(&remote, BTreeMap::new(), Environment::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn an_address_may_lack_its_scheme_and_may_end_as_clients_of_openai_write_it() {
        for (given, base) in [
            ("localhost:8000", "http://localhost:8000"),
            ("http://gpu-box/", "http://gpu-box"),
            ("https://x.example/llm/v1/", "https://x.example/llm"),
            ("http://[::1]:8000/v1", "http://[::1]:8000"),
        ] {
            assert_eq!(of(given).unwrap().base(), base);
        }
        assert!(of("localhost:8000").unwrap().is_loopback() && of("http://[::1]:1").unwrap().is_loopback());
        assert!(!of("http://gpu-box").unwrap().is_loopback());
        assert_eq!(of("http://gpu-box").unwrap().host(), "gpu-box:80");
    }

    #[test]
    fn what_is_no_address_is_refused_and_a_key_in_it_too() {
        for given in ["", "ftp://x", "http://", "http://u:p@x", "http://x/?key=1", "http://x/#a"] {
            assert!(of(given).unwrap_err().starts_with("--url is not usable: "), "{given}");
        }
    }

    #[test]
    fn a_file_of_authorities_is_for_https_alone_and_must_hold_one() {
        let with = |url: &str, file: &str| {
            let (url, cacert) = (Some(url.to_owned()), Some(file.into()));
            let remote = RemoteArgs { url, cacert, ..RemoteArgs::default() };
            ServiceAddress::find(&remote, BTreeMap::new(), Environment::default())
        };
        let error = with("http://x:1", "/ca.pem").unwrap_err().to_string();
        assert_eq!(error, "--cacert has no effect: the address does not begin with https://");
        let address = with("https://x:1", "/no/ca.pem").unwrap();
        assert_eq!(address.certificate_file(), Some(Path::new("/no/ca.pem")));
        assert!(address.trust().unwrap_err().to_string().starts_with("--cacert=\"/no/ca.pem\": "));
        let environment = Environment::from([(URL_VARIABLE, "http://other:1"), (CA_VARIABLE, "/ca.pem")]);
        let one = ServiceAddress::find(&RemoteArgs::default(), BTreeMap::new(), environment).unwrap();
        assert_eq!(one.certificate_file(), None, "a variable may be there for other services");
    }

    #[test]
    fn a_certificate_is_shown_over_https_alone_and_its_files_must_be_usable() {
        let with = |url: &str, cert: &str| {
            let (url, cert) = (Some(url.to_owned()), Some(cert.into()));
            ServiceAddress::find(
                &RemoteArgs { url, cert, ..RemoteArgs::default() },
                BTreeMap::new(),
                Environment::default(),
            )
        };
        let error = with("http://x:1", "/c.pem").unwrap_err().to_string();
        assert_eq!(error, "--cert has no effect: the address does not begin with https://");
        let error = with("https://x:1", "/no/c.pem").unwrap().trust().unwrap_err().to_string();
        assert!(error.starts_with("--cert: \"/no/c.pem\": "), "{error}");
        let environment = Environment::from([(URL_VARIABLE, "http://x:1"), ("LLAMAGATE_CERT", "/no/c.pem")]);
        let one = ServiceAddress::find(&RemoteArgs::default(), BTreeMap::new(), environment).unwrap();
        assert!(one.trust().is_ok(), "a variable may be there for other services");
    }

    #[test]
    fn a_flag_wins_over_its_variable_and_no_key_is_shown() {
        let environment = Environment::from([(URL_VARIABLE, "http://other:1"), (KEY_VARIABLE, "other-key")]);
        let one = ServiceAddress::find(&RemoteArgs::default(), BTreeMap::new(), environment.clone()).unwrap();
        assert_eq!((one.base(), one.key()), ("http://other:1", Some("other-key")));
        let (url, key) = (Some("x:2".to_owned()), Some("bad\nkey".to_owned()));
        let remote = RemoteArgs { url, key, ..RemoteArgs::default() };
        let error = ServiceAddress::find(&remote, BTreeMap::new(), environment.clone()).unwrap_err().to_string();
        assert!(error.starts_with("--key has no form") && !error.contains("bad"), "{error}");
        let flags = BTreeMap::from([("port", "1".to_owned())]);
        let error = ServiceAddress::find(&RemoteArgs::default(), flags, environment).unwrap_err().to_string();
        assert_eq!(error, "--port has no effect beside LLAMAGATE_URL");
    }
}
