//! Which backends does a name stand for in DNS? Each address of a host, or each service of an SRV name.
//!
//! It is asked again when the answer's time is over, but not more than once a second, and after the interval at the
//! latest. A family of addresses that cannot be asked for keeps what it had.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use simple_dns::TYPE;
use tokio::net::lookup_host;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::ask::{Answer, Record, Servers, Unanswered};
use super::located::{Located, Looked};
use super::set::ranked;
use super::{Discovery, Failure, Found};
use crate::config::members::{Members, target_of};
use crate::config::{Backend, Limits, Target};

/// However short an answer holds.
const OFTEN: Duration = Duration::from_secs(1);

/// After a failure.
const SOON: Duration = Duration::from_secs(2);

/// How a name is asked for.
#[derive(Clone, Debug)]
pub struct Asking {
    /// The server; those of the system if there is none.
    pub server: Option<SocketAddr>,
    /// The longest time between two questions.
    pub interval: Duration,
}

impl Asking {
    /// Read anew each time: networks change while we run.
    async fn servers(&self) -> Result<Servers, Failure> {
        if let Some(server) = self.server {
            return Ok(Servers::only(server));
        }
        let read = spawn_blocking(Servers::of_system).await.map_err(|error| Failure(error.to_string()))?;
        read.map_err(|error| Failure(format!("the system's resolver: {error}")))
    }

    /// How long an answer is good for.
    fn pause(&self, ttl: Duration) -> Duration {
        ttl.clamp(OFTEN.min(self.interval), self.interval)
    }
}

/// Each address of a host.
#[derive(Debug)]
pub struct Addresses {
    host: Arc<str>,
    port: u16,
    tls: bool,
    asking: Asking,
    /// Until the next question.
    pause: Duration,
    /// What each family has answered last.
    known: [BTreeSet<Record>; 2],
}

impl Addresses {
    /// The addresses of this host, each with this port.
    pub fn new(host: Arc<str>, port: u16, tls: bool, asking: Asking) -> Self {
        Self { host, port, tls, asking, pause: Duration::ZERO, known: Default::default() }
    }

    async fn ask(&mut self) -> Result<Vec<SocketAddr>, Failure> {
        self.pause = SOON.min(self.asking.interval);
        let servers = self.asking.servers().await?;
        let (v4, v6) = tokio::join!(servers.ask(&self.host, TYPE::A), servers.ask(&self.host, TYPE::AAAA));
        if let (Err(first), Err(_)) = (&v4, &v6) {
            return self.ask_the_system(first).await;
        }
        let ttl = [&v4, &v6].into_iter().filter_map(|it| it.as_ref().ok().map(|(_, ttl)| *ttl)).min();
        self.pause = self.asking.pause(ttl.unwrap_or(SOON));
        for (known, answer) in self.known.iter_mut().zip([v4, v6]) {
            match answer {
                Ok((records, _)) => *known = records,
                Err(Unanswered::NoName) => known.clear(),
                Err(Unanswered::Failed(_)) => {}
            }
        }
        let address = |record: &Record| match record {
            Record::Address(ip) => Some(SocketAddr::new(*ip, self.port)),
            Record::Service { .. } => None,
        };
        Ok(self.known.iter().flatten().filter_map(address).collect())
    }

    /// It knows `/etc/hosts` and `localhost`, which DNS need not.
    async fn ask_the_system(&self, why: &Unanswered) -> Result<Vec<SocketAddr>, Failure> {
        let said = || Failure(format!("{}: {why}", self.host));
        if self.asking.server.is_some() {
            return Err(said());
        }
        Ok(lookup_host((&*self.host, self.port)).await.map_err(|_| said())?.collect())
    }
}

#[async_trait]
impl Discovery for Addresses {
    async fn next(&mut self) -> Result<Found, Failure> {
        sleep(self.pause).await;
        let addresses = self.ask().await?;
        let backend = |address| plain(Target::Address(address), self.tls, (0, 1));
        let backends = addresses.into_iter().map(backend).collect();
        Ok(Members { backends, skipped: Vec::new() }.into())
    }
}

