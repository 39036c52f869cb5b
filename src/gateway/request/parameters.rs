//! Checks the parameters of a request that is passed on as it is: members of its body whose values its API limits.
//!
//! What is allowed is in `routes/parameters.rs`. The members are those that the scan of the body has found, so the body is
//! not read again: only the few bytes of a number are.

use super::body::RequestBody;
use super::body_view::number_in;
use super::envelope::Envelope;
use crate::gateway::routes::parameters::{PARAMETERS, ParameterApi, find};
use crate::gateway::routes::route::Route;
use crate::refusal::Refusal;

/// One bit for each row of the table.
type SeenRows = u32;

const _: () = assert!(PARAMETERS.len() <= SeenRows::BITS as usize);

/// Refuses a request of this route with a parameter that its API does not allow. Of a member that is there twice the last
/// one counts, as at llama-server.
///
/// # Errors
/// [`Refusal::InvalidParameter`] with the name of the member.
pub(crate) fn check(route: &Route, envelope: &Envelope, body: &RequestBody) -> Result<(), Refusal> {
    let Some(api) = ParameterApi::of(route.path) else { return Ok(()) };
    let mut seen: SeenRows = 0;
    for member in envelope.members.iter().rev() {
        let row = member.name.as_deref().and_then(|name| find(api, name));
        let Some((at, parameter)) = row.filter(|(at, _)| seen & (1 << at) == 0) else { continue };
        seen |= 1 << at;
        let number = || number_in(body, &member.value);
        if !member.is_null() && !parameter.rule.allows(member.first, number) {
            let (name, rule) = (parameter.name, parameter.rule);
            let message = format!("{name} must be {rule} (STRICT_PARAMETERS)");
            return Err(Refusal::InvalidParameter { field: name.to_owned(), message });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::Method;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::gateway::bounds::NUMBER_LENGTH;
    use crate::gateway::routes::lookup;

    /// Returns the name of the member that is refused in a body that comes in these pieces, and what is said of it.
    fn refused(path: &str, pieces: &[&str]) -> Option<(String, String)> {
        let body = RequestBody::from_pieces(pieces);
        let envelope = Envelope::of(&body).unwrap();
        let route = lookup::find(&Method::POST, path).unwrap();
        match check(route, &envelope, &body) {
            Ok(()) => None,
            Err(Refusal::InvalidParameter { field, message }) => Some((field, message)),
            Err(other) => panic!("{other:?}"),
        }
    }

    const CHAT: &str = "/v1/chat/completions";
    const COMPLETIONS: &str = "/v1/completions";
    const RESPONSES: &str = "/v1/responses";
    const MESSAGES: &str = "/v1/messages";
    const FIM: &str = "/v1/fim/completions";

    #[test]
    fn values_at_the_ends_of_a_range_are_allowed_and_those_beyond_are_not() {
        for (path, name, allowed, beyond) in [
            (CHAT, "temperature", &["0", "2", "0.7", "2e0", "-0"][..], &["-0.1", "2.01", "3"][..]),
            (RESPONSES, "temperature", &["0", "2"], &["-1", "2.5"]),
            (MESSAGES, "temperature", &["0", "1"], &["1.1"]),
            (FIM, "temperature", &["1.5"], &["1.6"]),
            (COMPLETIONS, "top_p", &["0", "1"], &["-0.1", "1.1"]),
            (MESSAGES, "top_k", &["0", "1", "100000"], &["-1", "1.5"]),
            (CHAT, "n", &["1", "1.0", "128"], &["0", "-1", "129", "1.5"]),
            (CHAT, "presence_penalty", &["-2", "2"], &["-2.1", "2.1"]),
            (COMPLETIONS, "frequency_penalty", &["-2", "2"], &["-3", "9"]),
            (CHAT, "max_tokens", &["1", "-1", "1e3", "2147483647"], &["0", "-2", "0.5", "2147483648", "1e20"]),
            (CHAT, "max_completion_tokens", &["1", "-1"], &["0", "-2"]),
            (COMPLETIONS, "max_tokens", &["0", "-1"], &["-2"]),
            (RESPONSES, "max_output_tokens", &["1", "-1"], &["0"]),
            (MESSAGES, "max_tokens", &["0", "1"], &["-1"]),
            (CHAT, "top_logprobs", &["0", "20"], &["-1", "21"]),
            (COMPLETIONS, "logprobs", &["0", "5", "40"], &["-1", "true"]),
            (CHAT, "seed", &["-1", "0", "9007199254740993", "-9223372036854775808"], &["1.5", "1e30"]),
            (FIM, "random_seed", &["0"], &["-1"]),
        ] {
            let refused = |value: &str| refused(path, &[&format!("{{\"{name}\": {value} }}")]);
            for value in allowed {
                assert_eq!(refused(value), None, "{path} {name} {value}");
            }
            for value in beyond {
                assert_eq!(refused(value).map(|(field, _)| field).as_deref(), Some(name), "{path} {name} {value}");
            }
        }
    }

    #[test]
    fn values_of_another_type_are_refused_and_null_counts_as_absent() {
        let long = format!("0.{}", "1".repeat(NUMBER_LENGTH));
        let others =
            ["\"0.5\"", "\"\"", "true", "[1]", "{}", "NaN", "-Infinity", "Infinity", "1e400", "-", "01", &long];
        for value in others {
            let said =
                Some(("temperature".into(), "temperature must be a number between 0 and 2 (STRICT_PARAMETERS)".into()));
            assert_eq!(refused(CHAT, &[&format!("{{\"temperature\":{value}}}")]), said, "{value}");
        }
        for (path, name, value, allowed) in [
            (CHAT, "stream", "true", true),
            (CHAT, "stream", "\"true\"", false),
            (MESSAGES, "stream", "1", false),
            (CHAT, "logprobs", "false", true),
            (CHAT, "logprobs", "5", false),
            (CHAT, "stop", "\"x\"", true),
            (CHAT, "stop", "[\"a\",\"b\",\"c\",\"d\",\"e\"]", true),
            (CHAT, "stop", "5", false),
            (COMPLETIONS, "stop", "{}", false),
            (MESSAGES, "stop_sequences", "[]", true),
            (MESSAGES, "stop_sequences", "\"x\"", false),
        ] {
            let found = refused(path, &[&format!("{{\"{name}\":{value}}}")]);
            assert_eq!(found.is_none(), allowed, "{path} {name} {value}: {found:?}");
        }
        for row in PARAMETERS {
            for path in [CHAT, COMPLETIONS, RESPONSES, MESSAGES, FIM] {
                assert_eq!(refused(path, &[&format!("{{\"{}\":null}}", row.name)]), None, "{path} {}", row.name);
            }
        }
    }

    #[test]
    fn only_members_of_the_body_itself_count_and_the_last_of_two() {
        let nested =
            r#"{"options":{"temperature":9},"messages":[{"temperature":9}],"Temperature":9,"min_p":9,"top_k":-1}"#;
        assert_eq!(refused(CHAT, &[nested]), None);
        assert_eq!(refused(CHAT, &[r#"{"temperature":9,"temperature":1}"#]), None);
        assert!(refused(CHAT, &[r#"{"temperature":1,"temperature":9}"#]).is_some());
        assert!(refused(CHAT, &[r#"{"t\u0065mperature":9}"#]).is_some());
        assert_eq!(refused(CHAT, &["{\"temperature\":9"]), None, "it is no JSON object, which is told elsewhere");
        assert_eq!(refused("/completion", &[r#"{"temperature":9,"top_p":5,"stream":1,"stop":1}"#]), None);
        assert_eq!(refused("/v1/messages/count_tokens", &[r#"{"temperature":9}"#]), None);
    }

    /// Returns whether a chat may have this value, by what OpenAI's reference says.
    fn may_have(name: &str, value: &Value) -> bool {
        let number = value.as_f64();
        let is_within = |least: f64, most: f64| number.is_some_and(|number| number >= least && number <= most);
        let is_whole = number.is_some_and(|number| number == number.trunc());
        value.is_null()
            || match name {
                "temperature" => is_within(0.0, 2.0),
                "top_p" => is_within(0.0, 1.0),
                "presence_penalty" | "frequency_penalty" => is_within(-2.0, 2.0),
                "n" => is_whole && is_within(1.0, 128.0),
                "max_tokens" => number == Some(-1.0) || is_whole && is_within(1.0, 2_147_483_647.0),
                "top_logprobs" => is_whole && is_within(0.0, 20.0),
                "stop" => value.is_string() || value.is_array(),
                "stream" | "logprobs" => value.is_boolean(),
                _ => true,
            }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            (-4.0..4.0_f64).prop_map(Value::from),
            (-3..200_i64).prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
            Just(Value::Null),
            Just(serde_json::json!([1, "x"])),
            Just(serde_json::json!({"temperature": 9})),
        ]
    }

    proptest! {
        #[test]
        fn a_body_in_any_pieces_is_refused_exactly_if_a_value_is_beyond_its_range(
            members in proptest::collection::btree_map(
                proptest::sample::select(vec![
                    "temperature", "top_p", "presence_penalty", "frequency_penalty", "n", "max_tokens", "top_logprobs",
                    "stop", "stream", "logprobs", "min_p", "messages", "a",
                ]),
                any_value(),
                0..8,
            ),
            cuts in proptest::collection::vec(0..400_usize, 0..6),
        ) {
            let text = serde_json::to_string(&members).unwrap();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
            cuts.retain(|cut| text.is_char_boundary(*cut));
            cuts.sort_unstable();
            let pieces: Vec<&str> = cuts.windows(2).map(|ends| &text[ends[0]..ends[1]]).collect();
            let wrong: Vec<_> = members.iter().filter(|(name, value)| !may_have(name, value)).map(|(name, _)| *name).collect();
            match refused(CHAT, &pieces) {
                None => prop_assert!(wrong.is_empty(), "{text}: {wrong:?}"),
                Some((field, message)) => {
                    prop_assert!(wrong.contains(&field.as_str()), "{text}: {field}");
                    prop_assert!(message.starts_with(&format!("{field} must be ")), "{message}");
                }
            }
        }
    }
}
