use std::fs;

use nix::sys::stat::Mode;

use super::*;

const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(50);

fn part(folder: &Path, number: u32, bytes: usize) -> PathBuf {
    let path = folder.join(format!("m-{number:05}-of-00003.gguf"));
    fs::write(&path, vec![number as u8; bytes]).unwrap();
    path
}

/// Creates a file whose reader blocks in the kernel until it is opened for writing, as on a lost volume.
fn stuck_file(folder: &Path) -> PathBuf {
    let path = folder.join("stuck.gguf");
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
    path
}

/// Ends a read that is blocked by `stuck_file`, or would be.
fn unblock(path: &Path) {
    drop(fs::OpenOptions::new().read(true).write(true).open(path).unwrap());
}

#[tokio::test]
async fn all_parts_of_a_model_are_read_to_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let sizes = [PREFETCH_BUFFER + 1, 7, 3 * PREFETCH_BUFFER];
    let parts: Vec<PathBuf> = (1..).zip(sizes).map(|(number, size)| part(folder.path(), number, size)).collect();
    let total = sizes.iter().sum::<usize>() as u64;
    assert_eq!(follow(Arc::default(), "m", &parts[0], LONG, Some(total)).await, PrefetchOutcome::Read);
    let reader = ModelReader::default();
    assert_eq!(reader.read_all(&models::split::parts_of(&parts[0]), None).unwrap(), None);
    assert_eq!((reader.bytes(), reader.total()), (total, total));
}

#[tokio::test]
async fn a_model_that_cannot_stay_in_memory_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let parts: Vec<PathBuf> = (1..=3).map(|number| part(folder.path(), number, 10)).collect();
    assert_eq!(follow(Arc::default(), "m", &parts[0], LONG, Some(29)).await, PrefetchOutcome::TooLarge);
    let reader = ModelReader::default();
    assert_eq!(reader.read_all(&parts, Some(29)).unwrap(), Some(29));
    assert_eq!((reader.bytes(), reader.total()), (0, 30));
}

#[tokio::test]
async fn a_model_that_cannot_be_read_ends_the_prefetch_as_failed() {
    let folder = tempfile::tempdir().unwrap();
    let first = part(folder.path(), 1, 10);
    assert_eq!(follow(Arc::default(), "m", &first, LONG, None).await, PrefetchOutcome::Failed, "two parts are missing");
    assert_eq!(
        follow(Arc::default(), "m", folder.path(), LONG, None).await,
        PrefetchOutcome::Failed,
        "a folder can be opened but not read"
    );
}

#[tokio::test]
async fn a_read_that_brings_nothing_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = stuck_file(folder.path());
    let prefetching = follow(Arc::default(), "m", &path, SHORT, None);
    let outcome = tokio::time::timeout(LONG, prefetching).await;
    unblock(&path);
    assert_eq!(outcome, Ok(PrefetchOutcome::Stalled));
}

#[tokio::test]
async fn a_cancelled_prefetch_does_not_wait_for_a_stuck_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = stuck_file(folder.path());
    let reader = Arc::<ModelReader>::default();
    let prefetching = follow(Arc::clone(&reader), "m", &path, LONG, None);
    let outcome = tokio::time::timeout(SHORT, prefetching).await;
    let is_stopped = reader.is_stopped.load(Ordering::Relaxed);
    unblock(&path);
    assert!(outcome.is_err(), "the prefetch was dropped while it waited");
    assert!(is_stopped, "the thread is told to stop");
}

/// A file that stops its reader during the third read, and counts the reads.
struct StoppingFile<'a>(&'a ModelReader, u32);

impl Read for &mut StoppingFile<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 += 1;
        match self.1 {
            2 => Err(io::ErrorKind::Interrupted.into()),
            3 => {
                self.0.is_stopped.store(true, Ordering::Relaxed);
                Ok(1)
            }
            4.. => Ok(0),
            _ => Ok(buffer.len()),
        }
    }
}

#[test]
fn the_thread_stops_at_the_next_buffer() {
    let reader = ModelReader::default();
    let mut file = StoppingFile(&reader, 0);
    reader.read(&mut file, &mut [0; 10]).unwrap();
    assert_eq!((file.1, reader.bytes()), (3, 11));
}

#[test]
fn a_thread_that_is_stopped_before_it_begins_reads_nothing() {
    let reader = Arc::new(ModelReader::default());
    drop(StopOnDrop(Arc::clone(&reader)));
    reader.read(io::repeat(0).take(100), &mut [0; 10]).unwrap();
    assert_eq!(reader.bytes(), 0);
}
