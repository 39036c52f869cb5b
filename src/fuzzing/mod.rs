//! Invariants that hold for every input: functions that take bytes and panic when an invariant is broken.
//!
//! There is one function for each target in `fuzz/`, where libFuzzer chooses the bytes. `tests.rs` runs the same
//! functions on inputs from proptest, so every test run checks them a little. Built only for tests.
//!
//! This file has the functions for keys, heads, bodies and the configuration.
//!
//! - `dialects.rs`: those for the dialects of clients and workers
//! - `examples.rs`: that for the bodies of the API's description
//! - `files.rs`: those for files of variables, model files and certificates
//! - `hub.rs`: those for the answers of the hub
//! - `stores.rs`: those for the stores of other programs
//! - `imports.rs`: that for configurations of other programs
//! - `wire.rs`: those for whole requests, events and the headers of traces
//! - `workers.rs`: that for responses of workers

mod dialects;
mod examples;
mod files;
mod hub;
mod imports;
mod stores;
mod wire;
mod workers;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_REQUEST_HEADERS, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::gateway::admission::cors::Cors;
use crate::gateway::connection::head::{Framing, HeadLimits, check_in_two};
use crate::gateway::request::rewrite::rewrite_object;
use crate::gateway::response::rename::rename_pieces;
use crate::keys::parse::{KeyEntry, KeyFile, parse};
use crate::keys::secret::Stored;
use crate::keys::{Key, edit};
use crate::platform::Platform;
use crate::settings::values::{Origins, Value as _};
use crate::settings::{Environment, Inputs, models_table, resolve_text};

pub use dialects::{embed, ollama, rerank, tokens};
pub use examples::{example_body, examples};
pub use files::{certificates, env_file, gguf_header};
pub use hub::hub_answers;
pub use imports::import;
pub use stores::ollama_manifest;
pub use wire::{event_stream, trace_headers, whole_requests};
pub use workers::worker_response;

/// A secret that `key_file` adds.
const ADDED: &str = "added-0123456789abcdef";
/// A secret that `key_file` rotates to.
const ROTATED: &str = "rotated-0123456789abcdef";

/// Checks the key file: no text makes the parser panic or lose a byte, the secret of each good line finds that line,
/// and a file that keyctl has edited is read back as it was written.
pub fn key_file(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let file = parse(&text);
    assert_eq!(file.render(), text, "a file without edits keeps every byte");
    assert!(file.entries().count() + file.problems().count() <= text.split_inclusive('\n').count());
    for (number, entry) in file.entries() {
        if let Stored::Plain(secret) = &entry.secret {
            assert_eq!(file.find(secret).map(|(found, _)| found), Some(number), "a secret finds its own line");
        }
    }
    if file.find(ADDED).is_some() || file.find(ROTATED).is_some() {
        return;
    }
    let now = Timestamp::UNIX_EPOCH;

    let mut added = file.clone();
    if edit::add(&mut added, Key::named("added"), Stored::Plain(ADDED.to_owned()), now).is_ok() {
        assert!(read_back(&added).find(ADDED).is_some(), "a new key is found");
    }
    let mut pruned = file.clone();
    edit::prune(&mut pruned, now);
    assert!(read_back(&pruned).entries().count() >= pruned.entries().count());
    let names: Vec<String> = file.entries().map(|(_, entry)| entry.key.id.clone()).collect();
    for name in names.iter().take(3) {
        let mut removed = file.clone();
        assert!(edit::remove(&mut removed, name).is_ok(), "an existing key can be removed");
        read_back(&removed);
        for old_ends in [now, Timestamp::MAX] {
            let mut rotated = file.clone();
            let secret = Stored::Plain(ROTATED.to_owned());
            let rotation = edit::Rotation { secret, old_ends, expires: Some(None) };
            assert!(edit::rotate(&mut rotated, name, rotation, now).is_ok(), "an existing key can be rotated");
            let found = read_back(&rotated).find(ROTATED).map(|(_, entry)| entry.key.id.clone());
            assert_eq!(found.as_ref(), Some(name), "the new secret finds the same key");
        }
    }
}

