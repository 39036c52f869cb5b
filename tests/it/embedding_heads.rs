//! Models with heads for sparse and ColBERT vectors, as BGE-M3 has them: what they give, beside a computation of the same in
//! NumPy from the weights alone, and what is wrong with files that are no heads.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use llamagate::embedding_heads::{EmbeddingHeads, Head};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::accounts::access_log_line;
use super::support::{
    client::Client,
    client_program::{run_client, script},
    gateway::{ADMIN, Gateway, USER, python, test_models},
    page_commands::{CommandOutput, run_page_where},
    remote::{Remote, Reply},
    wait::{REAL_MODEL_READY, eventually},
};

const OPENAI: &str = "/v1/embeddings";
/// The numbers of a vector of the test model.
const WIDTH: usize = 64;
/// The numbers of a ColBERT vector, which may have another length.
const COLBERT_WIDTH: usize = 48;
/// The ids of the test model that stand for no text.
const SPECIAL: [u64; 4] = [0, 1, 2, 5];
/// Texts with words that stand in them twice, of one word, and of none.
const TEXTS: [&str; 4] = ["the small bird and the small tree", "rain", "", "gr\u{fc}n \u{1f426} river </s> stone"];
/// How far a number may lie beside that of NumPy.
const TOLERANCE: f64 = 1e-4;
/// The same of the vectors of tokens, whose lengths are not 1 but 8. ggml rounds to halves on the way (`gelu` in the reference),
/// and not always to the same ones.
const TOKEN_TOLERANCE: f64 = 8e-4;

/// A folder with the test model as BGE-M3 is, whose first token stands for the text, and with random heads.
struct Files(TempDir);

impl Files {
    fn create() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = Self(folder);
        files.write_model("m3.gguf", b"bert.pooling_type", 2);
        files.write_head("sparse.safetensors", 1, WIDTH, 7);
        files.write_head("colbert.safetensors", COLBERT_WIDTH, WIDTH, 11);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes the test model with another number for one of its keys.
    fn write_model(&self, name: &str, key: &[u8], number: u32) {
        let mut model = fs::read(test_models().join("tiny-embedding.gguf")).unwrap();
        let key_at = model.windows(key.len()).position(|window| window == key).unwrap();
        // The key is followed by the type of its value.
        let at = key_at + key.len() + size_of::<u32>();
        model[at..at + size_of::<u32>()].copy_from_slice(&number.to_le_bytes());
        fs::write(self.path(name), model).unwrap();
    }

