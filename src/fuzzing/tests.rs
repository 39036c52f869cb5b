//! Runs the invariants on random bytes, and on random text that resembles valid input.

use proptest::prelude::*;

use super::*;

/// A function that panics when an invariant is broken.
type Invariants = fn(&[u8]);

/// Files as they are, each with its invariants.
const SEEDS: [(Invariants, &[u8]); 4] = [
    (env_file, include_bytes!("../../fuzz/seeds/env_file/quoted")),
    (gguf_header, include_bytes!("../../fuzz/seeds/gguf_header/model")),
    (certificates, include_bytes!("../../fuzz/seeds/certificates/pem")),
    (certificates, include_bytes!("../../fuzz/seeds/certificates/der")),
];

/// Generates configuration files from valid pieces, so that many of them are accepted.
fn configurations() -> impl Strategy<Value = String> {
    let model = "  [ab]{1,2}: \\{(file: [ab]\\.gguf|command: \\[x, '\\{port\\}'\\]|)(, (ctx: [0-9]{1,5}|aliases: \\[[a-c]\\]|ttl: [0-9]m|sampling: \\{n: [0-9]\\}|tier: t)){0,2}\\}\n";
    let entry = "  - \\{model_name: [a-c], litellm_params: \\{(model: (openai/)?[ab]|api_base: 'https?://h(/v1)?/?'|api_key: os.environ/REMOTE_KEY)(, (rpm|order): [0-9])?\\}\\}\n";
    let section = prop_oneof![
        proptest::collection::vec(model, 0..4).prop_map(|lines| format!("models:\n{}", lines.concat())),
        proptest::collection::vec(entry, 0..4).prop_map(|lines| format!("model_list:\n{}", lines.concat())),
        "defaults: \\{(ctx: [0-9]{2,9}|sampling: \\{n: null\\})\\}\n",
        "fallbacks: \\{[a-c]: \\[[a-c]\\]\\}\n",
        "router_settings: \\{(num_retries: [0-9]|model_group_alias: \\{[a-d]: [ab]\\})\\}\n",
        "[a-z_]{1,9}: \\PC{0,20}\n",
    ];
    proptest::collection::vec(section, 0..4).prop_map(|sections| sections.concat())
}

/// Generates configurations of llama-swap from valid pieces.
fn swap_configurations() -> impl Strategy<Value = String> {
    let word = "(-m (/m/)?[ab]\\.gguf|-hf a/b(:Q8_0)?|-c (0|100|4096|x)|-np (-1|3)|-ngl (99|-1|x)|--jinja|--port \\$\\{PORT\\}|--(host|api-key|lora|grammar|alias) [ab,]{1,3}|\\$\\{(m|n|env\\.FOLDER|env\\.REMOTE_KEY|MODEL_ID)\\}|[a-z'\\\\{}]{1,4})";
    let program = "(llama-server|/bin/llama-server|vllm serve|docker run -p)";
    let cmd = (program, proptest::collection::vec(word, 0..5)).prop_map(|(program, words)| {
        let line = format!("{program} {}", words.join(" "));
        format!("    cmd: {}\n", serde_json::Value::from(line))
    });
    let key = "    (proxy: 'http://(localhost|h|u:p@h)(:(\\$\\{PORT\\}|80))?(/x)?'|checkEndpoint: (none|/x|x)|ttl: (-1|0|60|x)|aliases: \\[[a-c*]{1,2}, \\{id: d\\}\\]|env: \\['A=\\$\\{env.FOLDER\\}', B, 'LLAMA_ARG_CTX_SIZE=64'\\]|filters: \\{stripParams: 'a, model', setParams: \\{t: '\\$\\{n\\}', u: [0-9]\\}, setParamsByID: \\{'\\$\\{MODEL_ID\\}:x': \\{\\}\\}\\}|useModelName: a/b|concurrencyLimit: [0-9]|unlisted: (true|1)|capabilities: \\{reranker: true\\}|macros: \\{m: '\\$\\{n\\}'\\}|[a-zA-Z]{1,9}: \\PC{0,9})\n";
    let model = ("  (['\"]?[ab*/: ]{1,3}['\"]?|c):\n", cmd, proptest::collection::vec(key, 0..4))
        .prop_map(|(id, cmd, keys)| format!("{id}{cmd}{}", keys.concat()));
    let section = "(healthCheckTimeout: (30|x)|logLevel: (info|x)|startPort: (8000|5800|0)|globalTTL: (0|9|x)|includeAliasesInList: true|macros: \\{m: 1, n: '\\$\\{m\\}'\\}|apiKeys: \\[x\\]|groups: \\{g: \\{persistent: true, members: \\[a, c\\]\\}\\}|matrix: \\{\\}|hooks: \\{on_startup: \\{preload: \\[a, z\\]\\}\\}|peers: \\{p: \\{proxy: 'https?://h(/x)?', apiKey: ('\\$\\{env.REMOTE_KEY\\}'|y), models: \\[a, p/q, \"q*\"\\]\\}\\}|[a-z]{1,9}: \\PC{0,9})\n";
    (proptest::collection::vec(model, 0..4), proptest::collection::vec(section, 0..5))
        .prop_map(|(models, sections)| format!("models:\n{}{}", models.concat(), sections.concat()))
}

