//! What the tests stand on: scripted backends, clients that see every byte, the front door in this process, and the
//! real program in another one.
//!
//! Nothing here waits for a fixed time: whoever waits asks again until a [`DEADLINE`] and then fails in plain words.
//! Nothing here has a port of its own choosing: the system gives one.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic where it stands")]
#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test file uses its own share of this module")]

pub mod any_server;
pub mod attack;
pub mod backend;
pub mod bytes_on_the_wire;
pub mod cached;
pub mod client;
pub mod clients;
pub mod coded;
pub mod dns;
pub mod exposition;
pub mod front_door;
pub mod h2_backend;
pub mod h2_frames;
pub mod process;
pub mod tls;

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

pub use backend::{Act, Backend, Script};
pub use client::{Client, H2Client, Response};
pub use exposition::Exposition;
pub use front_door::Lb;
pub use h2_backend::H2Backend;
pub use process::Portcullis;

/// How long a test waits for anything before it fails.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Waits until `condition` gives something, asking every few milliseconds; panics with `what` at the deadline.
pub async fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    let mut tick = interval(Duration::from_millis(5));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < end, "gave up after {DEADLINE:?}: {what}");
    }
}

/// Waits until `condition` holds; panics with `what` at the deadline.
pub async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(())).await;
}

/// Awaits `future`; panics with `what` at the deadline.
pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(done) => done,
        Err(_) => panic!("gave up after {DEADLINE:?}: {what}"),
    }
}

/// Awaits all of them at once.
pub async fn all_of(all: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        all.retain_mut(|one| one.as_mut().poll(context).is_pending());
        if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
