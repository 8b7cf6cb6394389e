//! Who is behind the balancer? The PROXY protocol through the front door: believed from those who are trusted, told to
//! those who ask for it.

use crate::support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis::proxy_protocol::{Announced, Ends, Version, read};
use support::front_door::Builder;
use support::tls::{self, Offer};
use support::{Backend, Client, Lb, Portcullis, in_time, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
const ROUTE: &str = "routes:\n  - upstream: app";
const CLIENT: &str = "192.0.2.7";

/// The header for a client behind a balancer.
fn header(version: Version) -> Vec<u8> {
    let ends = Ends { client: "192.0.2.7:5555".parse().unwrap(), server: "198.51.100.1:443".parse().unwrap() };
    version.header(Some(ends))
}

/// A front door whose first listener has these settings, and who trusts our address or nobody.
fn behind_a_balancer(backend: &Backend, settings: &str, trusted: &str) -> Builder {
    let listeners = format!(
        "listeners:\n  - {{ address: 127.0.0.1:0, {settings} }}\n  - {{ address: 127.0.0.1:0, tls: {{ self_signed: [localhost] }}, \
         {settings} }}\n  - {{ address: 127.0.0.1:0, http2: only, {settings} }}\n"
    );
    Lb::with_backends([backend])
        .yaml_section(&listeners)
        .yaml_section(&format!("server: {{ trusted_proxies: [{trusted}] }}"))
}

async fn first_bytes(lb: &Lb, bytes: impl AsRef<[u8]>) -> Client {
    let mut client = lb.raw().await;
    client.send(bytes).await;
    client
}

/// Who the backend was told the client is, in its last request.
fn told(backend: &Backend) -> String {
    let requests = backend.received();
    requests.last().unwrap().field("x-forwarded-for").unwrap().to_owned()
}

#[tokio::test]
async fn a_trusted_balancer_names_the_client_in_both_versions() {
    let backend = Backend::answering(200, "hello");
    for mode in ["accept", "require"] {
        let lb = behind_a_balancer(&backend, &format!("proxy_protocol: {mode}"), "127.0.0.1").start().await;
        for version in [Version::V1, Version::V2] {
            // The head comes with the header, and must not be lost with it.
            let mut client = first_bytes(&lb, [&header(version), GET.as_bytes()].concat()).await;
            assert_eq!(client.read_response().await.body, "hello");
            assert_eq!(told(&backend), CLIENT, "{mode} {version:?}");
            // It holds for the connection, not for one request.
            assert_eq!(client.exchange(GET).await.body, "hello");
            assert_eq!(told(&backend), CLIENT, "{mode} {version:?}");
        }
        assert!(lb.access_log(4).await.iter().all(|line| line["client"] == CLIENT));
    }
}

#[tokio::test]
async fn a_header_may_come_byte_by_byte() {
    let backend = Backend::answering(200, "hello");
    let lb = behind_a_balancer(&backend, "proxy_protocol: require", "127.0.0.1").start().await;
    for version in [Version::V1, Version::V2] {
        let mut client = lb.raw().await;
        for byte in header(version) {
            client.send([byte]).await;
        }
        assert_eq!(client.exchange(GET).await.body, "hello");
        assert_eq!(told(&backend), CLIENT);
    }
}

#[tokio::test]
async fn under_tls_and_http2_the_header_comes_first_as_well() {
    let backend = Backend::answering(200, "hello");
    let lb = behind_a_balancer(&backend, "proxy_protocol: require", "127.0.0.1").start().await;
    for (alpn, listener) in [("http/1.1", 1), ("h2", 1), ("", 2)] {
        let mut stream = TcpStream::connect(lb.address(listener)).await.unwrap();
        stream.write_all(&header(Version::V2)).await.unwrap();
        if alpn.is_empty() {
            let status = over_http2(stream).await;
            assert_eq!((status, &*told(&backend)), (200, CLIENT), "without TLS");
            continue;
        }
        let connector = TlsConnector::from(tls::client(&Offer { alpn: &[alpn], ..Offer::default() }));
        let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
        let status = if alpn == "h2" {
            over_http2(stream).await
        } else {
            stream.write_all(GET.as_bytes()).await.unwrap();
            let mut answer = [0; 12];
            in_time("an answer", stream.read_exact(&mut answer)).await.unwrap();
            String::from_utf8_lossy(&answer[9..]).parse().unwrap()
        };
        assert_eq!((status, &*told(&backend)), (200, CLIENT), "{alpn}");
    }
}

async fn over_http2(stream: impl support::client::Stream + 'static) -> u16 {
    let (requests, connection) = in_time("the preface", h2::client::handshake(stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    let request = http::Request::get("https://localhost/").body(()).unwrap();
    let (answer, _): (_, h2::SendStream<bytes::Bytes>) =
        requests.ready().await.unwrap().send_request(request, true).unwrap();
    let status = in_time("an answer", answer).await.unwrap().status().as_u16();
    driver.abort();
    status
}

#[tokio::test]
async fn whoever_speaks_for_itself_keeps_its_own_address() {
    let backend = Backend::answering(200, "hello");
    let lb = behind_a_balancer(&backend, "proxy_protocol: require", "127.0.0.1").start().await;
    for header in [Version::V1.own_header(), Version::V2.own_header(), Version::V2.header(None)] {
        let mut client = first_bytes(&lb, [&header, GET.as_bytes()].concat()).await;
        assert_eq!(client.read_response().await.status, 200);
        assert_eq!(told(&backend), "127.0.0.1");
    }
}

#[tokio::test]
async fn where_it_is_accepted_a_trusted_peer_may_do_without() {
    let backend = Backend::answering(200, "hello");
    let lb = behind_a_balancer(&backend, "proxy_protocol: accept", "127.0.0.1").start().await;

    let mut client = first_bytes(&lb, "P").await;
    client.send("UT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok").await;

    assert_eq!(client.read_response().await.body, "hello");
    assert_eq!((told(&backend), backend.only_request().body.content), ("127.0.0.1".to_owned(), "ok".into()));
}

#[tokio::test]
async fn nobody_else_is_believed() {
    let backend = Backend::answering(200, "hello");
    let lb = behind_a_balancer(&backend, "proxy_protocol: accept", "10.0.0.0/8").start().await;

    let mut liar = first_bytes(&lb, [&header(Version::V1), GET.as_bytes()].concat()).await;

    assert_eq!(liar.read_response().await.status, 400, "a stranger's header is a malformed request");
    assert_eq!(lb.access_log(1).await[0]["reason"], "malformed_request");
    assert_eq!(backend.requests(), 0);
    assert_eq!(lb.get("/").await.body, "hello");
    assert_eq!(told(&backend), "127.0.0.1");
}

#[tokio::test]
async fn without_the_key_a_header_is_a_malformed_request_also_of_a_trusted_peer() {
    let backend = Backend::answering(200, "hello");
    let lb = behind_a_balancer(&backend, "proxy_protocol: none", "127.0.0.1").start().await;

    for version in [Version::V1, Version::V2] {
        let mut client = first_bytes(&lb, [&header(version), GET.as_bytes()].concat()).await;
        assert_eq!(client.read_response().await.status, 400);
    }

    assert_eq!(backend.requests(), 0);
}

#[tokio::test]
async fn where_it_is_required_everybody_else_is_closed_at_once() {
    let backend = Backend::answering(200, "hello");
    let settings = "proxy_protocol: require, timeouts: { handshake: 300ms, header: 20s, idle: 20s }";
    let strict = behind_a_balancer(&backend, settings, "127.0.0.1").start().await;
    let strangers = behind_a_balancer(&backend, settings, "10.0.0.0/8").start().await;
    let good = [&header(Version::V1), GET.as_bytes()].concat();

    for (lb, bytes) in [
        (&strangers, &good[..]),
        (&strangers, b""),
        (&strict, GET.as_bytes()),
        (&strict, b"PROXY TCP4 nobody 1 2 3\r\n"),
        (&strict, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"),
        // These say too little, and are waited for no longer than for a handshake.
        (&strict, b"PROXY TCP4 192.0.2.1"),
        (&strict, b""),
    ] {
        let since = Instant::now();
        let mut client = lb.raw().await;
        let _ = client.try_send(bytes).await;
        client.expect_closed().await;
        assert!(
            since.elapsed() < Duration::from_secs(5),
            "{:?} took {:?}",
            String::from_utf8_lossy(bytes),
            since.elapsed()
        );
    }

    assert_eq!(backend.requests(), 0);
    assert_eq!(first_bytes(&strict, &good).await.read_response().await.body, "hello");
}

#[tokio::test]
async fn whoever_is_closed_so_is_told_and_counted() {
    let backend = Backend::answering(200, "hello");
    let config = format!(
        "listeners: [{{ address: 127.0.0.1:0, proxy_protocol: require }}]\nupstreams: {{ app: {{ backends: [{:?}] }} }}\n\
         routes: [{{ upstream: app }}]\nlog: {{ access: none, dashboard: 1s }}\nadmin: {{ address: none }}\n",
        backend.url()
    );
    let program = Portcullis::run(&config);
    let line = program.line_with("listening on ").await;
    let address = line.rsplit(' ').next().unwrap().parse().unwrap();
    for _ in 0..3 {
        Client::tcp(address).await.expect_closed().await;
    }
    program.line_with("closed a connection of 127.0.0.1: it is not in server.trusted_proxies").await;
    program.line_with("refused since the last table: proxy_protocol 3").await;
    let told = program.lines().iter().filter(|line| line.contains("closed a connection of")).count();
    assert_eq!(told, 1, "once for a whole stretch of them");
}

#[tokio::test]
async fn the_limit_of_an_address_is_that_of_the_announced_client() {
    let backend = Backend::answering(200, "hello");
    let settings = "proxy_protocol: require, max_connections_per_address: 2";
    let lb = behind_a_balancer(&backend, settings, "127.0.0.1").start().await;
    let of = |client: &str| {
        let client: SocketAddr = format!("{client}:1000").parse().unwrap();
        let ends = Ends { client, server: "198.51.100.1:443".parse().unwrap() };
        [&Version::V2.header(Some(ends)), GET.as_bytes()].concat()
    };
    let (mut first, mut second) = (first_bytes(&lb, of(CLIENT)).await, first_bytes(&lb, of(CLIENT)).await);
    assert_eq!((first.read_response().await.status, second.read_response().await.status), (200, 200));

    first_bytes(&lb, of(CLIENT)).await.expect_closed().await;

    assert_eq!(first_bytes(&lb, of("192.0.2.8")).await.read_response().await.status, 200);
    // One who is trusted itself is a proxy, and is not counted.
    let mut proxies = Vec::new();
    for _ in 0..3 {
        let mut proxy = first_bytes(&lb, of("127.0.0.1")).await;
        assert_eq!(proxy.read_response().await.status, 200);
        proxies.push(proxy);
    }
}

#[tokio::test]
async fn an_announced_client_is_believed_only_if_it_is_trusted_itself() {
    let backend = Backend::answering(200, "hello");
    let lb = behind_a_balancer(&backend, "proxy_protocol: require", "127.0.0.1, 203.0.113.0/24").start().await;
    let forged = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n";

    let mut client = first_bytes(&lb, [&header(Version::V2), forged.as_bytes()].concat()).await;
    assert_eq!(client.read_response().await.status, 200);
    assert_eq!(told(&backend), CLIENT);

    let ends = Ends { client: "203.0.113.9:1".parse().unwrap(), server: "198.51.100.1:443".parse().unwrap() };
    let mut proxy = first_bytes(&lb, [&Version::V2.header(Some(ends)), forged.as_bytes()].concat()).await;
    assert_eq!(proxy.read_response().await.status, 200);
    assert_eq!(told(&backend), "6.6.6.6, 203.0.113.9");
}

#[tokio::test]
async fn a_reload_changes_who_is_trusted_with_it() {
    let backend = Backend::answering(200, "hello");
    let lb = behind_a_balancer(&backend, "proxy_protocol: require", "10.0.0.0/8").start().await;
    lb.raw().await.expect_closed().await;

    let done = lb.reload(behind_a_balancer(&backend, "proxy_protocol: require", "127.0.0.1")).await.unwrap();
    assert_eq!(done.needs_restart, [""; 0]);
    let mut client = first_bytes(&lb, [&header(Version::V1), GET.as_bytes()].concat()).await;
    assert_eq!(client.read_response().await.body, "hello");

    let done = lb.reload(behind_a_balancer(&backend, "proxy_protocol: none", "127.0.0.1")).await.unwrap();
    assert_eq!(done.needs_restart, [0, 1, 2].map(|index| format!("listeners[{index}].proxy_protocol")));
    let mut client = first_bytes(&lb, [&header(Version::V1), GET.as_bytes()].concat()).await;
    assert_eq!(client.read_response().await.body, "hello");
}

#[tokio::test]
async fn whoever_can_open_our_socket_is_trusted() {
    let backend = Backend::answering(200, "hello");
    let listeners = "listeners: [{ address: unix:door.sock, proxy_protocol: require }]\n";
    let lb = Lb::with_backends([&backend]).yaml_section(listeners).start().await;
    let mut client = Client::unix(&lb.folder().join("door.sock")).await;

    client.send([&header(Version::V1), GET.as_bytes()].concat()).await;

    assert_eq!(client.read_response().await.body, "hello");
    assert_eq!(told(&backend), CLIENT);
}

/// What each connection began with, and how many requests came on it.
type Connections = Arc<Mutex<Vec<(Vec<u8>, usize)>>>;

/// A backend that reads one header at the beginning of each connection, and answers each request after it.
struct Told {
    address: SocketAddr,
    connections: Connections,
}

impl Told {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, connections) = (listener.local_addr().unwrap(), Connections::default());
        let all = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Self::serve(stream, all.clone()));
            }
        });
        Self { address, connections }
    }

    async fn serve(mut stream: TcpStream, all: Connections) -> Option<()> {
        let mut bytes = Vec::new();
        while read(&bytes).expect("a header should come first").is_none() {
            (stream.read_buf(&mut bytes).await.ok()? > 0).then_some(())?;
        }
        let (_, length) = read(&bytes).unwrap().unwrap();
        let rest = bytes.split_off(length);
        let place = {
            let mut all = all.lock().unwrap();
            all.push((bytes, 0));
            all.len() - 1
        };
        bytes = rest;
        loop {
            while let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
                bytes.drain(..end + 4);
                all.lock().unwrap()[place].1 += 1;
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.ok()?;
            }
            (stream.read_buf(&mut bytes).await.ok()? > 0).then_some(())?;
        }
    }

    fn connections(&self) -> Vec<(Vec<u8>, usize)> {
        self.connections.lock().unwrap().clone()
    }

    fn upstream(&self, version: &str, more: &str) -> Builder {
        Lb::yaml(format!(
            "upstreams:\n  app:\n    backends: [{{ url: {}, send_proxy: {version} }}]\n    {more}\n",
            self.address
        ))
    }
}

