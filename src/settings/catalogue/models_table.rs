//! The table of models, and that of remote backends, which `llamagate check` prints. They contain no keys, and no paths of
//! this machine.

use std::path::Path;
use std::time::Duration;

use super::model::{Catalogue, ModelSettings, RemoteSettings, Start};
use crate::models::columns::aligned;
use crate::models::{ModelKind, path_of_name};
use crate::settings::notes::printable;
use crate::settings::values::BackendApi;

const HEADINGS: [&str; 11] =
    ["ID", "KIND", "TIER", "SERVED BY", "REPLICAS", "SLOTS", "CTX", "PRELOAD", "PINNED", "TTL", "ALIASES"];
/// Columns of numbers, which are aligned at the right.
const NUMBERS: [usize; 3] = [4, 5, 6];

/// Returns the table with aligned columns, in the order of the catalogue. A dash means unset or not applicable.
pub fn models_table(catalogue: &Catalogue) -> String {
    let rows: Vec<[String; HEADINGS.len()]> =
        std::iter::once(HEADINGS.map(str::to_owned)).chain(catalogue.models.iter().map(cells)).collect();
    aligned(&rows, &NUMBERS).iter().map(|line| format!("{line}\n")).collect()
}

/// Returns a line for each remote backend to whose requests something is added, with the names of headers and fields.
/// Their values may be secrets.
pub fn additions(catalogue: &Catalogue) -> String {
    let mut text = String::new();
    for model in &catalogue.models {
        for remote in &model.remotes {
            let headers: Vec<&str> = remote.headers.iter().map(|(name, _)| name.as_str()).collect();
            let fields: Vec<&str> = remote.fields.iter().map(|(name, _)| name.as_str()).collect();
            let parts = [("headers", headers), ("fields", fields)];
            let parts = parts.iter().filter(|(_, names)| !names.is_empty());
            let parts: Vec<String> = parts.map(|(what, names)| format!("{what} {}", names.join(", "))).collect();
            if !parts.is_empty() {
                let id = model.known_id().unwrap_or_default();
                text += &format!("{}\n", printable(&format!("{id} ({}): {}", host(remote), parts.join("; "))));
            }
        }
    }
    text
}

