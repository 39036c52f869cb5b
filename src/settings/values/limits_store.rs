//! The address of the store for shared limits.

use std::fmt;

use percent_encoding::percent_decode_str;
use url::{Host, Url};

use super::scalars::Secret;
use super::value::{Rejected, Value};

/// The port of Valkey and Redis.
const DEFAULT_PORT: u16 = 6379;

/// Where a Valkey or Redis server is, and as whom it is used. Its text, as logs show it, has neither user nor password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsStoreAddress {
    /// Whether the connection uses TLS.
    pub is_tls: bool,
    /// A name or an address; one of IPv6 in brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The number of the database.
    pub database: i64,
    /// The name of the user; `None` means the server's `default`.
    pub user: Option<String>,
    /// The password; `None` if none is needed.
    pub password: Option<Secret>,
}

impl Value for LimitsStoreAddress {
    fn parse(text: &str) -> Result<Self, Rejected> {
        let form = "valkey://[user:password@]host[:6379][/database], or valkeys:// for TLS (redis:// and rediss:// mean the same)";
        let rejected = || Rejected::new(form);
        let url = Url::parse(text.trim()).map_err(|_| rejected())?;
        let is_tls = match url.scheme() {
            "valkey" | "redis" => false,
            "valkeys" | "rediss" => true,
            _ => return Err(rejected()),
        };
        // `Url` decodes the hosts of its own schemes alone.
        let host = match url.host().ok_or_else(rejected)? {
            Host::Domain(name) if name.is_empty() || name.contains('%') => return Err(rejected()),
            host => host.to_string(),
        };
        if url.query().is_some() || url.fragment().is_some() {
            return Err(rejected().with_hint("a `?`, `#`, `/` or `@` in a password is written as %3F, %23, %2F or %40"));
        }
        let database = url.path().trim_start_matches('/');
        let database = match database.parse::<u16>() {
            Ok(number) if database.bytes().all(|byte| byte.is_ascii_digit()) => number.into(),
            _ if database.is_empty() => 0,
            _ => return Err(rejected().with_hint("what stands behind the host is the number of a database, usually 0")),
        };
        let decoded = |text: &str| percent_decode_str(text).decode_utf8().map(Into::into).map_err(|_| rejected());
        let user = Some(url.username()).filter(|user| !user.is_empty()).map(decoded).transpose()?;
        let password = url.password().map(decoded).transpose()?.map(Secret);
        if user.is_some() && password.is_none() {
            return Err(rejected().with_hint("a password without a user is written as valkey://:password@host"));
        }
        Ok(Self { is_tls, host, port: url.port().unwrap_or(DEFAULT_PORT), database, user, password })
    }

    /// What stands before the last `@` may be a password, and so may be what follows a `?`.
    fn masked(text: &str) -> String {
        let Some((scheme, rest)) = text.split_once("://") else {
            return if text.is_empty() { String::new() } else { "***".to_owned() };
        };
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        match text.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}://***@{}", host.split(['?', '#']).next().unwrap_or_default()),
            None => format!("{scheme}://{rest}"),
        }
    }
}

impl fmt::Display for LimitsStoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.host, self.port, self.database)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> LimitsStoreAddress {
        LimitsStoreAddress::parse(text).unwrap()
    }

    #[test]
    fn addresses_of_both_servers_are_read() {
        for (text, is_tls, shown) in [
            ("valkey://store", false, "store:6379/0"),
            ("redis://store:7000/", false, "store:7000/0"),
            ("valkeys://10.0.0.1:6380/3", true, "10.0.0.1:6380/3"),
            ("rediss://[::1]/1", true, "[::1]:6379/1"),
        ] {
            let address = parse(text);
            assert_eq!((address.is_tls, address.to_string().as_str()), (is_tls, shown), "{text}");
            assert_eq!((address.user, address.password), (None, None));
        }
        let address = parse("valkey://gate:a%40b%2F@store:6379/0");
        assert_eq!((address.user.as_deref(), address.password), (Some("gate"), Some(Secret("a@b/".to_owned()))));
        assert_eq!(parse("redis://:pw@store").password, Some(Secret("pw".to_owned())));
    }

    #[test]
    fn other_addresses_are_refused() {
        for text in ["", "store:6379", "http://store", "valkey://", "valkey:///0", "redis://user@store", "redis://a/b"]
        {
            assert!(LimitsStoreAddress::parse(text).is_err(), "{text}");
        }
        for text in ["redis://a/-1", "redis://a/+1", "redis://a/70000", "redis://a/0?password=x", "redis://a/0/1"] {
            assert!(LimitsStoreAddress::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_password_is_not_shown() {
        for text in [
            "valkey://u:sesame@store/0",
            "valkey://:sesame@store",
            "redis://store/0?password=sesame",
            "redis://u:a@sesame@store",
            "u:sesame@store",
            "redis://u:a?sesame@store",
        ] {
            let shown = LimitsStoreAddress::masked(text);
            assert!(!shown.contains("sesame"), "{text}: {shown}");
            let debug = format!("{:?}", LimitsStoreAddress::parse(text));
            assert!(!debug.contains("sesame"), "{debug}");
        }
        assert_eq!(LimitsStoreAddress::masked("valkey://u:sesame@store/0"), "valkey://***@store/0");
        assert_eq!(LimitsStoreAddress::masked("valkey://store:1/0"), "valkey://store:1/0");
    }
}
