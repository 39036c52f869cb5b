//! What the publishers of embedding models say must stand before queries and documents.
//!
//! Only models whose cards state a fixed text are here. It is added where a request says what its inputs are, and nowhere
//! else; `prompts:` of a model replaces it.

/// The texts of a family of models, by name.
type Prompts = &'static [(&'static str, &'static str)];

/// A family: a name that has one of `named` and none of `unless` is of it. Names are in lower case, with `-` between words.
struct Family {
    named: &'static [&'static str],
    unless: &'static [&'static str],
    prompts: Prompts,
}

/// `intfloat/multilingual-e5-base`: "Each input text should start with "query: " or "passage: "".
const E5: Prompts = &[("query", "query: "), ("document", "passage: ")];
/// `BAAI/bge-large-en-v1.5`, `mixedbread-ai/mxbai-embed-large-v1`, `Snowflake/snowflake-arctic-embed-m`: queries alone.
const SENTENCE: Prompts = &[("query", "Represent this sentence for searching relevant passages: "), ("document", "")];
/// `BAAI/bge-large-zh-v1.5`: queries alone.
const SENTENCE_CHINESE: Prompts = &[("query", "为这个句子生成表示以用于检索相关文章："), ("document", "")];
/// `nomic-ai/nomic-embed-text-v1.5`: "the text prompt must include a task instruction prefix".
const NOMIC: Prompts = &[
    ("query", "search_query: "),
    ("document", "search_document: "),
    ("classification", "classification: "),
    ("clustering", "clustering: "),
];
/// `Snowflake/snowflake-arctic-embed-l-v2.0`: queries alone.
const ARCTIC_2: Prompts = &[("query", "query: "), ("document", "")];
/// `google/embeddinggemma-300m`, "Prompt Instructions".
const EMBEDDING_GEMMA: Prompts = &[
    ("query", "task: search result | query: "),
    ("document", "title: none | text: "),
    ("classification", "task: classification | query: "),
    ("clustering", "task: clustering | query: "),
];
/// `Qwen/Qwen3-Embedding-0.6B`, `config_sentence_transformers.json`: queries alone.
const QWEN3: Prompts = &[
    ("query", "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"),
    ("document", ""),
];

/// The first family that a name is of counts.
const FAMILIES: &[Family] = &[
    Family { named: &["nomic-embed-text"], unless: &[], prompts: NOMIC },
    Family { named: &["embeddinggemma", "embedding-gemma"], unless: &[], prompts: EMBEDDING_GEMMA },
    Family { named: &["qwen3-embedding"], unless: &["-vl-"], prompts: QWEN3 },
    Family {
        named: &["snowflake-arctic-embed-l-v2", "snowflake-arctic-embed-m-v2", "arctic-embed-2"],
        unless: &[],
        prompts: ARCTIC_2,
    },
    Family { named: &["snowflake-arctic-embed", "mxbai-embed-large"], unless: &[], prompts: SENTENCE },
    Family {
        named: &["bge-small-zh", "bge-base-zh", "bge-large-zh"],
        unless: &["reranker"],
        prompts: SENTENCE_CHINESE,
    },
    Family { named: &["bge-small-en", "bge-base-en", "bge-large-en"], unless: &["reranker"], prompts: SENTENCE },
    // Those with "instruct" in their names take a sentence about the task, and Mistral's size does too.
    Family { named: &["e5-small", "e5-base", "e5-large"], unless: &["instruct", "mistral"], prompts: E5 },
];

/// Returns the prompts of the model of this name, which is that in its file, or the name of its file. Empty if nothing is
/// known.
pub(super) fn known_prompts(name: &str) -> Prompts {
    let name = name.to_lowercase().replace([' ', '_', '/'], "-");
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    let family = FAMILIES.iter().find(|family| has(family.named) && !has(family.unless));
    family.map_or(&[], |family| family.prompts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_known_by_the_name_in_the_file_or_of_the_file() {
        let query = |name: &str| known_prompts(name).iter().find(|(of, _)| *of == "query").map(|(_, text)| *text);
        for (name, expected) in [
            ("multilingual-e5-large-q8_0", Some("query: ")),
            ("E5 Base v2", Some("query: ")),
            ("multilingual-e5-large-instruct", None),
            ("bge-large-en-v1.5-f16", Some("Represent this sentence for searching relevant passages: ")),
            ("bge-m3", None),
            ("bge-reranker-v2-m3", None),
            ("mxbai-embed-large-v1", Some("Represent this sentence for searching relevant passages: ")),
            ("snowflake-arctic-embed-m", Some("Represent this sentence for searching relevant passages: ")),
            ("snowflake-arctic-embed-l-v2.0", Some("query: ")),
            ("nomic-embed-text-v1.5.Q4_K_M", Some("search_query: ")),
            ("embeddinggemma-300M-Q8_0", Some("task: search result | query: ")),
            (
                "Qwen3 Embedding 0.6B",
                Some("Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"),
            ),
            ("all-MiniLM-L6-v2", None),
            ("", None),
        ] {
            assert_eq!(query(name), expected, "{name}");
        }
    }
}