    /// Writes a head with random numbers.
    fn write_head(&self, name: &str, outputs: usize, inputs: usize, seed: u64) {
        let mut state = seed;
        let mut random = |count: usize| -> Vec<u8> {
            let numbers = (0..count).map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                ((state >> 40) as f32 / (1_u64 << 24) as f32 - 0.5) / 8.0
            });
            numbers.flat_map(f32::to_le_bytes).collect()
        };
        let tensors = [("weight", vec![outputs, inputs]), ("bias", vec![outputs])];
        let (mut header, mut data) = (Map::new(), Vec::new());
        for (name, shape) in tensors {
            let begin = data.len();
            data.extend(random(shape.iter().product()));
            let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()]});
            header.insert(name.to_owned(), entry);
        }
        let header = serde_json::to_vec(&header).unwrap();
        let bytes = [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat();
        fs::write(self.path(name), bytes).unwrap();
    }

    /// Starts models that differ in their heads only. Without flash attention, llama-server computes with 32 bits throughout.
    fn serve(&self) -> Gateway {
        let config = format!(
            "default_models: {{embedding: m3}}
models:
  m3: {{file: {m3}, aliases: [bge-m3], ctx: 128, parallel: 2, args: [-fa, 'off'], prompts: {{query: 'hello '}}, heads: {{sparse: sparse.safetensors, colbert: {colbert}}}}}
  whole: {{file: {m3}, ctx: 128, args: [-fa, 'off']}}
  mean: {{file: tiny-embedding.gguf, args: [-fa, 'off'], heads: {{sparse: {sparse}}}}}
  mean_whole: {{file: tiny-embedding.gguf, args: [-fa, 'off']}}
",
            m3 = self.path("m3.gguf").display(),
            sparse = self.path("sparse.safetensors").display(),
            colbert = self.path("colbert.safetensors").display(),
        );
        let gateway = Gateway::builder().reals(&config).start();
        gateway.wait_ready();
        gateway
    }

    /// Returns what NumPy computes for these token ids.
    fn reference(&self, texts: &[Vec<u64>]) -> Vec<Value> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/bge_m3_reference.py");
        let request = json!({
            "model": self.path("m3.gguf"), "sparse": self.path("sparse.safetensors"),
            "colbert": self.path("colbert.safetensors"), "unweighted": SPECIAL, "texts": texts,
        });
        let mut child = Command::new(python())
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(request.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

#[track_caller]
fn ask(client: &Client, path: &str, body: &Value) -> Value {
    let answer = client.post_json(path, body);
    assert_eq!(answer.status(), 200, "{path} {:.200}: {}", body.to_string(), answer.text());
    answer.json()
}

#[track_caller]
fn refused(client: &Client, path: &str, body: &Value) -> String {
    let answer = client.post_json(path, body);
    assert_eq!(answer.status(), 400, "{path} {:.200}: {}", body.to_string(), answer.text());
    answer.text()
}

#[track_caller]
fn assert_close(one: &Value, other: &Value, what: &str) {
    assert_within(TOLERANCE, one, other, what);
}

/// Compares numbers, lists of them and objects of them.
#[track_caller]
fn assert_within(tolerance: f64, one: &Value, other: &Value, what: &str) {
    match (one, other) {
        (Value::Array(ones), Value::Array(others)) => {
            assert_eq!(ones.len(), others.len(), "{what}");
            ones.iter().zip(others).for_each(|(one, other)| assert_within(tolerance, one, other, what));
        }
        (Value::Object(ones), Value::Object(others)) => {
            assert_eq!(ones.keys().collect::<Vec<_>>(), others.keys().collect::<Vec<_>>(), "{what}");
            ones.iter().for_each(|(name, one)| assert_within(tolerance, one, &others[name], what));
        }
        _ => {
            let (one, other) = (one.as_f64().unwrap(), other.as_f64().unwrap());
            assert!((one - other).abs() < tolerance, "{what}: {one} is not {other}");
        }
    }
}

fn ids_of(client: &Client, text: &str) -> Vec<u64> {
    let answer = ask(client, "/tokenize", &json!({"model": "m3", "content": text, "add_special": true}));
    serde_json::from_value(answer["tokens"].clone()).unwrap()
}

fn entries(answer: &Value) -> &Vec<Value> {
    answer["data"].as_array().unwrap_or_else(|| panic!("no list: {answer}"))
}

#[test]
fn one_pass_gives_what_numpy_computes_from_the_weights() {
    let files = Files::create();
    let gateway = files.serve();
    let client = gateway.client();
    let ids: Vec<Vec<u64>> = TEXTS.iter().map(|text| ids_of(&client, text)).collect();
    let expected = files.reference(&ids);
    assert!(expected[0]["sparse"].as_object().is_some_and(|weights| weights.len() > 2), "{}", expected[0]["sparse"]);
    assert!(
        expected.iter().all(|one| one["sparse"]
            .as_object()
            .unwrap()
            .keys()
            .all(|id| !["0", "1", "2"].contains(&&**id)))
    );
    let all = json!({"model": "m3", "input": TEXTS, "return_sparse": true, "return_colbert": true});
    let all = ask(&client, OPENAI, &all);
    let tokens = ask(&client, "/embed_all", &json!({"model": "m3", "inputs": TEXTS}));
    for (at, (entry, expected)) in entries(&all).iter().zip(&expected).enumerate() {
        assert_eq!((&entry["index"], &entry["object"]), (&json!(at), &json!("embedding")));
        assert_close(&entry["embedding"], &expected["dense"], "dense");
        assert_close(&entry["sparse_embedding"], &expected["sparse"], "sparse");
        assert_close(&entry["colbert_embedding"], &expected["colbert"], "colbert");
        assert_within(TOKEN_TOLERANCE, &tokens[at], &expected["tokens"], "tokens");
        assert_eq!(expected["colbert"][0].as_array().unwrap().len(), COLBERT_WIDTH);
    }
    let count: usize = ids.iter().map(Vec::len).sum();
    assert_eq!(all["usage"], json!({"prompt_tokens": count, "total_tokens": count}));
    each_kind_stands_where_its_clients_read_it(&client, &expected);
    // Ids and texts in one request, and a text that is given as its ids.
    let mixed = json!({"model": "m3", "input": [ids[0], TEXTS[1], ids[3]], "embedding_type": "sparse"});
    for (entry, at) in entries(&ask(&client, OPENAI, &mixed)).iter().zip([0, 1, 3]) {
        assert_close(&entry["embedding"], &expected[at]["sparse"], "ids beside texts");
    }
}

fn each_kind_stands_where_its_clients_read_it(client: &Client, expected: &[Value]) {
    let first = |members: Value| {
        let mut body = json!({"input": TEXTS[0]});
        body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        ask(client, OPENAI, &body)["data"][0].clone()
    };
    let of = |kind: &str| &expected[0][kind];
    assert_close(&first(json!({"embedding_type": "sparse"}))["embedding"], of("sparse"), "sparse");
    assert_close(&first(json!({"embedding_type": "colbert"}))["embedding"], of("colbert"), "colbert");
    let named = first(json!({"return_dense": true, "return_sparse": true, "return_colbert_vecs": true}));
    assert_close(&named["embedding"], of("dense"), "dense");
    assert_close(&named["lexical_weights"], of("sparse"), "FlagEmbedding's sparse");
    assert_close(&named["colbert_vecs"], of("colbert"), "FlagEmbedding's colbert");
    let only = first(json!({"return_dense": false, "return_sparse": true}));
    assert_eq!((&only["embedding"], only.get("colbert_embedding")), (&json!([]), None));
    assert_close(&only["sparse_embedding"], of("sparse"), "sparse alone");
    let hybrid = first(json!({"return_sparse": true, "dimensions": 8, "encoding_format": "base64"}));
    assert!(hybrid["embedding"].as_str().is_some_and(|text| text.len() == 44), "8 floats in base64: {hybrid}");
    // text-embeddings-inference: a list of weights for each text.
    let weights = ask(client, "/embed_sparse", &json!({"inputs": TEXTS}));
    for (weights, expected) in weights.as_array().unwrap().iter().zip(expected) {
        let by_id: BTreeMap<String, Value> = weights
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| (entry["index"].to_string(), entry["value"].clone()))
            .collect();
        assert_close(&json!(by_id), &expected["sparse"], "TEI's sparse");
    }
}

