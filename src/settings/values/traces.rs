//! OpenTelemetry's variables for traces: where spans are sent, and which requests are traced.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use url::Url;

use super::scalars::LONGEST_DURATION;
use super::value::{Rejected, Value};

/// The address of a collector, or of its traces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectorUrl(pub Url);

impl Value for CollectorUrl {
    fn parse(text: &str) -> Result<Self, Rejected> {
        let rejected = || Rejected::new("an address such as http://127.0.0.1:4318, without a user and a password");
        let address = Url::parse(text.trim()).map_err(|_| rejected())?;
        let is_http = matches!(address.scheme(), "http" | "https") && address.has_host();
        let has_user = !address.username().is_empty() || address.password().is_some();
        if is_http && !has_user && address.fragment().is_none() { Ok(Self(address)) } else { Err(rejected()) }
    }

    /// A query may be a secret.
    fn masked(text: &str) -> String {
        text.split_once('?').map_or_else(|| text.to_owned(), |(address, _)| format!("{address}?***"))
    }
}

/// Headers that every export carries. Neither `Debug` nor [`Value::masked`] shows the values.
#[derive(Clone, PartialEq, Eq)]
pub struct CollectorHeaders(pub Vec<(String, String)>);

impl std::fmt::Debug for CollectorHeaders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Value for CollectorHeaders {
    fn parse(text: &str) -> Result<Self, Rejected> {
        let rejected = || Rejected::new("a list such as `name=value,other=value` whose values are percent-encoded");
        let headers = pairs(text).ok_or_else(rejected)?;
        let is_header = |(name, value): &(String, String)| {
            HeaderName::try_from(name.as_str()).is_ok() && HeaderValue::try_from(value.as_str()).is_ok()
        };
        if headers.iter().all(is_header) { Ok(Self(headers)) } else { Err(rejected()) }
    }

    fn masked(text: &str) -> String {
        if text.is_empty() { String::new() } else { "***".to_owned() }
    }
}

/// Attributes of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAttributes(pub Vec<(String, String)>);

impl Value for ServiceAttributes {
    fn parse(text: &str) -> Result<Self, Rejected> {
        let rejected = || Rejected::new("a list such as `deployment.environment.name=test,team=a`");
        pairs(text).map(Self).ok_or_else(rejected)
    }
}

/// The protocol of a collector. There is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CollectorProtocol {
    /// Protocol buffers over HTTP.
    HttpProtobuf,
}

impl Value for CollectorProtocol {
    fn parse(text: &str) -> Result<Self, Rejected> {
        match text.trim() {
            "http/protobuf" => Ok(Self::HttpProtobuf),
            "grpc" => {
                let hint = "collectors take it on port 4318; the port 4317 is for grpc";
                Err(Rejected::new("http/protobuf").with_hint(hint))
            }
            _ => Err(Rejected::new("http/protobuf")),
        }
    }
}

/// How exports are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CollectorCompression {
    /// As they are.
    None,
    /// With gzip.
    Gzip,
}

impl Value for CollectorCompression {
    fn parse(text: &str) -> Result<Self, Rejected> {
        match text.trim() {
            "none" => Ok(Self::None),
            "gzip" => Ok(Self::Gzip),
            _ => Err(Rejected::new("none or gzip")),
        }
    }
}

/// Whether spans are exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceExporter {
    /// To the collector, if its address is set.
    Otlp,
    /// Not at all.
    None,
}

impl Value for TraceExporter {
    fn parse(text: &str) -> Result<Self, Rejected> {
        match text.trim() {
            "otlp" => Ok(Self::Otlp),
            "none" => Ok(Self::None),
            _ => Err(Rejected::new("otlp or none")),
        }
    }
}

/// Which requests are traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceSampler {
    /// All.
    AlwaysOn,
    /// None.
    AlwaysOff,
    /// A share of them, by their trace ids.
    Ratio,
    /// As the caller has decided; all of those that no caller has decided about.
    ParentOrOn,
    /// As the caller has decided; none of those that no caller has decided about.
    ParentOrOff,
    /// As the caller has decided; a share of those that no caller has decided about.
    ParentOrRatio,
}

