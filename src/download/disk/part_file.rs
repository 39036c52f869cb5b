//! The file that a download grows in, `NAME.incomplete`, and what it says of itself.
//!
//! Behind the last byte of the model stands a trailer: which pieces have arrived. So a part is one file, which another
//! process can go on with, and which no other program takes for the beginning of a model: it is longer than the model.
//! A part without a trailer is another program's, of whose bytes nothing is known: it begins again.
//!
//! A piece is written before its bit in the trailer, so a process that is killed loses only unfinished pieces. After a
//! power failure a bit may be there without its piece: the hash of the whole finds that.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use super::pieces::{Pieces, count};
use crate::download::bounds::PIECE;
use crate::os::here;

/// The beginning of a trailer. The last byte is the version of its form.
const MAGIC: &[u8; 8] = b"LLGPART\x01";
/// Bytes of a trailer before the bits: the magic, the size of the file and the size of a piece.
const TRAILER_HEAD: u64 = 24;

/// An open part.
pub(in crate::download) struct PartFile {
    path: PathBuf,
    file: File,
    size: u64,
    pieces: Mutex<Pieces>,
    /// Held while pieces are noted in the trailer.
    noting: Mutex<()>,
}

impl PartFile {
    /// Opens the part of a file of `size` bytes, or creates it with all its room on the disk. What has arrived of it stays.
    ///
    /// # Errors
    /// The file cannot be opened, or the disk is full.
    pub(in crate::download) fn open(path: &Path, size: u64) -> io::Result<Self> {
        // A link in its place would lead out of the cache.
        let no_follow = nix::fcntl::OFlag::O_NOFOLLOW.bits();
        let options =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).custom_flags(no_follow).to_owned();
        let file = options.open(path)?;
        let length = file.metadata()?.len();
        let known = read_trailer(&file, size, length)?;
        let is_new = known.is_none();
        // The trailer goes in the last step before the renaming.
        let is_whole = length == size && size > 0;
        let pieces = known.unwrap_or_else(|| Pieces::first_bytes(size, if is_whole { size } else { 0 }));
        let part = Self { path: path.to_owned(), file, size, pieces: Mutex::new(pieces), noting: Mutex::new(()) };
        if is_new {
            // Without room for all of it nothing is left that looks like a part.
            part.reserve().and_then(|()| part.write_trailer()).inspect_err(|_| _ = fs::remove_file(path))?;
        }
        Ok(part)
    }

    /// Takes the room that the file will need, so that a full disk is found before the download and not in the middle.
    fn reserve(&self) -> io::Result<()> {
        here::reserve(&self.file, self.length())?;
        self.file.set_len(self.length())
    }

    /// Returns the length of the file with its trailer.
    fn length(&self) -> u64 {
        self.size + trailer_length(self.size)
    }

    fn write_trailer(&self) -> io::Result<()> {
        let mut head = MAGIC.to_vec();
        head.extend(self.size.to_le_bytes());
        head.extend(PIECE.to_le_bytes());
        self.file.write_all_at(self.lock().bits(), self.size + TRAILER_HEAD)?;
        self.file.write_all_at(&head, self.size)
    }

    /// Writes bytes that follow each other in the file, beginning at `from`, and notes the pieces that end in them. The
    /// caller has written the beginning of the first piece before. What had arrived already stays as it is, because it
    /// may be hashed already. Returns how many bytes the pieces have that were missing until now.
    ///
    /// # Errors
    /// The disk is full or broken.
    pub(in crate::download) fn write(&self, from: u64, chunks: &[Bytes]) -> io::Result<u64> {
        let mut at = from;
        for chunk in chunks {
            let mut rest = chunk.as_ref();
            while !rest.is_empty() {
                let left = usize::try_from(PIECE - at % PIECE).unwrap_or(usize::MAX);
                let (now, later) = rest.split_at(left.min(rest.len()));
                if !self.lock().has(usize::try_from(at / PIECE).unwrap_or(usize::MAX)) {
                    self.file.write_all_at(now, at)?;
                }
                at += now.len() as u64;
                rest = later;
            }
        }
        self.note(&(from..at))
    }

    /// Notes the pieces that end in these bytes. Returns how many bytes those have that were missing.
    fn note(&self, bytes: &Range<u64>) -> io::Result<u64> {
        // One at a time: two connections may finish pieces of one byte of the bits. Not under the lock of the pieces,
        // which tasks take that must not wait for a disk.
        let _noting = self.noting.lock().unwrap_or_else(PoisonError::into_inner);
        let (new, at, bits) = {
            let mut pieces = self.lock();
            let ended = pieces.ending_in(bytes);
            let missing: Vec<usize> = ended.clone().filter(|piece| !pieces.has(*piece)).collect();
            let new = missing.iter().map(|piece| pieces.bytes_of(&(*piece..piece + 1))).map(|one| one.end - one.start);
            let new = new.sum();
            missing.into_iter().for_each(|piece| pieces.add(piece));
            let (at, bits) = pieces.bits_of(&ended);
            (new, at, bits.to_owned())
        };
        // A part that another process has taken over and finished has no trailer any more.
        if new > 0 && self.file.metadata()?.len() == self.length() {
            self.file.write_all_at(&bits, self.size + TRAILER_HEAD + at as u64)?;
        }
        Ok(new)
    }

    /// Reads from the file at this place, as far as it fits into `buffer`.
    ///
    /// # Errors
    /// The disk is broken.
    pub(in crate::download) fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, at)
    }

    /// Makes the part the file that it was meant to become, with everything on the disk.
    ///
    /// # Errors
    /// The disk is broken, or the name cannot be given.
    pub(in crate::download) fn finish(self, name: &Path) -> io::Result<()> {
        self.file.set_len(self.size)?;
        self.file.sync_all()?;
        fs::rename(&self.path, name)?;
        sync_folder(name)
    }

    /// Returns the size of the whole file in bytes.
    pub(in crate::download) fn size(&self) -> u64 {
        self.size
    }

    /// Returns which pieces have arrived.
    pub(in crate::download) fn lock(&self) -> std::sync::MutexGuard<'_, Pieces> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the names in the folder of this file last.
