//! What is in a line of the access log? The fields, in the order in which they are written.
//!
//! Clients choose many of these bytes, so every string goes through JSON's escapes and is cut at a bound.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::Value as Json;

use crate::observe::json::{Object, field};
use crate::observe::stamps::Stamps;
use crate::observe::tracing::TraceId;

/// Bytes of a path, host or id that are logged: enough for anything that people make, and a bound on what a client
/// can make us write.
const LONGEST: usize = 2048;

/// One request, as it ended. Fields without a value are written as `null`, so that every line has the same shape.
#[derive(Clone, Debug)]
pub struct Entry {
    /// When the request arrived; RFC 3339, UTC, to the millisecond.
    pub time: SystemTime,
    /// The request id.
    pub id: String,
    /// The trace that it is in, where requests are traced.
    pub trace_id: Option<TraceId>,
    /// The client, behind trusted proxies; none on a unix socket.
    pub client: Option<IpAddr>,
    /// Who sent it, where the route has `auth`.
    pub identity: Option<Arc<str>>,
    /// The rate limits in a dry run that would have refused it; `null` where none would.
    pub dry_run: Option<Vec<Arc<str>>>,
    /// The method; empty if there was no readable head.
    pub method: String,
    /// The host that was asked for.
    pub host: String,
    /// The path. Set it with [`path_of`](Entry::path_of): a query may hold secrets.
    pub path: String,
    /// The route.
    pub route: Option<Arc<str>>,
    /// The upstream.
    pub upstream: Option<Arc<str>>,
    /// The backend of the last attempt.
    pub backend: Option<Arc<str>>,
    /// Every attempt, in order.
    pub attempts: Vec<Attempt>,
    /// The status that the client got; none if it got none.
    pub status: Option<u16>,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the response's body.
    pub bytes_out: u64,
    /// From the first byte of the request to the last of the response.
    pub total: Duration,
    /// Until the head of the backend's response.
    pub first_byte: Option<Duration>,
    /// To connect to the backend; none on a reused connection.
    pub connect: Option<Duration>,
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2`.
    pub protocol: &'static str,
    /// The TLS version, as in `TLSv1.3`; none without TLS.
    pub tls: Option<&'static str>,
    /// How the cache served it, where its route has one: `hit`, `miss`, or `miss:` with the reason why it was not stored.
    pub cache: Option<Cow<'static, str>>,
    /// What became of the body's coding; none where it left as it came.
    pub encoding: Option<Recoded>,
    /// How it ended: `ok`, or the label of a refusal.
    pub reason: &'static str,
    /// What an operator has asked to be told of it.
    pub trace: Option<Box<Json>>,
    /// What is quoted of the head, where the form of the log asks for it.
    pub quoted: Option<Box<Quoted>>,
    /// Whose account it is on, for usage events.
    pub account: Account,
}

/// What is quoted of the head of a request, byte for byte.
#[derive(Clone, Debug, Default)]
pub struct Quoted {
    /// The target, with its query.
    pub target: Vec<u8>,
    /// The page that the client came from.
    pub referer: Option<Vec<u8>>,
    /// What the client calls itself.
    pub user_agent: Option<Vec<u8>>,
}

/// Whose account a request is on.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// What they pay for.
    pub plan: Option<Arc<str>>,
    /// The public part of the key that they have shown.
    pub key: Option<Arc<str>>,
    /// The most that a limit has charged.
    pub cost: Option<u32>,
}

impl Quoted {
    /// The longest part that is quoted: as much as nginx takes in its buffers.
    pub const LONGEST: usize = 8192;

    /// So much of these bytes as is quoted.
    pub fn of(bytes: &[u8]) -> Vec<u8> {
        bytes.get(..Self::LONGEST).unwrap_or(bytes).to_vec()
    }
}

/// One try at one backend.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// The backend.
    pub backend: Arc<str>,
    /// How it ended: `ok`, a label, or `status_503` and the like where the answer was dropped for a retry.
    pub outcome: Cow<'static, str>,
    /// How long it took.
    pub took: Duration,
    /// Why it was not followed by a retry, where the failure or the status asks for one.
    pub no_retry: Option<&'static str>,
}

/// What became of the coding of an answer's body.
#[derive(Clone, Debug, PartialEq)]
pub struct Recoded {
    /// The coding that it left with, as in `zstd`; `identity` where it was decoded.
    pub coding: &'static str,
    /// The coding that it came with; none where it came without.
    pub decoded: Option<&'static str>,
    /// Bytes as they came from the backend, or the store.
    pub before: u64,
    /// Bytes in the place of these.
    pub after: u64,
    /// `after` by `before`, to a thousandth; none where nothing came.
    pub ratio: Option<f64>,
    /// The time that it took; 0 where it was stored like that.
    pub took: Duration,
}

impl Recoded {
    /// What became of so many bytes; `decoded` where they came in the coding.
    pub fn new(coding: &'static str, decoded: bool, (before, after): (u64, u64), took: Duration) -> Self {
        let (coding, decoded) = if decoded { ("identity", Some(coding)) } else { (coding, None) };
        let ratio = (before > 0).then(|| after as f64 / before as f64);
        Self { coding, decoded, before, after, ratio, took }
    }
}

impl Entry {
    /// When it was over.
    pub fn ended(&self) -> SystemTime {
        self.time.checked_add(self.total).unwrap_or(self.time)
    }

    /// About how many bytes of memory it holds; what others share with it is not counted.
    pub fn weight(&self) -> usize {
        let texts = self.id.len() + self.method.len() + self.host.len() + self.path.len();
        let quoted = self.quoted.as_ref().map_or(0, |quoted| {
            let fields = [&quoted.referer, &quoted.user_agent];
            quoted.target.len() + fields.into_iter().flatten().map(Vec::len).sum::<usize>()
        });
        let trace = self.trace.as_ref().map_or(0, |trace| weight_of(trace));
        size_of::<Self>() + texts + self.attempts.len() * size_of::<Attempt>() + quoted + trace
    }

    /// As a line of JSON, without the end of line.
    pub(in crate::observe) fn json(&self, stamps: &mut Stamps) -> String {
        let mut line = Vec::new();
        self.write_json(stamps, &mut line);
        String::from_utf8(line).unwrap_or_default()
    }

    /// Writes it as JSON to the end of a line.
    pub fn write_json(&self, stamps: &mut Stamps, line: &mut Vec<u8>) {
        let mut object = Object::new(line);
        object.ascii(field!("time"), stamps.rfc3339(self.time).as_ref().map(|stamp| stamp.as_slice()));
        object.text(field!("id"), cut(&self.id));
        object.shown(field!("trace_id"), self.trace_id);
        object.address(field!("client"), self.client);
        object.text(field!("identity"), self.identity.as_deref());
        object.value(
            field!("dry_run"),
            &self.dry_run.as_ref().map_or(Json::Null, |names| names.iter().map(|name| &**name).collect()),
        );
        object.text(field!("method"), cut(&self.method));
        object.text(field!("host"), cut(&self.host));
        object.text(field!("path"), cut(&self.path));
        object.text(field!("route"), self.route.as_deref());
        object.text(field!("upstream"), self.upstream.as_deref());
        object.text(field!("backend"), self.backend.as_deref());
        object.objects(field!("attempts"), &self.attempts, attempt);
        object.number(field!("status"), self.status.map(u64::from));
        object.number(field!("bytes_in"), self.bytes_in);
        object.number(field!("bytes_out"), self.bytes_out);
        object.millis(field!("total_ms"), self.total);
        object.millis(field!("first_byte_ms"), self.first_byte);
        object.millis(field!("connect_ms"), self.connect);
        object.text(field!("protocol"), self.protocol);
        object.text(field!("tls"), self.tls);
        object.text(field!("cache"), self.cache.as_deref());
        object.object(field!("encoding"), self.encoding.as_ref(), recoded);
        object.text(field!("reason"), self.reason);
        if let Some(trace) = &self.trace {
            object.value(field!("trace"), trace);
        }
        object.end();
    }

    /// The path of a request target, without the query.
    pub fn path_of(target: &str) -> String {
        let path = target.split(['?', '#']).next().unwrap_or_default();
        cut(path).to_owned()
    }
}

impl Default for Entry {
    /// A request of which nothing is known yet.
    fn default() -> Self {
        Self {
            time: SystemTime::UNIX_EPOCH,
            id: String::new(),
            trace_id: None,
            client: None,
            identity: None,
            dry_run: None,
            method: String::new(),
            host: String::new(),
            path: String::new(),
            route: None,
            upstream: None,
            backend: None,
            attempts: Vec::new(),
            status: None,
            bytes_in: 0,
            bytes_out: 0,
            total: Duration::ZERO,
            first_byte: None,
            connect: None,
            protocol: "HTTP/1.1",
            tls: None,
            cache: None,
            encoding: None,
            reason: "ok",
            trace: None,
            quoted: None,
            account: Account::default(),
        }
    }
}

pub(super) fn cut(text: &str) -> &str {
    if text.len() <= LONGEST {
        return text;
    }
    let border = (0..=LONGEST).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    &text[..border]
}

/// Names and values with what stands around them.
fn weight_of(json: &Json) -> usize {
    size_of::<Json>()
        + match json {
            Json::String(text) => text.len(),
            Json::Array(items) => items.iter().map(weight_of).sum(),
            Json::Object(items) => items.iter().map(|(name, value)| name.len() + weight_of(value) + 32).sum(),
            Json::Null | Json::Bool(_) | Json::Number(_) => 0,
        }
}

/// One try.
fn attempt(attempt: &Attempt, object: &mut Object<'_>) {
    object.text(field!("backend"), cut(&attempt.backend));
    object.text(field!("outcome"), &*attempt.outcome);
    object.millis(field!("ms"), attempt.took);
    if let Some(reason) = attempt.no_retry {
        object.text(field!("no_retry"), reason);
    }
}

fn recoded(recoded: &Recoded, object: &mut Object<'_>) {
    object.text(field!("coding"), recoded.coding);
    if let Some(coding) = recoded.decoded {
        object.text(field!("decoded"), coding);
    }
    object.number(field!("before"), recoded.before);
    object.number(field!("after"), recoded.after);
    object.value(field!("ratio"), &recoded.ratio.map(|ratio| (ratio * 1000.0).round() / 1000.0).into());
    object.millis(field!("ms"), recoded.took);
}

impl fmt::Display for Entry {
    /// The line as it is written, without the end of line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.json(&mut Stamps::default()))
    }
}
