//! Which connections to backends are at rest? A pool that costs a request two short locks.
//!
//! Pingora's has a task for each connection at rest, which is started when the connection comes and woken when it goes:
//! that costs more than most of what else a small request asks of us. Here a connection is looked at when it is taken,
//! and all of them once a second. How long one may rest is not asked here: what has rested for too long is closed by its
//! upstream, and found closed.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use pingora::protocols::Stream;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::runtime::{Handle, Id};

use super::link::at_once;

/// How often what is closed is let go.
const SWEEP: Duration = Duration::from_secs(1);

/// What a connection leads to, and the runtime that is told when there is something to be read from it. In another it would
/// work, but each answer would wake two threads.
type Key = (Id, u64);

/// Connections at rest; of each key the one that came last is taken first.
#[derive(Default)]
struct Shelf {
    by_key: HashMap<Key, Vec<Stream>>,
    count: usize,
}

/// The pool of one gateway.
pub(in crate::proxy) struct Pool {
    shelf: Mutex<Shelf>,
    most: usize,
}

impl Pool {
    /// A pool for at most so many connections. To be called where tokio runs.
    pub(in crate::proxy) fn new(most: usize) -> Arc<Self> {
        let pool = Arc::new(Self { shelf: Mutex::default(), most });
        tokio::spawn(sweep(Arc::downgrade(&pool)));
        pool
    }

    /// A connection of this runtime that is still good, as far as can be told.
    pub(super) fn take(&self, key: u64) -> Option<Stream> {
        let key = here(key);
        loop {
            let mut stream = self.pop(key)?;
            if is_silent(&mut stream) {
                return Some(stream);
            }
        }
    }

    fn pop(&self, key: Key) -> Option<Stream> {
        let mut shelf = self.shelf();
        let stream = shelf.by_key.get_mut(&key)?.pop()?;
        shelf.count -= 1;
        Some(stream)
    }

    /// Puts a connection of this runtime to rest. Where the pool is full the one of this key that has rested longest goes, or
    /// else one of another key.
    pub(super) fn put(&self, key: u64, mut stream: Stream) {
        if !is_silent(&mut stream) {
            return;
        }
        let key = here(key);
        let mut shelf = self.shelf();
        // Dropped when the lock is free again: to close a socket takes its time.
        let _gone = if shelf.count < self.most {
            shelf.count += 1;
            None
        } else {
            let is_there = |list: &Vec<Stream>| !list.is_empty();
            let from = match shelf.by_key.get(&key).is_some_and(is_there) {
                true => Some(key),
                false => shelf.by_key.iter().find(|(_, list)| is_there(list)).map(|(key, _)| *key),
            };
            from.and_then(|from| shelf.by_key.get_mut(&from)).map(|list| list.remove(0))
        };
        shelf.by_key.entry(key).or_default().push(stream);
        drop(shelf);
    }

    /// Lets go what is closed.
    fn sweep(&self) {
        let keys: Vec<Key> = self.shelf().by_key.keys().copied().collect();
        for key in keys {
            let mut gone = Vec::new();
            let mut shelf = self.shelf();
            if let Some(of_key) = shelf.by_key.get_mut(&key) {
                gone.extend(of_key.extract_if(.., |stream| !is_silent(stream)));
                if of_key.is_empty() {
                    shelf.by_key.remove(&key);
                }
            }
            shelf.count -= gone.len();
            drop(shelf);
        }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn here(key: u64) -> Key {
    (Handle::current().id(), key)
}

async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        match pool.upgrade() {
            Some(pool) => pool.sweep(),
            None => return,
        }
    }
}

/// Whether there is nothing to be read, not even an end: a backend that speaks unasked is not to be asked.
fn is_silent(stream: &mut Stream) -> bool {
    let mut byte = [0];
    let mut buffer = ReadBuf::new(&mut byte);
    at_once(poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut buffer))).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pingora::protocols::l4::stream::Stream as L4;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    fn connection() -> (Stream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Box::new(L4::from(ours)), theirs)
    }

    #[tokio::test]
    async fn what_came_last_is_taken_first_and_only_by_who_has_its_key() {
        let pool = Pool::new(8);
        let ((first, mut one), (second, mut two)) = (connection(), connection());
        pool.put(1, first);
        pool.put(1, second);
        assert!(pool.take(2).is_none());
        for (theirs, byte) in [(&mut two, 2), (&mut one, 1)] {
            pool.take(1).unwrap().write_all(&[byte]).await.unwrap();
            assert_eq!(theirs.read_u8().await.unwrap(), byte);
        }
        assert!(pool.take(1).is_none());
    }

    #[test]
    fn each_runtime_has_those_that_it_is_told_of() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (one, other) = (runtime(), runtime());
        let (pool, _theirs) = one.block_on(async {
            let (pool, (ours, theirs)) = (Pool::new(8), connection());
            pool.put(1, ours);
            (pool, theirs)
        });
        assert!(other.block_on(async { pool.take(1) }).is_none());
        assert!(one.block_on(async { pool.take(1) }).is_some());
    }

    #[tokio::test]
    async fn one_that_has_something_to_say_is_let_go() {
        let pool = Pool::new(8);
        let ((closed, gone), (speaks, mut theirs)) = (connection(), connection());
        pool.put(1, closed);
        pool.put(1, speaks);
        drop(gone);
        theirs.write_all(b"!").await.unwrap();
        // Until the system has told tokio.
        while let Some(stream) = pool.take(1) {
            pool.put(1, stream);
            tokio::task::yield_now().await;
        }
        assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0, "it should be closed");
    }

    #[tokio::test]
    async fn a_full_pool_gives_up_what_has_rested_longest() {
        let pool = Pool::new(2);
        let ((first, mut one), (second, mut two), (third, _three), (other, _four)) =
            (connection(), connection(), connection(), connection());
        for stream in [first, second, third] {
            pool.put(1, stream);
        }
        assert_eq!(one.read(&mut [0]).await.unwrap(), 0);
        pool.put(2, other);
        assert_eq!(pool.shelf().count, 2);
        assert_eq!(two.read(&mut [0]).await.unwrap(), 0, "a new key should find room");
        assert!(pool.take(2).is_some() && pool.take(1).is_some() && pool.take(1).is_none());
    }

    #[tokio::test]
    async fn a_sweep_closes_what_its_backend_has_closed() {
        let pool = Pool::new(8);
        let (closed, gone) = connection();
        pool.put(1, closed);
        drop(gone);
        while pool.shelf().count > 0 {
            tokio::task::yield_now().await;
            pool.sweep();
        }
    }
}