///
/// # Errors
/// The folder cannot be opened.
pub(in crate::download) fn sync_folder(file: &Path) -> io::Result<()> {
    let Some(folder) = file.parent() else { return Ok(()) };
    match File::open(folder)?.sync_all() {
        // Some network file systems cannot.
        Err(error) if error.raw_os_error() == Some(nix::Error::EINVAL as i32) => Ok(()),
        outcome => outcome,
    }
}

fn trailer_length(size: u64) -> u64 {
    TRAILER_HEAD + count(size).div_ceil(8) as u64
}

/// Reads the trailer of a part of a file of `size` bytes; `None` if it has none, or that of another file.
fn read_trailer(file: &File, size: u64, length: u64) -> io::Result<Option<Pieces>> {
    if length != size + trailer_length(size) {
        return Ok(None);
    }
    let mut trailer = vec![0; usize::try_from(trailer_length(size)).map_err(io::Error::other)?];
    file.read_exact_at(&mut trailer, size)?;
    let Some(rest) = trailer.strip_prefix(MAGIC) else { return Ok(None) };
    let Some(bits) = rest.strip_prefix(&size.to_le_bytes()).and_then(|rest| rest.strip_prefix(&PIECE.to_le_bytes()))
    else {
        return Ok(None);
    };
    Ok(Pieces::from_bits(size, bits))
}