/// Heads change nothing for clients that want one vector for each text, in whatever dialect.
#[test]
fn dense_vectors_are_those_of_the_same_model_without_heads() {
    let files = Files::create();
    let gateway = files.serve();
    let client = gateway.client();
    // More than one call, and texts that all differ.
    let many: Vec<String> = (0..150).map(|number| format!("{number} {}", TEXTS[number % 2])).collect();
    for (path, body) in [
        (OPENAI, json!({"input": TEXTS})),
        (OPENAI, json!({"input": many})),
        (OPENAI, json!({"input": [[1, 337, 334, 2], [1, 341, 2]], "dimensions": 16})),
        (OPENAI, json!({"input": TEXTS[0], "output_dtype": "int8"})),
        (OPENAI, json!({"input": TEXTS[0], "input_type": "query", "normalized": false})),
        ("/embeddings", json!({"input": TEXTS})),
        ("/v1/embed", json!({"texts": TEXTS})),
        (
            "/v2/embed",
            json!({"texts": TEXTS, "input_type": "search_document", "embedding_types": ["float", "ubinary"]}),
        ),
        ("/embed", json!({"inputs": TEXTS, "normalize": false})),
        ("/", json!({"inputs": TEXTS})),
        ("/similarity", json!({"inputs": {"source_sentence": TEXTS[0], "sentences": [TEXTS[1], TEXTS[3]]}})),
        ("/api/embed", json!({"input": TEXTS})),
        ("/api/embeddings", json!({"prompt": TEXTS[0]})),
    ] {
        for (with, without) in [("m3", "whole"), ("mean", "mean_whole")] {
            let asked = |model: &str| {
                let mut body = body.clone();
                body["model"] = json!(model);
                if model == "whole" && body.get("input_type") == Some(&json!("query")) {
                    body["input"] = json!(format!("hello {}", TEXTS[0]));
                    body.as_object_mut().unwrap().remove("input_type");
                }
                let mut answer = ask(&client, path, &body);
                // What names the request or the model.
                for member in ["id", "model", "object", "response_type", "texts", "meta"] {
                    answer.as_object_mut().map(|answer| answer.remove(member));
                }
                let entries = answer.get_mut("data").and_then(Value::as_array_mut).into_iter().flatten();
                entries.for_each(|entry| _ = entry.as_object_mut().unwrap().remove("object"));
                answer
            };
            assert_close(&asked(with), &asked(without), &format!("{path} {body:.80} of {with}"));
        }
    }
    // OpenAI's SDK asks for base64 by itself.
    let packed = ask(&client, OPENAI, &json!({"model": "m3", "input": TEXTS[0], "encoding_format": "base64"}));
    assert_eq!(packed["data"][0]["embedding"].as_str().map(str::len), Some((WIDTH * 4).div_ceil(3) * 4));
    let counted = client.header("x-request-id", "counted");
    let tokens = ask(&counted, OPENAI, &json!({"model": "m3", "input": TEXTS}))["usage"]["prompt_tokens"].to_string();
    let line = access_log_line(&gateway, "counted");
    assert_eq!((&*line["prompt_tokens"], &*line["model"]), (&*tokens, "m3"), "llama-server does not report them");
}

