//! Sets a member of a JSON text and leaves the rest as it is, comments and order included.

use serde_json::Value;

/// Deepest nesting that is read.
const DEEPEST: usize = 100;

/// Indentation of one level.
const INDENT: &str = "  ";

/// Returns the text with the member at this path set; objects on the way are made. An empty text is an empty object.
///
/// # Errors
/// A sentence that says why the text is no JSON object.
pub(super) fn set(text: &str, path: &[&str], value: &Value) -> Result<String, String> {
    let text = if text.trim().is_empty() { "{}\n" } else { text };
    let mut reader = Reader { text: text.as_bytes(), at: 0 };
    reader.skip_blanks()?;
    let mut depth = 0;
    loop {
        let object = reader.object(path[depth])?;
        depth += 1;
        match object.member {
            // The last name of the path, or a value on the way that is no object.
            Some((start, end)) if depth == path.len() || text.as_bytes()[start] != b'{' => {
                let value = shown(&nested(&path[depth..], value), depth);
                return Ok(format!("{}{value}{}", &text[..start], &text[end..]));
            }
            Some((start, _)) => reader.at = start,
            None => {
                let member = shown(&nested(&path[depth..], value), depth);
                let indent = INDENT.repeat(depth);
                let name = Value::from(path[depth - 1]);
                // A comment behind the last member in its line is about that one.
                let end = end_of_comments(text, object.end_of_last);
                let (before, comments, after) =
                    (&text[..object.end_of_last], &text[object.end_of_last..end], &text[end..]);
                let comma = if object.is_empty || object.has_comma { "" } else { "," };
                // An object without a line of its own for its end gets one.
                let rest = after.trim_start();
                let outer = INDENT.repeat(depth - 1);
                let after = if rest.starts_with('}') { format!("\n{outer}{rest}") } else { after.to_owned() };
                return Ok(format!("{before}{comma}{comments}\n{indent}{name}: {member}{after}"));
            }
        }
    }
}

fn nested(path: &[&str], value: &Value) -> Value {
    path.iter().rev().fold(value.clone(), |value, name| Value::from_iter([(*name, value)]))
}

/// Returns a value as text, its further lines indented for its place.
fn shown(value: &Value, depth: usize) -> String {
    format!("{value:#}").replace('\n', &format!("\n{}", INDENT.repeat(depth)))
}

/// Returns where the comments end that begin in the same line; `from` if there are none. They were read before.
fn end_of_comments(text: &str, from: usize) -> usize {
    let mut end = from;
    loop {
        let rest = text[end..].trim_start_matches([' ', '\t']);
        let length = match rest.get(..2) {
            Some("//") => rest.lines().next().unwrap_or_default().len(),
            Some("/*") => rest[2..].find("*/").map_or(rest.len(), |at| at + 4),
            _ => return end,
        };
        end = text.len() - rest.len() + length;
    }
}

