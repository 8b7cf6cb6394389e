//! What may be written about a route? The shape of `routes`.

use http::{HeaderName, HeaderValue, Method};
use serde_json::{Value as Json, json};

use super::auth::Auth;
use super::backend::dns_name;
use super::brought::Brought;
use super::browsers::{Cors, Maintenance, SecurityHeaders};
use super::cache::Caching;
use super::compress::Compress;
use super::decode::{Decode, Map, Marked, refuse, scalar};
use super::errors::ErrorEntry;
use super::leaves::{Size, Timeout};
use super::limits::Priority;
use super::networks::Addresses;
use super::rate_limit::RateLimit;
use super::retry::Retry;
use super::section::section;
use crate::config::problem::{Problems, Spot, suggest};
use crate::config::tree::Node;
use crate::config::{HostPattern, PathPattern};

section! {
    /// A match, and what it leads to: one of `upstream`, `redirect` and `respond`.
    Route {
        /// Its name in logs; left out it is `routes[N]`.
        name: Option<String> = "null",
        /// Which requests belong to it; left out it is every request.
        r#match: Match = "{}",
        /// The upstream that serves them.
        upstream: Option<String> = "null",
        /// Where they are redirected to.
        redirect: Option<Redirect> = "null",
        /// What they are answered, without a backend.
        respond: Option<Respond> = "null",
        /// How the request is changed on its way to the upstream.
        rewrite: Option<Rewrite> = "null",
        /// Until the head of the response is there, all attempts included.
        timeout: Timeout = "60s",
        /// Who is served first when requests wait for a backend: who has more.
        priority: Priority = "0",
        /// When a request is tried again, and how often. `none`: only when no connection could be made.
        retry: Option<Retry> = "{}",
        /// Which responses are stored, and served again without a backend. `{}` goes by what the origin says.
        cache: Option<Caching> = "null",
        /// Which answers are made smaller for clients that read it, and how. `{}` suits most sites.
        compress: Option<Compress> = "null",
        /// Only clients at these addresses may come in: networks, single addresses, or `file:` and the path of a list.
        /// Left empty everybody may.
        allow: Vec<Marked<Addresses>> = "[]",
        /// Clients at these addresses may not come in, also those that `allow` names.
        deny: Vec<Marked<Addresses>> = "[]",
        /// Answers everybody 503, with `retry_after`, a `body`, and `except` some addresses.
        maintenance: Option<Maintenance> = "null",
        /// Pages for what is refused here, by status: `{ 404: PATH, 5xx: [PATH, PATH] }`, the form (.html, .json, .txt) by what the
        /// client reads. With `of_backends: true` also in the place of what backends say.
        errors: Option<Map<ErrorEntry>> = "null",
        /// Which pages of other sites may use what comes from here.
        cors: Option<Cors> = "null",
        /// Fields that make browsers careful; `{}` is a set that suits most sites.
        security_headers: Option<SecurityHeaders> = "null",
        /// Who may come in: whoever cannot prove who they are gets 401. `none`: everybody.
        auth: Option<Auth> = "null",
        /// The largest request body.
        body_limit: Size = "10MiB",
        /// How many requests each client may make. All limits are checked before any is charged.
        rate_limits: Vec<Marked<RateLimit>> = "[]",
        /// Filters that a program built on Portcullis brings, in their order: `NAME`, or `{ NAME: { its settings } }`.
        filters: Vec<Marked<Brought>> = "[]",
        /// Changes to header fields.
        headers: HeaderChanges = "{}",
        /// What the client is told about the inside: `backend` is X-Backend-Server, `cache` is Cache-Status,
        /// `timing` is Server-Timing.
        expose: Vec<Marked<Exposed>> = "[]",
    }
    later {}
}

section! {
    /// Which requests belong to a route; every condition that is given must hold.
    Match {
        /// The name of the listener they came in on.
        listener: Option<String> = "null",
        /// One of these hosts: `api.example.com`, or `*.example.com` for all below it.
        host: Vec<Marked<HostPattern>> = "[]",
        /// The path: `/v1` is just this one, `/v1/*` is also all below it.
        path: PathPattern = "/*",
        /// One of these methods; GET implies HEAD.
        methods: Vec<Marked<Method>> = "[]",
        /// Each of these header fields has just this value.
        headers: Map<HeaderValue> = "{}",
        /// Each of these query parameters has just this value.
        query: Map<String> = "{}",
    }
    later {}
}

section! {
    /// A redirect.
    Redirect {
        /// A URL or a path. If it ends in `/*`, the request's path and query take the place of the `*`.
        to: String,
        /// 301, 302, 303, 307 or 308.
        status: u16 = "308",
    }
    later {}
}

section! {
    /// An answer of our own.
    Respond {
        /// 200 to 599.
        status: u16 = "200",
        /// The body, as text.
        body: String = "\"\"",
    }
    later {}
}

