//! What may be written about the cache? The shape of the top level's `cache`, and of a route's.

use std::time::Duration;

use http::{HeaderName, Method};
use serde_json::{Value as Json, json};

use super::decode::{Decode, Marked, refuse, scalar, shorten};
use super::leaves::{CookieName, FilePath, Size, SizeOrZero};
use super::section::section;
use crate::config::problem::{Problems, Spot, closest, suggest};
use crate::config::tree::{Kind, Node, Value};
use crate::config::{Eviction, Part};

section! {
    /// The one store that all routes with `cache` share. It takes no memory before something is stored.
    CacheStore {
        /// The most it holds in memory: bodies, heads and what keeps them in order. At least 1MiB.
        size: Size = "256MiB",
        /// The largest body that is stored, to a quarter of `size`, which is also the default if that is less.
        max_object: Size = "8MiB",
        /// What goes when it is full: `lru` (what was asked for longest ago) or `s3_fifo` (what was not asked for again).
        eviction: Eviction = "lru",
        /// A second tier that survives a restart.
        disk: Option<CacheDisk> = "null",
    }
    later {}
}

section! {
    /// Where the second tier is.
    CacheDisk {
        /// Its folder, which is made if only its last part is missing.
        path: FilePath,
        /// The most it takes there. At least 64MiB.
        size: Size = "10GiB",
    }
    later {}
}

section! {
    /// What a route stores, and for how long.
    Caching {
        /// How long a response is fresh that says nothing about it itself. Left out it is not stored.
        ttl: Option<Duration> = "null",
        /// The methods whose responses are stored: GET, HEAD, and POST if the body is part of the key.
        methods: Vec<Marked<Method>> = "[GET, HEAD]",
        /// What makes two requests different ones, besides method, scheme, host and path.
        key: CacheKey = "{}",
        /// Whether a lifetime is guessed from Last-Modified where the origin says nothing: a tenth of its age.
        heuristic: bool = "false",
        /// How long a stale response may be served while it is fetched anew, where the origin says nothing.
        stale_while_revalidate: Option<Duration> = "null",
        /// How long a stale response may be served when no backend answers well, where the origin says nothing.
        stale_if_error: Option<Duration> = "null",
        /// How long a request waits for another that fetches the same. `none`: it does not.
        lock: Option<Duration> = "5s",
        /// A request that has one of these is neither answered from the store nor stored: `header:NAME`, `cookie:NAME`,
        /// `query:NAME`.
        bypass: Vec<Marked<Part>> = "[]",
        /// Whether a response with Set-Cookie is stored, with that field, for everybody.
        store_set_cookie: bool = "false",
        /// Fields of a response that name the tags it can be purged by.
        tags: Vec<Marked<HeaderName>> = "[Surrogate-Key, Cache-Tag]",
    }
    later {}
}

section! {
    /// What makes two requests different ones, besides method, scheme, host and path.
    CacheKey {
        /// Which query parameters: `all`, `none`, or a list of names.
        query: Query = "all",
        /// Which header fields; those that a response names in Vary need not be here.
        headers: Vec<Marked<HeaderName>> = "[]",
        /// Which cookies.
        cookies: Vec<Marked<CookieName>> = "[]",
        /// The request body, if it is no larger than this, to 64KiB; for POST. 0 is none.
        body: SizeOrZero = "0",
    }
    later {}
}

/// Query parameters as they are written.
#[derive(Clone, Debug)]
pub(crate) enum Query {
    All,
    None,
    Only(Vec<Marked<String>>),
}

impl Decode for Query {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        const WORDS: [&str; 2] = ["all", "none"];
        match &node.value {
            Value::List(_) => return Decode::decode(node, at, problems).map(Self::Only),
            Value::Scalar(scalar) if scalar.kind() == Kind::Null => return Some(Self::None),
            Value::Scalar(_) | Value::Map(_) => {}
        }
        let (wanted, help) = ("`all`, `none` or a list of names", "write all, none, or for example [page, sort]");
        match scalar(node, at, wanted, help, problems)?.text.as_str() {
            "all" => Some(Self::All),
            "none" => Some(Self::None),
            word => {
                let help = match closest(word, WORDS) {
                    Some(near) => format!("did you mean `{near}`? one name is a list as well: [{}]", shorten(word)),
                    None => format!("write a list, even of one: [{}]", shorten(word)),
                };
                refuse(node, at, wanted, &help, problems)
            }
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "enum": ["all", "none"] }, { "type": "null" }, Vec::<Marked<String>>::schema()] })
    }
}

impl Decode for Part {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let wanted = "header:NAME, cookie:NAME or query:NAME";
        let text = &scalar(node, at, wanted, "write for example [cookie:session, header:x-preview]", problems)?.text;
        let (kind, name) = text.split_once(':').unwrap_or((text, ""));
        let token = name.parse::<HeaderName>();
        let part = match (kind, token) {
            ("header", Ok(name)) => Some(Self::Header(name)),
            // A cookie's name is a token, as a field's name is (RFC 6265, 4.1.1), but its case counts.
            ("cookie", Ok(_)) => Some(Self::Cookie(name.to_owned())),
            ("query", _) if !name.is_empty() => Some(Self::Query(name.to_owned())),
            (_, Ok(_) | Err(_)) => None,
        };
        part.or_else(|| {
            let help = match kind {
                "header" | "cookie" | "query" => format!("write a name behind it, such as {kind}:preview"),
                other => suggest(other, "parts of a request", ["header", "cookie", "query"]),
            };
            refuse(node, at, wanted, &help, problems)
        })
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^((header|cookie|query):.+|\\$\\{.*)$" })
    }
}
