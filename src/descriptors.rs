//! File descriptors: how many this process may have, and who gets them.
//!
//! A connection takes one, and so does a probe of llama-server, which opens a new connection each time. So clients get
//! what is left after everything without which llama-server could not be watched: strangers who fill every place that
//! is theirs take nothing else away.

use crate::settings::bounds::{HEALTH_CONNECTIONS, UPSTREAM_IDLE_CONNECTIONS};
use crate::settings::catalogue::Catalogue;
use crate::settings::{Config, SettingProblem};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// File descriptors kept free of connections: listeners, logs, files that are read, what the runtime takes, pipes of
/// llama-server, and above all its probes.
pub const RESERVED_DESCRIPTORS: usize = 64;

/// Connections of clients below which the service does not start for want of file descriptors.
pub const FEWEST_CONNECTIONS: usize = 16;

/// What each gets.
#[derive(Debug)]
pub struct Descriptors {
    /// Most connections of clients at once: `MAX_CONNECTIONS`, or fewer.
    pub connections: usize,
    /// Why they are fewer.
    pub warning: Option<String>,
    /// The soft and the hard limit as they were found, for llama-server.
    pub found: Option<(u64, u64)>,
}

/// Raises the soft limit to the hard one and shares out what there is then.
pub fn share_out(config: &Config) -> Result<Descriptors, SettingProblem> {
    let wanted = config.settings.limits.max_connections.get();
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return Ok(Descriptors { connections: wanted, warning: None, found: None });
    };
    // Where the system refuses, the limit stays what it was.
    let is_raised = soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    let limit = if is_raised { hard } else { soft };
    let (connections, warning) = connections(limit, wanted, Slots::of(&config.catalogue, wanted))?;
    Ok(Descriptors { connections, warning, found: Some((soft, hard)) })
}

/// Requests that may be in flight to all workers of all models; each takes a connection.
#[derive(Debug, Clone, Copy)]
struct Slots {
    /// To workers that the gateway starts.
    own: usize,
    /// To remote backends.
    remote: usize,
}

impl Slots {
    /// Of all models together no more than clients may have connections, for each brings one request at a time; of one
    /// model all that it was given.
    fn of(catalogue: &Catalogue, wanted: usize) -> Self {
        let sum = |slots: &mut dyn Iterator<Item = usize>| slots.fold(0, usize::saturating_add);
        let locals = catalogue.models.iter().filter_map(|model| model.local.as_ref());
        let remotes = catalogue.models.iter().flat_map(|model| &model.remotes);
        let own: Vec<usize> = locals.map(|local| local.slots.saturating_mul(local.replicas as usize)).collect();
        let largest = own.iter().copied().max().unwrap_or(0);
        Self {
            own: sum(&mut own.into_iter()).min(wanted).max(largest),
            remote: sum(&mut remotes.map(|remote| remote.slots)),
        }
    }
}

