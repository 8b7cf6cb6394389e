//! What do the steps of a request cost, and is each within its budget?
//!
//! Run with `cargo bench --bench steps`. Each step is done with what a large site would have; other benches measure some of
//! them with more variety. Printed is the fastest of several rounds, since whatever disturbs a round makes it slower; the
//! exit code is 1 if a step is dearer than its budget.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints, and may stop at once")]

mod objects;

use std::fmt::Write as _;
use std::hash::RandomState;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};
use portcullis::auth::{Asked, Gate, Sources};
use portcullis::backend::{Loads, Moment, Seat};
use portcullis::balance::{Ask, Members, Ready, build};
use portcullis::cache::key::{Key, Writing};
use portcullis::cache::store::Store;
use portcullis::config::{self, Balance, Eviction, HostPattern, Match, PathPattern};
use portcullis::filter::networks::Lists;
use portcullis::filter::{Chain, Client};
use portcullis::limit::rate::{self, Which, Who, tell};
use portcullis::observe::access_log::{Attempt, Entry, Stamps};
use portcullis::route::{RequestView, Table};

use self::objects::put;

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(60);

/// An API key, and its SHA-256.
const KEY: &str = "pck_bench000_0123456789abcdef0123456789abcdef";
const KEY_DIGEST: &str = "25a228f88997450f1a49d0aa85676a1ee33202723b4206395b1793cd5ab3b80e";

/// A step, and what it may cost in nanoseconds.
struct Step {
    name: &'static str,
    budget: f64,
    run: Box<dyn FnMut(u64)>,
}

