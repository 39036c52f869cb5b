//! Plain language: words that comments, documents and messages do without.

use std::fs;

use super::sources;

/// Each with what to write in its place.
const AVOIDED: &[(&str, &str)] = &[
    ("whoever", "the subject: the client, the caller, the operator"),
    ("nobody", "the subject: no client, no worker, no task"),
    ("somebody", "the subject"),
    ("so many", "the number's name"),
    ("so long", "the time's name"),
    ("be it", "whether"),
    ("lest", "so that ... not"),
    ("in vain", "without success"),
    ("for want of", "because ... is missing"),
    ("anew", "again"),
    ("of late", "recently"),
    ("the original", "the thing itself"),
];

#[test]
fn comments_and_documents_are_in_plain_language() {
    let mut wrong = Vec::new();
    let mut check = |file: &str, number: usize, text: &str| {
        let text = text.to_lowercase();
        for (word, instead) in AVOIDED {
            if contains_word(&text, word) {
                wrong.push(format!("{file}:{}: \"{word}\": write {instead}", number + 1));
            }
        }
    };
    for folder in sources::FOLDERS {
        for source in sources::below(folder) {
            // This list itself, and what clients and llama-server say.
            if source.path.starts_with("architecture/") {
                continue;
            }
            for (number, line) in source.text.lines().enumerate() {
                if let Some((_, comment)) = line.split_once("//") {
                    check(&format!("{folder}/{}", source.path), number, comment);
                }
            }
        }
    }
    let root = sources::root();
    let pages = sources::files_below(&root.join("docs"), "md")
        .into_iter()
        .chain(sources::files_below(&root.join("docker"), "md"));
    for page in pages.chain(["README.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(|name| root.join(name))) {
        let text = fs::read_to_string(&page).unwrap_or_else(|_| panic!("{} can be read", page.display()));
        for (number, line) in text.lines().enumerate() {
            check(&page.display().to_string(), number, line);
        }
    }
    println!("words to avoid: {}", wrong.len());
    assert!(wrong.is_empty(), "plain words, please:\n{}", wrong.join("\n"));
}

fn contains_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        let is_inside = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        !is_inside(before) && !is_inside(after)
    })
}
