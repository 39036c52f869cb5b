//! The identity of a process beyond its id, and the members of a group.

use std::io;

use super::here;

/// The identity of a process: unlike its id alone, it does not match a later process with the same id, nor a process of
/// another container or of an earlier boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcessIdentity {
    pub(crate) pid: i32,
    /// Time of its start, in a unit of the system.
    start: u64,
    /// Where and since when the id is valid: of Linux, the boot and the namespace.
    pid_namespace: String,
}

impl ProcessIdentity {
    /// Returns the identity of the process that has this id now.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such process, or the system's error.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        Ok(Self { pid, start: here::stat(pid)?.start, pid_namespace: here::pid_namespace()? })
    }

    /// Returns the identity as text, for [`ProcessIdentity::parse`].
    pub(crate) fn to_text(&self) -> String {
        format!("{} {} {}\n", self.pid, self.start, self.pid_namespace)
    }

    /// Parses [`ProcessIdentity::to_text`]; `None` for an identity of an earlier boot or of another container.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.trim_ascii_end().splitn(3, ' ');
        let (pid, start) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let pid_namespace = words.next()?.to_owned();
        // `kill(2)` sends a signal for pid 0 or a negative pid to many processes, so such a number must never get
        // there.
        let is_valid = pid > 1 && here::pid_namespace().is_ok_and(|current| current == pid_namespace);
        is_valid.then_some(Self { pid, start, pid_namespace })
    }

    /// Returns whether exactly this process is running.
    pub(crate) fn is_running(&self) -> bool {
        here::stat(self.pid).is_ok_and(|stat| stat.start == self.start && !stat.has_ended)
    }
}

/// Returns the ids of the processes of a group that have not ended.
///
/// # Errors
///
/// The error of listing processes.
pub(crate) fn members_of(group: i32) -> io::Result<Vec<i32>> {
    let members = here::stats()?.into_iter().filter(|(_, stat)| stat.group == group && !stat.has_ended);
    Ok(members.map(|(pid, _)| pid).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_matches_only_its_own_process() {
        let own = i32::try_from(std::process::id()).unwrap();
        let identity = ProcessIdentity::of(own).unwrap();
        assert!(identity.is_running());
        assert_eq!(ProcessIdentity::parse(&identity.to_text()), Some(identity.clone()));
        let successor = ProcessIdentity { start: identity.start + 1, ..identity.clone() };
        assert!(!successor.is_running(), "a later process with the same id");
        for other in ["00000000-0000-0000-0000-000000000000 pid:[1]", "x", ""] {
            let text = ProcessIdentity { pid_namespace: other.to_owned(), ..identity.clone() }.to_text();
            assert_eq!(ProcessIdentity::parse(&text), None, "{text}");
        }
        for malformed in ["1 0 x", "", "x", "0 0 x"] {
            assert_eq!(ProcessIdentity::parse(malformed), None, "{malformed:?}");
        }
        assert_eq!(here::stat(i32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(here::stat(-1).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn this_process_is_a_member_of_its_group() {
        let own = i32::try_from(std::process::id()).unwrap();
        let stat = here::stat(own).unwrap();
        assert_eq!(stat.parent, nix::unistd::getppid().as_raw());
        assert_eq!(stat.group, nix::unistd::getpgrp().as_raw());
        assert!(members_of(stat.group).unwrap().contains(&own));
        assert!(members_of(i32::MAX).unwrap().is_empty());
    }
}
