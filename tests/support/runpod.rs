//! RunPod's API for a worker of a queue endpoint: it hands out jobs, takes their results, and remembers every call. A
//! call that asks for a job waits until there is one, as with RunPod.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::{BufReader, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::{self, JoinHandle},
};

use serde_json::{Value, json};

use super::{
    remote::{ReceivedRequest, read_request},
    wait::{self, eventually_some, patient},
};

/// The worker's id and its API key.
pub(crate) const POD: &str = "pod-1";
pub(crate) const KEY: &str = "rpa_SECRET0123456789";

/// A route of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Route {
    Take,
    TakeBatch,
    Stop,
    Done,
    Stream,
    Ping,
}

/// A response that a test sets for a call.
#[derive(Debug, Clone)]
pub(crate) struct ScriptedResponse {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

/// A call that the API received.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) route: Route,
    pub(crate) method: String,
    request: ReceivedRequest,
}

/// The running API.
pub(crate) struct Platform {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    calls: Vec<Call>,
    jobs: VecDeque<Value>,
    stops: Vec<Value>,
    scripted: BTreeMap<Route, VecDeque<ScriptedResponse>>,
    /// Routes whose calls are not answered until `release`.
    held: BTreeSet<Route>,
    /// Routes whose connections are closed without an answer until `restore`.
    dropped: BTreeSet<Route>,
    /// How often each job was handed out.
    handed_out: BTreeMap<String, usize>,
    /// How often the result of each job was taken, and the last one.
    results: BTreeMap<String, (usize, Value)>,
    /// Whether calls are not remembered, because there would be too many.
    is_forgetful: bool,
    connections: Vec<TcpStream>,
    has_ended: bool,
}

