//! Tests of each naming rule by a table, and properties that hold for any names.

use std::collections::HashSet;

use ModelKind::{Chat, Embedding, Rerank};
use proptest::prelude::*;

use super::*;

/// One model: `(id, alias, tier, kind)`; an empty string means none.
type ModelRow = (&'static str, &'static str, &'static str, ModelKind);

const MODELS: [ModelRow; 8] = [
    ("tiny", "", "light", Chat),
    ("small", "gpt-4o-mini", "light", Chat),
    ("org/mid", "gpt-4o", "medium", Chat),
    ("big", "tiny-no-more", "Heavy", Chat),
    ("vectors", "text-embedding-3-small", "embedding", Embedding),
    ("judge", "", "reranker", Rerank),
    ("pile", "", "mixed", Embedding),
    ("pile-chat", "", "mixed", Chat),
];

const ALL: fn(usize) -> bool = |_| true;
const NONE: fn(usize) -> bool = |_| false;

fn names(rows: &[ModelRow]) -> ModelNames {
    let aliases: Vec<Vec<String>> = rows
        .iter()
        .map(|(_, alias, _, _)| Some(*alias).filter(|alias| !alias.is_empty()).map(str::to_owned).into_iter().collect())
        .collect();
    ModelNames::of(rows.iter().zip(&aliases).map(|((id, _, tier, kind), aliases)| NameEntry {
        aliases,
        tier: Some(*tier).filter(|tier| !tier.is_empty()),
        ..plain(id, *kind)
    }))
}

/// Returns a model with this id and kind, and nothing else.
fn plain(id: &str, kind: ModelKind) -> NameEntry<'_> {
    NameEntry {
        id,
        aliases: &[],
        hidden_aliases: &[],
        adapters: None,
        pattern: None,
        is_default: false,
        stand_in: None,
        pool_role: None,
        tier: None,
        kind: Some(kind),
    }
}

/// Resolves a name among [`MODELS`], all of them ready and allowed; returns the id.
fn resolve_id(asked: &str, needs: Option<ModelKind>) -> Result<&'static str, Unresolved> {
    names(&MODELS).resolve(Some(asked), needs, ALL, ALL).map(|index| MODELS[index].0)
}

fn wrong(id: &str) -> Result<&'static str, Unresolved> {
    Err(Unresolved::WrongKind { index: MODELS.iter().position(|row| row.0 == id).unwrap() })
}

const UNKNOWN: Result<&str, Unresolved> = Err(Unresolved::Unknown);

#[test]
fn ids_aliases_and_tier_ids_must_match_exactly() {
    for (asked, found) in [
        ("tiny", Ok("tiny")),
        ("org/mid", Ok("org/mid")),
        ("gpt-4o", Ok("org/mid")),
        ("light/small", Ok("small")),
        ("LIGHT/small", Ok("small")),
        ("medium/org/mid", Ok("org/mid")),
        ("heavy/big", Ok("big")),
        ("Tiny", UNKNOWN),
        ("GPT-4o", UNKNOWN),
        ("light/Small", UNKNOWN),
        ("light/gpt-4o-mini", UNKNOWN),
        ("heavy/small", UNKNOWN),
        ("light/", UNKNOWN),
        ("/tiny", UNKNOWN),
        ("", UNKNOWN),
    ] {
        assert_eq!(resolve_id(asked, Some(Chat)), found, "{asked}");
    }
}

#[test]
fn an_id_comes_before_an_alias_and_an_alias_before_a_tier() {
    let rows = [("a", "b", "", Chat), ("b", "light/c", "", Chat), ("c", "", "light", Chat), ("d", "light", "", Chat)];
    for (asked, index) in [("b", 1), ("light/c", 1), ("light", 3)] {
        assert_eq!(names(&rows).resolve(Some(asked), None, ALL, ALL), Ok(index), "{asked}");
    }
    let twice = [("a", "x", "", Chat), ("b", "x", "", Chat)];
    assert_eq!(names(&twice).resolve(Some("x"), None, ALL, ALL), Ok(0), "the first listed");
}

