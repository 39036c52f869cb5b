//! Builds the URLs of RunPod's API from the templates that it provides. Pure.

use std::fmt::Write as _;

use crate::settings::RunpodQueue;

/// The version of RunPod's own SDK whose protocol is used here.
const SDK_VERSION: &str = "1.12.0";

/// The URLs of one queue for one worker.
pub(super) struct Addresses {
    poll: String,
    output: String,
    stream: Option<String>,
    ping: Option<String>,
}

impl Addresses {
    /// Creates the URLs for a worker with this id.
    pub(super) fn new(queue: &RunpodQueue, worker: &str) -> Self {
        let for_worker = |template: &String| template.replace("$RUNPOD_POD_ID", &percent_encode(worker));
        Self {
            // Here `$ID` stands for the worker; in all other templates it stands for the job.
            poll: for_worker(&queue.take).replace("$ID", &percent_encode(worker)),
            output: for_worker(&queue.output),
            stream: queue.stream.as_ref().map(for_worker),
            ping: queue.ping.as_ref().map(for_worker),
        }
    }

    /// Returns the templates of all URLs.
    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        [&self.poll, &self.output].into_iter().chain(&self.stream).chain(&self.ping).map(String::as_str)
    }

    /// Returns the URL to poll for up to `count` jobs; it also tells the platform whether jobs are in flight.
    pub(super) fn poll(&self, count: usize, has_jobs: bool) -> String {
        let busy = u8::from(has_jobs).to_string();
        if count <= 1 {
            return with_parameters(&self.poll, &[("job_in_progress", &busy)]);
        }
        let batch = self.poll.replace("/job-take/", "/job-take-batch/");
        with_parameters(&batch, &[("batch_size", &count.to_string()), ("job_in_progress", &busy)])
    }

    /// Returns the URL to poll for jobs to cancel, or `None` if it cannot be derived.
    pub(super) fn cancellations(&self) -> Option<String> {
        self.poll.contains("/job-take/").then(|| self.poll.replace("/job-take/", "/job-stop/"))
    }

    /// Returns the URL for the result of a job.
    pub(super) fn output(&self, job: &str, is_stream: bool) -> String {
        let is_stream = if is_stream { "true" } else { "false" };
        with_parameters(&self.output.replace("$ID", &percent_encode(job)), &[("isStream", is_stream)])
    }

    /// Returns the URL for chunks of a job's stream.
    pub(super) fn stream(&self, job: &str) -> Option<String> {
        Some(with_parameters(&self.stream.as_ref()?.replace("$ID", &percent_encode(job)), &[("isStream", "false")]))
    }

    /// Returns the URL for a ping that lists the jobs in flight.
    pub(super) fn ping(&self, jobs: &[String]) -> Option<String> {
        let jobs = jobs.join(",");
        let parameters = [("job_id", jobs.as_str()), ("runpod_version", SDK_VERSION)];
        Some(with_parameters(self.ping.as_ref()?, if jobs.is_empty() { &parameters[1..] } else { &parameters }))
    }

    /// Returns the URL for the report that this worker is unhealthy.
    pub(super) fn unhealthy(&self, check: &str, reason: &str) -> Option<String> {
        let parameters =
            [("status", "unhealthy"), ("check", check), ("reason", reason), ("runpod_version", SDK_VERSION)];
        Some(with_parameters(self.ping.as_ref()?, &parameters))
    }
}

/// Appends parameters to a URL. Most templates already have some, but need not.
fn with_parameters(address: &str, parameters: &[(&str, &str)]) -> String {
    let mut address = address.to_owned();
    for (name, value) in parameters {
        let separator = match address.find('?') {
            None => "?",
            Some(_) if address.ends_with(['?', '&']) => "",
            Some(_) => "&",
        };
        let _ = write!(address, "{separator}{name}={}", percent_encode(value));
    }
    address
}