impl Platform {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::<Shared>::default();
        let own = Arc::clone(&shared);
        let acceptor = thread::spawn(move || own.accept(&listener));
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// Returns the environment variables of a worker.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let url = |route: &str, query: &str| format!("http://{}/v2/EP/{route}{query}", self.address);
        let query = "?gpu=NVIDIA+GeForce+RTX+4090";
        vec![
            ("RUNPOD_WEBHOOK_GET_JOB", url("job-take/$ID", query)),
            ("RUNPOD_WEBHOOK_POST_OUTPUT", url("job-done/$RUNPOD_POD_ID/$ID", query)),
            ("RUNPOD_WEBHOOK_POST_STREAM", url("job-stream/$RUNPOD_POD_ID/$ID", query)),
            ("RUNPOD_WEBHOOK_PING", url("ping/$RUNPOD_POD_ID", query)),
            ("RUNPOD_PING_INTERVAL", "1000".to_owned()),
            ("RUNPOD_POD_ID", POD.to_owned()),
            ("RUNPOD_AI_API_KEY", KEY.to_owned()),
        ]
    }

    /// Puts jobs into the queue, all at the same moment.
    pub(crate) fn offer(&self, jobs: impl IntoIterator<Item = Value>) {
        self.state().jobs.extend(jobs);
        self.shared.changed.notify_all();
    }

    /// Adds jobs to the next answer of the route for stopped jobs.
    pub(crate) fn stop(&self, ids: &[Value]) {
        self.state().stops.extend_from_slice(ids);
        self.shared.changed.notify_all();
    }

    /// Sets the responses to the next calls of a route, one each.
    pub(crate) fn script_responses(&self, route: Route, responses: impl IntoIterator<Item = ScriptedResponse>) {
        self.state().scripted.entry(route).or_default().extend(responses);
        self.shared.changed.notify_all();
    }

    /// Leaves the calls of a route unanswered until `release`.
    pub(crate) fn hold(&self, route: Route) {
        self.state().held.insert(route);
    }

    pub(crate) fn release(&self, route: Route) {
        self.state().held.remove(&route);
        self.shared.changed.notify_all();
    }

    /// Closes the connections of a route without an answer until `restore`.
    pub(crate) fn drop_calls(&self, route: Route) {
        self.state().dropped.insert(route);
        self.shared.changed.notify_all();
    }

    pub(crate) fn restore(&self, route: Route) {
        self.state().dropped.remove(&route);
    }

    /// Remembers no more calls: for long runs.
    pub(crate) fn forget_calls(&self) {
        self.state().is_forgetful = true;
    }

    /// Returns the number of jobs that wait to be taken.
    pub(crate) fn waiting_jobs(&self) -> usize {
        self.state().jobs.len()
    }

    /// Returns how often each job was handed out.
    pub(crate) fn handed_out(&self) -> BTreeMap<String, usize> {
        self.state().handed_out.clone()
    }

    /// Returns how often the result of each job was taken, and the last one.
    pub(crate) fn results(&self) -> BTreeMap<String, (usize, Value)> {
        self.state().results.clone()
    }

    /// Returns the calls of these routes so far.
    pub(crate) fn calls(&self, routes: &[Route]) -> Vec<Call> {
        self.state().calls.iter().filter(|call| routes.contains(&call.route)).cloned().collect()
    }

    /// Waits for `count` calls of these routes, and returns all of them.
    #[track_caller]
    pub(crate) fn wait_calls(&self, routes: &[Route], count: usize) -> Vec<Call> {
        eventually_some(&format!("{count} calls of {routes:?}"), wait::READY, || {
            Some(self.calls(routes)).filter(|calls| calls.len() >= count)
        })
    }

    /// Waits for the result of a job.
    #[track_caller]
    pub(crate) fn wait_done(&self, id: &str) -> Call {
        self.wait_done_for(id, wait::READY)
    }

    #[track_caller]
    pub(crate) fn wait_done_for(&self, id: &str, deadline: std::time::Duration) -> Call {
        eventually_some(&format!("the result of {id} is posted"), deadline, || self.done(id))
    }

    /// Returns the call that posted the result of a job, if there is one.
    pub(crate) fn done(&self, id: &str) -> Option<Call> {
        let is_result = |call: &Call| call.job() == Some(id) && call.json()["status"] != "IN_PROGRESS";
        self.calls(&[Route::Done]).into_iter().find(is_result)
    }

    /// Returns the calls that posted parts of a job's stream.
    pub(crate) fn pieces(&self, id: &str) -> Vec<Call> {
        self.calls(&[Route::Stream]).into_iter().filter(|call| call.job() == Some(id)).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.state().has_ended = true;
        self.shared.changed.notify_all();
        let _ = TcpStream::connect(self.address); // wakes the acceptor
        let _ = self.acceptor.take().map(JoinHandle::join);
        for connection in self.state().connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl ScriptedResponse {
    /// Returns a response with this status and no body.
    pub(crate) fn status(status: u16) -> Self {
        Self { status, content_type: "text/plain", body: String::new() }
    }

    pub(crate) fn json(body: &Value) -> Self {
        Self { status: 200, content_type: "application/json", body: body.to_string() }
    }
}

impl Call {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.request.header(name)
    }

    /// Returns path and query.
    pub(crate) fn target(&self) -> &str {
        &self.request.path
    }

    /// Returns the value of a query parameter, not decoded.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let query = self.target().split_once('?')?.1;
        query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }

    /// Returns the job id: the last segment of the path.
    fn job(&self) -> Option<&str> {
        self.target().split('?').next()?.rsplit('/').next()
    }

    pub(crate) fn body(&self) -> &str {
        &self.request.body
    }

    /// Returns the job and its result, if the call posts one.
    fn result(&self) -> Option<(String, Value)> {
        if self.route != Route::Done {
            return None;
        }
        let value: Value = serde_json::from_str(self.body()).unwrap_or_default();
        (value["status"] != "IN_PROGRESS").then(|| Some((self.job()?.to_owned(), value)))?
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.body()).unwrap_or_else(|error| panic!("{error}: {}", self.body()))
    }
}

impl Shared {
    fn accept(self: Arc<Self>, listener: &TcpListener) {
        while let Ok((connection, _)) = listener.accept() {
            let mut state = self.state.lock().unwrap();
            if state.has_ended {
                return;
            }
            state.connections.extend(connection.try_clone());
            drop(state);
            let own = Arc::clone(&self);
            thread::spawn(move || {
                _ = own.serve(&connection);
                let _ = connection.shutdown(Shutdown::Both);
            });
        }
    }

