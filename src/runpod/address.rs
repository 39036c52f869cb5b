//! The addresses of RunPod's API, made of the templates that it gives. Pure.

use crate::settings::RunpodQueue;
use std::fmt::Write as _;

/// The version of RunPod's own SDK whose protocol this is.
const SDK_VERSION: &str = "1.12.0";

/// Where everything of one queue is, for one worker.
pub(super) struct Addresses {
    take: String,
    output: String,
    stream: Option<String>,
    ping: Option<String>,
}

impl Addresses {
    /// Those of a worker with this id.
    pub(super) fn new(queue: &RunpodQueue, worker: &str) -> Self {
        let of_worker = |template: &String| template.replace("$RUNPOD_POD_ID", &encoded(worker));
        Self {
            // Here `$ID` is the worker, everywhere else the job.
            take: of_worker(&queue.take).replace("$ID", &encoded(worker)),
            output: of_worker(&queue.output),
            stream: queue.stream.as_ref().map(of_worker),
            ping: queue.ping.as_ref().map(of_worker),
        }
    }

    /// Where so many jobs are taken; says whether there are any in hand.
    pub(super) fn take(&self, count: usize, is_busy: bool) -> String {
        let busy = u8::from(is_busy).to_string();
        if count <= 1 {
            return with(&self.take, &[("job_in_progress", &busy)]);
        }
        let batch = self.take.replace("/job-take/", "/job-take-batch/");
        with(&batch, &[("batch_size", &count.to_string()), ("job_in_progress", &busy)])
    }

    /// Where there is word of jobs to stop; none if that cannot be derived.
    pub(super) fn stops(&self) -> Option<String> {
        self.take.contains("/job-take/").then(|| self.take.replace("/job-take/", "/job-stop/"))
    }

    /// Where the result of a job goes.
    pub(super) fn output(&self, job: &str, is_stream: bool) -> String {
        let is_stream = if is_stream { "true" } else { "false" };
        with(&self.output.replace("$ID", &encoded(job)), &[("isStream", is_stream)])
    }

    /// Where pieces of its stream go.
    pub(super) fn stream(&self, job: &str) -> Option<String> {
        Some(with(&self.stream.as_ref()?.replace("$ID", &encoded(job)), &[("isStream", "false")]))
    }

    /// Where it is said that this worker lives, and with which jobs in hand.
    pub(super) fn ping(&self, jobs: &[String]) -> Option<String> {
        let jobs = jobs.join(",");
        let parameters = [("job_id", jobs.as_str()), ("runpod_version", SDK_VERSION)];
        Some(with(self.ping.as_ref()?, if jobs.is_empty() { &parameters[1..] } else { &parameters }))
    }

    /// Where it is said that it does not.
    pub(super) fn unhealthy(&self, check: &str, reason: &str) -> Option<String> {
        let parameters =
            [("status", "unhealthy"), ("check", check), ("reason", reason), ("runpod_version", SDK_VERSION)];
        Some(with(self.ping.as_ref()?, &parameters))
    }
}

/// The address with more parameters. Templates mostly have some, but need not.
fn with(address: &str, parameters: &[(&str, &str)]) -> String {
    let mut address = address.to_owned();
    for (name, value) in parameters {
        let mark = match address.find('?') {
            None => "?",
            Some(_) if address.ends_with(['?', '&']) => "",
            Some(_) => "&",
        };
        let _ = write!(address, "{mark}{name}={}", encoded(value));
    }
    address
}

/// A text as it may stand in a path or a query (RFC 3986, section 2.3).
fn encoded(text: &str) -> String {
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
    fn jobs_are_taken_one_by_one_or_many_at_once() {
        let one = addresses("$ID?gpu=A+B");
        assert_eq!(one.take(1, false), "https://h/v2/EP/job-take/pod1?gpu=A+B&job_in_progress=0");
        assert_eq!(one.take(1, true), "https://h/v2/EP/job-take/pod1?gpu=A+B&job_in_progress=1");
        assert_eq!(one.take(3, true), "https://h/v2/EP/job-take-batch/pod1?gpu=A+B&batch_size=3&job_in_progress=1");
        assert_eq!(one.stops().unwrap(), "https://h/v2/EP/job-stop/pod1?gpu=A+B");
        assert_eq!(
            addresses("$RUNPOD_POD_ID?x=1").take(1, false),
            "https://h/v2/EP/job-take/pod1?x=1&job_in_progress=0"
        );
    }

    #[test]
    fn a_template_without_parameters_gets_them_all_the_same() {
        assert_eq!(
            addresses("$ID").take(2, false),
            "https://h/v2/EP/job-take-batch/pod1?batch_size=2&job_in_progress=0"
        );
        assert_eq!(addresses("$ID?").take(1, false), "https://h/v2/EP/job-take/pod1?job_in_progress=0");
    }

    #[test]
    fn stops_are_asked_for_only_where_the_address_of_jobs_shows_where() {
        let mut odd = addresses("$ID");
        odd.take = "https://h/jobs/pod1".into();
        assert_eq!(odd.stops(), None);
        assert_eq!(odd.take(2, false), "https://h/jobs/pod1?batch_size=2&job_in_progress=0");
    }

    #[test]
    fn results_and_pieces_name_worker_and_job() {
        let of = addresses("$ID");
        assert_eq!(of.output("j-1", false), "https://h/v2/EP/job-done/pod1/j-1?gpu=A+B&isStream=false");
        assert_eq!(of.output("j-1", true), "https://h/v2/EP/job-done/pod1/j-1?gpu=A+B&isStream=true");
        assert_eq!(of.stream("j-1").unwrap(), "https://h/v2/EP/job-stream/pod1/j-1?gpu=A+B&isStream=false");
        assert!(of.output("../a?b&c", true).contains("/..%2Fa%3Fb%26c?"), "an id is one segment");
    }

    #[test]
    fn a_ping_names_the_jobs_in_hand_if_there_are_any() {
        let of = addresses("$ID");
        assert_eq!(of.ping(&[]).unwrap(), "https://h/v2/EP/ping/pod1?gpu=A+B&runpod_version=1.12.0");
        let two = of.ping(&["a".into(), "b".into()]).unwrap();
        assert_eq!(two, "https://h/v2/EP/ping/pod1?gpu=A+B&job_id=a%2Cb&runpod_version=1.12.0");
        let unhealthy = of.unhealthy("llama-server", "out of memory").unwrap();
        assert!(
            unhealthy.ends_with("&status=unhealthy&check=llama-server&reason=out%20of%20memory&runpod_version=1.12.0")
        );
    }

    proptest! {
        #[test]
        fn whatever_a_job_is_called_its_address_is_one(id in ".{1,40}") {
            let uri: http::Uri = addresses("$ID").output(&id, true).parse().unwrap();
            prop_assert_eq!(uri.path().split('/').count(), 6);
            prop_assert!(uri.query().unwrap().ends_with("isStream=true"));
        }
    }
}
