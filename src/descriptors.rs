//! File descriptors: how many this process may have, and who gets them.
//!
//! A connection takes one, and so does a probe of llama-server, which opens a new connection each time. So clients get
//! what is left after everything without which llama-server could not be watched: strangers who fill every place that
//! is theirs take nothing else away.

use crate::settings::bounds::{
    FEWEST_CONNECTIONS, HEALTH_CONNECTIONS, RESERVED_DESCRIPTORS, UPSTREAM_IDLE_CONNECTIONS,
};
use crate::settings::{Problem, Settings};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

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
pub fn share_out(settings: &Settings) -> Result<Descriptors, Problem> {
    let wanted = settings.limits.max_connections.get();
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return Ok(Descriptors { connections: wanted, warning: None, found: None });
    };
    // Where the system refuses, the limit stays what it was.
    let is_raised = soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    let limit = if is_raised { hard } else { soft };
    let (connections, warning) = connections(limit, wanted, settings.queue.max_concurrent_requests.get())?;
    Ok(Descriptors { connections, warning, found: Some((soft, hard)) })
}

/// The connections that a limit leaves to clients, and a warning where these are fewer than wanted.
fn connections(limit: u64, wanted: usize, slots: usize) -> Result<(usize, Option<String>), Problem> {
    let upstream = slots.saturating_add(UPSTREAM_IDLE_CONNECTIONS);
    let others = upstream.saturating_add(HEALTH_CONNECTIONS + RESERVED_DESCRIPTORS);
    let left = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(others);
    if left >= wanted {
        return Ok((wanted, None));
    }
    let fewest = wanted.min(FEWEST_CONNECTIONS);
    if left < fewest {
        let needed = others.saturating_add(fewest);
        return Err(Problem {
            subject: format!("RLIMIT_NOFILE={limit}"),
            fault: format!("the limit on open files is too low: {needed} are needed to serve {fewest} connections"),
            hint: Some(
                "raise the hard limit (ulimit -Hn, LimitNOFILE= of systemd, docker run --ulimit nofile=), or lower MAX_CONCURRENT_REQUESTS"
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

    #[test]
    fn clients_get_what_the_others_leave() {
        let others = (1 + UPSTREAM_IDLE_CONNECTIONS + HEALTH_CONNECTIONS + RESERVED_DESCRIPTORS) as u64;
        assert_eq!(connections(others + 1024, 1024, 1).unwrap(), (1024, None));
        assert_eq!(connections(u64::MAX, 1024, 1).unwrap(), (1024, None));
        let (left, warning) = connections(others + 1023, 1024, 1).unwrap();
        assert_eq!(left, 1023);
        assert!(warning.is_some_and(|text| text.contains("1023") && text.contains("MAX_CONNECTIONS=1024")));
        assert_eq!(connections(others + 1024, 1024, 11).unwrap().0, 1014, "each slot takes one");
    }

    #[test]
    fn too_few_for_anything_are_a_problem() {
        let others = (1 + UPSTREAM_IDLE_CONNECTIONS + HEALTH_CONNECTIONS + RESERVED_DESCRIPTORS) as u64;
        let fewest = FEWEST_CONNECTIONS as u64;
        assert_eq!(connections(others + fewest, 1024, 1).unwrap().0, FEWEST_CONNECTIONS);
        assert!(connections(others + fewest - 1, 1024, 1).is_err());
        assert_eq!(connections(others + 2, 2, 1).unwrap(), (2, None), "whoever wants fewer needs fewer");
        assert!(connections(1024, 1024, usize::MAX).is_err());
    }
}
