//! RunPod's side of an endpoint with a queue, as a worker sees it: it hands out jobs, hears what comes of them, and remembers
//! every call. It holds a question for jobs until there is one, as the platform does.

use super::{
    remote::{Asked, read},
    wait::{self, eventually_some, patient},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::{BufReader, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::{self, JoinHandle},
};

/// The worker, the endpoint and the key that the platform gives out.
pub(crate) const POD: &str = "pod-1";
pub(crate) const KEY: &str = "rpa_SECRET0123456789";

/// One of the routes of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Route {
    Take,
    TakeBatch,
    Stop,
    Done,
    Stream,
    Ping,
}

/// An answer that the platform has been told to give.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

/// A call that it got.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) route: Route,
    pub(crate) method: String,
    asked: Asked,
}

/// The platform.
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
    says: BTreeMap<Route, VecDeque<Said>>,
    /// Routes whose calls are not answered for now.
    held: BTreeSet<Route>,
    connections: Vec<TcpStream>,
    has_ended: bool,
}

impl Platform {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port can be had");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::<Shared>::default();
        let own = Arc::clone(&shared);
        let acceptor = thread::spawn(move || own.accept(&listener));
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// The variables that a worker gets.
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

    /// Puts jobs into the queue, all at once.
    pub(crate) fn offer(&self, jobs: impl IntoIterator<Item = Value>) {
        self.state().jobs.extend(jobs);
        self.shared.changed.notify_all();
    }

    /// Says that jobs are to be stopped, to whoever asks.
    pub(crate) fn stop(&self, ids: &[Value]) {
        self.state().stops.extend_from_slice(ids);
        self.shared.changed.notify_all();
    }

    /// Gives the next calls of a route these answers, one each.
    pub(crate) fn says(&self, route: Route, answers: impl IntoIterator<Item = Said>) {
        self.state().says.entry(route).or_default().extend(answers);
        self.shared.changed.notify_all();
    }

    /// Leaves the calls of a route unanswered, until they are released.
    pub(crate) fn hold(&self, route: Route) {
        self.state().held.insert(route);
    }

    pub(crate) fn release(&self, route: Route) {
        self.state().held.remove(&route);
        self.shared.changed.notify_all();
    }

    /// Every call so far, of some routes.
    pub(crate) fn calls(&self, routes: &[Route]) -> Vec<Call> {
        self.state().calls.iter().filter(|call| routes.contains(&call.route)).cloned().collect()
    }

    /// Waits for so many calls of some routes.
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

    /// The result of a job, if it has been posted.
    pub(crate) fn done(&self, id: &str) -> Option<Call> {
        let is_it = |call: &Call| call.job() == Some(id) && call.json()["status"] != "IN_PROGRESS";
        self.calls(&[Route::Done]).into_iter().find(is_it)
    }

    /// What was posted of a job's stream.
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

impl Said {
    /// A status without a body.
    pub(crate) fn status(status: u16) -> Self {
        Self { status, content_type: "text/plain", body: String::new() }
    }

    pub(crate) fn json(body: &Value) -> Self {
        Self { status: 200, content_type: "application/json", body: body.to_string() }
    }
}

impl Call {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.asked.header(name)
    }

    /// Path and query.
    pub(crate) fn target(&self) -> &str {
        &self.asked.path
    }

    /// The value of a parameter, as it is written.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let query = self.target().split_once('?')?.1;
        query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }

    /// The last segment of the path.
    fn job(&self) -> Option<&str> {
        self.target().split('?').next()?.rsplit('/').next()
    }

    pub(crate) fn body(&self) -> &str {
        &self.asked.body
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
        while let Some((method, asked)) = read(&mut reader)? {
            let route = route_of(&asked.path);
            let batch = Call { route, method: String::new(), asked: asked.clone() };
            let batch = batch.parameter("batch_size").and_then(|count| count.parse().ok()).unwrap_or(1);
            self.state.lock().unwrap().calls.push(Call { route, method, asked });
            let Some(said) = self.answer(route, batch) else { return Ok(()) };
            let Said { status, content_type, body } = said;
            let length = body.len();
            let mut connection = connection;
            connection.write_all(
                format!(
                    "HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n{body}"
                )
                .as_bytes(),
            )?;
        }
        Ok(())
    }

    /// Waits until there is something to say; none when all is over.
    fn answer(&self, route: Route, batch: usize) -> Option<Said> {
        let waits = |state: &mut State| !state.has_ended && !state.has_answer(route);
        let state = self.state.lock().unwrap();
        let (mut state, waited) = self.changed.wait_timeout_while(state, patient(wait::PROBES_FAIL), waits).unwrap();
        if state.has_ended {
            return None;
        }
        if waited.timed_out() {
            return Some(Said::status(204));
        }
        if let Some(said) = state.says.get_mut(&route).and_then(VecDeque::pop_front) {
            return Some(said);
        }
        Some(match route {
            Route::Take => Said::json(&state.jobs.pop_front()?),
            Route::TakeBatch => {
                let count = batch.min(state.jobs.len());
                Said::json(&Value::Array(state.jobs.drain(..count).collect()))
            }
            Route::Stop => Said::json(&json!({"jobsToStop": std::mem::take(&mut state.stops)})),
            Route::Done | Route::Stream | Route::Ping => Said::json(&json!({})),
        })
    }
}

impl State {
    fn has_answer(&self, route: Route) -> bool {
        if self.held.contains(&route) {
            return false;
        }
        let is_told = self.says.get(&route).is_some_and(|answers| !answers.is_empty());
        is_told
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
    found.unwrap_or_else(|| panic!("there is no {target}")).1
}