impl Value for TraceSampler {
    fn parse(text: &str) -> Result<Self, Rejected> {
        match text.trim() {
            "always_on" => Ok(Self::AlwaysOn),
            "always_off" => Ok(Self::AlwaysOff),
            "traceidratio" => Ok(Self::Ratio),
            "parentbased_always_on" => Ok(Self::ParentOrOn),
            "parentbased_always_off" => Ok(Self::ParentOrOff),
            "parentbased_traceidratio" => Ok(Self::ParentOrRatio),
            _ => Err(Rejected::new("always_on, always_off or traceidratio, each also with parentbased_ before it")),
        }
    }
}

/// The share of requests that are traced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampledShare(pub f64);

impl Value for SampledShare {
    fn parse(text: &str) -> Result<Self, Rejected> {
        let share = text.trim().parse().ok().filter(|share| (0.0..=1.0).contains(share));
        share.map(Self).ok_or_else(|| Rejected::new("a number from 0 to 1 such as 0.1"))
    }
}

/// A time in milliseconds, as OpenTelemetry writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Milliseconds(pub Duration);

impl Value for Milliseconds {
    fn parse(text: &str) -> Result<Self, Rejected> {
        let time = text.trim().parse().ok().map(Duration::from_millis);
        let time = time.filter(|time| !time.is_zero() && *time <= LONGEST_DURATION);
        time.map(Self).ok_or_else(|| Rejected::new("a number of milliseconds such as 5000"))
    }
}

/// Reads a list of names and percent-encoded values, as in W3C's baggage header. Empty members are left out.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let members = text.split(',').map(str::trim).filter(|member| !member.is_empty());
    let pair = |member: &str| {
        let (name, value) = member.split_once('=')?;
        let value = percent_encoding::percent_decode_str(value.trim()).decode_utf8().ok()?;
        let name = name.trim();
        (!name.is_empty()).then(|| (name.to_owned(), value.into_owned()))
    };
    members.map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn lists_are_read_as_other_programs_read_them() {
        let headers = CollectorHeaders::parse("api-key=a%2Cb=, x-tenant = 1 ,,").unwrap();
        assert_eq!(headers.0, [pair("api-key", "a,b="), pair("x-tenant", "1")]);
        assert_eq!(ServiceAttributes::parse("a.b=c d").unwrap().0, [pair("a.b", "c d")]);
        assert_eq!(ServiceAttributes::parse("").unwrap().0, []);
        for text in ["name", "=value", "a=%ff"] {
            assert!(ServiceAttributes::parse(text).is_err(), "{text}");
        }
        for text in ["a b=c", "a=%0d%0ab: c"] {
            assert!(CollectorHeaders::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_would_have_no_effect_is_refused() {
        assert!(CollectorProtocol::parse("http/protobuf").is_ok());
        assert!(CollectorProtocol::parse("grpc").unwrap_err().hint.is_some());
        assert!(CollectorProtocol::parse("http/json").is_err());
        assert!(TraceExporter::parse("zipkin").is_err());
        assert!(TraceSampler::parse("jaeger_remote").is_err());
        for text in ["-0.1", "1.1", "NaN", "ten"] {
            assert!(SampledShare::parse(text).is_err(), "{text}");
        }
        for text in ["0", "-1", "5s", "1.5", "99999999999999"] {
            assert!(Milliseconds::parse(text).is_err(), "{text}");
        }
        for text in ["127.0.0.1:4318", "ftp://a", "http://user:secret@a", "http://", "http://a/#b"] {
            assert!(CollectorUrl::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let headers = CollectorHeaders::parse("api-key=secret").unwrap();
        assert!(!format!("{headers:?}").contains("secret"));
        assert_eq!(CollectorHeaders::masked("api-key=secret"), "***");
        assert_eq!(CollectorUrl::masked("https://a/v1/traces?token=secret"), "https://a/v1/traces?***");
    }
}
