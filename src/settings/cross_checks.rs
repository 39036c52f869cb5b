//! Judges settings together: what contradicts itself, and what works but probably not as intended.
//!
//! Owns the checks that the type of a single value cannot make. `preflight` checks what needs files.

use std::path::PathBuf;

use super::bounds::{LEAST_ACME_RETRY, LONGEST_LIMITS_STORE_TIMEOUT, MOST_ACME_RETRY, SHORT_SERVICE_KEY};
use super::options::{OptionRow, Settings, row};
use super::problem::SettingProblem;
use super::source::Inputs;
use super::values::{CacheMode, Origins};
use crate::models::PlaceKind;
use crate::platform::{Platform, PlatformKind};

impl Settings {
    /// Returns a warning for each way in which others than the user can use the models without a key: its topic and its
    /// text.
    pub fn exposures(&self) -> impl Iterator<Item = (&'static str, String)> + use<> {
        let (host, access) = (self.listen.host, &self.access);
        // A certificate of a client is a key too.
        let is_closed = host.to_canonical().is_loopback() || self.tls.tls_client_ca.is_some();
        let to_network = (!is_closed).then(|| {
            let text = format!(
                "AUTH_ENABLED=false and HOST={host}: every machine that reaches the port can use the models; set \
                 HOST=127.0.0.1, or AUTH_ENABLED=true with API keys"
            );
            ("open_to_network", text)
        });
        let to_pages = (access.cors_origins == Origins::Any).then(|| {
            let text = "AUTH_ENABLED=false and CORS_ORIGINS=*: every web page that a browser near this machine shows can \
                        use the models and read the responses; list the origins of your pages, or set AUTH_ENABLED=true \
                        with API keys";
            ("open_to_pages", text.to_owned())
        });
        let is_keyless = !access.auth_enabled;
        to_network.into_iter().chain(to_pages).filter(move |_| is_keyless)
    }
}

impl Settings {
    /// Returns a warning for each store that a setting names and that is not there.
    pub fn missing_stores(&self) -> Vec<String> {
        let files = &self.files;
        let folders = [
            (PlaceKind::Hub, "HF_HUB_CACHE", Some(&files.hf_hub_cache)),
            (PlaceKind::Ollama, "OLLAMA_MODELS", files.ollama_models.as_ref()),
            (PlaceKind::LmStudio, "LM_STUDIO_MODELS", files.lm_studio_models.as_ref()),
        ];
        let warning = |(kind, variable, folder): (PlaceKind, &str, Option<&PathBuf>)| {
            let missing = folder.filter(|folder| !folder.is_dir()).map(|folder| folder.display().to_string());
            match (missing, folder) {
                (Some(folder), _) if files.model_stores.names(kind) => {
                    Some(format!("MODEL_STORES: {kind} is not there: no folder {folder:?} ({variable})"))
                }
                // The cache is made by the first download.
                (Some(folder), _) if kind != PlaceKind::Hub && files.model_stores.has(kind) => {
                    Some(format!("{variable}={folder:?}: there is no such folder, so that no model of it is served"))
                }
                (None, None) if files.model_stores.names(kind) => Some(format!(
                    "MODEL_STORES: {kind} is not there: none of its usual folders exists; set {variable} if it is elsewhere"
                )),
                _ => None,
            }
        };
        folders.into_iter().filter_map(warning).collect()
    }
}

/// Returns warnings about settings that work, but probably not as intended.
pub(super) fn cautions(settings: &Settings, inputs: &Inputs, platform: &Platform) -> Vec<String> {
    let environment = &inputs.environment;
    let mut warnings = Vec::new();
    let (access, logs) = (&settings.access, &settings.logs);
    if let Some(key) = &access.llamagate_api_key {
        let name = environment.name_of("LLAMAGATE_API_KEY");
        if !access.auth_enabled {
            warnings.push(format!("{name} has no effect: AUTH_ENABLED is false, so that no request needs a key"));
        }
        if key.is_short() {
            warnings.push(format!("{name} has fewer than {SHORT_SERVICE_KEY} characters and may be guessed"));
        }
    }
    if let Some(path) = logs.log_file.as_ref().filter(|_| !logs.log_to_file) {
        warnings.push(format!("LOG_FILE={:?} has no effect: LOG_TO_FILE is false", path.display().to_string()));
    }
    if settings.cache.cache_persist_to_disk && settings.cache.cache == CacheMode::Off {
        let text = "CACHE_PERSIST_TO_DISK=true has no effect: CACHE is off, so that no answer is kept; set CACHE=safe";
        warnings.push(text.to_owned());
    }
    warnings.extend(tls_cautions(settings, platform));
    warnings.extend(settings.missing_stores());
    let secrets: Vec<&str> = environment.secrets_of_file().collect();
    if inputs.is_env_file_open && !secrets.is_empty() {
        let names = secrets.join(", ");
        warnings.push(format!("other users can read or write ENV_FILE, which sets {names}; run: chmod 600 on it"));
    }
    warnings
}