#[tokio::test]
async fn a_backend_is_told_the_client_once_a_connection_and_before_anything_else() {
    for (word, version) in [("v1", Version::V1), ("v2", Version::V2)] {
        let backend = Told::start().await;
        let lb = backend.upstream(word, "health_check: none").yaml_section(ROUTE).start().await;
        let stream = TcpStream::connect(lb.address(0)).await.unwrap();
        let ends = Ends { client: stream.local_addr().unwrap(), server: lb.address(0) };
        let (mut stream, mut answer) = (stream, [0; 9]);

        for _ in 0..3 {
            stream.write_all(GET.as_bytes()).await.unwrap();
            in_time("an answer", async {
                let mut all = Vec::new();
                while !all.ends_with(b"\r\n\r\nok") {
                    let count = stream.read(&mut answer).await.unwrap();
                    assert!(count > 0);
                    all.extend_from_slice(&answer[..count]);
                }
            })
            .await;
        }

        assert_eq!(backend.connections(), [(version.header(Some(ends)), 3)], "{word}");
    }
}

#[tokio::test]
async fn two_clients_never_share_a_connection_that_names_one() {
    let backend = Told::start().await;
    let lb = backend.upstream("v2", "health_check: none").yaml_section(ROUTE).start().await;

    for _ in 0..5 {
        assert_eq!(lb.get("/").await.body, "ok");
    }

    let connections = backend.connections();
    assert_eq!(connections.iter().map(|(_, requests)| *requests).collect::<Vec<_>>(), [1; 5]);
    let clients = connections.iter().map(|(header, _)| match read(header) {
        Ok(Some((Announced::Ends(ends), _))) => ends.client.port(),
        other => panic!("{other:?}"),
    });
    assert_eq!(clients.collect::<std::collections::HashSet<_>>().len(), 5);
}

