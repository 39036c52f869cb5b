//! The spellings of a path: clients build paths from a base address and a route, and so write `//v1/models`,
//! `/v1/v1/models`, `/v1/models/` or `/v1/mode%6Cs` for `/v1/models`. Each of them means the route; a redirect would lose
//! the body.
//!
//! Owns the form in which `route.rs` compares paths. Which routes there are, and which of them are closed, is decided
//! there, after the spelling: no spelling reaches more than the plain path does.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::routes::lookup;

/// The segment that a base address often has too.
const VERSION: &str = "v1";
/// A path that consists of it.
const VERSION_PATH: &str = "/v1";

/// What comes before the name of a model in the paths of Azure's API.
const DEPLOYMENTS: &str = "/openai/deployments/";

/// What comes before the version in the paths of Azure's newer API.
const AZURE: &str = "openai";

/// A path as the table of routes spells it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CanonicalPath<'a> {
    /// The path. The ids of models in it keep their slashes and encodings.
    pub(super) path: Cow<'a, str>,
    /// The model that a path of Azure's API names.
    pub(super) deployment: Option<String>,
}

impl<'a> CanonicalPath<'a> {
    /// Returns the canonical form of a path without its query.
    pub(super) fn of(path: &'a str) -> Self {
        if is_canonical(path) {
            return Self { path: Cow::Borrowed(path), deployment: None };
        }
        let path = joined(&decode_unreserved(path));
        match deployment_in(&path) {
            Some((name, route)) => Self { path: Cow::Borrowed(route), deployment: Some(name) },
            None => Self { path: Cow::Owned(path), deployment: None },
        }
    }
}

/// Returns whether the path is certainly in its canonical form; most are, and cost one look.
fn is_canonical(path: &str) -> bool {
    let bytes = path.as_bytes();
    let is_version_twice = || path.get(1..).is_some_and(|rest| rest.starts_with("v1/v1"));
    bytes.first() != Some(&b'/')
        || !(bytes.contains(&b'%')
            || bytes.windows(2).any(|two| two == b"//")
            || (bytes.len() > 1 && bytes.ends_with(b"/"))
            || is_version_twice()
            || path.get(1..).is_some_and(|rest| rest.starts_with(AZURE)))
}

/// Decodes those characters that mean the same whether they are encoded or not (RFC 3986, section 6.2.2.2).
fn decode_unreserved(path: &str) -> String {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, encoded) = rest.split_at(at);
        decoded.push_str(before);
        let value = encoded.get(1..3).and_then(|digits| u8::from_str_radix(digits, 16).ok()).map(char::from);
        match value.filter(|c| c.is_ascii_alphanumeric() || "-._~".contains(*c)) {
            Some(c) => {
                decoded.push(c);
                rest = &encoded[3..];
            }
            None => {
                decoded.push('%');
                rest = &encoded[1..];
            }
        }
    }
    decoded + rest
}

/// Joins the segments of a path: without empty ones, without a repeated version, and with the id of a model as it is.
fn joined(path: &str) -> String {
    let mut canonical = String::with_capacity(path.len());
    let mut rest = path.trim_matches('/');
    while !rest.is_empty() {
        let (next, after) = rest.split_once('/').unwrap_or((rest, ""));
        // `downloads` after `/v1/models` is no id, because ids of another kind follow it.
        let is_fixed = !after.is_empty() && lookup::endings_after_id(&format!("{canonical}/{next}")).is_some();
        let segment = match lookup::endings_after_id(&canonical) {
            Some(endings) if !is_fixed => {
                let ending = endings.filter(|ending| rest.ends_with(ending)).max_by_key(|ending| ending.len());
                let ending = ending.unwrap_or_default();
                let id = rest.strip_suffix(ending).unwrap_or(rest).trim_end_matches('/');
                rest = "";
                Cow::Owned(format!("{id}{ending}"))
            }
            _ => {
                rest = after.trim_start_matches('/');
                Cow::Borrowed(next)
            }
        };
        let is_version_again = segment == VERSION && canonical == VERSION_PATH;
        let is_before_version = segment == AZURE && canonical.is_empty() && rest.split('/').next() == Some(VERSION);
        if !is_version_again && !is_before_version {
            canonical.push('/');
            canonical.push_str(&segment);
        }
    }
    if canonical.is_empty() { "/".to_owned() } else { canonical }
}

