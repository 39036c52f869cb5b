use super::*;
use nix::sys::stat::Mode;
use std::fs;

const SOON: Duration = Duration::from_secs(10);
const A_MOMENT: Duration = Duration::from_millis(50);

fn part(folder: &Path, number: u32, bytes: usize) -> PathBuf {
    let path = folder.join(format!("m-{number:05}-of-00003.gguf"));
    fs::write(&path, vec![number as u8; bytes]).unwrap();
    path
}

/// Opening it for reading blocks in the kernel until somebody opens it for writing, as a volume that is gone does.
fn stuck(folder: &Path) -> PathBuf {
    let path = folder.join("stuck.gguf");
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
    path
}

/// Ends the thread that is stuck, or would be.
fn let_go(path: &Path) {
    drop(fs::OpenOptions::new().read(true).write(true).open(path).unwrap());
}

#[tokio::test]
async fn all_parts_are_read_to_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let sizes = [PREFETCH_BUFFER + 1, 7, 3 * PREFETCH_BUFFER];
    let parts: Vec<PathBuf> = (1..).zip(sizes).map(|(number, size)| part(folder.path(), number, size)).collect();
    let total = sizes.iter().sum::<usize>() as u64;
    assert_eq!(follow(Arc::default(), "m", &parts[0], SOON, Some(total)).await, PrefetchOutcome::Read);
    let reading = Reading::default();
    assert_eq!(reading.read_all(&models::split::parts_of(&parts[0]), None).unwrap(), None);
    assert_eq!((reading.bytes(), reading.total()), (total, total));
}

#[tokio::test]
async fn a_model_that_cannot_stay_in_memory_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let parts: Vec<PathBuf> = (1..=3).map(|number| part(folder.path(), number, 10)).collect();
    assert_eq!(follow(Arc::default(), "m", &parts[0], SOON, Some(29)).await, PrefetchOutcome::TooLarge);
    let reading = Reading::default();
    assert_eq!(reading.read_all(&parts, Some(29)).unwrap(), Some(29));
    assert_eq!((reading.bytes(), reading.total()), (0, 30));
}

#[tokio::test]
async fn what_cannot_be_read_is_no_failure_of_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let first = part(folder.path(), 1, 10);
    assert_eq!(follow(Arc::default(), "m", &first, SOON, None).await, PrefetchOutcome::Failed, "two parts are missing");
    assert_eq!(
        follow(Arc::default(), "m", folder.path(), SOON, None).await,
        PrefetchOutcome::Failed,
        "a folder can be opened, not read"
    );
}

#[tokio::test]
async fn a_read_that_brings_nothing_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = stuck(folder.path());
    let following = follow(Arc::default(), "m", &path, A_MOMENT, None);
    let outcome = tokio::time::timeout(SOON, following).await;
    let_go(&path);
    assert_eq!(outcome, Ok(PrefetchOutcome::Stalled));
}

#[tokio::test]
async fn whoever_leaves_does_not_wait_for_a_stuck_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = stuck(folder.path());
    let reading = Arc::<Reading>::default();
    let following = follow(Arc::clone(&reading), "m", &path, SOON, None);
    let outcome = tokio::time::timeout(A_MOMENT, following).await;
    let is_left = reading.is_stopped.load(Ordering::Relaxed);
    let_go(&path);
    assert!(outcome.is_err(), "it was dropped while it waited");
    assert!(is_left, "the thread is told");
}

/// Is left while it is read for the third time, and counts how often it is read.
struct Left<'a>(&'a Reading, u32);

impl Read for &mut Left<'_> {
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
fn the_thread_stops_at_the_buffer_at_which_it_is_left() {
    let reading = Reading::default();
    let mut file = Left(&reading, 0);
    reading.read(&mut file, &mut [0; 10]).unwrap();
    assert_eq!((file.1, reading.bytes()), (3, 11));
}

#[test]
fn a_thread_that_is_left_before_it_begins_reads_nothing() {
    let reading = Arc::new(Reading::default());
    drop(StopOnDrop(Arc::clone(&reading)));
    reading.read(io::repeat(0).take(100), &mut [0; 10]).unwrap();
    assert_eq!(reading.bytes(), 0);
}