#[tokio::test]
async fn an_announced_client_is_announced_on() {
    let backend = Told::start().await;
    let listeners =
        "listeners: [{ address: 127.0.0.1:0, proxy_protocol: require }]\nserver: { trusted_proxies: [127.0.0.1] }";
    let lb = backend.upstream("v1", "health_check: none").yaml_section(ROUTE).yaml_section(listeners).start().await;

    for came in [Version::V1, Version::V2] {
        let mut client = first_bytes(&lb, [&header(came), GET.as_bytes()].concat()).await;
        assert_eq!(client.read_response().await.body, "ok");
    }

    let line = "PROXY TCP4 192.0.2.7 198.51.100.1 5555 443\r\n";
    assert_eq!(backend.connections(), [(line.into(), 1), (line.into(), 1)]);
}

#[tokio::test]
async fn hedged_requests_announce_their_client_too() {
    let backend = Told::start().await;
    let retry = "routes:\n  - { upstream: app, retry: { hedge: { after: 50ms } } }";
    let lb = backend.upstream("v2", "health_check: none").yaml_section(retry).start().await;
    assert_eq!((lb.get("/").await.body, lb.get("/").await.body), ("ok".into(), "ok".into()));

    assert_eq!(backend.connections().iter().map(|(_, requests)| *requests).collect::<Vec<_>>(), [1, 1]);
}

