//! Which addresses does a name have? Asked of the system's resolver, again and again.
//!
//! The last good answer is kept: neither a failure nor an empty answer ever takes an address away. The system's
//! resolver also knows `/etc/hosts` and `localhost`, but does not tell for how long an answer holds, so a name is
//! looked up every 30 seconds whatever its TTL.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::backend::{Backend, Task};
use crate::config::Target;

/// Between two look-ups of a name that has addresses; a tenth more or less, so that names drift apart.
const INTERVAL: Duration = Duration::from_secs(30);
/// The same, while a name has none: its backend cannot be used until then.
const HURRY: Duration = Duration::from_secs(2);
/// For one look-up. The system's resolver may try for longer, on a thread of its own.
const PATIENCE: Duration = Duration::from_secs(10);

/// Something that knows the addresses of names.
pub trait Lookup: Send + Sync + 'static {
    /// All addresses of a name, each with this port, the best first.
    fn lookup(&self, host: &str, port: u16) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send;
}

/// The system's resolver.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Lookup for System {
    async fn lookup(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }
}

/// Looks up all names among the backends at once, and waits for the answers at most this long. What comes later is
/// left to [`resolve_forever`].
pub async fn resolve_once<L: Lookup>(
    backends: impl IntoIterator<Item = Arc<Backend>>,
    lookup: &Arc<L>,
    wait: Duration,
) {
    let mut lookups = JoinSet::new();
    for backend in backends {
        let lookup = lookup.clone();
        lookups.spawn(async move {
            // A failure is told by the look-up that goes on: once is enough.
            Resolver { backend, lookup, failing: true }.resolve().await;
        });
    }
    // Out of time is no failure: dropping the set ends what is left.
    let _ = timeout(wait, async { while lookups.join_next().await.is_some() {} }).await;
}

/// Keeps the addresses of a backend up to date until the task is dropped; `None` if its target is no name.
pub fn resolve_forever<L: Lookup>(backend: Arc<Backend>, lookup: Arc<L>) -> Option<Task> {
    name_of(&backend)?;
    Some(Task::spawn(async move {
        let mut resolver = Resolver { backend, lookup, failing: false };
        if !resolver.backend.addresses().is_empty() {
            // Whoever watched it before us may have asked a while ago, and was ended while it waited.
            resolver.pause().await;
        }
        loop {
            resolver.resolve().await;
            resolver.pause().await;
        }
    }))
}

fn name_of(backend: &Backend) -> Option<(&str, u16)> {
    match &backend.target {
        Target::Name { host, port } => Some((host, *port)),
        Target::Address(_) | Target::Unix(_) => None,
    }
}

struct Resolver<L> {
    backend: Arc<Backend>,
    lookup: Arc<L>,
    failing: bool,
}

impl<L: Lookup> Resolver<L> {
    /// One look-up.
    async fn resolve(&mut self) {
        let Some((host, port)) = name_of(&self.backend) else { return };
        let answer = timeout(PATIENCE, self.lookup.lookup(host, port)).await;
        self.backend.set_looked_up(Instant::now());
        match answer {
            Ok(Ok(addresses)) if addresses.is_empty() => self.complain("the answer is empty"),
            Ok(Ok(addresses)) => self.take(addresses),
            Ok(Err(error)) => self.complain(&error.to_string()),
            Err(_) => self.complain(&format!("no answer within {PATIENCE:?}")),
        }
    }

    /// Resolvers shuffle their answers, so only another *set* of addresses is a change.
    fn take(&mut self, addresses: Vec<SocketAddr>) {
        self.failing = false;
        let known: BTreeSet<_> = self.backend.addresses().iter().copied().collect();
        if known != addresses.iter().copied().collect() {
            let (upstream, name) = (&self.backend.upstream, &self.backend.name);
            log::info!(target: "portcullis::dns", "upstream {upstream}: backend {name} is at {addresses:?}");
            self.backend.set_addresses(addresses);
        }
    }

    /// Once, not at every failure.
    fn complain(&mut self, why: &str) {
        if !std::mem::replace(&mut self.failing, true) {
            let Backend { upstream, name, .. } = &*self.backend;
            let kept = self.backend.addresses().len();
            log::warn!(
                target: "portcullis::dns",
                "upstream {upstream}: backend {name} cannot be resolved, addresses kept: {kept}: {why}"
            );
        }
    }

