//! Which requests may be answered from the cache: those for numbers always, those for text if the same request would get
//! the same text again, or if `CACHE=all` says that it does not matter.

use crate::fleet::{Model, WorkerKind};
use crate::gateway::request::body::RequestBody;
use crate::gateway::request::envelope::Envelope;
use crate::gateway::routes::route::{DialectFamily, Route, RouteTarget};
use crate::gateway::routes::table::FIM;
use crate::models::ModelKind;
use crate::refusal::Shape;
use crate::settings::values::CacheMode;

/// What a route answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnswerKind {
    /// The same for the same request: vectors, scores, tokens.
    Computed,
    /// Text, which may be drawn by chance.
    Generated,
}

/// Members with which chance decides even at temperature 0.
const CHANCE_AT_ZERO: [&str; 3] = ["dynatemp_range", "xtc_probability", "adaptive_target"];

/// The seed with which llama-server draws one itself (`LLAMA_DEFAULT_SEED`), as does any negative one.
const RANDOM_SEED: f64 = 4_294_967_295.0;

/// Returns what a route answers with; `None` if its answers are not kept: they are about the state of a worker, come for a
/// form, or have effects besides the answer, as in Ollama's API.
pub(super) fn answer_kind(route: &Route) -> Option<AnswerKind> {
    match route.target {
        _ if !route.is_post() || route.dialects == Some(DialectFamily::Ollama) => None,
        RouteTarget::Worker(Some(ModelKind::Embedding | ModelKind::Rerank)) => Some(AnswerKind::Computed),
        RouteTarget::Worker(_) if matches!(route.path, "/tokenize" | "/detokenize") => Some(AnswerKind::Computed),
        RouteTarget::Worker(_) if route.may_stream => Some(AnswerKind::Generated),
        _ => None,
    }
}

/// Returns whether the request does something besides being answered: it says how long a model stays loaded.
pub(super) fn has_effects(route: &Route, envelope: &Envelope) -> bool {
    route.shape == Shape::Ollama && envelope.has("keep_alive")
}

/// Returns whether the answer to this request may be kept in this mode.
pub(super) fn may_be_kept(
    mode: CacheMode,
    kind: AnswerKind,
    route: &Route,
    (envelope, body): (&Envelope, &RequestBody),
    model: &Model,
) -> bool {
    match (mode, kind) {
        (CacheMode::Off, _) => false,
        (CacheMode::All, _) | (CacheMode::Safe, AnswerKind::Computed) => true,
        (CacheMode::Safe, AnswerKind::Generated) => Sampling::of(envelope, body, model).is_repeatable(route),
    }
}

/// How the text of an answer is drawn: by the request, and by the defaults of its model.
struct Sampling<'a> {
    envelope: &'a Envelope,
    body: &'a RequestBody,
    strip_params: Vec<String>,
    defaults: Vec<(String, String)>,
}

impl<'a> Sampling<'a> {
    fn of(envelope: &'a Envelope, body: &'a RequestBody, model: &Model) -> Self {
        let policy = model.policy();
        // A remote backend may have defaults of its own, which come before those of the model.
        let has_remotes = model.members().any(|member| member.kind == WorkerKind::Remote);
        let defaults = if has_remotes { Vec::new() } else { policy.rewrite.sampling.clone() };
        Self { envelope, body, strip_params: policy.rewrite.strip_params.clone(), defaults }
    }

    fn is_repeatable(&self, route: &Route) -> bool {
        let is_greedy = self.all("temperature", |value| value == 0.0)
            && !CHANCE_AT_ZERO.iter().any(|name| self.is_in_request(name) || self.default_of(name).is_some());
        let is_seed = |value: f64| value >= 0.0 && value.fract() == 0.0 && value != RANDOM_SEED;
        // Anthropic's API has no seed: llama-server does not read one there.
        let has_seed = route.shape != Shape::Anthropic
            && (self.all("seed", is_seed) || route.path == FIM && self.all("random_seed", is_seed));
        is_greedy || has_seed
    }

    /// Returns whether this holds for the value that counts, and there is one. If the request has it twice, it must hold
    /// for both: servers differ in which they take.
    fn all(&self, name: &str, holds: impl Fn(f64) -> bool) -> bool {
        if self.is_in_request(name) {
            return self.envelope.numbers(self.body, name).all(|value| value.is_some_and(&holds));
        }
        self.default_of(name).and_then(|value| value.parse().ok()).is_some_and(holds)
    }

