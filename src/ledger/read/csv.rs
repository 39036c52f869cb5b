//! Rows of usage as comma-separated values (RFC 4180), with the names of the JSON members.

use super::report::{UsagePage, UsageRow};

const COUNTS: &str =
    "requests,refused,prompt_tokens,cached_tokens,completion_tokens,slot_seconds,first_byte_seconds,cost";

/// Returns a page as CSV, with a line of names.
pub fn to_csv(page: &UsagePage) -> String {
    let mut text = String::new();
    for column in &page.columns {
        text.push_str(column);
        text.push(',');
    }
    text.push_str(COUNTS);
    text.push_str("\r\n");
    for row in &page.data {
        write_row(row, &mut text);
    }
    text
}

fn write_row(row: &UsageRow, text: &mut String) {
    let UsageRow { start, key, person, model, .. } = row;
    let names = [key, person, model].into_iter().flatten().map(|name| name.as_deref().unwrap_or_default());
    for name in start.as_deref().into_iter().chain(names) {
        text.push_str(&field(name));
        text.push(',');
    }
    let UsageRow { requests, refused, prompt_tokens, cached_tokens, completion_tokens, .. } = row;
    let UsageRow { slot_seconds, first_byte_seconds, cost, .. } = row;
    text.push_str(&format!(
        "{requests},{refused},{prompt_tokens},{cached_tokens},{completion_tokens},{slot_seconds},{first_byte_seconds},{cost}\r\n"
    ));
}

/// Returns a text as one field. A text that a spreadsheet would take for a formula gets an apostrophe in front.
pub(super) fn field(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if is_formula { format!("'{text}") } else { text.to_owned() };
    match text.contains([',', '"', '\r', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_commas_and_formulas_stay_one_field() {
        for (name, expected) in
            [("team", "team"), ("a,b", "\"a,b\""), ("say \"x\"", "\"say \"\"x\"\"\""), ("=1+1", "'=1+1"), ("", "")]
        {
            assert_eq!(field(name), expected);
        }
    }
}
