//! The other programs around the gateway: the hub, RunPod's platform, a remote backend, a collector of traces; and the
//! authority that issues the gateway's certificate.

use std::{collections::BTreeSet, fs, path::Path, time::Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::collector::Collector;
use crate::{
    fleet::{FleetSetup, MODELS},
    random::Random,
    support::{
        certificates::{IssuedPair, TestIssuer},
        gateway::test_models,
        mock_hub::MockHub,
        model_file::{self, Kind},
        remote::{Remote, Reply},
        runpod::Platform,
    },
};

/// The repositories of the hub, each with one model.
pub(super) const REPOSITORIES: [&str; 3] = ["Org/One-GGUF", "Org/Two-GGUF", "Org/Three-GGUF"];
/// Bytes of each of these models: several pieces of a download.
const DOWNLOADED: u64 = 3 << 20;

/// The other programs, and the files that the gateway shares with them.
pub(super) struct Neighbours {
    pub(super) platform: Platform,
    pub(super) hub: MockHub,
    pub(super) remote: Remote,
    pub(super) collector: Collector,
    pub(super) folder: TempDir,
    issuer: TestIssuer,
    /// Certificates issued so far.
    issued: u64,
    is_certificate_broken: bool,
    /// The certificate that the gateway has to show, and since when it is in its file.
    pub(super) shown: (Vec<u8>, Instant),
    /// Jobs offered so far.
    pub(super) offered: Vec<Value>,
    pub(super) cancelled: BTreeSet<String>,
}

impl Neighbours {
    pub(super) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let hub = MockHub::start();
        for repository in REPOSITORIES {
            let name = repository.trim_start_matches("Org/").trim_end_matches("-GGUF");
            hub.add(repository, &format!("{name}-Q8_0.gguf"), model_bytes(folder.path(), name));
        }
        fs::create_dir(folder.path().join("tls")).expect("a folder in the temporary folder");
        let mut around = Self {
            platform: Platform::start(),
            hub,
            remote: Remote::start(Reply::Serve),
            collector: Collector::start(),
            folder,
            issuer: TestIssuer::new("ours"),
            issued: 0,
            is_certificate_broken: false,
            shown: (Vec::new(), Instant::now()),
            offered: Vec::new(),
            cancelled: BTreeSet::new(),
        };
        around.platform.forget_calls();
        around.replace_certificate();
        around
    }

    /// Returns how the gateway is set up among them.
    pub(super) fn setup(&self, is_real: bool) -> FleetSetup {
        let (tls, cache) = (self.folder.path().join("tls"), self.folder.path().join("hub"));
        let text = |path: &Path| path.display().to_string();
        let mut settings = self.platform.variables();
        settings.extend([
            ("TLS_CERT", text(&tls.join("cert.pem"))),
            ("TLS_KEY", text(&tls.join("key.pem"))),
            ("CACHE", "all".to_owned()),
            ("CACHE_PERSIST_TO_DISK", "true".to_owned()),
            ("CACHE_MAX_SIZE", "300".to_owned()),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", self.collector.url()),
            ("OTEL_BSP_SCHEDULE_DELAY", "200".to_owned()),
            ("HF_ENDPOINT", self.hub.url()),
            ("HF_HUB_CACHE", text(&cache)),
            ("HF_HUB_OFFLINE", "false".to_owned()),
            ("DOWNLOAD_RETRIES", "1".to_owned()),
            ("COOLDOWN_TIME", "200ms".to_owned()),
            ("HEALTH_CHECK_INTERVAL", "1s".to_owned()),
            ("MAX_CONCURRENT_REQUESTS", "6".to_owned()),
        ]);
        if is_real {
            settings.push(("MODELS_DIR", text(&self.real_models())));
        }
        let more_config = format!(
            "  vectors: {{file: vectors.gguf, memory: 1GiB, parallel: 2}}\n  ranks: {{file: ranks.gguf, memory: 1GiB, parallel: 2}}\n\
             model_list:\n  - {{model_name: far, litellm_params: {{api_base: \"{}\"}}}}\n",
            self.remote.url()
        );
        let more_files = vec![("vectors".to_owned(), Kind::Embedding), ("ranks".to_owned(), Kind::Rerank)];
        FleetSetup { is_real, more_config, more_files, settings }
    }

    /// Creates a folder with a real model under each name.
    fn real_models(&self) -> std::path::PathBuf {
        let folder = self.folder.path().join("models");
        fs::create_dir_all(&folder).expect("a folder in the temporary folder");
        let chats = MODELS.map(|model| (model, "tiny-chat.gguf"));
        for (name, file) in chats.into_iter().chain([("vectors", "tiny-embedding.gguf"), ("ranks", "tiny-rerank.gguf")])
        {
            fs::copy(test_models().join(file), folder.join(format!("{name}.gguf"))).expect("a model can be copied");
        }
        folder
    }

    /// Issues a new certificate, and replaces the files of the old one.
    pub(super) fn replace_certificate(&mut self) {
        self.issued += 1;
        self.is_certificate_broken = false;
        let pair: IssuedPair = self.issuer.issue(&format!("server {}", self.issued));
        pair.write(&self.folder.path().join("tls"));
        self.shown = (pair.certificate, Instant::now());
    }

    /// Replaces the certificate if its file is damaged.
    pub(super) fn mend_certificate(&mut self) {
        if self.is_certificate_broken {
            self.replace_certificate();
        }
    }

    /// Breaks the file of the certificate. The gateway keeps the certificate that it has.
    pub(super) fn break_certificate(&mut self) {
        self.is_certificate_broken = true;
        fs::write(self.folder.path().join("tls/cert.pem"), "-----BEGIN CERTIFICATE-----\nAAAA")
            .expect("it can be written");
    }

    /// Offers a job.
    pub(super) fn offer_job(&mut self, random: &mut Random) {
        let id = format!("job-{}", self.offered.len());
        let model = *random.pick(&MODELS);
        let messages = json!([{"role": "user", "content": id}]);
        let chat = json!({"model": model, "messages": messages, "max_tokens": 4, "stream": random.chance(40)});
        let input = match random.below(6) {
            0 => json!({"openai_route": "/v1/models", "openai_input": {}}),
            1 => json!({"openai_route": "/v1/embeddings", "openai_input": {"model": "vectors", "input": id}}),
            2 => json!({"openai_route": "/no/such/route", "openai_input": {}}),
            _ => json!({"openai_route": "/v1/chat/completions", "openai_input": chat}),
        };
        let job = json!({"id": id, "input": input, "webhook": null, "s3Config": {}});
        self.platform.offer([job.clone()]);
        self.offered.push(job);
    }

    /// Checks that each of them was used.
    pub(super) fn check_used(&self) -> Result<(), String> {
        match self.hub.bytes_sent() > 0 && !self.remote.received().is_empty() && self.issued > 1 {
            true => Ok(()),
            false => Err(format!("the run proves nothing, because a neighbour was not used: {}", self.report())),
        }
    }

    /// Returns what they have seen, for the report.
    pub(super) fn report(&self) -> String {
        let results = self.platform.results();
        let errors = results.values().filter(|(_, result)| result["error"].is_string()).count();
        format!(
            "{} jobs answered, {errors} with an error, {} cancelled; {} certificates; {} exports; {} requests to the remote; {} MiB downloaded",
            results.len(),
            self.cancelled.len(),
            self.issued,
            self.collector.exports(),
            self.remote.received().len(),
            self.hub.bytes_sent() >> 20
        )
    }
}

/// Returns a model with a valid header and many bytes after it.
fn model_bytes(folder: &Path, name: &str) -> Vec<u8> {
    let path = folder.join(format!("{name}.source"));
    model_file::write(&path, Kind::Chat);
    let mut bytes = fs::read(&path).expect("the file was written");
    let mut random = Random::new(name.len() as u64, 3);
    while (bytes.len() as u64) < DOWNLOADED {
        bytes.extend(random.next().to_le_bytes());
    }
    bytes
}
