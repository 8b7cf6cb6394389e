//! What holds whatever comes in? The readers of what strangers write, each with what must be true of its answer.
//!
//! A target takes any bytes and panics when something does not hold. Nobody in the house calls them: fuzzers do, from
//! `fuzz/`, and so does `tests/fuzz_smoke.rs`, for a moment in each run of the tests. Whoever adds a reader of foreign
//! bytes adds a target here, and seeds for it in `fuzz/corpus`.

use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CACHE_CONTROL, COOKIE, FORWARDED};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use jsonwebtoken::Algorithm;
use pingora::http::RequestHeader;

use crate::auth::{self, Gate, Sources};
use crate::backend::Seat;
use crate::cache::rules::{Asked, Directives};
use crate::compress::negotiate::Accepted;
use crate::config::{self, Coding, ForwardedBy, Obey, SameSite, Secret, Substitution, Surroundings};
use crate::filter::accept::Accept;
use crate::health::obey;
use crate::observe::tracing::Parent;
use crate::path;
use crate::proxy::{self, Believed};
use crate::proxy_protocol::{self, Announced, Ends, LONGEST, Version};
use crate::route::host;
use crate::upstream::sticky::Sticky;

/// One reader.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is that of its folder in `fuzz/corpus`.
    pub name: &'static str,
    /// Reads these bytes, and panics if what is read is not what it must be.
    pub run: fn(&[u8]),
}

/// Every reader.
pub const TARGETS: &[Target] = &[
    Target { name: "configuration", run: configuration },
    Target { name: "proxy_header", run: proxy_header },
    Target { name: "accept_encoding", run: accept_encoding },
    Target { name: "cache_control", run: cache_control },
    Target { name: "forwarded", run: forwarded },
    Target { name: "retry_after", run: retry_after },
    Target { name: "accept", run: accept },
    Target { name: "jwt", run: jwt },
    Target { name: "cookies", run: cookies },
    Target { name: "paths", run: paths },
    Target { name: "hosts", run: hosts },
    Target { name: "traceparent", run: traceparent },
];

/// A file of the operator's: it is taken, or every problem has a place in it and a way out.
pub fn configuration(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let around = Surroundings {
        folder: PathBuf::from("/nowhere"),
        environment: Box::new(|name| (name == "SET").then(|| "8080".to_owned())),
        read_file: Box::new(|_| Err(std::io::ErrorKind::NotFound.into())),
        has_directory: Box::new(|_| false),
        keeps_files: Box::new(|_| Err(std::io::ErrorKind::PermissionDenied.into())),
        now: 1_700_000_000,
        additions: std::sync::Arc::default(),
        open_files: Some(1024),
    };
    let problems = match config::parse(&text, "any.yaml", &around) {
        Ok(checked) => {
            assert!(!checked.config.listeners.is_empty(), "a file without a listener is taken");
            checked.warnings
        }
        Err(errors) => {
            assert!(!errors.is_empty(), "a file is refused without a word");
            errors
        }
    };
    let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count();
    for problem in problems {
        assert!((1..=lines + 1).contains(&problem.place.line) && problem.place.col > 0, "no such place: {problem:?}");
        assert!(!problem.what.is_empty() && !problem.help.is_empty(), "nothing is said: {problem:?}");
    }
}

/// `traceparent`: what was read is written so that it means the same, in the one form that everybody reads.
pub fn traceparent(bytes: &[u8]) {
    let Some(parent) = Parent::read(bytes) else { return };
    let Ok(written) = HeaderValue::try_from(parent) else { panic!("we cannot write what we read: {parent:?}") };
    assert_eq!(Parent::read(written.as_bytes()), Some(parent), "it means something else");
    assert!(written.len() == 55 && bytes.len() >= 55 && written.as_bytes()[2..52] == bytes[2..52], "{written:?}");
}

/// The header of the PROXY protocol: what was read can be written, and read again; less than all of it is too little.
pub fn proxy_header(bytes: &[u8]) {
    let Ok(Some((announced, length))) = proxy_protocol::read(bytes) else { return };
    assert!(length <= bytes.len() && length <= LONGEST, "{length} of {} bytes", bytes.len());
    assert_eq!(proxy_protocol::read(&bytes[..length]), Ok(Some((announced, length))), "it looked behind the header");
    assert_eq!(proxy_protocol::read(&bytes[..length - 1]), Ok(None), "a part of a header is one");
    let Announced::Ends(ends) = announced else { return };
    for version in [Version::V1, Version::V2] {
        let header = version.header(Some(ends));
        let Ok(Some((Announced::Ends(again), all))) = proxy_protocol::read(&header) else {
            panic!("we cannot read what we write: {header:?}")
        };
        assert_eq!((canonical(again), all), (canonical(ends), header.len()));
    }
}

