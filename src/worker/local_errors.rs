//! Tells failures that this machine caused from failures of a worker, by the error codes of the system.

use std::error::Error;
use std::io;

use nix::errno::Errno;

/// Returns the code of a shortage on this machine, if that is why a connection, file or process could not be opened.
/// Such an error says nothing about the worker.
pub(super) fn shortage(error: &(dyn Error + 'static)) -> Option<Errno> {
    codes(error).find(|code| {
        matches!(
            code,
            Errno::EMFILE
                | Errno::ENFILE
                | Errno::ENOMEM
                | Errno::ENOBUFS
                | Errno::EADDRNOTAVAIL
                // `fork` without a free process slot, and `connect` without a free local port.
                | Errno::EAGAIN
        )
    })
}

/// Returns whether a connection was refused: no process listens on that port.
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
    fn only_codes_of_local_shortages_count_as_a_shortage() {
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
