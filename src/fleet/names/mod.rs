//! Which model a request means.
//!
//! Owns the rules by which a name becomes a model, tried in this order:
//!
//! 1. its id, 2. one of its aliases, 3. `tier/id`;
//! 4. a tier: of its models the first that is ready, else the first;
//! 5. a pattern in the name that speaks for a tier, if there is one of that name: [`RERANKER_SIGNS`], [`EMBEDDING_SIGNS`]
//!    and [`EMBEDDING_WORDS`], and sizes such as `7b`, `8x7b` or `135m` ([`LIGHT_LARGEST`], [`MEDIUM_LARGEST`]);
//! 6. the only model of the kind that the route needs, whatever the request calls it.
//!
//! Ids and aliases are compared to the letter; tiers and patterns whatever their case. The first three find a model that
//! the key may not use, or that is of the wrong kind, all the same, for the client has named it and is to be told. The
//! others look only among models that would do.
//!
//! Knows neither keys nor workers: what may be used and what is ready is asked of the caller.

use crate::models::ModelKind;
use std::collections::HashMap;

/// Parts of a name that speak for the tier `reranker`.
const RERANKER_SIGNS: [&str; 2] = ["rerank", "cross-encoder"];
/// Parts of a name that speak for the tier `embedding`.
const EMBEDDING_SIGNS: [&str; 1] = ["embed"];
/// The same as whole words, so that `e5` is not found in `code5`.
const EMBEDDING_WORDS: [&str; 2] = ["bge", "e5"];

/// Billions of parameters up to which a size speaks for the tier `light`.
const LIGHT_LARGEST: f64 = 4.0;
/// The same for `medium`; larger ones speak for `heavy`.
const MEDIUM_LARGEST: f64 = 20.0;
/// Millions below which `m` is no size: `1m` in a name is a context length.
const FEWEST_MILLIONS: f64 = 14.0;

/// A model as it is listed.
#[derive(Debug, Clone, Copy)]
pub struct NameEntry<'a> {
    /// The id that clients use.
    pub id: &'a str,
    /// Other names for it.
    pub aliases: &'a [String],
    /// `light`, `embedding` or any other word.
    pub tier: Option<&'a str>,
    /// What it is for.
    pub kind: ModelKind,
}

/// The names of all models. A model is its index in the order in which they were listed.
#[derive(Debug)]
pub struct ModelNames {
    /// Ids and aliases.
    exact: HashMap<Box<str>, usize>,
    models: Vec<Model>,
}

#[derive(Debug)]
struct Model {
    id: Box<str>,
    tier: Option<Box<str>>,
    kind: ModelKind,
}

/// Why a request means no model that could serve it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unresolved {
    /// No model goes by that name.
    Unknown,
    /// One does, but is not of the kind that the route needs.
    WrongKind {
        /// That model, or the first of that tier.
        index: usize,
    },
}

impl ModelNames {
    /// The names of these models. Where two share a name, it means the one whose id it is, else the first.
    pub fn of<'a>(entries: impl IntoIterator<Item = NameEntry<'a>>) -> Self {
        let entries: Vec<NameEntry<'a>> = entries.into_iter().collect();
        let ids = entries.iter().enumerate().map(|(index, entry)| (entry.id, index));
        let aliases = entries
            .iter()
            .enumerate()
            .flat_map(|(index, entry)| entry.aliases.iter().map(move |alias| (alias.as_str(), index)));
        let mut exact = HashMap::new();
        for (name, index) in ids.chain(aliases) {
            exact.entry(Box::from(name)).or_insert(index);
        }
        let model =
            |entry: &NameEntry<'_>| Model { id: entry.id.into(), tier: entry.tier.map(Into::into), kind: entry.kind };
        Self { exact, models: entries.iter().map(model).collect() }
    }

    /// The model that is meant by a request that asks for `asked`, on a route that needs this kind of model.
    ///
    /// A model that the request names is returned, or refused for its kind, whether it may be used or not.
    ///
    /// # Errors
    /// When no model goes by that name, or the one that does is of another kind.
    pub fn resolve(
        &self,
        asked: Option<&str>,
        needs: Option<ModelKind>,
        is_ready: impl Fn(usize) -> bool,
        may_use: impl Fn(usize) -> bool,
    ) -> Result<usize, Unresolved> {
        if let Some(asked) = asked {
            if let Some(index) = self.exact.get(asked).copied().or_else(|| self.in_its_tier(asked)) {
                return if self.is_fit(index, needs) { Ok(index) } else { Err(Unresolved::WrongKind { index }) };
            }
            let best_of = |tier: &str| {
                let fit = || self.tier(tier).filter(|&index| self.is_fit(index, needs) && may_use(index));
                fit().find(|&index| is_ready(index)).or_else(|| fit().next())
            };
            if let Some(index) = best_of(asked) {
                return Ok(index);
            }
            let mut usable = self.tier(asked).filter(|&index| may_use(index));
            if let Some(index) = usable.next()
                && !self.tier(asked).any(|index| self.is_fit(index, needs))
            {
                return Err(Unresolved::WrongKind { index });
            }
            if let Some(index) = tiers_by_pattern(asked).find_map(best_of) {
                return Ok(index);
            }
        }
        let mut fit = (0..self.models.len()).filter(|&index| self.is_fit(index, needs));
        match (fit.next(), fit.next()) {
            (Some(only), None) if may_use(only) => Ok(only),
            _ => Err(Unresolved::Unknown),
        }
    }

    fn is_fit(&self, index: usize, needs: Option<ModelKind>) -> bool {
        needs.is_none_or(|kind| self.models.get(index).is_some_and(|model| model.kind == kind))
    }

    /// The models of this tier.
    fn tier(&self, name: &str) -> impl Iterator<Item = usize> {
        let is_of_it = move |model: &Model| model.tier.as_deref().is_some_and(|tier| tier.eq_ignore_ascii_case(name));
        self.models.iter().enumerate().filter_map(move |(index, model)| is_of_it(model).then_some(index))
    }

    /// The model that is meant by `tier/id`. Both may have slashes of their own.
    fn in_its_tier(&self, asked: &str) -> Option<usize> {
        self.models.iter().position(|model| {
            let before = asked.strip_suffix(&*model.id).and_then(|before| before.strip_suffix('/'));
            let tier = model.tier.as_deref();
            before.zip(tier).is_some_and(|(before, tier)| before.eq_ignore_ascii_case(tier))
        })
    }
}

