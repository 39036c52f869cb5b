//! Which model a request means.
//!
//! Owns the rules by which a name becomes a model, in this order:
//!
//! 1. its id,
//! 2. one of its aliases,
//! 3. `tier/id`; one of these three with `:` and an adapter of the model means the same model,
//! 4. a tier: the first of its models that is ready, else the first,
//! 5. the pattern of a model (`openai/*`) that the name matches; of several the one with most fixed characters,
//! 6. a pattern in the name that stands for a tier, if that tier exists: [`RERANKER_SIGNS`], [`EMBEDDING_SIGNS`] and
//!    [`EMBEDDING_WORDS`], and sizes such as `7b`, `8x7b` or `135m` ([`LIGHT_LARGEST`], [`MEDIUM_LARGEST`]),
//! 7. without a name: the default model of the kind that the route needs,
//! 8. the only model of that kind, whatever the name,
//! 9. with a name: the first model that stands in for unknown names.
//!
//! An empty name is none. Ids and aliases are case-sensitive; tiers and the patterns of rule 6 are not. The first three
//! rules also find a model that the key may not use, or that is of the wrong kind: the client has named it and gets the
//! specific error. The other rules consider only models that would do.
//!
//! Knows neither keys nor workers: the caller passes what may be used and what is ready.

use std::collections::HashMap;

use super::adapters::ModelAdapters;
use crate::models::ModelKind;
use crate::settings::catalogue::PoolRole;
use crate::settings::values::NamePattern;

/// Parts of a name that stand for the tier `reranker`.
const RERANKER_SIGNS: [&str; 2] = ["rerank", "cross-encoder"];
/// Parts of a name that stand for the tier `embedding`.
const EMBEDDING_SIGNS: [&str; 1] = ["embed"];
/// Whole words of a name that stand for the tier `embedding`: `e5` must not be found in `code5`.
const EMBEDDING_WORDS: [&str; 2] = ["bge", "e5"];

/// Largest size of the tier `light`, in billions of parameters.
const LIGHT_LARGEST: f64 = 4.0;
/// Largest size of the tier `medium`, in billions of parameters; larger ones are `heavy`.
const MEDIUM_LARGEST: f64 = 20.0;
/// Smallest number of millions that counts as a size: `1m` in a name is a context length.
const FEWEST_MILLIONS: f64 = 14.0;

/// A model as it is configured.
#[derive(Debug, Clone, Copy)]
pub struct NameEntry<'a> {
    /// The id that clients use.
    pub id: &'a str,
    /// Other names for the model.
    pub aliases: &'a [String],
    /// Other names for the model that no client is shown.
    pub hidden_aliases: &'a [String],
    /// The adapters that requests ask for after one of these names and a colon.
    pub adapters: Option<&'a ModelAdapters>,
    /// The id as a pattern, if the model serves every name that matches it.
    pub pattern: Option<&'a NamePattern>,
    /// Whether the model serves requests of its kind without a name.
    pub is_default: bool,
    /// The place among the models that serve unknown names; the lowest comes first.
    pub stand_in: Option<usize>,
    /// What the model is in the pool of its kind.
    pub pool_role: Option<PoolRole>,
    /// `light`, `embedding` or any other word.
    pub tier: Option<&'a str>,
    /// The kind of requests that the model serves; `None` means any.
    pub kind: Option<ModelKind>,
}

/// The names of all models. A model is identified by its index in the configured order.
#[derive(Debug)]
pub struct ModelNames {
    /// Ids and aliases.
    exact: HashMap<Box<str>, usize>,
    models: Vec<NamedModel>,
    /// Whether some of them have adapters with names.
    has_adapters: bool,
}

#[derive(Debug)]
struct NamedModel {
    id: Box<str>,
    tier: Option<Box<str>>,
    kind: Option<ModelKind>,
    adapters: ModelAdapters,
    pattern: Option<NamePattern>,
    is_default: bool,
    stand_in: Option<usize>,
    pool_role: Option<PoolRole>,
}

/// The reasons why a request does not resolve to a model that could serve it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unresolved {
    /// No model has this name.
    Unknown,
    /// A model has this name, but is not of the kind that the route needs.
    WrongKind {
        /// The index of that model, or of the first model of that tier.
        index: usize,
    },
}

