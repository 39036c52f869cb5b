//! Bounds of downloads that no setting chooses.

use std::time::Duration;

/// Bytes in one piece of a file: the unit in which a part notes what has arrived.
pub(super) const PIECE: u64 = 64 << 10;
/// Fewest pieces that one range has, unless fewer are left: 1 MiB, so that requests do not cost more than they bring.
pub(super) const FEWEST_PIECES_AT_ONCE: usize = 16;
/// Most pieces that one range has: 64 MiB. It bounds how long a connection keeps one signed address.
pub(super) const MOST_PIECES_AT_ONCE: usize = 1024;
/// Bytes that a connection collects before it writes them: what it loses at most if the program is killed.
pub(super) const WRITTEN_AT_ONCE: u64 = 1 << 20;
/// How long bytes may wait to be written, so that a slow connection does not lose minutes of its work.
pub(super) const WRITE_INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait for a connection to the hub.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest wait for the head of an answer, and for a small answer as a whole.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the rate of a range may stay below [`SLOWEST`] before it is asked for again.
pub(super) const SLOW_WINDOW: Duration = Duration::from_secs(60);
/// The lowest rate that counts as progress, in bytes a second.
pub(super) const SLOWEST: u64 = 1 << 10;
/// Most bytes of the hub's description of a repository: some have thousands of files.
pub(super) const REPOSITORY_ANSWER: usize = 32 << 20;
/// Most bytes of the hub's answer to a search.
pub(super) const SEARCH_ANSWER: usize = 4 << 20;
/// Longest time of a search, and of a look at a repository.
pub(super) const SEARCH_TIME: Duration = Duration::from_secs(20);
/// Longest time in which the header of a model is read for a client that waits for it.
pub(super) const HEADER_TIME: Duration = Duration::from_secs(45);
/// Most models of a repository that are listed.
pub(super) const LISTED_MODELS: usize = 200;
/// Most bytes of an error that are read for its words.
pub(super) const ERROR_ANSWER: usize = 16 << 10;
/// Most characters of the hub's words that a message quotes.
pub(super) const QUOTED: usize = 300;
/// The fewest characters of a query's value, or of a token, that is looked for in a host's words.
pub(super) const SHORTEST_SECRET: usize = 6;
/// Most redirects from one address to the next.
pub(super) const MOST_REDIRECTS: usize = 10;
/// The first pause before another try, which doubles up to [`LONGEST_PAUSE`].
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The pause after a try that has brought some bytes and then broken off.
pub(super) const PAUSE_AFTER_PROGRESS: Duration = Duration::from_millis(10);
/// The longest pause before another try, unless the hub asks for a longer one.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest pause that the hub may ask for.
pub(super) const LONGEST_ASKED_PAUSE: Duration = Duration::from_secs(15 * 60);
/// Room on the disk that a download leaves to others.
pub(super) const DISK_RESERVE: u64 = 256 << 20;
/// The longest token of the hub that is read from its file, in bytes.
pub(super) const LONGEST_TOKEN: u64 = 4 << 10;
/// How often a program that waits for another one's download looks again.
pub(super) const LOCK_POLL: Duration = Duration::from_millis(500);
/// Bytes that are asked for first of a header. Each further range is as long as all before it.
pub(super) const FIRST_HEADER_RANGE: u64 = 1 << 20;
/// Most bytes that are fetched of a header. The largest vocabularies in use take about 30 MiB.
pub(super) const LONGEST_HEADER: u64 = 64 << 20;
/// Most bytes that are fetched of a header for a client that waits for it: the largest in use still fit, and the headers that
/// several clients ask for at once take half the memory.
pub(super) const LONGEST_HEADER_SOON: u64 = 32 << 20;
