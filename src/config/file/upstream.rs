//! What may be written about a group of backends? The shape of `upstreams`.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::HeaderName;
use serde_json::{Value as Json, json};

use super::backend::Backend;
use super::brought::Brought;
use super::decode::{Decode, Marked, refuse, scalar, written};
use super::discover::Discover;
use super::leaves::{CookieName, FilePath, Share, Timeout};
use super::limits::{Concurrency, Queue};
use super::live::{Breaker, Obey, PassiveHealth};
use super::section::section;
use crate::config::outline::Spelled;
use crate::config::problem::{Problems, Spot, suggest};
use crate::config::tree::{Node, Value};
use crate::config::{HashKey, Protocol, SameSite};

section! {
    /// A named group of backends.
    Upstream {
        /// How a backend is chosen: `round_robin`, `least_connections`, `random`, `two_choices`, `peak_ewma` or
        /// `consistent_hash`.
        balance: Balance = "round_robin",
        /// The servers: URLs, or mappings with a `url`.
        backends: Vec<Marked<Backend>> = "[]",
        /// Where more of them come from; those that leave drain.
        discover: Option<Discover> = "null",
        /// How their health is found out. Left out it is a TCP connect; `none` is no check, they are always healthy.
        health_check: Option<HealthCheck> = "{}",
        /// What live requests do to their state. `none` is nothing.
        passive_health: Option<PassiveHealth> = "{}",
        /// Ejects a backend when too large a share of its requests fails, also when they do not fail in a row.
        breaker: Option<Breaker> = "null",
        /// When a backend that asks to be left alone is left alone.
        obey: Obey = "{}",
        /// With strictly fewer ready than this share, all are used rather than none.
        panic_threshold: Share = "50%",
        /// The next tier takes the rest when the share of fit backends of a tier, times this, is under 100%.
        overflow: Share = "140%",
        /// How long a backend that joins or is back takes less than its share: a tenth at first, then more and more.
        slow_start: Duration = "0s",
        /// Clients come back to the backend that they have been with, by a signed cookie.
        sticky: Option<Sticky> = "null",
        /// Where requests wait while every backend that is ready has as much as it may have. `none` is nowhere.
        queue: Option<Queue> = "{}",
        /// How many requests each backend may have in flight, learnt from how long its answers take.
        concurrency: Option<Concurrency> = "null",
        /// How long a backend may take.
        timeouts: UpstreamTimeouts = "{}",
        /// What is spoken to the backends: `http1`, `http2` or `auto` (by ALPN).
        protocol: Protocol = "http1",
        /// TLS towards the backends whose URL is `https`.
        tls: UpstreamTls = "{}",
    }
    later {}
}

/// How a backend is chosen.
#[derive(Clone, Debug)]
pub(crate) enum Balance {
    RoundRobin,
    LeastConnections,
    Random,
    TwoChoices,
    PeakEwma,
    ConsistentHash(ConsistentHash),
    /// Any other word: a program may have brought what it means.
    Brought(Brought),
}

impl Balance {
    /// The words that need no program.
    pub(crate) const WORDS: &[&str] =
        &["round_robin", "least_connections", "random", "two_choices", "peak_ewma", "consistent_hash"];
}

section! {
    /// A way to choose that takes settings.
    BalanceSection {
        /// The same key to the same backend, while it is not overloaded.
        consistent_hash: ConsistentHash,
    }
    later {}
}

section! {
    /// The same key to the same backend, while it is not overloaded.
    ConsistentHash {
        /// What is hashed: `client_address`, `path`, `header:NAME` or `cookie:NAME`.
        key: HashKey,
        /// How far above the average load one backend may be before the next takes over.
        bounded_load: Share = "125%",
    }
    later {}
}

impl Decode for Balance {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        if let Value::Map(entries) = &node.value {
            if let [only] = &entries[..]
                && only.key != "consistent_hash"
            {
                return Brought::decode(node, at, problems).map(Self::Brought);
            }
            let section = BalanceSection::decode(node, at, problems)?;
            return Some(Self::ConsistentHash(section.consistent_hash.value));
        }
        let help = suggest(written(node), "ways", Self::WORDS.iter().copied());
        match scalar(node, at, "a way to choose a backend", &help, problems)?.text.as_str() {
            "round_robin" => Some(Self::RoundRobin),
            "least_connections" => Some(Self::LeastConnections),
            "random" => Some(Self::Random),
            "two_choices" => Some(Self::TwoChoices),
            "peak_ewma" => Some(Self::PeakEwma),
            "consistent_hash" => {
                let help = "write { consistent_hash: { key: client_address } }";
                refuse(node, at, "a mapping that names the key", help, problems)
            }
            _ => Brought::decode(node, at, problems).map(Self::Brought),
        }
    }

    fn spell(node: &Node) -> Spelled {
        if matches!(node.value, Value::Map(_)) { BalanceSection::spell(node) } else { Spelled::of(node) }
    }

    fn schema() -> Json {
        let words = json!({ "enum": ["round_robin", "least_connections", "random", "two_choices", "peak_ewma"] });
        json!({ "anyOf": [words, BalanceSection::schema(), Brought::schema()] })
    }

    fn keys(prefix: &str, keys: &mut Vec<String>) {
        BalanceSection::keys(prefix, keys);
    }
}

