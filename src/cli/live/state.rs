//! What the feed of a service has told so far: the first snapshot, with all changes since.

use serde_json::Value;

/// Most failures that are kept for show.
const KEPT_FAILURES: usize = 5;

/// The service as the feed tells it.
#[derive(Debug, Default)]
pub(super) struct LiveState {
    pub(super) status: Value,
    pub(super) version: Value,
    pub(super) models: Vec<Value>,
    pub(super) queues: Vec<Value>,
    pub(super) downloads: Vec<Value>,
    pub(super) memory: Value,
    pub(super) throughput: Value,
    /// The newest first.
    pub(super) failures: Vec<Value>,
}

impl LiveState {
    /// Takes an event. Those that are not known change nothing.
    pub(super) fn take(&mut self, name: &str, data: Value) {
        match name {
            "snapshot" => *self = Self::of(data),
            "service" => self.status = data["status"].clone(),
            "model" => put(&mut self.models, "id", data),
            "model_removed" => {
                self.models.retain(|model| model["id"] != data["id"]);
                self.queues.retain(|queue| queue["model"] != data["id"]);
            }
            "load" => self.put_load(data),
            "queue" => put(&mut self.queues, "model", data),
            "download" => put(&mut self.downloads, "id", data),
            "download_removed" => self.downloads.retain(|download| download["id"] != data["id"]),
            "memory" => self.memory = data,
            "throughput" => self.throughput = data,
            "failure" => {
                self.failures.insert(0, data);
                self.failures.truncate(KEPT_FAILURES);
            }
            _ => {}
        }
    }

    fn of(mut snapshot: Value) -> Self {
        let mut list = |name: &str| match snapshot[name].take() {
            Value::Array(list) => list,
            _ => Vec::new(),
        };
        let (models, queues, downloads, mut failures) =
            (list("models"), list("queues"), list("downloads"), list("failures"));
        failures.truncate(KEPT_FAILURES);
        let mut one = |name: &str| snapshot[name].take();
        let (status, version, memory, throughput) = (one("status"), one("version"), one("memory"), one("throughput"));
        Self { status, version, models, queues, downloads, memory, throughput, failures }
    }

    fn put_load(&mut self, load: Value) {
        let model = self.models.iter_mut().find(|model| model["id"] == load["model"]);
        let workers = model.and_then(|model| model["workers"].as_array_mut());
        if let Some(worker) = workers.and_then(|all| all.iter_mut().find(|one| one["worker"] == load["worker"])) {
            worker["load"] = load;
        }
    }

    /// Returns the queue of a model.
    pub(super) fn queue_of(&self, model: &Value) -> Option<&Value> {
        self.queues.iter().find(|queue| queue["model"] == model["id"])
    }

    /// Returns the tokens a second of a model at present.
    pub(super) fn pace_of(&self, model: &Value) -> f64 {
        let models = self.throughput["models"].as_array();
        let pace = models.and_then(|all| all.iter().find(|pace| pace["model"] == model["id"]));
        pace.and_then(|pace| pace["tokens_per_second"].as_f64()).unwrap_or(0.0)
    }

    /// Returns the memory that a model takes, in bytes, if it is loaded.
    pub(super) fn memory_of(&self, model: &Value) -> Option<u64> {
        let memory = self.memory["models"].as_array()?.iter().find(|memory| memory["model"] == model["id"])?;
        memory["bytes"].as_u64()
    }
}

/// Replaces the value with the same id, or adds one.
fn put(list: &mut Vec<Value>, id: &str, value: Value) {
    match list.iter_mut().find(|known| known[id] == value[id]) {
        Some(known) => *known = value,
        None => list.push(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_change_what_the_snapshot_has_told() {
        let mut state = LiveState::default();
        state.take("model", json!({"id": "before"}));
        let workers = json!([{"worker": 0, "load": null}]);
        state.take("snapshot", json!({"status": "loading", "models": [{"id": "a", "workers": workers}], "queues": []}));
        state.take("load", json!({"model": "a", "worker": 0, "bytes": 5}));
        assert_eq!((state.models.len(), &state.models[0]["workers"][0]["load"]["bytes"]), (1, &json!(5)));
        state.take("model", json!({"id": "b"}));
        state.take("model", json!({"id": "a", "state": "ready"}));
        state.take("queue", json!({"model": "a", "active": 2}));
        state.take("throughput", json!({"models": [{"model": "a", "tokens_per_second": 7.5}]}));
        state.take("memory", json!({"models": [{"model": "a", "bytes": 9}]}));
        state.take("service", json!({"status": "ok"}));
        state.take("something new", json!({}));
        let a = state.models[0].clone();
        assert_eq!((&a["state"], state.pace_of(&a), state.memory_of(&a)), (&json!("ready"), 7.5, Some(9)));
        assert_eq!((&state.queue_of(&a).unwrap()["active"], &state.status), (&json!(2), &json!("ok")));
        for number in 0..9 {
            state.take("failure", json!({"number": number}));
        }
        assert_eq!((state.failures.len(), &state.failures[0]["number"]), (KEPT_FAILURES, &json!(8)));
        state.take("model_removed", json!({"id": "a"}));
        assert_eq!((state.models.len(), state.queues.len()), (1, 0));
    }
}