#[test]
fn a_model_that_is_named_must_be_of_the_kind_that_the_route_needs() {
    for asked in ["vectors", "text-embedding-3-small", "embedding/vectors"] {
        assert_eq!(resolve_id(asked, Some(Chat)), wrong("vectors"), "{asked}");
        assert_eq!(resolve_id(asked, Some(Rerank)), wrong("vectors"), "{asked}");
        assert_eq!(resolve_id(asked, Some(Embedding)), Ok("vectors"), "{asked}");
        assert_eq!(resolve_id(asked, None), Ok("vectors"), "{asked}");
    }
}

#[test]
fn a_named_model_is_returned_whether_or_not_it_may_be_used() {
    let names = names(&MODELS);
    for (asked, index) in [("tiny", 0), ("gpt-4o-mini", 1), ("medium/org/mid", 2)] {
        assert_eq!(names.resolve(Some(asked), Some(Chat), NONE, NONE), Ok(index), "{asked}");
    }
}

#[test]
fn a_tier_means_its_first_ready_model_else_its_first_model() {
    let names = names(&MODELS);
    let light = |is_ready: fn(usize) -> bool, may_use: fn(usize) -> bool| {
        names.resolve(Some("Light"), Some(Chat), is_ready, may_use)
    };
    assert_eq!(light(ALL, ALL), Ok(0));
    assert_eq!(light(NONE, ALL), Ok(0));
    assert_eq!(light(|index| index > 0, ALL), Ok(1));
    assert_eq!(light(|index| index == 0, |index| index > 0), Ok(1), "permission comes before readiness");
    assert_eq!(light(ALL, NONE), Err(Unresolved::Unknown));
}

#[test]
fn only_models_of_the_needed_kind_are_candidates_of_a_tier() {
    for (asked, needs, found) in [
        ("mixed", Some(Chat), Ok("pile-chat")),
        ("mixed", Some(Embedding), Ok("pile")),
        ("mixed", None, Ok("pile")),
        ("mixed", Some(Rerank), wrong("pile")),
        ("embedding", Some(Chat), wrong("vectors")),
        ("light", Some(Rerank), wrong("tiny")),
        ("lightest", Some(Chat), UNKNOWN),
    ] {
        assert_eq!(resolve_id(asked, needs), found, "{asked}");
    }
}

#[test]
fn a_tier_that_the_key_may_not_use_is_not_disclosed() {
    let names = names(&MODELS);
    assert_eq!(
        names.resolve(Some("mixed"), Some(Rerank), ALL, |index| index == 7),
        Err(Unresolved::WrongKind { index: 7 })
    );
    assert_eq!(names.resolve(Some("light"), Some(Rerank), ALL, |index| index == 5), Ok(5), "the only reranker");
    assert_eq!(names.resolve(Some("light"), Some(Rerank), ALL, NONE), Err(Unresolved::Unknown));
    let not_the_chat = names.resolve(Some("mixed"), Some(Chat), ALL, |index| index == 6);
    assert_eq!(not_the_chat, Err(Unresolved::Unknown), "the tier has one of the kind");
}

#[test]
fn patterns_in_a_name_stand_for_a_tier() {
    for (asked, needs, found) in [
        ("jina-reranker-v2", Rerank, "judge"),
        ("BGE-Reranker-v2-m3", Rerank, "judge"),
        ("ms-marco-Cross-Encoder", Rerank, "judge"),
        ("nomic-embed-text", Embedding, "vectors"),
        ("Qwen3-Embedding-0.6B", Embedding, "vectors"),
        ("bge-m3", Embedding, "vectors"),
        ("intfloat/multilingual-E5-large", Embedding, "vectors"),
        ("e5", Embedding, "vectors"),
        ("qwen2.5-0.5b-instruct", Chat, "tiny"),
        ("SmolLM2-135M", Chat, "tiny"),
        ("llama3.2:1b", Chat, "tiny"),
        ("Phi-3-4B", Chat, "tiny"),
        ("mistral-7b.Q4_K_M.gguf", Chat, "org/mid"),
        ("qwen3-14b", Chat, "org/mid"),
        ("gpt-oss-20b", Chat, "org/mid"),
        ("gpt-oss-20.9b", Chat, "big"),
        ("Qwen3-30B-A3B", Chat, "big"),
        ("meta-llama/Llama-3.3-70B-Instruct", Chat, "big"),
        ("mixtral-8x7b", Chat, "big"),
    ] {
        assert_eq!(resolve_id(asked, Some(needs)), Ok(found), "{asked}");
    }
}