fn main() -> ExitCode {
    let route = route();
    let steps = [
        Step { name: "route look-up, the last of 10,000 hosts", budget: 1000.0, run: route_look_up() },
        Step { name: "pick, round_robin, 100 backends", budget: 1000.0, run: pick(Balance::RoundRobin) },
        Step { name: "pick, least_connections, 100 backends", budget: 1000.0, run: pick(Balance::LeastConnections) },
        Step { name: "pick, peak_ewma, 100 backends", budget: 1000.0, run: pick(Balance::PeakEwma) },
        Step { name: "limit check, two limits, 100,000 clients", budget: 1000.0, run: limit_check(&route) },
        Step { name: "a list of 100,000 addresses, a key and a limit", budget: 2000.0, run: admission() },
        Step { name: "cache look-up, key included, 10,000 objects", budget: 1000.0, run: cache_look_up() },
        Step { name: "header rewriting, ten edits", budget: 2000.0, run: header_rewriting(&route) },
        Step { name: "log line, JSON", budget: 2000.0, run: log_line() },
    ];
    println!("| step | ns | budget | |\n| --- | ---: | ---: | --- |");
    let mut is_good = true;
    for Step { name, budget, mut run } in steps {
        let ns = fastest(&mut *run);
        is_good &= ns <= budget;
        println!("| {name} | {ns:.0} | {budget:.0} | {} |", if ns <= budget { "met" } else { "MISSED" });
    }
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn fastest(run: &mut dyn FnMut(u64)) -> f64 {
    let round = |_| {
        let (start, mut done) = (Instant::now(), 0_u64);
        while start.elapsed() < ROUND {
            for _ in 0..100 {
                done += 1;
                run(done);
            }
        }
        start.elapsed().as_secs_f64() * 1e9 / done as f64
    };
    (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min)
}

/// A route with two limits and ten edits, as a file says it.
fn route() -> config::Route {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("steps.yaml");
    let text = r#"
listeners: [{ address: "127.0.0.1:0" }]
upstreams: { app: { backends: ["127.0.0.1:8000"] } }
routes:
  - upstream: app
    rate_limits: [{ rate: 1000000000/s, key: client_address }, { rate: 1000000000/s, key: "header:x-tenant" }]
    rewrite: { strip_prefix: /v1, add_prefix: /api }
    headers:
      request: { set: { X-A: a, X-B: b, X-C: c }, add: { X-D: d }, remove: [Cookie] }
      response: { set: { X-E: e, X-F: f, X-G: g }, remove: [Server, X-Powered-By] }
"#;
    std::fs::write(&file, text).unwrap();
    let checked = config::load(&file, &Arc::default()).unwrap();
    checked.config.routes.into_iter().next().unwrap()
}

fn route_look_up() -> Box<dyn FnMut(u64)> {
    let host = |n: usize| format!("host{n}.example.com");
    let route = |n| {
        let (hosts, path) = (vec![HostPattern::Exact(host(n))], PathPattern::Prefix("/v1".into()));
        (Match { hosts, path, ..Match::default() }, n)
    };
    let (table, last) = (Table::new((0..10_000).map(route).collect()), host(9_999));
    let headers = HeaderMap::new();
    Box::new(move |_| {
        let method = &Method::GET;
        let head =
            RequestView { listener: None, host: &last, path: "/v1/users/17", method, headers: &headers, query: None };
        assert_eq!(black_box(table.find(black_box(&head))), Some(&9_999));
    })
}

fn pick(balance: Balance) -> Box<dyn FnMut(u64)> {
    let members = Members::new((0..100).map(|seat| (Seat(seat), 1))).unwrap();
    let policy = build(&balance, &members, |seat| format!("10.0.0.{}:8000", seat.0), 0);
    let loads = Loads::with_seats(100).with_estimates();
    let leases: Vec<_> =
        (0..100).flat_map(|seat| (0..1 + seat % 7).map(|_| loads.lease(Seat(seat))).collect::<Vec<_>>()).collect();
    Box::new(move |turn| {
        let random = turn.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let ask = Ask { hash: random.rotate_left(29), random, now: Moment::default() };
        let ready = Ready::new(&members, &loads, &[]).unwrap();
        black_box(policy.choose(black_box(ready), &ask));
        black_box(&leases);
    })
}

fn limit_check(route: &config::Route) -> Box<dyn FnMut(u64)> {
    let table = Arc::new(rate::Table::new(200_000, RandomState::new(), Instant::now()));
    let limits = rate::Limits::new("api", &route.rate_limits, &table).unwrap();
    let headers = HeaderMap::from_iter([("x-tenant".parse().unwrap(), "one".parse().unwrap())]);
    Box::new(move |turn| {
        let address = IpAddr::V4(Ipv4Addr::from_bits(turn as u32 % 100_000));
        let who = Who { address: Some(address), method: &Method::GET, headers: &headers, name: None, claim: &|_| None };
        let standings = black_box(limits.take(black_box(&who), Which::All, Instant::now()));
        assert!(standings.iter().all(|standing| !standing.refuses()));
    })
}

/// What a client is asked for, in the order of a request, with the answer's fields; copies of both heads are in it.
fn admission() -> Box<dyn FnMut(u64)> {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let mut denied = String::new();
    (0..100_000_u32).for_each(|at| writeln!(denied, "{}", Ipv4Addr::from_bits(0x0a00_0000 + 167 * at)).unwrap());
    write("denied", &denied);
    write("keys.yaml", &format!("- {{ name: bench, hash: 'sha256:{KEY_DIGEST}' }}\n"));
    write(
        "admission.yaml",
        r#"
listeners: [{ address: "127.0.0.1:0" }]
keys: { team: { file: keys.yaml } }
routes:
  - respond: { status: 200 }
    auth: { api_keys: team }
    rate_limits: [{ rate: 1000000000/s, key: api_key }]
    deny: ["file:denied"]
"#,
    );
    let checked = config::load(&folder.path().join("admission.yaml"), &Arc::default()).unwrap();
    let route = checked.config.routes.into_iter().next().unwrap();

    let sources = Sources::default();
    let lists = Lists::new(&route.allow, &route.deny, &sources.files).unwrap().unwrap();
    let gate = Gate::new(route.auth.as_ref().unwrap(), &sources).unwrap();
    let table = Arc::new(rate::Table::new(200_000, RandomState::new(), Instant::now()));
    let limits = rate::Limits::new("api", &route.rate_limits, &table).unwrap();
    let policy = HeaderValue::try_from(tell::policy(&limits).unwrap()).unwrap();
    let mut request = RequestHeader::build("GET", b"/v1/users/17", None).unwrap();
    for (name, value) in [("Host", "example.com"), ("User-Agent", "bench"), ("Accept", "*/*"), ("X-API-Key", KEY)] {
        request.insert_header(name, value).unwrap();
    }
    let mut response = ResponseHeader::build(StatusCode::OK, None).unwrap();
    response.insert_header("Content-Length", "5").unwrap();
    Box::new(move |turn| {
        let (mut asked, mut answered) = (request.clone(), response.clone());
        let address = Some(IpAddr::V4(Ipv4Addr::from_bits(0xc000_0200 + turn as u32 % 100_000)));
        assert!(lists.admit(black_box(address)));
        let headers = &asked.headers;
        let shown = Asked { headers, query: None, method: &asked.method, route: "api", address };
        // It waits for nothing.
        let Poll::Ready(identity) = pin!(gate.identify(&shown)).poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("a key is looked up at once");
        };
        let identity = identity.unwrap();
        let name = identity.as_ref().and_then(|identity| identity.name.as_deref());
        let who = Who { address, method: &asked.method, headers, name, claim: &|_| None };
        let standings = limits.take(black_box(&who), Which::All, Instant::now());
        gate.introduce(identity.as_ref(), &mut asked);
        let left = HeaderValue::try_from(tell::rate_limit(&standings).unwrap()).unwrap();
        answered.append_header("RateLimit-Policy", policy.clone()).unwrap();
        answered.append_header("RateLimit", left).unwrap();
        black_box((asked, answered));
    })
}