/// The connections that a limit leaves to clients, and a warning where these are fewer than wanted.
fn connections(limit: u64, wanted: usize, slots: Slots) -> Result<(usize, Option<String>), SettingProblem> {
    let upstream = slots.own.saturating_add(UPSTREAM_IDLE_CONNECTIONS);
    let others = upstream.saturating_add(HEALTH_CONNECTIONS + RESERVED_DESCRIPTORS);
    let rest = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(others);
    // A client's connection brings one request at a time, over HTTP/1.1: of remote backends' slots, of which there are
    // many unless somebody says otherwise, no more are in use than there are such connections.
    let left = rest.saturating_sub(slots.remote).max(rest / 2);
    if left >= wanted {
        return Ok((wanted, None));
    }
    let fewest = wanted.min(FEWEST_CONNECTIONS);
    if left < fewest {
        let needed = others.saturating_add(fewest).saturating_add(slots.remote.min(fewest));
        return Err(SettingProblem {
            subject: format!("RLIMIT_NOFILE={limit}"),
            fault: format!("the limit on open files is too low: {needed} are needed to serve {fewest} connections"),
            hint: Some(
                "raise the hard limit (ulimit -Hn, LimitNOFILE= of systemd, docker run --ulimit nofile=), or lower MAX_CONCURRENT_REQUESTS, or parallel and replicas of models"
                    .to_owned(),
            ),
        });
    }
    let warning = format!(
        "the limit of {limit} open files (RLIMIT_NOFILE) leaves room for {left} connections of clients, not for MAX_CONNECTIONS={wanted}"
    );
    Ok((left, Some(warning)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::Platform;
    use crate::settings::{Environment, Inputs, resolve_text};
    use proptest::prelude::*;

    fn own(own: usize) -> Slots {
        Slots { own, remote: 0 }
    }

    /// What is taken before clients and slots get anything.
    const KEPT: u64 = (UPSTREAM_IDLE_CONNECTIONS + HEALTH_CONNECTIONS + RESERVED_DESCRIPTORS) as u64;

    #[test]
    fn clients_get_what_the_others_leave() {
        assert_eq!(connections(KEPT + 1025, 1024, own(1)).unwrap(), (1024, None));
        assert_eq!(connections(u64::MAX, 1024, own(1)).unwrap(), (1024, None));
        let (left, warning) = connections(KEPT + 1024, 1024, own(1)).unwrap();
        assert_eq!(left, 1023);
        assert!(warning.is_some_and(|text| text.contains("1023") && text.contains("MAX_CONNECTIONS=1024")));
        assert_eq!(connections(KEPT + 1025, 1024, own(11)).unwrap().0, 1014, "each slot takes one");
    }

    #[test]
    fn slots_of_remote_backends_take_no_more_than_there_are_clients() {
        let of = |remote| connections(KEPT + 1000, 1024, Slots { own: 0, remote }).unwrap().0;
        assert_eq!([0, 64, 500, 501, usize::MAX].map(of), [1000, 936, 500, 500, 500]);
    }

    #[test]
    fn too_few_for_anything_are_a_problem() {
        let fewest = FEWEST_CONNECTIONS as u64;
        assert_eq!(connections(KEPT + 1 + fewest, 1024, own(1)).unwrap().0, FEWEST_CONNECTIONS);
        assert!(connections(KEPT + fewest, 1024, own(1)).is_err());
        assert_eq!(connections(KEPT + 3, 2, own(1)).unwrap(), (2, None), "whoever wants fewer needs fewer");
        let problem = connections(1024, 1024, own(usize::MAX)).unwrap_err();
        assert!(problem.hint.is_some_and(|hint| hint.contains("parallel and replicas")));
        let many = Slots { own: 0, remote: usize::MAX };
        let problem = connections(KEPT + 2 * fewest - 1, 1024, many).unwrap_err();
        assert!(problem.fault.contains(&format!("{} are needed", KEPT + 2 * fewest)), "{}", problem.fault);
        assert_eq!(connections(KEPT + 2 * fewest, 1024, many).unwrap().0, FEWEST_CONNECTIONS);
    }

    #[test]
    fn the_slots_of_all_workers_of_all_models_count() {
        let text = "models:\n  a: {file: a.gguf, parallel: 4, replicas: 3}\n  b: {command: [b, '{port}'], parallel: 2}\n\
                    model_list:\n  - {model_name: a, litellm_params: {api_base: 'http://one'}}\n\
                    \x20 - {model_name: c, litellm_params: {api_base: 'http://two', max_parallel_requests: 7}}\n";
        let platform = Platform::plain("/nowhere".as_ref());
        let inputs = Inputs { environment: Environment::default(), ..Inputs::default() };
        let catalogue = resolve_text(&inputs, &platform, text).unwrap().config.catalogue;
        let slots = |wanted| Slots::of(&catalogue, wanted);
        assert_eq!((slots(1024).own, slots(1024).remote), (4 * 3 + 2, 64 + 7));
        assert_eq!((slots(13).own, slots(2).own), (13, 4 * 3), "many models are not all asked at once");
    }

    proptest! {
        #[test]
        fn nobody_gets_what_is_not_there(
            limit in 0..5000_u64,
            wanted in 1..3000_usize,
            own in 0..2000_usize,
            remote in 0..4000_usize,
        ) {
            let slots = Slots { own, remote };
            match connections(limit, wanted, slots) {
                Ok((left, warning)) => {
                    prop_assert!(left <= wanted && left >= wanted.min(FEWEST_CONNECTIONS));
                    prop_assert_eq!(warning.is_some(), left < wanted);
                    prop_assert!((left + remote.min(left) + own) as u64 + KEPT <= limit);
                }
                Err(problem) => {
                    let needed: u64 = problem.fault.split(' ').find_map(|word| word.parse().ok()).unwrap();
                    prop_assert!(needed > limit);
                    prop_assert!(connections(needed, wanted, slots).is_ok());
                }
            }
        }
    }
}