/// Generates files of presets from valid pieces.
fn presets() -> impl Strategy<Value = String> {
    let line = "(\\[(\\*|[ab*]|a/b(:Q8_0)?|\\PC{0,4})\\]|(c|ctx-size|LLAMA_ARG_CTX_SIZE|parallel|np|ngl|t|b) = (-1|0|3|4096|x|on)|(model|hf|hf-repo|hf-file|mmproj|alias|lora) = [ab/.:,]{0,5}|(no-)?(jinja|mmproj|embeddings|reranking|swa-full|load-on-startup) = (on|off|1|)|(temp|grammar|r|host|api-key|chat-template-kwargs) = \\PC{0,6}|[;#].{0,5}|version = 1|)\r?\n";
    proptest::collection::vec(line, 0..12).prop_map(|lines| lines.concat())
}

/// Generates key files from valid pieces, so that many of their lines are accepted.
fn key_files() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        "(\u{feff})?[a-c]{1,2}:[a-b]{16,18}(:[0-9]{0,3})?(:(1960|2030)-01-01)?( scope=admin| models=m)?\r?\n",
        "[a-c]:sha256=[0a]{64}(:5)?\n",
        "(#.{0,10}|)\r?\n",
        "\\PC{0,30}\n?",
    ];
    proptest::collection::vec(line, 0..12).prop_map(|lines| lines.concat())
}

/// Generates responses of workers from valid pieces, and what may follow them.
fn worker_responses() -> impl Strategy<Value = String> {
    let before = "(HTTP/1\\.1 (100|103) x\r\n(a: b\r\n)?\r\n)?";
    let line = "(content-length: [0-5]|transfer-encoding: (gzip, )?chunked|connection: close|a:b)\r?\n";
    let lines = proptest::collection::vec(line, 0..3).prop_map(|lines| lines.concat());
    let body = "(3\r\nabc\r\n|2;x=y\r\nde\r\n|1 \r\nf\r\n|[a-z]{0,3}){0,3}(0\r\n(t: u\r\n)?\r\n)?[a-z]{0,2}";
    (before, "HTTP/1\\.[01] (200|204|404) [a-z]{0,3}\r\n", lines, "\r\n", body)
        .prop_map(|(before, status, lines, end, body)| [before, status, lines, end, body].concat())
}

/// Generates names and manifests of Ollama's store from valid pieces.
fn ollama_manifests() -> impl Strategy<Value = String> {
    let layer = "\\{\"mediaType\":\"application/vnd\\.ollama\\.image\\.(model|projector|adapter|tensor|license)\",\"digest\":\"sha256:([0-9A-F]{64}|\\.\\./[a-z]{61}|[0-9]{5})\",\"size\":[0-9]{1,20}\\}";
    let layers = proptest::collection::vec(layer, 0..4).prop_map(|layers| layers.join(","));
    ("([a-c.]{1,3}(:[0-9]{1,2})?/){0,3}[a-c.]{1,3}(:[a-c1.]{1,3})?", layers)
        .prop_map(|(name, layers)| format!("{name}\n{{\"schemaVersion\":2,\"layers\":[{layers}]}}"))
}