/// Parses the rendered file again, and checks that every good line is still there. A bad line may become good, for
/// example if an earlier line with the same secret was removed.
fn read_back(file: &KeyFile) -> KeyFile {
    let again = parse(&file.render());
    let entries: Vec<(usize, &KeyEntry)> = again.entries().collect();
    for entry in file.entries() {
        assert!(entries.contains(&entry), "line {} is read back as it was written", entry.0);
    }
    again
}

/// Checks CORS: no setting and no request allows an origin that is not listed, or credentials together with `*`. The
/// input is the setting, the origin and the requested header names, one a line.
pub fn cors_origins(data: &[u8]) {
    let mut lines = data.splitn(3, |byte| *byte == b'\n');
    let setting = String::from_utf8_lossy(lines.next().unwrap_or_default());
    let Ok(origins) = Origins::parse(&setting) else { return };
    let mut request = HeaderMap::new();
    for (name, line) in [(ORIGIN, lines.next()), (ACCESS_CONTROL_REQUEST_HEADERS, lines.next())] {
        if let Some(Ok(value)) = line.map(HeaderValue::from_bytes) {
            request.insert(name, value);
        }
    }
    let origin = request.get(ORIGIN);
    let cors = Cors::new(&origins);
    assert_eq!(cors.is_enabled(), origins != Origins::Off);
    let preflight = cors.preflight(&request);
    let mut response = HeaderMap::new();
    cors.insert_headers(origin, &mut response);
    for headers in [preflight.headers(), &response] {
        check_headers(&origins, origin, headers);
    }
    let allowed = preflight.headers().get(ACCESS_CONTROL_ALLOW_HEADERS);
    assert_eq!(allowed.is_some(), preflight.headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
    assert!(allowed.is_none_or(|names| names.to_str().is_ok()), "only plain text is repeated");
    let once = response.clone();
    cors.insert_headers(origin, &mut response);
    assert_eq!(response, once, "inserting the headers twice changes nothing");
}

fn check_headers(origins: &Origins, origin: Option<&HeaderValue>, headers: &HeaderMap) {
    let allowed = headers.get(ACCESS_CONTROL_ALLOW_ORIGIN);
    let credentials = headers.get(ACCESS_CONTROL_ALLOW_CREDENTIALS);
    match origins {
        Origins::Off => assert!(headers.is_empty(), "no headers while CORS is off"),
        Origins::Any => {
            assert_eq!(allowed.map(HeaderValue::as_bytes), Some(&b"*"[..]));
            assert_eq!(credentials, None, "no credentials together with *");
        }
        Origins::List(list) => {
            let listed = origin.filter(|origin| list.iter().any(|listed| listed.as_bytes() == origin.as_bytes()));
            assert_eq!(allowed, listed, "exactly the listed origins are allowed");
            assert_eq!(credentials.is_some(), listed.is_some_and(|origin| origin != "null"));
            assert!(headers.get_all(VARY).iter().any(|value| value == "Origin"), "caches keep origins apart");
        }
    }
}

/// Checks the head of a request: the result does not depend on the pieces in which the head arrives, and a head that
/// passes is within every limit and can be read in only one way. The first byte says where the head is cut.
pub fn request_head(data: &[u8]) {
    let Some((cut, raw)) = data.split_first() else { return };
    let limits = HeadLimits::USUAL;
    let whole = check_in_two(raw, 0, &limits);
    assert_eq!(check_in_two(raw, usize::from(*cut), &limits), whole, "pieces do not matter");
    let Ok(Some((length, framing))) = whole else { return };
    let head = &raw[..length];
    assert!(length <= limits.size() && head.ends_with(b"\r\n\r\n"));
    let text = String::from_utf8_lossy(head);
    assert_eq!(text.matches('\n').count(), text.matches("\r\n").count(), "no line ends with LF alone");
    assert_eq!(text.matches('\r').count(), text.matches("\r\n").count(), "no CR stands alone");
    let mut lines = text.trim_start_matches("\r\n").trim_end_matches("\r\n").split("\r\n");
    assert!(lines.next().is_some_and(|line| line.len() <= 8192 && line.split(' ').count() == 3));
    let headers: Vec<(String, &str)> = lines
        .map(|line| {
            // `from_utf8_lossy` turns one byte into three at most.
            assert!(line.len() <= 3 * 8192);
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no colon in {line:?}"));
            (name.to_ascii_lowercase(), value.trim_matches([' ', '\t']))
        })
        .collect();
    assert!(headers.len() <= limits.headers());
    let values = |wanted: &str| headers.iter().filter(|(name, _)| name == wanted).map(|(_, value)| *value).collect();
    let (lengths, codings): (Vec<&str>, Vec<&str>) = (values("content-length"), values("transfer-encoding"));
    assert!(values("host").len() <= 1);
    match framing {
        Framing::Chunked => assert!(lengths.is_empty() && codings.len() == 1),
        Framing::Length(length) => {
            assert!(codings.is_empty() && !lengths.is_empty());
            assert!(lengths.iter().all(|value| value.parse() == Ok(length)), "{lengths:?} is {length}");
        }
        Framing::None => assert!(codings.is_empty() && lengths.iter().all(|value| value.parse() == Ok(0_u64))),
    }
}

/// Checks the body of a request: the result does not depend on the pieces in which the body arrives, and an object
/// stays the same object (as serde_json reads it) except for the requested changes. The first byte says where the body
/// is cut, the second which changes are requested.
pub fn request_body(data: &[u8]) {
    let [cut, changes, body @ ..] = data else { return };
    let (head, tail) = body.split_at(usize::from(*cut).min(body.len()));
    let if_requested = |bit: u8, list: &[&str]| {
        let list = if changes & bit == 0 { &[] } else { list };
        list.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>()
    };
    let model = (changes & 1 != 0).then_some("new \"name\"");
    let strip = [if_requested(2, &["user"]), if_requested(4, &["a", "model"])].concat();
    let sampling: Vec<(String, String)> = [if_requested(8, &["temperature"]), if_requested(16, &["a"])]
        .concat()
        .into_iter()
        .map(|name| (name, "[1]".to_owned()))
        .collect();

    let result = rewrite_object(&[body], model, &sampling, &strip);
    assert_eq!(rewrite_object(&[head, tail], model, &sampling, &strip), result, "pieces do not matter");
    let Ok(Some(result)) = result else {
        let is_refused = result.is_err();
        assert!(is_refused || serde_json::from_slice::<Map<String, Value>>(body).is_err(), "an object is rewritten");
        return;
    };
    assert_eq!(rewrite_object(&[body], None, &[], &[]), Ok(Some(body.to_vec())), "without changes every byte stays");
    let Ok(before) = serde_json::from_slice::<Map<String, Value>>(body) else { return };
    let after: Map<String, Value> = serde_json::from_slice(&result).unwrap_or_else(|error| panic!("{error}"));
    let is_model = |name: &str| name.eq_ignore_ascii_case("model");
    let may_change = |name: &str| {
        model.is_some() && is_model(name)
            || strip.iter().any(|strip| strip == name)
            || sampling.iter().any(|(given, _)| given == name)
    };
    for (name, value) in before.iter().filter(|(name, _)| !may_change(name)) {
        assert_eq!(after.get(name), Some(value), "{name} stays as it is");
    }
    assert!(after.keys().all(|name| before.contains_key(name) || may_change(name)), "nothing else is added");
    if let Some(model) = model {
        let names: Vec<&Value> = after.iter().filter(|(name, _)| is_model(name)).map(|(_, value)| value).collect();
        assert_eq!(names, [model], "the model has its new name");
    }
    for name in &strip {
        let is_added_again = (model.is_some() && is_model(name)) || sampling.iter().any(|(given, _)| given == name);
        assert!(is_added_again || !after.contains_key(name), "{name} is removed");
    }
    for (name, value) in &sampling {
        let default: Option<Value> = serde_json::from_str(value).ok();
        let own = before.get(name).filter(|_| !strip.contains(name));
        let now = after.get(name);
        assert!(now.is_some() && (now == own || now == default.as_ref()), "{name} has its own value or the default");
    }
}

/// Checks the model's name in a response body: the result does not depend on the pieces in which the body arrives, and
/// an object stays the same object (as serde_json reads it) except for the name. The first byte says where the body is
/// cut, the second whether it is a stream.
pub fn answer_body(data: &[u8]) {
    let [cut, is_stream, body @ ..] = data else { return };
    let is_stream = is_stream % 2 == 1;
    let (head, tail) = body.split_at(usize::from(*cut).min(body.len()));
    let name = "our \"name\"";
    let result = rename_pieces(&[body], name, is_stream);
    assert_eq!(rename_pieces(&[head, tail], name, is_stream), result, "pieces do not matter");
    assert_eq!(rename_pieces(&[&result], name, is_stream), result, "a second pass changes nothing");
    let Ok(mut expected) = serde_json::from_slice::<Map<String, Value>>(body) else { return };
    if is_stream {
        // No line of a JSON object begins with `data:`, so there is no event in it.
        assert_eq!(result, body);
        // A carriage return ends a line too (WHATWG HTML, "Parsing an event stream").
        let lines = body.split(|byte| matches!(byte, b'\n' | b'\r')).map(|line| [b"data: ", line].concat());
        let event = rename_pieces(&[&lines.collect::<Vec<_>>().join(&b'\n'), b"\n\n"], name, true);
        let data: Vec<&[u8]> =
            event.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(b"data: ")).collect();
        let mut whole = rename_pieces(&[body], name, false);
        whole.iter_mut().filter(|byte| **byte == b'\r').for_each(|byte| *byte = b'\n');
        assert_eq!(data.join(&b'\n'), whole, "an event is renamed like a whole body");
        return;
    }
    let rename = |object: &mut Map<String, Value>| {
        if let Some(value) = object.get_mut("model").filter(|value| value.is_string()) {
            *value = name.into();
        }
    };
    rename(&mut expected);
    for wrapper in ["response", "message"] {
        expected.get_mut(wrapper).and_then(Value::as_object_mut).map(rename);
    }
    let result: Option<Map<String, Value>> = serde_json::from_slice(&result).ok();
    assert_eq!(result, Some(expected), "nothing but the name is replaced");
}