#[tokio::test]
async fn probes_speak_for_themselves() {
    for (check, word, version) in [
        ("health_check: { interval: 100ms }", "v1", Version::V1),
        ("health_check: { interval: 100ms }", "v2", Version::V2),
        ("health_check: { path: /up, interval: 100ms }", "v1", Version::V1),
        ("health_check: { path: /up, interval: 100ms }", "v2", Version::V2),
    ] {
        let backend = Told::start().await;
        let _lb = backend.upstream(word, check).yaml_section(ROUTE).start().await;
        wait_until("two probes should come", || backend.connections().len() >= 2).await;
        for (header, _) in backend.connections() {
            assert_eq!(header, version.own_header(), "{check} {word}");
        }
    }
}

#[tokio::test]
async fn a_backend_over_tls_is_told_before_the_handshake() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let text = format!(
        "upstreams: {{ app: {{ backends: [{{ url: {url:?}, send_proxy: v2 }}], tls: {{ verify: false }}, health_check: none }} }}\n\
         routes: [{{ upstream: app }}]\n"
    );
    let lb = Lb::yaml(text).start().await;
    let mut client = lb.raw().await;
    client.send(GET).await;

    let (mut stream, _) = in_time("a connection", listener.accept()).await.unwrap();
    let mut first = [0; 16 + 12 + 2];
    in_time("the first bytes", stream.read_exact(&mut first)).await.unwrap();

    assert!(matches!(read(&first), Ok(Some((Announced::Ends(_), 28)))), "{first:?}");
    assert_eq!(first[28..], [0x16, 0x03], "a TLS handshake should follow");
}

#[tokio::test]
async fn who_comes_from_a_balancer_that_does_not_say_so_is_believed_nothing() {
    let backend = Backend::answering(200, "hello");
    let lb = behind_a_balancer(&backend, "proxy_protocol: accept", "127.0.0.1").start().await;
    let forged = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n";
    let mut client = first_bytes(&lb, format!("PROXY UNKNOWN\r\n{forged}")).await;
    assert_eq!(client.read_response().await.body, "hello");
    assert_eq!(told(&backend), "127.0.0.1");
    // Without a header the balancer speaks for itself.
    let mut client = first_bytes(&lb, forged).await;
    assert_eq!(client.read_response().await.body, "hello");
    assert_eq!(told(&backend), "6.6.6.6, 127.0.0.1");
    let clients: Vec<_> = lb.access_log(2).await.iter().map(|line| line["client"].clone()).collect();
    assert_eq!(clients, ["127.0.0.1", "6.6.6.6"]);
}
