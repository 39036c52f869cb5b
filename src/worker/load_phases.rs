//! How long each phase of a load took, from the lines that llama-server logs.
//!
//! Owns the log texts that mark the phases, and those after which a probe may find the process ready. Whether it is ready is
//! decided by the probe, not here.

use std::time::Duration;

use memchr::memmem;
use tokio::time::Instant;

/// Log texts that mark the begin of reading the model. The first match counts.
const LOADING: &[&[u8]] = &[
    b"loading model",
    // Of builds that do not log the step itself.
    b"llama_model_loader: loaded meta data",
];

/// Log texts that mark that the weights are in memory. The last match counts, because a draft model or a projector may
/// follow.
const WEIGHTS_IN: &[&[u8]] = &[
    b"warming up the model",
    // Logged before the line above, which some builds log only with a higher verbosity.
    b"llama threadpool init",
    // With `--no-warmup`.
    b"constructing llama_context",
    b"llama_init_from_model: n_ctx",
    b"llama_new_context_with_model: n_ctx",
    b"loaded multimodal model",
];

/// Log texts that come with the end of the load. Any of them is worth a probe at once.
const LOADED: &[&[u8]] = &[b"model loaded", b"server is listening", b"all slots are idle"];

/// How far into a line a marker is searched for, in bytes. Time, level and function name come before it; text further
/// down may be a user's.
const LOOKED_AT: usize = 256;

/// The names of the phases in the `phase` label of the metrics, in their order.
pub(super) const PREFETCH: &str = "prefetch";
pub(super) const START: &str = "start";
pub(super) const WEIGHTS: &str = "weights";
pub(super) const WARM_UP: &str = "warm_up";
/// All phases, in their order.
pub(super) const ALL: [&str; 4] = [PREFETCH, START, WEIGHTS, WARM_UP];

/// The moments at which a load passes from one phase into the next.
#[derive(Debug)]
pub(super) struct LoadPhases {
    started: Instant,
    loading: Option<Instant>,
    weights_in: Option<Instant>,
    is_over: bool,
}

/// The times of a load. A phase whose begin or end was not logged counts as `weights`, so the phases add up to the
/// load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LoadTimes {
    /// From the start of the process until it is ready.
    pub(super) load: Duration,
    /// From the start of the process until it reads the model.
    pub(super) start: Option<Duration>,
    /// From then until the weights and the context are in memory.
    pub(super) weights: Duration,
    /// From then until the process is ready.
    pub(super) warm_up: Option<Duration>,
}

impl LoadPhases {
    /// Returns the phases of a process that was started at `now`.
    pub(super) fn begin(now: Instant) -> Self {
        Self { started: now, loading: None, weights_in: None, is_over: false }
    }

    /// Reads one line of its log. Returns whether the process may be ready now.
    pub(super) fn read_line(&mut self, line: &[u8], now: Instant) -> bool {
        if self.is_over {
            return false;
        }
        let line = &line[..line.len().min(LOOKED_AT)];
        let is_one_of = |markers: &[&[u8]]| markers.iter().any(|marker| memmem::find(line, marker).is_some());
        if is_one_of(WEIGHTS_IN) {
            self.weights_in = Some(now);
        } else if is_one_of(LOADING) {
            self.begin_loading(now);
        }
        is_one_of(LOADED)
    }