/// Returns the model that a path of Azure's API names, and the route of this gateway that the rest of the path means.
fn deployment_in(path: &str) -> Option<(String, &'static str)> {
    let rest = path.strip_prefix(DEPLOYMENTS)?;
    // `chat/completions` ends with `completions` too.
    let fits = |route: &&str| route.strip_prefix(VERSION_PATH).is_some_and(|ending| rest.ends_with(ending));
    let route = lookup::inference_paths().filter(fits).max_by_key(|route| route.len())?;
    let name = rest.get(..rest.len() - (route.len() - VERSION_PATH.len()))?;
    let name = percent_decode_str(name).decode_utf8().ok()?.into_owned();
    (!name.is_empty()).then_some((name, route))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::routes::lookup::find;
    use crate::refusal::Refusal;
    use http::Method;
    use proptest::prelude::*;

    fn canonical(path: &str) -> String {
        CanonicalPath::of(path).path.into_owned()
    }

    #[test]
    fn every_spelling_of_a_fixed_part_means_the_route() {
        for (spelled, plain) in [
            ("/v1/chat/completions", "/v1/chat/completions"),
            ("//v1/chat/completions", "/v1/chat/completions"),
            ("/v1//chat/completions", "/v1/chat/completions"),
            ("/v1/chat/completions/", "/v1/chat/completions"),
            ("/v1/v1/chat/completions", "/v1/chat/completions"),
            ("/v1//v1/v1/chat///completions//", "/v1/chat/completions"),
            ("/v1/mode%6Cs", "/v1/models"),
            ("/%76%31/models/", "/v1/models"),
            ("/v1/%63hat/completion%73", "/v1/chat/completions"),
            ("/openai/v1/chat/completions", "/v1/chat/completions"),
            ("/chat/completions/", "/chat/completions"),
            ("/", "/"),
            ("//", "/"),
            ("*", "*"),
            // None of these is a spelling of a route.
            ("/v1%2Fmodels", "/v1%2Fmodels"),
            ("/v1/models%00", "/v1/models%00"),
            ("/v1/%6", "/v1/%6"),
            ("/v1/%", "/v1/%"),
            ("/v1/./models", "/v1/./models"),
            ("/x/v1/models", "/x/v1/models"),
            ("/V1/models", "/V1/models"),
            ("/openai/models", "/openai/models"),
        ] {
            assert_eq!(canonical(spelled), plain, "{spelled}");
        }
    }

    #[test]
    fn the_id_of_a_model_keeps_its_slashes_and_encodings() {
        for (spelled, plain, id) in [
            ("/v1/models/org/name", "/v1/models/org/name", "org/name"),
            ("/v1/models/org/name/", "/v1/models/org/name", "org/name"),
            ("/v1/models/org%2Fname", "/v1/models/org%2Fname", "org%2Fname"),
            ("/v1/models/org//name", "/v1/models/org//name", "org//name"),
            ("/v1//models//org/name", "/v1/models/org/name", "org/name"),
            ("/v1/v1/models/v1", "/v1/models/v1", "v1"),
            ("/models/v1/v1/x", "/models/v1/v1/x", "v1/v1/x"),
            ("/v1/models/%41%20b", "/v1/models/A%20b", "A%20b"),
            ("/v1/models/%2541", "/v1/models/%2541", "%2541"),
        ] {
            assert_eq!(canonical(spelled), plain, "{spelled}");
            assert_eq!(find(&Method::GET, plain).unwrap().id_in(plain), Some(id), "{spelled}");
        }
        assert_eq!(canonical("/v1/models//downloads//org//events/"), "/v1/models/downloads/org/events");
        assert_eq!(canonical("/v1/models/org/name//load/"), "/v1/models/org/name/load");
        assert_eq!(canonical("/v1/models/org/name/un%6Coad"), "/v1/models/org/name/unload");
        assert_eq!(canonical("/v1/models/org%2Fload"), "/v1/models/org%2Fload", "a slash of the id");
    }

    #[test]
    fn a_path_of_azures_api_names_its_model() {
        let found = |path| {
            let CanonicalPath { path, deployment } = CanonicalPath::of(path);
            (path.into_owned(), deployment)
        };
        let named = |path: &str, name: &str| (path.to_owned(), Some(name.to_owned()));
        for (path, expected) in [
            ("/openai/deployments/m/chat/completions", named("/v1/chat/completions", "m")),
            ("/openai/deployments/m/completions", named("/v1/completions", "m")),
            ("/openai/deployments/org/m/embeddings/", named("/v1/embeddings", "org/m")),
            ("//openai/deployments/org%2Fm/chat//completions", named("/v1/chat/completions", "org/m")),
            ("/openai/deployments/m/audio/transcriptions", named("/v1/audio/transcriptions", "m")),
        ] {
            assert_eq!(found(path), expected, "{path}");
        }
        for path in [
            "/openai/deployments/m/props",
            "/openai/deployments/m/slots/0",
            "/openai/deployments/m/models/load",
            "/openai/deployments/m",
        ] {
            assert_eq!(find(&Method::POST, &canonical(path)).err(), Some(Refusal::RouteNotFound), "{path}");
        }
    }

    /// Spells a plain path in another way: with more slashes, with percent-encoded letters, with the version again.
    fn spell(path: &str, choices: &[u8]) -> String {
        let mut choices = choices.iter().copied().cycle();
        let mut choose = |below: u8| choices.next().unwrap_or_default() % below;
        let mut spelled = String::new();
        for segment in path.split('/').skip(1) {
            spelled.push_str(&"/".repeat(1 + usize::from(choose(3))));
            if spelled.trim_matches('/').is_empty() && segment == VERSION {
                for _ in 0..choose(3) {
                    spelled.push_str("v1/");
                }
            }
            for c in segment.chars() {
                match choose(3) {
                    0 if c.is_ascii_alphanumeric() => spelled.push_str(&format!("%{:02x}", u32::from(c))),
                    1 if c.is_ascii_alphanumeric() => spelled.push_str(&format!("%{:02X}", u32::from(c))),
                    _ => spelled.push(c),
                }
            }
        }
        spelled + &"/".repeat(usize::from(choose(3)))
    }

    proptest! {
        /// A closed route stays closed, and an open one means the same, in whatever way it is spelled.
        #[test]
        fn no_spelling_reaches_more_than_the_plain_path(
            plain in proptest::sample::select(lookup::tests::paths()),
            choices in proptest::collection::vec(any::<u8>(), 1..80),
            is_azure in any::<bool>(),
        ) {
            let spelled = spell(&plain, &choices);
            prop_assert_eq!(canonical(&spelled), plain.clone(), "{}", spelled);
            for method in [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE] {
                let found = |path: &str| find(&method, path).map(|route| route.path);
                prop_assert_eq!(found(&canonical(&spelled)), found(&plain), "{} {}", method, spelled);
            }
            // Azure's paths reach routes of inference only.
            if is_azure {
                let path = canonical(&format!("/openai/deployments/m{spelled}"));
                for method in [Method::GET, Method::POST] {
                    if let Ok(route) = find(&method, &path) {
                        prop_assert!(method == Method::POST && lookup::inference_paths().any(|path| path == route.path));
                    }
                }
            }
        }

        #[test]
        fn the_canonical_form_is_its_own_canonical_form(path in "/([/%v1a-e2F4.?#m]|models/|v1/|openai/|load){0,12}") {
            let once = canonical(&path);
            prop_assert_eq!(canonical(&once), once.clone(), "{}", path);
            prop_assert!(once.parse::<http::uri::PathAndQuery>().is_ok() || path.contains(['?', '#', '%']));
        }
    }
}
