//! What the codes of a failure say: of this machine, if it was short of something, or of llama-server.

use nix::errno::Errno;
use std::error::Error;
use std::io;

/// What was short, if that is why a connection could not even be begun.
pub(super) fn shortage(error: &(dyn Error + 'static)) -> Option<Errno> {
    codes(error).find(|code| {
        matches!(
            code,
            Errno::EMFILE
                | Errno::ENFILE
                | Errno::ENOMEM
                | Errno::ENOBUFS
                | Errno::EADDRNOTAVAIL
                // Of a fork, and of a connection that finds no port.
                | Errno::EAGAIN
        )
    })
}

/// Whether nobody listens where a connection was to go.
pub(super) fn is_refused(error: &(dyn Error + 'static)) -> bool {
    codes(error).any(|code| code == Errno::ECONNREFUSED)
}

fn codes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = Errno> + 'a {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.filter_map(|error| error.downcast_ref::<io::Error>()?.raw_os_error()).map(Errno::from_raw)
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
            (Errno::EAGAIN, Some(Errno::EAGAIN)),
            (Errno::ECONNREFUSED, None),
            (Errno::ECONNRESET, None),
            (Errno::ETIMEDOUT, None),
        ] {
            assert_eq!(shortage(&Outer(io::Error::from(code))), expected);
        }
        assert_eq!(shortage(&Outer(io::Error::other("no code"))), None);
    }
}
