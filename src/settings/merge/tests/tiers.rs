use super::*;

#[test]
fn models_of_tiers_are_read_from_environment_variables() {
    let catalogue = catalogue(
        "",
        [
            ("LIGHT_MODEL_PATH", "/m/Light-00001-of-00002.gguf"),
            ("LIGHT_BACKEND", "llama_cpp"),
            ("LIGHT_N_CTX", "4096"),
            ("LIGHT_N_BATCH", "512"),
            ("LIGHT_N_THREADS", "3"),
            ("LIGHT_N_GPU_LAYERS", "-1"),
            ("LIGHT_TEMPERATURE", "0.5"),
            ("LIGHT_TOP_P", ".9"),
            ("LIGHT_TOP_K", "40"),
            ("LIGHT_MAX_TOKENS", "256"),
            ("LIGHT_REPEAT_PENALTY", "1.1"),
            ("LIGHT_USE_MMAP", "false"),
            ("LIGHT_USE_MLOCK", "true"),
            ("EMBEDDING_MODEL_PATH", "e.gguf"),
            ("RERANKER_BACKEND", "http://server1:8000/v1"),
            ("EXTRA_ARGS", "--jinja"),
        ],
    );
    let [light, embedding, reranker] = catalogue.models.as_slice() else { panic!("{:?}", ids(&catalogue)) };
    assert_eq!((light.id.as_deref(), light.tier.as_deref(), light.kind), (Some("Light"), Some("light"), None));
    let engine = &local(light).engine;
    assert_eq!((engine.ctx.0, engine.threads, engine.ngl), (4096, 3, GpuLayers::Count(999)));
    assert_eq!(engine.batch, 512);
    assert_eq!(engine.extra_args.words, ["--jinja"]);
    assert_eq!(local(light).load_mode, LoadMode { mmap: Some(false), mlock: true });
    let sampling: Vec<String> = light.rewrite.sampling.iter().map(|(name, json)| format!("{name}={json}")).collect();
    assert_eq!(sampling, ["temperature=0.5", "top_p=0.9", "top_k=40", "max_tokens=256", "repeat_penalty=1.1"]);
    assert_eq!((embedding.tier.as_deref(), embedding.kind), (Some("embedding"), None), "the GGUF file decides");
    assert_eq!(local(embedding).start, Start::Named("e.gguf".into()));
    assert_eq!((reranker.id.as_deref(), reranker.kind), (Some("reranker"), Some(ModelKind::Rerank)));
    assert_eq!(reranker.remotes[0].api_base, "http://server1:8000/v1");
}

#[test]
fn variables_of_a_tier_without_effect_cause_warnings() {
    let resolved = resolved(
        "",
        [("HEAVY_N_CTX", "64"), ("HEAVY_BACKEND", "llama_cpp"), ("LIGHT_BACKEND", "http://h"), ("LIGHT_N_CTX", "64")],
    );
    let warnings = resolved.unwrap().warnings;
    assert_eq!(
        warnings,
        [
            "LIGHT_N_CTX has no effect on a remote backend",
            "HEAVY_N_CTX has no effect without HEAVY_MODEL_PATH",
            "HEAVY_BACKEND has no effect without HEAVY_MODEL_PATH",
        ]
    );
}

#[test]
fn bad_variables_of_a_tier_are_problems() {
    for (variable, value) in [
        ("LIGHT_BACKEND", "vllm"),
        ("LIGHT_N_CTX", "1"),
        ("LIGHT_N_BATCH", "0"),
        ("LIGHT_USE_MMAP", "perhaps"),
        ("LIGHT_TEMPERATURE", "hot"),
        ("LIGHT_N_GPU_LAYERS", "-2"),
        ("LIGHT_TOP_P", "NaN"),
    ] {
        let problems = resolved("", [("LIGHT_MODEL_PATH", "a.gguf"), (variable, value)]).map(drop).expect_err(variable);
        assert!(problems.len() == 1 && problems[0].starts_with(&format!("{variable}=\"{value}\"")), "{problems:?}");
    }
    let twice = [("LIGHT_MODEL_PATH", "a.gguf"), ("HEAVY_MODEL_PATH", "a.gguf")];
    let problems = resolved("", twice).map(drop).unwrap_err();
    assert!(
        problems[0].starts_with("HEAVY_MODEL_PATH: the id \"a\" is also the id of LIGHT_MODEL_PATH"),
        "{problems:?}"
    );
}
