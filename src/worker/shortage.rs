//! Failures to connect that say nothing about llama-server, because this machine was short of something.

use nix::errno::Errno;
use std::error::Error;
use std::io;

/// What was short, if that is why a connection could not even be begun.
pub(super) fn shortage(error: &(dyn Error + 'static)) -> Option<Errno> {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    let codes = causes.filter_map(|error| error.downcast_ref::<io::Error>()?.raw_os_error());
    codes.map(Errno::from_raw).find(|code| {
        matches!(code, Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS | Errno::EADDRNOTAVAIL)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    #[test]
    fn only_what_is_short_here_is_a_shortage() {
        for (code, expected) in [
            (Errno::EMFILE, Some(Errno::EMFILE)),
            (Errno::ENFILE, Some(Errno::ENFILE)),
            (Errno::ENOMEM, Some(Errno::ENOMEM)),
            (Errno::EADDRNOTAVAIL, Some(Errno::EADDRNOTAVAIL)),
            (Errno::ECONNREFUSED, None),
            (Errno::ECONNRESET, None),
            (Errno::ETIMEDOUT, None),
        ] {
            assert_eq!(shortage(&Outer(io::Error::from(code))), expected);
        }
        assert_eq!(shortage(&Outer(io::Error::other("no code"))), None);
    }
}
