//! Who is reading what? One task for each key, whoever asks for it meanwhile.
//!
//! The task goes on when everybody has lost patience, so that the next one finds in memory what took long.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::cache::store::Object;

type Landing = watch::Receiver<Option<Arc<Object>>>;

/// The reads that are under way.
#[derive(Clone, Default)]
pub(super) struct Flights(Arc<Mutex<HashMap<u128, Landing>>>);

impl Flights {
    /// What is read under a key; `read` begins it if nobody reads that already.
    pub(super) async fn join<F>(&self, key: u128, read: impl FnOnce() -> F) -> Option<Arc<Object>>
    where
        F: Future<Output = Option<Arc<Object>>> + Send + 'static,
    {
        let mut landing = self.board(key, read);
        // An error means that nothing was found.
        let landed = landing.wait_for(Option::is_some).await.ok()?;
        landed.clone()
    }

    fn board<F>(&self, key: u128, read: impl FnOnce() -> F) -> Landing
    where
        F: Future<Output = Option<Arc<Object>>> + Send + 'static,
    {
        match self.flights().entry(key) {
            Entry::Occupied(flight) => flight.get().clone(),
            Entry::Vacant(free) => {
                let (found, landing) = watch::channel(None);
                free.insert(landing.clone());
                let read = read();
                let flight = Flight { flights: self.clone(), key };
                tokio::spawn(async move {
                    let object = read.await;
                    // Before anybody is told: who asks later shall not be given what has been purged since.
                    drop(flight);
                    if let Some(object) = object {
                        found.send_replace(Some(object));
                    }
                });
                landing
            }
        }
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<u128, Landing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A read. When it ends, however it does, who asks begins anew.
struct Flight {
    flights: Flights,
    key: u128,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.flights.flights().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::*;

    #[tokio::test]
    async fn many_who_ask_at_once_read_once_and_later_ones_anew() {
        let flights = Flights::default();
        let reads = Arc::new(AtomicU64::new(0));
        let read = || {
            let reads = reads.clone();
            async move {
                reads.fetch_add(1, Relaxed);
                None
            }
        };
        let [a, b, c] = [flights.join(1, read), flights.join(1, read), flights.join(2, read)];
        let (a, b, c) = tokio::join!(a, b, c);
        assert!(a.is_none() && b.is_none() && c.is_none());
        assert_eq!(reads.load(Relaxed), 2);
        assert!(flights.join(1, read).await.is_none());
        assert_eq!(reads.load(Relaxed), 3);
        assert!(flights.flights().is_empty());
    }

    #[tokio::test]
    async fn who_loses_patience_leaves_the_read_to_the_others_and_a_panic_is_nothing_found() {
        let flights = Flights::default();
        let mut first = Box::pin(flights.join(1, pending));
        assert!(
            std::future::poll_fn(|context| std::task::Poll::Ready(first.as_mut().poll(context).is_pending())).await
        );
        drop(first);
        assert_eq!(flights.flights().len(), 1);
        #[expect(clippy::panic, reason = "that is what is tested")]
        let found = flights.join(2, || async { panic!("on purpose") }).await;
        assert!(found.is_none());
        assert_eq!(flights.flights().len(), 1);
    }
}
