//! Defaults that depend on the platform: the ports that RunPod's load balancer uses, the cache of downloaded models, and
//! where other programs keep theirs. `resolve.rs` decides which source wins over them.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::environment::{Environment, is_executable};
use super::file::ConfigFile;
use super::runpod::GET_JOB_VARIABLE;
use super::source::Inputs;
use crate::platform::{Platform, PlatformKind};

/// The rule that `llamagate check` shows as the source of these ports.
pub(super) const LOAD_BALANCER_RULE: &str = "RunPod's load balancer";

/// The port to which RunPod's load balancer sends requests and health checks if the endpoint sets no `PORT`.
pub(super) const LOAD_BALANCER_PORT: &str = "80";

/// The names of the program in builds of llama.cpp.
const RPC_SERVER_NAMES: [&str; 2] = ["rpc-server", "ggml-rpc-server"];

/// Where Ollama's Linux service keeps its models.
const OLLAMA_SERVICE_MODELS: &str = "/usr/share/ollama/.ollama/models";
/// Longest path that is read from LM Studio's pointer, in bytes.
const LONGEST_POINTER: u64 = 4096;

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

/// Returns the first existing folder in which Ollama keeps models if `OLLAMA_MODELS` is not set.
pub(super) fn ollama_models(environment: &Environment) -> Option<PathBuf> {
    let own = environment.home().map(|home| home.join(".ollama/models"));
    own.into_iter().chain([PathBuf::from(OLLAMA_SERVICE_MODELS)]).find(|folder| folder.is_dir())
}

/// Returns the first existing folder in which LM Studio keeps models.
pub(super) fn lm_studio_models(environment: &Environment) -> Option<PathBuf> {
    let home = environment.home()?;
    let pointed = lm_studio_home(&home.join(".lmstudio-home-pointer")).map(|home| home.join("models"));
    let usual = [".lmstudio/models", ".cache/lm-studio/models"].map(|folder| home.join(folder));
    pointed.into_iter().chain(usual).find(|folder| folder.is_dir())
}

/// Returns the folder that LM Studio's pointer file names.
fn lm_studio_home(pointer: &Path) -> Option<PathBuf> {
    let mut text = String::new();
    std::fs::File::open(pointer).ok()?.take(LONGEST_POINTER).read_to_string(&mut text).ok()?;
    Some(PathBuf::from(text.trim())).filter(|home| home.is_absolute())
}

/// Returns the first llama-server that may be executed, and the rule that found it.
pub(super) fn llama_server(environment: &Environment) -> Option<(PathBuf, &'static str)> {
    if let Some(path) = environment.find_program("llama-server") {
        return Some((path, "on PATH"));
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("llama-server")));
    let places = [(beside, "beside the gateway"), (Some(PathBuf::from("/app/llama-server")), "/app")];
    places.into_iter().find_map(|(path, rule)| Some((path.filter(|path| is_executable(path))?, rule)))
}

/// Returns the first rpc-server that may be executed, and the rule that found it.
pub(super) fn rpc_server(llama_server: Option<&Path>, environment: &Environment) -> Option<(PathBuf, &'static str)> {
    if let Some(path) = RPC_SERVER_NAMES.iter().find_map(|name| environment.find_program(name)) {
        return Some((path, "on PATH"));
    }
    let exe = std::env::current_exe().ok();
    let debian = format!("/usr/libexec/{}-linux-gnu/llama/bin", std::env::consts::ARCH);
    let folders = [
        (llama_server.and_then(Path::parent), "beside llama-server"),
        (exe.as_deref().and_then(Path::parent), "beside the gateway"),
        (Some(Path::new("/app")), "/app"),
        (Some(Path::new(&debian)), "Debian's package"),
    ];
    folders.into_iter().find_map(|(folder, rule)| {
        let paths = RPC_SERVER_NAMES.iter().map(|name| folder.map(|folder| folder.join(name)));
        paths.flatten().find(|path| is_executable(path)).map(|path| (path, rule))
    })
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
    #[test]
    fn the_stores_of_other_programs_are_the_first_existing_folders() {
        let home = tempfile::tempdir().unwrap();
        let settings_of = |variables: &[(&str, &str)]| {
            let own = [("HOME", home.path().to_str().unwrap()), ("DATA_DIR", "/nowhere")];
            let environment = Environment::from_iter(own.into_iter().chain(variables.iter().copied()));
            let inputs = Inputs { environment, ..Inputs::default() };
            resolve(&inputs, &Platform::plain("/nowhere".as_ref())).unwrap()
        };
        let lm_studio = |folder: &str| {
            std::fs::create_dir_all(home.path().join(folder)).unwrap();
            settings_of(&[]).config.settings.files.lm_studio_models.unwrap()
        };
        assert_eq!(lm_studio(".cache/lm-studio/models"), home.path().join(".cache/lm-studio/models"));
        assert_eq!(lm_studio(".lmstudio/models"), home.path().join(".lmstudio/models"));
        let moved = home.path().join("moved");
        std::fs::write(home.path().join(".lmstudio-home-pointer"), format!("{}\n", moved.display())).unwrap();
        assert_eq!(lm_studio("moved/models"), moved.join("models"));
        let ollama = home.path().join(".ollama/models");
        std::fs::create_dir_all(&ollama).unwrap();
        let found = settings_of(&[]).config.settings.model_places();
        assert_eq!(found.foreign, [ollama.clone(), moved.join("models")]);
        assert_eq!((found.ollama, found.lm_studio), (Some(ollama), Some(moved.join("models"))));
        let none = settings_of(&[("MODEL_STORES", "none")]).config.settings.model_places();
        assert_eq!((none.ollama, none.lm_studio, none.adopts_hub), (None, None, false));
        assert_eq!(none.foreign, found.foreign, "they are those of other programs all the same");
        for (variables, warning) in [
            (&[("OLLAMA_MODELS", "/gone")][..], "OLLAMA_MODELS=\"/gone\": there is no such folder"),
            (&[("MODEL_STORES", "hub")], "MODEL_STORES: hub is not there: no folder \"/nowhere"),
        ] {
            let resolved = settings_of(variables);
            assert!(resolved.warnings.iter().any(|text| text.contains(warning)), "{:?}", resolved.warnings);
        }
    }
}