/// The tiers that a name speaks for, the likeliest first.
fn tiers_by_pattern(name: &str) -> impl Iterator<Item = &'static str> {
    let name = name.as_bytes();
    let has = |sign: &&str| find(name, sign).next().is_some();
    let has_word = |word: &&str| {
        find(name, word).any(|at| !ends_in_word(&name[..at]) && !starts_in_word(&name[at + word.len()..]))
    };
    let reranker = RERANKER_SIGNS.iter().any(has).then_some("reranker");
    let embedding = (EMBEDDING_SIGNS.iter().any(has) || EMBEDDING_WORDS.iter().any(has_word)).then_some("embedding");
    let by_size = size(name).map(|billions| match billions {
        up_to if up_to <= LIGHT_LARGEST => "light",
        up_to if up_to <= MEDIUM_LARGEST => "medium",
        _ => "heavy",
    });
    [reranker, embedding, by_size].into_iter().flatten()
}

/// Where a name has this in it, whatever its case.
fn find(name: &[u8], part: &str) -> impl Iterator<Item = usize> {
    let places = name.windows(part.len()).enumerate();
    places.filter_map(move |(at, found)| found.eq_ignore_ascii_case(part.as_bytes()).then_some(at))
}

/// Anything but ASCII's punctuation and spaces goes on with a word, letters of other scripts included.
fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii()
}

fn ends_in_word(before: &[u8]) -> bool {
    before.last().copied().is_some_and(is_of_word)
}

fn starts_in_word(after: &[u8]) -> bool {
    after.first().copied().is_some_and(is_of_word)
}

/// The first size that a name tells, in billions of parameters: `7b`, `1.5B`, `8x7b` for 56, `135m`. What a name says
/// besides, such as the active parameters in `30b-a3b`, does not count.
fn size(name: &[u8]) -> Option<f64> {
    let mut rest = name;
    while let Some(start) = rest.iter().position(u8::is_ascii_digit) {
        let is_start = !ends_in_word(&rest[..start]);
        // All of its digits, so that no number in what is left begins within this one.
        let (number, after) = number(&rest[start..]);
        if is_start {
            let (count, number, after) = match after {
                [b'x' | b'X', more @ ..] if more.first().is_some_and(u8::is_ascii_digit) => {
                    let (of_each, after) = self::number(more);
                    (number, of_each, after)
                }
                _ => (1.0, number, after),
            };
            match after {
                [b'b' | b'B', end @ ..] if !starts_in_word(end) => return Some(count * number),
                [b'm' | b'M', end @ ..] if !starts_in_word(end) && count * number >= FEWEST_MILLIONS => {
                    return Some(count * number / 1000.0);
                }
                _ => {}
            }
        }
        rest = after;
    }
    None
}

/// The decimal number that this begins with, and what follows. Too many digits are infinitely many.
fn number(text: &[u8]) -> (f64, &[u8]) {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let whole = digits(text);
    let end = match &text[whole..] {
        [b'.', fraction @ ..] if digits(fraction) > 0 => whole + 1 + digits(fraction),
        _ => whole,
    };
    let (number, after) = text.split_at(end);
    let number = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok());
    (number.unwrap_or(f64::INFINITY), after)
}

#[cfg(test)]
mod tests;
