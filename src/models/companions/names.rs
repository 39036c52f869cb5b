//! Files that belong to a model and are no models of their own, as far as their names tell, and the precision that a name
//! tells.
//!
//! What a header tells is in `models/check.rs`: projectors, adapters and importance matrices say so themselves.

use std::path::Path;

use crate::models::split::is_gguf;

/// Parts of the names, in lower case, of GGUF files that belong to a model but are not models themselves; llama.cpp
/// excludes the same ones.
const COMPANION_FILES: [&str; 6] = ["mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-"];
/// Parts of [`COMPANION_FILES`] that mean a draft model, at the beginning of a name. No key of a header says so.
const DRAFT_BEGINNINGS: [&str; 4] = ["mtp-", "eagle3-", "dflash-", "dspark-"];
/// The word of a name that means a draft model.
const DRAFT_WORD: &str = "draft";

/// Words of a name that tell a precision.
const PRECISIONS: [&str; 8] = ["f32", "f16", "bf16", "fp32", "fp16", "fp8", "mxfp4", "nvfp4"];
/// Beginnings of quantisations, which a digit follows: `q4`, `iq2`, `tq1`.
const QUANT_BEGINNINGS: [&str; 3] = ["q", "iq", "tq"];
/// Words that go on with a quantisation: `q8_0`, `q4_k_m`.
const QUANT_ENDS: [&str; 11] = ["0", "1", "k", "xxs", "xs", "s", "m", "l", "xl", "nl", "p"];
/// The precisions of projectors, the preferred ones first: `F16` is what llama.cpp's guides use, every backend computes
/// with it, and nothing is lost by it that a projector of images needs.
const PREFERRED: [&[&str]; 4] = [&["f16", "fp16"], &["bf16"], &["f32", "fp32"], &["q8_0"]];

/// Whether the name is that of a file that belongs to a model. For repositories, whose files are named by convention.
pub(in crate::models) fn has_companion_name(path: &Path) -> bool {
    let name = lower_name(path);
    COMPANION_FILES.iter().any(|word| name.contains(word))
}

/// Whether the name is that of a draft model for speculative decoding: `draft` is one of its words, or it begins as
/// llama.cpp names such files.
#[must_use]
pub fn has_draft_name(path: &Path) -> bool {
    let name = lower_name(path);
    words(&name).any(|word| word == DRAFT_WORD) || DRAFT_BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
}

/// Returns the words of a name in lower case: runs of letters and digits.
pub(super) fn words(name: &str) -> impl Iterator<Item = &str> {
    name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

/// Returns the file name without `.gguf`, in lower case.
pub(super) fn lower_name(path: &Path) -> String {
    let stem = if is_gguf(path) { path.file_stem() } else { path.file_name() };
    stem.unwrap_or_default().to_string_lossy().to_lowercase()
}

/// Whether a precision begins with this word, which is in lower case.
pub(super) fn begins_precision(word: &str) -> bool {
    let follows = |beginning: &&str| {
        word.strip_prefix(*beginning).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    PRECISIONS.contains(&word) || QUANT_BEGINNINGS.iter().any(follows)
}

/// Returns the last part of a path that is a quantisation, as it is written there: `Q4_K_M`, `BF16`.
pub(in crate::models) fn quant_word(path: &str) -> Option<&str> {
    let is_quant = |part: &&str| words(&part.to_lowercase()).next().is_some_and(begins_precision);
    path.rsplit(['-', '.', '/']).find(is_quant)
}

/// A name without its precision, and the place of that among the preferred ones: the lowest comes first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NameWithoutPrecision<'a> {
    pub(super) words: Vec<&'a str>,
    pub(super) rank: usize,
}

/// Separates the precision from the name, which is in lower case. Returns `None` if it tells none, or more than one.
pub(super) fn split_precision(name: &str) -> Option<NameWithoutPrecision<'_>> {
    let all: Vec<&str> = words(name).collect();
    let start = all.iter().position(|word| begins_precision(word))?;
    let length = 1 + all[start + 1..].iter().take_while(|word| QUANT_ENDS.contains(word)).count();
    let (precision, rest) = (all[start..start + length].join("_"), &all[start + length..]);
    if rest.iter().any(|word| begins_precision(word)) {
        return None;
    }
    let rank = PREFERRED.iter().position(|names| names.contains(&precision.as_str())).unwrap_or(PREFERRED.len());
    Some(NameWithoutPrecision { words: [&all[..start], rest].concat(), rank })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_model_is_told_by_a_whole_word_of_its_name() {
        for name in ["qwen2.5-0.5b-draft.gguf", "Draft_Llama.Q8_0.gguf", "x.draft.GGUF", "mtp-glm.gguf", "draft"] {
            assert!(has_draft_name(Path::new(name)), "{name}");
        }
        for name in ["overdraft-7b.gguf", "drafting.gguf", "smtp-helper.gguf", "draft/llama.gguf", "draughts.gguf"] {
            assert!(!has_draft_name(Path::new(name)), "{name}");
        }
    }
    #[test]
    fn a_name_is_separated_from_its_precision() {
        for (name, words, rank) in [
            ("mmproj-f16", &["mmproj"][..], 0),
            ("mmproj-model-fp16", &["mmproj", "model"], 0),
            ("mmproj-bf16", &["mmproj"], 1),
            ("gemma-3-f32-mmproj", &["gemma", "3", "mmproj"], 2),
            ("mmproj-a-q8_0", &["mmproj", "a"], 3),
            ("mmproj-a.q4_k_m", &["mmproj", "a"], 4),
            ("mmproj-q8_1", &["mmproj"], 4),
        ] {
            assert_eq!(split_precision(name), Some(NameWithoutPrecision { words: words.to_vec(), rank }), "{name}");
        }
        for name in ["mmproj", "mmproj-f16-q8_0", "qwen-mmproj", ""] {
            assert_eq!(split_precision(name), None, "{name}");
        }
    }
}