proptest! {
    #[test]
    fn responses_of_workers_hold_their_invariants_for_valid_pieces(cut: u8, text in worker_responses()) {
        worker_response(&[&[cut], text.as_bytes()].concat());
    }

    #[test]
    fn ollamas_manifests_hold_their_invariants_for_any_bytes(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        ollama_manifest(&data);
        worker_response(&data);
    }

    #[test]
    fn ollamas_manifests_hold_their_invariants_for_valid_pieces(text in ollama_manifests()) {
        ollama_manifest(text.as_bytes());
    }

    #[test]
    fn configurations_hold_their_invariants_for_any_bytes(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        configuration(&data);
    }

    #[test]
    fn configurations_hold_their_invariants_for_valid_pieces(text in configurations()) {
        configuration(text.as_bytes());
    }

    #[test]
    fn imports_hold_their_invariants_for_any_bytes(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        import(&data);
    }

    #[test]
    fn imports_hold_their_invariants_for_configurations_of_llama_swap(text in swap_configurations()) {
        import(&[&[1], text.as_bytes()].concat());
    }

    #[test]
    fn imports_hold_their_invariants_for_presets(text in presets()) {
        import(&[&[2], text.as_bytes()].concat());
    }

    #[test]
    fn key_files_hold_their_invariants_for_any_bytes(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        key_file(&data);
    }

    #[test]
    fn key_files_hold_their_invariants_for_valid_pieces(text in key_files()) {
        key_file(text.as_bytes());
    }

    #[test]
    fn request_heads_hold_their_invariants_for_any_bytes(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        request_head(&data);
    }

    #[test]
    fn request_heads_hold_their_invariants_for_valid_pieces(
        cut: u8,
        lines in proptest::collection::vec(
            "(Host: a|content-length: [0-2]{1,2}|Transfer-Encoding: (chunked|gzip)|X: [ -~]{0,9}| f|[a-z ]{1,3}:)\r?",
            0..6,
        ),
    ) {
        let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\n\r\n", lines.join("\n"));
        request_head(&[&[cut], head.as_bytes()].concat());
    }

    #[test]
    fn cors_holds_its_invariants_for_any_bytes(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        cors_origins(&data);
    }

    #[test]
    fn cors_holds_its_invariants_for_valid_pieces(
        text in "((https?://[aA]\\.b(:80|:443|:1)?|null|\\*)(, ?)?){0,3}\n(https?://a\\.b(:80|:1)?|null|\\*)\n[a, -]{0,9}",
    ) {
        cors_origins(text.as_bytes());
    }

    #[test]
    fn dialects_hold_their_invariants_for_any_bytes(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        for invariants in [rerank, embed, ollama, tokens] {
            invariants(&data);
        }
    }

    #[test]
    fn dialects_hold_their_invariants_for_valid_pieces(choice: u8, lines in proptest::collection::vec(dialect_bodies(), 1..4)) {
        let text = lines.join("\n");
        tokens(text.as_bytes());
        ollama(&[&[choice], text.as_bytes()].concat());
        for body in &lines {
            rerank(&[&[choice], body.as_bytes()].concat());
            embed(&[&[choice], body.as_bytes()].concat());
        }
    }

    #[test]
    fn answers_of_the_hub_hold_their_invariants_for_any_bytes(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        hub_answers(&data);
    }

    #[test]
    fn answers_of_the_hub_hold_their_invariants_for_valid_pieces(
        head in "((X-Linked-Size|Content-Length|Retry-After): [0-9]{1,3}\n|(X-Linked-)?ETag: (W/)?\"[a-f./]{6,9}\"\n|Content-Range: bytes 10-19/(100|1|[*])\n|RateLimit: \"a\";t=[0-9]{1,6}\n){0,4}",
        body in "\\{\"sha\":\"[a-f0-9/]{6,8}\",\"siblings\":\\[(\\{\"rfilename\":\"[a/.\\\\]{1,6}\"\\})?\\]\\}|\\{\"error\":\"\\PC{0,400}\"\\}|\\PC{0,400}",
    ) {
        hub_answers(format!("{head}\n{body}").as_bytes());
    }

    #[test]
    fn files_hold_their_invariants_for_any_bytes(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        for invariants in [env_file, gguf_header, certificates] {
            invariants(&data);
        }
        gguf_header(&[b"GGUF\x03\0\0\0", &data[..]].concat());
    }

    #[test]
    fn files_of_variables_hold_their_invariants_for_valid_pieces(
        lines in proptest::collection::vec("(export )?[A-C1]{0,2} ?= ?[\"']?[ab$#\\\\ \"']{0,6}[\"']?( # c)?\r?", 0..6),
    ) {
        env_file(lines.join("\n").as_bytes());
    }

    #[test]
    fn seeds_of_files_hold_their_invariants_when_a_byte_changes(at: usize, byte: u8) {
        for (invariants, seed) in SEEDS {
            let mut data = seed.to_vec();
            let at = at % data.len();
            data[at] = byte;
            invariants(&data);
        }
    }

    #[test]
    fn what_is_on_the_wire_holds_its_invariants_for_any_bytes(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        for invariants in [whole_requests, event_stream, trace_headers] {
            invariants(&data);
        }
    }

    #[test]
    fn whole_requests_hold_their_invariants_for_valid_pieces(
        method in "GET|POST|HEAD",
        lines in proptest::collection::vec("(content-length: [0-3]|expect: 100-continue|x: [ -~]{0,9}|connection: (close|Keep-Alive))\r\n", 0..4),
        body in "[a-z]{0,4}",
    ) {
        whole_requests(format!("{method} /a HTTP/1.1\r\nhost: h\r\n{}\r\n{body}", lines.concat()).as_bytes());
    }

    #[test]
    fn events_hold_their_invariants_for_valid_pieces(
        cut: u8,
        lines in proptest::collection::vec("(data|event|id|retry|)(: ?[a-c:\u{feff}]{0,3})?(\r\n|\n|\r){1,3}", 0..8),
    ) {
        event_stream(&[&[cut], lines.concat().as_bytes()].concat());
    }

    #[test]
    fn headers_of_traces_hold_their_invariants_for_valid_pieces(
        text in "(00|01|cc|ff)-([0-9a-f]{32}|0{32}|[0-9A-F]{32})-([0-9a-f]{16}|0{16})-0[0-3](-[a-f]{0,2})?\n([a-z]{1,3}=[a-z]{0,3},?){0,3}",
    ) {
        trace_headers(text.as_bytes());
    }

    #[test]
    fn examples_of_the_description_hold_their_invariants_when_bytes_change(
        changes in proptest::collection::vec(any::<(u16, u8)>(), 0..4),
        body in dialect_bodies(),
    ) {
        let changes: Vec<u8> = changes.iter().flat_map(|(at, byte)| [&at.to_be_bytes()[..], &[*byte]].concat()).collect();
        for (route, _) in examples() {
            example_body(&[route.as_bytes(), b"\n\n", &changes].concat());
            example_body(&[route.as_bytes(), b"\n", body.as_bytes()].concat());
        }
    }

    #[test]
    fn bodies_hold_their_invariants_for_any_bytes(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        request_body(&data);
        answer_body(&data);
    }

    #[test]
    fn bodies_hold_their_invariants_for_valid_pieces(cut in 0..60_u8, changes: u8, members in proptest::collection::vec(member(), 0..6)) {
        let body = format!("{{{}}}", members.join(","));
        request_body(&[&[cut, changes], body.as_bytes()].concat());
        answer_body(&[&[cut, changes], body.as_bytes()].concat());
    }
}

