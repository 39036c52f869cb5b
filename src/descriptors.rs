//! File descriptors: the limit of this process, and how many client connections it allows.
//!
//! Each connection uses one, and each probe of llama-server opens a new connection. Therefore enough descriptors for
//! slots, probes, logs and files are set aside first, and clients get the rest: clients that open as many connections
//! as they can never stop the gateway from probing and restarting llama-server.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::cores::bounds::{CORE_DESCRIPTORS, MOST_CORES};
use crate::models::bounds::MOST_SHELF_MODELS;
use crate::os::here;
use crate::settings::bounds::{HEALTH_CONNECTIONS, UPSTREAM_IDLE_CONNECTIONS};
use crate::settings::catalogue::Catalogue;
use crate::settings::{Config, SettingProblem};

/// File descriptors that no connection may use: for listeners, logs, open files, the runtimes, pipes of llama-server,
/// and above all its probes.
pub const RESERVED_DESCRIPTORS: usize = 64 + MOST_CORES * CORE_DESCRIPTORS;

/// Fewest client connections with which the service starts.
pub const MIN_CONNECTIONS: usize = 16;

/// How the file descriptors are divided.
#[derive(Debug)]
pub struct Descriptors {
    /// Most client connections at once: `MAX_CONNECTIONS`, or fewer.
    pub connections: usize,
    /// Why there are fewer than `MAX_CONNECTIONS`.
    pub warning: Option<String>,
    /// The soft and the hard limit before they were changed. llama-server gets these.
    pub found: Option<(u64, u64)>,
}

/// Raises the soft limit to the hard limit, or as far as the system allows, and divides the descriptors.
///
/// # Errors
///
/// The limit is too low to serve [`MIN_CONNECTIONS`] clients, or as many as `MAX_CONNECTIONS` if that is less.
pub fn allocate(config: &Config) -> Result<Descriptors, SettingProblem> {
    let wanted = config.settings.limits.max_connections.get();
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return Ok(Descriptors { connections: wanted, warning: None, found: None });
    };
    // If the system refuses, go on with the limit as it was.
    // The runtime does not use select(2), for which descriptors above 1023 would be a problem.
    let most = here::most_open_files(hard);
    let is_raised = soft < most && setrlimit(Resource::RLIMIT_NOFILE, most, hard).is_ok();
    let limit = if is_raised { most } else { soft };
    let (connections, warning) = connections(limit, wanted, SlotCounts::of(&config.catalogue, wanted))?;
    Ok(Descriptors { connections, warning, found: Some((soft, hard)) })
}

/// The number of requests that may be in flight to workers; each uses a connection.
#[derive(Debug, Clone, Copy)]
struct SlotCounts {
    /// To workers that the gateway starts.
    local: usize,
    /// To remote backends, and to models that are found below `MODELS_DIR`.
    remote: usize,
}

impl SlotCounts {
    /// Counts the slots of all models. The local ones are limited to `wanted`, because a client connection brings one
    /// request at a time; but they are never fewer than those of the largest model.
    fn of(catalogue: &Catalogue, wanted: usize) -> Self {
        let sum = |slots: &mut dyn Iterator<Item = usize>| slots.fold(0, usize::saturating_add);
        let shelf = catalogue.shelf.as_ref().and_then(|model| model.local.as_ref());
        let locals = catalogue.models.iter().filter_map(|model| model.local.as_ref()).chain(shelf);
        let shelf_slots = shelf.map(|local| local.slots.saturating_mul(MOST_SHELF_MODELS));
        let remotes = catalogue.models.iter().flat_map(|model| &model.remotes);
        let local: Vec<usize> = locals.map(|local| local.slots.saturating_mul(local.replicas as usize)).collect();
        let largest = local.iter().copied().max().unwrap_or(0);
        Self {
            local: sum(&mut local.into_iter()).min(wanted).max(largest),
            // How many models a shelf will have is not known, and few of them are loaded at once: like the slots of
            // remote backends, those of all of them are never in use at the same time.
            remote: sum(&mut remotes.map(|remote| remote.slots).chain(shelf_slots)),
        }
    }
}

