//! Which tunnels go through a backend? So that they can be cut when it is gone and they have had their time.
//!
//! A request ends by itself, and a tunnel (a WebSocket) may last for days. Only upgrades come here: no other request
//! takes this lock. How one is cut is known to whoever opened it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Cuts one tunnel.
pub type Cut = Arc<dyn Fn() + Send + Sync>;

/// The open tunnels of one backend.
#[derive(Clone, Default)]
pub struct Tunnels(Arc<Mutex<Open>>);

#[derive(Default)]
struct Open {
    cuts: HashMap<u64, Cut>,
    next: u64,
    closed: bool,
}

/// An open tunnel, until it is dropped.
#[must_use = "the tunnel is forgotten when this is dropped"]
pub struct Tunnel {
    tunnels: Tunnels,
    id: u64,
}

impl Tunnels {
    /// Remembers a tunnel. Where all have been cut already, it is cut too.
    pub fn enter(&self, cut: Cut) -> Tunnel {
        let mut open = self.lock();
        let (id, closed) = (open.next, open.closed);
        open.next += 1;
        if !closed {
            open.cuts.insert(id, cut.clone());
        }
        drop(open);
        if closed {
            cut();
        }
        Tunnel { tunnels: self.clone(), id }
    }

    /// Cuts all of them, and each that comes from now on. Says how many there were.
    pub fn cut_all(&self) -> usize {
        let mut open = self.lock();
        open.closed = true;
        let cuts = std::mem::take(&mut open.cuts);
        drop(open);
        cuts.values().for_each(|cut| cut());
        cuts.len()
    }

    /// Cuts no more.
    pub fn reopen(&self) {
        self.lock().closed = false;
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let cut = self.tunnels.lock().cuts.remove(&self.id);
        // Outside of the lock: it may be the last that holds something.
        drop(cut);
    }
}

impl fmt::Debug for Tunnels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tunnels({})", self.lock().cuts.len())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    fn counted(count: &Arc<AtomicUsize>) -> Cut {
        let count = count.clone();
        Arc::new(move || {
            count.fetch_add(1, Relaxed);
        })
    }

    #[test]
    fn open_tunnels_are_cut_once_and_late_ones_at_once() {
        let (tunnels, cut) = (Tunnels::default(), Arc::new(AtomicUsize::new(0)));
        let open = tunnels.enter(counted(&cut));
        drop(tunnels.enter(counted(&cut)));
        assert_eq!((tunnels.cut_all(), cut.load(Relaxed)), (1, 1));
        assert_eq!((tunnels.cut_all(), cut.load(Relaxed)), (0, 1));
        drop(open);
        let late = tunnels.enter(counted(&cut));
        assert_eq!(cut.load(Relaxed), 2);
        drop(late);

        tunnels.reopen();
        let _again = tunnels.enter(counted(&cut));
        assert_eq!(cut.load(Relaxed), 2);
        assert_eq!(tunnels.cut_all(), 1);
    }
}