#[test]
fn inputs_that_are_too_long_are_cut_or_refused_one_by_one() {
    let files = Files::create();
    let gateway = files.serve();
    let client = gateway.client();
    let long = "the small bird ".repeat(60);
    let body = |members: Value| {
        let mut body = json!({"model": "m3", "input": [TEXTS[0], long], "return_sparse": true});
        body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        body
    };
    assert!(refused(&client, OPENAI, &body(json!({}))).contains("input[1]"), "the one that is too long is named");
    let cut = ask(&client, OPENAI, &body(json!({"truncate": true})));
    let ids = ids_of(&client, TEXTS[0]);
    assert_eq!(cut["usage"]["prompt_tokens"], json!(128 + ids.len()), "all of the context is used: {cut:.300}");
    let expected = files.reference(&[ids]);
    assert_close(&cut["data"][0]["sparse_embedding"], &expected[0]["sparse"], "its neighbour");
    assert!(!cut["data"][1]["sparse_embedding"].as_object().unwrap().is_empty());
}

#[test]
fn vectors_without_a_head_for_them_are_refused_with_the_name_of_the_setting() {
    let files = Files::create();
    let gateway = files.serve();
    let client = gateway.client();
    for (path, body, expected) in [
        (
            OPENAI,
            json!({"model": "m3", "input": ["a", "b ".repeat(50), [7_000]], "encoding_format": "float"}),
            "invalid tokens",
        ),
        (OPENAI, json!({"model": "mean", "input": "a", "embedding_type": "colbert"}), "heads.colbert"),
        (OPENAI, json!({"model": "mean", "input": "a", "return_colbert_vecs": true}), "heads.colbert"),
        (OPENAI, json!({"model": "whole", "input": "a", "return_sparse": true}), "heads.sparse"),
        ("/embed_sparse", json!({"model": "whole", "inputs": "a"}), "heads.sparse"),
        ("/embed_all", json!({"model": "whole", "inputs": "a"}), "only by models with heads"),
    ] {
        let said = refused(&client, path, &body);
        assert!(said.contains(expected), "{path} {body}: {said}");
    }
    let sparse = ask(&client, OPENAI, &json!({"model": "mean", "input": TEXTS[0], "embedding_type": "sparse"}));
    assert!(sparse["data"][0]["embedding"].is_object(), "the head that it has: {sparse}");
    let unknown = client.post_json("/embed_sparse", &json!({"model": "none", "inputs": "a"}));
    assert_eq!((unknown.status(), &unknown.json()["error_type"]), (404, &json!("Validation")), "{}", unknown.text());
}

