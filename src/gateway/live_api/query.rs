//! The parameters of these routes. One that is not known is refused by name.

use http::header::ACCEPT;
use http::request::Parts;

use super::bounds::{DEFAULT_LINES, MOST_LINES};
use crate::gateway::request::envelope::query_pairs;
use crate::refusal::Refusal;

/// What a request for a log asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LogQuery {
    /// How many of the last lines.
    pub(super) lines: usize,
    /// Whether what is written from now on is to be sent, too.
    pub(super) follows: bool,
}

impl LogQuery {
    /// Reads the parameters, and whether a client of server-sent events asks.
    ///
    /// # Errors
    /// A parameter is not known, or its value is not one of those that it may have.
    pub(super) fn read(parts: &Parts) -> Result<Self, Refusal> {
        let accepts = parts.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let mut read =
            Self { lines: DEFAULT_LINES, follows: accepts.into_iter().any(|one| one.contains("text/event-stream")) };
        let mut seen = Vec::new();
        for (name, value) in query_pairs(parts.uri.query()) {
            if seen.contains(&name) {
                return Err(Refusal::bad_request(format!("{name} is given twice")));
            }
            match name.as_str() {
                "lines" => {
                    let lines = value.parse().ok().filter(|lines| *lines <= MOST_LINES);
                    read.lines = lines
                        .ok_or_else(|| Refusal::bad_request(format!("lines is not a number from 0 to {MOST_LINES}")))?;
                }
                "follow" => {
                    read.follows = match value.as_str() {
                        "true" | "1" | "" => true,
                        "false" | "0" => false,
                        _ => return Err(Refusal::bad_request("follow is neither true nor false")),
                    }
                }
                _ => return Err(unknown(&name, "lines and follow")),
            }
            seen.push(name);
        }
        Ok(read)
    }
}

/// Refuses a request with parameters.
///
/// # Errors
/// It has one.
pub(super) fn check_none(parts: &Parts) -> Result<(), Refusal> {
    query_pairs(parts.uri.query()).next().map_or(Ok(()), |(name, _)| Err(unknown(&name, "none")))
}

fn unknown(name: &str, known: &str) -> Refusal {
    let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    Refusal::bad_request(format!("There is no parameter '{name}' here; there are: {known}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn read(target: &str, accept: &str) -> Result<(usize, bool), String> {
        let request = Request::get(target).header(ACCEPT, accept).body(()).unwrap();
        let read = LogQuery::read(&request.into_parts().0);
        read.map(|query| (query.lines, query.follows)).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn what_a_client_asks_for_is_obeyed_or_refused_by_name() {
        assert_eq!(read("/logs/access", "*/*"), Ok((DEFAULT_LINES, false)));
        assert_eq!(read("/logs/access", "text/event-stream"), Ok((DEFAULT_LINES, true)));
        assert_eq!(read("/logs/access?lines=0&follow=true", ""), Ok((0, true)));
        assert_eq!(read("/logs/access?lines=10000&follow=0", "text/event-stream"), Ok((10_000, false)));
        for (target, named) in [
            ("lines=1&lines=2", "lines is given twice"),
            ("lines=10001", "lines"),
            ("lines=-1", "lines"),
            ("follow=maybe", "follow"),
            ("n=1", "'n'"),
        ] {
            let refused = read(&format!("/logs/access?{target}"), "").unwrap_err();
            assert!(refused.contains(named), "{refused}");
        }
    }
}