/// Returns how many bytes have arrived of the part at this path, and the size of the whole file, if its trailer says that.
/// Of a part of another program the first is the length of its file.
///
/// # Errors
/// The file cannot be read.
pub(in crate::download) fn arrived_of(path: &Path) -> io::Result<(u64, Option<u64>)> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    // The length of the trailer depends on the size, and is the same for sizes that are close to each other.
    let mut size = length.saturating_sub(trailer_length(length));
    let farthest = length.saturating_sub(TRAILER_HEAD);
    while size <= farthest {
        if let Some(pieces) = read_trailer(&file, size, length)? {
            return Ok((pieces.arrived_bytes(), Some(size)));
        }
        if size + trailer_length(size) >= length {
            break;
        }
        size += 1;
    }
    Ok((length, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 5 * PIECE + 7;

    fn part(dir: &tempfile::TempDir) -> PathBuf {
        dir.path().join("sha.incomplete")
    }

    #[test]
    fn what_has_arrived_is_known_to_the_next_process() {
        let dir = tempfile::tempdir().unwrap();
        let open = || PartFile::open(&part(&dir), SIZE).unwrap();
        let first = open();
        let bytes = |length: u64| Bytes::from(vec![b'1'; length as usize]);
        assert_eq!(first.write(PIECE, &[bytes(5), bytes(PIECE - 5)]).unwrap(), PIECE);
        assert_eq!(first.write(5 * PIECE, &[Bytes::from("7 bytes")]).unwrap(), 7);
        assert_eq!(first.write(2 * PIECE, &[bytes(PIECE - 1)]).unwrap(), 0, "a piece that is not whole");
        drop(first);
        assert_eq!(arrived_of(&part(&dir)).unwrap(), (PIECE + 7, Some(SIZE)));
        let second = open();
        assert_eq!(second.lock().arrived_bytes(), PIECE + 7);
        assert!(second.lock().has(1) && second.lock().has(5) && !second.lock().has(0));
        assert_eq!(second.write(0, &[Bytes::from(vec![b'x'; 5 * PIECE as usize])]).unwrap(), 4 * PIECE);
        assert!(second.lock().is_complete());
        let name = dir.path().join("sha");
        second.finish(&name).unwrap();
        let bytes = fs::read(&name).unwrap();
        assert_eq!((bytes.len() as u64, bytes.ends_with(b"7 bytes")), (SIZE, true));
        assert_eq!(bytes[PIECE as usize], b'1', "what had arrived stays as it was hashed");
        assert!(!part(&dir).exists());
    }

    #[test]
    fn a_part_with_holes_of_another_program_counted_as_a_beginning() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(part(&dir), vec![0; 2 * PIECE as usize + 9]).unwrap();
        assert_eq!(PartFile::open(&part(&dir), SIZE).unwrap().lock().arrived_bytes(), 0);
    }

    #[test]
    fn a_part_that_lacks_only_its_name_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(part(&dir), vec![b'w'; SIZE as usize]).unwrap();
        let opened = PartFile::open(&part(&dir), SIZE).unwrap();
        assert!(opened.lock().is_complete());
        let mut start = [0; 4];
        opened.read_at(&mut start, 0).unwrap();
        assert_eq!(&start, b"wwww");
    }

    #[test]
    fn a_part_that_does_not_fit_begins_again() {
        let dir = tempfile::tempdir().unwrap();
        drop(PartFile::open(&part(&dir), SIZE + PIECE).unwrap());
        assert_eq!(PartFile::open(&part(&dir), SIZE).unwrap().lock().arrived_bytes(), 0, "of another size");
        let length = fs::metadata(part(&dir)).unwrap().len();
        fs::write(part(&dir), vec![1; usize::try_from(length).unwrap()]).unwrap();
        assert_eq!(PartFile::open(&part(&dir), SIZE).unwrap().lock().arrived_bytes(), 0, "of no form");
    }

    /// A write that was on its way when the process was paused, and the lock was taken over.
    #[test]
    fn a_late_write_made_the_finished_file_longer() {
        let dir = tempfile::tempdir().unwrap();
        let open = || PartFile::open(&part(&dir), SIZE).unwrap();
        let (late, next) = (open(), open());
        let all = Bytes::from(vec![b'x'; SIZE as usize]);
        next.write(0, std::slice::from_ref(&all)).unwrap();
        let name = dir.path().join("sha");
        next.finish(&name).unwrap();
        late.write(0, &[all]).unwrap();
        assert_eq!(fs::metadata(name).unwrap().len(), SIZE);
    }

    #[test]
    fn a_link_in_place_of_a_part_was_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::write(&outside, "mine").unwrap();
        std::os::unix::fs::symlink(&outside, part(&dir)).unwrap();
        assert!(PartFile::open(&part(&dir), SIZE).is_err());
        assert_eq!(fs::read(&outside).unwrap(), b"mine");
    }
}
