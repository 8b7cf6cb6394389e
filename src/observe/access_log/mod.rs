//! What became of each request? A line each, in the form that the operator likes; usage events and a push to Loki, where
//! they are wanted.
//!
//! [`AccessLog::record`] never waits: see `observe::writing`. Only what an [`Entry`] holds is written: no header
//! value, no query, no body, unless the form of the log quotes the head.

mod entry;
mod form;

use std::io;
#[cfg(test)]
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::loki::Loki;
use super::usage::Usage;
use super::writing::lines::{Lines, Place};
use super::writing::{Queue, Writer};
use crate::config::{self, LogForm, Rotate};

pub use self::entry::{Account, Attempt, Entry, Quoted, Recoded};
pub use super::stamps::Stamps;

/// Lines that may wait. A writer that stalls for a tenth of a second at 50,000 requests a second needs 5,000; an entry
/// is about a kilobyte with its strings, so a sink that is stuck costs 8 MiB, and 16 where clients send long ones.
pub(super) const QUEUE: usize = 8192;

/// Where access log lines go in. Clones share one queue; the last one to be dropped waits for the queue to drain.
#[derive(Clone, Debug, Default)]
pub struct AccessLog(Option<Arc<Log>>);

#[derive(Debug)]
struct Log {
    lines: Queue<Command>,
    /// Whether lines go anywhere.
    writes: AtomicBool,
    /// Whether they quote the head.
    quotes: AtomicBool,
    usage: Option<Usage>,
    loki: Option<Loki>,
}

/// How many lines and events were dropped since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Lines of the access log.
    pub access: u64,
    /// Usage events.
    pub usage: u64,
    /// Lines for Loki.
    pub loki: u64,
}

/// Another place or form, ready to be taken.
#[derive(Debug)]
pub struct Change {
    /// `None` is the place that there is.
    place: Option<Place>,
    form: LogForm,
    rotate: Option<Rotate>,
    writes: bool,
}

/// What the writer is told.
#[derive(Debug)]
enum Command {
    Change(Box<Change>),
    Reopen,
}

impl AccessLog {
    /// Opens all that the configuration names, files at their ends. Needs a tokio runtime where something is sent.
    pub fn open(config: &config::Log) -> io::Result<Self> {
        let place = Place::open(&config.access, config.rotate)?;
        let usage = config.usage.as_ref().map(Usage::open).transpose()?;
        Self::with(place, &config.form, QUEUE, (usage, config.loki.as_ref().map(Loki::start)))
    }

    /// Writes JSON to any sink, with room for `room` waiting lines.
    #[cfg(test)]
    fn to(sink: impl Write + Send + 'static, room: usize) -> io::Result<Self> {
        Self::with(Place::Other(Box::new(sink)), &LogForm::Json, room, (None, None))
    }

    fn with(
        place: Place,
        form: &LogForm,
        room: usize,
        (usage, loki): (Option<Usage>, Option<Loki>),
    ) -> io::Result<Self> {
        let writes = AtomicBool::new(!matches!(place, Place::None));
        let writer = LineWriter {
            lines: Lines::to(place, "the access log"),
            form: form.clone(),
            stamps: Stamps::default(),
            line: Vec::new(),
        };
        let lines = Queue::start("access-log", "access log lines", room, writer)?;
        let quotes = AtomicBool::new(form.quotes_the_head());
        Ok(Self(Some(Arc::new(Log { lines, writes, quotes, usage, loki }))))
    }

    /// Whether entries go anywhere; if not, they need not be made.
    pub fn is_on(&self) -> bool {
        self.0.as_ref().is_some_and(|log| log.writes.load(Relaxed) || log.usage.is_some() || log.loki.is_some())
    }

    /// Whether lines quote the head of the request, so that it is to be kept.
    pub fn quotes_the_head(&self) -> bool {
        self.0.as_ref().is_some_and(|log| log.quotes.load(Relaxed))
    }

    /// Queues what is made of one request, or drops it where a queue is full.
    pub fn record(&self, entry: Entry) {
        let Some(log) = &self.0 else { return };
        let entry = Arc::new(entry);
        if let Some(usage) = &log.usage {
            usage.put(entry.clone());
        }
        if let Some(loki) = &log.loki {
            loki.put(entry.clone());
        }
        if log.writes.load(Relaxed) {
            log.lines.put(entry);
        }
    }

    /// What was dropped since the start.
    pub fn losses(&self) -> Losses {
        let Some(log) = &self.0 else { return Losses::default() };
        Losses {
            access: log.lines.dropped(),
            usage: log.usage.as_ref().map_or(0, Usage::dropped),
            loki: log.loki.as_ref().map_or(0, Loki::dropped),
        }
    }

    /// Opens what another configuration names, so that [`AccessLog::change`] cannot fail.
    pub fn prepare(old: &config::Log, new: &config::Log) -> io::Result<Change> {
        let place = (new.access != old.access).then(|| Place::open(&new.access, new.rotate)).transpose()?;
        let writes = new.access != config::AccessLog::None;
        Ok(Change { place, form: new.form.clone(), rotate: new.rotate, writes })
    }

    /// Writes to another place, or in another form, from now on. Lines that are queued go where they were to go.
    pub fn change(&self, change: Change) {
        let Some(log) = &self.0 else { return };
        log.quotes.store(change.form.quotes_the_head(), Relaxed);
        let writes = change.writes;
        if !log.lines.tell(Command::Change(Box::new(change))) {
            log::error!(target: "portcullis::access_log", "it is stuck, and changes as soon as it is not");
        }
        log.writes.store(writes, Relaxed);
    }

    /// Opens files anew, at the paths that they had: whoever has moved them wants to be rid of them.
    pub fn reopen(&self) {
        let Some(log) = &self.0 else { return };
        let told = log.lines.tell(Command::Reopen);
        if !log.usage.as_ref().is_none_or(Usage::reopen) || !told {
            log::error!(target: "portcullis::access_log", "it is stuck, and opens its files again as soon as it is not");
        }
    }

    /// Blocks until the lines queued so far are written, at most a second; says whether they are. Not for the way of
    /// a request.
    pub fn flush(&self) -> bool {
        self.0.as_ref().is_none_or(|log| log.lines.flush() && log.usage.as_ref().is_none_or(Usage::flush))
    }

    /// The end: what is queued is written, and what can be pushed in time is pushed.
    pub async fn close(&self, within: Duration) {
        if let Some(loki) = self.0.as_ref().and_then(|log| log.loki.as_ref()) {
            loki.close(within).await;
        }
        self.flush();
    }
}

struct LineWriter {
    lines: Lines,
    form: LogForm,
    stamps: Stamps,
    line: Vec<u8>,
}

impl Writer for LineWriter {
    type Command = Command;

    fn take(&mut self, entry: &Entry) -> u64 {
        self.line.clear();
        match form::write(&self.form, entry, &mut self.stamps, &mut self.line) {
            Ok(()) => {
                self.line.push(b'\n');
                self.lines.put(&self.line)
            }
            Err(_) => 1,
        }
    }

    fn obey(&mut self, command: Command) -> u64 {
        match command {
            Command::Reopen => self.lines.reopen(),
            Command::Change(change) => {
                let Change { place, form, rotate, .. } = *change;
                self.form = form;
                let dropped = place.map_or(0, |place| self.lines.move_to(place));
                self.lines.set_rotation(rotate);
                dropped
            }
        }
    }

    fn flush(&mut self) -> Option<Duration> {
        self.lines.flush()
    }
}

#[cfg(test)]
mod tests;
