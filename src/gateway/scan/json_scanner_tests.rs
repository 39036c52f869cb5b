use proptest::prelude::*;
use serde_json::{Map, Value};

use super::*;
use crate::gateway::bounds::MEMBER_NAME;

/// Returns the last name; `None` if it is too long or not valid text.
fn name_of(scanner: &JsonScanner<MEMBER_NAME>) -> Option<String> {
    String::from_utf8(scanner.name_bytes()?.into_owned()).ok()
}

/// Returns the names and the raw values of the members, and whether the text was a complete object. They are the same
/// whether members are read at once or in steps.
fn members(pieces: &[&[u8]]) -> (Vec<(Option<String>, String)>, bool) {
    let in_steps = members_read(pieces, false);
    assert_eq!(members_read(pieces, true), in_steps);
    in_steps
}

fn members_read(pieces: &[&[u8]], at_once: bool) -> (Vec<(Option<String>, String)>, bool) {
    let (mut scanner, whole, mut found, mut start) =
        (JsonScanner::<MEMBER_NAME>::of_object(), pieces.concat(), Vec::new(), 0);
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let member = if at_once { scanner.member(rest) } else { None };
            if let Some(NextMember::Begins { first, used }) = member {
                rest = &rest[used..];
                start = scanner.position() - 1;
                assert_eq!(whole[start], first);
                continue;
            }
            if let Some(NextMember::Whole(member)) = member {
                rest = &rest[member.used..];
                let [name, value] = [member.name, member.value].map(String::from_utf8_lossy);
                let end = scanner.position();
                assert_eq!((whole[scanner.name_at()], &whole[end - member.value.len()..end]), (b'"', member.value));
                let is_text = str::from_utf8(member.name).is_ok();
                found.push((is_text.then(|| name.into_owned()), value.into_owned()));
                continue;
            }
            let (used, step) = scanner.step(rest);
            rest = &rest[used..];
            match step {
                Some(JsonStep::Begins(_)) => start = scanner.position() - 1,
                Some(JsonStep::Ends) => {
                    let value = String::from_utf8_lossy(&whole[start..scanner.position()]).into_owned();
                    assert_eq!(whole[scanner.name_at()], b'"');
                    found.push((name_of(&scanner), value));
                }
                _ => {}
            }
        }
    }
    (found, scanner.is_over())
}

fn members_in_one_piece(text: &str) -> (Vec<(Option<String>, String)>, bool) {
    members(&[text.as_bytes()])
}

fn member(name: &str, value: &str) -> (Option<String>, String) {
    (Some(name.to_owned()), value.to_owned())
}

#[test]
fn members_are_found_with_values_of_any_kind() {
    let text = "\u{feff} {\"a\" : \"x\\\"}\" , \"b\":[1,{\"a\":\"]\"}], \"c\\u0064\":{\"e\":{}},\n\"f\":-1.5e3,\"g\":null}\r\n";
    let expected =
        [("a", "\"x\\\"}\""), ("b", "[1,{\"a\":\"]\"}]"), ("cd", "{\"e\":{}}"), ("f", "-1.5e3"), ("g", "null")];
    let expected = expected.map(|(name, value)| member(name, value)).to_vec();
    for size in 1..=text.len() {
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
        assert_eq!(members(&pieces), (expected.clone(), true), "pieces of {size}");
    }
    assert_eq!(members_in_one_piece("{}"), (vec![], true));
}