#[test]
fn the_first_pattern_counts_if_a_route_takes_any_kind() {
    assert_eq!(resolve_id("bge-reranker-7b", None), Ok("judge"));
    assert_eq!(resolve_id("bge-7b", None), Ok("vectors"));
}

#[test]
fn a_text_that_resembles_a_pattern_is_none() {
    let two = [("c", "", "light", Chat), ("d", "", "medium", Chat), ("e", "", "embedding", Chat)];
    for asked in [
        "gpt-4o-code5",
        "e50",
        "be5",
        "bgem3",
        "abge",
        "ébge",
        "7bit",
        "a3b",
        "v7b",
        "v7.7b",
        "x8x7b",
        "qwen2.5",
        "7",
        "b",
        "1m",
    ] {
        assert_eq!(names(&two).resolve(Some(asked), Some(Chat), ALL, ALL), Err(Unresolved::Unknown), "{asked}");
    }
}

#[test]
fn patterns_without_a_matching_tier_are_skipped() {
    let no_embedding_tier =
        [("c", "", "light", Chat), ("d", "", "heavy", Chat), ("v", "", "", Embedding), ("w", "", "", Embedding)];
    let names = names(&no_embedding_tier);
    let find = |asked, needs| names.resolve(Some(asked), Some(needs), ALL, ALL);
    assert_eq!(
        find("Qwen3-Embedding-0.6B", Embedding),
        Err(Unresolved::Unknown),
        "no tier, and the light one is for chat"
    );
    assert_eq!(find("llama-7b", Chat), Err(Unresolved::Unknown), "no medium tier");
    assert_eq!(find("llama-70b", Chat), Ok(1));
    assert_eq!(find("llama-70b", Embedding), Err(Unresolved::Unknown));
    assert_eq!(names.resolve(Some("llama-70b"), Some(Chat), ALL, |index| index != 1), Err(Unresolved::Unknown));
}

#[test]
fn sizes_are_in_billions() {
    for (name, billions) in [
        ("7b", Some(7.0)),
        ("0.5B", Some(0.5)),
        ("8x22b", Some(176.0)),
        ("2x1.5b", Some(3.0)),
        ("x-135M-y", Some(0.135)),
        ("gemma-3-27b-it-4bit", Some(27.0)),
        ("30b-a3b", Some(30.0)),
        ("qwen2.5-7b-1m", Some(7.0)),
        ("v1.2-8b", Some(8.0)),
        ("13m", None),
        ("8x", None),
        ("8xb", None),
        ("7b2", None),
        ("7bé", None),
        ("", None),
    ] {
        assert_eq!(size(name.as_bytes()), billions, "{name}");
    }
    assert_eq!(size(format!("{}b", "9".repeat(999)).as_bytes()), Some(f64::INFINITY));
}

#[test]
fn any_name_or_none_means_the_only_model_of_the_kind() {
    let rows = [("c", "", "", Chat), ("v", "", "", Embedding)];
    for asked in [None, Some("any"), Some("gpt-4o"), Some("")] {
        assert_eq!(names(&rows).resolve(asked, Some(Chat), NONE, ALL), Ok(0));
        assert_eq!(names(&rows).resolve(asked, Some(Embedding), NONE, ALL), Ok(1));
        assert_eq!(names(&rows).resolve(asked, Some(Rerank), ALL, ALL), Err(Unresolved::Unknown));
        assert_eq!(names(&rows).resolve(asked, None, ALL, ALL), Err(Unresolved::Unknown), "one of two");
        assert_eq!(names(&rows[..1]).resolve(asked, None, ALL, ALL), Ok(0));
        assert_eq!(names(&rows[..1]).resolve(asked, None, ALL, NONE), Err(Unresolved::Unknown));
        assert_eq!(names(&[]).resolve(asked, None, ALL, ALL), Err(Unresolved::Unknown));
        let two = [rows[0], ("d", "", "", Chat)];
        let first_only = names(&two).resolve(asked, Some(Chat), ALL, |index| index == 0);
        assert_eq!(
            first_only,
            Err(Unresolved::Unknown),
            "the meaning of a name does not depend on the permissions for other models"
        );
    }
}