/// Returns how many client connections the limit allows, and a warning if they are fewer than `wanted`.
fn connections(limit: u64, wanted: usize, slots: SlotCounts) -> Result<(usize, Option<String>), SettingProblem> {
    let upstream = slots.local.saturating_add(UPSTREAM_IDLE_CONNECTIONS);
    let others = upstream.saturating_add(HEALTH_CONNECTIONS + RESERVED_DESCRIPTORS);
    let rest = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(others);
    // Remote backends have many slots by default. An HTTP/1.1 connection of a client brings one request at a time, so
    // never more of these slots are in use than there are client connections: half of the rest is always enough.
    let left = rest.saturating_sub(slots.remote).max(rest / 2);
    if left >= wanted {
        return Ok((wanted, None));
    }
    let min = wanted.min(MIN_CONNECTIONS);
    if left < min {
        let needed = others.saturating_add(min).saturating_add(slots.remote.min(min));
        return Err(SettingProblem {
            subject: format!("RLIMIT_NOFILE={limit}"),
            fault: format!("the limit on open files is too low: {needed} are needed to serve {min} connections"),
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
    use proptest::prelude::*;

    use super::*;
    use crate::platform::Platform;
    use crate::settings::{Environment, Inputs, resolve_text};

    fn local(local: usize) -> SlotCounts {
        SlotCounts { local, remote: 0 }
    }

    /// Descriptors that neither clients nor slots get.
    const KEPT: u64 = (UPSTREAM_IDLE_CONNECTIONS + HEALTH_CONNECTIONS + RESERVED_DESCRIPTORS) as u64;

    #[test]
    fn clients_get_the_descriptors_that_nothing_else_needs() {
        assert_eq!(connections(KEPT + 1025, 1024, local(1)).unwrap(), (1024, None));
        assert_eq!(connections(u64::MAX, 1024, local(1)).unwrap(), (1024, None));
        let (left, warning) = connections(KEPT + 1024, 1024, local(1)).unwrap();
        assert_eq!(left, 1023);
        assert!(warning.is_some_and(|text| text.contains("1023") && text.contains("MAX_CONNECTIONS=1024")));
        assert_eq!(connections(KEPT + 1025, 1024, local(11)).unwrap().0, 1014, "each slot uses one");
    }

    #[test]
    fn remote_slots_use_at_most_as_many_descriptors_as_clients() {
        let of = |remote| connections(KEPT + 1000, 1024, SlotCounts { local: 0, remote }).unwrap().0;
        assert_eq!([0, 64, 500, 501, usize::MAX].map(of), [1000, 936, 500, 500, 500]);
    }

    #[test]
    fn a_limit_too_low_for_the_fewest_connections_is_a_problem() {
        let min = MIN_CONNECTIONS as u64;
        assert_eq!(connections(KEPT + 1 + min, 1024, local(1)).unwrap().0, MIN_CONNECTIONS);
        assert!(connections(KEPT + min, 1024, local(1)).is_err());
        assert_eq!(connections(KEPT + 3, 2, local(1)).unwrap(), (2, None), "a lower MAX_CONNECTIONS needs fewer");
        let problem = connections(1024, 1024, local(usize::MAX)).unwrap_err();
        assert!(problem.hint.is_some_and(|hint| hint.contains("parallel and replicas")));
        let many = SlotCounts { local: 0, remote: usize::MAX };
        let problem = connections(KEPT + 2 * min - 1, 1024, many).unwrap_err();
        assert!(problem.fault.contains(&format!("{} are needed", KEPT + 2 * min)), "{}", problem.fault);
        assert_eq!(connections(KEPT + 2 * min, 1024, many).unwrap().0, MIN_CONNECTIONS);
    }

    #[test]
    fn the_slots_of_all_workers_of_all_models_count() {
        let text = "models:\n  a: {file: a.gguf, parallel: 4, replicas: 3}\n  b: {command: [b, '{port}'], parallel: 2}\n\
                    model_list:\n  - {model_name: a, litellm_params: {api_base: 'http://one'}}\n\
                    \x20 - {model_name: c, litellm_params: {api_base: 'http://two', max_parallel_requests: 7}}\n";
        let platform = Platform::plain("/nowhere".as_ref());
        let inputs = Inputs { environment: Environment::default(), ..Inputs::default() };
        let catalogue = resolve_text(&inputs, &platform, text).unwrap().config.catalogue;
        let slots = |wanted| SlotCounts::of(&catalogue, wanted);
        assert_eq!((slots(1024).local, slots(1024).remote), (4 * 3 + 2, 64 + 7));
        assert_eq!(
            (slots(13).local, slots(2).local),
            (13, 4 * 3),
            "no more than MAX_CONNECTIONS, but all of one model"
        );
        let catalogue = resolve_text(&inputs, &platform, "defaults: {parallel: 3}").unwrap().config.catalogue;
        let slots = SlotCounts::of(&catalogue, 1024);
        assert_eq!((slots.local, slots.remote), (3, 3 * MOST_SHELF_MODELS), "a folder of models");
    }

    proptest! {
        #[test]
        fn the_parts_never_exceed_the_limit(
            limit in 0..5000_u64,
            wanted in 1..3000_usize,
            local in 0..2000_usize,
            remote in 0..4000_usize,
        ) {
            let slots = SlotCounts { local, remote };
            match connections(limit, wanted, slots) {
                Ok((left, warning)) => {
                    prop_assert!(left <= wanted && left >= wanted.min(MIN_CONNECTIONS));
                    prop_assert_eq!(warning.is_some(), left < wanted);
                    prop_assert!((left + remote.min(left) + local) as u64 + KEPT <= limit);
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
