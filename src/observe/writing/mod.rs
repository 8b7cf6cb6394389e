//! How does a line get to its place without anybody waiting for it? Bounded queues, each with a thread that writes.
//!
//! [`Queue::put`] never waits: when the queue is full, what is put is dropped and counted. What is made of an entry is made
//! on the writer's thread too, so a request pays for one move into the queue.

pub(super) mod lines;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

use super::access_log::Entry;

/// How often dropped lines are mentioned.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// How long the last lines may take when a queue is closed: a stuck sink must not keep the process alive.
const LAST_LINES: Duration = Duration::from_secs(1);

/// What a writer's thread does.
pub(super) trait Writer: Send + 'static {
    /// What it can be told besides entries.
    type Command: Send + fmt::Debug;

    /// Takes an entry; gives how many lines were dropped for it.
    fn take(&mut self, entry: &Entry) -> u64;

    /// Does what it is told; gives how many lines were dropped for it.
    fn obey(&mut self, command: Self::Command) -> u64;

    /// Writes what has come together; says when it wants to try again, where it could not.
    fn flush(&mut self) -> Option<Duration>;
}

/// What goes through a queue.
#[derive(Debug)]
enum Message<C> {
    Entry(Arc<Entry>),
    Command(C),
    /// Everything before this has been written when the sender is used.
    Flush(SyncSender<()>),
}

/// The end of a queue that entries are put into. Dropped, it waits for what is in it, for a bounded time.
pub(super) struct Queue<C> {
    sender: SyncSender<Message<C>>,
    dropped: Arc<AtomicU64>,
}

impl<C> fmt::Debug for Queue<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Queue(..)")
    }
}

impl<C: Send + fmt::Debug + 'static> Queue<C> {
    /// Starts the writer's thread, with room for so many entries that wait. `what` is what is dropped where there is none.
    pub(super) fn start(
        name: &'static str,
        what: &'static str,
        room: usize,
        writer: impl Writer<Command = C>,
    ) -> io::Result<Self> {
        let (sender, receiver) = mpsc::sync_channel(room);
        let dropped = Arc::new(AtomicU64::new(0));
        let desk = Desk { writer, what, dropped: dropped.clone(), told: 0, tell_at: Instant::now() };
        thread::Builder::new().name(name.to_owned()).spawn(move || desk.run(&receiver))?;
        Ok(Self { sender, dropped })
    }

    /// Queues an entry, or drops it when the queue is full.
    pub(super) fn put(&self, entry: Arc<Entry>) {
        if self.sender.try_send(Message::Entry(entry)).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// What was dropped since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Tells the writer something, behind all that is queued; says whether there was room for it in time.
    pub(super) fn tell(&self, command: C) -> bool {
        self.send(Message::Command(command), Instant::now() + LAST_LINES)
    }

    /// Blocks until what is queued so far is written, at most a second; says whether it is. Not for the way of a request.
    pub(super) fn flush(&self) -> bool {
        let deadline = Instant::now() + LAST_LINES;
        let (done, all_written) = mpsc::sync_channel(1);
        self.send(Message::Flush(done), deadline)
            && all_written.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok()
    }

    fn send(&self, mut message: Message<C>, deadline: Instant) -> bool {
        while let Err(refused) = self.sender.try_send(message) {
            let TrySendError::Full(again) = refused else { return false };
            if Instant::now() >= deadline {
                return false;
            }
            message = again;
            // Nobody unparks us: this only gives the writer a moment.
            thread::park_timeout(Duration::from_millis(1));
        }
        true
    }
}

impl<C> Drop for Queue<C> {
    fn drop(&mut self) {
        let (done, all_written) = mpsc::sync_channel(1);
        // A queue that is full has a sink that is stuck.
        if self.sender.try_send(Message::Flush(done)).is_ok() {
            let _ = all_written.recv_timeout(LAST_LINES);
        }
    }
}

/// Where a writer's thread sits.
struct Desk<W> {
    writer: W,
    what: &'static str,
    dropped: Arc<AtomicU64>,
    told: u64,
    tell_at: Instant,
}

impl<W: Writer> Desk<W> {
    /// Until the queue is gone. What has come together is written whenever the queue runs empty, so that a quiet log is a
    /// complete one.
    fn run(mut self, queue: &Receiver<Message<W::Command>>) {
        loop {
            match queue.try_recv() {
                Ok(message) => self.take(message),
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {
                    let wait = self.writer.flush().unwrap_or(WARN_EVERY);
                    match queue.recv_timeout(wait) {
                        Ok(message) => self.take(message),
                        Err(RecvTimeoutError::Timeout) => {}
                        Err(RecvTimeoutError::Disconnected) => break,
                    }
                }
            }
            self.tell_drops();
        }
        self.writer.flush();
    }

    fn take(&mut self, message: Message<W::Command>) {
        match message {
            Message::Entry(entry) => {
                let dropped = self.writer.take(&entry);
                self.count(dropped);
            }
            Message::Command(command) => {
                let dropped = self.writer.obey(command);
                self.count(dropped);
            }
            Message::Flush(done) => {
                self.writer.flush();
                // Whoever asked may have stopped waiting.
                let _ = done.try_send(());
            }
        }
    }

    fn count(&self, dropped: u64) {
        if dropped > 0 {
            self.dropped.fetch_add(dropped, Relaxed);
        }
    }

    fn tell_drops(&mut self) {
        let dropped = self.dropped.load(Relaxed);
        if dropped > self.told && Instant::now() >= self.tell_at {
            log::warn!(target: "portcullis::access_log", "{} {} were dropped", dropped - self.told, self.what);
            self.told = dropped;
            self.tell_at = Instant::now() + WARN_EVERY;
        }
    }
}