/// With no examples, or other routes than those of the seeds, the checks of examples would look at nothing.
#[test]
fn each_seed_of_an_example_is_for_a_route_whose_description_has_one() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/example_body");
    let mut seeds = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let seed = std::fs::read(entry.unwrap().path()).unwrap();
        let route = seed.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let is_known = examples().iter().any(|(known, _)| known.as_bytes() == route);
        assert!(is_known, "{}", String::from_utf8_lossy(route));
        seeds += 1;
    }
    assert!(seeds > 20, "{seeds} seeds");
}

/// Generates requests from members that the dialects know, with values that some of them may have.
fn dialect_bodies() -> impl Strategy<Value = String> {
    const NAMES: &[&str] = &[
        "model",
        "query",
        "documents",
        "texts",
        "input",
        "inputs",
        "prompt",
        "messages",
        "text_1",
        "text_2",
        "passages",
        "top_n",
        "top_k",
        "truncate",
        "truncation",
        "dimensions",
        "output_dimension",
        "encoding_format",
        "embedding_type",
        "embedding_types",
        "options",
        "format",
        "stream",
        "keep_alive",
        "tools",
        "think",
        "content",
        "results",
        "data",
        "choices",
        "tokens",
    ];
    const VALUES: &[&str] = &[
        "null",
        "1",
        "-1",
        "1e400",
        "true",
        "\"a\"",
        "\"float\"",
        "\"binary\"",
        "\"5m\"",
        "[]",
        "[\"a\",\"b\"]",
        "[1,2]",
        "[[1],[2]]",
        "[{\"text\":\"a\"}]",
        "[{\"role\":\"user\",\"content\":\"a\"}]",
        "{\"text\":\"a\"}",
        "{\"temperature\":0,\"stop\":[\"a\"]}",
        "[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]",
        "[{\"id\":1,\"piece\":\"a\"},{\"id\":2,\"piece\":[195]}]",
        "[{\"index\":0,\"relevance_score\":0.5}]",
        "[{\"index\":0,\"embedding\":[0.5,1]}]",
    ];
    let member = (prop::sample::select(NAMES), prop::sample::select(VALUES));
    proptest::collection::vec(member, 0..6).prop_map(|members| {
        let members: Vec<String> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    })
}

/// Generates members of a JSON object whose names and values often matter to the rewriting.
fn member() -> impl Strategy<Value = String> {
    let name = "\"(model|Model|response|message|user|a|temperature|\\\\u0061|b)\"";
    let value = "\"m\"|\"[a-z\\[{]{0,3}\"|null|1|\\[\\{\"model\":\"m\"\\}\\]|\\{\"model\":\"m\"(,\"a\":\\{\\})?\\}";
    (" ?", name, " ?", value, "\n?").prop_map(|(a, name, b, value, c)| format!("{a}{name}:{b}{value}{c}"))
}
