//! The cache in the ways in which requests come: with heartbeats, to a reranker in each of its APIs, and in the ledger.

use serde_json::{Value, json};

use super::cache::{CHAT, MARK, ask, chat, metric};
use super::support::{
    gateway::{Backend, Gateway, USER},
    wait::{SOON, eventually, eventually_some},
};

/// Returns the data of the events of a stream, without the comments.
fn data_of(mut stream: super::support::client::Stream) -> Vec<String> {
    let events = stream.events();
    assert!(stream.is_complete());
    events.into_iter().map(|event| event.data).filter(|data| !data.is_empty()).collect()
}

#[test]
fn heartbeats_of_the_first_are_not_kept_and_those_who_come_meanwhile_get_their_own() {
    let gateway = Gateway::builder()
        .script(json!({"hold_requests": [CHAT]}))
        .set_all(&[("CACHE", "safe"), ("SSE_HEARTBEAT", "50ms")])
        .start_ready();
    let in_the_slot = json!({"messages": []}).to_string();
    let mut running = gateway.client().begin("POST", CHAT, in_the_slot.as_bytes()).unwrap();
    gateway.journal().wait_for_requests(CHAT, 1);
    let mut first = gateway.client().stream(CHAT, &chat(true));
    assert_eq!(first.head.header(MARK), Some("miss"));
    let is_comment = |event: super::support::client::Event| event.name.is_none() && event.data.is_empty();
    assert!(is_comment(first.next_event().unwrap()));
    // A client that comes before the first byte waits in the queue by itself, with signs of life.
    let mut other = gateway.client().stream(CHAT, &chat(true));
    assert_eq!(other.head.header(MARK), Some("miss"));
    assert!(is_comment(other.next_event().unwrap()));
    gateway.control().release_all_requests();
    assert_eq!(running.read_response().unwrap().status(), 200);
    let whole = data_of(first);
    assert_eq!(whole.last().map(String::as_str), Some("[DONE]"));
    assert_eq!(data_of(other), whole);
    let mut kept = gateway.client().stream(CHAT, &chat(true));
    assert_eq!(kept.head.header(MARK), Some("hit"));
    let events = kept.events();
    assert!(events.iter().all(|event| !event.data.is_empty()), "no comment is kept");
    assert_eq!(events.into_iter().map(|event| event.data).collect::<Vec<_>>(), whole);
}

#[test]
fn a_stream_with_heartbeats_is_joined_from_its_first_byte_on() {
    let gateway = Gateway::builder()
        .script(json!({"hold_mid_stream": {"after_frames": 2}}))
        .set_all(&[("CACHE", "safe"), ("SSE_HEARTBEAT", "50ms")])
        .start_ready();
    let mut first = gateway.client().stream(CHAT, &chat(true));
    eventually_some("its first event", SOON, || first.next_event().filter(|event| !event.data.is_empty()));
    let other = gateway.client().stream(CHAT, &chat(true));
    assert_eq!(other.head.header(MARK), Some("hit"));
    gateway.control().release_all_requests();
    assert_eq!(data_of(other).last().map(String::as_str), Some("[DONE]"));
    drop(first);
    assert_eq!(gateway.journal().requests(CHAT).len(), 1);
}

/// The same requests to a real llama-server, without the cache, and with it twice.
#[test]
fn scores_with_and_without_the_cache_are_the_same_in_every_api() {
    let documents = ["rain falls on the road", "the sparrow sings", "birds are small"];
    let requests = [
        ("/v1/rerank", json!({"query": "a small bird", "documents": documents, "top_n": 2})),
        ("/v2/rerank", json!({"model": "", "query": "a small bird", "documents": documents, "return_documents": true})),
        ("/rerank", json!({"query": "a small bird", "texts": documents, "raw_scores": true})),
        ("/score", json!({"text_1": "a small bird", "text_2": documents})),
    ];
    let ranked = |text: &str| {
        let mut answer: Value = serde_json::from_str(text).unwrap();
        if let Some(members) = answer.as_object_mut() {
            for made_each_time in ["id", "created"] {
                members.remove(made_each_time);
            }
        }
        answer
    };
    let ready = |mode: &str| {
        let backend = Backend::Real { model: "tiny-rerank.gguf" };
        Gateway::builder().backend(backend).set("CACHE", mode).start_ready()
    };
    let (without, with) = (ready("off"), ready("safe"));
    for (path, body) in &requests {
        let expected = without.client().post_json(path, body);
        assert_eq!((expected.status(), expected.header(MARK)), (200, None), "{path}: {}", expected.text());
        let first = ask(&with.client(), path, body, "miss").text();
        assert_eq!(ask(&with.client(), path, body, "hit").text(), first, "{path}");
        assert_eq!(ranked(&first), ranked(&expected.text()), "{path}");
    }
    assert_eq!(metric(&with, "llamagate_cache_hits_total"), requests.len() as u64);
}

#[test]
fn the_ledger_counts_a_hit_as_a_request_without_tokens_and_without_time_in_a_slot() {
    let gateway = Gateway::builder().set_all(&[("CACHE", "safe"), ("PRICE_PER_HOUR", "3600")]).start_ready();
    let row = |requests: u64| {
        eventually_some("the requests are recorded", SOON, || {
            let rows = gateway.client_with(USER).get("/usage?by=key,model").json();
            let row = rows["data"][0].clone();
            (row["requests"] == json!(requests)).then_some(row)
        })
    };
    ask(&gateway.client(), CHAT, &chat(false), "miss");
    let first = row(1);
    assert!(first["completion_tokens"].as_u64().is_some_and(|tokens| tokens > 0), "{first}");
    for _ in 0..4 {
        ask(&gateway.client(), CHAT, &chat(false), "hit");
    }
    let all = row(5);
    for same in ["refused", "prompt_tokens", "cached_tokens", "completion_tokens", "slot_seconds", "cost"] {
        assert_eq!(all[same], first[same], "{same}");
    }
    eventually("the hits are counted", SOON, || metric(&gateway, "llamagate_cache_hits_total") == 4);
}
