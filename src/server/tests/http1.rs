//! HTTP/1: framing, limits and deadlines, as bytes on the wire.

use super::*;

const GET: &str = "GET /one HTTP/1.1\r\nHost: a\r\n\r\n";

/// Sends `bytes` on a fresh connection and again after a good request; both end with `status` and a closed connection.
async fn check(bytes: &str, status: u16, refusal: Refusal) {
    let door = Door::plain();
    for requests_before in [0, 1] {
        let mut client = door.connect().await;
        for _ in 0..requests_before {
            client.send(GET).await.response().await;
        }
        let answer = client.send(bytes).await.rest().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{requests_before}: {bytes:?}: {answer}");
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
        assert!(answer.ends_with(&format!("{}\n", refusal.words())), "{answer}");
    }
    assert_eq!(door.refusals(), [refusal, refusal], "{bytes:?}");
    assert_eq!(door.in_flight.count(), 0);
}

#[tokio::test]
async fn a_plain_connection_is_served_and_kept_alive() {
    let door = Door::plain();
    let mut client = door.connect().await;
    for path in ["/first", "/second"] {
        let answer = client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await.response().await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains(&format!("GET {path} 0 tls=none")), "{answer}");
        assert!(answer.contains("in_flight=1"), "{answer}");
    }
}