/// The API key in the environment of `configuration`, which a file may refer to.
const REMOTE_KEY: &str = "remote-0123456789abcdef";

/// Checks the configuration file: no text makes the reader panic, the models of an accepted file have different names,
/// and no output shows a key.
pub fn configuration(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let environment = Environment::from([("REMOTE_KEY", REMOTE_KEY), ("MODEL_NAME", "own.gguf")]);
    let inputs = Inputs { environment, ..Inputs::default() };
    let platform = Platform::plain("/nowhere".as_ref());
    let resolved = match resolve_text(&inputs, &platform, &text) {
        Ok(resolved) => resolved,
        Err(problems) => {
            assert!(!problems.is_empty(), "a refusal has a reason");
            assert!(!problems.iter().any(|problem| problem.to_string().contains(REMOTE_KEY)), "no key is shown");
            return;
        }
    };
    let catalogue = &resolved.config.catalogue;
    let mut names = std::collections::BTreeSet::new();
    for model in &catalogue.models {
        assert!(model.local.is_some() || !model.remotes.is_empty(), "each model has a worker");
        for name in model.known_id().iter().chain(&model.aliases).chain(&model.hidden_aliases) {
            assert!(names.insert(name.clone()), "{name:?} means one model");
        }
        for (_, json) in &model.rewrite.sampling {
            assert!(serde_json::from_str::<serde_json::Value>(json).is_ok(), "{json} is JSON");
        }
        for remote in &model.remotes {
            assert!(remote.api_base.starts_with("http") && !remote.api_base.ends_with('/') && remote.slots > 0);
        }
        assert!(!model.workers_differ(model));
    }
    let table = models_table(catalogue);
    assert_eq!(table.lines().count(), catalogue.models.len() + 1);
    assert!(!table.contains(REMOTE_KEY) && !format!("{:?}", resolved.config).contains(REMOTE_KEY));
}

#[cfg(test)]
mod tests;
