//! The harness against itself: a test that uses it may trust that backends misbehave as they say and clients see it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic where it stands")]

mod support;

use std::io::ErrorKind;
use std::time::Duration;

use support::backend::{chunked_response, response};
use support::bytes_on_the_wire::Framing;
use support::tls::{Certificate, Offer};
use support::{Act, Backend, Client, H2Backend, H2Client, Script, in_time, wait_until};
use tokio::net::TcpStream;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";

#[tokio::test]
async fn a_backend_answers_every_request_of_a_connection() {
    let backend = Backend::answering(200, "hello");
    let mut client = Client::tcp(backend.address()).await;

    for _ in 0..3 {
        assert_eq!(client.exchange(GET).await.body, "hello");
    }

    assert_eq!((backend.connections(), backend.requests()), (1, 3));
}

#[tokio::test]
async fn a_backend_keeps_each_request_as_it_was_on_the_wire() {
    let backend = Backend::answering(200, "");
    let mut client = Client::tcp(backend.address()).await;
    let chunked = "POST /x HTTP/1.1\r\nhOst: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nT: 1\r\n\r\n";

    client.exchange(chunked).await;

    let received = backend.only_request();
    assert_eq!(received.text(), chunked);
    assert_eq!(received.body.content, "abc");
    assert_eq!(received.field("Host"), Some("a"));
}

#[tokio::test]
async fn a_refusing_port_refuses_until_it_is_restarted() {
    let backend = Backend::refusing();
    assert_eq!(TcpStream::connect(backend.address()).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);

    backend.restart().await;

    assert_eq!(Client::tcp(backend.address()).await.exchange(GET).await.status, 200);
}

#[tokio::test]
async fn a_stopped_backend_cuts_its_connections_and_comes_back_on_its_port() {
    let backend = Backend::answering(200, "hello");
    let mut client = Client::tcp(backend.address()).await;
    client.exchange(GET).await;

    backend.stop().await;
    client.expect_closed().await;
    assert_eq!(TcpStream::connect(backend.address()).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);

    backend.restart().await;
    assert_eq!(Client::tcp(backend.address()).await.exchange(GET).await.body, "hello");
}

#[tokio::test]
async fn a_dropped_backend_leaves_nothing_open() {
    let backend = Backend::hanging();
    let mut client = Client::tcp(backend.address()).await;
    client.send(GET).await;
    backend.until_requests(1).await;

    drop(backend);

    client.expect_closed().await;
}

#[tokio::test]
async fn connecting_to_a_black_hole_runs_into_the_timeout() {
    let backend = Backend::black_hole();

    let connecting = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(backend.address()));

    assert!(connecting.await.is_err());
}

#[tokio::test]
async fn a_hanging_backend_takes_the_request_and_says_nothing() {
    let backend = Backend::hanging();
    let mut client = Client::tcp(backend.address()).await;

    client.send(GET).await;
    backend.until_requests(1).await;

    let answer = tokio::time::timeout(Duration::from_millis(50), client.read_response());
    assert!(answer.await.is_err());
}

#[tokio::test]
async fn a_reset_reaches_the_client_as_a_reset() {
    for backend in [Backend::resetting_before_head(), Backend::resetting_on_accept()] {
        let mut client = Client::tcp(backend.address()).await;

        let sent = client.try_send(POST).await;
        let error = match sent {
            Ok(()) => client.try_read_to_end().await.unwrap_err(),
            Err(error) => error,
        };

        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
    }
}