#[test]
fn a_name_that_is_no_models_own_means_the_longest_pattern_that_it_matches() {
    let patterns: Vec<NamePattern> =
        ["*", "openai/*", "openai/gpt-*", "rank/*"].iter().filter_map(|id| NamePattern::of(id)).collect();
    let ids = ["*", "openai/*", "openai/gpt-*", "rank/*"];
    let wild = ids.iter().zip(&patterns).map(|(id, pattern)| NameEntry {
        pattern: Some(pattern),
        kind: (*id == "rank/*").then_some(Rerank),
        ..plain(id, Chat)
    });
    let named = [plain("openai/own", Chat), NameEntry { tier: Some("light"), ..plain("small", Chat) }];
    let names = ModelNames::of(wild.chain(named));
    let find = |asked, needs| names.resolve(asked, needs, ALL, ALL);
    for (asked, needs, found) in [
        ("anything", Some(Chat), 0),
        ("anything", Some(Rerank), 0),
        ("anything", None, 0),
        ("openai/x", Some(Embedding), 1),
        ("openai/gpt-4o", Some(Chat), 2),
        ("openai/own", Some(Chat), 4),
        ("light", Some(Chat), 5),
        ("llama-3b", Some(Chat), 0),
        ("rank/x", Some(Rerank), 3),
        ("rank/x", Some(Chat), 0),
    ] {
        assert_eq!(find(Some(asked), needs), Ok(found), "{asked}");
        assert!(names.is_known(asked), "{asked}: no scan of a folder delays such a name");
    }
    assert_eq!(find(None, Some(Rerank)), Err(Unresolved::Unknown), "a pattern serves names only");
    let without = |left: usize| names.resolve(Some("openai/x"), Some(Chat), ALL, |index| index != left);
    assert_eq!((without(1), without(0)), (Ok(0), Ok(1)), "patterns that the key may not use are passed over");
}

#[test]
fn without_a_name_the_default_of_the_kind_is_meant_and_unknown_names_mean_stand_ins() {
    let models = [
        plain("a", Chat),
        NameEntry { is_default: true, stand_in: Some(1), ..plain("b", Chat) },
        NameEntry { stand_in: Some(0), ..plain("c", Chat) },
        plain("v", Embedding),
        plain("w", Embedding),
    ];
    let names = ModelNames::of(models);
    let find = |asked, needs, may_use: fn(usize) -> bool| names.resolve(asked, needs, NONE, may_use);
    assert!(names.is_known("a") && !names.is_known("nobody"), "a stand-in has a name of its own");
    assert_eq!(find(None, Some(Chat), ALL), Ok(1));
    assert_eq!(find(Some(""), Some(Chat), ALL), Ok(1));
    assert_eq!(find(Some("nobody"), Some(Chat), ALL), Ok(2));
    assert_eq!(find(Some("nobody"), Some(Chat), |index| index != 2), Ok(1));
    assert_eq!(find(None, Some(Chat), |index| index != 1), Err(Unresolved::Unknown));
    for asked in [None, Some("nobody")] {
        assert_eq!(find(asked, Some(Embedding), ALL), Err(Unresolved::Unknown));
    }
    assert_eq!(find(None, None, ALL), Err(Unresolved::Unknown), "each kind has its own default");
}

#[test]
fn models_are_a_pool_only_if_all_of_their_kind_are() {
    let with = |id, role| NameEntry { pool_role: Some(role), ..plain(id, Rerank) };
    let pooled = |id| with(id, PoolRole::Member);
    let own = || with("own", PoolRole::LastResort);
    assert_eq!(ModelNames::of([pooled("a"), plain("c", Chat), pooled("b")]).pool(Rerank), [0, 2]);
    assert_eq!(ModelNames::of([pooled("a"), plain("own", Rerank), pooled("b")]).pool(Rerank), [0; 0]);
    assert_eq!(ModelNames::of([pooled("a"), plain("c", Chat)]).pool(Chat), [0; 0]);
    assert_eq!(ModelNames::of([own(), pooled("a")]).pool(Rerank), [0, 1]);
    assert_eq!(ModelNames::of([own(), own()]).pool(Rerank), [0; 0]);
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(vec!["light", "medium", "heavy", "embedding", "reranker", "bge", "e5", "7b", "8x7B"])
            .prop_map(str::to_owned),
        "[a-c/.0-9bxmE-]{0,6}",
        ".{0,4}",
    ]
}