#[tokio::test]
async fn a_head_may_come_byte_by_byte() {
    let door = Door::plain();
    let mut client = door.connect().await;
    for _ in 0..2 {
        for byte in "POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc".bytes() {
            client.send([byte]).await;
        }
        let answer = client.response().await;
        assert!(answer.contains("POST /slow 3"), "{answer}");
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let door = Door::plain();
    let mut client = door.connect().await;
    let post = "POST /two HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    let chunked = "POST /three HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
    client.send(format!("{GET}{post}{chunked}{GET}")).await;
    for expected in ["GET /one 0", "POST /two 3", "POST /three 2", "GET /one 0"] {
        let answer = client.response().await;
        assert!(answer.contains(expected), "{expected}: {answer}");
    }
    assert!(door.refusals().is_empty());
}

#[tokio::test]
async fn a_client_that_closes_its_side_still_gets_its_answers() {
    let door = Door::plain();
    let mut client = door.connect().await;
    client.send(format!("{GET}{GET}")).await;
    client.0.shutdown().await.unwrap();
    assert_eq!(client.rest().await.matches("GET /one 0").count(), 2);
}

#[tokio::test]
async fn large_bodies_pass_untouched() {
    let door = Door::plain();
    let mut client = door.connect().await;
    let body = "x".repeat(300_000);
    for _ in 0..2 {
        client.send(format!("PUT /big HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n{body}")).await;
        assert!(client.response().await.contains("PUT /big 300000"));
        let chunk = format!("{:x};x=\"y\"\r\n{body}\r\n", body.len());
        client.send("PUT /big HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        client.send(format!("{chunk}{chunk}0\r\nX-Trailer: z\r\n\r\n")).await;
        assert!(client.response().await.contains("PUT /big 600000"));
    }
}

#[tokio::test]
async fn malformed_heads_are_refused_in_our_words() {
    check("GET / HTTP/1.1\nHost: a\n\n", 400, Refusal::MalformedRequest).await;
    check("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, Refusal::MalformedRequest).await;
    check("nonsense\r\n\r\n", 400, Refusal::MalformedRequest).await;
    check("GET /\0 HTTP/1.1\r\n\r\n", 400, Refusal::BadTarget).await;
    check("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405, Refusal::MethodNotSupported).await;
}

#[tokio::test]
async fn what_only_pingora_finds_malformed_is_refused_in_our_words_too() {
    check("GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", 400, Refusal::MalformedRequest).await;
}

#[tokio::test]
async fn heads_beyond_the_limits_are_refused() {
    let fields = "A: b\r\n".repeat(21);
    check(&format!("GET / HTTP/1.1\r\n{fields}\r\n"), 431, Refusal::HeaderTooLarge).await;
    let field = "b".repeat(100_000);
    check(&format!("GET / HTTP/1.1\r\nA: {field}\r\n\r\n"), 431, Refusal::HeaderTooLarge).await;
    check(&format!("GET /{field} HTTP/1.1\r\n\r\n"), 414, Refusal::TargetTooLong).await;
}

#[tokio::test]
async fn an_unfinished_head_is_answered_at_its_deadline() {
    check("GET / HTTP/1.1\r\nHost: a\r\n", 408, Refusal::HeaderTimeout).await;
}

#[tokio::test]
async fn a_head_that_trickles_is_cut_at_its_deadline_all_the_same() {
    let door = Door::plain();
    let start = std::time::Instant::now();
    let (mut reader, mut writer) = door.connect().await.0.into_split();
    let trickle = tokio::spawn(async move {
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        let _ = writer.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX: ").await;
        while writer.write_all(b"a").await.is_ok() {
            pace.tick().await;
        }
    });
    let mut answer = String::new();
    timeout(DEADLINE, reader.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(start.elapsed() < Duration::from_secs(3));
    trickle.abort();
}

#[tokio::test]
async fn a_silent_connection_is_closed_without_a_word() {
    let door = Door::plain();
    assert_eq!(door.connect().await.rest().await, "", "fresh");
    let mut client = door.connect().await;
    client.send(GET).await.response().await;
    assert_eq!(client.rest().await, "", "kept alive");
    assert!(door.refusals().is_empty());
}

#[tokio::test]
async fn empty_lines_are_no_request() {
    let door = Door::plain();
    assert_eq!(door.connect().await.send("\r\n\r\n").await.rest().await, "", "fresh");
    let mut client = door.connect().await;
    let post = "POST /two HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    assert!(client.send(format!("{post}\r\n")).await.response().await.contains("POST /two 3"));
    assert!(client.send(format!("\r\n{GET}\r\n")).await.response().await.contains("GET /one 0"));
    assert_eq!(client.send("\r\n").await.rest().await, "", "kept alive");
    assert_eq!(door.connect().await.send("\r").await.rest().await, "", "half of one");
    assert!(door.refusals().is_empty(), "{:?}", door.refusals());
}

#[tokio::test]
async fn empty_lines_are_not_endless() {
    check(&"\r\n".repeat(10_000), 400, Refusal::MalformedRequest).await;
}

#[tokio::test]
async fn a_head_that_has_begun_is_answered_though_we_leave() {
    let mut config = listener();
    config.timeouts.header = DEADLINE;
    let door = Door::open(config);
    let mut client = door.connect().await;
    let (begin, end) = GET.split_at(10);
    client.send(format!("{GET}{begin}")).await.response().await;
    door.front.stop_waiting().await;
    assert!(client.send(end).await.response().await.contains("GET /one 0"));
}

#[tokio::test]
async fn bad_chunks_are_refused_and_the_hooks_know() {
    for body in ["5;\r\nhello\r\n0\r\n\r\n", "5 \r\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n0\r\nX : y\r\n\r\n"] {
        let door = Door::plain();
        let mut client = door.connect().await;
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}")).await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{body:?}: {answer}");
    }
}

#[tokio::test]
async fn an_answer_is_seen_by_a_client_that_is_still_sending() {
    let door = Door::plain();
    let mut client = door.connect().await;
    client.send("POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n").await;
    client.send(vec![b'x'; 150_000]).await;
    let answer = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn a_connection_ends_after_its_requests() {
    let mut config = listener();
    config.limits.requests_per_connection = 2;
    let door = Door::open(config);
    let mut client = door.connect().await;
    client.send(GET).await.response().await;
    let rest = client.send(GET).await.rest().await;
    assert_eq!(rest.matches("GET /one").count(), 1, "{rest}");
}

#[tokio::test]
async fn an_answer_after_an_error_is_seen_by_a_client_that_is_still_sending() {
    let door = Door::plain();
    let mut client = door.connect().await;
    client.send("POST /fails HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n").await;
    client.send(vec![b'x'; 150_000]).await;
    let answer = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
}

#[tokio::test]
async fn a_client_that_takes_no_bytes_is_cut() {
    let mut config = listener();
    config.timeouts.write = Duration::from_millis(50);
    let door = Door::open(config);
    let mut client = door.connect().await;
    client.send("GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.0.readable().await.unwrap();
    assert_eq!(door.in_flight.count(), 1);
    timeout(DEADLINE, door.in_flight.none_left()).await.expect("the exchange ends");
}

#[tokio::test]
async fn after_a_switch_of_protocols_every_byte_passes() {
    let door = Door::plain();
    let mut client = door.connect().await;
    client.send("GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nearly").await;
    let answer = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\nearly"), "{answer}");
    assert!(door.refusals().is_empty());
}
