//! Tests of the grammar: accepted lines, refused lines, and properties that hold for every input.

use std::num::{NonZeroU64, NonZeroUsize};

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::amount::Amount;
use crate::keys::{Budget, Priority, Scope};

const SECRET: &str = "sk-0123456789abcdef";
const HASH_OF_SECRET: &str = "sha256=3d5bb0c93e1d1ba92a9ec4a91ed6a3f2f7e0a1b8f6b0e9a5b1f0c7d4e2a39685";

/// Parses a line that holds one key.
fn parse_key(line: &str) -> Key {
    let file = parse(line);
    assert_eq!(file.problems().next(), None, "{line}");
    let (_, entry) = file.entries().next().unwrap_or_else(|| panic!("no key in {line}"));
    entry.key.clone()
}

/// Parses a line that must be refused.
fn parse_problem(line: &str) -> KeyLineProblem {
    let file = parse(line);
    assert_eq!(file.entries().count(), 0, "{line}");
    file.problems().next().unwrap_or_else(|| panic!("no problem in {line}")).1
}

fn instant(text: &str) -> Option<Timestamp> {
    Some(text.parse().unwrap())
}

#[test]
fn every_field_and_attribute_is_parsed_into_the_key() {
    let key = parse_key(&format!(
        "team-a:{SECRET}:120:2027-01-01T10:00:00+02:00 scope=admin,metrics models=qwen3-4b,bge-m3 tokens_per_minute=5000 max_concurrent=2"
    ));
    assert_eq!(key.id, "team-a");
    assert_eq!(key.rate_limit, NonZeroU32::new(120));
    assert_eq!(key.expires, instant("2027-01-01T08:00:00Z"));
    assert_eq!(key.scopes, [Scope::Admin, Scope::Metrics].into_iter().collect());
    assert_eq!(key.models, Some(vec!["qwen3-4b".into(), "bge-m3".into()]));
    assert_eq!(key.tokens_per_minute, NonZeroU64::new(5000));
    assert_eq!(key.max_concurrent, NonZeroUsize::new(2));
}

#[test]
fn fields_that_are_left_out_have_their_defaults() {
    for tail in ["", ":", "::", " ", ": ", ":: \t"] {
        assert_eq!(parse_key(&format!("a:{SECRET}{tail}")), Key::named("a"), "{tail:?}");
    }
    assert_eq!(parse_key(&format!("a:{SECRET}::2027-01-01")).expires, instant("2027-01-01T00:00:00Z"));
    assert_eq!(parse_key(&format!("a:{SECRET}: scope=metrics")).scopes, [Scope::Metrics].into_iter().collect());
}

#[test]
fn spaces_around_fields_and_inside_a_date_are_accepted() {
    let key = parse_key(&format!(" a : {SECRET} : 60 : 2027-01-01 12:30:00 \tmodels=m"));
    assert_eq!((key.rate_limit, key.expires), (NonZeroU32::new(60), instant("2027-01-01T12:30:00Z")));
    assert_eq!(key.models, Some(vec!["m".into()]));
    let hex = "0a".repeat(32);
    assert_eq!(parse_key(&format!("a: sha256={hex}")), Key::named("a"));
}

#[test]
fn byte_order_marks_carriage_returns_blanks_and_comments_are_accepted() {
    let text = format!("\u{feff}a:{SECRET}\r\n\r\n  # note: not a key\r\n\t\n#b:{SECRET}x\nc:{SECRET}y");
    let file = parse(&text);
    let ids: Vec<_> = file.entries().map(|(number, entry)| (number, entry.key.id.as_str())).collect();
    assert_eq!(ids, [(1, "a"), (6, "c")]);
    assert_eq!(file.problems().count(), 0);
    assert_eq!(file.render(), text);
}