fn canonical(ends: Ends) -> [SocketAddr; 2] {
    [ends.client, ends.server].map(|end| SocketAddr::new(end.ip().to_canonical(), end.port()))
}

/// `Accept-Encoding`: on one line it means the same as on several, and nothing is sent that is not read.
pub fn accept_encoding(bytes: &[u8]) {
    let fields = lines_of(&ACCEPT_ENCODING, bytes);
    let accepted = Accepted::of(&fields);
    let lines: Vec<&[u8]> = fields.get_all(ACCEPT_ENCODING).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&lines.join(&b","[..])) {
        let joined = HeaderMap::from_iter([(ACCEPT_ENCODING, joined)]);
        assert_eq!(Accepted::of(&joined), accepted, "in one line it means something else");
    }
    match accepted.best(&Coding::ALL) {
        Some(best) => assert!(accepted.reads(best), "{best:?} is best, and not read"),
        None => assert_eq!(accepted.best(&[]), None),
    }
    for coding in Coding::ALL {
        assert!(accepted.reads(coding) || accepted.best(&[coding]).is_none(), "{coding:?} is sent, and not read");
    }
}

/// `Cache-Control` of a response and of a request: whatever follows, `no-store` stands.
pub fn cache_control(bytes: &[u8]) {
    let mut fields = HeaderMap::from_iter([(CACHE_CONTROL, HeaderValue::from_static("no-store"))]);
    fields.extend(lines_of(&CACHE_CONTROL, bytes).into_iter().map(|(_, value)| (CACHE_CONTROL, value)));
    assert!(Asked::of(&fields).no_store, "the request is stored: {fields:?}");
    assert!(Directives::of(&fields).no_store, "the response is stored: {fields:?}");
    let said = Directives::of(&lines_of(&CACHE_CONTROL, bytes));
    let times = [said.max_age, said.s_maxage, said.stale_while_revalidate, said.stale_if_error];
    assert!(times.iter().flatten().all(|time| time.as_secs() <= 1 << 31), "a time without an end: {said:?}");
}

/// `X-Forwarded-For` and `Forwarded`: what a trusted peer says last is believed, whatever a client said before; and one
/// who is not trusted is not believed.
pub fn forwarded(bytes: &[u8]) {
    let proxies = ["10.0.0.0/8".parse(), "fd00::/8".parse()].into_iter().flatten().collect::<Vec<_>>();
    let peer = |last| Some(SocketAddr::from((Ipv4Addr::new(10, 0, 0, last), 1)));
    let client = Some(IpAddr::from(Ipv4Addr::new(192, 0, 2, 9)));
    let one = (HeaderName::from_static("x-forwarded-for"), "192.0.2.9", ForwardedBy::XForwardedFor);
    for (name, last, field) in [one, (FORWARDED, "for=192.0.2.9", ForwardedBy::Forwarded)] {
        let trusted = Believed { proxies: proxies.clone(), field };
        let mut fields = lines_of(&name, bytes);
        let stranger = Some(SocketAddr::from((Ipv4Addr::new(198, 51, 100, 1), 1)));
        let of_stranger = proxy::sender(stranger, &fields, &trusted);
        assert_eq!((of_stranger.client, of_stranger.trusted), (stranger.map(|it| it.ip()), false), "{fields:?}");
        let of_peer = proxy::sender(peer(1), &fields, &trusted);
        assert!(of_peer.trusted && of_peer.client.is_some(), "{fields:?}");
        let mut appended = fields.get_all(&name).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>();
        appended.push(last.as_bytes());
        let joined = HeaderValue::from_bytes(&appended.join(&b", "[..]));
        fields.append(&name, HeaderValue::from_static(last));
        assert_eq!(proxy::sender(peer(2), &fields, &trusted).client, client, "{fields:?}");
        // On one line a stray byte of the client's may end the walk before it begins: then the peer is what is left.
        if let Ok(joined) = joined {
            let found = proxy::sender(peer(2), &HeaderMap::from_iter([(name, joined)]), &trusted).client;
            assert!(found == client || found == peer(2).map(|it| it.ip()), "{fields:?}: {found:?}");
        }
    }
}