#[test]
fn a_text_that_is_no_object_or_is_ambiguous_stops_the_scanner() {
    for text in [
        "",
        "[]",
        "1",
        "x",
        "{",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,",
        "{\"a\":1,}",
        "{,}",
        "{\"a\" 1}",
        "{a:1}",
        "{'a':1}",
        "{\"a\":1 \"b\":2}",
        "{\"a\":}",
        "{\"a\":1}}",
        "{} {}",
        "{\"a\":1}x",
        "{/**/\"a\":1}",
        "{\"a\":1//\n}",
        "{\"a\":[/*\"*/]}",
        "{\"a\":[1 # \"\n]}",
        "{\"a\":['\"']}",
        "{\"a\":[`\"`]}",
        "{\"a\":[\\\"]}",
        "\u{feff}\u{feff}{}",
        " \u{feff}{}",
        "{\0}",
        "{\"a\":[\"b]}",
    ] {
        assert!(!members_in_one_piece(text).1, "{text}");
        let single: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert!(!members(&single).1, "{text}");
    }
    assert!(!members(&[b"\xEF\xBB{}"]).1);
    assert!(!members(&[b"\xEF \xBB\xBF{}"]).1);
    assert!(members_in_one_piece("{\"a\":NaN,\"b\":[NaN]}").1, "`NaN` changes no member, so it is accepted");
}

#[test]
fn a_name_that_is_invalid_or_too_long_is_none() {
    let long = "x".repeat(MEMBER_NAME);
    assert_eq!(members_in_one_piece(&format!("{{\"{long}\":1}}")).0, [member(&long, "1")]);
    assert_eq!(members_in_one_piece(&format!("{{\"{long}x\":1}}")).0, [(None, "1".to_owned())]);
    assert_eq!(members_in_one_piece("{\"a\\ud800\":1}").0, [(None, "1".to_owned())]);
    assert_eq!(members(&[b"{\"a\xff\":1}"]).0, [(None, "1".to_owned())]);
}

#[test]
fn the_members_of_an_entered_object_are_reported() {
    let (mut scanner, mut rest, mut names) =
        (JsonScanner::<MEMBER_NAME>::of_object(), &b"{\"a\":{\"b\":1,\"c\":{}},\"d\":[{}]}"[..], Vec::new());
    while !rest.is_empty() {
        let (used, step) = scanner.step(rest);
        rest = &rest[used..];
        match step {
            Some(JsonStep::Name) => names.push((scanner.level(), name_of(&scanner).unwrap())),
            Some(JsonStep::Begins(b'{')) if scanner.level() == 1 => scanner.enter(),
            Some(JsonStep::Begins(b'[')) => scanner.enter(),
            _ => {}
        }
    }
    assert!(scanner.is_over());
    let expected = [(1, "a"), (2, "b"), (2, "c"), (1, "d")];
    assert_eq!(names, expected.map(|(level, name)| (level, name.to_owned())));
}

/// Returns the members of the object, or of each object of an array, as names and raw values, and whether the text was
/// complete.
fn members_of_objects(text: &str, size: usize) -> (Vec<Vec<(String, String)>>, bool) {
    let (mut scanner, mut objects, mut start) = (JsonScanner::<MEMBER_NAME>::of_object_or_array(), Vec::new(), 0);
    for piece in text.as_bytes().chunks(size) {
        let mut rest = piece;
        while !rest.is_empty() {
            let (used, step) = scanner.step(rest);
            rest = &rest[used..];
            match step {
                Some(JsonStep::Opens) => objects.push(Vec::new()),
                Some(JsonStep::Begins(_)) => start = scanner.position() - 1,
                Some(JsonStep::Ends) if scanner.level() == 1 => {
                    let value = text[start..scanner.position()].to_owned();
                    objects.last_mut().unwrap().push((name_of(&scanner).unwrap(), value));
                }
                _ => {}
            }
        }
    }
    (objects, scanner.is_over())
}

