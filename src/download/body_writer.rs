//! Writes the body of an answer into the part: in large steps, at most at the highest rate, and at least at the lowest.
//!
//! Does not own which bytes are asked for, nor what happens after a body that broke.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::bounds::{SLOW_WINDOW, SLOWEST, WRITE_INTERVAL, WRITTEN_AT_ONCE};
use super::disk::part_file::PartFile;
use super::error::{DownloadError, TryError};
use super::progress::Progress;
use crate::http_client::Response;
use crate::pause_clock::ActiveInstant;

/// Keeps a download below a rate. Shared by all of its connections.
#[derive(Debug)]
pub(super) struct Pace {
    max_rate: Option<u64>,
    /// When all bytes so far would have come at that rate.
    due: Mutex<Instant>,
}

impl Pace {
    pub(super) fn new(max_rate: Option<u64>) -> Self {
        Self { max_rate: max_rate.filter(|rate| *rate > 0), due: Mutex::new(Instant::now()) }
    }

    /// Waits until this many bytes more are allowed.
    pub(super) async fn wait_for(&self, bytes: u64) {
        let Some(rate) = self.max_rate else { return };
        let due = {
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            let time = Duration::try_from_secs_f64(bytes as f64 / rate as f64).unwrap_or(SLOW_WINDOW);
            *due = (*due).max(Instant::now()) + time;
            *due
        };
        tokio::time::sleep_until(due.into()).await;
    }
}

/// Where the bytes of a file go, and who is told of it.
pub(super) struct Sink {
    pub(super) part: Arc<PartFile>,
    pub(super) pace: Arc<Pace>,
    pub(super) progress: Arc<Progress>,
    /// Told that pieces have arrived. One message is enough to wake the hasher.
    pub(super) arrived: mpsc::SyncSender<()>,
    /// What errors call the file.
    pub(super) label: String,
}

/// Writes the body of one answer.
pub(super) struct BodyWriter<'a> {
    sink: &'a Sink,
    /// The bytes of the file that are missing: what is written is taken from its start.
    missing: &'a mut Range<u64>,
    host: String,
    /// What has come and is not written yet, as it came.
    collected: Vec<Bytes>,
    collected_bytes: u64,
    /// When that was written last.
    written: Instant,
}

impl<'a> BodyWriter<'a> {
    pub(super) fn new(sink: &'a Sink, missing: &'a mut Range<u64>, host: String) -> Self {
        Self { sink, missing, host, collected: Vec::new(), collected_bytes: 0, written: Instant::now() }
    }

    /// Reads the body as far as its bytes are missing, and keeps what has come if it breaks.
    ///
    /// # Errors
    /// The body ended too early or came too slowly, or the disk failed.
    pub(super) async fn write_all_of(mut self, mut response: Response) -> Result<(), TryError> {
        let read = self.read(&mut response).await;
        self.write().await?;
        read
    }

    async fn read(&mut self, response: &mut Response) -> Result<(), TryError> {
        let again = |reason: String| TryError::Again { reason, wait: None };
        let mut window = Window::new();
        while self.left() > 0 {
            let chunk = match response.next_chunk(window.end).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Err(again(format!("{} ended before all had come", self.host))),
                Err(_) if window.is_over() => {
                    let seconds = SLOW_WINDOW.as_secs();
                    return Err(again(format!(
                        "{} sent less than {SLOWEST} bytes a second for {seconds} s",
                        self.host
                    )));
                }
                Err(error) => return Err(again(error.explain(&self.host))),
            };
            window.count(chunk.len());
            self.sink.pace.wait_for(chunk.len() as u64).await;
            self.collect(chunk);
            if self.collected_bytes >= WRITTEN_AT_ONCE || self.written.elapsed() >= WRITE_INTERVAL {
                self.write().await?;
            }
        }
        Ok(())
    }

    /// Returns how many bytes have not come.
    fn left(&self) -> u64 {
        self.missing.end - self.missing.start - self.collected_bytes
    }

    fn collect(&mut self, mut chunk: Bytes) {
        chunk.truncate(usize::try_from(self.left()).unwrap_or(usize::MAX));
        self.collected_bytes += chunk.len() as u64;
        self.collected.push(chunk);
    }

    /// Writes what has come.
    async fn write(&mut self) -> Result<(), TryError> {
        let (from, chunks) = (self.missing.start, std::mem::take(&mut self.collected));
        self.written = Instant::now();
        if chunks.is_empty() {
            return Ok(());
        }
        let part = Arc::clone(&self.sink.part);
        let written = spawn_blocking(move || part.write(from, &chunks)).await;
        let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
        let label = &self.sink.label;
        let new = written.map_err(|source| DownloadError::disk(label, "written", source))?;
        self.missing.start += std::mem::take(&mut self.collected_bytes);
        self.sink.progress.add_arrived(new);
        // The hasher ends before the last piece only if it failed, which `run` tells.
        let _ = self.sink.arrived.try_send(());
        Ok(())
    }
}

/// A time in which at least [`SLOWEST`] bytes a second have to come.
struct Window {
    end: ActiveInstant,
    bytes: u64,
}

impl Window {
    fn new() -> Self {
        Self { end: ActiveInstant::now() + SLOW_WINDOW, bytes: 0 }
    }

    fn count(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if self.bytes >= SLOWEST * SLOW_WINDOW.as_secs() {
            *self = Self::new();
        }
    }

    fn is_over(&self) -> bool {
        ActiveInstant::now() >= self.end
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::dial::Trust;
    use crate::http_client::{ClientOptions, HttpClient};

    /// Bytes of the file.
    const SIZE: u64 = 100;

    /// Answers one request with the beginning of the file, and then falls silent.
    async fn answer_of_a_silent_host(beginning: &'static [u8]) -> (Response, tokio::task::JoinSet<()>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let mut serving = tokio::task::JoinSet::new();
        serving.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n");
            stream.write_all(&[head.as_bytes(), beginning].concat()).await.unwrap();
            std::future::pending::<()>().await;
        });
        let options =
            ClientOptions { connect_timeout: SLOW_WINDOW, keep_idle: None, follow_redirects: false, use_proxy: false };
        let client = HttpClient::new(&Trust::None, &options).unwrap();
        let request = http::Request::get(url).body(Bytes::new()).unwrap();
        (client.send(request, SLOW_WINDOW).await.unwrap(), serving)
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_is_too_slow_is_left_and_what_it_has_sent_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (arrived, _arrivals) = mpsc::sync_channel(1);
        let sink = Sink {
            part: Arc::new(PartFile::open(&folder.path().join("x.incomplete"), SIZE).unwrap()),
            pace: Arc::new(Pace::new(None)),
            progress: Arc::default(),
            arrived,
            label: "x".to_owned(),
        };
        let (response, _serving) = answer_of_a_silent_host(b"12345").await;
        let (begin, mut missing) = (tokio::time::Instant::now(), 0..SIZE);
        let ended = BodyWriter::new(&sink, &mut missing, "HOST".to_owned()).write_all_of(response).await;
        let Err(TryError::Again { reason, .. }) = ended else { panic!("it is asked again") };
        assert_eq!(reason, "HOST sent less than 1024 bytes a second for 60 s");
        assert_eq!((begin.elapsed().as_secs(), missing), (SLOW_WINDOW.as_secs(), 5..SIZE));
        let mut kept = [0; 5];
        sink.part.read_at(&mut kept, 0).unwrap();
        assert_eq!(&kept, b"12345");
    }
}