/// `Retry-After` and the fields of quotas, each line `Name: value`: no wait is longer than the operator allows.
pub fn retry_after(bytes: &[u8]) {
    let max = Duration::from_secs(300);
    let rules = Obey { retry_after: true, rate_limit_fields: true, max };
    let fields = fields_of(bytes);
    for status in [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE, StatusCode::OK] {
        let advice = obey::read(status, &fields, &rules, || UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        for wait in [advice.wait, advice.low].into_iter().flatten() {
            assert!(!wait.is_zero() && wait <= max, "{fields:?}: {advice:?}");
        }
        assert!(!advice.field.is_empty() || (advice.wait, advice.low) == (None, None), "nobody said so: {advice:?}");
    }
}

/// `Accept`: nothing is wanted more than all, and what is named is wanted as it is named.
pub fn accept(bytes: &[u8]) {
    let accept = Accept::of(&lines_of(&ACCEPT, bytes));
    for kind in ["text/html", "application/json", "text/plain", "application/problem+json", "*/*", "odd"] {
        assert!(accept.quality(kind) <= 1000, "{accept:?}");
        assert!(accept.named(kind).is_none_or(|named| named == accept.quality(kind)), "{accept:?}");
    }
}

/// The secret of the one who issues tokens here.
const ISSUER: &[u8] = b"nobody guesses this, whatever comes";

/// A token: whatever is one was signed by the issuer, in the way that it is known to sign; and what was signed is one only if it
/// says when it ends.
pub fn jwt(bytes: &[u8]) {
    static GATE: OnceLock<Gate> = OnceLock::new();
    let gate = GATE.get_or_init(|| Gate::new(&tokens(), &Sources::default()).unwrap_or_else(|why| panic!("{why}")));
    let text = String::from_utf8_lossy(bytes);
    if identify(gate, &text) {
        let (signed, signature) = text.trim().rsplit_once('.').unwrap_or_default();
        assert_eq!(signature, signature_of(signed), "a token of nobody's: {text:?}");
    }
    let part = |json: &[u8]| URL_SAFE_NO_PAD.encode(json);
    let (usual, good) = (part(br#"{"alg":"HS256"}"#), part(br#"{"sub":"ann","exp":4102444800}"#));
    for signed in [format!("{usual}.{}", part(bytes)), format!("{}.{good}", part(bytes))] {
        let token = format!("{signed}.{}", signature_of(&signed));
        let says = || serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(bytes).unwrap_or_default();
        if identify(gate, &token) {
            let says = says();
            let ends = says.get("exp").and_then(serde_json::Value::as_f64).is_some_and(|ends| ends > 1.7e9);
            assert!(ends || says.get("alg").is_some_and(|it| it == "HS256"), "{text:?} is good: {says:?}");
        }
    }
}

fn tokens() -> config::Auth {
    let jwt = config::Jwt {
        keys: config::JwtKeys::Secret(Secret::new(ISSUER)),
        algorithms: vec![Algorithm::HS256],
        issuer: None,
        audience: Vec::new(),
        skew: Duration::from_secs(60),
        refresh: Duration::from_secs(600),
    };
    config::Auth { by: config::AuthBy::Jwt(jwt), keep: false, headers: Vec::new() }
}

fn signature_of(signed: &str) -> String {
    URL_SAFE_NO_PAD.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, ISSUER), signed.as_bytes()))
}

/// Whether somebody with this token comes in.
fn identify(gate: &Gate, token: &str) -> bool {
    let Ok(value) = HeaderValue::from_bytes(format!("Bearer {token}").as_bytes()) else { return false };
    let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
    let asked = auth::Asked { headers: &headers, query: None, method: &Method::GET, route: "any", address: None };
    let asking = pin!(gate.identify(&asked));
    // With a secret there is nothing to wait for.
    match asking.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer.is_ok(),
        Poll::Pending => panic!("a secret is waited for"),
    }
}

/// `Cookie`: what is found stands there, and what others write behind it does not take its place. Nobody but us makes a
/// cookie that is a session.
pub fn cookies(bytes: &[u8]) {
    let head = |fields: Vec<HeaderValue>| {
        let mut head = RequestHeader::build("GET", b"/", None).ok()?;
        fields.into_iter().try_for_each(|field| head.append_header(COOKIE, field).map(drop)).ok()?;
        Some(head)
    };
    let lines: Vec<HeaderValue> = lines_of(&COOKIE, bytes).into_iter().map(|(_, value)| value).collect();
    let Some(theirs) = head(lines.clone()) else { return };
    if let Some(value) = proxy::cookie(&theirs, "portcullis") {
        let stands = |line: &HeaderValue| line.to_str().is_ok_and(|line| line.contains(value));
        assert!(!value.contains(';') && lines.iter().any(stands), "{lines:?}: {value:?}");
    }
    let ours = std::iter::once(HeaderValue::from_static("portcullis=ours"));
    let first = head(ours.chain(lines).collect());
    assert_eq!(first.as_ref().and_then(|head| proxy::cookie(head, "portcullis")), Some("ours"));
    sessions(&String::from_utf8_lossy(bytes));
}