/// Returns warnings about TLS that probes or a platform cannot speak.
fn tls_cautions(settings: &Settings, platform: &Platform) -> Vec<String> {
    let mut warnings = acme_cautions(settings, platform);
    if settings.has_tls() && platform.kind == PlatformKind::RunpodServerless {
        let text =
            "RunPod's load balancer speaks plain HTTP to its workers, and has TLS itself: leave the TLS_ settings out";
        warnings.push(text.to_owned());
    }
    if settings.tls.tls_client_ca.is_some() && settings.has_health_tls() {
        let text = "TLS_CLIENT_CA is asked for on the health port too: probes without a certificate are refused; give the \
                    health port one of its own (PORT_HEALTH), without TLS_HEALTH";
        warnings.push(text.to_owned());
    }
    warnings
}

/// Returns warnings about a certificate of a CA that cannot come here, and about settings of it that have no effect.
fn acme_cautions(settings: &Settings, platform: &Platform) -> Vec<String> {
    let tls = &settings.tls;
    if !tls.tls_acme_domains.is_empty() {
        let has_mapped_ports = matches!(platform.kind, PlatformKind::Vast | PlatformKind::RunpodPod);
        let text = format!(
            "TLS_ACME_DOMAINS: the CA asks port 443 of each name, and {} maps other ports to this machine: no certificate \
             will come; set TLS_SELF_SIGNED=true instead",
            platform.kind
        );
        return has_mapped_ports.then_some(text).into_iter().collect();
    }
    let set = [
        ("TLS_ACME_ACCEPT_TERMS", tls.tls_acme_accept_terms),
        ("TLS_ACME_CONTACT", !tls.tls_acme_contact.urls().is_empty()),
        ("TLS_ACME_CA", tls.tls_acme_ca.is_some()),
        ("TLS_ACME_EAB_KID", tls.tls_acme_eab_kid.is_some()),
        ("TLS_ACME_EAB_HMAC_KEY", tls.tls_acme_eab_hmac_key.is_some()),
    ];
    let set = set.into_iter().filter(|(_, is_set)| *is_set);
    set.map(|(name, _)| format!("{name} has no effect: TLS_ACME_DOMAINS names no domain")).collect()
}

/// Returns the problems with settings of TLS that are incomplete, or exclude each other.
fn tls_contradictions(settings: &Settings) -> Vec<SettingProblem> {
    let tls = &settings.tls;
    let problem = |subject: &str, fault: &str, hint: &str| SettingProblem {
        subject: subject.to_owned(),
        fault: fault.to_owned(),
        hint: Some(hint.to_owned()),
    };
    let mut problems = Vec::new();
    match (&tls.tls_cert, &tls.tls_key) {
        (Some(_), None) => {
            problems.push(problem("TLS_CERT", "there is no TLS_KEY", "set TLS_KEY to the file of its private key"))
        }
        (None, Some(_)) => {
            problems.push(problem("TLS_KEY", "there is no TLS_CERT", "set TLS_CERT to the file of its certificate"))
        }
        _ => {}
    }
    if tls.tls_self_signed && (tls.tls_cert.is_some() || tls.tls_key.is_some()) {
        let fault = "TLS_CERT and TLS_KEY name another certificate";
        problems.push(problem("TLS_SELF_SIGNED=true", fault, "set either them or TLS_SELF_SIGNED"));
    }
    problems.extend(acme_contradictions(settings));
    let hint = "set TLS_CERT and TLS_KEY, TLS_SELF_SIGNED=true, or TLS_ACME_DOMAINS";
    if !settings.has_tls() && tls.tls_key.is_none() {
        if tls.tls_client_ca.is_some() {
            problems.push(problem("TLS_CLIENT_CA", "there is no TLS: no client could show a certificate", hint));
        }
        if tls.tls_health {
            problems.push(problem("TLS_HEALTH=true", "there is no TLS", hint));
        }
    }
    problems
}

