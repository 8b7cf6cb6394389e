//! What may be written about one backend, and which URLs does it understand?

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::decode::{Decode, Marked, refuse, scalar, shorten};
use super::limits::Quota;
use super::section::section;
use crate::config::Target;
use crate::config::outline::Spelled;
use crate::config::problem::{Problems, Spot};
use crate::config::tree::{Entry, Node, Value};
use crate::proxy_protocol::Version;

section! {
    /// One server of an upstream.
    BackendSection {
        /// Where it is: `HOST:PORT`, `http://HOST[:PORT]`, `https://HOST[:PORT]` or `unix:PATH`.
        url: BackendUrl,
        /// Its name in logs; left out it is the host and port of the URL.
        name: Option<String> = "null",
        /// Its share of the requests beside the others'; 0 takes none.
        weight: Weight = "1",
        /// Tier 0 serves first, and each other one what those before it cannot carry.
        tier: Tier = "0",
        /// The same as `tier: 1`.
        backup: bool = "false",
        /// The most requests in flight on it at once; it is passed over while it has so many.
        max_connections: Option<std::num::NonZeroU32> = "null",
        /// The most requests within any time of a length, as in `240/m` and `1800/10m`; it is passed over without one.
        quota: Vec<Marked<Quota>> = "[]",
        /// Announce the client at the beginning of each connection, with the PROXY protocol: `none`, `v1` or `v2`.
        send_proxy: Option<Version> = "none",
    }
    later {}
}

/// One server, written as a mapping or as its URL alone.
#[derive(Clone, Debug)]
pub(crate) struct Backend(pub(crate) BackendSection);

impl Decode for Backend {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        if matches!(node.value, Value::Map(_)) {
            return BackendSection::decode(node, at, problems).map(Self);
        }
        let value = BackendUrl::decode(node, at, problems)?;
        let url = Marked { value, at: at.clone(), written: true };
        let default = |key: &str| at.child(key, at.mark);
        Some(Self(BackendSection {
            url,
            name: Marked { value: None, at: default("name"), written: false },
            weight: Marked { value: Weight(1), at: default("weight"), written: false },
            tier: Marked { value: Tier(0), at: default("tier"), written: false },
            backup: Marked { value: false, at: default("backup"), written: false },
            max_connections: Marked { value: None, at: default("max_connections"), written: false },
            quota: Marked { value: Vec::new(), at: default("quota"), written: false },
            send_proxy: Marked { value: None, at: default("send_proxy"), written: false },
        }))
    }

    fn spell(node: &Node) -> Spelled {
        if matches!(node.value, Value::Map(_)) {
            return BackendSection::spell(node);
        }
        let url = Entry { key: "url".to_owned(), mark: node.mark, value: node.clone() };
        BackendSection::spell(&Node { mark: node.mark, value: Value::Map(vec![url]) })
    }

    fn schema() -> Json {
        json!({ "anyOf": [BackendUrl::schema(), BackendSection::schema()] })
    }

    fn keys(prefix: &str, keys: &mut Vec<String>) {
        BackendSection::keys(prefix, keys);
    }
}

/// A weight: 0 to 1000, so that a sequence of turns stays short.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weight(pub(crate) u32);

impl Decode for Weight {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let weight = u32::decode(node, at, problems)?;
        if weight > 1000 {
            return refuse(
                node,
                at,
                "at most 1000",
                "weights count relative to each other: divide all of them",
                problems,
            );
        }
        Some(Self(weight))
    }

    fn schema() -> Json {
        json!({ "type": "integer", "minimum": 0, "maximum": 1000 })
    }
}

/// The number of a tier: few are of use, and a large one is a slip.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tier(pub(crate) u32);

impl Decode for Tier {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let tier = u32::decode(node, at, problems)?;
        if tier > 9 {
            return refuse(node, at, "a tier from 0 to 9", "0 serves first; most pools have two", problems);
        }
        Some(Self(tier))
    }

    fn schema() -> Json {
        json!({ "type": "integer", "minimum": 0, "maximum": 9 })
    }
}

/// The URL of a backend.
#[derive(Clone, Debug)]
pub(crate) struct BackendUrl {
    pub(crate) target: Target,
    pub(crate) tls: bool,
}