impl Decode for HashKey {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let wanted = "client_address, path, header:NAME or cookie:NAME";
        let help = "choose what the requests of one client or of one object have in common";
        let text = &scalar(node, at, wanted, help, problems)?.text;
        let key = match text.split_once(':') {
            None if text == "client_address" => Some(Self::ClientAddress),
            None if text == "path" => Some(Self::Path),
            Some(("header", name)) => name.parse::<HeaderName>().ok().map(Self::Header),
            // A cookie's name is a token, as a field's name is (RFC 6265, 4.1.1), but its case counts.
            Some(("cookie", name)) => name.parse::<HeaderName>().ok().map(|_| Self::Cookie(name.to_owned())),
            Some(_) | None => None,
        };
        key.or_else(|| refuse(node, at, wanted, help, problems))
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

section! {
    /// How the health of the backends is found out.
    HealthCheck {
        /// Makes it an HTTP check: the path that is asked for.
        path: Option<ProbePath> = "null",
        /// The Host field of the probe; left out it is the backend's own.
        host: Option<String> = "null",
        /// The statuses that pass: `200`, `200-399`, or a list of these.
        expect: Expect = "200-399",
        /// Between two probes.
        interval: Timeout = "2s",
        /// Between two probes while the last results do not agree with the state.
        fast_interval: Timeout = "500ms",
        /// For one probe.
        timeout: Timeout = "1s",
        /// Failures in a row that make a backend unreachable.
        fall: std::num::NonZeroU32 = "3",
        /// Successes in a row that make it healthy again.
        rise: std::num::NonZeroU32 = "2",
    }
    later {}
}

section! {
    /// How clients come back to the backend that they have been with.
    Sticky {
        /// The name of the cookie.
        cookie: CookieName,
        /// How long it is good for; it is renewed when half of that is over.
        ttl: Timeout = "1h",
        /// With which requests from other sites it is sent: `lax`, `strict` or `none`.
        same_site: SameSite = "lax",
    }
    later {}
}

/// Path and query of a probe.
#[derive(Clone, Debug)]
pub(crate) struct ProbePath(pub(crate) String);

impl Decode for ProbePath {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let path = String::decode(node, at, problems)?;
        let good = path.starts_with('/') && !path.contains('#') && path.parse::<http::uri::PathAndQuery>().is_ok();
        if !good {
            return refuse(node, at, "a path that begins with `/`", "write /healthz", problems);
        }
        Some(Self(path))
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

/// Statuses: one, a range, or a list of these.
#[derive(Clone, Debug)]
pub(crate) struct Expect(pub(crate) Vec<RangeInclusive<u16>>);

impl Decode for Expect {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let Value::List(items) = &node.value else {
            return status_range(node, at, problems).map(|range| Self(vec![range]));
        };
        if items.is_empty() {
            return refuse(node, at, "at least one status", "write 200-399, or 200, or a list of these", problems);
        }
        let items = items.iter().enumerate().map(|(index, item)| (at.item(index, item.mark), item));
        let ranges: Vec<_> = items.map(|(at, item)| status_range(item, &at, problems)).collect();
        ranges.into_iter().collect::<Option<_>>().map(Self)
    }

    fn schema() -> Json {
        let one = json!({ "anyOf": [{ "type": "integer", "minimum": 100, "maximum": 599 }, { "type": "string" }] });
        json!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

fn status_range(node: &Node, at: &Spot, problems: &mut Problems) -> Option<RangeInclusive<u16>> {
    let (wanted, help) = ("a status or a range of statuses", "write 200 or 200-399; statuses go from 100 to 599");
    let scalar = scalar(node, at, wanted, help, problems)?;
    let (first, last) = scalar.text.split_once('-').unwrap_or((&scalar.text, &scalar.text));
    let status = |text: &str| text.parse::<u16>().ok().filter(|status| (100..=599).contains(status));
    match (status(first), status(last)) {
        (Some(first), Some(last)) if first <= last => Some(first..=last),
        (Some(_) | None, Some(_) | None) => refuse(node, at, wanted, help, problems),
    }
}

section! {
    /// How long a backend may take.
    UpstreamTimeouts {
        /// To connect, TLS included.
        connect: Timeout = "1s",
        /// From the end of the request to the head of the response.
        first_byte: Timeout = "15s",
        /// Between two reads of the response.
        between_bytes: Timeout = "60s",
        /// Between two writes.
        write: Timeout = "30s",
        /// How long an unused connection is kept.
        idle: Timeout = "55s",
        /// Without a byte in either direction after an upgrade; replaces the others then.
        tunnel: Timeout = "1h",
    }
    later {}
}

section! {
    /// TLS towards backends.
    UpstreamTls {
        /// Whether the backend's certificate must be good.
        verify: bool = "true",
        /// PEM file with the authorities to trust instead of the system's.
        ca: Option<FilePath> = "null",
        /// The name to ask for and to verify; left out it is the URL's host.
        server_name: Option<String> = "null",
        /// Our certificate, for backends that ask for one.
        client_cert: Option<FilePath> = "null",
        /// Its key.
        client_key: Option<FilePath> = "null",
    }
    later {}
}