/// Percent-encodes a text for a path segment or a query: everything except the unreserved characters of RFC 3986,
/// section 2.3.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte.into()),
            _ => _ = write!(encoded, "%{byte:02X}"),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn addresses(template: &str) -> Addresses {
        let queue = RunpodQueue {
            take: format!("https://h/v2/EP/job-take/{template}"),
            output: "https://h/v2/EP/job-done/$RUNPOD_POD_ID/$ID?gpu=A+B".into(),
            stream: Some("https://h/v2/EP/job-stream/$RUNPOD_POD_ID/$ID?gpu=A+B".into()),
            ping: Some("https://h/v2/EP/ping/$RUNPOD_POD_ID?gpu=A+B".into()),
            ping_interval: Duration::from_secs(10),
            pod_id: None,
            key: None,
        };
        Addresses::new(&queue, "pod1")
    }

    #[test]
    fn jobs_are_polled_one_by_one_or_in_batches() {
        let one = addresses("$ID?gpu=A+B");
        assert_eq!(one.poll(1, false), "https://h/v2/EP/job-take/pod1?gpu=A+B&job_in_progress=0");
        assert_eq!(one.poll(1, true), "https://h/v2/EP/job-take/pod1?gpu=A+B&job_in_progress=1");
        assert_eq!(one.poll(3, true), "https://h/v2/EP/job-take-batch/pod1?gpu=A+B&batch_size=3&job_in_progress=1");
        assert_eq!(one.cancellations().unwrap(), "https://h/v2/EP/job-stop/pod1?gpu=A+B");
        assert_eq!(
            addresses("$RUNPOD_POD_ID?x=1").poll(1, false),
            "https://h/v2/EP/job-take/pod1?x=1&job_in_progress=0"
        );
    }

    #[test]
    fn parameters_are_appended_to_a_template_without_any() {
        assert_eq!(
            addresses("$ID").poll(2, false),
            "https://h/v2/EP/job-take-batch/pod1?batch_size=2&job_in_progress=0"
        );
        assert_eq!(addresses("$ID?").poll(1, false), "https://h/v2/EP/job-take/pod1?job_in_progress=0");
    }

    #[test]
    fn cancellations_are_polled_only_if_their_url_can_be_derived() {
        let mut odd = addresses("$ID");
        odd.poll = "https://h/jobs/pod1".into();
        assert_eq!(odd.cancellations(), None);
        assert_eq!(odd.poll(2, false), "https://h/jobs/pod1?batch_size=2&job_in_progress=0");
    }

    #[test]
    fn urls_of_results_and_chunks_name_worker_and_job() {
        let urls = addresses("$ID");
        assert_eq!(urls.output("j-1", false), "https://h/v2/EP/job-done/pod1/j-1?gpu=A+B&isStream=false");
        assert_eq!(urls.output("j-1", true), "https://h/v2/EP/job-done/pod1/j-1?gpu=A+B&isStream=true");
        assert_eq!(urls.stream("j-1").unwrap(), "https://h/v2/EP/job-stream/pod1/j-1?gpu=A+B&isStream=false");
        assert!(urls.output("../a?b&c", true).contains("/..%2Fa%3Fb%26c?"), "an id is a single segment");
    }

    #[test]
    fn a_ping_names_the_jobs_in_flight() {
        let urls = addresses("$ID");
        assert_eq!(urls.ping(&[]).unwrap(), "https://h/v2/EP/ping/pod1?gpu=A+B&runpod_version=1.12.0");
        let two = urls.ping(&["a".into(), "b".into()]).unwrap();
        assert_eq!(two, "https://h/v2/EP/ping/pod1?gpu=A+B&job_id=a%2Cb&runpod_version=1.12.0");
        let unhealthy = urls.unhealthy("llama-server", "out of memory").unwrap();
        assert!(
            unhealthy.ends_with("&status=unhealthy&check=llama-server&reason=out%20of%20memory&runpod_version=1.12.0")
        );
    }

    proptest! {
        #[test]
        fn a_job_with_any_id_has_a_valid_url(id in ".{1,40}") {
            let uri: http::Uri = addresses("$ID").output(&id, true).parse().unwrap();
            prop_assert_eq!(uri.path().split('/').count(), 6);
            prop_assert!(uri.query().unwrap().ends_with("isStream=true"));
        }
    }
}