    /// Until it is time to ask again, counted from when the name was asked for last.
    async fn pause(&self) {
        let pause = if self.backend.addresses().is_empty() { HURRY } else { INTERVAL };
        let last = self.backend.looked_up().unwrap_or_else(Instant::now);
        sleep_until(last + pause.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use tokio::time::sleep;

    use super::*;
    use crate::backend::Seat;
    use crate::config;

    /// Gives its answers in turn, then the last one for ever; `None` never answers.
    struct Script(Mutex<VecDeque<Option<io::Result<Vec<SocketAddr>>>>>);

    impl Lookup for Script {
        async fn lookup(&self, _host: &str, _port: u16) -> io::Result<Vec<SocketAddr>> {
            let next = self.0.lock().unwrap().pop_front();
            match next {
                Some(Some(answer)) => answer,
                Some(None) => std::future::pending().await,
                None => Err(io::Error::other("the script is over")),
            }
        }
    }

    fn script(answers: impl IntoIterator<Item = Option<io::Result<Vec<SocketAddr>>>>) -> Arc<Script> {
        Arc::new(Script(Mutex::new(answers.into_iter().collect())))
    }

    fn answer(addresses: &[&str]) -> Option<io::Result<Vec<SocketAddr>>> {
        Some(Ok(addresses.iter().map(|address| address.parse().unwrap()).collect()))
    }

    fn named(host: &str) -> Arc<Backend> {
        let target = Target::Name { host: host.into(), port: 80 };
        let config = config::Backend {
            name: host.into(),
            target,
            tls: false,
            weight: 1,
            tier: 0,
            limits: config::Limits::default(),
            send_proxy: None,
            drained: false,
        };
        Arc::new(Backend::new(&"app".into(), &config, Seat(0)))
    }

    const A: &str = "10.0.0.1:80";
    const B: &str = "10.0.0.2:80";

    #[tokio::test(start_paused = true)]
    async fn nothing_takes_the_last_good_answer_away() {
        let backend = named("app");
        let failure = Some(Err(io::Error::other("SERVFAIL")));
        let lookup = script([answer(&[A, B]), failure, answer(&[]), None, answer(&[B, A]), answer(&[B])]);
        let started = Instant::now();
        let _task = resolve_forever(backend.clone(), lookup.clone()).unwrap();
        while backend.addresses().is_empty() {
            sleep(Duration::from_secs(1)).await;
        }
        let last = ["10.0.0.2:80".parse().unwrap()];
        while **backend.addresses() != last {
            sleep(Duration::from_secs(1)).await;
            let kept = backend.addresses().len();
            assert!(kept == 2 || **backend.addresses() == last, "{kept} addresses left");
        }
        let took = started.elapsed().as_secs();
        assert!((5 * 27..=5 * 33 + 12).contains(&took), "five pauses and one long look-up took {took} s");
    }

    #[tokio::test(start_paused = true)]
    async fn watchers_that_are_ended_early_still_ask_in_time() {
        let backend = named("app");
        let lookup = script([answer(&[A]), answer(&[B])]);
        resolve_once([backend.clone()], &lookup, PATIENCE).await;
        for _ in 0..8 {
            let _task = resolve_forever(backend.clone(), lookup.clone()).unwrap();
            sleep(Duration::from_secs(5)).await;
        }
        assert_eq!(**backend.addresses(), [B.parse().unwrap()]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_without_addresses_is_asked_for_often() {
        let backend = named("app");
        let lookup = script([answer(&[]), answer(&[]), answer(&[A])]);
        let _task = resolve_forever(backend.clone(), lookup).unwrap();
        sleep(Duration::from_secs(6)).await;
        assert_eq!(backend.addresses().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_start_does_not_wait_for_a_resolver_that_hangs() {
        let backend = named("app");
        let started = Instant::now();
        resolve_once([backend.clone()], &script([None]), Duration::from_secs(2)).await;
        assert_eq!(started.elapsed(), Duration::from_secs(2));
        assert!(backend.addresses().is_empty());
    }

    #[tokio::test]
    async fn the_system_knows_localhost() {
        let backend = named("localhost");
        resolve_once([backend.clone()], &Arc::new(System), Duration::from_secs(10)).await;
        assert!(!backend.addresses().is_empty());
        assert!(backend.addresses().iter().all(|address| address.ip().is_loopback() && address.port() == 80));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_task_asks_no_more() {
        let lookup = script([None]);
        drop(resolve_forever(named("app"), lookup.clone()));
        sleep(Duration::from_secs(100)).await;
        assert_eq!(lookup.0.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn an_address_needs_no_resolver() {
        let target = Target::Address(A.parse().unwrap());
        let config = config::Backend {
            name: "a".into(),
            target,
            tls: false,
            weight: 1,
            tier: 0,
            limits: config::Limits::default(),
            send_proxy: None,
            drained: false,
        };
        let backend = Arc::new(Backend::new(&"app".into(), &config, Seat(0)));
        assert!(resolve_forever(backend, script([])).is_none());
    }
}
