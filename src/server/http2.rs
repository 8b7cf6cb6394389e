//! When does a connection of HTTP/2 write, and when does it end? What Pingora leaves to whoever serves one.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;

use crate::server::connection::Connection;

/// How long the client of an idle HTTP/2 connection may take to answer our goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// Lets the streams of a connection that can go on do so before it is looked after, so that what they have to say is written
/// together: a woken task has its turn at once, and the one that writes is woken by each stream that has something to say.
pub(super) fn after_its_streams<F: Future + Unpin>(
    connection: &Connection,
    mut process: F,
) -> impl Future<Output = F::Output> {
    let mut is_put_off = false;
    poll_fn(move |context| {
        is_put_off = !is_put_off && connection.has_exchanges();
        if is_put_off {
            // Behind all that can go on now.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut process).poll(context)
    })
}

/// Ends a connection that has had no stream for a while, or all when we leave. `GOAWAY` lets those finish that are under
/// way, and is answered by a client that is still there; one that is not is waited for no longer than this takes.
pub(super) async fn say_goodbye(
    connection: Arc<Connection>,
    idle: Duration,
    mut shutdown: watch::Receiver<bool>,
    leave: watch::Sender<bool>,
) {
    let leaving = tokio::select! {
        _ = shutdown.wait_for(|&down| down) => true,
        () = connection.idle_for(idle) => false,
    };
    leave.send_replace(true);
    if leaving {
        // How long that may take is for the grace period to say.
        std::future::pending::<()>().await;
    }
    connection.idle_for(GOODBYE).await;
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::{Context, Wake};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn a_connection_with_streams_is_looked_after_when_they_had_their_turn() {
        let connection = Connection::example(([127, 0, 0, 1], 1).into(), 80);
        let (polls, woken) = (Cell::new(0), Arc::new(Woken::default()));
        let process = Box::pin(poll_fn(|_| -> Poll<()> {
            polls.set(polls.get() + 1);
            Poll::Pending
        }));
        let mut process = pin!(after_its_streams(&connection, process));
        let waker = woken.clone().into();
        let mut poll = || {
            assert!(process.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            (polls.get(), woken.0.load(Relaxed))
        };
        assert_eq!(poll(), (1, 0), "there is nobody to wait for");
        let stream = connection.open_stream();
        assert_eq!([poll(), poll(), poll(), poll()], [(1, 1), (2, 1), (2, 2), (3, 2)]);
        drop(stream);
        assert_eq!(poll(), (4, 2));
    }
}
