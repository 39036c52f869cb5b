//! What RunPod tells the worker of a queue: where jobs come from and where their results go. The platform sets these
//! variables itself, so they are no rows of the table.
//!
//! Owns which of them must be there and what each may be. What is made of the addresses is `runpod/address.rs`'s business.

use super::environment::Environment;
use super::options::Settings;
use super::problem::SettingProblem;
use super::values::RunpodMode;
use crate::settings::bounds::{PING_INTERVAL_DEFAULT, PING_INTERVAL_LONGEST};
use http::{HeaderValue, Uri};
use std::time::Duration;

/// The variable that a worker of a queue knows itself by.
pub(super) const TAKE: &str = "RUNPOD_WEBHOOK_GET_JOB";

/// The queue of an endpoint, as RunPod's variables describe it. Addresses are templates, in which `$RUNPOD_POD_ID` and `$ID`
/// stand for others; they may hold secrets, as the key does.
#[derive(Clone)]
pub struct RunpodQueue {
    /// Where jobs are taken: `RUNPOD_WEBHOOK_GET_JOB`.
    pub take: String,
    /// Where results are posted: `RUNPOD_WEBHOOK_POST_OUTPUT`.
    pub output: String,
    /// Where pieces of streams are posted: `RUNPOD_WEBHOOK_POST_STREAM`. Without it only whole results are.
    pub stream: Option<String>,
    /// Where the platform hears that this worker lives: `RUNPOD_WEBHOOK_PING`.
    pub ping: Option<String>,
    /// Time between two pings: `RUNPOD_PING_INTERVAL`, in milliseconds.
    pub ping_interval: Duration,
    /// The name of this worker: `RUNPOD_POD_ID`.
    pub pod_id: Option<String>,
    /// The value of `Authorization`: `RUNPOD_AI_API_KEY` as it is.
    pub key: Option<HeaderValue>,
}

impl RunpodQueue {
    /// The queue that jobs are to be taken from; none unless `RUNPOD_MODE` is `queue`.
    pub fn read(settings: &Settings, environment: &Environment) -> Result<Option<Self>, Vec<SettingProblem>> {
        if settings.service.runpod_mode != Some(RunpodMode::Queue) {
            return Ok(None);
        }
        let mut problems = Vec::new();
        let take = required(TAKE, environment, &mut problems);
        let output = required("RUNPOD_WEBHOOK_POST_OUTPUT", environment, &mut problems);
        let stream = address("RUNPOD_WEBHOOK_POST_STREAM", environment, &mut problems);
        let ping = address("RUNPOD_WEBHOOK_PING", environment, &mut problems);
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

fn required(name: &str, environment: &Environment, problems: &mut Vec<SettingProblem>) -> Option<String> {
    if environment.get(name).is_none() {
        problems.push(SettingProblem {
            subject: name.to_owned(),
            fault: "RUNPOD_MODE is queue, and this variable is not set".to_owned(),
            hint: Some(
                "RunPod sets it for the workers of a queue; anywhere else leave RUNPOD_MODE out, or say http"
                    .to_owned(),
            ),
        });
    }
    address(name, environment, problems)
}

/// An address, if it is one with a worker and a job put in. It is not quoted: it may hold a secret.
fn address(name: &str, environment: &Environment, problems: &mut Vec<SettingProblem>) -> Option<String> {
    let template = environment.get(name)?.trim().replace(' ', "%20");
    let uri = template.replace("$RUNPOD_POD_ID", "x").replace("$ID", "x").parse::<Uri>().ok();
    let is_good = uri.is_some_and(|uri| {
        let is_plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        matches!(uri.scheme_str(), Some("http" | "https")) && is_plain
    });
    if !is_good {
        problems.push(SettingProblem {
            subject: name.to_owned(),
            fault: "expected a whole address, http://HOST/... or https://HOST/..., without a user".to_owned(),
            hint: None,
        });
    }
    is_good.then_some(template)
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
    let mut key = HeaderValue::from_str(text.trim()).map_err(|_| SettingProblem {
        subject: NAME.to_owned(),
        fault: "expected what can stand in an HTTP header".to_owned(),
        hint: None,
    })?;
    key.set_sensitive(true);
    Ok(Some(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::{Platform, PlatformKind};
    use crate::settings::{Inputs, resolve};

    const GOOD: [(&str, &str); 2] = [
        (TAKE, "https://h/job-take/$ID?gpu=NVIDIA RTX"),
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
    fn jobs_are_taken_where_the_platform_says_so_unless_told_otherwise() {
        let queue = read(&GOOD).unwrap().unwrap();
        assert_eq!(queue.take, "https://h/job-take/$ID?gpu=NVIDIA%20RTX");
        assert_eq!((queue.ping_interval, queue.stream.is_none()), (Duration::from_secs(10), true));
        assert!(read(&[("RUNPOD_POD_ID", "p")]).unwrap().is_none());
        assert!(read(&[GOOD[0], GOOD[1], ("RUNPOD_MODE", "http")]).unwrap().is_none());
    }

    #[test]
    fn what_is_missing_is_said_all_at_once_and_with_a_hint() {
        let problems = read(&[("RUNPOD_MODE", "queue")]).err().unwrap();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems.iter().all(|problem| problem.contains("hint: RunPod sets it")), "{problems:?}");
    }

    #[test]
    fn a_bad_address_or_key_is_a_problem_that_quotes_neither() {
        for bad in ["ftp://h/s3cret", "/s3cret", "h s3cret", "http:///s3cret", "https://user:s3cret@h/x"] {
            let problems = read(&[(TAKE, bad), GOOD[1]]).err().unwrap_or_else(|| panic!("{bad} is taken"));
            assert!(problems[0].contains(TAKE) && !problems[0].contains("s3cret"), "{problems:?}");
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
