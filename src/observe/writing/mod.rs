//! How does a line get to its place without anybody waiting for it? Bounded queues, each with a thread that writes.
//!
//! [`Queue::put`] never waits: when the queue is full, what is put is dropped and counted. What is made of an entry is made
//! on the writer's thread too, so a request pays for one move into the queue.

pub(super) mod lines;

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::access_log::Entry;

/// How often dropped lines are mentioned.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// Bytes of entries that may wait in one queue. So many with short names need 8 MiB; what clients choose may be longer.
const MOST_BYTES: usize = 16 << 20;

/// What a writer that was stuck may be told later; more than that is forgotten, the oldest first.
const MOST_LATE: usize = 16;

/// How long lines are gathered once one has been written. Whoever puts one while the writer sleeps need not wake it, which
/// costs more than the line; one that comes alone is written at once.
const GATHERS: Duration = Duration::from_millis(10);

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

/// How many bytes of entries wait in a queue.
#[derive(Debug, Default)]
pub(super) struct Room(AtomicUsize);

impl Room {
    /// Whether an entry may wait too; then it does until [`Room::gives_back`].
    pub(super) fn takes(&self, entry: &Entry) -> bool {
        let bytes = entry.weight();
        let fits = self.0.fetch_add(bytes, Relaxed) + bytes <= MOST_BYTES;
        if !fits {
            self.0.fetch_sub(bytes, Relaxed);
        }
        fits
    }

    /// It waits no more.
    pub(super) fn gives_back(&self, entry: &Entry) {
        self.0.fetch_sub(entry.weight(), Relaxed);
    }
}

/// What a writer was told while it was stuck, to be done as soon as it is not.
#[derive(Debug)]
struct Late<C> {
    any: AtomicBool,
    commands: Mutex<Vec<C>>,
}

impl<C> Late<C> {
    fn lock(&self) -> MutexGuard<'_, Vec<C>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, mut commands: MutexGuard<'_, Vec<C>>, command: C) {
        if commands.len() == MOST_LATE {
            commands.remove(0);
        }
        commands.push(command);
        self.any.store(true, Relaxed);
    }

    fn take(&self) -> Vec<C> {
        if !self.any.load(Relaxed) {
            return Vec::new();
        }
        let mut commands = self.lock();
        self.any.store(false, Relaxed);
        std::mem::take(&mut commands)
    }
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
    room: Arc<Room>,
    late: Arc<Late<C>>,
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
        let (most, room, late) =
            (room, Arc::<Room>::default(), Arc::new(Late { any: false.into(), commands: Mutex::default() }));
        let desk = Desk {
            writer,
            what,
            dropped: dropped.clone(),
            room: room.clone(),
            late: late.clone(),
            most,
            passed: 0,
            told: 0,
            tell_at: Instant::now(),
        };
        thread::Builder::new().name(name.to_owned()).spawn(move || desk.run(&receiver))?;
        Ok(Self { sender, dropped, room, late })
    }

    /// Queues an entry, or drops it when the queue is full.
    pub(super) fn put(&self, entry: Arc<Entry>) {
        if self.room.takes(&entry) {
            let Err(refused) = self.sender.try_send(Message::Entry(entry)) else { return };
            if let TrySendError::Full(Message::Entry(entry)) | TrySendError::Disconnected(Message::Entry(entry)) =
                refused
            {
                self.room.gives_back(&entry);
            }
        }
        self.dropped.fetch_add(1, Relaxed);
    }

    /// What was dropped since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Tells the writer something, behind all that is queued. Where there is no room for it in time, it is told once the
    /// writer goes on; says which.
    pub(super) fn tell(&self, command: C) -> bool {
        let late = self.late.lock();
        let refused = match late.is_empty() {
            true => self.send(Message::Command(command), Instant::now() + LAST_LINES).err(),
            // What was said before must be done before.
            false => Some(Message::Command(command)),
        };
        match refused {
            Some(Message::Command(command)) => self.late.keep(late, command),
            Some(Message::Entry(_) | Message::Flush(_)) | None => return true,
        }
        false
    }

    /// Blocks until what is queued so far is written, at most a second; says whether it is. Not for the way of a request.
    pub(super) fn flush(&self) -> bool {
        let deadline = Instant::now() + LAST_LINES;
        let (done, all_written) = mpsc::sync_channel(1);
        self.send(Message::Flush(done), deadline).is_ok()
            && all_written.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok()
    }

    /// Gives back what found no room in time.
    fn send(&self, mut message: Message<C>, deadline: Instant) -> Result<(), Message<C>> {
        while let Err(refused) = self.sender.try_send(message) {
            message = match refused {
                TrySendError::Full(again) if Instant::now() < deadline => again,
                TrySendError::Full(message) | TrySendError::Disconnected(message) => return Err(message),
            };
            // Nobody unparks us: this only gives the writer a moment.
            thread::park_timeout(Duration::from_millis(1));
        }
        Ok(())
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
struct Desk<W: Writer> {
    writer: W,
    what: &'static str,
    dropped: Arc<AtomicU64>,
    room: Arc<Room>,
    late: Arc<Late<W::Command>>,
    /// Messages that may be queued, and that have passed since the queue was empty: one that is never empty is as good
    /// once they are as many.
    most: usize,
    passed: usize,
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
                    let was_busy = self.passed > 0;
                    self.catch_up();
                    let wait = self.writer.flush().unwrap_or(WARN_EVERY);
                    if was_busy {
                        gather();
                        continue;
                    }
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
        self.passed += 1;
        if self.passed > self.most {
            self.catch_up();
        }
        match message {
            Message::Entry(entry) => {
                self.room.gives_back(&entry);
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

    /// Does what could not be said in time. That is done behind all that was queued then, as it would have been.
    fn catch_up(&mut self) {
        self.passed = 0;
        for command in self.late.take() {
            let dropped = self.writer.obey(command);
            self.count(dropped);
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

#[expect(clippy::disallowed_methods, reason = "a writer's thread is its own, and no runtime's")]
fn gather() {
    thread::sleep(GATHERS);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long after it had written something it took the next entry.
    #[derive(Clone, Debug, Default)]
    struct Gaps(Arc<Mutex<(Option<Instant>, Vec<Duration>)>>);

    impl Writer for Gaps {
        type Command = ();

        fn take(&mut self, _entry: &Entry) -> u64 {
            let mut gaps = self.0.lock().unwrap();
            if let Some(flushed) = gaps.0.take() {
                let gap = flushed.elapsed();
                gaps.1.push(gap);
            }
            0
        }

        fn obey(&mut self, (): ()) -> u64 {
            0
        }

        fn flush(&mut self) -> Option<Duration> {
            self.0.lock().unwrap().0.get_or_insert_with(Instant::now);
            None
        }
    }

    #[test]
    fn what_follows_a_line_is_gathered_for_a_moment_and_nothing_is_lost() {
        let gaps = Gaps::default();
        let queue = Queue::start("gaps", "lines", 8, gaps.clone()).unwrap();
        queue.put(Arc::default());
        while gaps.0.lock().unwrap().0.is_none() {
            thread::yield_now();
        }
        queue.put(Arc::default());
        assert!(queue.flush());
        let gaps = gaps.0.lock().unwrap().1.clone();
        assert!(gaps.len() == 1 && gaps[0] >= GATHERS / 2, "{gaps:?}");
        assert_eq!(queue.dropped(), 0);
    }
}
