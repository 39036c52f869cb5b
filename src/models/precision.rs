//! The precision in a file's name, such as `F16` or `Q8_0`: which word it is, and which of several is preferred.

use super::companion::words;

/// Words of a name that tell a precision.
const PRECISIONS: [&str; 8] = ["f32", "f16", "bf16", "fp32", "fp16", "fp8", "mxfp4", "nvfp4"];
/// Beginnings of quantisations, which a digit follows: `q4`, `iq2`, `tq1`.
const QUANT_BEGINNINGS: [&str; 3] = ["q", "iq", "tq"];
/// Words that go on with a quantisation: `q8_0`, `q4_k_m`.
const QUANT_ENDS: [&str; 11] = ["0", "1", "k", "xxs", "xs", "s", "m", "l", "xl", "nl", "p"];
/// The precisions of projectors, the preferred ones first: `F16` is what llama.cpp's guides use, every backend computes
/// with it, and nothing is lost by it that a projector of images needs.
const PREFERRED: [&[&str]; 4] = [&["f16", "fp16"], &["bf16"], &["f32", "fp32"], &["q8_0"]];

/// Whether a precision begins with this word, which is in lower case.
pub(super) fn begins_precision(word: &str) -> bool {
    let follows = |beginning: &&str| {
        word.strip_prefix(*beginning).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    PRECISIONS.contains(&word) || QUANT_BEGINNINGS.iter().any(follows)
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
