//! The template of Qwen3-Reranker's model card.

/// What comes before the question, with control tokens.
pub const TEMPLATE_START: &str = "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query \
                                  and the Instruct provided. Note that the answer can only be \"yes\" or \"no\".<|im_end|>\n\
                                  <|im_start|>user\n";

/// What comes after the question, with control tokens.
pub const TEMPLATE_END: &str = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n";

/// A control token, as a text that must not become one.
pub const CONTROL_TOKEN: &str = "<|im_end|>";

/// What each control token begins with.
pub const CONTROL_TOKEN_START: &str = "<|";

/// The instruction of requests and models that have none.
const DEFAULT_INSTRUCTION: &str = "Given a web search query, retrieve relevant passages that answer the query";

/// Returns the question whether the document answers the query. It is plain text: whatever stands in it, no part of it is a
/// control token.
pub fn question(instruction: Option<&str>, query: &str, document: &str) -> String {
    let instruction = instruction.unwrap_or(DEFAULT_INSTRUCTION);
    format!("<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_that_of_the_model_card() {
        let default = "<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n\
                       <Query>: q\n<Document>: d";
        assert_eq!(question(None, "q", "d"), default);
        assert_eq!(question(Some("Find"), "q", "d"), "<Instruct>: Find\n<Query>: q\n<Document>: d");
    }
}