fn kind() -> impl Strategy<Value = ModelKind> {
    proptest::sample::select(vec![Chat, Embedding, Rerank])
}

#[derive(Debug, Clone)]
struct Listed {
    id: String,
    aliases: Vec<String>,
    tier: Option<String>,
    kind: ModelKind,
}

fn listed() -> impl Strategy<Value = Vec<Listed>> {
    let one = (word(), proptest::collection::vec(word(), 0..3), proptest::option::of(word()), kind());
    proptest::collection::vec(one.prop_map(|(id, aliases, tier, kind)| Listed { id, aliases, tier, kind }), 0..8)
}

fn names_of(listed: &[Listed]) -> ModelNames {
    ModelNames::of(listed.iter().map(|one| NameEntry {
        aliases: &one.aliases,
        tier: one.tier.as_deref(),
        ..plain(&one.id, one.kind)
    }))
}

proptest! {
    #[test]
    fn a_resolved_model_is_of_the_kind_and_allowed_or_was_named(
        listed in listed(),
        asked in proptest::option::of(word()),
        needs in proptest::option::of(kind()),
        ready in any::<u8>(),
        allowed in any::<u8>(),
    ) {
        let names = names_of(&listed);
        let may_use = |index: usize| allowed >> index & 1 == 1;
        let found = names.resolve(asked.as_deref(), needs, |index| ready >> index & 1 == 1, may_use);
        let is_named = |index: usize| {
            let one = &listed[index];
            let in_tier = one.tier.as_ref().map(|tier| format!("{}/{}", tier.to_ascii_lowercase(), one.id));
            asked.as_ref().is_some_and(|asked| {
                *asked == one.id
                    || one.aliases.contains(asked)
                    || in_tier.is_some_and(|name| asked.ends_with(&one.id) && asked.eq_ignore_ascii_case(&name))
            })
        };
        let fits = |index: usize| needs.is_none_or(|kind| listed[index].kind == kind);
        match found {
            Ok(index) => prop_assert!(fits(index) && (may_use(index) || is_named(index))),
            Err(Unresolved::WrongKind { index }) => prop_assert!(!fits(index) && (may_use(index) || is_named(index))),
            Err(Unresolved::Unknown) => prop_assert!(!(0..listed.len()).any(is_named)),
        }
    }

    #[test]
    fn an_id_always_wins(listed in listed(), at in any::<proptest::sample::Index>(), allowed in any::<bool>()) {
        prop_assume!(!listed.is_empty());
        let id = &listed[at.index(listed.len())].id;
        let first = listed.iter().position(|one| one.id == *id).unwrap();
        prop_assert_eq!(names_of(&listed).resolve(Some(id), None, NONE, |_| allowed), Ok(first));
    }

    /// If no two models share a name, the order matters only within a tier.
    #[test]
    fn the_order_of_the_list_matters_only_within_a_tier(
        mut listed in listed(),
        asked in proptest::option::of(word()),
        needs in proptest::option::of(kind()),
    ) {
        let (mut seen, mut tiers) = (HashSet::new(), HashSet::new());
        // With slashes in ids, `a/b/c` could be in two tiers.
        listed.retain(|one| !one.id.contains('/') && seen.insert(one.id.clone()));
        for one in &mut listed {
            one.aliases.retain(|alias| seen.insert(alias.clone()));
            one.tier = one.tier.take().filter(|tier| tiers.insert(tier.to_ascii_lowercase()));
        }
        let id = |listed: &[Listed]| {
            let found = names_of(listed).resolve(asked.as_deref(), needs, ALL, ALL);
            found.map(|index| listed[index].id.clone()).map_err(|error| match error {
                Unresolved::WrongKind { index } => Some(listed[index].id.clone()),
                Unresolved::Unknown => None,
            })
        };
        let before = id(&listed);
        listed.reverse();
        prop_assert_eq!(before, id(&listed));
    }
}