fn cache_look_up() -> Box<dyn FnMut(u64)> {
    let store: &'static Store = Box::leak(Box::new(Store::new(64 << 20, Eviction::Lru)));
    (0..10_000).for_each(|object| put(store, key(object), 1024));
    Box::new(move |turn| assert!(black_box(store.find(&key(turn * 7 % 10_000), None)).is_some()))
}

fn key(object: u64) -> Key {
    Writing::begin("GET", |text| {
        text.extend_from_slice(b"https://example.com/");
        text.extend_from_slice(&object.to_le_bytes());
    })
    .end()
}

/// Both heads of a request, made anew each time; that is in it.
fn header_rewriting(route: &config::Route) -> Box<dyn FnMut(u64)> {
    let chain = Chain::new(route);
    let mut request = RequestHeader::build("GET", b"/v1/users/17", None).unwrap();
    for (name, value) in [("Host", "example.com"), ("User-Agent", "bench"), ("Accept", "*/*"), ("Cookie", "a=b")] {
        request.insert_header(name, value).unwrap();
    }
    let mut response = ResponseHeader::build(StatusCode::OK, None).unwrap();
    for (name, value) in
        [("Server", "a"), ("X-Powered-By", "b"), ("Content-Type", "text/plain"), ("Content-Length", "5")]
    {
        response.insert_header(name, value).unwrap();
    }
    Box::new(move |_| {
        let (mut asked, mut answered) = (request.clone(), response.clone());
        let client = Client { address: Some(Ipv4Addr::LOCALHOST.into()), tls: true };
        assert!(chain.on_request(&mut asked, &client).is_continue() && chain.on_forward(&mut asked).is_continue());
        chain.on_response(&mut answered, &asked);
        black_box((asked, answered));
    })
}

fn log_line() -> Box<dyn FnMut(u64)> {
    let (entry, mut stamps, mut line) = (entry(), Stamps::default(), Vec::new());
    Box::new(move |_| {
        line.clear();
        black_box(&entry).write_json(&mut stamps, &mut line);
        black_box(&line);
    })
}

fn entry() -> Entry {
    let attempt = Attempt {
        backend: "10.0.0.7:8000".into(),
        outcome: "ok".into(),
        took: Duration::from_micros(700),
        no_retry: None,
    };
    Entry {
        time: SystemTime::now(),
        id: "01jq8v6t1n5m3c7d9e2f4g6h8k".into(),
        trace_id: None,
        client: Some(Ipv4Addr::new(192, 0, 2, 17).into()),
        identity: Some("team".into()),
        dry_run: None,
        method: "GET".into(),
        host: "api.example.com".into(),
        path: "/v1/users/17/orders".into(),
        route: Some("api".into()),
        upstream: Some("app".into()),
        backend: Some("10.0.0.7:8000".into()),
        attempts: vec![attempt],
        status: Some(200),
        bytes_in: 0,
        bytes_out: 4096,
        total: Duration::from_micros(930),
        first_byte: Some(Duration::from_micros(690)),
        connect: None,
        protocol: "HTTP/2",
        tls: Some("TLSv1.3"),
        cache: Some("miss".into()),
        encoding: None,
        reason: "ok",
        trace: None,
        quoted: None,
        account: Default::default(),
    }
}
