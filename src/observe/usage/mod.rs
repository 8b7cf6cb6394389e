//! Who has asked for what, and how much was it? A stream of its own beside the access log, for whoever writes bills.
//!
//! Each event is on disk before anything else is done with it: in a file of the operator's, or in a spool from which it is
//! sent until it is taken, also after a crash. So an event arrives at least once; its id, which stays the same, says which
//! ones are the same.

mod event;
mod ship;
mod spool;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use self::event::Events;
use self::ship::Shipper;
pub(super) use self::ship::{bearer, longer_each_time};
use self::spool::{Shelf, Spool};
use super::access_log::{Entry, QUEUE};
use super::writing::lines::{Lines, LogFile, Place};
use super::writing::{Queue, Writer};
use crate::backend::Task;
use crate::config;

/// Where usage events go in.
#[derive(Debug)]
pub(super) struct Usage {
    events: Queue<Reopen>,
    /// Who sends them.
    _shipper: Option<Task>,
}

/// The only thing that the writer is told: to open its file anew.
#[derive(Debug)]
struct Reopen;

impl Usage {
    /// Opens the file, or the spool. What is to be sent needs a tokio runtime.
    pub(super) fn open(config: &config::Usage) -> io::Result<Self> {
        let (place, shipper) = match config {
            config::Usage::File(path, rotate) => (Kept::File(lines(path.clone(), *rotate)?), None),
            config::Usage::Http(http) => {
                let shelf = Arc::new(Shelf::open(&http.spool, http.spool_size)?);
                let shipper = Shipper::new(http, shelf.clone());
                (Kept::Spool(Spool::begin(shelf)?), Some(Task::spawn(shipper.run())))
            }
        };
        let events = Events::new(match &place {
            Kept::File(_) => fastrand::u64(..),
            Kept::Spool(spool) => spool.boot(),
        });
        let writer = EventWriter { events, place, line: Vec::new() };
        Ok(Self { events: Queue::start("usage", "usage events", QUEUE, writer)?, _shipper: shipper })
    }

    pub(super) fn put(&self, entry: Arc<Entry>) {
        self.events.put(entry);
    }

    pub(super) fn dropped(&self) -> u64 {
        self.events.dropped()
    }

    pub(super) fn reopen(&self) -> bool {
        self.events.tell(Reopen)
    }

    pub(super) fn flush(&self) -> bool {
        self.events.flush()
    }
}

fn lines(path: std::path::PathBuf, rotate: Option<config::Rotate>) -> io::Result<Lines> {
    Ok(Lines::to(Place::File(LogFile::open(path, rotate)?), "the file of usage events"))
}

/// Where events are kept.
enum Kept {
    File(Lines),
    Spool(Spool),
}

struct EventWriter {
    events: Events,
    place: Kept,
    line: Vec<u8>,
}

impl Writer for EventWriter {
    type Command = Reopen;

    fn take(&mut self, entry: &Entry) -> u64 {
        self.line.clear();
        self.events.write(entry, &mut self.line);
        match &mut self.place {
            Kept::File(lines) => lines.put(&self.line),
            Kept::Spool(spool) => spool.put(&self.line),
        }
    }

    fn obey(&mut self, Reopen: Reopen) -> u64 {
        match &mut self.place {
            Kept::File(lines) => lines.reopen(),
            Kept::Spool(_) => 0,
        }
    }

    fn flush(&mut self) -> Option<Duration> {
        match &mut self.place {
            Kept::File(lines) => lines.flush(),
            Kept::Spool(spool) => spool.flush(),
        }
    }
}
