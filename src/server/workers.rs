//! Who serves which connection? Threads with a runtime each, of which the one with fewest connections gets the next.
//!
//! A connection stays where it is: what it waits for wakes no other thread, and its tasks need no lock that another thread
//! wants. The price is that nobody helps a worker out, so connections are dealt with care.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::listen::Accepted;

/// How many of them accept. A connection wakes all that do and have nothing to do.
const ACCEPTING: usize = 4;

/// A worker that has accepted a connection keeps it unless another has fewer by more than this part of its own: to hand one
/// over costs a wake-up of another thread.
const UNEVEN: usize = 16;

/// How long work that must not be broken off, such as a file that is written, may still take.
const LAST_WORK: Duration = Duration::from_millis(100);

/// Those who serve.
#[derive(Clone, Debug)]
pub struct Workers(Arc<[Worker]>);

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    /// Connections that it has been given and that are still open.
    connections: AtomicUsize,
}

impl Workers {
    /// The runtime that this is called in, as one worker.
    pub fn here() -> Self {
        Self::of([Handle::current()])
    }

    fn of(runtimes: impl IntoIterator<Item = Handle>) -> Self {
        let worker = |runtime| Worker { runtime, connections: AtomicUsize::new(0) };
        Self(runtimes.into_iter().map(worker).collect())
    }

    /// Starts threads. They end with what is returned beside them.
    pub(super) fn start(count: usize) -> io::Result<(Self, Threads)> {
        let (runtimes, threads) = Threads::start(count)?;
        Ok((Self::of(runtimes), threads))
    }

    /// The places of those who accept.
    pub(super) fn accepting(&self) -> impl Iterator<Item = Place> {
        (0..self.0.len().min(ACCEPTING)).map(|at| Place { workers: self.clone(), at })
    }

    /// Their runtimes.
    pub(super) fn runtimes(&self) -> impl Iterator<Item = &Handle> {
        self.0.iter().map(|worker| &worker.runtime)
    }
}

/// One worker's place among all.
#[derive(Clone, Debug)]
pub struct Place {
    workers: Workers,
    at: usize,
}

impl Place {
    /// The runtime of this worker.
    pub(super) fn runtime(&self) -> &Handle {
        &self.workers.0[self.at].runtime
    }

    /// Has a connection served by whom it is best served by. Fails where that one's runtime cannot take it.
    pub(super) fn share_out<S>(&self, accepted: Accepted, serve: impl FnOnce(Accepted) -> S) -> io::Result<()>
    where
        S: Future<Output = ()> + Send + 'static,
    {
        let at = self.idlest();
        let worker = &self.workers.0[at];
        let accepted = if at == self.at { accepted } else { accepted.in_runtime(&worker.runtime)? };
        let (serving, counted) = (serve(accepted), Counted::of(self.workers.clone(), at));
        worker.runtime.spawn(async move {
            let _counted = counted;
            serving.await;
        });
        Ok(())
    }

    /// This worker, or another that has clearly less to do.
    fn idlest(&self) -> usize {
        let open = |at: &usize| self.workers.0[*at].connections.load(Relaxed);
        let own = open(&self.at);
        let other = (0..self.workers.0.len()).min_by_key(open).unwrap_or(self.at);
        if open(&other) + own / UNEVEN < own { other } else { self.at }
    }
}

/// A connection in a worker's count.
struct Counted {
    workers: Workers,
    at: usize,
}

impl Counted {
    fn of(workers: Workers, at: usize) -> Self {
        workers.0[at].connections.fetch_add(1, Relaxed);
        Self { workers, at }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.workers.0[self.at].connections.fetch_sub(1, Relaxed);
    }
}

/// The threads of workers. Dropped, they are told to end; what still runs in them ends where it waits next.
#[derive(Debug)]
pub(super) struct Threads {
    until: Vec<oneshot::Sender<()>>,
    /// Closed when the last has ended.
    ended: Receiver<()>,
}

impl Threads {
    fn start(count: usize) -> io::Result<(Vec<Handle>, Self)> {
        let (alive, ended) = mpsc::channel();
        let started = (0..count).map(|index| start(index, alive.clone()));
        let (runtimes, until) = started.collect::<io::Result<Vec<_>>>()?.into_iter().unzip();
        Ok((runtimes, Self { until, ended }))
    }