    fn is_in_request(&self, name: &str) -> bool {
        self.envelope.has_value(name) && !self.strip_params.iter().any(|stripped| stripped == name)
    }

    fn default_of(&self, name: &str) -> Option<&str> {
        self.defaults.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::gateway::routes::lookup;

    fn is_repeatable(path: &str, body: &str, strip: &[&str], defaults: &[(&str, &str)]) -> bool {
        let body = RequestBody::default().with_pieces([bytes::Bytes::from(body.to_owned())].into());
        let envelope = Envelope::of(&body).unwrap();
        let defaults = defaults.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let strip_params = strip.iter().map(|name| (*name).to_owned()).collect();
        let sampling = Sampling { envelope: &envelope, body: &body, strip_params, defaults };
        sampling.is_repeatable(lookup::find(&Method::POST, path).unwrap())
    }

    #[test]
    fn text_is_repeatable_with_temperature_0_or_a_seed() {
        const CHAT: &str = "/v1/chat/completions";
        for (body, strip, defaults, expected) in [
            ("{}", &[][..], &[][..], false),
            (r#"{"temperature":0}"#, &[], &[], true),
            (r#"{"temperature":0.0,"top_p":0.9}"#, &[], &[], true),
            (r#"{"temperature":-0.0}"#, &[], &[], true),
            (r#"{"temperature":"0"}"#, &[], &[], false),
            (r#"{"temperature":0.7}"#, &[], &[], false),
            (r#"{"temperature":0,"temperature":1}"#, &[], &[], false),
            (r#"{"temperature":1,"seed":7}"#, &[], &[], true),
            (r#"{"seed":-1}"#, &[], &[], false),
            (r#"{"seed":4294967295}"#, &[], &[], false),
            (r#"{"seed":1.5}"#, &[], &[], false),
            (r#"{"temperature":0,"xtc_probability":0.5}"#, &[], &[], false),
            (r#"{"temperature":0,"xtc_probability":0.5,"seed":1}"#, &[], &[], true),
            // Defaults of the model count where the request says nothing.
            ("{}", &[], &[("temperature", "0")], true),
            (r#"{"temperature":null}"#, &[], &[("temperature", "0")], true),
            (r#"{"temperature":1}"#, &[], &[("temperature", "0")], false),
            (r#"{"temperature":0}"#, &[], &[("temperature", "0.7")], true),
            (r#"{"temperature":0}"#, &[], &[("dynatemp_range", "0.1")], false),
            ("{}", &[], &[("seed", "3")], true),
            // What is removed from the request does not.
            (r#"{"temperature":0}"#, &["temperature"], &[], false),
            (r#"{"temperature":1}"#, &["temperature"], &[("temperature", "0")], true),
        ] {
            assert_eq!(is_repeatable(CHAT, body, strip, defaults), expected, "{body} {strip:?} {defaults:?}");
        }
        assert!(!is_repeatable("/v1/messages", r#"{"seed":7}"#, &[], &[]), "it is not read there");
        assert!(is_repeatable(FIM, r#"{"random_seed":7}"#, &[], &[]));
        assert!(!is_repeatable(CHAT, r#"{"random_seed":7}"#, &[], &[]));
    }

    #[test]
    fn answers_are_kept_by_the_kind_of_their_route() {
        let kind = |path| answer_kind(lookup::find(&Method::POST, path).unwrap());
        for path in ["/v1/embeddings", "/embed", "/v2/embed", "/v1/rerank", "/score", "/tokenize", "/api/embed"] {
            assert_eq!(kind(path), Some(AnswerKind::Computed), "{path}");
        }
        for path in ["/v1/chat/completions", "/v1/messages", "/v1/responses", "/completion", "/infill"] {
            assert_eq!(kind(path), Some(AnswerKind::Generated), "{path}");
        }
        for path in ["/api/chat", "/apply-template", "/v1/audio/transcriptions", "/v1/models/x/load", "/reload"] {
            assert_eq!(kind(path), None, "{path}");
        }
        let get = lookup::find(&Method::HEAD, "/props").unwrap();
        assert_eq!(answer_kind(get), None);
    }
}
