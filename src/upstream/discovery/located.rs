//! Where are the hosts that provide a service? Asked of the server that has named them, many at once.
//!
//! What a host was once found at holds while nobody can say where it is: a failure is no news. Only a host that DNS has
//! no addresses of, by its own words, is left to the system by name.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use simple_dns::TYPE;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::Failure;
use super::ask::{Answer, Record, Servers, Unanswered};

/// Hosts that are asked for at a time.
const AT_ONCE: usize = 32;

/// For all hosts together; who has not been found by then keeps what it had.
const ALL: Duration = Duration::from_secs(20);

/// Where hosts are.
#[derive(Debug, Default)]
pub struct Located {
    /// What each family of addresses has answered last; two empty ones are for the system.
    known: HashMap<String, [BTreeSet<Record>; 2]>,
}

/// What became of a look.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// How long the shortest answer holds.
    pub ttl: Option<Duration>,
    /// Hosts that nothing is known of, and why.
    pub unknown: HashMap<String, String>,
}

type Answers = [Result<Answer, Unanswered>; 2];

impl Located {
    /// Asks for the addresses of each target. It is a failure if there is one of whom nothing is known when nothing was
    /// known before: whoever follows us may still know more than we do.
    pub async fn look(&mut self, servers: &Servers, records: &BTreeSet<Record>) -> Result<Looked, Failure> {
        let target = |record: &Record| match record {
            Record::Service { target, .. } if target != "." && !target.is_empty() => Some(target.clone()),
            Record::Service { .. } | Record::Address(_) => None,
        };
        let targets: BTreeSet<String> = records.iter().filter_map(target).collect();
        let first = self.known.is_empty();
        self.known.retain(|target, _| targets.contains(target));
        let mut looked = Looked::default();
        for (target, answers) in ask_for(servers, targets).await {
            self.take(target, answers, &mut looked);
        }
        match looked.unknown.iter().min() {
            Some((target, why)) if first => Err(Failure(format!("{target}: {why}"))),
            Some(_) | None => Ok(looked),
        }
    }

    fn take(&mut self, target: String, answers: Answers, looked: &mut Looked) {
        let before = self.known.remove(&target);
        let is_new = before.is_none();
        let mut known = before.unwrap_or_default();
        let mut failed = None;
        for (known, answer) in known.iter_mut().zip(answers) {
            match answer {
                Ok((records, ttl)) => {
                    // No record says for how long there is none.
                    looked.ttl = looked.ttl.into_iter().chain((!records.is_empty()).then_some(ttl)).min();
                    *known = records;
                }
                Err(Unanswered::NoName) => known.clear(),
                Err(Unanswered::Failed(why)) => failed = Some(why),
            }
        }
        let has_none = known.iter().all(BTreeSet::is_empty);
        match failed.filter(|_| is_new && has_none) {
            Some(why) => drop(looked.unknown.insert(target, why)),
            None => drop(self.known.insert(target, known)),
        }
    }

    /// The addresses of a host; none if it is for the system.
    pub fn addresses(&self, target: &str) -> Vec<IpAddr> {
        let address = |record: &Record| match record {
            Record::Address(ip) => Some(*ip),
            Record::Service { .. } => None,
        };
        self.known.get(target).into_iter().flatten().flatten().filter_map(address).collect()
    }
}

async fn ask_for(servers: &Servers, targets: BTreeSet<String>) -> Vec<(String, Answers)> {
    let (turns, end) = (Arc::new(Semaphore::new(AT_ONCE)), Instant::now() + ALL);
    let ask = |target: String| {
        let (servers, turns) = (servers.clone(), turns.clone());
        async move {
            let _turn = turns.acquire().await;
            // A target is a whole name, which nothing completes.
            let whole = format!("{target}.");
            let both = async { tokio::join!(servers.ask(&whole, TYPE::A), servers.ask(&whole, TYPE::AAAA)).into() };
            let late = || Err(Unanswered::Failed(format!("not all hosts were found within {ALL:?}")));
            (target, timeout_at(end, both).await.unwrap_or_else(|_| [late(), late()]))
        }
    };
    let asking: JoinSet<_> = targets.into_iter().map(ask).collect();
    asking.join_all().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(ips: &[&str], ttl: u64) -> Result<Answer, Unanswered> {
        let records = ips.iter().map(|ip| Record::Address(ip.parse().unwrap())).collect();
        Ok((records, Duration::from_secs(ttl)))
    }

    fn failed() -> Result<Answer, Unanswered> {
        Err(Unanswered::Failed("SERVFAIL".to_owned()))
    }

    #[track_caller]
    fn check(located: &mut Located, answers: Answers, expected: &[&str], ttl: Option<u64>) {
        let mut looked = Looked::default();
        located.take("a".to_owned(), answers, &mut looked);
        let addresses: Vec<_> = located.addresses("a").iter().map(IpAddr::to_string).collect();
        assert_eq!(
            (addresses, looked.ttl.map(|ttl| ttl.as_secs())),
            (expected.iter().map(|it| (*it).to_owned()).collect(), ttl)
        );
        assert_eq!(looked.unknown, HashMap::new());
    }

    #[test]
    fn a_failure_takes_no_address_away_and_a_clear_answer_does() {
        let mut located = Located::default();
        check(&mut located, [found(&["10.0.0.1"], 7), found(&["fd00::1"], 5)], &["10.0.0.1", "fd00::1"], Some(5));
        check(&mut located, [failed(), failed()], &["10.0.0.1", "fd00::1"], None);
        check(&mut located, [failed(), found(&["fd00::2"], 9)], &["10.0.0.1", "fd00::2"], Some(9));
        check(&mut located, [failed(), Err(Unanswered::NoName)], &["10.0.0.1"], None);
        check(&mut located, [found(&[], 0), failed()], &[], None);
        // Now it is the system's, and a failure does not change that.
        check(&mut located, [failed(), failed()], &[], None);
    }

    #[test]
    fn a_host_of_which_nothing_was_ever_known_is_told() {
        let (mut located, mut looked) = (Located::default(), Looked::default());
        located.take("a".to_owned(), [found(&[], 1), failed()], &mut looked);
        assert_eq!(looked.unknown, HashMap::from([("a".to_owned(), "SERVFAIL".to_owned())]));
        assert!(located.known.is_empty());
    }
}
