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
    /// Until all of them are done: what is said meanwhile must be done behind them.
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
        std::mem::take(&mut *self.lock())
    }

    /// What was taken is done.
    fn done(&self) {
        let commands = self.lock();
        self.any.store(!commands.is_empty(), Relaxed);
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
        room_for: usize,
        writer: impl Writer<Command = C>,
    ) -> io::Result<Self> {
        let (sender, receiver) = mpsc::sync_channel(room_for);
        let dropped = Arc::new(AtomicU64::new(0));
        let (room, late) = (Arc::<Room>::default(), Arc::new(Late { any: false.into(), commands: Mutex::default() }));
        let desk = Desk {
            writer,
            what,
            dropped: dropped.clone(),
            room: room.clone(),
            late: late.clone(),
            most: room_for,
            was_busy: false,
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
        let refused = match self.late.any.load(Relaxed) {
            false => self.send(Message::Command(command), Instant::now() + LAST_LINES).err(),
            // What was said before must be done before.
            true => Some(Message::Command(command)),
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
    /// Messages that may be queued.
    most: usize,
    /// Messages have passed since the queue was empty.
    was_busy: bool,
    told: u64,
    tell_at: Instant,
}

impl<W: Writer> Desk<W> {
    /// Until the queue is gone. What has come together is written whenever the queue runs empty, so that a quiet log is a
    /// complete one.
    fn run(mut self, queue: &Receiver<Message<W::Command>>) {
        loop {
            if self.late.any.load(Relaxed) {
                self.catch_up(queue);
            }
            match queue.try_recv() {
                Ok(message) => self.take(message),
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {
                    let wait = self.writer.flush().unwrap_or(WARN_EVERY);
                    if std::mem::take(&mut self.was_busy) {
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
        self.was_busy = true;
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

    /// Does what could not be said in time, behind all that was queued then, as it would have been. So many messages may
    /// be queued; of those that were, each is among as many now.
    fn catch_up(&mut self, queue: &Receiver<Message<W::Command>>) {
        let commands = self.late.take();
        queue.try_iter().take(self.most).for_each(|message| self.take(message));
        for command in commands {
            let dropped = self.writer.obey(command);
            self.count(dropped);
        }
        self.late.done();
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

    /// What was done, in order. Each entry waits until it may be taken.
    #[derive(Clone, Debug)]
    struct Deeds {
        done: Arc<Mutex<Vec<String>>>,
        may: Arc<Mutex<Receiver<()>>>,
    }

    impl Writer for Deeds {
        type Command = &'static str;

        fn take(&mut self, entry: &Entry) -> u64 {
            self.done.lock().unwrap().push(entry.path.clone());
            self.may.lock().unwrap().recv().unwrap();
            0
        }

        fn obey(&mut self, command: &'static str) -> u64 {
            self.done.lock().unwrap().push(command.to_owned());
            0
        }

        fn flush(&mut self) -> Option<Duration> {
            None
        }
    }

    #[test]
    fn what_is_said_late_is_done_behind_all_that_was_queued_before_it() {
        let (may_take, may) = mpsc::channel();
        let deeds = Deeds { done: Arc::default(), may: Arc::new(Mutex::new(may)) };
        let queue = Queue::start("deeds", "lines", 4, deeds.clone()).unwrap();
        let put = |path: &str| queue.put(Arc::new(Entry { path: path.to_owned(), ..Entry::default() }));
        put("1");
        while deeds.done.lock().unwrap().is_empty() {
            thread::yield_now();
        }
        ["2", "3", "4", "5", "dropped"].iter().for_each(|path| put(path));
        assert!(!queue.tell("first") && !queue.tell("second"));
        (0..6).for_each(|_| may_take.send(()).unwrap());
        assert!(queue.flush());
        // Nobody is late any more, so it goes the usual way.
        while !queue.tell("third") {
            thread::yield_now();
        }
        put("6");
        assert!(queue.flush());
        let mut done = deeds.done.lock().unwrap().clone();
        done.dedup();
        assert_eq!(done, ["1", "2", "3", "4", "5", "first", "second", "third", "6"]);
        assert_eq!(queue.dropped(), 1);
    }
}
