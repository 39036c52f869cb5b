//! Translates a job into a request to the gateway. Pure.
//!
//! Three kinds of input are accepted: RunPod's pass-through for OpenAI clients (`openai_route`, `openai_input`), a
//! request to any route (`route`, `body`, `method`), and the classic input of RunPod's workers (`messages` or
//! `prompt`). Bodies are passed on as they were written, because the order of members matters in a JSON schema.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Version};
use serde_json::value::RawValue;

use super::input_members::InputMembers;
use crate::runpod::bounds::{JOB_ID, JOB_ROUTE};

/// The error of RunPod's own SDK for a job that lacks one of these fields.
pub(super) const MISSING: &str = "Job has missing field(s): id or input.";

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

/// A job of the queue.
#[derive(Debug)]
pub(super) struct Job {
    /// The id that the platform gave the job.
    pub(super) id: String,
    /// The request to the gateway, or why the input is invalid.
    pub(super) request: Result<Request<Bytes>, String>,
}

/// Reads the response of a poll: one job or a list of jobs. A job without a valid id is an error of its own, because it
/// cannot be answered.
///
/// # Errors
///
/// Returns an error if the text is not JSON.
pub(super) fn read_all(text: &[u8]) -> Result<Vec<Result<Job, &'static str>>, serde_json::Error> {
    let is_list = text.trim_ascii_start().first() == Some(&b'[');
    let jobs: Vec<&RawValue> =
        if is_list { serde_json::from_slice(text)? } else { vec![serde_json::from_slice(text)?] };
    Ok(jobs.into_iter().map(Job::read).collect())
}

impl Job {
    fn read(text: &RawValue) -> Result<Self, &'static str> {
        let members = InputMembers::read(text).ok_or(MISSING)?;
        let id = members.text("id").filter(|id| !id.is_empty()).ok_or(MISSING)?;
        if id.len() > JOB_ID {
            return Err("Job has an id that is too long.");
        }
        let job_input = members.get("input").ok_or_else(|| MISSING.to_owned()).and_then(JobInput::read);
        Ok(Self { request: job_input.map(|input| input.into_request(&id)), id })
    }
}

/// The requested method, route and body.
struct JobInput {
    method: Method,
    /// A path of the gateway, with its query.
    route: String,
    body: Bytes,
}

impl JobInput {
    fn read(input: &RawValue) -> Result<Self, String> {
        let input = InputMembers::read(input).ok_or("The input is not an object")?;
        if input.has("openai_route") || input.has("openai_input") {
            return Self::from_openai(&input);
        }
        if input.has("route") {
            return Self::from_route(&input);
        }
        let route = match (input.has("messages"), input.has("prompt")) {
            (true, _) => CHAT,
            (false, true) => COMPLETIONS,
            _ => {
                return Err(
                    "The input asks for nothing: it has neither openai_route, nor route, nor messages or a prompt"
                        .to_owned(),
                );
            }
        };
        let body = Bytes::from(input.with_sampling_params()?);
        Ok(Self { method: Method::POST, route: route.to_owned(), body })
    }

    fn from_openai(input: &InputMembers) -> Result<Self, String> {
        let route = optional_string(input, "openai_route")?;
        let body = optional_object(input, "openai_input")?;
        let is_empty = |body: &RawValue| InputMembers::read(body).is_some_and(|members| members.is_empty());
        match (route, body.filter(|body| !is_empty(body))) {
            (route, Some(body)) => {
                let route = checked_route("openai_route", route.unwrap_or_else(|| CHAT.to_owned()))?;
                Ok(Self { method: Method::POST, route, body: Bytes::copy_from_slice(body.get().as_bytes()) })
            }
            (Some(route), None) => {
                Ok(Self { method: Method::GET, route: checked_route("openai_route", route)?, body: Bytes::new() })
            }
            (None, None) => Err("openai_input is empty, and there is no openai_route".to_owned()),
        }
    }

    fn from_route(input: &InputMembers) -> Result<Self, String> {
        let route = checked_route("route", optional_string(input, "route")?.ok_or("route is not a string")?)?;
        let body = optional_object(input, "body")?.map(RawValue::get);
        let method = match optional_string(input, "method")?.map(|method| method.to_ascii_uppercase()).as_deref() {
            Some("POST") => Method::POST,
            Some("GET") => Method::GET,
            Some("HEAD") => Method::HEAD,
            None if body.is_some() => Method::POST,
            None => Method::GET,
            Some(_) => return Err("method is none of GET, HEAD and POST".to_owned()),
        };
        // Only a POST has a body.
        let body = body.filter(|_| method == Method::POST).unwrap_or_default();
        Ok(Self { method, route, body: Bytes::copy_from_slice(body.as_bytes()) })
    }

    fn into_request(self, id: &str) -> Request<Bytes> {
        let has_body = !self.body.is_empty();
        let mut request = Request::new(self.body);
        *request.method_mut() = self.method;
        // Cannot fail: [`checked_route`] has parsed it.
        *request.uri_mut() = self.route.parse().unwrap_or_default();
        // Makes the gateway check the head against its limits, which the HTTP/1 parser would have done on a connection.
        *request.version_mut() = Version::HTTP_2;
        let headers = request.headers_mut();
        if has_body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        // An id that is not a valid header value is omitted.
        if let Ok(id) = HeaderValue::from_str(id) {
            headers.insert("x-request-id", id);
        }
        request
    }
}

/// Returns a member that is a string, if there is one.
///
/// # Errors
///
/// Returns an error if the member has another type.
fn optional_string(input: &InputMembers, name: &str) -> Result<Option<String>, String> {
    match input.get(name) {
        None => Ok(None),
        Some(value) if value.get() == "null" => Ok(None),
        Some(_) => input.text(name).map(Some).ok_or_else(|| format!("{name} is not a string")),
    }
}

/// Returns a member that is an object, if there is one.
///
/// # Errors
///
/// Returns an error if the member has another type; many clients send the text of an object instead.
fn optional_object<'a>(input: &InputMembers<'a>, name: &str) -> Result<Option<&'a RawValue>, String> {
    let value = input.get(name).filter(|value| value.get() != "null");
    match value.map(|value| value.get().as_bytes().first()) {
        None | Some(Some(b'{')) => Ok(value),
        Some(Some(b'"')) => {
            Err(format!("{name} is a string, and must be an object: send the JSON itself, not its text"))
        }
        Some(_) => Err(format!("{name} is not an object")),
    }
}

/// Checks that the route in this field is a path of the gateway: no scheme, no host, no `.` or `..` segments.
///
/// # Errors
///
/// Returns an error if it is not such a path.
fn checked_route(field: &str, route: String) -> Result<String, String> {
    if route.len() > JOB_ROUTE {
        return Err(format!("{field} is longer than {JOB_ROUTE} bytes"));
    }
    let path = route.split('?').next().unwrap_or_default();
    let is_plain = route.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'\\'));
    let lower = path.to_ascii_lowercase();
    // Percent-encoded dots and slashes count too: a later parser might decode them.
    let goes_up = lower.replace("%2e", ".").split(['/']).any(|segment| segment == ".." || segment == ".");
    let is_ours = route.starts_with('/') && !route.starts_with("//") && is_plain && !goes_up && !lower.contains("%2f");
    let is_uri = route.parse::<http::uri::PathAndQuery>().is_ok();
    if is_ours && is_uri { Ok(route) } else { Err(format!("{field} is not a path such as /v1/models")) }
}

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;