/// What takes over gives one vector for each text, in llama-server's own form or in OpenAI's, and nothing else.
#[test]
fn a_model_without_heads_takes_over_for_dense_vectors_alone() {
    let files = Files::create();
    // llama-server does not load it: it has two layers.
    files.write_model("broken.gguf", b"bert.block_count", 3);
    let remote = Remote::start(Reply::Status(
        200,
        json!({"object": "list", "model": "m", "usage": {"prompt_tokens": 3, "total_tokens": 3},
            "data": [{"object": "embedding", "index": 0, "embedding": [3.0, 4.0]}]}),
    ));
    let config = format!(
        "defaults: {{restart_limit: 0, preload: true, args: [-fa, 'off']}}
models:
  one: {{file: {broken}, heads: {{sparse: sparse.safetensors}}}}
  other: {{file: {broken}, heads: {{sparse: sparse.safetensors}}}}
  whole: {{file: {m3}}}
  without: {{file: {broken}}}
  m3: {{file: {m3}, heads: {{sparse: sparse.safetensors}}}}
model_list: [{{model_name: far, litellm_params: {{api_base: '{url}'}}, model_info: {{mode: embedding}}}}]
fallbacks: {{one: [whole], other: [far], without: [m3, whole]}}
",
        broken = files.path("broken.gguf").display(),
        m3 = files.path("m3.gguf").display(),
        url = remote.url(),
    );
    let gateway = Gateway::builder().reals(&config).start();
    let client = gateway.client();
    eventually("the broken models are given up, and the others serve", REAL_MODEL_READY, || {
        let dense = |model: &str| client.post_json(OPENAI, &json!({"model": model, "input": "rain"})).status();
        ["one", "other"].map(dense) == [200, 200]
    });
    let vector =
        |model: &str, text: &str| ask(&client, OPENAI, &json!({"model": model, "input": text}))["data"][0].clone();
    assert_close(&vector("one", TEXTS[0])["embedding"], &vector("whole", TEXTS[0])["embedding"], "of a llama-server");
    assert_close(&vector("other", "rain")["embedding"], &json!([0.6, 0.8]), "of a remote backend");
    let received: Value = serde_json::from_str(&remote.received().pop().unwrap().body).unwrap();
    assert_eq!(received, json!({"model": "far", "input": ["rain"]}));
    // One that has heads does not take over from one that has none, whose answer is passed on as it is.
    assert_close(&vector("without", TEXTS[0])["embedding"], &vector("whole", TEXTS[0])["embedding"], "without heads");
    assert!(gateway.output().contains("fallbacks.without: m3 never takes over: it has heads"), "{}", gateway.output());
    for model in ["one", "other"] {
        let said = refused(&client, OPENAI, &json!({"model": model, "input": "rain", "embedding_type": "sparse"}));
        assert!(said.contains("heads.sparse"), "{said}");
    }
}

/// A reload reads the files again. What is in them is applied by the gateway, so its llama-servers go on.
#[test]
fn a_reload_takes_new_heads_and_refuses_broken_ones() {
    let files = Files::create();
    let gateway = files.serve();
    let (client, admin) = (gateway.client(), gateway.client_with(ADMIN));
    let weights = || ask(&client, OPENAI, &json!({"input": TEXTS[0], "embedding_type": "sparse"}))["data"][0].clone();
    let (before, workers) = (weights(), gateway.child_pids());
    files.write_head("sparse.safetensors", 1, WIDTH, 8);
    assert_eq!(admin.post_json("/reload", &json!({})).status(), 200);
    let after = weights();
    assert_ne!(before, after);
    let expected = files.reference(&[ids_of(&client, TEXTS[0])]);
    assert_close(&after["embedding"], &expected[0]["sparse"], "the new head");
    files.write_head("sparse.safetensors", 1, WIDTH + 1, 9);
    let broken = admin.post_json("/reload", &json!({}));
    assert!(broken.status() >= 400 && broken.text().contains("models.m3.heads.sparse"), "{}", broken.text());
    assert_eq!((weights(), gateway.child_pids()), (after, workers));
}