    /// Returns the name of the phase that the load is in.
    pub(super) fn current(&self) -> &'static str {
        match (self.loading, self.weights_in) {
            (_, Some(_)) => WARM_UP,
            (Some(_), None) => WEIGHTS,
            (None, None) => START,
        }
    }

    /// Returns whether the load is over; later log lines may have texts of clients.
    pub(super) fn are_over(&self) -> bool {
        self.is_over
    }

    /// Records that it loads the model, according to its log or to its response to a probe.
    pub(super) fn begin_loading(&mut self, now: Instant) {
        if self.weights_in.is_none() {
            self.loading.get_or_insert(now);
        }
    }

    /// Records that it is ready and returns the times. Later log lines are ignored.
    pub(super) fn end(&mut self, now: Instant) -> LoadTimes {
        self.is_over = true;
        let loading = self.loading.unwrap_or(self.started);
        let weights_in = self.weights_in.unwrap_or(now);
        LoadTimes {
            load: now.duration_since(self.started),
            start: self.loading.map(|loading| loading.duration_since(self.started)),
            weights: weights_in.duration_since(loading),
            warm_up: self.weights_in.map(|weights_in| now.duration_since(weights_in)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads one line every 10 ms from the start, and ends 10 ms after the last. The times are in ms.
    fn times_of(log: &str) -> (Option<u128>, u128, Option<u128>) {
        let start = Instant::now();
        let at = |line: usize| start + Duration::from_millis(10) * (line as u32 + 1);
        let mut phases = LoadPhases::begin(start);
        let mut count = 0;
        for (number, line) in log.lines().enumerate() {
            phases.read_line(line.as_bytes(), at(number));
            count = number + 1;
        }
        let times = phases.end(at(count));
        let sum = times.start.unwrap_or_default() + times.weights + times.warm_up.unwrap_or_default();
        assert_eq!(sum, times.load, "the phases add up to the load");
        let ms = |time: Duration| time.as_millis();
        (times.start.map(ms), ms(times.weights), times.warm_up.map(ms))
    }

    #[test]
    fn phases_are_read_from_the_log_of_a_current_llama_server() {
        let log = "0.00.016.652 I srv  llama_server: initializing ...\n\
            0.00.016.770 I srv  init_listene: The UI is disabled\n\
            0.00.018.445 I srv    load_model: loading model '/m/SmolLM2-135M-Instruct.Q4_1.gguf'\n\
            0.00.415.792 I cmn          init: llama threadpool init, n_threads = 1\n\
            0.00.503.131 I srv    load_model: initializing, n_slots = 1, n_ctx_slot = 1024, kv_unified = 'false'\n\
            0.00.506.535 I srv  llama_server: model loaded";
        assert_eq!(times_of(log), (Some(30), 10, Some(30)));
    }

    #[test]
    fn phases_are_read_from_the_verbose_log_of_a_current_llama_server() {
        let log = "0.00.023.683 I srv    load_model: loading model '/m/SmolLM2-135M-Instruct.Q4_1.gguf'\n\
            0.00.275.308 I llama_model_loader: loaded meta data with 33 key-value pairs and 272 tensors from /m/S.gguf\n\
            0.00.490.854 I load_tensors: loading model tensors, this can take a while... (load_mode = mmap)\n\
            0.00.512.079 I llama_context: constructing llama_context\n\
            0.00.541.558 I cmn          init: llama threadpool init, n_threads = 1\n\
            0.00.541.582 I cmn  common_init_: warming up the model with an empty run - please wait ... (--no-warmup to disable)\n\
            0.00.594.751 I srv  llama_server: model loaded";
        assert_eq!(times_of(log), (Some(10), 50, Some(20)));
    }

    #[test]
    fn phases_are_read_from_the_logs_of_older_builds() {
        let log = "main: HTTP server is listening, hostname: 127.0.0.1, port: 8080, http threads: 23\n\
            main: loading model\n\
            srv    load_model: loading model '/m/gemma-2-27b-it-Q8_0.gguf'\n\
            llama_model_loader: loaded meta data with 33 key-value pairs and 508 tensors from /m/gemma-2-27b-it-Q8_0.gguf\n\
            llama_init_from_model: n_ctx         = 512\n\
            common_init_from_params: setting dry_penalty_last_n to ctx_size = 512\n\
            common_init_from_params: warming up the model with an empty run - please wait ... (--no-warmup to disable)\n\
            main: model loaded";
        assert_eq!(times_of(log), (Some(20), 50, Some(20)));
        let log = "llama_model_loader: loaded meta data with 20 key-value pairs and 195 tensors from /m/phi.gguf\n\
            llama_new_context_with_model: n_ctx      = 512\n\
            main: model loaded";
        assert_eq!(times_of(log), (Some(10), 10, Some(20)), "without a warm-up");
    }

    #[test]
    fn a_projector_counts_as_weights() {
        let log = "srv    load_model: loading model '/m/v.gguf'\n\
            cmn          init: llama threadpool init, n_threads = 1\n\
            clip_model_loader: model name: v\n\
            srv    load_model: loaded multimodal model, '/m/mmproj-v.gguf'";
        assert_eq!(times_of(log), (Some(10), 30, Some(10)));
    }

    #[test]
    fn phases_that_are_not_logged_count_as_weights() {
        assert_eq!(times_of("hello\nworld"), (None, 30, None));
        assert_eq!(times_of("main: loading model"), (Some(10), 10, None));
        assert_eq!(times_of("llama threadpool init, n_threads = 1"), (None, 10, Some(10)));
        let far = format!("{} loading model", "x".repeat(LOOKED_AT));
        assert_eq!(times_of(&far), (None, 20, None), "far into a line it may be a user's text");
    }

    #[test]
    fn the_lines_at_the_end_of_a_load_call_for_a_probe() {
        let mut phases = LoadPhases::begin(Instant::now());
        let mut may_be_ready = |line: &str| phases.read_line(line.as_bytes(), Instant::now());
        assert!(may_be_ready("0.00.594.751 I srv  llama_server: model loaded"));
        assert!(may_be_ready("main: server is listening on http://127.0.0.1:8080 - starting the main loop"));
        assert!(!may_be_ready("main: loading model"));
        phases.end(Instant::now());
        assert!(!phases.read_line(b"srv  update_slots: all slots are idle", Instant::now()), "the load is over");
    }

    #[test]
    fn a_probe_marks_the_load_too_and_later_marks_are_ignored() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut phases = LoadPhases::begin(start);
        phases.begin_loading(at(100));
        phases.read_line(b"main: loading model", at(110));
        let times = phases.end(at(300));
        assert_eq!((times.start, times.warm_up), (Some(Duration::from_millis(100)), None));
        phases.read_line(b"warming up the model", at(400));
        assert_eq!(phases.end(at(500)).warm_up, None);
        let mut phases = LoadPhases::begin(start);
        phases.read_line(b"warming up the model", at(50));
        phases.begin_loading(at(100));
        assert_eq!(phases.end(at(200)).start, None, "the response came after the weights were loaded");
    }
}