#[test]
fn each_kind_of_bad_line_is_named() {
    let s = SECRET;
    for (line, want) in [
        ("just-words".to_owned(), KeyLineProblem::NoSecret),
        (format!(":{s}"), KeyLineProblem::KeyId),
        (format!("ä:{s}"), KeyLineProblem::KeyId),
        (format!("{}:{s}", "a".repeat(65)), KeyLineProblem::KeyId),
        ("a:short".to_owned(), KeyLineProblem::Secret),
        ("a:".to_owned(), KeyLineProblem::Secret),
        (format!("a:{s} {s}"), KeyLineProblem::Secret),
        ("a:sha256=0123".to_owned(), KeyLineProblem::Hash),
        (format!("a:{s}:0"), KeyLineProblem::RateLimit),
        (format!("a:{s}:+5"), KeyLineProblem::RateLimit),
        (format!("a:{s}:4294967296"), KeyLineProblem::RateLimit),
        (format!("a:{s}:2027-01-01"), KeyLineProblem::DateAsRateLimit),
        (format!("a:{s}::30d"), KeyLineProblem::Expiration),
        (format!("a:{s}::2027-01-01T00:00:00Z:x"), KeyLineProblem::Expiration),
        (format!("a:{s} # mine"), KeyLineProblem::InlineComment),
        (format!("a:{s} scope=admin # mine"), KeyLineProblem::InlineComment),
        (format!("a:{s} scope=admin metrics"), KeyLineProblem::NotAnAttribute),
        (format!("a:{s} role=admin"), KeyLineProblem::UnknownAttribute),
        (format!("a:{s} =admin"), KeyLineProblem::UnknownAttribute),
        (format!("a:{s} Scope=admin"), KeyLineProblem::UnknownAttribute),
        (format!("a:{s} scope=admin scope=admin"), KeyLineProblem::DuplicateAttribute),
        (format!("a:{s} models={}", "m".repeat(MAX_LINE)), KeyLineProblem::LineTooLong),
    ] {
        assert_eq!(parse_problem(&line), want, "{line}");
    }
}

#[test]
fn a_bad_value_is_named_with_what_it_must_be() {
    for bad in [
        "scope=",
        "scope=admin,",
        "scope=root",
        "models=",
        "models=a,,b",
        "models=*",
        "tokens_per_minute=0",
        "max_concurrent=-1",
        "requests_per_day=0",
        "tokens_per_day=1.5",
        "tokens_per_month=+1",
        "cost_per_month=0",
        "cost_per_month=1e3",
        "person_tokens_per_day=many",
        "priority=highest",
        "trust_user_headers=yes",
    ] {
        let (wanted, _) = bad.split_once('=').unwrap();
        match parse_problem(&format!("a:{SECRET} {bad}")) {
            KeyLineProblem::AttributeValue { name, .. } => assert_eq!(name, wanted, "{bad}"),
            problem => panic!("{bad}: {problem}"),
        }
    }
}

#[test]
fn the_message_for_an_unknown_attribute_names_all_that_there_are() {
    let message = KeyLineProblem::UnknownAttribute.to_string();
    let names: Vec<_> = ATTRIBUTES.iter().map(|attribute| attribute.name).collect();
    assert!(message.ends_with(&names.join(", ")), "{message}");
}

#[test]
fn a_second_line_with_the_same_secret_is_bad_whether_plain_or_hashed() {
    let hashed = Stored::Hashed(Digest::of(SECRET)).render();
    let file = parse(&format!("a:{SECRET}\nb:{hashed}\na:{SECRET}:5\nc:{SECRET}z\n"));
    let problems: Vec<_> = file.problems().collect();
    let twice = KeyLineProblem::SecretUsedTwice { first: 1 };
    assert_eq!(problems, [(2, twice), (3, twice)]);
    assert_eq!(file.entries().count(), 2);
}

#[test]
fn a_bad_line_does_not_reserve_its_secret() {
    let file = parse(&format!("a:{SECRET}:zero\na:{SECRET}:5\n"));
    assert_eq!(file.entries().map(|(number, _)| number).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_key_id_may_be_on_several_lines() {
    assert_eq!(parse(&format!("a:{SECRET}\na:{SECRET}2\na:{HASH_OF_SECRET}\n")).entries().count(), 3);
}

#[test]
fn the_example_file_has_no_active_key_and_every_example_in_it_parses() {
    let text = include_str!("../../api_keys.txt.example");
    let file = parse(text);
    assert_eq!((file.entries().count(), file.problems().count()), (0, 0));
    let examples: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_alphanumeric()))
        .collect();
    let file = parse(&examples.join("\n"));
    assert_eq!(file.problems().collect::<Vec<_>>(), []);
    assert!(file.entries().count() >= 5);
}