#[test]
fn heads_that_cannot_be_used_are_a_problem_of_their_setting() {
    let files = Files::create();
    fs::write(files.path("page.safetensors"), "<html>not found</html>").unwrap();
    files.write_head("narrow.safetensors", 1, WIDTH - 1, 7);
    let file = files.path("m3.gguf").display().to_string();
    let whole = "heads: {sparse: sparse.safetensors}";
    for (model, parts) in [
        (
            format!("{{file: {file}, heads: {{sparse: none.safetensors}}}}"),
            ["models.m.heads.sparse: \"none.saf", "No such file"],
        ),
        (
            format!("{{file: {file}, heads: {{sparse: page.safetensors}}}}"),
            ["models.m.heads.sparse", "is no safetensors file"],
        ),
        (
            format!("{{file: {file}, heads: {{sparse: narrow.safetensors}}}}"),
            ["shape [1, 63], and [1, 64]", "bge-m3-heads.py"],
        ),
        (
            format!("{{file: {file}, heads: {{sparse: colbert.safetensors}}}}"),
            ["[48, 64], and [1, 64]", "heads.sparse"],
        ),
        (format!("{{file: {file}, heads: {{colbert: narrow.safetensors}}}}"), ["models.m.heads.colbert", "[N, 64]"]),
        (
            format!("{{file: {file}, heads: {{dense: sparse.safetensors}}}}"),
            ["models.m.heads.dense", "sparse and colbert"],
        ),
        (format!("{{file: {file}, heads: {{sparse: 7}}}}"), ["models.m.heads.sparse", "expected the name"]),
        (format!("{{file: {file}, heads: sparse.safetensors}}"), ["models.m.heads", "expected a mapping"]),
        (format!("{{file: {file}, heads: {{}}}}"), ["models.m.heads", "expected a mapping"]),
        (format!("{{file: {file}, args: [--pooling, cls], {whole}}}"), ["models.m.heads", "--pooling cls"]),
        (format!("{{file: tiny-chat.gguf, {whole}}}"), ["models.m.heads", "the model is for chat"]),
        (format!("{{file: tiny-rerank.gguf, {whole}}}"), ["models.m.heads", "the model is for rerank"]),
        (format!("{{command: 'serve {{port}}', {whole}}}"), ["models.m.heads", "a command of its own"]),
        (
            format!(
                "{{kind: embedding, {whole}}}\nmodel_list: [{{model_name: m, litellm_params: {{api_base: 'http://h/v1'}}}}]"
            ),
            ["models.m.heads", "there is no file"],
        ),
        (
            format!(
                "{{file: {file}, {whole}}}\nmodel_list: [{{model_name: m, litellm_params: {{api_base: 'http://h/v1'}}}}]"
            ),
            ["models.m.heads", "remote backends serve this model too"],
        ),
    ] {
        let (status, output) = Gateway::builder().reals(&format!("models:\n  m: {model}\n")).run_to_exit();
        assert_eq!(status.code(), Some(78), "{model}: {output}");
        assert!(parts.iter().all(|part| output.contains(part)), "{model}: {output}");
    }
}

#[test]
fn every_command_of_the_page_about_models_with_heads_works() {
    let files = Files::create();
    let gateway = files.serve();
    for CommandOutput { command, text } in
        run_page_where("EMBEDDINGS.md", &gateway, 2, |block| block.contains("bge-m3"))
    {
        assert!(serde_json::from_str::<Value>(&text).is_ok(), "{command}: {text}");
    }
}

#[test]
fn openais_sdk_reads_every_kind_of_vectors() {
    let files = Files::create();
    let gateway = files.serve();
    let mut client = Command::new(python());
    client.arg(script("bge_m3_client.py")).arg(format!("{}/v1", gateway.url())).arg(USER);
    run_client(&mut client);
}