/// Each service of an SRV name.
#[derive(Debug)]
pub struct Services {
    name: Arc<str>,
    asking: Asking,
    located: Located,
    /// Until the next question.
    pause: Duration,
}

impl Services {
    /// The services of this name.
    pub fn new(name: Arc<str>, asking: Asking) -> Self {
        Self { name, asking, located: Located::default(), pause: Duration::ZERO }
    }
}

#[async_trait]
impl Discovery for Services {
    async fn next(&mut self) -> Result<Found, Failure> {
        sleep(self.pause).await;
        self.pause = SOON.min(self.asking.interval);
        let servers = self.asking.servers().await?;
        let answer: Result<Answer, _> = servers.ask(&self.name, TYPE::SRV).await;
        let (records, ttl) = answer.map_err(|why| Failure(format!("{}: {why}", self.name)))?;
        let tls = self.name.starts_with("_https.");
        // The system need not know the names that a server of its own gives; but a certificate is verified by its name.
        let looked = match self.asking.server.is_some() && !tls {
            true => self.located.look(&servers, &records).await?,
            false => Looked::default(),
        };
        self.pause = self.asking.pause(match looked.unknown.is_empty() {
            true => looked.ttl.map_or(ttl, |other| ttl.min(other)),
            false => SOON,
        });
        Ok(services(&records, tls, &self.located, &looked).into())
    }
}

/// The backends that SRV records name. A target of `.` says that there is no such service (RFC 2782).
fn services(records: &BTreeSet<Record>, tls: bool, located: &Located, looked: &Looked) -> Members {
    let mut members = Members::default();
    let mut named = Vec::new();
    for record in records {
        let Record::Service { priority, weight, port, target } = record else { continue };
        let Some(name) = target_of(target, *port) else {
            members.skipped.push(format!("{target}:{port} is no host with a port"));
            continue;
        };
        if let Some(why) = looked.unknown.get(target) {
            members.skipped.push(format!("{target}: {why}"));
            continue;
        }
        let mut places: Vec<_> =
            located.addresses(target).into_iter().map(|ip| SocketAddr::new(ip, *port)).map(Target::Address).collect();
        if places.is_empty() {
            places.push(name);
        }
        named.extend(places.into_iter().map(|place| (place, (*priority, *weight))));
    }
    let ranks = ranked(&named.iter().map(|(_, rank)| *rank).collect::<Vec<_>>());
    let backends = named.into_iter().zip(ranks).map(|((target, _), rank)| plain(target, tls, rank));
    members.backends.extend(backends);
    members
}

/// A backend of which nothing else is known.
fn plain(target: Target, tls: bool, (tier, weight): (u32, u32)) -> Backend {
    Backend {
        name: target.show(),
        target,
        tls,
        weight,
        tier,
        limits: Limits::default(),
        send_proxy: None,
        drained: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_become_backends_with_tiers_and_weights() {
        let service =
            |priority, weight, port, target: &str| Record::Service { priority, weight, port, target: target.into() };
        let records = [
            service(10, 60, 8080, "A.internal"),
            service(10, 20, 8081, "b.internal"),
            service(20, 0, 8080, "c.internal"),
            service(20, 0, 8080, "."),
            service(20, 0, 0, "d.internal"),
        ];
        let members = services(&records.into(), false, &Located::default(), &Looked::default());
        let seen: Vec<_> = members.backends.iter().map(|it| (&*it.name, it.tier, it.weight)).collect();
        assert_eq!(seen, [("b.internal:8081", 0, 20), ("a.internal:8080", 0, 60), ("c.internal:8080", 1, 1)]);
        assert_eq!(members.skipped.len(), 2);
    }

    #[test]
    fn an_answer_holds_for_its_time_within_bounds() {
        let asking = Asking { server: None, interval: Duration::from_secs(30) };
        for (ttl, pause) in [(0, 1), (7, 7), (100_000, 30)] {
            assert_eq!(asking.pause(Duration::from_secs(ttl)), Duration::from_secs(pause));
        }
        let quick = Asking { server: None, interval: Duration::from_millis(50) };
        assert_eq!(quick.pause(Duration::ZERO), Duration::from_millis(50));
    }
}