impl Decode for BackendUrl {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let help = "write 10.0.0.1:8000, \"[::1]:8000\", https://app.internal or unix:/run/app.sock";
        let text = &scalar(node, at, "the URL of a backend", help, problems)?.text;
        match backend_url(text) {
            Ok(url) => Some(url),
            Err(what) => {
                problems.error(at, format!("`{}` {what}", shorten(text)), help);
                None
            }
        }
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

fn backend_url(text: &str) -> Result<BackendUrl, &'static str> {
    if let Some(path) = text.strip_prefix("unix:") {
        return match path {
            "" => Err("has no path"),
            path => Ok(BackendUrl { target: Target::Unix(PathBuf::from(path)), tls: false }),
        };
    }
    let (rest, tls, default_port) = match text.split_once("://") {
        Some(("http", rest)) => (rest, false, Some(80)),
        Some(("https", rest)) => (rest, true, Some(443)),
        Some(_) => return Err("has a scheme that is neither http nor https"),
        None => (text, false, None),
    };
    if rest.contains(['/', '?', '#']) {
        return Err("has a path; what a route adds to paths is its `rewrite`");
    }
    if rest.contains('@') {
        return Err("has a user, which is not supported");
    }
    let (host, port) = split_port(rest)?;
    let port = port.or(default_port).ok_or("has no port")?;
    let target = match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        Ok(ip) => Target::Address(SocketAddr::new(ip, port)),
        Err(_) => Target::Name { host: Arc::from(dns_name(host).ok_or("has no valid host")?.as_str()), port },
    };
    Ok(BackendUrl { target, tls })
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), &'static str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (ip, tail) = rest.split_once(']').ok_or("has a bracket that is not closed")?;
            ip.parse::<Ipv6Addr>().map_err(|_| "has no IPv6 address in its brackets")?;
            let port = tail.strip_prefix(':').or(tail.is_empty().then_some(""));
            (ip, port.filter(|port| port.is_empty() == tail.is_empty()).ok_or("has no valid port")?)
        }
        None if authority.matches(':').count() > 1 => {
            return Err("has more than one colon; an IPv6 address needs brackets");
        }
        None => match authority.split_once(':') {
            Some((_, "")) => return Err("has no valid port"),
            Some((host, port)) => (host, port),
            None => (authority, ""),
        },
    };
    if port.is_empty() {
        return Ok((host, None));
    }
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse::<u16>().ok().filter(|port| digits && *port > 0).ok_or("has no valid port")?;
    Ok((host, Some(port)))
}

/// A DNS name in lower case without its trailing dot (RFC 1123, 2.1; underscores are in use).
pub(crate) fn dns_name(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(letter) && !label.starts_with('-') && !label.ends_with('-')
    };
    // Four numbers with a wrong one among them would be a name: what was meant is an address.
    let last_is_number = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    (name.len() <= 253 && name.split('.').all(label) && !last_is_number).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<(&str, bool), &str>) {
        let read = backend_url(text).map(|url| (format!("{:?}", url.target), url.tls));
        match expected {
            Ok((target, tls)) => assert_eq!(read, Ok((target.to_owned(), tls)), "{text}"),
            Err(part) => assert!(read.as_ref().is_err_and(|error| error.contains(part)), "{text}: {read:?}"),
        }
    }

    #[test]
    fn every_form_of_a_url_is_understood() {
        check("10.0.0.1:8000", Ok(("Address(10.0.0.1:8000)", false)));
        check("[::1]:8000", Ok(("Address([::1]:8000)", false)));
        check("https://[::1]", Ok(("Address([::1]:443)", true)));
        check("http://App.Internal.", Ok((r#"Name { host: "app.internal", port: 80 }"#, false)));
        check("https://app_1:8443", Ok((r#"Name { host: "app_1", port: 8443 }"#, true)));
        check("unix:/run/app.sock", Ok((r#"Unix("/run/app.sock")"#, false)));
    }

    #[test]
    fn a_url_that_cannot_be_connected_to_is_refused() {
        check("app.internal", Err("no port"));
        check("10.0.0.1:0", Err("no valid port"));
        check("10.0.0.1:+80", Err("no valid port"));
        check("10.0.0.1:", Err("no valid port"));
        check("[::1]:", Err("no valid port"));
        check("[::1]x", Err("no valid port"));
        check("10.0.0.1:70000", Err("no valid port"));
        check("10.0.0.300:80", Err("no valid host"));
        check("http://:80", Err("no valid host"));
        check("::1:8000", Err("more than one colon"));
        check("http://app/v1", Err("a path"));
        check("ftp://app", Err("scheme"));
        check("http://me@app", Err("a user"));
        check("unix:", Err("no path"));
        check("[::1", Err("not closed"));
        check("", Err("no port"));
    }
}