    /// Ends them, and waits until they have; for one that comes to no end not for long.
    pub(super) fn end(self) {
        drop(self.until);
        let _ = self.ended.recv_timeout(2 * LAST_WORK);
    }
}

fn start(index: usize, alive: Sender<()>) -> io::Result<(Handle, oneshot::Sender<()>)> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (until, ended) = oneshot::channel::<()>();
    let work = move || {
        let _alive = alive;
        let _ = runtime.block_on(ended);
        runtime.shutdown_timeout(LAST_WORK);
    };
    thread::Builder::new().name(format!("worker {index}")).spawn(work)?;
    Ok((handle, until))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;

    /// Opens a connection at a place, and says where it is served; it stays open as long as what is returned.
    fn open(place: &Place) -> (usize, oneshot::Sender<()>) {
        let counts = || place.workers.0.iter().map(|it| it.connections.load(Relaxed)).collect::<Vec<_>>();
        let before = counts();
        let (open, closed) = oneshot::channel();
        place.share_out(connection(place), |_| async move { drop(closed.await) }).unwrap();
        let at = counts().iter().zip(before).position(|(now, before)| *now > before).unwrap();
        (at, open)
    }

    fn connection(place: &Place) -> Accepted {
        let _there = place.runtime().enter();
        Accepted::unix(UnixStream::pair().unwrap().0)
    }

    #[test]
    fn few_connections_are_shared_out_evenly_whoever_accepts_them() {
        let (workers, threads) = Workers::start(3).unwrap();
        let place = workers.accepting().nth(1).unwrap();
        let opened: Vec<_> = (0..9).map(|_| open(&place)).collect();
        let share = |at| opened.iter().filter(|(of, _)| *of == at).count();
        assert_eq!([share(0), share(1), share(2)], [3; 3]);
        drop(opened);
        threads.end();
    }

    #[test]
    fn of_many_a_worker_keeps_what_it_accepts_while_it_has_hardly_more() {
        let (workers, threads) = Workers::start(2).unwrap();
        let [one, two]: [Place; 2] = workers.accepting().collect::<Vec<_>>().try_into().unwrap();
        let _even: Vec<_> = (0..32).flat_map(|_| [open(&one), open(&two)]).collect();
        let kept: Vec<_> = (0..4).map(|_| open(&one)).collect();
        assert_eq!(kept.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 0, 0, 1], "32 and 35 are uneven");
        threads.end();
    }

    #[test]
    fn a_connection_is_served_in_its_workers_thread_and_leaves_its_count() {
        let (workers, threads) = Workers::start(2).unwrap();
        let place = workers.accepting().next().unwrap();
        let first = open(&place);
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let ours = {
            let _there = place.runtime().enter();
            Accepted::unix(UnixStream::from_std(ours).unwrap())
        };
        let (tell, told) = mpsc::channel();
        let serve = |mut accepted: Accepted| async move {
            let byte = accepted.socket.read_u8().await.unwrap();
            tell.send((thread::current().name().map(str::to_owned), byte)).unwrap();
        };
        place.share_out(ours, serve).unwrap();
        std::io::Write::write_all(&mut theirs, &[7]).unwrap();
        assert_eq!((first.0, told.recv().unwrap()), (0, (Some("worker 1".to_owned()), 7)));
        threads.end();
        let left: Vec<_> = workers.0.iter().map(|it| it.connections.load(Relaxed)).collect();
        assert_eq!(left, [0, 0], "what was open has ended with its thread");
    }

    #[test]
    fn a_worker_that_comes_to_no_end_is_not_waited_for() {
        let (workers, threads) = Workers::start(2).unwrap();
        let place = workers.accepting().next().unwrap();
        let (release, stuck) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let serve = |_| async move {
            tell.send(()).unwrap();
            let _ = stuck.recv();
        };
        place.share_out(connection(&place), serve).unwrap();
        told.recv().unwrap();
        threads.end();
        drop(release);
    }

    #[test]
    fn a_panic_costs_one_connection_and_no_worker() {
        let (workers, threads) = Workers::start(1).unwrap();
        let place = workers.accepting().next().unwrap();
        place.share_out(connection(&place), |_| async { panic!("on purpose") }).unwrap();
        let (tell, told) = mpsc::channel();
        place.share_out(connection(&place), |_| async move { tell.send(()).unwrap() }).unwrap();
        told.recv().unwrap();
        threads.end();
    }
}