/// Returns the problems with settings of a certificate of a CA that are incomplete, or exclude others.
fn acme_contradictions(settings: &Settings) -> Vec<SettingProblem> {
    let tls = &settings.tls;
    let problem = |subject: &str, fault: &str, hint: String| SettingProblem {
        subject: subject.to_owned(),
        fault: fault.to_owned(),
        hint: Some(hint),
    };
    let mut problems = Vec::new();
    if tls.tls_acme_eab_kid.is_some() != tls.tls_acme_eab_hmac_key.is_some() {
        let fault = "only one of TLS_ACME_EAB_KID and TLS_ACME_EAB_HMAC_KEY is set";
        problems.push(problem("TLS_ACME_EAB_KID", fault, "the CA gives both".to_owned()));
    }
    if tls.tls_acme_retry.0 < LEAST_ACME_RETRY {
        let fault = format!("expected at least {}ms", LEAST_ACME_RETRY.as_millis());
        let hint = "CAs refuse clients that order too often".to_owned();
        problems.push(problem(&format!("TLS_ACME_RETRY={:?}", tls.tls_acme_retry.0), &fault, hint));
    }
    if tls.tls_acme_retry.0 > MOST_ACME_RETRY {
        let fault = format!("expected at most {}h", MOST_ACME_RETRY.as_secs() / 3600);
        let hint = "it is the longest wait, however many orders have failed".to_owned();
        problems.push(problem(&format!("TLS_ACME_RETRY={:?}", tls.tls_acme_retry.0), &fault, hint));
    }
    if tls.tls_acme_domains.is_empty() {
        return problems;
    }
    let hint = "set one of TLS_CERT and TLS_KEY, TLS_SELF_SIGNED, and TLS_ACME_DOMAINS".to_owned();
    if tls.tls_cert.is_some() || tls.tls_key.is_some() {
        let fault = "TLS_CERT and TLS_KEY name another certificate";
        problems.push(problem("TLS_ACME_DOMAINS", fault, hint));
    } else if tls.tls_self_signed {
        problems.push(problem("TLS_ACME_DOMAINS", "TLS_SELF_SIGNED=true makes another certificate", hint));
    }
    if !tls.tls_acme_accept_terms {
        let hint = format!(
            "read the terms of {}, and set TLS_ACME_ACCEPT_TERMS=true if you accept them",
            tls.tls_acme_directory.host()
        );
        problems.push(problem("TLS_ACME_DOMAINS", "the terms of service of the CA are not accepted", hint));
    }
    problems
}

/// Returns the problem with a wait for the limits store that is too long, if it is.
fn long_store_wait(settings: &Settings) -> Option<SettingProblem> {
    let wait = settings.access.limits_store_timeout.0;
    (wait > LONGEST_LIMITS_STORE_TIMEOUT).then(|| SettingProblem {
        subject: format!("LIMITS_STORE_TIMEOUT={}", wait.as_millis()),
        fault: format!("expected at most {}", LONGEST_LIMITS_STORE_TIMEOUT.as_millis()),
        hint: Some("it is in milliseconds, and requests wait for it".to_owned()),
    })
}

/// Returns the problems that the type of a single value cannot find: settings that contradict each other, and bad
/// paths and folder names.
pub(super) fn contradictions(settings: &Settings, reserved_paths: &[&str]) -> Vec<SettingProblem> {
    let mut problems = Vec::new();
    let engine = &settings.engine;
    let in_flight = settings.queue.max_concurrent_requests;
    if engine.parallel < in_flight {
        problems.push(SettingProblem {
            subject: format!("PARALLEL={}", engine.parallel),
            fault: format!("expected at least MAX_CONCURRENT_REQUESTS, which is {in_flight}"),
            hint: Some("leave PARALLEL out: it follows MAX_CONCURRENT_REQUESTS".to_owned()),
        });
    }
    if engine.total_context().is_none() {
        problems.push(SettingProblem {
            subject: format!("CTX={} with PARALLEL={}", engine.ctx.0, engine.parallel),
            fault: "the total context is more than llama-server can count (2147483647 tokens)".to_owned(),
            hint: Some("CTX is the context of one slot".to_owned()),
        });
    }
    problems.extend(tls_contradictions(settings));
    problems.extend(long_store_wait(settings));
    let path = &settings.listen.health_check_path;
    // A reserved path may have a part that stands for any text.
    let is_reserved =
        |reserved: &&str| reserved.split_once('{').map_or(*reserved == path, |(before, _)| path.starts_with(before));
    let fault = if !path.starts_with('/') {
        Some("expected a path that starts with /")
    } else if path.starts_with("/v1/") || reserved_paths.iter().any(is_reserved) {
        Some("this path is a route of the gateway, which it would hide if PORT_HEALTH equals PORT")
    } else {
        None
    };
    problems.extend(fault.map(|fault| {
        SettingProblem {
            subject: format!("HEALTH_CHECK_PATH={path:?}"),
            fault: fault.to_owned(),
            hint: path
                .starts_with('/')
                .then(|| "use /ping, /health, /livez, /readyz or a path that is no route of the gateway".to_owned()),
        }
    }));
    // Both names become one folder name; a slash or a leading dot could lead out of LOG_DIR or hide the folder.
    for (key, text) in
        [("log_name", Some(&settings.logs.log_name)), ("worker_type", settings.logs.worker_type.as_ref())]
    {
        let Some(text) = text else { continue };
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if text.is_empty() || text.starts_with('.') || text.len() > 64 || !text.chars().all(allowed) {
            problems.push(SettingProblem {
                subject: format!("{}={text:?}", row(key).map_or_else(String::new, OptionRow::variable)),
                fault: "expected 1 to 64 letters, digits, '.', '_' or '-', not starting with '.'".to_owned(),
                hint: Some("it names a folder below LOG_DIR".to_owned()),
            });
        }
    }
    problems
}
