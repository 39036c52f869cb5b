use super::*;

#[test]
fn every_problem_names_its_location() {
    let long = "x".repeat(300);
    for (text, parts) in [
        ("models: {q: {file: a, ctx: lots}}", &["models.q.ctx: expected a number of tokens", "found \"lots\""][..]),
        ("models: {q: {}}", &["models.q: no worker serves this model", "file: NAME.gguf"]),
        ("models: {q: {file: a, command: [x, '{port}']}}", &["models.q: has both file and command"]),
        ("models: {q: {command: [x, y]}}", &["models.q.command: has no {port}", "127.0.0.1"]),
        ("models: {q: {command: ['{port}']}}", &["models.q.command: has no {port}"]),
        ("models: {q: {command: []}}", &["models.q.command: expected a list of words"]),
        ("models: {q: {command: 'x {port}', ngl: 3}}", &["models.q.ngl: is llama-server's"]),
        ("models: {q: {command: 'x {port}', health: ok}}", &["models.q.health: expected a path"]),
        (
            "models: {q: {command: 'x {port}', served_model_name: ''}}",
            &["models.q.served_model_name: the name of a model must have 1 to"],
        ),
        (
            "models: {q: {file: a, served_model_name: b}}",
            &["models.q.served_model_name: does not apply to llama-server", "aliases"],
        ),
        ("defaults: {served_model_name: a}", &["defaults.served_model_name: belongs to a single model"]),
        ("models: {q: {file: a, health: /x}}", &["models.q.health: llama-server is always probed at /health"]),
        ("models: {q: {file: a, args: [--port, '1']}}", &["models.q.args: expected", "set PORT for the gateway"]),
        ("models: {q: {file: a, args: '--host=x'}}", &["models.q.args: expected", "without --host"]),
        ("models: {q: {file: a, kind: talk}}", &["models.q.kind: expected chat, embedding or rerank"]),
        ("models: {q: {file: a, strategy: best}}", &["models.q.strategy: expected least-busy"]),
        ("models: {q: {file: a, dimensions: 0}}", &["models.q.dimensions: expected a whole number from 1"]),
        ("models: {q: {file: a, dimensions: []}}", &["models.q.dimensions: expected 1 to 64 lengths"]),
        ("models: {q: {file: a, dimensions: [8, x]}}", &["models.q.dimensions: expected a whole number from 1"]),
        ("models: {q: {file: a, prompts: [query]}}", &["models.q.prompts: expected a mapping such as"]),
        ("models: {q: {file: a, instruction: 1}}", &["models.q.instruction: expected a string", "quotes"]),
        ("defaults: {instruction: x}", &["defaults.instruction: belongs to a single model"]),
        ("models: {q: {file: a, prompts: {query: 1}}}", &["models.q.prompts.query: expected a text", "quotes"]),
        ("defaults: {dimensions: 8}", &["defaults.dimensions: belongs to a single model"]),
        ("models: {q: {file: a, replicas: 0}}", &["models.q.replicas: expected a whole number from 1"]),
        ("models: {q: {file: a, replicas: 65}}", &["models.q.replicas: expected 64 at most"]),
        ("models: {q: {file: a, weight: 0}}", &["models.q.weight: expected a number above 0"]),
        ("models: {q: {file: a, memory: 5T}}", &["models.q.memory: expected a size above 0"]),
        ("models: {q: {file: a, tier: a/b}}", &["models.q.tier: the name of a tier must have no slash"]),
        ("models: {q: {file: a, sampling: {stream: true}}}", &["models.q.sampling: \"stream\" has no default"]),
        ("models: {q: {file: a, strip_params: [model]}}", &["models.q.strip_params: \"model\" cannot be removed"]),
        ("models: {q: {file: a, aliases: [1]}}", &["models.q.aliases: expected a list of strings", "quotes"]),
        ("models: {q: {file: a, parallel: 1000000}}", &["models.q: ctx: 16384 tokens for each of 1000000 slots"]),
        ("models: {' q': {file: a}}", &["models. q: the name of a model must have no control characters"]),
        ("models: {q: {file: a, aliases: [\"a\\tb\"]}}", &["models.q: alias \"a\\tb\": the name of a model"]),
        (&format!("models: {{{long}: {{file: a}}}}"), &["the name of a model must have 1 to 256 bytes"]),
        (
            "models: {q: {file: a, aliases: [r]}, r: {file: b}}",
            &["models.q: the alias \"r\" is also a name of models.r"],
        ),
        (
            "models: {q: {file: a, aliases: [x]}, r: {file: b, aliases: [x]}}",
            &["models.r: the alias \"x\" is also a name of models.q"],
        ),
        ("defaults: {file: a}", &["defaults.file: belongs to a single model"]),
        ("defaults: {ctx: 1}", &["defaults.ctx: expected a number of tokens from 32"]),
        ("models: {q: {file: a}}\nfallbacks: {q: [r]}", &["fallbacks.q: there is no model and no tier \"r\""]),
        (
            "models: {qwen: {file: a}}\nfallbacks: {qwne: [qwen]}",
            &["fallbacks.qwne: there is no", "did you mean qwen?"],
        ),
        ("models: {q: {file: a}}\nfallbacks: {q: [q]}", &["fallbacks.q: names itself"]),
        (
            "router_settings: {model_group_alias: {a: b}}",
            &["router_settings.model_group_alias.a: there is no model \"b\""],
        ),
        ("model_list: [{litellm_params: {api_base: 'http://a'}}]", &["model_list[0].model_name: is missing"]),
        (
            "models: {a: {}}\nmodel_list: [{model_name: a, litellm_params: {model: b}}]",
            &["models.a: no worker serves this model"],
        ),
        (
            "model_list: [{model_name: a, litellm_params: {model: b}}]",
            &["model_list[0]: \"a\" cannot be served: it has no api_base", "set api_base"],
        ),
        (
            "model_list: [{model_name: a, litellm_params: {model: openai/b}}]",
            &["model_list[0]: \"a\" cannot be served: it has no api_key", "OPENAI_API_KEY"],
        ),
        (
            "models: {qwen: {file: a}}\nmodel_list: [{model_name: a, litellm_params: {model: qwne}}]",
            &["model_list[0].litellm_params.api_base: is missing", "did you mean qwen?"],
        ),
        (
            "model_list: [{model_name: a, litellm_params: {api_base: 'ftp://a'}}]",
            &["litellm_params.api_base: expected a URL"],
        ),
        (
            "model_list: [{model_name: a, litellm_params: {api_base: 'http://a', api_path: '/a?b'}}]",
            &["model_list[0].litellm_params.api_path: expected a path such as /v1, without a query"],
        ),
        (
            "model_list: [{model_name: a, health: /../x, litellm_params: {api_base: 'http://a'}}]",
            &["model_list[0].health: expected a path without . and .."],
        ),
        (
            "models: {q: {command: 'x {port}', health: '/%zz?a=b'}}",
            &["models.q.health: expected two hexadecimal digits after each %"],
        ),
        (
            "model_list: [{model_name: a, litellm_params: {api_base: os.environ/NOT}}]",
            &["model_list[0]: \"a\" cannot be served: api_base: the environment variable NOT is not set", "set NOT"],
        ),
        (
            "model_list: [{model_name: a, litellm_params: {api_base: 'http://a', api_key: os.environ/NOT}}]",
            &["model_list[0]: \"a\" cannot be served: api_key: the environment variable NOT is not set"],
        ),
        (
            "model_list: [{model_name: a, litellm_params: {api_base: os.environ/NOT, rpm: many}}]",
            &["model_list[0].litellm_params.rpm: expected a whole number from 1"],
        ),
        (
            "model_list: [{model_name: a, litellm_params: {api_base: 'http://a', api_key: ''}}]",
            &["litellm_params.api_key: expected 1 to"],
        ),
        (
            "model_list: [{model_name: a, litellm_params: {api_base: 'http://a', model: azure/x}}]",
            &["model_list[0]: \"a\" cannot be served: azure speaks an API of its own"],
        ),
        (
            "model_list: [{model_name: a, litellm_params: {api_base: 'http://a', rpm: many}}]",
            &["litellm_params.rpm: expected a whole number from 1"],
        ),
        (
            "model_list: [{model_name: '*', litellm_params: {model: '*'}}]",
            &["model_list[0]: \"*\" cannot be served: it has no api_base"],
        ),
        (
            "model_list: [{model_name: a, litellm_params: {api_base: 'http://a', api-key: sk-x}}]",
            &["model_list[0].litellm_params.api-key: unknown key", "did you mean api_key?"],
        ),
        (
            "model_list: [{model_name: a, litellm_params: {api_base: 'http://a', messages: [x]}}]",
            &["model_list[0].litellm_params: \"messages\" has no default"],
        ),
        (
            "model_list: [{model_name: a, litellm_params: {api_base: 'http://a', extra_body: [x]}}]",
            &["model_list[0].litellm_params.extra_body: expected a mapping"],
        ),
        (
            "model_list: [{model_name: a, litellm_params: {api_base: 'http://a', extra_body: {k: [os.environ/NOT]}}}]",
            &["\"a\" cannot be served: k: the environment variable NOT is not set"],
        ),
        (
            "model_list: [{model_name: a, litellm_params: {api_base: 'http://a', extra_headers: x}}]",
            &["model_list[0].litellm_params.extra_headers: expected a mapping"],
        ),
        (
            "model_list: [{model_name: a, litellm_params: {api_base: 'http://a', extra_headers: {Connection: x}}}]",
            &["model_list[0].litellm_params.extra_headers.Connection: the gateway sets this header itself"],
        ),
        (
            "model_list: [{model_name: a, litellm_params: {api_base: 'http://a', headers: {a b: x}}}]",
            &["model_list[0].litellm_params.headers.a b: no header can have this name"],
        ),
        (
            "model_list: [{model_name: a, litellm_params: {api_base: 'http://a', headers: {x: \"a\\tb\\n\"}}}]",
            &["model_list[0].litellm_params.headers.x: no header can have this value"],
        ),
        (
            "model_list: [{model_name: a, litellm_params: {api_base: 'http://a', headers: {x: os.environ/NOT}}}]",
            &["\"a\" cannot be served: extra_headers: the environment variable NOT is not set"],
        ),
        (
            "credential_list: [{credential_name: cred}]\n\
             model_list: [{model_name: a, litellm_params: {api_base: 'http://a', litellm_credential_name: crde}}]",
            &["litellm_params.litellm_credential_name: credential_list has no \"crde\"", "did you mean cred?"],
        ),
        (
            "models: {q: {file: a, kind: chat}}\ndefault_models: {rerank: q}",
            &["default_models.rerank: the model \"q\" is for chat"],
        ),
        (
            "models: {qwen: {file: a}}\ndefault_models: {chat: qwne}",
            &["default_models.chat: there is no model \"qwne\"", "did you mean qwen?"],
        ),
        (
            "model_list: [{model_name: 'x/*', litellm_params: {api_base: 'http://a'}}]\nfallbacks: {'x/*': ['x/*']}",
            &["fallbacks.x/*: \"x/*\" is a pattern", "name a model"],
        ),
        (
            "model_list: [{model_name: a, litellm_params: {api_base: 'http://a'}, model_info: {mode: talk}}]",
            &["model_info.mode: expected chat"],
        ),
    ] {
        let problems = resolved(text, []).map(|resolved| resolved.config.catalogue).expect_err(text);
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        for part in parts {
            assert!(problems[0].contains(part), "{part} in {problems:?}");
        }
    }
}

#[test]
fn problems_of_settings_file_and_tiers_are_reported_together() {
    let text = "server: {port: x}\nmodels: {q: {file: a, ctx: x}}\nnonsense: 1\n";
    let problems = resolved(text, [("HEAVY_MODEL_PATH", "h"), ("HEAVY_N_CTX", "x")]).map(drop).unwrap_err();
    assert_eq!(problems.len(), 4, "{problems:?}");
}

#[test]
fn problems_never_quote_a_key() {
    let text =
        "model_list: [{model_name: a, litellm_params: {api_base: 'http://u:sesame@h', api_key: 'sesame\\u00e4'}}]\n";
    let text = text.replace("'sesame\\u00e4'", "\"sesame\\u00e4\"");
    let problems = resolved(&text, [("LIGHT_BACKEND", "http://u:sesame@h")]).map(drop).unwrap_err().join("\n");
    assert!(problems.contains("api_key") && problems.contains("LIGHT_BACKEND"), "{problems}");
    assert!(!problems.contains("sesame"), "{problems}");
}