fn sessions(theirs: &str) {
    let config =
        config::Sticky { cookie: "portcullis".to_owned(), ttl: Duration::from_secs(3600), same_site: SameSite::Lax };
    let members = [("127.0.0.1:1", Seat(0)), ("127.0.0.1:2", Seat(1))];
    let sticky = Sticky::new(config, "app", members.into_iter(), &Secret::new(b"nobody guesses this"));
    let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let Some(ours) = sticky.cookie(Seat(1), now) else { panic!("a backend without a cookie") };
    assert_eq!(sticky.read(&ours, now).map(|session| session.seat), Some(Seat(1)));
    let made = [theirs.to_owned(), format!("{ours}{theirs}"), ours.chars().skip(theirs.len()).collect()];
    for cookie in made.iter().filter(|cookie| !cookie.eq_ignore_ascii_case(&ours)) {
        assert_eq!(sticky.read(cookie, now), None, "a session that we have not begun: {cookie:?}");
    }
}

/// A path: its one spelling is its own spelling, and nobody can read a way up into it.
pub fn paths(bytes: &[u8]) {
    let raw = String::from_utf8_lossy(bytes);
    let Ok(normal) = path::normalise(&raw) else { return };
    assert_same(path::normalise(&normal).as_deref(), &normal, &raw);
    assert!(normal == "*" || normal.starts_with('/'), "{raw:?}: {normal:?}");
    let decoded = normal.replace("%2F", "/").replace("%5C", "/");
    let climbs = |segment: &str| segment.split(';').next() == Some("..");
    assert!(!decoded.split('/').any(climbs), "{raw:?}: {normal:?}");
    for never in ["//", "/./", "\\", "?", "#", " ", "%2E", "%00"] {
        assert!(!normal.contains(never), "{raw:?}: {normal:?}");
    }
    for substitution in substitutions() {
        if let Some(Ok(path)) = substitution.apply(&normal) {
            assert!(path.starts_with('/'), "{raw:?} becomes {path:?}");
            assert_same(path::normalise(&path).as_deref(), &path, &raw);
        }
    }
}

/// What operators may write, with all the traps.
fn substitutions() -> &'static [Substitution] {
    static ALL: OnceLock<Vec<Substitution>> = OnceLock::new();
    ALL.get_or_init(|| {
        let all = [("/(.*)", "/x/.$1"), ("(.*)(..)(.*)", "$3$2$1"), ("/([^/]*)(.*)", "$2/$1"), ("(.*)%(.*)", "$1$2")];
        all.iter().filter_map(|(pattern, to)| Substitution::read(pattern, to)).collect()
    })
}

/// A host: its one spelling is its own spelling, and it holds nothing that ends a field, a path or a name in a list.
pub fn hosts(bytes: &[u8]) {
    let raw = String::from_utf8_lossy(bytes);
    let Ok(normal) = host::normalise(&raw) else { return };
    assert_same(host::normalise(&normal).as_deref(), &normal, &raw);
    let never = |byte: u8| !byte.is_ascii_graphic() || byte.is_ascii_uppercase() || b"/?#@,\\\"<>%".contains(&byte);
    assert!(!normal.bytes().any(never), "{raw:?}: {normal:?}");
}

fn assert_same<E: Debug>(again: Result<&str, E>, normal: &str, raw: &str) {
    assert!(matches!(&again, Ok(same) if *same == normal), "{raw:?} is {normal:?}, which is {again:?}");
}

/// Each line as a value of this field; what no field may hold is left out.
fn lines_of(name: &HeaderName, bytes: &[u8]) -> HeaderMap {
    let values = bytes.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok());
    bounded(values.map(|value| (name.clone(), value)))
}

/// Each line as a field, `Name: value`.
fn fields_of(bytes: &[u8]) -> HeaderMap {
    bounded(bytes.split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(line.get(..colon)?).ok()?;
        let value = HeaderValue::from_bytes(line.get(colon + 1..)?.trim_ascii()).ok()?;
        Some((name, value))
    }))
}

/// As many as a listener lets in; a map takes no number of them.
fn bounded(fields: impl Iterator<Item = (HeaderName, HeaderValue)>) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields.take(100) {
        map.append(name, value);
    }
    map
}
