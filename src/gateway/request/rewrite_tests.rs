use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::*;

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

fn edited(text: &str, model: Option<&str>, sampling: &[(&str, &str)], strip: &[&str]) -> String {
    let result = rewrite_object(&[text.as_bytes()], model, &pairs(sampling), &names(strip));
    String::from_utf8(result.unwrap().unwrap()).unwrap()
}

#[test]
fn the_model_is_renamed_wherever_the_member_is() {
    for (text, expected) in [
        (r#"{"model":"a"}"#, r#"{"model":"n\"é"}"#),
        (r#"{ "x" : "model" , "model" : "a" , "y" : 2 } "#, r#"{ "x" : "model" , "model" : "n\"é" , "y" : 2 } "#),
        (r#"{"mod\u0065l":"a"}"#, r#"{"mod\u0065l":"n\"é"}"#),
        (r#"{"Model":"a"}"#, r#"{"Model":"n\"é"}"#),
        (r#"{"model":null,"x":[]}"#, r#"{"model":"n\"é","x":[]}"#),
        (r#"{"model":{"a":[1]}}"#, r#"{"model":"n\"é"}"#),
        (r#"{"x":{"model":"a"}}"#, r#"{"model":"n\"é","x":{"model":"a"}}"#),
        ("\u{feff}\n{ }", "\u{feff}\n{\"model\":\"n\\\"é\" }"),
    ] {
        assert_eq!(edited(text, Some("n\"é"), &[], &[]), expected, "{text}");
        assert_eq!(edited(text, Some("n\"é"), &[], &["model"]), expected, "{text}");
    }
}

#[test]
fn a_default_is_for_requests_without_the_member() {
    for (text, sampling, expected) in [
        ("{}", &[("a", "1")][..], r#"{"a":1}"#),
        ("{\n}", &[("a", "1"), ("b", "[2]")], "{\"a\":1,\"b\":[2]\n}"),
        (r#"{"a":0}"#, &[("a", "1")], r#"{"a":0}"#),
        (r#"{"\u0061":0}"#, &[("a", "1")], r#"{"\u0061":0}"#),
        (r#"{ "a":null}"#, &[("a", "1")], r#"{ "a":1}"#),
        (r#"{"b":{"a":0}}"#, &[("a", "1")], r#"{"a":1,"b":{"a":0}}"#),
        (r#"{"n_predict":5}"#, &[("max_tokens", "1")], r#"{"n_predict":5}"#),
        (r#"{"max_completion_tokens":5}"#, &[("n_predict", "1")], r#"{"max_completion_tokens":5}"#),
        (r#"{"n_predict":null}"#, &[("max_tokens", "1")], r#"{"max_tokens":1,"n_predict":null}"#),
        ("{}", &[("max_tokens", "1"), ("n_predict", "2"), ("max_tokens", "3")], r#"{"max_tokens":1}"#),
        (r#"{"repetition_penalty":5}"#, &[("repeat_penalty", "1")], r#"{"repetition_penalty":5}"#),
        ("{}", &[("a\"", "1")], r#"{"a\"":1}"#),
        ("{}", &[("model", "1")], r#"{"model":1}"#),
    ] {
        assert_eq!(edited(text, None, sampling, &[]), expected, "{text}");
    }
    assert_eq!(edited("{}", Some("m"), &[("model", "1"), ("a", "2")], &[]), r#"{"model":"m","a":2}"#);
}

#[test]
fn the_commas_are_right_after_members_are_removed() {
    for (text, expected) in [
        (r#"{"a":1}"#, "{}"),
        (r#"{ "a" : 1 }"#, "{  }"),
        (r#"{"a":1,"x":2}"#, r#"{"x":2}"#),
        (r#"{ "a":1 , "x":2 }"#, r#"{ "x":2 }"#),
        (r#"{"x":2,"a":1}"#, r#"{"x":2}"#),
        (r#"{ "x":2 , "a":1 }"#, r#"{ "x":2 }"#),
        (r#"{"x":2,"a":1,"y":3}"#, r#"{"x":2,"y":3}"#),
        (r#"{"a":1,"b":2,"x":3,"a":4,"b":5,"y":6,"a":7}"#, r#"{"x":3,"y":6}"#),
        (r#"{"a":1, "b":{"a":2}, "a":3}"#, "{}"),
        (r#"{"x":{"a":1}}"#, r#"{"x":{"a":1}}"#),
    ] {
        assert_eq!(edited(text, None, &[], &["a", "b"]), expected, "{text}");
    }
    assert_eq!(
        edited(r#"{"a":1,"b":2}"#, None, &[("a", "9")], &["a"]),
        r#"{"a":9,"b":2}"#,
        "the default replaces the removed member"
    );
    assert_eq!(edited(r#"{"a":1}"#, Some("m"), &[("a", "9")], &["a"]), r#"{"model":"m","a":9}"#);
    assert_eq!(edited(r#"{"model":"m"}"#, None, &[], &["model"]), "{}");
}

#[test]
fn a_body_that_is_not_an_object_stays_as_it_is() {
    for text in ["", "[1]", "{\"model\":\"a\"", "{\"a\":1,}"] {
        let body = RequestBody::from_pieces(&[text]);
        let edit = Edit {
            model: Some("m"),
            defaults: [&pairs(&[("a", "1")]), &[]],
            is_generation: true,
            strip: &names(&["a"]),
            ..Edit::default()
        };
        let same = rewrite_body(&body, &Envelope::of(&body).unwrap(), &edit);
        assert_eq!(same.pieces().flatten().copied().collect::<Vec<u8>>(), text.as_bytes());
    }
}

#[test]
fn unchanged_bytes_are_not_copied_and_the_first_body_can_still_be_sent() {
    let content = "x".repeat(10_000);
    let body = RequestBody::from_pieces(&[&format!("{{\"model\":\"a\",\"prompt\":\"{content}\"}}")]);
    let envelope = Envelope::of(&body).unwrap();
    let text = |body: &RequestBody| String::from_utf8(body.pieces().flatten().copied().collect()).unwrap();
    for name in ["b", "a much longer name"] {
        let other = rewrite_body(&body, &envelope, &Edit { model: Some(name), ..Edit::default() });
        assert_eq!(text(&other), format!("{{\"model\":\"{name}\",\"prompt\":\"{content}\"}}"));
        let (first, last) =
            (body.pieces().next().unwrap().as_ptr_range(), other.pieces().last().unwrap().as_ptr_range());
        assert_eq!(first.end, last.end, "both bodies share the memory");
    }
}

#[tokio::test]
async fn a_form_is_changed_by_its_parts() {
    let part =
        |name: &str, value: &str| format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    let mut headers = http::HeaderMap::new();
    headers.insert("content-type", http::HeaderValue::from_static("multipart/form-data; boundary=b"));
    for (parts, expected) in [
        (&[("model", "a"), ("file", "RIFF")][..], &[("model", "n  x"), ("file", "RIFF")][..]),
        (&[("user", "u"), ("file", "RIFF"), ("model", "")], &[("file", "RIFF"), ("model", "n  x")]),
        (&[("file", "RIFF"), ("user", "u")], &[("model", "n  x"), ("file", "RIFF")]),
        (&[("user", "u")], &[("model", "n  x")]),
    ] {
        let whole = |parts: &[(&str, &str)]| {
            let parts: String = parts.iter().map(|(name, value)| part(name, value)).collect();
            parts + "--b--\r\n"
        };
        let body = RequestBody::from_pieces(&[&whole(parts)]);
        let envelope = Envelope::read("/v1/audio/transcriptions", &headers, &body).await.unwrap();
        let (sampling, strip) = (pairs(&[("a", "1")]), names(&["user"]));
        let edit = Edit {
            model: Some("n\r\nx"),
            defaults: [&sampling, &[]],
            is_generation: true,
            strip: &strip,
            ..Edit::default()
        };
        let other = rewrite_body(&body, &envelope, &edit);
        let text = String::from_utf8(other.pieces().flatten().copied().collect()).unwrap();
        assert_eq!(text, whole(expected));
        assert_eq!(other.length(), text.len() as u64);
    }
}

/// Names that a rewrite treats specially, and others.
const NAMES: [&str; 8] = ["model", "max_tokens", "n_predict", "temperature", "user", "a", "é\"\\", ""];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        r#"["\\{}\[\]:,a/é]{0,8}"#.prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec((prop::sample::select(&NAMES[..]), inner.clone()), 0..4)
                .prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
            prop::collection::vec(inner, 0..4).prop_map(Value::Array),
        ]
    })
}

/// An object as a client could write it: with space anywhere, and names that are escaped or not.
fn object() -> impl Strategy<Value = (String, Map<String, Value>)> {
    let space = || "[ \n\r\t]{0,2}";
    let member = (prop::sample::select(&NAMES[..]), value(), any::<bool>(), [space(), space(), space(), space()]);
    (prop::collection::vec(member, 0..8), space(), [space(), space()]).prop_map(
        |(members, inside, [before, behind])| {
            let mut map = Map::new();
            let mut texts = Vec::new();
            for (name, value, escaped, [a, b, c, d]) in members {
                if map.contains_key(name) {
                    continue;
                }
                let written = match escaped {
                    true => {
                        format!("\"{}\"", name.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect::<String>())
                    }
                    false => json_string(name),
                };
                texts.push(format!("{a}{written}{b}:{c}{value}{d}"));
                map.insert(name.to_owned(), value);
            }
            let inside = if texts.is_empty() { inside } else { texts.join(",") };
            (format!("{before}{{{inside}}}{behind}"), map)
        },
    )
}

/// Returns the object that the edit must produce.
fn expected_object(
    mut map: Map<String, Value>,
    model: Option<&str>,
    sampling: &[(String, String)],
    strip: &[String],
) -> Map<String, Value> {
    map.retain(|name, _| !strip.contains(name) || (name == "model" && model.is_some()));
    let before = map.clone();
    let is_set = |name: &str| before.get(name).is_some_and(|value| !value.is_null());
    for (name, value) in sampling {
        let same: Vec<&str> = match name.as_str() {
            name @ ("max_tokens" | "n_predict") => vec![name, "max_tokens", "n_predict"],
            name => vec![name],
        };
        let given =
            |other: &&str| sampling.iter().take_while(|(earlier, _)| earlier != name).any(|(name, _)| name == other);
        if !same.iter().any(|name| is_set(name)) && !same.iter().any(given) {
            map.insert(name.clone(), serde_json::from_str(value).unwrap());
        }
    }
    if let Some(model) = model {
        map.insert("model".to_owned(), Value::from(model));
    }
    map
}

proptest! {
    #[test]
    fn an_edit_changes_what_it_names_and_leaves_the_rest_untouched(
        (text, map) in object(),
        model in prop::option::of(r#"[a-z/"\\é]{0,6}"#),
        sampling in prop::sample::subsequence(vec![("max_tokens", "8"), ("n_predict", "9"), ("temperature", "[0.5]"), ("a", "{}")], 0..4),
        strip in prop::sample::subsequence(NAMES.to_vec(), 0..4),
        cuts in (0..200_usize, 0..200_usize),
    ) {
        let (sampling, strip) = (pairs(&sampling), names(&strip));
        let (first, second) = (cuts.0.min(cuts.1).min(text.len()), cuts.0.max(cuts.1).min(text.len()));
        let bytes = text.as_bytes();
        let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
        let result = rewrite_object(&pieces, model.as_deref(), &sampling, &strip).unwrap().unwrap();
        let shown = String::from_utf8_lossy(&result).into_owned();
        let read: Map<String, Value> = serde_json::from_slice(&result).unwrap_or_else(|error| panic!("{error}: {text} -> {shown}"));
        prop_assert_eq!(&read, &expected_object(map.clone(), model.as_deref(), &sampling, &strip), "{} -> {}", text, shown);

        // A member that keeps its value keeps its bytes.
        let written = |text: &str| {
            let envelope = Envelope::of(&RequestBody::from_pieces(&[text])).unwrap();
            let of = |member: &BodyMember| (member.name.clone().unwrap().into_owned(), text[member.whole.clone()].to_owned());
            envelope.members.iter().map(of).collect::<HashMap<String, String>>()
        };
        let after = written(&shown);
        for (name, member) in written(&text) {
            if read.get(&name).is_some_and(|value| *value == map[&name]) && !strip.contains(&name) && name != "model" {
                prop_assert_eq!(&after[&name], &member, "{} -> {}", text, shown);
            }
        }
        prop_assert_eq!(rewrite_object(&pieces, None, &[], &[]).unwrap().unwrap(), bytes);
    }
}

#[test]
fn token_counts_are_asked_for_beside_the_clients_own_stream_options() {
    let asked = |text: &str, strip: &[&str]| {
        let body = RequestBody::default().with_pieces([Bytes::copy_from_slice(text.as_bytes())].into());
        let envelope = Envelope::of(&body).unwrap();
        let options = stream_options_with_usage(&body, &envelope, &names(strip))?;
        let edit = Edit { stream_options: Some(&options), ..Edit::default() };
        let bytes: Vec<u8> = rewrite_body(&body, &envelope, &edit).pieces().flatten().copied().collect();
        Some(String::from_utf8(bytes).unwrap())
    };
    for (text, expected) in [
        (r#"{"stream":true}"#, r#"{"stream_options":{"include_usage":true},"stream":true}"#),
        (
            r#"{"stream":true, "stream_options" : null}"#,
            r#"{"stream":true, "stream_options" : {"include_usage":true}}"#,
        ),
        (r#"{"stream_options":{}}"#, r#"{"stream_options":{"include_usage":true}}"#),
        (r#"{"stream_options":{"include_usage":false}}"#, r#"{"stream_options":{"include_usage":true}}"#),
        (
            r#"{"stream_options":{ "a": [1], "include_usage" : null },"b":2}"#,
            r#"{"stream_options":{"a":[1],"include_usage":true},"b":2}"#,
        ),
        (r#"{"stream_\u006fptions":{"a":1}}"#, r#"{"stream_\u006fptions":{"a":1,"include_usage":true}}"#),
        ("{}", r#"{"stream_options":{"include_usage":true}}"#),
    ] {
        assert_eq!(asked(text, &[]).as_deref(), Some(expected), "{text}");
        assert_eq!(asked(text, &["stream_options"]), None, "a backend that does not take the member is not asked");
    }
    let long = format!(r#"{{"stream_options":{{"a":"{}"}}}}"#, "x".repeat(STREAM_OPTIONS_SIZE));
    for text in [
        r#"{"stream_options":{"include_usage":true}}"#,
        r#"{"stream_options":{"include_\u0075sage" : true}}"#,
        r#"{"stream_options":[]}"#,
        r#"{"stream_options":"x"}"#,
        "[]",
        "not JSON",
        &long,
    ] {
        assert_eq!(asked(text, &[]), None, "{text}");
    }
}
