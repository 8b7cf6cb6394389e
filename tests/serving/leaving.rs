//! Leaving: what is in flight finishes, what is idle is closed, and nothing waits longer than it must.

use crate::support;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use support::tls::Offer;
use support::{Backend, Client, H2Client, Portcullis, in_time, wait_until};
use tokio::net::TcpStream;

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Types of HTTP/2 frames (RFC 9113, section 6).
const DATA: u8 = 0;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

/// The program in front of this backend: without TLS, with it, and its admin address.
async fn start(backend: &Backend, server: &str) -> (Portcullis, [SocketAddr; 3]) {
    let program = Portcullis::run(&format!(
        "server: {{ {server} }}\nlisteners:\n  - {{ address: 127.0.0.1:0 }}\n  - {{ address: 127.0.0.1:0, tls: {{ \
         self_signed: [localhost] }} }}\nupstreams: {{ app: {{ backends: [\"{}\"], health_check: none }} }}\n\
         routes: [{{ upstream: app }}]\nadmin: {{ address: 127.0.0.1:0 }}\n",
        backend.url()
    ));
    let admin = address_in(&program.line_with("/readyz on ").await);
    let lines = program.lines_with("listening on ", 2).await;
    let addresses = [address_in(&lines[0]), address_in(&lines[1]), admin];
    (program, addresses)
}

