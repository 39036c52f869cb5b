//! RunPod's own variables for a queue worker: the URLs from which it takes jobs and to which it posts results. The
//! platform sets these variables itself, so they are not rows of the table of settings.
//!
//! Owns which of them are required and which values are valid. `runpod/address.rs` fills in the URL templates.

use std::time::Duration;

use http::{HeaderValue, Uri};

use super::environment::Environment;
use super::options::Settings;
use super::problem::SettingProblem;
use super::values::RunpodMode;
use crate::settings::bounds::{PING_INTERVAL_DEFAULT, PING_INTERVAL_LONGEST};

/// The variable whose presence makes this process a queue worker.
pub(super) const GET_JOB_VARIABLE: &str = "RUNPOD_WEBHOOK_GET_JOB";

/// The job queue of an endpoint, as RunPod's variables describe it. URLs are templates with the placeholders
/// `$RUNPOD_POD_ID` and `$ID`. They may contain secrets, so the type does not implement `Debug`.
#[derive(Clone)]
pub struct RunpodQueue {
    /// URL from which jobs are taken: `RUNPOD_WEBHOOK_GET_JOB`.
    pub take: String,
    /// URL to which results are posted: `RUNPOD_WEBHOOK_POST_OUTPUT`.
    pub output: String,
    /// URL to which chunks of streams are posted: `RUNPOD_WEBHOOK_POST_STREAM`. Without it only whole results are
    /// posted.
    pub stream: Option<String>,
    /// URL to which heartbeats of this worker are sent: `RUNPOD_WEBHOOK_PING`.
    pub ping: Option<String>,
    /// Time between two pings: `RUNPOD_PING_INTERVAL`, which is in milliseconds.
    pub ping_interval: Duration,
    /// The id of this worker: `RUNPOD_POD_ID`.
    pub pod_id: Option<String>,
    /// The value of the header `Authorization`: `RUNPOD_AI_API_KEY` unchanged, without `Bearer`.
    pub key: Option<HeaderValue>,
}

impl RunpodQueue {
    /// Reads the queue from which jobs are taken; `None` unless `RUNPOD_MODE` is `queue`.
    ///
    /// # Errors
    ///
    /// Returns all problems of these variables at once.
    pub fn read(settings: &Settings, environment: &Environment) -> Result<Option<Self>, Vec<SettingProblem>> {
        if settings.service.runpod_mode != Some(RunpodMode::Queue) {
            return Ok(None);
        }
        let mut problems = Vec::new();
        let take = required_url(GET_JOB_VARIABLE, environment, &mut problems);
        let output = required_url("RUNPOD_WEBHOOK_POST_OUTPUT", environment, &mut problems);
        let stream = url("RUNPOD_WEBHOOK_POST_STREAM", environment, &mut problems);
        let ping = url("RUNPOD_WEBHOOK_PING", environment, &mut problems);
        let ping_interval = ping_interval(environment).map_err(|problem| problems.push(problem)).ok();
        let key = key(environment).map_err(|problem| problems.push(problem)).ok();
        let pod_id = environment.get("RUNPOD_POD_ID").map(str::to_owned);
        match (take, output, ping_interval, key) {
            (Some(take), Some(output), Some(ping_interval), Some(key)) if problems.is_empty() => {
                Ok(Some(Self { take, output, stream, ping, ping_interval, pod_id, key }))
            }
            _ => Err(problems),
        }
    }
}

/// Returns a URL template whose variable must be set, or records a problem.
fn required_url(name: &str, environment: &Environment, problems: &mut Vec<SettingProblem>) -> Option<String> {
    if environment.get(name).is_none() {
        problems.push(SettingProblem {
            subject: name.to_owned(),
            fault: "RUNPOD_MODE is queue, and this variable is not set".to_owned(),
            hint: Some(
                "RunPod sets it for queue workers; elsewhere leave RUNPOD_MODE out or set it to http".to_owned(),
            ),
        });
    }
    url(name, environment, problems)
}

/// Returns a URL template, or records a problem if it is no URL with its placeholders filled in. The problem does not
/// quote it, because it may contain a secret.
fn url(name: &str, environment: &Environment, problems: &mut Vec<SettingProblem>) -> Option<String> {
    // RunPod puts names of GPUs with spaces into the query.
    let template = environment.get(name)?.trim().replace(' ', "%20");
    let uri = template.replace("$RUNPOD_POD_ID", "x").replace("$ID", "x").parse::<Uri>().ok();
    let is_valid = uri.is_some_and(|uri| {
        let is_plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        matches!(uri.scheme_str(), Some("http" | "https")) && is_plain
    });
    if !is_valid {
        problems.push(SettingProblem {
            subject: name.to_owned(),
            fault: "expected a URL, http://HOST/... or https://HOST/..., without a user name".to_owned(),
            hint: None,
        });
    }
    is_valid.then_some(template)
}

