//! The parameters of these routes. One that is not known is refused by name.

use http::request::Parts;

use super::bounds::{DEFAULT_FOUND, LONGEST_CTX, MOST_FOUND, SEARCHED_BYTES};
use crate::download::HubQuery;
use crate::gateway::request::envelope::query_pairs;
use crate::refusal::Refusal;
use crate::settings::bounds::MODEL_NAME;
use crate::settings::values::{ByteSize, Value as _};

/// What a request about a repository asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RepositoryQuery {
    /// Whether it is said of each model whether it fits.
    pub(super) fits: bool,
    /// The context of a slot, in place of that of the settings.
    pub(super) ctx: Option<u64>,
}

/// What a request about a model asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FitQuery {
    pub(super) model: String,
    /// The context of a slot, in place of that of the settings.
    pub(super) ctx: Option<u64>,
    /// Bytes to compare with, in place of what there is.
    pub(super) memory: Option<u64>,
}

/// Reads the parameters of a search.
///
/// # Errors
/// A parameter is not known, or its value is not one of those that it may have.
pub(super) fn read_search(parts: &Parts) -> Result<HubQuery, Refusal> {
    let [words, limit] = values(parts, ["q", "limit"])?;
    let words = words.unwrap_or_default().trim().to_owned();
    if words.len() > SEARCHED_BYTES || words.chars().any(char::is_control) {
        return Err(wrong("q", &format!("is longer than {SEARCHED_BYTES} bytes, or has control characters")));
    }
    let most = limit.map(|limit| {
        let limit = limit.parse().ok().filter(|limit| (1..=MOST_FOUND).contains(limit));
        limit.ok_or_else(|| wrong("limit", &format!("is not a number from 1 to {MOST_FOUND}")))
    });
    Ok(HubQuery { words, most: most.transpose()?.unwrap_or(DEFAULT_FOUND) })
}

impl RepositoryQuery {
    /// Reads the parameters.
    ///
    /// # Errors
    /// A parameter is not known, or its value is not one of those that it may have.
    pub(super) fn read(parts: &Parts) -> Result<Self, Refusal> {
        let [fits, ctx] = values(parts, ["fit", "ctx"])?;
        let fits = match fits.as_deref() {
            None | Some("false" | "0") => false,
            Some("true" | "1" | "") => true,
            Some(_) => return Err(wrong("fit", "is neither true nor false")),
        };
        if ctx.is_some() && !fits {
            return Err(wrong("ctx", "says something only with fit=true"));
        }
        Ok(Self { fits, ctx: context(ctx)? })
    }
}

impl FitQuery {
    /// Reads the parameters.
    ///
    /// # Errors
    /// A parameter is missing or not known, or its value is not one of those that it may have.
    pub(super) fn read(parts: &Parts) -> Result<Self, Refusal> {
        let [model, ctx, memory] = values(parts, ["model", "ctx", "memory"])?;
        let model = model.filter(|model| !model.is_empty()).ok_or_else(|| wrong("model", "is missing"))?;
        if model.len() > MODEL_NAME {
            return Err(wrong("model", &format!("is longer than {MODEL_NAME} bytes")));
        }
        let memory = memory.map(|memory| {
            let size = ByteSize::parse(&memory).map(|size| size.0 as u64);
            size.map_err(|rejected| wrong("memory", &format!("is not {}", rejected.allowed)))
        });
        Ok(Self { model, ctx: context(ctx)?, memory: memory.transpose()? })
    }
}

/// Returns the values of these parameters, in their order.
fn values<const N: usize>(parts: &Parts, names: [&str; N]) -> Result<[Option<String>; N], Refusal> {
    let mut values = [const { None }; N];
    for (name, value) in query_pairs(parts.uri.query()) {
        let Some(at) = names.iter().position(|known| *known == name) else {
            let shown: String = name.chars().filter(|c| !c.is_control()).take(SEARCHED_BYTES).collect();
            return Err(Refusal::bad_request(format!(
                "the parameter '{shown}' is not known; known are: {}",
                names.join(", ")
            )));
        };
        if values[at].replace(value).is_some() {
            return Err(wrong(&name, "is given twice"));
        }
    }
    Ok(values)
}

fn context(ctx: Option<String>) -> Result<Option<u64>, Refusal> {
    let read = |text: String| {
        let tokens = text.parse().ok().filter(|tokens| (1..=LONGEST_CTX).contains(tokens));
        tokens.ok_or_else(|| wrong("ctx", &format!("is not a number of tokens from 1 to {LONGEST_CTX}")))
    };
    ctx.map(read).transpose()
}

fn wrong(field: &str, what: &str) -> Refusal {
    Refusal::InvalidParameter { field: field.to_owned(), message: format!("{field} {what}") }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(query: &str) -> Parts {
        Request::get(format!("/fit?{query}")).body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_parameter_is_read_or_refused_by_name() {
        let search = |query: &str| read_search(&parts(query)).map(|read| (read.words, read.most));
        assert_eq!(search("q=+qwen%203+"), Ok(("qwen 3".to_owned(), DEFAULT_FOUND)));
        assert_eq!(search("limit=50"), Ok((String::new(), 50)));
        let fit = |query: &str| FitQuery::read(&parts(query));
        let expected = FitQuery { model: "o/n:Q4_0".to_owned(), ctx: Some(4096), memory: Some(24 << 30) };
        assert_eq!(fit("model=o/n:Q4_0&ctx=4096&memory=24GiB"), Ok(expected));
        let of = |query: &str| RepositoryQuery::read(&parts(query));
        assert_eq!(of("fit=true&ctx=512"), Ok(RepositoryQuery { fits: true, ctx: Some(512) }));
        assert_eq!(of(""), Ok(RepositoryQuery { fits: false, ctx: None }));
        let long = format!("q={}", "x".repeat(SEARCHED_BYTES + 1));
        for (refused, named) in [
            (search("limit=0").unwrap_err(), "limit"),
            (search("limit=51").unwrap_err(), "limit"),
            (search(&long).unwrap_err(), "q is longer"),
            (search("q=a&q=b").unwrap_err(), "q is given twice"),
            (search("query=a").unwrap_err(), "'query'"),
            (fit("ctx=4096").unwrap_err(), "model is missing"),
            (fit("model=a&ctx=0").unwrap_err(), "ctx"),
            (fit("model=a&memory=much").unwrap_err(), "memory"),
            (of("fit=maybe").unwrap_err(), "fit"),
            (of("ctx=5").unwrap_err(), "ctx"),
        ] {
            assert!(refused.to_string().contains(named), "{refused}");
        }
    }
}