#[tokio::test]
async fn a_reset_in_the_body_comes_after_its_first_half() {
    let backend = Backend::resetting_mid_body();
    let mut client = Client::tcp(backend.address()).await;
    client.send(GET).await;
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf.";
    assert_eq!(client.read_exactly(head.len()).await, head);

    backend.release();

    assert_eq!(client.try_read_to_end().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_lie_about_the_length_is_seen() {
    let (short, long) = (Backend::lying_about_length(9, "short"), Backend::lying_about_length(2, "long"));

    let mut client = Client::tcp(short.address()).await;
    client.send(GET).await;
    let error = client.try_read_response(Framing::UntilClose).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);

    let mut client = Client::tcp(long.address()).await;
    assert_eq!(client.exchange(GET).await.body, "lo");
    assert_eq!(client.read_to_end().await, "ng");
}

#[tokio::test]
async fn a_closing_backend_closes_in_order() {
    let backend = Backend::closing_after_request();
    let mut client = Client::tcp(backend.address()).await;

    client.send(POST).await;

    assert_eq!(client.read_to_end().await, "");
    assert_eq!(backend.only_request().body.content, "hello");
}

#[tokio::test]
async fn a_pooled_connection_can_go_stale() {
    let backend = Backend::stale_after(1, "hello");
    for _ in 0..2 {
        let mut client = Client::tcp(backend.address()).await;
        assert_eq!(client.exchange(GET).await.body, "hello");
        client.send(GET).await;
        assert_eq!(client.try_read_to_end().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn a_backend_can_close_after_its_last_answer() {
    let backend = Backend::closing_after(2, "hello");
    let mut client = Client::tcp(backend.address()).await;

    assert_eq!(client.exchange(GET).await.body, "hello");
    assert_eq!(client.exchange(GET).await.body, "hello");

    client.expect_closed().await;
}

#[tokio::test]
async fn a_held_answer_waits_for_its_release() {
    let backend = Backend::held("late");
    let mut client = Client::tcp(backend.address()).await;
    client.send(GET).await;
    backend.until_requests(1).await;

    backend.release();

    assert_eq!(client.read_response().await.body, "late");
}

#[tokio::test]
async fn a_slow_backend_takes_its_time() {
    let backend = Backend::slow(Duration::from_millis(50), "slow");
    let start = tokio::time::Instant::now();

    assert_eq!(Client::tcp(backend.address()).await.exchange(GET).await.body, "slow");

    assert!(start.elapsed() >= Duration::from_millis(50));
}

#[tokio::test]
async fn an_early_answer_does_not_wait_for_the_body() {
    let backend = Backend::answering_early(413, "too much");
    let mut client = Client::tcp(backend.address()).await;

    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n").await;
    assert_eq!(client.read_response().await.status, 413);
    client.send("hello").await;

    assert_eq!(client.exchange(GET).await.status, 413);
}

#[tokio::test]
async fn scripts_go_on_from_answer_to_answer_and_repeat_the_last() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let backend = Backend::scripted(Script::each([
        vec![Act::ReadBody, Act::Write(hints.into()), Act::Write(chunked_response(&["he", "llo"], &[("Sum", "1")]))],
        vec![Act::ReadBody, Act::Write(response(503, &[("Retry-After", "1")], ""))],
    ]));
    let mut client = Client::tcp(backend.address()).await;

    assert_eq!(client.exchange(GET).await.field("link"), Some("</a>"));
    let whole = client.read_response().await;
    assert_eq!((whole.body, whole.framing), ("hello".into(), Framing::Chunked));
    assert_eq!(whole.trailers, [("Sum".to_owned(), "1".to_owned())]);
    for _ in 0..2 {
        assert_eq!(client.exchange(GET).await.field("Retry-After"), Some("1"));
    }
}

#[tokio::test]
async fn an_upgraded_connection_echoes_bytes() {
    let backend = Backend::upgrading_echo();
    let mut client = Client::tcp(backend.address()).await;
    assert_eq!(client.exchange("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n").await.status, 101);

    client.send("\x01\x02 any bytes").await;

    assert_eq!(client.read_exactly(12).await, "\x01\x02 any bytes");
}

#[tokio::test]
async fn tls_tells_both_ends_what_was_agreed() {
    let backend = Backend::over_tls(Script::answering(200, "secret"));
    let mut client = Client::tls(backend.address(), "localhost").await;

    assert_eq!(client.exchange(GET).await.body, "secret");

    let handshake = client.handshake.as_ref().unwrap();
    assert_eq!(handshake.alpn.as_deref(), Some("http/1.1"));
    assert_eq!(handshake.certificate, backend.certificate().cert.to_vec());
    assert!(backend.url().starts_with("https://127.0.0.1:"));
}

#[tokio::test]
async fn a_client_chooses_its_tls_version_and_certificate() {
    let backend = Backend::over_tls(Script::answering(200, ""));
    let own = Certificate::for_names(&["client"]);
    let offer = Offer { certificate: Some(&own), versions: Some(&[&rustls::version::TLS12]), ..Offer::default() };

    let client = Client::tls_with(backend.address(), "localhost", &offer).await.unwrap();

    assert_eq!(client.handshake.unwrap().version, rustls::ProtocolVersion::TLSv1_2);
}

#[tokio::test]
async fn http2_carries_trailers_with_and_without_tls() {
    let (plain, secure) = (H2Backend::plain(), H2Backend::over_tls());
    let clients = [H2Client::plain(plain.address()).await, H2Client::tls(secure.address(), "localhost").await];
    for client in clients {
        let echoed = client.request(client.build("POST", "/echo"), &["one ", "two"]).await.unwrap();
        assert_eq!((echoed.body, echoed.trailers.unwrap()["grpc-status"].to_str().unwrap()), ("one two".into(), "0"));
        assert_eq!(client.get("/error").await.field("grpc-status"), Some("7"));
        assert!(client.request(client.build("GET", "/reset"), &[]).await.unwrap_err().is_reset());
    }
    assert_eq!(plain.heads()[0].uri.path(), "/echo");
}

#[tokio::test]
async fn waiting_ends_as_soon_as_the_condition_holds() {
    let mut asked = 0;
    in_time(
        "waiting",
        wait_until("asked three times", || {
            asked += 1;
            asked == 3
        }),
    )
    .await;
    assert_eq!(asked, 3);
}
