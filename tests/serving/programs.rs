//! Programs that are built on Portcullis: the examples, and what the file may say of what they bring.

use portcullis::config::{Address, Problem};
use portcullis::custom::{Filter, Reply, Request, Response, Verdict};
use portcullis::{FrontDoor, HeaderName, HeaderValue, Program};

use crate::support::{Backend, Client};

#[allow(dead_code, reason = "its `main` is for those who run it")]
#[path = "../../examples/ab_test.rs"]
mod ab_test;
#[allow(dead_code, reason = "its `main` is for those who run it")]
#[path = "../../examples/nearest.rs"]
mod nearest;

use self::ab_test::AbTest;
use self::nearest::Nearest;

fn load(program: Program, yaml: &str) -> Result<portcullis::config::Config, Vec<Problem>> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("portcullis.yaml");
    std::fs::write(&file, yaml).unwrap();
    program.load(&file).map(|checked| checked.config)
}

/// The front door of a program, and a connection to it.
async fn open(program: Program, upstream: &str, route: &str) -> (FrontDoor, Client) {
    let yaml = format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\nadmin: {{ address: none }}\nlog: {{ access: none }}\n\
         upstreams: {{ app: {{ health_check: none, {upstream} }} }}\nroutes: [{{ upstream: app, {route} }}]\n"
    );
    let door = FrontDoor::start(load(program, &yaml).unwrap()).await.unwrap();
    let [Address::Tcp(address)] = door.addresses() else { panic!("one listener") };
    let client = Client::tcp(*address).await;
    (door, client)
}

fn address(door: &FrontDoor) -> std::net::SocketAddr {
    match door.addresses() {
        [Address::Tcp(address)] => *address,
        _ => panic!("one listener"),
    }
}

fn get(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")
}

