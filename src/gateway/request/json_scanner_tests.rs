use super::*;
use proptest::prelude::*;

/// The names and values of the members as they stand there, and whether the text was an object.
fn members(pieces: &[&[u8]]) -> (Vec<(Option<String>, String)>, bool) {
    let (mut walk, whole, mut found, mut begun) = (Walk::new(), pieces.concat(), Vec::new(), 0);
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let (used, step) = walk.step(rest);
            rest = &rest[used..];
            match step {
                Some(Step::Begins(_)) => begun = walk.position() - 1,
                Some(Step::Ends) => {
                    let value = String::from_utf8_lossy(&whole[begun..walk.position()]).into_owned();
                    assert_eq!(whole[walk.name_at()], b'"');
                    found.push((walk.name().map(Cow::into_owned), value));
                }
                _ => {}
            }
        }
    }
    (found, walk.is_over())
}

fn of(text: &str) -> (Vec<(Option<String>, String)>, bool) {
    members(&[text.as_bytes()])
}

fn named(name: &str, value: &str) -> (Option<String>, String) {
    (Some(name.to_owned()), value.to_owned())
}

#[test]
fn members_are_found_with_their_values_whatever_these_are() {
    let text = "\u{feff} {\"a\" : \"x\\\"}\" , \"b\":[1,{\"a\":\"]\"}], \"c\\u0064\":{\"e\":{}},\n\"f\":-1.5e3,\"g\":null}\r\n";
    let expected =
        [("a", "\"x\\\"}\""), ("b", "[1,{\"a\":\"]\"}]"), ("cd", "{\"e\":{}}"), ("f", "-1.5e3"), ("g", "null")];
    let expected = expected.map(|(name, value)| named(name, value)).to_vec();
    for size in 1..=text.len() {
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
        assert_eq!(members(&pieces), (expected.clone(), true), "pieces of {size}");
    }
    assert_eq!(of("{}"), (vec![], true));
}

#[test]
fn what_is_no_object_or_could_be_read_in_two_ways_ends_the_walk() {
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
        assert!(!of(text).1, "{text}");
        let single: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert!(!members(&single).1, "{text}");
    }
    assert!(!members(&[b"\xEF\xBB{}"]).1);
    assert!(!members(&[b"\xEF \xBB\xBF{}"]).1);
    assert!(of("{\"a\":NaN,\"b\":[NaN]}").1, "what changes no member may pass");
}

#[test]
fn a_name_that_is_no_text_or_too_long_to_matter_is_none() {
    let long = "x".repeat(MEMBER_NAME);
    assert_eq!(of(&format!("{{\"{long}\":1}}")).0, [named(&long, "1")]);
    assert_eq!(of(&format!("{{\"{long}x\":1}}")).0, [(None, "1".to_owned())]);
    assert_eq!(of("{\"a\\ud800\":1}").0, [(None, "1".to_owned())]);
    assert_eq!(members(&[b"{\"a\xff\":1}"]).0, [(None, "1".to_owned())]);
}

#[test]
fn an_object_can_be_walked_into() {
    let (mut walk, mut rest, mut names) = (Walk::new(), &b"{\"a\":{\"b\":1,\"c\":{}},\"d\":[{}]}"[..], Vec::new());
    while !rest.is_empty() {
        let (used, step) = walk.step(rest);
        rest = &rest[used..];
        match step {
            Some(Step::Name) => names.push((walk.level(), walk.name().unwrap().into_owned())),
            Some(Step::Begins(b'{')) if walk.level() == 1 => walk.enter(),
            Some(Step::Begins(b'[')) => walk.enter(),
            _ => {}
        }
    }
    assert!(walk.is_over());
    let expected = [(1, "a"), (2, "b"), (2, "c"), (1, "d")];
    assert_eq!(names, expected.map(|(level, name)| (level, name.to_owned())));
}

proptest! {
    #[test]
    fn pieces_do_not_matter(text in "[{}\\[\\]\",:\\\\a1 /]{0,24}", cut in 0..24_usize) {
        let text = format!("{{\"a\":{text}}}");
        let (head, tail) = text.as_bytes().split_at(cut.min(text.len()));
        prop_assert_eq!(members(&[head, tail]), members(&[text.as_bytes()]));
    }

    #[test]
    fn whatever_serde_json_reads_is_walked_along(text in "[{}\\[\\]\",:a1 ]{0,14}") {
        let text = format!("{{\"a\":{text}}}");
        if serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok() {
            prop_assert!(of(&text).1, "{}", text);
        }
    }
}
