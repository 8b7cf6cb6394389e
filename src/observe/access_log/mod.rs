//! What became of each request? One JSON line each, through a bounded queue to one writer thread.
//!
//! [`AccessLog::record`] never waits: when the queue is full, the line is dropped and counted. Formatting happens on
//! the writer's thread too, so a request pays for one move into the queue. Only what an [`Entry`] holds is written: no
//! header value, no query, no body.

mod entry;

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

use crate::config;

pub use self::entry::{Attempt, Entry, Recoded};

/// Lines that may wait. A writer that stalls for a tenth of a second at 50,000 requests a second needs 5,000; an entry
/// is about a kilobyte with its strings, so a sink that is stuck costs 8 MiB and no more.
const QUEUE: usize = 8192;

/// How often dropped lines are mentioned.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// How long the last lines may take when the log is closed: a stuck sink must not keep the process alive.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Where access log lines go in. Clones share one queue; the last one to be dropped waits for the queue to drain.
#[derive(Clone, Debug, Default)]
pub struct AccessLog {
    queue: Option<Arc<Queue>>,
}

#[derive(Debug)]
struct Queue {
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Message {
    Line(Box<Entry>),
    /// Everything before this has been written when the sender is dropped.
    Flush(SyncSender<()>),
}

impl AccessLog {
    /// Opens the sink that the configuration names, a file at its end.
    pub fn open(config: &config::AccessLog) -> io::Result<Self> {
        match config {
            config::AccessLog::None => Ok(Self::default()),
            config::AccessLog::Stdout => Self::to(io::stdout(), QUEUE),
            config::AccessLog::File(path) => Self::to(OpenOptions::new().create(true).append(true).open(path)?, QUEUE),
        }
    }

    /// Writes to any sink, with room for `room` waiting lines.
    pub fn to(sink: impl Write + Send + 'static, room: usize) -> io::Result<Self> {
        let (sender, receiver) = mpsc::sync_channel(room);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            sink: BufWriter::new(sink),
            line: Vec::new(),
            dropped: dropped.clone(),
            told: 0,
            tell_at: Instant::now(),
        };
        thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.run(&receiver))?;
        Ok(Self { queue: Some(Arc::new(Queue { sender, dropped })) })
    }

    /// Whether lines go anywhere; if not, an entry need not be made.
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Queues one line, or drops it when the queue is full.
    pub fn record(&self, entry: Entry) {
        let Some(queue) = &self.queue else { return };
        if queue.sender.try_send(Message::Line(Box::new(entry))).is_err() {
            queue.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Lines dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.queue.as_ref().map_or(0, |queue| queue.dropped.load(Relaxed))
    }

    /// Blocks until the lines queued so far are written, at most a second; says whether they are. Not for the way of
    /// a request.
    pub fn flush(&self) -> bool {
        self.queue.as_ref().is_none_or(|queue| queue.flush())
    }
}

impl Queue {
    fn flush(&self) -> bool {
        let deadline = Instant::now() + LAST_LINES;
        let (done, all_written) = mpsc::sync_channel(1);
        let mut message = Message::Flush(done);
        while let Err(refused) = self.sender.try_send(message) {
            let TrySendError::Full(again) = refused else { return false };
            if Instant::now() >= deadline {
                return false;
            }
            message = again;
            // Nobody unparks us: this only gives the writer a moment.
            thread::park_timeout(Duration::from_millis(1));
        }
        all_written.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.flush();
    }
}

struct Writer<W: Write> {
    sink: BufWriter<W>,
    line: Vec<u8>,
    dropped: Arc<AtomicU64>,
    told: u64,
    tell_at: Instant,
}

impl<W: Write> Writer<W> {
    /// Until the last [`AccessLog`] is gone. The buffer is flushed whenever the queue runs empty, so that a quiet log
    /// is a complete one.
    fn run(mut self, queue: &Receiver<Message>) {
        loop {
            match queue.try_recv() {
                Ok(message) => self.take(message),
                Err(mpsc::TryRecvError::Disconnected) => break,
                Err(mpsc::TryRecvError::Empty) => {
                    self.flush();
                    match queue.recv_timeout(WARN_EVERY) {
                        Ok(message) => self.take(message),
                        Err(RecvTimeoutError::Timeout) => {}
                        Err(RecvTimeoutError::Disconnected) => break,
                    }
                }
            }
            self.tell_drops();
        }
        self.flush();
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Line(entry) => {
                if self.write(&entry).is_err() {
                    self.dropped.fetch_add(1, Relaxed);
                }
            }
            Message::Flush(done) => {
                self.flush();
                // Whoever asked may have stopped waiting.
                let _ = done.try_send(());
            }
        }
    }

    /// Whole lines only: a sink that fails (a full disk) loses lines, but never leaves half of one.
    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, entry)?;
        self.line.push(b'\n');
        self.sink.write_all(&self.line)
    }

    fn flush(&mut self) {
        if let Err(error) = self.sink.flush() {
            // What is in the buffer stays there for the next try, so it is not lost yet.
            log::debug!(target: "portcullis::access_log", "cannot write: {error}");
        }
    }

    fn tell_drops(&mut self) {
        let dropped = self.dropped.load(Relaxed);
        if dropped > self.told && Instant::now() >= self.tell_at {
            log::warn!(target: "portcullis::access_log", "{} access log lines were dropped", dropped - self.told);
            self.told = dropped;
            self.tell_at = Instant::now() + WARN_EVERY;
        }
    }
}

#[cfg(test)]
mod tests;