impl ModelNames {
    /// Indexes the names of these models. A name that several models share means the model whose id it is, else the
    /// first.
    pub fn of<'a>(entries: impl IntoIterator<Item = NameEntry<'a>>) -> Self {
        let entries: Vec<NameEntry<'a>> = entries.into_iter().collect();
        let ids = entries.iter().enumerate().map(|(index, entry)| (entry.id, index));
        let aliases = entries.iter().enumerate().flat_map(|(index, entry)| {
            entry.aliases.iter().chain(entry.hidden_aliases).map(move |alias| (alias.as_str(), index))
        });
        let mut exact = HashMap::new();
        for (name, index) in ids.chain(aliases) {
            exact.entry(Box::from(name)).or_insert(index);
        }
        let model = |entry: &NameEntry<'_>| NamedModel {
            id: entry.id.into(),
            tier: entry.tier.map(Into::into),
            kind: entry.kind,
            adapters: entry.adapters.cloned().unwrap_or_default(),
            pattern: entry.pattern.cloned(),
            is_default: entry.is_default,
            stand_in: entry.stand_in,
            pool_role: entry.pool_role,
        };
        let models: Vec<NamedModel> = entries.iter().map(model).collect();
        let has_adapters = models.iter().any(|model| model.adapters.has_names());
        Self { exact, models, has_adapters }
    }

    /// Returns the model that a request for `asked` means, on a route that needs this kind of model.
    ///
    /// A model that the request names explicitly is returned, or refused for its kind, whether or not it may be used.
    ///
    /// # Errors
    ///
    /// Returns an error if no model has this name, or if the model is of another kind.
    pub fn resolve(
        &self,
        asked: Option<&str>,
        needs: Option<ModelKind>,
        is_ready: impl Fn(usize) -> bool,
        may_use: impl Fn(usize) -> bool,
    ) -> Result<usize, Unresolved> {
        let would_do = |index: usize| self.is_of_kind(index, needs) && may_use(index);
        if asked.is_some_and(|asked| self.lacks_adapter(asked)) {
            return Err(Unresolved::Unknown);
        }
        let named = |asked: &str| self.by_id(asked).or_else(|| Some(self.by_adapter(asked)?.0));
        if let Some(index) = asked.and_then(named) {
            return if self.is_of_kind(index, needs) { Ok(index) } else { Err(Unresolved::WrongKind { index }) };
        }
        let asked = asked.filter(|asked| !asked.is_empty());
        if let Some(asked) = asked {
            let best_of = |tier: &str| {
                let candidates = || self.tier(tier).filter(|&index| would_do(index));
                candidates().find(|&index| is_ready(index)).or_else(|| candidates().next())
            };
            if let Some(index) = best_of(asked) {
                return Ok(index);
            }
            let mut usable = self.tier(asked).filter(|&index| may_use(index));
            if let Some(index) = usable.next()
                && !self.tier(asked).any(|index| self.is_of_kind(index, needs))
            {
                return Err(Unresolved::WrongKind { index });
            }
            if let Some(index) = self.by_own_pattern(asked, would_do) {
                return Ok(index);
            }
            if let Some(index) = tiers_by_pattern(asked).find_map(best_of) {
                return Ok(index);
            }
        }
        let is_default = |model: &NamedModel| model.is_default && needs.is_some();
        if asked.is_none()
            && let Some(index) = self.find(is_default).find(|&index| would_do(index))
        {
            return Ok(index);
        }
        let mut candidates = self.of_kind(needs);
        match (candidates.next(), candidates.next()) {
            (Some(only), None) if may_use(only) => return Ok(only),
            _ => {}
        }
        let stand_ins = self.models.iter().enumerate().filter_map(|(index, model)| Some((model.stand_in?, index)));
        let stand_in = stand_ins.filter(|(_, index)| asked.is_some() && would_do(*index)).min();
        stand_in.map(|(_, index)| index).ok_or(Unresolved::Unknown)
    }

    /// Returns the models among which a request without a name is shared: all of this kind, if they make a pool.
    pub fn pool(&self, needs: ModelKind) -> Vec<usize> {
        let all: Vec<usize> = self.of_kind(Some(needs)).collect();
        let roles = all.iter().map(|index| self.models.get(*index).and_then(|model| model.pool_role));
        if PoolRole::make_pool(roles) { all } else { Vec::new() }
    }

    /// Whether a model or a tier has this name, or the pattern of a model matches it.
    pub fn is_known(&self, asked: &str) -> bool {
        self.by_id(asked).is_some()
            || self.by_adapter(asked).is_some()
            || self.tier(asked).next().is_some()
            || self.by_own_pattern(asked, |_| true).is_some()
    }

    /// Returns whether a request asks a model for an adapter that it does not have, although it has others.
    pub fn lacks_adapter(&self, asked: &str) -> bool {
        let lacks =
            |(index, adapter): (usize, &str)| self.models.get(index).is_some_and(|model| model.adapters.lacks(adapter));
        self.with_adapter(asked).filter(|_| self.by_id(asked).is_none()).is_some_and(lacks)
    }

    /// Returns the model that the part of a name before the last colon means, and the part after that; `None` where no model
    /// has adapters that requests can ask for.
    fn with_adapter<'n>(&self, asked: &'n str) -> Option<(usize, &'n str)> {
        // The search for the colon costs more than this, and most services have no adapters.
        if !self.has_adapters {
            return None;
        }
        let (base, adapter) = asked.rsplit_once(':')?;
        Some((self.by_id(base)?, adapter))
    }

    /// Returns the model that `MODEL:ADAPTER` means, if it has that adapter.
    fn by_adapter<'n>(&self, asked: &'n str) -> Option<(usize, &'n str)> {
        let has = |index: usize, adapter: &str| self.models.get(index).is_some_and(|model| model.adapters.has(adapter));
        self.with_adapter(asked).filter(|(index, adapter)| has(*index, adapter))
    }

    /// Returns the model with this id or alias, or that `tier/id` means.
    fn by_id(&self, asked: &str) -> Option<usize> {
        self.exact.get(asked).copied().or_else(|| self.by_tier_and_id(asked))
    }

    fn is_of_kind(&self, index: usize, needs: Option<ModelKind>) -> bool {
        let kind = self.models.get(index).map(|model| model.kind);
        needs.is_none_or(|needs| kind.is_some_and(|kind| kind.is_none_or(|kind| kind == needs)))
    }

    /// Returns the models of this kind, without those that serve only names that match a pattern.
    fn of_kind(&self, needs: Option<ModelKind>) -> impl Iterator<Item = usize> {
        self.find(|model| model.pattern.is_none()).filter(move |&index| self.is_of_kind(index, needs))
    }

    fn find(&self, is_meant: impl Fn(&NamedModel) -> bool) -> impl Iterator<Item = usize> {
        self.models.iter().enumerate().filter_map(move |(index, model)| is_meant(model).then_some(index))
    }

    /// Returns the model whose pattern the name matches; of several that would do, the one with most fixed characters.
    pub fn by_own_pattern(&self, asked: &str, would_do: impl Fn(usize) -> bool) -> Option<usize> {
        let matching = self.models.iter().enumerate().filter_map(|(index, model)| {
            let pattern = model.pattern.as_ref().filter(|pattern| pattern.has_match(asked))?;
            would_do(index).then(|| (pattern.fixed_length(), index))
        });
        matching.max_by_key(|(length, index)| (*length, std::cmp::Reverse(*index))).map(|(_, index)| index)
    }

    /// Returns the models of this tier.
    fn tier(&self, name: &str) -> impl Iterator<Item = usize> {
        self.find(move |model| model.tier.as_deref().is_some_and(|tier| tier.eq_ignore_ascii_case(name)))
    }

    /// Returns the model that `tier/id` means. Both parts may contain slashes.
    fn by_tier_and_id(&self, asked: &str) -> Option<usize> {
        self.models.iter().position(|model| {
            let before = asked.strip_suffix(&*model.id).and_then(|before| before.strip_suffix('/'));
            let tier = model.tier.as_deref();
            before.zip(tier).is_some_and(|(before, tier)| before.eq_ignore_ascii_case(tier))
        })
    }
}

