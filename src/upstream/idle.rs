//! Which connections to backends have been idle for too long? One look at all of them now and then.
//!
//! Pingora can close idle connections, but arms a timer each time one goes into its pool: two readings of the clock and
//! a search in a tree for every request, of which nearly all are for nothing. Here a request adds one to a counter, and
//! who finds a counter unchanged for long enough closes the connection. Only HTTP/1.1 is counted this way; a connection
//! of HTTP/2 is Pingora's to close, since it may carry streams that nobody counts.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::dial::{Line, Socket};

/// So many looks in an idle time. What was idle for less than two parts of it is not seen, so that much less is waited:
/// a backend that closes after the same time shall not be the first.
const LOOKS: u32 = 16;

/// However long connections may be idle: what is kept of those that have gone shall not pile up.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The connections of one upstream, as one configuration made them. They are looked at until the last has gone, even
/// when a reload has put others in their place.
#[derive(Debug)]
pub(super) struct Idle {
    limit: Duration,
    watched: Mutex<Watched>,
}

#[derive(Debug, Default)]
struct Watched {
    sockets: Vec<Seen>,
    /// Whether there is a task that looks.
    looking: bool,
}

/// A connection as it was when it was last seen to move.
#[derive(Debug)]
struct Seen {
    socket: Weak<Socket>,
    uses: u32,
    since: Instant,
}

impl Idle {
    /// Connections that may be idle for so long.
    pub(super) fn new(limit: Duration) -> Arc<Self> {
        Arc::new(Self { limit, watched: Mutex::default() })
    }

    /// Looks after one more connection.
    pub(super) fn watch(self: &Arc<Self>, line: &Line) {
        let seen = Seen { socket: line.downgrade(), uses: line.uses(), since: Instant::now() };
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.sockets.push(seen);
        if !std::mem::replace(&mut watched.looking, true) {
            tokio::spawn(self.clone().keep_looking());
        }
    }

    async fn keep_looking(self: Arc<Self>) {
        loop {
            tokio::time::sleep((self.limit / LOOKS).clamp(Duration::from_millis(1), PAUSE_MAX)).await;
            let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
            let (now, patience) = (Instant::now(), self.limit * (LOOKS - 2) / LOOKS);
            watched.sockets.retain_mut(|seen| seen.look(now, patience));
            if watched.sockets.is_empty() {
                *watched = Watched::default();
                return;
            }
        }
    }
}

impl Seen {
    /// Closes the connection if it has been idle for too long; says whether it is still there.
    fn look(&mut self, now: Instant, patience: Duration) -> bool {
        // One handle is the connection's. Where there is another we take none, even for a moment: whoever has it would
        // think that the connection is shared, and not cut it.
        if self.socket.strong_count() > 1 {
            self.since = now;
            return true;
        }
        let Some(socket) = self.socket.upgrade() else { return false };
        let line = Line::from(socket);
        let uses = line.uses();
        if uses != self.uses || line.is_shared() {
            (self.uses, self.since) = (uses, now);
            return true;
        }
        now.saturating_duration_since(self.since) < patience || !line.cut_if_unused_since(uses)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A connection that nobody uses, its other end, and how it was seen.
    fn connection() -> (Line, UnixStream, Seen) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let line = Line::to(&ours).unwrap();
        let seen = Seen { socket: line.downgrade(), uses: line.uses(), since: Instant::now() };
        (line, theirs, seen)
    }

    fn is_closed(mut theirs: &UnixStream) -> bool {
        theirs.read(&mut [0]).is_ok_and(|bytes| bytes == 0)
    }

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn a_connection_that_nobody_uses_is_closed_when_its_time_is_over() {
        let (_line, theirs, mut seen) = connection();
        let start = seen.since;
        assert!(seen.look(start + PATIENCE - Duration::from_secs(1), PATIENCE));
        assert!(!is_closed(&theirs));
        assert!(!seen.look(start + PATIENCE, PATIENCE));
        assert!(is_closed(&theirs));
    }

    #[test]
    fn a_use_begins_the_time_anew() {
        let (line, theirs, mut seen) = connection();
        let start = seen.since;
        drop(line.taken());
        assert!(seen.look(start + 2 * PATIENCE, PATIENCE));
        assert!(seen.look(start + 3 * PATIENCE - Duration::from_secs(1), PATIENCE));
        assert!(!is_closed(&theirs));
        assert!(!seen.look(start + 3 * PATIENCE, PATIENCE));
    }

    #[test]
    fn a_connection_in_use_is_never_closed_however_long_it_takes() {
        let (line, theirs, mut seen) = connection();
        let start = seen.since;
        let in_use = line.taken();
        assert!(seen.look(start + PATIENCE, PATIENCE));
        assert!(seen.look(start + 9 * PATIENCE, PATIENCE));
        assert!(!is_closed(&theirs));
        drop(in_use);
        assert!(seen.look(start + 18 * PATIENCE, PATIENCE), "it has just been seen that nobody uses it any more");
        assert!(!seen.look(start + 19 * PATIENCE, PATIENCE));
    }

    #[test]
    fn a_look_does_not_make_a_connection_shared() {
        let (line, _theirs, mut seen) = connection();
        let (in_use, start) = (line.taken(), seen.since);
        std::thread::scope(|scope| {
            let looking = scope.spawn(|| (0..20_000).all(|_| seen.look(start, PATIENCE)));
            while !looking.is_finished() {
                assert!(!in_use.is_shared());
            }
        });
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_have_gone_are_forgotten_soon_however_long_others_may_be_idle() {
        let idle = Idle::new(Duration::from_secs(3600));
        let (line, _theirs, _) = connection();
        idle.watch(&line);
        drop(line);
        for _ in 0..10 {
            tokio::time::advance(PAUSE_MAX / 5).await;
        }
        assert!(idle.watched.lock().unwrap().sockets.is_empty());
    }

    #[test]
    fn whoever_takes_it_between_the_look_and_the_cut_keeps_it() {
        let (line, theirs, seen) = connection();
        let _in_use = line.taken();
        assert!(!line.cut_if_unused_since(seen.uses));
        assert!(!is_closed(&theirs));
    }

    #[test]
    fn a_connection_that_is_gone_is_forgotten() {
        let (line, _theirs, mut seen) = connection();
        drop(line);
        assert!(!seen.look(Instant::now(), PATIENCE));
    }
}