#[test]
fn objects_of_an_array_are_told_apart_and_its_other_elements_are_skipped() {
    let text = " [ {\"a\":1} , [{\"b\":2}], \"{\", 3, null, {} , {\"c\":[#{}]} ] ";
    let objects = [vec![("a", "1")], vec![], vec![("c", "[#{}]")]];
    let objects = objects.map(|members| members.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
    let expected: Vec<Vec<_>> = objects.into_iter().map(Iterator::collect).collect();
    for size in 1..=text.len() {
        assert_eq!(members_of_objects(text, size), (expected.clone(), true), "pieces of {size}");
    }
    assert_eq!(members_of_objects("[]", 2), (vec![], true));
    for text in ["[", "[,]", "[1", "[1 2]", "[}", "[1}", "[]]", "[] {}", "[{}", "{}]", "1", "[1,{\"a\":1]"] {
        assert!(!members_of_objects(text, 1).1, "{text}");
        assert!(!members_in_one_piece(text).1, "{text}");
    }
    assert!(!members_in_one_piece("[{}]").1, "one object was expected");
}

/// Generates any JSON value, with many brackets and quotes in strings.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<Option<bool>>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        r#"["\\{}\[\]:,/#a]{0,8}"#.prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            object(inner).prop_map(Value::Object),
        ]
    })
}

fn object(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::vec((".{0,6}", value), 0..6).prop_map(|members| members.into_iter().collect())
}

fn serialize(value: &impl serde::Serialize, is_pretty: bool) -> String {
    if is_pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) }.unwrap()
}

/// Parses the raw values that the scanner has found.
fn parse_members(members: Vec<(String, String)>) -> Map<String, Value> {
    members.into_iter().map(|(name, value)| (name, serde_json::from_str(&value).unwrap())).collect()
}

proptest! {
    #[test]
    fn the_next_quote_is_found_wherever_it_is(bytes in prop::collection::vec(prop_oneof![Just(b'!'), Just(b'#'), any::<u8>()], 0..60)) {
        prop_assert_eq!(next_quote(&bytes), bytes.iter().position(|byte| matches!(byte, b'"' | b'\\')));
    }

    #[test]
    fn the_result_does_not_depend_on_how_the_text_is_cut(text in "[{}\\[\\]\",:\\\\a1 /]{0,24}", cut in 0..24_usize) {
        let text = format!("{{\"a\":{text}}}");
        let (head, tail) = text.as_bytes().split_at(cut.min(text.len()));
        prop_assert_eq!(members(&[head, tail]), members(&[text.as_bytes()]));
    }

    #[test]
    fn a_text_that_serde_json_accepts_is_scanned_to_its_end(text in "[{}\\[\\]\",:a1 ]{0,14}") {
        let text = format!("{{\"a\":{text}}}");
        if serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok() {
            prop_assert!(members_in_one_piece(&text).1, "{}", text);
        }
    }

    #[test]
    fn members_have_the_values_that_serde_json_reads(object in object(json()), is_pretty: bool, size in 1_usize..50) {
        let text = serialize(&object, is_pretty);
        let read: Map<String, Value> = serde_json::from_str(&text).unwrap();
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
        let (found, is_over) = members(&pieces);
        let found = found.into_iter().map(|(name, value)| (name.unwrap(), value)).collect();
        prop_assert_eq!((parse_members(found), is_over), (read.clone(), true), "{}", text);
        let (objects, is_over) = members_of_objects(&text, size);
        prop_assert_eq!((objects.into_iter().map(parse_members).collect::<Vec<_>>(), is_over), (vec![read], true));
    }

    #[test]
    fn objects_of_a_response_have_the_values_that_serde_json_reads(
        value in json(),
        is_pretty: bool,
        size in 1_usize..50,
    ) {
        let text = serialize(&value, is_pretty);
        let read: Value = serde_json::from_str(&text).unwrap();
        let expected = match &read {
            Value::Object(object) => vec![object.clone()],
            Value::Array(elements) => elements.iter().filter_map(Value::as_object).cloned().collect(),
            _ => vec![],
        };
        let (objects, is_over) = members_of_objects(&text, size);
        prop_assert_eq!(objects.into_iter().map(parse_members).collect::<Vec<_>>(), expected, "{}", text);
        prop_assert_eq!(is_over, read.is_object() || read.is_array());
    }
}
