//! `MODEL_STORES`: which models of other programs are adopted.

use std::collections::BTreeSet;

use super::value::{Rejected, Value};
use crate::models::PlaceKind;

/// Lowest similarity (Jaro-Winkler, 0 to 1) of a word that is suggested.
const MIN_SIMILARITY: f64 = 0.75;
/// The words that no other word may stand beside.
const ALONE: [&str; 2] = ["auto", "none"];

/// The places besides `MODELS_DIR` whose models are adopted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelStores {
    /// Every place that is there.
    Auto,
    /// These, or none.
    Only(BTreeSet<PlaceKind>),
}

impl ModelStores {
    /// Whether models of this place are adopted, if it is there.
    pub fn has(&self, kind: PlaceKind) -> bool {
        match self {
            Self::Auto => true,
            Self::Only(kinds) => kinds.contains(&kind),
        }
    }

    /// Whether the user has asked for this place by its name.
    pub fn names(&self, kind: PlaceKind) -> bool {
        matches!(self, Self::Only(kinds) if kinds.contains(&kind))
    }
}

impl Value for ModelStores {
    fn parse(text: &str) -> Result<Self, Rejected> {
        match text.trim().to_ascii_lowercase().as_str() {
            "auto" => return Ok(Self::Auto),
            "none" => return Ok(Self::Only(BTreeSet::new())),
            _ => {}
        }
        text.split(',').map(|word| kind_of(word.trim())).collect::<Result<_, _>>().map(Self::Only)
    }
}

fn kind_of(word: &str) -> Result<PlaceKind, Rejected> {
    // As these programs write their own names.
    let plain: String = word.to_ascii_lowercase().chars().filter(|c| !"-_ ".contains(*c)).collect();
    PlaceKind::STORES.into_iter().find(|kind| kind.word() == plain).ok_or_else(|| {
        let rejected = Rejected::new("auto, none, or a comma list of hub, ollama and lmstudio");
        let similarity = |known: &str| strsim::jaro_winkler(&plain, known);
        let words = PlaceKind::STORES.map(PlaceKind::word).into_iter().chain(ALONE);
        let nearest = words.max_by(|one, other| similarity(one).total_cmp(&similarity(other)));
        match nearest.filter(|known| similarity(known) >= MIN_SIMILARITY) {
            Some(alone) if alone == plain => rejected.with_hint(format!("{alone} stands alone")),
            Some(known) => rejected.with_hint(format!("did you mean {known}?")),
            None => rejected.with_hint("models of other folders are served from MODELS_DIR, where a link is enough"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_places_and_an_unknown_word_gets_a_suggestion() {
        let only = |kinds: &[PlaceKind]| Ok(ModelStores::Only(kinds.iter().copied().collect()));
        assert_eq!(ModelStores::parse("AUTO"), Ok(ModelStores::Auto));
        assert_eq!(ModelStores::parse("none"), only(&[]));
        assert_eq!(ModelStores::parse("hub, LM-Studio"), only(&[PlaceKind::Hub, PlaceKind::LmStudio]));
        let hint = |text: &str| ModelStores::parse(text).unwrap_err().hint.unwrap();
        assert_eq!(hint("olama"), "did you mean ollama?");
        assert_eq!(hint("ollama,lmstdio"), "did you mean lmstudio?");
        assert_eq!(hint("hub,none"), "none stands alone");
        assert!(hint("gpt4all").contains("MODELS_DIR"));
    }
}