fn cells(model: &ModelSettings) -> [String; HEADINGS.len()] {
    let dash = || "-".to_owned();
    let local = model.local.as_ref();
    let yes = |is: Option<bool>| is.map_or_else(dash, |is| if is { "yes" } else { "no" }.to_owned());
    let served_by: Vec<String> =
        local.map(|local| file_name(&local.start)).into_iter().chain(model.remotes.iter().map(host)).collect();
    let local_slots = local.map(|local| local.slots * local.replicas as usize);
    let slots = model.remotes.iter().map(|remote| remote.slots).chain(local_slots).fold(0_usize, usize::saturating_add);
    let engine = local.filter(|local| !matches!(local.start, Start::Command { .. })).map(|local| &local.engine);
    let ttl = local.and_then(|local| local.engine.idle_unload.duration());
    [
        model.known_id().unwrap_or_else(dash),
        model.kind.map_or_else(dash, |kind| kind.to_string()),
        model.tier.clone().unwrap_or_else(dash),
        or_dash(served_by.join(", ")),
        local.map_or_else(dash, |local| local.replicas.to_string()),
        slots.to_string(),
        engine.map_or_else(dash, |engine| engine.ctx.0.to_string()),
        yes(local.map(|local| local.preload)),
        yes(local.map(|local| local.pinned)),
        ttl.map_or_else(dash, human),
        or_dash(model.aliases.join(", ")),
    ]
    .map(|cell| printable(&cell))
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

/// Returns the last part of the path of the model file or program.
fn file_name(start: &Start) -> String {
    let path = match start {
        Start::Named(name) => path_of_name(name),
        Start::File(path) => path,
        Start::Command { argv, .. } => Path::new(argv.first().map_or("", String::as_str)),
    };
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// Returns host and port of a remote backend.
fn host(remote: &RemoteSettings) -> String {
    let rest = remote.api_base.split_once("://").map_or(remote.api_base.as_str(), |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default().to_owned()
}

/// Returns a line for each remote backend: its model, and the URL that a request of the model's kind asks, or where its
/// API is if it has one of its own. Empty if there are none.
pub fn remotes_table(catalogue: &Catalogue) -> String {
    let line = |model: &ModelSettings, remote: &RemoteSettings| {
        let route = match model.kind {
            Some(ModelKind::Embedding) => "/embeddings",
            Some(ModelKind::Rerank) => "/rerank",
            Some(ModelKind::Chat) | None => "/chat/completions",
        };
        let id = printable(&model.known_id().unwrap_or_else(|| "-".to_owned()));
        match remote.api {
            BackendApi::OpenAi => format!("{id}  POST {}{route}\n", remote.api_base),
            other => {
                // Most of them have routes below several versions.
                let base = remote.api_base.trim_end_matches("/v1");
                format!("{id}  {}'s API at {base}\n", other.owner())
            }
        }
    };
    let models = catalogue.models.iter();
    models.flat_map(|model| model.remotes.iter().map(move |remote| line(model, remote))).collect()
}

/// Returns a duration as it may be written in the configuration: `10m`, `90s`, `1.5s`.
fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        _ if duration.subsec_nanos() > 0 => format!("{}s", duration.as_secs_f64()),
        0 => "0s".to_owned(),
        _ if seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        _ if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::Platform;
    use crate::settings::{Environment, Inputs, resolve_text};

    #[test]
    fn the_table_is_aligned_and_shows_neither_keys_nor_paths() {
        let text = "models:\n  qwen: {file: /secret/place/q.gguf, kind: chat, tier: medium, aliases: [a, b], replicas: 2, parallel: 4, ctx: 8192, preload: true, ttl: 10m}\n\
                    \x20 phi: {command: [/secret/location/mlx, '{port}']}\n\
                    model_list: [{model_name: far, litellm_params: {api_base: 'http://server1:8000/x', api_key: sk-secret}}]\n";
        let platform = Platform::plain("/nowhere".as_ref());
        let inputs = Inputs { environment: Environment::default(), ..Inputs::default() };
        let table = models_table(&resolve_text(&inputs, &platform, text).unwrap().config.catalogue);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(
            lines,
            [
                "ID    KIND  TIER    SERVED BY     REPLICAS  SLOTS   CTX  PRELOAD  PINNED  TTL  ALIASES",
                "qwen  chat  medium  q.gguf               2      8  8192  yes      no      10m  a, b",
                "phi   -     -       mlx                  1      1     -  no       no      -    -",
                "far   -     -       server1:8000         -     64     -  -        -       -    -",
            ]
        );
    }

    #[test]
    fn the_url_that_a_remote_backend_is_asked_is_shown() {
        let text = "model_list:\n\
                    - {model_name: a, litellm_params: {api_base: 'http://h:1', api_key: sk-secret}}\n\
                    - {model_name: b, litellm_params: {api_base: 'https://h/api/paas/v4'}}\n\
                    - {model_name: c, litellm_params: {api_base: 'https://h/v1/'}, model_info: {mode: embedding}}\n\
                    - {model_name: d, litellm_params: {api_base: 'http://h:7997', api_path: /}, model_info: {mode: rerank}}\n\
                    - {model_name: e, litellm_params: {model: infinity/e, api_base: 'http://h:7997'}, model_info: {mode: embedding}}\n\
                    - {model_name: f, litellm_params: {api_base: 'http://h/x', api_path: /v2}}\n";
        let platform = Platform::plain("/nowhere".as_ref());
        let inputs = Inputs { environment: Environment::default(), ..Inputs::default() };
        let table = remotes_table(&resolve_text(&inputs, &platform, text).unwrap().config.catalogue);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(
            lines,
            [
                "a  POST http://h:1/v1/chat/completions",
                "b  POST https://h/api/paas/v4/chat/completions",
                "c  POST https://h/v1/embeddings",
                "d  POST http://h:7997/rerank",
                "e  Infinity's API at http://h:7997",
                "f  POST http://h/x/v2/chat/completions",
            ]
        );
    }

    #[test]
    fn durations_print_as_the_configuration_writes_them() {
        for (seconds, text) in [(0.0, "0s"), (90.0, "90s"), (600.0, "10m"), (7200.0, "2h"), (1.5, "1.5s")] {
            assert_eq!(human(Duration::from_secs_f64(seconds)), text);
        }
    }
}