section! {
    /// How a request is changed on its way to the upstream.
    Rewrite {
        /// Taken off the front of the path, on a segment border.
        strip_prefix: Option<String> = "null",
        /// Put before the path.
        add_prefix: Option<String> = "null",
        /// With `to`: a regular expression for the whole path, in its one spelling. What it does not match stays as it is.
        pattern: Option<String> = "null",
        /// What takes the path's place: `$1` is the first group of `pattern`, `$${name}` one with a name. The query stays.
        to: Option<String> = "null",
        /// The Host field; left out it is the client's.
        host: Option<HeaderValue> = "null",
    }
    later {}
}

section! {
    /// Changes to header fields.
    HeaderChanges {
        /// Of the request, before the upstream sees it.
        request: Edits = "{}",
        /// Of the response, before the client sees it.
        response: Edits = "{}",
    }
    later {}
}

section! {
    /// Changes, made in the order remove, set, add.
    Edits {
        /// Fields that get this one value.
        set: Map<HeaderValue> = "{}",
        /// Values added beside those that are there.
        add: Map<HeaderValue> = "{}",
        /// Fields taken away.
        remove: Vec<Marked<HeaderName>> = "[]",
    }
    later {}
}

/// Statuses that a redirect may have.
pub(crate) struct Statuses;

impl Statuses {
    /// RFC 9110, 15.4: those that send the client on by themselves.
    pub(crate) const REDIRECT: [u16; 5] = [301, 302, 303, 307, 308];
}

/// What the client can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exposed {
    Backend,
    Cache,
    Timing,
}

impl Decode for Exposed {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        const WORDS: [&str; 3] = ["backend", "cache", "timing"];
        let (wanted, help) = ("`backend`, `cache` or `timing`", "nothing is exposed unless it is in this list");
        match scalar(node, at, wanted, help, problems)?.text.as_str() {
            "backend" => Some(Self::Backend),
            "timing" => Some(Self::Timing),
            "cache" => Some(Self::Cache),
            word => refuse(node, at, wanted, &suggest(word, "values", WORDS), problems),
        }
    }

    fn schema() -> Json {
        json!({ "enum": ["backend", "cache", "timing"] })
    }
}

impl Decode for HostPattern {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let help = "write example.com, or \"*.example.com\" for all below it; ports and schemes are not part of it";
        let text = &scalar(node, at, "a host", help, problems)?.text;
        let pattern = match text.strip_prefix("*.") {
            Some(domain) => dns_name(domain).map(Self::Wildcard),
            None => dns_name(text).or_else(|| ip_host(text)).map(Self::Exact),
        };
        pattern.or_else(|| refuse(node, at, "a host", help, problems))
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

/// An address as it stands in a Host field: IPv6 in brackets.
fn ip_host(text: &str) -> Option<String> {
    if let Some(inside) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inside.parse::<std::net::Ipv6Addr>().ok().map(|ip| format!("[{ip}]"));
    }
    text.parse::<std::net::Ipv4Addr>().ok().map(|ip| ip.to_string())
}

impl Decode for PathPattern {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let help = "write /v1 for just this path, or /v1/* for it and all below it; the query is matched by `query`";
        let text = &scalar(node, at, "a path that begins with `/`", help, problems)?.text;
        let (path, prefix) = match text.strip_suffix("/*") {
            Some(path) => (path, true),
            None => (text.as_str(), false),
        };
        let legal = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'*' | b'?' | b'#');
        let starts = path.starts_with('/') || (prefix && path.is_empty());
        if !starts || !path.bytes().all(legal) {
            let wanted = "a path that begins with `/`, with `*` only as a last `/*` and other characters as %XX";
            return refuse(node, at, wanted, help, problems);
        }
        Some(match (path, prefix) {
            ("", true) => Self::Any,
            (path, true) => Self::Prefix(path.to_owned()),
            (path, false) => Self::Exact(path.to_owned()),
        })
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^(/|\\$\\{)" })
    }
}

impl Decode for Method {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let help = "write GET, POST, PUT, ... in capital letters";
        let text = &scalar(node, at, "a method", help, problems)?.text;
        let method = text.parse::<Method>().ok().filter(|_| !text.bytes().any(|byte| byte.is_ascii_lowercase()));
        method.or_else(|| refuse(node, at, "a method", help, problems))
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

impl Decode for HeaderName {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let help = "write a name such as x-request-id";
        let text = &scalar(node, at, "the name of a header field", help, problems)?.text;
        text.parse().ok().or_else(|| refuse(node, at, "the name of a header field", help, problems))
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

impl Decode for HeaderValue {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let text = String::decode(node, at, problems)?;
        let trimmed = text.trim() == text;
        let value = HeaderValue::from_str(&text).ok().filter(|_| trimmed);
        let help = "no line breaks, control characters, or spaces at its ends";
        value.or_else(|| refuse(node, at, "the value of a header field", help, problems))
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}