fn address_in(line: &str) -> SocketAddr {
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// A client whose request is held by the backend.
async fn waiting(backend: &Backend, address: SocketAddr) -> Client {
    let before = backend.requests();
    let mut client = Client::tcp(address).await;
    client.send(GET).await;
    backend.until_requests(before + 1).await;
    client
}

async fn until_refused(address: SocketAddr) {
    let refuses = async {
        loop {
            match TcpStream::connect(address).await {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => return,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    in_time("new connections should be refused", refuses).await;
}

#[tokio::test]
async fn sigterm_refuses_new_connections_and_finishes_what_is_in_flight() {
    let backend = Backend::held("late");
    let (mut program, [plain, tls, _]) = start(&backend, "grace_period: 1h").await;
    let mut client = waiting(&backend, plain).await;

    program.signal("TERM");
    until_refused(plain).await;
    until_refused(tls).await;
    backend.release();

    let response = client.read_response().await;
    assert_eq!((response.status, response.text().as_str()), (200, "late"));
    assert_eq!(response.field("connection"), Some("close"), "RFC 9112, section 9.6");
    client.expect_closed().await;
    assert_eq!(program.exit_code().await, Some(0), "long before the grace period is over");
    program.line_with("draining: 1 requests in flight").await;
    program.line_with("drained").await;
}

#[tokio::test]
async fn with_nothing_in_flight_it_leaves_soon_whatever_is_connected() {
    let backend = Backend::named("a");
    let (mut program, [plain, tls, admin]) = start(&backend, "grace_period: 1h").await;
    let mut silent = Client::tcp(plain).await;
    let mut used = Client::tcp(plain).await;
    used.exchange(GET).await;
    let mut secure = Client::tls(tls, "localhost").await;
    secure.exchange(GET).await;
    let mut half = Client::tcp(plain).await;
    half.send("GET / HTTP/1.1\r\nHos").await;
    let mut shaking = Client::tcp(tls).await;
    shaking.send([22, 3, 1]).await;
    let mut asking = Client::tcp(admin).await;
    asking.send("GET /hea").await;

    let began = Instant::now();
    program.signal("TERM");

    assert_eq!(program.exit_code().await, Some(0));
    // One second is for the last bytes of connections that have not been closed.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    for client in [&mut silent, &mut used, &mut secure, &mut half, &mut shaking, &mut asking] {
        client.expect_closed().await;
    }
}

#[tokio::test]
async fn a_request_whose_head_had_begun_has_the_grace_period_too() {
    let backend = Backend::held("late");
    let (mut program, [plain, ..]) = start(&backend, "grace_period: 1h").await;
    let (begin, end) = GET.split_at(10);
    let mut silent = Client::tcp(plain).await;
    let mut client = Client::tcp(plain).await;
    client.send(format!("{GET}{begin}")).await;
    backend.release();
    assert_eq!(client.read_response().await.status, 200);

    program.signal("TERM");
    // Then nothing is in flight, and who waits for a request is told to go.
    silent.expect_closed().await;
    client.send(end).await;
    backend.until_requests(2).await;
    // Longer than the second that last bytes have.
    let exit = tokio::time::timeout(Duration::from_millis(1500), program.exit_code());
    assert!(exit.await.is_err(), "it should not leave before the answer");
    backend.release();
    assert_eq!(client.read_response().await.status, 200);
    assert_eq!(program.exit_code().await, Some(0));
}

#[tokio::test]
async fn idle_connections_are_closed_while_another_request_finishes() {
    let backend = Backend::held("late");
    let (mut program, [plain, tls, _]) = start(&backend, "grace_period: 1h").await;
    backend.release();
    backend.release();
    let mut idle = Client::tcp(plain).await;
    idle.exchange(GET).await;
    let mut secure = Client::tls(tls, "localhost").await;
    secure.exchange(GET).await;
    let mut silent = Client::tcp(plain).await;
    let mut client = waiting(&backend, plain).await;

    program.signal("TERM");

    idle.expect_closed().await;
    secure.expect_closed().await;
    silent.expect_closed().await;
    backend.release();
    assert_eq!(client.read_response().await.body, "late");
    assert_eq!(program.exit_code().await, Some(0));
}

#[tokio::test]
async fn connections_that_came_before_the_signal_are_served() {
    let backend = Backend::named("a");
    let (mut program, [plain, ..]) = start(&backend, "grace_period: 1h, threads: 1").await;
    // While it is stopped, the system queues connections for it.
    program.signal("STOP");
    let mut clients = Vec::new();
    for _ in 0..100 {
        let mut client = Client::tcp(plain).await;
        client.send(GET).await;
        clients.push(client);
    }

    program.signal("TERM");
    program.signal("CONT");

    for client in &mut clients {
        assert_eq!(client.read_response().await.body, "a");
        client.expect_closed().await;
    }
    assert_eq!(program.exit_code().await, Some(0));
}

#[tokio::test]
async fn the_grace_period_cuts_a_request_that_hangs() {
    let backend = Backend::hanging();
    let (mut program, [plain, ..]) = start(&backend, "grace_period: 50ms").await;
    let mut client = waiting(&backend, plain).await;

    program.signal("TERM");

    assert_eq!(program.exit_code().await, Some(0));
    client.expect_closed().await;
    program.line_with("the grace period is over").await;
}

#[tokio::test]
async fn while_the_drain_is_delayed_readyz_says_no_and_requests_are_served() {
    let backend = Backend::named("a");
    let (mut program, [plain, _, admin]) = start(&backend, "drain_delay: 1h").await;
    let ask =
        async |path: &str| Client::tcp(admin).await.exchange(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    assert_eq!(ask("/readyz").await.status, 200);
    let mut before = Client::tcp(plain).await;
    before.exchange(GET).await;

    program.signal("TERM");
    let not_ready = async {
        while ask("/readyz").await.status == 200 {}
        ask("/readyz").await
    };
    let not_ready = in_time("/readyz should say no", not_ready).await;

    assert_eq!((not_ready.status, not_ready.text().trim()), (503, "not ready: draining"));
    assert_eq!(ask("/healthz").await.status, 200);
    let again = before.exchange(GET).await;
    assert_eq!((again.text().as_str(), again.field("connection")), ("a", Some("keep-alive")));
    assert_eq!(Client::tcp(plain).await.exchange(GET).await.body, "a");
    program.signal("INT");
    assert_eq!(program.exit_code().await, Some(0), "a wish to leave at once ends the delay");
}

#[tokio::test]
async fn an_http2_connection_is_told_to_go_and_its_stream_finishes() {
    let backend = Backend::held("late");
    let (mut program, [plain, tls, _]) = start(&backend, "grace_period: 1h").await;
    let busy = H2Client::tls(tls, "localhost").await;
    let mut idle = idle_http2(&backend, tls).await;

    let meanwhile = async {
        backend.until_requests(2).await;
        program.signal("TERM");
        until_refused(plain).await;
        assert_eq!(next_frame(&mut idle, GOAWAY).await[4..], [0; 4], "NO_ERROR");
        // Streams that were on their way count until the client has answered a PING; then comes the last word.
        let ping = next_frame(&mut idle, PING).await;
        idle.send([&[0, 0, 8, PING, 1, 0, 0, 0, 0][..], &ping].concat()).await;
        assert_eq!(next_frame(&mut idle, GOAWAY).await[..], [0, 0, 0, 1, 0, 0, 0, 0], "stream 1 was the last");
        idle.expect_closed().await;
        backend.release();
    };
    let (response, ()) = tokio::join!(busy.get("/"), meanwhile);

    assert_eq!((response.status.as_u16(), &response.body[..]), (200, &b"late"[..]));
    assert_eq!(program.exit_code().await, Some(0));
}

/// An HTTP/2 connection, byte by byte, that has had one request.
async fn idle_http2(backend: &Backend, address: SocketAddr) -> Client {
    let offer = Offer { alpn: &["h2"], ..Offer::default() };
    let mut client = Client::tls_with(address, "localhost", &offer).await.unwrap();
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    // GET https / by the static table (RFC 7541, appendix A), then the authority as a literal.
    let headers = [&[0, 0, 14, 1, 5, 0, 0, 0, 1, 0x82, 0x87, 0x84, 0x41, 9][..], b"localhost"].concat();
    client.send([&settings[..], &headers].concat()).await;
    backend.release();
    assert_eq!(next_frame(&mut client, DATA).await, b"late"[..]);
    client
}

/// The payload of the next frame of this type.
async fn next_frame(client: &mut Client, wanted: u8) -> Bytes {
    loop {
        let head = client.read_exactly(9).await;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let payload = client.read_exactly(length).await;
        if head[3] == wanted {
            return payload;
        }
    }
}

#[tokio::test]
async fn sigint_leaves_at_once_also_during_a_drain() {
    let backend = Backend::hanging();
    for first in [None, Some("TERM")] {
        let (mut program, [plain, ..]) = start(&backend, "grace_period: 1h, drain_delay: 0s").await;
        let mut client = waiting(&backend, plain).await;
        if let Some(first) = first {
            program.signal(first);
            until_refused(plain).await;
            // Signals that mean nothing now do not end it either.
            program.signal("HUP");
            program.signal("TERM");
        }

        program.signal("INT");

        assert_eq!(program.exit_code().await, Some(0));
        client.expect_closed().await;
        program.line_with("leaving at once").await;
    }
}

#[tokio::test]
async fn the_access_log_is_whole_when_the_program_has_left() {
    let backend = Backend::held("late");
    let (mut program, [plain, ..]) = start(&backend, "grace_period: 1h").await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(waiting(&backend, plain).await);
    }

    program.signal("TERM");
    until_refused(plain).await;
    backend.release_all();

    assert_eq!(program.exit_code().await, Some(0));
    let lines = || program.lines().into_iter().filter(|line| line.contains("\"status\":200")).count();
    wait_until("each request should have its line", || lines() == 10).await;
}

#[tokio::test]
async fn a_socket_file_is_gone_with_the_program_however_it_leaves() {
    for signal in ["TERM", "INT"] {
        let folder = tempfile::tempdir().unwrap();
        let yaml = "listeners: [{ address: \"unix:edge.sock\" }]\nroutes: [{ respond: { status: 200, body: x } }]\n\
                    admin: { address: \"unix:admin.sock\" }\n";
        std::fs::write(folder.path().join("portcullis.yaml"), yaml).unwrap();
        let sockets = ["edge.sock", "admin.sock"].map(|name| folder.path().join(name));
        let mut program = Portcullis::start(folder, &["run", "-c", "portcullis.yaml"]);
        program.lines_with(" on unix:", 2).await;
        assert_eq!(Client::unix(&sockets[0]).await.exchange(GET).await.body, "x");
        assert!(sockets[1].exists());

        program.signal(signal);

        assert_eq!(program.exit_code().await, Some(0));
        assert_eq!(sockets.map(|path| path.exists()), [false, false], "{signal}");
    }
}