/// Returns the tiers that a name stands for, the likeliest first.
fn tiers_by_pattern(name: &str) -> impl Iterator<Item = &'static str> {
    let name = name.as_bytes();
    let contains = |sign: &&str| find(name, sign).next().is_some();
    let contains_word = |word: &&str| {
        find(name, word).any(|at| !ends_in_word(&name[..at]) && !starts_in_word(&name[at + word.len()..]))
    };
    let reranker = RERANKER_SIGNS.iter().any(contains).then_some("reranker");
    let embedding =
        (EMBEDDING_SIGNS.iter().any(contains) || EMBEDDING_WORDS.iter().any(contains_word)).then_some("embedding");
    let by_size = size(name).map(|billions| match billions {
        size if size <= LIGHT_LARGEST => "light",
        size if size <= MEDIUM_LARGEST => "medium",
        _ => "heavy",
    });
    [reranker, embedding, by_size].into_iter().flatten()
}

/// Returns the positions of `part` in a name, ignoring case.
fn find(name: &[u8], part: &str) -> impl Iterator<Item = usize> {
    let windows = name.windows(part.len()).enumerate();
    windows.filter_map(move |(at, found)| found.eq_ignore_ascii_case(part.as_bytes()).then_some(at))
}

/// Whether the byte continues a word: everything except ASCII punctuation and spaces, so letters of other scripts do.
fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii()
}

fn ends_in_word(before: &[u8]) -> bool {
    before.last().copied().is_some_and(is_word_byte)
}

fn starts_in_word(after: &[u8]) -> bool {
    after.first().copied().is_some_and(is_word_byte)
}

/// Returns the first size in a name, in billions of parameters: `7b`, `1.5B`, `8x7b` (56), `135m`. Later numbers, such
/// as the active parameters in `30b-a3b`, do not count.
fn size(name: &[u8]) -> Option<f64> {
    let mut rest = name;
    while let Some(start) = rest.iter().position(u8::is_ascii_digit) {
        let is_start = !ends_in_word(&rest[..start]);
        // Consume all digits, so that the rest does not start inside this number.
        let (number, after) = number(&rest[start..]);
        if is_start {
            let (count, number, after) = match after {
                [b'x' | b'X', more @ ..] if more.first().is_some_and(u8::is_ascii_digit) => {
                    let (per_expert, after) = self::number(more);
                    (number, per_expert, after)
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

/// Parses the decimal number at the start of `text` and returns the rest. A number with too many digits is infinite.
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
