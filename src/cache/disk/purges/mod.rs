//! What has been purged, and when? An object on disk may be older than a purge that concerned it: each one that is read
//! is measured against this list.
//!
//! Bounded: beyond [`MOST`] purges or [`MOST_BYTES`] of patterns the older half is forgotten, and everything stored
//! before the last one forgotten counts as purged. To forget may cost objects, it never brings one back. Moments are
//! milliseconds since the Unix epoch; a purge concerns what was stored at its own moment too.

pub mod journal;

use std::collections::HashMap;

/// The most purges that are remembered.
pub const MOST: usize = 32_768;
/// The most bytes that their patterns may have together.
pub const MOST_BYTES: usize = 1 << 20;
/// No object is kept on disk for longer, however fresh it says it is: purges before that need not be remembered.
pub const MOST_AGE: u64 = 30 * 24 * 60 * 60 * 1000;

/// Which objects a purge concerns.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// All of them.
    Everything,
    /// The one with this key.
    Key(u128),
    /// All variants of this URL.
    Url(Vec<u8>),
    /// Those whose URL begins so.
    Prefix(Vec<u8>),
    /// Those of this host; without a port, on any port.
    Host(Vec<u8>),
    /// Those with this tag.
    Tag(Vec<u8>),
}

/// One purge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purge {
    /// Which objects.
    pub what: What,
    /// When.
    pub at: u64,
    /// Whether they are stale from now on, instead of gone.
    pub soft: bool,
}

/// What the purges leave of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// No purge concerns it.
    Untouched,
    /// It may be served as a stale one only.
    Stale,
    /// It may not be served.
    Gone,
}

/// When something was last purged, each way; 0 is never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Last {
    hard: u64,
    soft: u64,
}

impl Last {
    fn verdict(self, stored_at: u64) -> Verdict {
        match stored_at {
            _ if stored_at <= self.hard => Verdict::Gone,
            _ if stored_at <= self.soft => Verdict::Stale,
            _ => Verdict::Untouched,
        }
    }

    fn latest(self) -> u64 {
        self.hard.max(self.soft)
    }
}

/// The purges that an object on disk may have missed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purges {
    /// What was stored until this moment is gone, whatever it is; 0 is nothing.
    floor: u64,
    last: HashMap<What, Last>,
    /// The lengths of the patterns of `Prefix`, each with how many have it: what is asked for one URL is bounded by them.
    prefixes: HashMap<usize, usize>,
    bytes: usize,
}

impl Purges {
    /// Adds one, and forgets old ones if there are too many.
    pub fn add(&mut self, purge: Purge) {
        let Purge { mut what, at, soft } = purge;
        if let What::Host(host) = &mut what {
            host.make_ascii_lowercase();
        }
        if what == What::Everything && !soft {
            self.floor = self.floor.max(at);
            return self.forget_until(at);
        }
        if !self.last.contains_key(&what) {
            self.bytes += what.len();
            self.count_prefix(&what, 1);
        }
        let last = self.last.entry(what).or_default();
        let moment = if soft { &mut last.soft } else { &mut last.hard };
        *moment = at.max(*moment);
        while self.last.len() > MOST || self.bytes > MOST_BYTES {
            self.forget_half();
        }
    }

    /// What they leave of the object with this key, URL and tags that was stored at this moment.
    pub fn verdict(&self, key: u128, url: &[u8], tags: &[impl AsRef<[u8]>], stored_at: u64) -> Verdict {
        if stored_at <= self.floor {
            return Verdict::Gone;
        }
        if self.last.is_empty() {
            return Verdict::Untouched;
        }
        let (with_port, without) = host(url);
        let one = [What::Everything, What::Key(key), What::Url(url.to_vec())];
        let hosts = [What::Host(with_port.to_ascii_lowercase()), What::Host(without.to_ascii_lowercase())];
        let prefixes = self.prefixes.keys().filter_map(|length| Some(What::Prefix(url.get(..*length)?.to_vec())));
        let tags = tags.iter().map(|tag| What::Tag(tag.as_ref().to_vec()));
        let all = one.into_iter().chain(hosts).chain(prefixes).chain(tags);
        let last = all.filter_map(|what| self.last.get(&what));
        last.map(|last| last.verdict(stored_at)).max().unwrap_or(Verdict::Untouched)
    }

    /// Forgets what can concern no object any more, because none from then is left.
    pub fn forget_before(&mut self, oldest: u64) {
        self.forget_until(oldest.saturating_sub(1));
    }

    /// Everything it holds, as purges that make the same list anew.
    pub fn all(&self) -> impl Iterator<Item = Purge> {
        let floor = Purge { what: What::Everything, at: self.floor, soft: false };
        let last = self.last.iter().flat_map(|(what, last)| {
            let hard = Purge { what: what.clone(), at: last.hard, soft: false };
            [hard, Purge { what: what.clone(), at: last.soft, soft: true }]
        });
        std::iter::once(floor).chain(last).filter(|purge| purge.at > 0)
    }

    fn forget_until(&mut self, moment: u64) {
        let old = self.last.iter().filter(|(_, last)| last.latest() <= moment).map(|(what, _)| what.clone());
        for what in old.collect::<Vec<_>>() {
            self.last.remove(&what);
            self.bytes -= what.len();
            self.count_prefix(&what, -1);
        }
    }

    fn forget_half(&mut self) {
        let mut moments = self.last.values().map(|last| last.latest()).collect::<Vec<_>>();
        let middle = moments.len() / 2;
        let moment = *moments.select_nth_unstable(middle).1;
        self.floor = self.floor.max(moment);
        self.forget_until(moment);
    }

    fn count_prefix(&mut self, what: &What, more: isize) {
        let What::Prefix(prefix) = what else { return };
        let count = self.prefixes.entry(prefix.len()).or_default();
        *count = count.saturating_add_signed(more);
        if *count == 0 {
            self.prefixes.remove(&prefix.len());
        }
    }
}

impl What {
    /// How many bytes its pattern has.
    fn len(&self) -> usize {
        match self {
            What::Everything => 0,
            What::Key(_) => 16,
            What::Url(bytes) | What::Prefix(bytes) | What::Host(bytes) | What::Tag(bytes) => bytes.len(),
        }
    }
}

/// The host of a URL, with its port and without it.
fn host(url: &[u8]) -> (&[u8], &[u8]) {
    let begin = memchr::memmem::find(url, b"://").map_or(0, |at| at + 3);
    let rest = &url[begin..];
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let with_port = &rest[..end];
    let name_end = memchr::memrchr(b']', with_port).unwrap_or(0);
    let colon = memchr::memrchr(b':', with_port).filter(|at| *at > name_end);
    (with_port, &with_port[..colon.unwrap_or(end)])
}

#[cfg(test)]
mod tests;