/// Runs the script that converts heads; returns its exit status and what it says.
fn convert(from: &Path, to: &Path) -> (Option<i32>, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/bge-m3-heads.py");
    let output = Command::new(python()).arg(script).arg(from).arg(to).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// The files were written by PyTorch 2.6: `torch.save(torch.nn.Linear(4, 1).half().state_dict(), "sparse_linear.pt")`, and
/// `colbert_linear.pt` with three outputs.
#[test]
fn published_heads_are_converted_without_pytorch() {
    let folder = tempfile::tempdir().unwrap();
    let published = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/linear");
    let (status, said) = convert(&published, &folder.path().join("made"));
    assert_eq!(status, Some(0), "{said}");
    let [sparse, colbert] =
        ["sparse", "colbert"].map(|head| folder.path().join(format!("made/{head}_linear.safetensors")));
    assert_eq!(said, format!("{}\n{}\n", sparse.display(), colbert.display()));
    let heads = EmbeddingHeads::read(Some(&sparse), Some(&colbert), 4, Vec::new()).unwrap();
    assert!(heads.has(Head::Sparse) && heads.has(Head::Colbert));
    // What PyTorch says of their weights.
    let weights = [-0.495_849_6, -0.394_531_25, -0.214_111_33, -0.473_144_53];
    for (at, weight) in weights.into_iter().enumerate() {
        let mut row = [0.0; 4];
        row[at] = -1.0;
        assert_eq!(heads.weight(&row).to_bits(), f32::max(-weight - 0.028_381_348, 0.0).to_bits());
    }
    let rows = [vec![9.0; 4], vec![1.0, 0.0, 0.0, 0.0], vec![0.0, 0.0, 0.0, 1.0]];
    let bias = [0.449_218_75, 0.347_412_1, 0.374_755_86];
    let columns = [[-0.439_941_4, 0.387_939_45, -0.098_510_74], [0.094_421_39, -0.350_097_66, -0.324_462_9]];
    let expected = columns.map(|column| [0, 1, 2].map(|at| column[at] + bias[at]));
    for (given, expected) in heads.colbert_rows(&rows).iter().zip(expected) {
        assert!(given.iter().zip(expected).all(|(one, other)| (one - other).abs() < 1e-6), "{given:?} {expected:?}");
    }
}

/// A pickle can name any function. One that names another than those that make tensors is not run.
#[test]
fn a_file_that_is_no_head_is_not_converted_and_runs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (source, made) = (folder.path().join("from"), folder.path().join("made"));
    fs::create_dir(&source).unwrap();
    let ran = folder.path().join("ran");
    let hostile = format!("cos\nsystem\n(S'touch {}'\ntR.", ran.display());
    let archive = |pickle: &str| {
        let program = "import sys, zipfile; zipfile.ZipFile(sys.argv[1], 'w').writestr('a/data.pkl', sys.argv[2])";
        let path = source.join("sparse_linear.pt");
        let status = Command::new(python()).args(["-c", program]).arg(path).arg(pickle).status().unwrap();
        assert!(status.success());
    };
    let (status, said) = convert(&source, &made);
    assert!(status == Some(1) && said.contains("there is neither sparse_linear.pt nor colbert_linear.pt"), "{said}");
    for (pickle, expected) in [
        (&*hostile, "it names os.system"),
        ("(dp0\n.", "it has no tensor 'bias'"),
        ("(lp0\n.", "it is no dictionary of tensors"),
        ("x", "its pickle cannot be read"),
        ("", "its pickle cannot be read"),
    ] {
        archive(pickle);
        let (status, said) = convert(&source, &made);
        assert!(status == Some(1) && said.contains(expected) && !said.contains("Traceback"), "{pickle}: {said}");
    }
    fs::write(source.join("sparse_linear.pt"), "<html>").unwrap();
    let (status, said) = convert(&source, &made);
    assert!(status == Some(1) && said.contains("it is no zip archive"), "{said}");
    assert!(!ran.exists() && !made.exists());
}