fn ping_interval(environment: &Environment) -> Result<Duration, SettingProblem> {
    const NAME: &str = "RUNPOD_PING_INTERVAL";
    let Some(text) = environment.get(NAME) else { return Ok(PING_INTERVAL_DEFAULT) };
    let interval = text.trim().parse().ok().map(Duration::from_millis);
    interval.filter(|interval| (Duration::from_millis(1)..=PING_INTERVAL_LONGEST).contains(interval)).ok_or_else(|| {
        SettingProblem {
            subject: format!("{NAME}={text:?}"),
            fault: format!("expected a whole number of milliseconds from 1 to {}", PING_INTERVAL_LONGEST.as_millis()),
            hint: None,
        }
    })
}

fn key(environment: &Environment) -> Result<Option<HeaderValue>, SettingProblem> {
    const NAME: &str = "RUNPOD_AI_API_KEY";
    let Some(text) = environment.get(NAME) else { return Ok(None) };
    // Secrets that come from a file often end with a newline.
    let mut key = HeaderValue::from_str(text.trim()).map_err(|_| SettingProblem {
        subject: NAME.to_owned(),
        fault: "expected a value that is valid in an HTTP header".to_owned(),
        hint: None,
    })?;
    // Keeps the key out of `Debug` output.
    key.set_sensitive(true);
    Ok(Some(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::{Platform, PlatformKind};
    use crate::settings::{Inputs, resolve};

    const GOOD: [(&str, &str); 2] = [
        (GET_JOB_VARIABLE, "https://h/job-take/$ID?gpu=NVIDIA RTX"),
        ("RUNPOD_WEBHOOK_POST_OUTPUT", "http://h:1/job-done/$ID?a=b"),
    ];

    fn read(variables: &[(&str, &str)]) -> Result<Option<RunpodQueue>, Vec<String>> {
        let environment: Environment = variables.iter().copied().collect();
        let inputs = Inputs { environment: environment.clone(), ..Inputs::default() };
        let platform = Platform {
            kind: PlatformKind::Local,
            data_dir: "/nowhere".into(),
            data_dir_rule: "a test".into(),
            instance_id: "x".into(),
        };
        let settings = resolve(&inputs, &platform).unwrap().config.settings;
        let texts = |problems: Vec<SettingProblem>| problems.iter().map(ToString::to_string).collect();
        RunpodQueue::read(&settings, &environment).map_err(texts)
    }

    #[test]
    fn the_queue_is_read_if_the_platform_sets_its_variables_unless_runpod_mode_is_http() {
        let queue = read(&GOOD).unwrap().unwrap();
        assert_eq!(queue.take, "https://h/job-take/$ID?gpu=NVIDIA%20RTX");
        assert_eq!((queue.ping_interval, queue.stream.is_none()), (Duration::from_secs(10), true));
        assert!(read(&[("RUNPOD_POD_ID", "p")]).unwrap().is_none());
        assert!(read(&[GOOD[0], GOOD[1], ("RUNPOD_MODE", "http")]).unwrap().is_none());
    }

    #[test]
    fn missing_variables_are_reported_together_with_a_hint() {
        let problems = read(&[("RUNPOD_MODE", "queue")]).err().unwrap();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems.iter().all(|problem| problem.contains("hint: RunPod sets it")), "{problems:?}");
    }

    #[test]
    fn a_bad_address_or_key_is_a_problem_that_quotes_neither() {
        for bad in ["ftp://h/s3cret", "/s3cret", "h s3cret", "http:///s3cret", "https://user:s3cret@h/x"] {
            let problems =
                read(&[(GET_JOB_VARIABLE, bad), GOOD[1]]).err().unwrap_or_else(|| panic!("{bad} is accepted"));
            assert!(problems[0].contains(GET_JOB_VARIABLE) && !problems[0].contains("s3cret"), "{problems:?}");
        }
        let problems = read(&[GOOD[0], GOOD[1], ("RUNPOD_AI_API_KEY", "s3\ncret")]).err().unwrap();
        assert!(problems[0].contains("RUNPOD_AI_API_KEY") && !problems[0].contains("cret"), "{problems:?}");
        assert!(read(&[GOOD[0], GOOD[1], ("RUNPOD_PING_INTERVAL", "0")]).is_err());
        assert!(read(&[GOOD[0], GOOD[1], ("RUNPOD_PING_INTERVAL", "soon")]).is_err());
    }

    #[test]
    fn the_key_is_not_printed() {
        let queue = read(&[GOOD[0], GOOD[1], ("RUNPOD_AI_API_KEY", " s3cret\n")]).unwrap().unwrap();
        assert_eq!(queue.key.as_ref().unwrap(), "s3cret");
        assert!(!format!("{:?}", queue.key).contains("s3cret"));
    }
}
