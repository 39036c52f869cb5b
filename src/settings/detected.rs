//! Defaults that depend on the platform: the ports that RunPod's load balancer uses, and the cache of downloaded
//! models. `resolve.rs` decides which source wins over them.

use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::file::ConfigFile;
use super::runpod::GET_JOB_VARIABLE;
use super::source::Inputs;
use crate::platform::{Platform, PlatformKind};

/// The rule that `llamagate check` shows as the source of these ports.
pub(super) const LOAD_BALANCER_RULE: &str = "RunPod's load balancer";

/// The port to which RunPod's load balancer sends requests and health checks if the endpoint sets no `PORT`.
pub(super) const LOAD_BALANCER_PORT: &str = "80";

/// Returns whether the requests come from RunPod's load balancer. It sends none to a worker that takes jobs from a
/// queue.
pub(super) fn is_behind_runpod_load_balancer(inputs: &Inputs, platform: &Platform, file: &ConfigFile) -> bool {
    // The ports are resolved before `runpod_mode`, whose row is further down in the table, so its sources are read
    // here.
    let mode = inputs.flags.get("runpod_mode").map(String::as_str);
    let mode = mode.or_else(|| inputs.environment.get("RUNPOD_MODE"));
    let is_http = match mode.or_else(|| file.get("runpod_mode").map(String::as_str)) {
        Some(mode) => mode.eq_ignore_ascii_case("http"),
        None => inputs.environment.get(GET_JOB_VARIABLE).is_none(),
    };
    is_http && platform.kind == PlatformKind::RunpodServerless
}

/// Returns the first existing folder of Hugging Face's cache: RunPod's in the data folder or on the platform's volume,
/// else the user's.
pub(super) fn hub_cache(data_dir: Option<&Path>, platform: &Platform, environment: &Environment) -> Option<PathBuf> {
    // RunPod caches models on its own volume even if DATA_DIR is somewhere else.
    let volumes = data_dir.into_iter().chain([platform.data_dir.as_path()]);
    let caches = volumes.map(|dir| dir.join("huggingface-cache/hub")).chain(environment.hub_caches());
    caches.into_iter().find(|cache| cache.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::resolve;

    #[test]
    fn both_ports_default_to_80_behind_runpods_load_balancer() {
        let ports = |variables: &[(&'static str, &'static str)]| {
            let environment = Environment::from_iter(variables.iter().copied());
            let platform = crate::platform::detect(|name| environment.get(name), Path::new("/nowhere"));
            let resolved = resolve(&Inputs { environment, ..Inputs::default() }, &platform).unwrap();
            let source = |key: &str| resolved.rows.iter().find(|row| row.0 == key).unwrap().2.to_string();
            let listen = &resolved.config.settings.listen;
            (listen.port, listen.port_health, source("port"), source("port_health"))
        };
        let endpoint = ("RUNPOD_ENDPOINT_ID", "e");
        let queue = ("RUNPOD_WEBHOOK_GET_JOB", "http://u");
        for (variables, expected) in [
            (&[endpoint][..], (80, 80)),
            (&[endpoint, ("PORT", "5000")], (5000, 5000)),
            (&[endpoint, ("GATEWAY_PORT", "5000")], (5000, 5000)),
            (&[endpoint, ("PORT_HEALTH", "81")], (80, 81)),
            (&[endpoint, queue], (8000, 8001)),
            (&[endpoint, queue, ("PORT", "5000")], (5000, 8001)),
            (&[endpoint, queue, ("RUNPOD_MODE", "HTTP")], (80, 80)),
            (&[endpoint, ("RUNPOD_MODE", "queue")], (8000, 8001)),
            (&[("RUNPOD_POD_ID", "p")], (8000, 8001)),
            (&[("RUNPOD_POD_ID", "p"), ("RUNPOD_MODE", "http")], (8000, 8001)),
        ] {
            let (port, health, ..) = ports(variables);
            assert_eq!((port, health), expected, "{variables:?}");
        }
        let (_, _, port, health) = ports(&[endpoint]);
        assert_eq!(port, "detected: RunPod's load balancer");
        assert_eq!(health, "detected: RunPod's load balancer");
        assert_eq!(ports(&[endpoint, ("PORT", "1")]).2, "environment variable PORT");
    }

    #[test]
    fn hub_cache_is_the_first_existing_folder_unless_a_variable_sets_it() {
        let (volume, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let cache_of = |variables: &[(&str, &str)]| {
            let home = [("HOME", home.path().to_str().unwrap())];
            let environment = Environment::from_iter(home.into_iter().chain(variables.iter().copied()));
            let inputs = Inputs { environment, ..Inputs::default() };
            resolve(&inputs, &Platform::plain(volume.path())).unwrap().config.settings.files.hf_hub_cache
        };
        let volume_cache = volume.path().join("huggingface-cache/hub");
        let user_cache = home.path().join(".cache/huggingface/hub");
        assert_eq!(cache_of(&[]), volume_cache, "no cache exists");
        std::fs::create_dir_all(&user_cache).unwrap();
        assert_eq!(cache_of(&[]), user_cache);
        let hf_home = home.path().join("hf");
        std::fs::create_dir_all(hf_home.join("hub")).unwrap();
        assert_eq!(cache_of(&[("HF_HOME", hf_home.to_str().unwrap())]), hf_home.join("hub"));
        std::fs::create_dir_all(&volume_cache).unwrap();
        assert_eq!(cache_of(&[("HF_HOME", hf_home.to_str().unwrap())]), volume_cache);
        assert_eq!(cache_of(&[("DATA_DIR", "/elsewhere")]), volume_cache, "the platform's own volume");
        assert_eq!(cache_of(&[("HF_HUB_CACHE", "/explicit")]), Path::new("/explicit"));
        assert_eq!(cache_of(&[("HUGGINGFACE_HUB_CACHE", "/explicit")]), Path::new("/explicit"));
    }
}