/// What was found in one object.
struct FoundObject {
    /// Where the value of the member begins and ends.
    member: Option<(usize, usize)>,
    /// Where the last member ends, its comma included, or the brace that opens the object.
    end_of_last: usize,
    is_empty: bool,
    /// Whether a comma follows the last member.
    has_comma: bool,
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    /// Reads the object that begins here, and finds the member of this name.
    fn object(&mut self, name: &str) -> Result<FoundObject, String> {
        self.expect(b'{')?;
        let mut found = FoundObject { member: None, end_of_last: self.at, is_empty: true, has_comma: false };
        loop {
            self.skip_blanks()?;
            if self.peek() == Some(b'}') {
                self.at += 1;
                return Ok(found);
            }
            if !found.is_empty && !found.has_comma {
                return Err(self.fault("expected a comma"));
            }
            let start = self.at;
            self.skip_string()?;
            let is_it = serde_json::from_slice::<String>(&self.text[start..self.at]).is_ok_and(|found| found == name);
            self.skip_blanks()?;
            self.expect(b':')?;
            self.skip_blanks()?;
            let start = self.at;
            self.skip_value(0)?;
            if is_it {
                found.member = Some((start, self.at));
            }
            (found.is_empty, found.has_comma, found.end_of_last) = (false, false, self.at);
            self.skip_blanks()?;
            if self.peek() == Some(b',') {
                self.at += 1;
                (found.has_comma, found.end_of_last) = (true, self.at);
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Result<(), String> {
        match self.peek() == Some(byte) {
            true => {
                self.at += 1;
                Ok(())
            }
            false => Err(self.fault(&format!("expected {:?}", char::from(byte)))),
        }
    }

    fn fault(&self, what: &str) -> String {
        let line = self.text[..self.at.min(self.text.len())].iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("it is no JSON object: line {line}: {what}")
    }

    /// Skips white space and comments.
    fn skip_blanks(&mut self) -> Result<(), String> {
        loop {
            let rest = &self.text[self.at..];
            let comment =
                |end: &[u8]| rest.windows(end.len()).skip(2).position(|at| at == end).map(|at| at + 2 + end.len());
            match rest {
                [b' ' | b'\t' | b'\n' | b'\r', ..] => self.at += 1,
                [b'/', b'/', ..] => self.at += comment(b"\n").unwrap_or(rest.len()),
                [b'/', b'*', ..] => self.at += comment(b"*/").ok_or_else(|| self.fault("a comment has no end"))?,
                [0xef, 0xbb, 0xbf, ..] if self.at == 0 => self.at += 3,
                _ => return Ok(()),
            }
        }
    }

    fn skip_string(&mut self) -> Result<(), String> {
        self.expect(b'"')?;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.at += 2,
                Some(b'\n') | None => return Err(self.fault("a string has no end")),
                Some(_) => self.at += 1,
            }
        }
    }

    fn skip_value(&mut self, depth: usize) -> Result<(), String> {
        match self.peek() {
            Some(b'"') => self.skip_string(),
            Some(open @ (b'{' | b'[')) if depth < DEEPEST => {
                let close = if open == b'{' { b'}' } else { b']' };
                self.at += 1;
                loop {
                    self.skip_blanks()?;
                    match self.peek() {
                        Some(byte) if byte == close => {
                            self.at += 1;
                            return Ok(());
                        }
                        Some(b',' | b':') => self.at += 1,
                        _ => self.skip_value(depth + 1)?,
                    }
                }
            }
            Some(byte) if byte.is_ascii_alphanumeric() || byte == b'-' => {
                let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
                self.at += self.text[self.at..].iter().take_while(|byte| is_part(byte)).count();
                Ok(())
            }
            _ => Err(self.fault("expected a value")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_member_is_set_and_all_else_stays_as_it_is() {
        let before = "{\n  // mine\n  \"b\": [1, {\"x\": \"}\"}],\n  \"env\": {\n    \"A\": \"1\"\n  }\n}\n";
        let once = set(before, &["env", "URL"], &json!("u")).unwrap();
        let after = "{\n  // mine\n  \"b\": [1, {\"x\": \"}\"}],\n  \"env\": {\n    \"A\": \"1\",\n    \"URL\": \"u\"\n  }\n}\n";
        assert_eq!(once, after);
        assert_eq!(set(&once, &["env", "URL"], &json!("u")).unwrap(), once, "a second time changes nothing");
        assert_eq!(set(&once, &["env", "A"], &json!("2")).unwrap(), after.replace("\"1\"", "\"2\""));
        assert_eq!(set("", &["a", "b"], &json!(1)).unwrap(), "{\n  \"a\": {\n    \"b\": 1\n  }\n}\n");
        assert_eq!(set("{\"a\":1 /* c */}", &["b"], &json!(2)).unwrap(), "{\"a\":1, /* c */\n  \"b\": 2\n}");
        assert_eq!(set("{\"a\":1,}", &["b"], &json!(2)).unwrap(), "{\"a\":1,\n  \"b\": 2\n}");
    }

    /// The comment once went behind the new member.
    #[test]
    fn a_comment_behind_a_member_stays_behind_it() {
        for (before, after) in [
            ("{\n  \"a\": 1 // I like it\n}\n", "{\n  \"a\": 1, // I like it\n  \"b\": 2\n}\n"),
            ("{\n  \"a\": 1, // I like it\n}\n", "{\n  \"a\": 1, // I like it\n  \"b\": 2\n}\n"),
            ("{\n  \"a\": 1 /* x */ // y\n  // z\n}\n", "{\n  \"a\": 1, /* x */ // y\n  \"b\": 2\n  // z\n}\n"),
            ("{ // mine\n}\n", "{ // mine\n  \"b\": 2\n}\n"),
        ] {
            assert_eq!(set(before, &["b"], &json!(2)).unwrap(), after);
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in
            ["[]", "{\"a\" 1}", "{\"a\": 1 \"b\": 2}", "{\"a\": \"x", "{", "{\"a\": [", "{ /* ", "nonsense", "{\"\\"]
        {
            assert!(set(text, &["b"], &json!(1)).unwrap_err().starts_with("it is no JSON object: line 1"), "{text}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            ".{0,6}".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            let list = prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from);
            prop_oneof![list, prop::collection::hash_map("[a-c\"]{0,2}", inner, 0..3).prop_map(Value::from_iter)]
        })
    }

    proptest! {
        #[test]
        fn a_text_of_any_form_means_the_same_but_for_the_member(
            object in prop::collection::hash_map("[a-c]{1,2}", any_json(), 0..3),
            name in "[a-c]{1,2}",
            inner in "[a-c]{1,2}",
            is_pretty: bool,
        ) {
            let mut value = Value::from_iter(object);
            let text = if is_pretty { format!("{value:#}") } else { value.to_string() };
            let edited: Value = serde_json::from_str(&set(&text, &[&name, &inner], &json!(7)).unwrap()).unwrap();
            if !value[&name].is_object() {
                value[&name] = json!({});
            }
            value[&name][&inner] = json!(7);
            prop_assert_eq!(edited, value);
        }

        #[test]
        fn no_text_is_too_odd(text in ".{0,40}") {
            let _ = set(&text, &["a"], &json!(1));
        }
    }
}