    fn serve(&self, connection: &TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(connection.try_clone()?);
        while let Some((method, request)) = read_request(&mut reader)? {
            let route = route_of(&request.path);
            let call = Call { route, method, request };
            let batch = call.parameter("batch_size").and_then(|count| count.parse().ok()).unwrap_or(1);
            let result = call.result();
            let mut state = self.state.lock().unwrap();
            if !state.is_forgetful {
                state.calls.push(call);
            }
            drop(state);
            let Some(response) = self.wait_response(route, batch) else { return Ok(()) };
            let ScriptedResponse { status, content_type, body } = response;
            let length = body.len();
            let mut connection = connection;
            connection.write_all(
                format!(
                    "HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n{body}"
                )
                .as_bytes(),
            )?;
            if status == 200 {
                self.state.lock().unwrap().record(route, &body, result);
            }
        }
        Ok(())
    }

    /// Waits until there is a response; returns `None` at the end of the API, and if the connection is to be closed.
    fn wait_response(&self, route: Route, batch: usize) -> Option<ScriptedResponse> {
        let is_cut = |state: &State| state.has_ended || state.dropped.contains(&route);
        let waits = |state: &mut State| !is_cut(state) && !state.has_response(route);
        let state = self.state.lock().unwrap();
        let (mut state, waited) = self.changed.wait_timeout_while(state, patient(wait::PROBES_FAIL), waits).unwrap();
        if is_cut(&state) {
            return None;
        }
        if waited.timed_out() {
            return Some(ScriptedResponse::status(204));
        }
        if let Some(response) = state.scripted.get_mut(&route).and_then(VecDeque::pop_front) {
            return Some(response);
        }
        Some(match route {
            Route::Take => ScriptedResponse::json(&state.jobs.pop_front()?),
            Route::TakeBatch => {
                let count = batch.min(state.jobs.len());
                ScriptedResponse::json(&Value::Array(state.jobs.drain(..count).collect()))
            }
            Route::Stop => ScriptedResponse::json(&json!({"jobsToStop": std::mem::take(&mut state.stops)})),
            Route::Done | Route::Stream | Route::Ping => ScriptedResponse::json(&json!({})),
        })
    }
}

impl State {
    /// Records what a call with an answer of 200 has brought: jobs that were handed out, or the result of one.
    fn record(&mut self, route: Route, answer: &str, result: Option<(String, Value)>) {
        match route {
            Route::Take | Route::TakeBatch => {
                let given: Value = serde_json::from_str(answer).unwrap_or_default();
                let jobs = given.as_array().map_or(std::slice::from_ref(&given), Vec::as_slice);
                for id in jobs.iter().filter_map(|job| job["id"].as_str()) {
                    *self.handed_out.entry(id.to_owned()).or_default() += 1;
                }
            }
            Route::Done => {
                if let Some((id, value)) = result {
                    let times = self.results.get(&id).map_or(0, |(times, _)| *times);
                    self.results.insert(id, (times + 1, value));
                }
            }
            Route::Stop | Route::Stream | Route::Ping => {}
        }
    }

    fn has_response(&self, route: Route) -> bool {
        if self.held.contains(&route) {
            return false;
        }
        let is_scripted = self.scripted.get(&route).is_some_and(|responses| !responses.is_empty());
        is_scripted
            || match route {
                Route::Take | Route::TakeBatch => !self.jobs.is_empty(),
                Route::Stop => !self.stops.is_empty(),
                Route::Done | Route::Stream | Route::Ping => true,
            }
    }
}

fn route_of(target: &str) -> Route {
    let known = [
        ("/job-take/", Route::Take),
        ("/job-take-batch/", Route::TakeBatch),
        ("/job-stop/", Route::Stop),
        ("/job-done/", Route::Done),
        ("/job-stream/", Route::Stream),
        ("/ping/", Route::Ping),
    ];
    let found = known.into_iter().find(|(part, _)| target.contains(part));
    found.unwrap_or_else(|| panic!("there is no route for {target}")).1
}