prop_compose! {
    fn budgets()(
        counts in proptest::array::uniform4(proptest::option::of(any::<NonZeroU64>())),
        cost in proptest::option::of(1..=u64::MAX),
    ) -> Budget {
        let [requests_per_day, tokens_per_day, tokens_per_month, person_tokens_per_day] = counts;
        let cost_per_month = cost.map(Amount::from_nanos);
        Budget { requests_per_day, tokens_per_day, tokens_per_month, cost_per_month, person_tokens_per_day }
    }
}

prop_compose! {
    fn entries()(
        id in "[A-Za-z0-9_-]{1,64}",
        plain in "[A-Za-z0-9_-]{16,128}",
        hashed in any::<bool>(),
        rate_limit in proptest::option::of(any::<NonZeroU32>()),
        // Years -9999 to 9999: all that a timestamp can hold.
        seconds in proptest::option::of(-377_705_023_201_i64..=253_402_207_200),
        scopes in proptest::sample::subsequence(Scope::ALL.to_vec(), 1..=3),
        models in proptest::option::of(proptest::collection::vec("[^\\s\\p{C},*\u{fffd}]{1,20}", 1..4)),
        tokens_per_minute in proptest::option::of(any::<NonZeroU64>()),
        max_concurrent in proptest::option::of(any::<NonZeroUsize>()),
        budget in budgets(),
        priority in proptest::sample::select(Priority::ALL.to_vec()),
        trust_user_headers in any::<bool>(),
    ) -> (String, KeyEntry) {
        let secret = if hashed { Stored::Hashed(Digest::of(&plain)) } else { Stored::Plain(plain.clone()) };
        let expires = seconds.map(|s| Timestamp::from_second(s).unwrap());
        let scopes = scopes.into_iter().collect();
        let key = Key {
            id, rate_limit, expires, scopes, models, tokens_per_minute, max_concurrent, budget, priority, trust_user_headers,
        };
        (plain, KeyEntry { key, secret })
    }
}

proptest! {
    #[test]
    fn any_text_is_parsed_without_panic_and_rendered_unchanged(text in any::<String>()) {
        prop_assert_eq!(parse(&text).render(), text);
    }

    #[test]
    fn any_text_made_of_key_file_pieces_is_rendered_unchanged(text in "([a-z:= ,#*0-9TZ\\-]{0,40}|a:sha256=|scope=|:2027-01-01|\r|\t|\n){0,12}") {
        prop_assert_eq!(parse(&text).render(), text);
    }

    #[test]
    fn a_rendered_entry_is_parsed_to_the_same_entry((_, entry) in entries()) {
        let file = parse(&entry.render());
        prop_assert_eq!(file.problems().next(), None);
        prop_assert_eq!(file.entries().next(), Some((1, &entry)));
    }

    #[test]
    fn no_output_about_a_line_holds_its_secret((secret, entry) in entries(), damage in 0..8_usize) {
        let mut line = entry.render();
        let at = line.char_indices().nth(damage * 7).map_or(line.len(), |(at, _)| at);
        line.insert(at, '!');
        let file = parse(&format!("{}\n{line}\n", entry.render()));
        let mut shown = format!("{file:?} {entry:?}");
        for (number, problem) in file.problems() {
            shown += &format!("{number} {problem} {problem:?}");
        }
        prop_assert!(!shown.contains(&secret[..12]) || entry.key.id.contains(&secret[..12]));
        let hex = &Stored::Hashed(Digest::of(&secret)).render()[HASH_PREFIX.len()..][..12];
        prop_assert!(!shown.contains(hex));
    }
}
