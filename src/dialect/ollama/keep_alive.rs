//! How long a model stays loaded after a request: `keep_alive`, in seconds or as a duration of Go (`time.ParseDuration`).

use std::time::Duration;

use super::super::fields::{FieldError, Fields, text};

/// How long a model is to stay loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepAlive {
    /// Until the request has ended.
    Unload,
    /// For this long without a request.
    For(Duration),
    /// Until its memory is needed.
    Forever,
}

/// Longest time that counts as one; a longer one is for ever.
const LONGEST: f64 = 10.0 * 365.0 * 24.0 * 3600.0;

/// Reads `keep_alive`.
///
/// # Errors
/// It is neither a number nor a duration.
pub(in crate::dialect) fn read(fields: &Fields<'_>) -> Result<Option<KeepAlive>, FieldError> {
    let Some(value) = fields.get("keep_alive") else { return Ok(None) };
    let seconds = match value.get().starts_with('"') {
        true => {
            let text = text("keep_alive", value)?;
            if text.is_empty() {
                return Ok(None);
            }
            // A number in quotes is none of Go's durations, but clients send it.
            text.parse().ok().filter(|seconds: &f64| seconds.is_finite()).or_else(|| duration(&text))
        }
        false => value.get().parse().ok().filter(|seconds: &f64| seconds.is_finite()),
    };
    let seconds = seconds
        .ok_or_else(|| FieldError::of("keep_alive", "must be a number of seconds or a duration such as \"5m\""))?;
    Ok(Some(match seconds {
        0.0 => KeepAlive::Unload,
        0.0..=LONGEST => KeepAlive::For(Duration::from_secs_f64(seconds)),
        _ => KeepAlive::Forever,
    }))
}

/// Returns the seconds of a duration of Go: numbers with units, after a sign.
fn duration(text: &str) -> Option<f64> {
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("\u{b5}s", 1e-6),
        ("\u{3bc}s", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut seconds = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let (_, size) = UNITS.iter().find(|(name, _)| *name == &rest[..unit])?;
        seconds += number * size;
        rest = &rest[unit..];
    }
    Some(sign * seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_seconds_or_as_a_duration_of_go() {
        for (value, expected) in [
            ("null", None),
            ("\"\"", None),
            ("0", Some(KeepAlive::Unload)),
            ("\"0\"", Some(KeepAlive::Unload)),
            ("\"0s\"", Some(KeepAlive::Unload)),
            ("-1", Some(KeepAlive::Forever)),
            ("\"-1\"", Some(KeepAlive::Forever)),
            ("\"-1m\"", Some(KeepAlive::Forever)),
            ("1e300", Some(KeepAlive::Forever)),
            ("300", Some(KeepAlive::For(Duration::from_secs(300)))),
            ("1.5", Some(KeepAlive::For(Duration::from_millis(1500)))),
            ("\"5m\"", Some(KeepAlive::For(Duration::from_secs(300)))),
            ("\"1h30m5.5s\"", Some(KeepAlive::For(Duration::from_millis(5_405_500)))),
            ("\"20ms\"", Some(KeepAlive::For(Duration::from_millis(20)))),
        ] {
            let text = format!("{{\"keep_alive\":{value}}}");
            assert_eq!(read(&Fields::parse(text.as_bytes()).unwrap()), Ok(expected), "{value}");
        }
        for value in ["\"m\"", "\"5 m\"", "\"5x\"", "\"-\"", "\"5m3\"", "true", "[]", "\"NaN\"", "\"inf\""] {
            let text = format!("{{\"keep_alive\":{value}}}");
            let error = read(&Fields::parse(text.as_bytes()).unwrap()).unwrap_err();
            assert_eq!(error.field.as_deref(), Some("keep_alive"), "{value}");
        }
    }
}
