//! What a decoder has unpacked and not given on, within its bound.

use std::io::{self, Write};

/// What a stage has unpacked and not given on, and how much more it may unpack.
pub(super) struct Unpacked {
    pub(super) bytes: Vec<u8>,
    pub(super) left: usize,
    pub(super) is_full: bool,
}

impl Write for Unpacked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.left.checked_sub(bytes.len()) {
            Some(left) => self.left = left,
            None => {
                self.is_full = true;
                return Err(io::ErrorKind::FileTooLarge.into());
            }
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
