//! Defaults that follow from where the program runs: the ports that RunPod's load balancer asks, and where models have been
//! downloaded to. Which source wins over them is `resolve.rs`'s business.

use super::environment::Environment;
use super::file::ConfigFile;
use super::runpod::TAKE;
use super::source::Inputs;
use crate::platform::{Platform, PlatformKind};
use std::path::{Path, PathBuf};

/// The rule by which RunPod's own defaults are taken.
pub(super) const BALANCER: &str = "RunPod's load balancer";

/// The port that it asks where nobody names one.
pub(super) const BALANCERS_PORT: &str = "80";

/// Whether RunPod's load balancer sends the requests, which asks on ports of its own choice where nobody says otherwise.
/// A worker that takes jobs from a queue is asked by nobody.
pub(super) fn is_behind_runpods_balancer(inputs: &Inputs, platform: &Platform, file: &ConfigFile) -> bool {
    let said = inputs.flags.get("runpod_mode").map(String::as_str);
    let said = said.or_else(|| inputs.environment.get("RUNPOD_MODE"));
    let is_http = match said.or_else(|| file.get("runpod_mode").map(String::as_str)) {
        Some(mode) => mode.eq_ignore_ascii_case("http"),
        None => inputs.environment.get(TAKE).is_none(),
    };
    is_http && platform.kind == PlatformKind::RunpodServerless
}

/// The first folder that is Hugging Face's cache: RunPod's in the data folder or in the platform's volume, else the user's.
pub(super) fn hub_cache(data_dir: Option<&Path>, platform: &Platform, environment: &Environment) -> Option<PathBuf> {
    let volumes = data_dir.into_iter().chain([platform.data_dir.as_path()]);
    let caches = volumes.map(|dir| dir.join("huggingface-cache/hub")).chain(environment.hub_caches());
    caches.into_iter().find(|cache| cache.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::resolve;

    #[test]
    fn behind_runpods_load_balancer_both_ports_are_the_one_that_it_asks() {
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
    fn the_cache_of_models_is_the_first_that_is_there_and_what_is_said_goes_first() {
        let (volume, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let cache_of = |said: &[(&str, &str)]| {
            let home = [("HOME", home.path().to_str().unwrap())];
            let environment = Environment::from_iter(home.into_iter().chain(said.iter().copied()));
            let inputs = Inputs { environment, ..Inputs::default() };
            resolve(&inputs, &Platform::plain(volume.path())).unwrap().config.settings.files.hf_hub_cache
        };
        let of_volume = volume.path().join("huggingface-cache/hub");
        let of_user = home.path().join(".cache/huggingface/hub");
        assert_eq!(cache_of(&[]), of_volume, "none is there");
        std::fs::create_dir_all(&of_user).unwrap();
        assert_eq!(cache_of(&[]), of_user);
        let hf_home = home.path().join("hf");
        std::fs::create_dir_all(hf_home.join("hub")).unwrap();
        assert_eq!(cache_of(&[("HF_HOME", hf_home.to_str().unwrap())]), hf_home.join("hub"));
        std::fs::create_dir_all(&of_volume).unwrap();
        assert_eq!(cache_of(&[("HF_HOME", hf_home.to_str().unwrap())]), of_volume);
        assert_eq!(cache_of(&[("DATA_DIR", "/elsewhere")]), of_volume, "the platform's own volume");
        assert_eq!(cache_of(&[("HF_HUB_CACHE", "/said")]), Path::new("/said"));
        assert_eq!(cache_of(&[("HUGGINGFACE_HUB_CACHE", "/said")]), Path::new("/said"));
    }
}