#[tokio::test]
async fn an_ab_test_tells_backends_and_stays_with_a_visitor() {
    for (percent, variant, other) in [(100, "b", "a"), (0, "a", "b")] {
        let backend = Backend::answering(200, "hello");
        let filters = format!("filters: [{{ ab_test: {{ percent: {percent}, cookie: seen }} }}]");
        let program = Program::new().filter("ab_test", AbTest::new);
        let (_door, mut client) = open(program, &format!("backends: [\"{}\"]", backend.url()), &filters).await;
        let first = client.exchange(get("X-Variant: of-a-liar\r\nConnection: x-variant\r\n")).await;
        let cookie = format!("seen={variant}; Path=/; Max-Age=2592000; SameSite=Lax");
        assert_eq!(first.field("set-cookie"), Some(&*cookie));
        let again = client.exchange(get(&format!("Cookie: x=y; seen={other}\r\n"))).await;
        assert_eq!(again.field("set-cookie"), None, "who has a variant keeps it");
        let told: Vec<_> = backend.received().iter().map(|it| it.field("x-variant").map(str::to_owned)).collect();
        assert_eq!(told[1].as_deref(), Some(other));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nearest_serve_until_they_have_enough() {
    let (near, far) = (Backend::held("near"), Backend::held("far"));
    let upstream = format!(
        "balance: {{ nearest: {{ zone: eu, enough: 2 }} }}, backends: [{{ url: \"{}\", name: us/1 }}, {{ url: \"{}\", name: eu/1 }}]",
        far.url(),
        near.url()
    );
    let (door, _) = open(Program::new().policy("nearest", Nearest::new), &upstream, "").await;
    let [Address::Tcp(address)] = door.addresses() else { panic!("one listener") };
    let mut waiting = Vec::new();
    for count in 1..=3 {
        let mut client = Client::tcp(*address).await;
        client.send(get("")).await;
        waiting.push(client);
        match count {
            1 | 2 => near.until_requests(count).await,
            _ => far.until_requests(1).await,
        }
    }
    assert_eq!((near.requests(), far.requests()), (2, 1));
}

/// Closes at night, and signs what it lets through.
struct Everywhere;

impl Filter for Everywhere {
    fn on_request(&self, request: &mut Request<'_>) -> Verdict {
        match request.header("x-night") {
            Some(status) => Verdict::Answer(Reply::text(status.parse().unwrap(), "asleep\n")),
            None => Verdict::GoOn,
        }
    }

    fn on_forward(&self, request: &mut Request<'_>) {
        request.set(HeaderName::from_static("x-signed"), HeaderValue::from_static("yes"));
    }

    fn on_response(&self, response: &mut Response<'_>, request: &Request<'_>) {
        let path = request.path().parse().unwrap();
        response.set(HeaderName::from_static("x-path"), path);
    }
}

#[tokio::test]
async fn hooks_that_every_route_has_answer_change_and_cannot_be_taken_away_by_clients() {
    let backend = Backend::answering(200, "hello");
    let program = Program::new().everywhere(Everywhere);
    let (door, mut client) = open(program, &format!("backends: [\"{}\"]", backend.url()), "").await;
    for (status, answered, body) in [("100", 500, None), ("204", 204, Some("")), ("304", 304, Some(""))] {
        let answer = Client::tcp(address(&door)).await.exchange(get(&format!("X-Night: {status}\r\n"))).await;
        assert_eq!(answer.status, answered);
        assert!(body.is_none_or(|body| answer.text() == body), "{}", answer.text());
    }
    let asleep = client.exchange(get("X-Night: 503\r\n")).await;
    assert_eq!((asleep.status, asleep.text(), backend.requests()), (503, "asleep\n".to_owned(), 0));
    assert_eq!(asleep.field("x-path"), Some("/"));
    let awake = client.exchange(get("Connection: x-signed\r\n")).await;
    assert_eq!((awake.status, awake.field("x-path")), (200, Some("/")));
    assert_eq!(backend.only_request().field("x-signed"), Some("yes"));
}

/// Does to each field of the connection what it can, where the request says `X-What`.
struct Meddler;

const OF_THE_CONNECTION: [&str; 8] =
    ["connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

fn meddle(request: &mut Request<'_>) {
    let what = request.header("x-what").unwrap_or_default().to_owned();
    for name in OF_THE_CONNECTION.into_iter().map(HeaderName::from_static) {
        match &*what {
            "set" => request.set(name, HeaderValue::from_static("7")),
            _ => request.remove(&name),
        }
    }
    request.remove(&HeaderName::from_static("host"));
}

impl Filter for Meddler {
    fn on_request(&self, request: &mut Request<'_>) -> Verdict {
        meddle(request);
        let mut reply = Reply::text(portcullis::StatusCode::OK, "mine\n");
        reply
            .headers
            .extend(OF_THE_CONNECTION.map(|name| (HeaderName::from_static(name), HeaderValue::from_static("chunked"))));
        if request.header("x-what") == Some("reply") { Verdict::Answer(reply) } else { Verdict::GoOn }
    }

    fn on_forward(&self, request: &mut Request<'_>) {
        meddle(request);
    }

    fn on_response(&self, response: &mut Response<'_>, request: &Request<'_>) {
        for name in OF_THE_CONNECTION.into_iter().map(HeaderName::from_static) {
            match request.header("x-what") {
                Some("set") => response.set(name, HeaderValue::from_static("7")),
                Some("append") => response.append(name, HeaderValue::from_static("7")),
                _ => response.remove(&name),
            }
        }
    }
}

#[tokio::test]
async fn what_frames_messages_is_not_for_filters_to_change() {
    let backend = Backend::answering(200, "hello");
    let program = Program::new().everywhere(Meddler);
    let (_door, mut client) = open(program, &format!("backends: [\"{}\"]", backend.url()), "").await;
    for what in ["set", "append", "remove"] {
        let request = format!("POST / HTTP/1.1\r\nHost: localhost\r\nX-What: {what}\r\nContent-Length: 5\r\n\r\nwhole");
        let answer = client.exchange(request).await;
        assert_eq!((answer.text(), answer.fields("content-length")), ("hello".to_owned(), vec!["5"]), "{what}");
        assert!(["transfer-encoding", "upgrade", "te"].iter().all(|name| answer.field(name).is_none()), "{what}");
        let received = backend.received().pop().unwrap();
        let of_the_connection = received.head.fields.iter().map(|(name, _)| name.to_lowercase());
        let of_the_connection: Vec<_> = of_the_connection.filter(|name| OF_THE_CONNECTION.contains(&&**name)).collect();
        assert_eq!(of_the_connection, ["content-length"], "{what}");
        assert_eq!((received.field("host"), &received.body.content[..]), (Some("localhost"), &b"whole"[..]), "{what}");
    }
    let reply = client.exchange(get("X-What: reply\r\n")).await;
    assert_eq!((reply.text(), reply.fields("content-length")), ("mine\n".to_owned(), vec!["5"]));
    assert_eq!((reply.field("transfer-encoding"), backend.requests()), (None, 3));
}

#[test]
fn what_is_wrong_with_things_that_a_program_brings_is_told_with_its_place() {
    let yaml = "listeners: [{ address: 127.0.0.1:0 }]\nupstreams:\n  app:\n    balance: { neerest: {} }\n    backends: [127.0.0.1:1]\n\
                routes:\n  - upstream: app\n    filters: [ab_tset, { ab_test: { percent: 101, cookie: c } }, { a: 1, b: 2 }, { ab_test: 5 }]\n";
    let program = Program::new().filter("ab_test", AbTest::new).policy("nearest", Nearest::new);
    let told: Vec<_> = load(program, yaml).unwrap_err().iter().map(ToString::to_string).collect();
    let whole = told.join("\n");
    for part in [
        ":4:14: upstreams.app.balance: this must be a way to choose a backend, not `neerest`",
        "did you mean `nearest`?",
        ":8:15: routes[0].filters[0]: there is no filter `ab_tset`",
        "did you mean `ab_test`?",
        ":8:24: routes[0].filters[1]: `ab_test` cannot be made: percent is at most 100",
        "routes[0].filters[2]: this must be one name, with a mapping of its settings",
        "routes[0].filters[3]: this must be one name, with a mapping of its settings",
    ] {
        assert!(whole.contains(part), "{part} is not in:\n{whole}");
    }
}
