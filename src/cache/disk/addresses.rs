//! Of which addresses may there be something on disk? A filter that errs on the side of yes, so that an unsafe request
//! to an address of which nothing is stored, which is what most of them are, leaves no line in the list of purges.
//!
//! Addresses are added for as long as twice the tier has been written; then everything from before is overwritten, and
//! what was added until then is kept for one more such time. It is written down at the end. After a crash it is not
//! there, and the answer is yes until that much has been written.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::folder::{unless_missing, write_whole};

/// One bit for so many bytes of the tier: for objects of a few KiB, few are taken for another.
const BYTES_A_BIT: u64 = 512;
const LEAST_BITS: u64 = 1 << 16;
const MOST_BITS: u64 = 1 << 26;

/// What the file begins with; the last byte is the version of this form.
const MAGIC: &[u8; 8] = b"ptcaddr\x01";
/// The magic, whether everything may have been there before, and how far the time is gone.
const FRONT: usize = 8 + 1 + 8;

/// The addresses that something may be stored for.
#[derive(Debug)]
pub(super) struct Addresses {
    state: Mutex<State>,
    secret: u64,
    /// Bytes that the tier takes.
    size: u64,
    path: PathBuf,
}

#[derive(Debug)]
struct State {
    now: Vec<u8>,
    before: Vec<u8>,
    /// Nothing is known of what was there before.
    all: bool,
    /// The bytes that had been written in this process when addresses were added to `now` first...
    since: u64,
    /// ...and those that were written before this process, but since then.
    earlier: u64,
}

impl State {
    fn new(bits: usize, all: bool) -> Self {
        Self { now: vec![0; bits / 8], before: vec![0; bits / 8], all, since: 0, earlier: 0 }
    }
}

impl Addresses {
    /// Reads what the last process wrote down, and removes that, since it will not hold any more. `kept` is whether
    /// there may be objects.
    pub(super) fn open(path: PathBuf, secret: u64, size: u64, kept: bool) -> io::Result<Arc<Self>> {
        let bits = (size / BYTES_A_BIT).next_power_of_two().clamp(LEAST_BITS, MOST_BITS);
        let bits = usize::try_from(bits).map_err(io::Error::other)?;
        let read = fs::read(&path).ok().filter(|_| kept).and_then(|bytes| read(&bytes, bits));
        unless_missing(fs::remove_file(&path))?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())?;
        let state = read.unwrap_or_else(|| State::new(bits, kept));
        Ok(Arc::new(Self { state: Mutex::new(state), secret, size, path }))
    }

    /// Something is about to be stored for an address, when so many bytes have been written.
    pub(super) fn add(&self, url: &[u8], written: u64) {
        let mut state = self.state();
        if written.saturating_sub(state.since).saturating_add(state.earlier) >= 2 * self.size {
            let empty = vec![0; state.now.len()];
            state.before = std::mem::replace(&mut state.now, empty);
            (state.all, state.since, state.earlier) = (false, written, 0);
        }
        for (byte, mask) in self.places(url, state.now.len()) {
            state.now[byte] |= mask;
        }
    }

    /// Whether something may be stored for an address.
    pub(super) fn may_have(&self, url: &[u8]) -> bool {
        let state = self.state();
        let has = |bits: &[u8]| self.places(url, bits.len()).all(|(byte, mask)| bits[byte] & mask != 0);
        state.all || has(&state.now) || has(&state.before)
    }

    /// Writes it down, for the next process. Nothing may be added afterwards.
    pub(super) fn close(&self, written: u64) -> io::Result<()> {
        let bytes = {
            let state = self.state();
            let gone = written.saturating_sub(state.since).saturating_add(state.earlier);
            [MAGIC, &[u8::from(state.all)][..], &gone.to_be_bytes(), &state.now, &state.before].concat()
        };
        write_whole(&self.path, &bytes)
    }

    fn places(&self, url: &[u8], bytes: usize) -> impl Iterator<Item = (usize, u8)> + use<> {
        let hash = xxh3_128_with_seed(url, self.secret);
        (0..4).map(move |lane| {
            // Their number is a power of two, below that of a lane.
            let bit = (hash >> (lane * 32)) as usize & (bytes * 8 - 1);
            (bit / 8, 1 << (bit % 8))
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(bytes: &[u8], bits: usize) -> Option<State> {
    let (front, rest) = bytes.split_at_checked(FRONT)?;
    if front[..8] != *MAGIC || rest.len() != bits / 4 {
        return None;
    }
    let (now, before) = rest.split_at(bits / 8);
    let earlier = u64::from_be_bytes(front[9..].try_into().ok()?);
    Some(State { now: now.to_vec(), before: before.to_vec(), all: front[8] != 0, since: 0, earlier })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const SIZE: u64 = 1 << 20;

    fn path(folder: &Path) -> PathBuf {
        folder.join("addresses")
    }

    fn open(folder: &Path, kept: bool) -> Arc<Addresses> {
        Addresses::open(path(folder), 7, SIZE, kept).unwrap()
    }

    fn url(number: usize) -> Vec<u8> {
        format!("https://a/{number}").into_bytes()
    }

    #[test]
    fn what_is_added_is_there_and_few_others_seem_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let addresses = open(folder.path(), false);
        (0..1000).for_each(|number| addresses.add(&url(number), 0));
        assert!((0..1000).all(|number| addresses.may_have(&url(number))));
        assert!((1000..2000).filter(|number| addresses.may_have(&url(*number))).count() < 20);
    }

    #[test]
    fn it_outlasts_an_end_and_after_a_crash_everything_may_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let addresses = open(folder.path(), false);
        addresses.add(&url(1), 0);
        addresses.close(0).unwrap();
        let addresses = open(folder.path(), true);
        assert!(addresses.may_have(&url(1)) && !addresses.may_have(&url(2)));
        let crashed = open(folder.path(), true);
        assert!(crashed.may_have(&url(2)));
        std::fs::write(path(folder.path()), b"ptcaddr\x01\0half").unwrap();
        assert!(open(folder.path(), true).may_have(&url(2)));
    }

    #[test]
    fn what_is_overwritten_is_forgotten_one_time_later() {
        let folder = tempfile::tempdir().unwrap();
        let addresses = open(folder.path(), true);
        addresses.add(&url(1), 0);
        assert!(addresses.may_have(&url(9)), "nothing is known of what was there");
        addresses.add(&url(2), SIZE);
        addresses.close(SIZE).unwrap();
        let addresses = open(folder.path(), true);
        addresses.add(&url(3), SIZE - 1);
        assert!(addresses.may_have(&url(9)));
        addresses.add(&url(4), SIZE);
        assert!((1..=4).all(|number| addresses.may_have(&url(number))) && !addresses.may_have(&url(9)));
        addresses.add(&url(5), 3 * SIZE);
        assert_eq!([1, 2, 3, 4, 5].map(|number| addresses.may_have(&url(number))), [false, false, false, true, true]);
    }
}
