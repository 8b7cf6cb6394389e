//! What reaches the other side? The bytes that backends and clients receive, through the front door.

use crate::support;

use http::HeaderMap;
use support::backend::{Received, chunked_response, response};
use support::bytes_on_the_wire::Framing;
use support::{Act, Backend, Client, H2Backend, H2Client, Lb, Script};

const TRUSTING: &str = "server: { trusted_proxies: [127.0.0.0/8, 10.0.0.0/8] }";

/// A GET with these lines behind its Host field.
fn get(lines: &str) -> String {
    format!("GET /a?b=c HTTP/1.1\r\nHost: app.example\r\n{lines}\r\n")
}

/// All values of a field, in the order in which they came.
fn values<'a>(received: &'a Received, name: &str) -> Vec<&'a str> {
    let fields = received.head.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
    fields.map(|(_, value)| value.as_str()).collect()
}

const CLAIMS: &str = "X-Forwarded-For: 6.6.6.6, 192.0.2.7\r\nX-Forwarded-For: 10.0.0.9\r\nX-Forwarded-Proto: https\r\n\
    X-Forwarded-Host: public.example\r\nX-Forwarded-Port: 443\r\nForwarded: for=192.0.2.7\r\nX-Request-Id: theirs-1\r\n\
    Via: 1.1 before\r\n";

#[tokio::test]
async fn what_an_untrusted_client_claims_about_itself_is_replaced() {
    let backend = Backend::answering(200, "");
    let lb = Lb::with_backends([&backend]).start().await;

    assert_eq!(lb.send(&get(CLAIMS)).await.status, 200);

    let received = backend.only_request();
    assert_eq!(received.head.first_line, "GET /a?b=c HTTP/1.1");
    assert_eq!(values(&received, "Host"), ["app.example"]);
    assert_eq!(values(&received, "X-Forwarded-For"), ["127.0.0.1"]);
    assert_eq!(values(&received, "X-Forwarded-Proto"), ["http"]);
    assert_eq!(values(&received, "X-Forwarded-Host"), ["app.example"]);
    assert_eq!(values(&received, "X-Forwarded-Port"), [lb.address(0).port().to_string()]);
    assert_eq!(values(&received, "Forwarded"), ["for=127.0.0.1;host=app.example;proto=http"]);
    assert_eq!(values(&received, "Via"), ["1.1 before", "1.1 portcullis"]);
    let line = lb.access_log(1).await.remove(0);
    assert_eq!(values(&received, "X-Request-Id"), [line["id"].as_str().unwrap()]);
    assert_eq!(line["id"].as_str().unwrap().len(), 32);
    assert_eq!(line["client"], "127.0.0.1");
}

#[tokio::test]
async fn a_body_that_ends_with_an_empty_frame_ends_once() {
    let backend = Backend::answering(200, "");
    let lb = Lb::with_backends([&backend]).start().await;
    let client = lb.h2().await;
    for (parts, wanted) in [
        (&["a", "bc", ""][..], "1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"),
        (&["a", "", "b", ""], "1\r\na\r\n1\r\nb\r\n0\r\n\r\n"),
    ] {
        assert_eq!(client.request(client.build("POST", "/"), parts).await.unwrap().status, 200);
        assert_eq!(&backend.received().pop().unwrap().body.raw[..], wanted.as_bytes());
    }
    assert_eq!(client.request(client.build("POST", "/"), &[""]).await.unwrap().status, 200);
    assert_eq!((backend.requests(), backend.connections()), (3, 1), "no last chunk is taken for a request");
}

#[tokio::test]
async fn what_a_trusted_proxy_says_is_kept_and_grows_by_the_proxy() {
    let backend = Backend::answering(200, "");
    let lb = Lb::with_backends([&backend]).yaml_section(TRUSTING).start().await;

    assert_eq!(lb.send(&get(CLAIMS)).await.status, 200);

    let received = backend.only_request();
    assert_eq!(values(&received, "X-Forwarded-For"), ["6.6.6.6, 192.0.2.7, 10.0.0.9, 127.0.0.1"]);
    assert_eq!(values(&received, "X-Forwarded-Proto"), ["https"]);
    assert_eq!(values(&received, "X-Forwarded-Host"), ["public.example"]);
    assert_eq!(values(&received, "X-Forwarded-Port"), ["443"]);
    assert_eq!(values(&received, "Forwarded"), ["for=192.0.2.7, for=127.0.0.1;host=app.example;proto=http"]);
    assert_eq!(values(&received, "X-Request-Id"), ["theirs-1"]);
    let line = lb.access_log(1).await.remove(0);
    assert_eq!((&line["client"], &line["id"]), (&"192.0.2.7".into(), &"theirs-1".into()));
}

#[tokio::test]
async fn over_tls_the_backend_hears_of_https() {
    let backend = Backend::answering(200, "");
    let lb = Lb::with_backends([&backend]).start().await;

    lb.tls().await.exchange(get("")).await;
    lb.h2().await.get("/a?b=c").await;

    let port = lb.address(1).port();
    let [h1, h2] = &backend.received()[..] else { panic!("two requests were sent") };
    assert_eq!(values(h1, "Forwarded"), ["for=127.0.0.1;host=app.example;proto=https"]);
    assert_eq!(values(h2, "Forwarded"), [format!("for=127.0.0.1;host=\"localhost:{port}\";proto=https")]);
    for (received, via) in [(h1, "1.1 portcullis"), (h2, "2.0 portcullis")] {
        assert_eq!(values(received, "X-Forwarded-Proto"), ["https"]);
        assert_eq!(values(received, "X-Forwarded-Port"), [port.to_string()]);
        assert_eq!(values(received, "Via"), [via]);
    }
}

#[tokio::test]
async fn a_host_cannot_put_words_into_forwarded() {
    let backend = Backend::answering(200, "");
    let lb = Lb::with_backends([&backend]).start().await;

    let answer = lb.send("GET / HTTP/1.1\r\nHost: a;for=6.6.6.6\r\n\r\n").await;

    assert_eq!(answer.status, 200);
    assert_eq!(values(&backend.only_request(), "Forwarded"), ["for=127.0.0.1;host=\"a;for=6.6.6.6\";proto=http"]);
}

#[tokio::test]
async fn fields_for_one_hop_go_no_further_than_one_hop() {
    let backend = Backend::answering(200, "");
    let lb = Lb::with_backends([&backend]).start().await;
    let lines = "Connection: keep-alive, X-Private , X-Other\r\nX-Private: 1\r\nx-other: 2\r\nX-Public: 3\r\n\
        Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: trailers, deflate\r\nUpgrade: h2c\r\n\
        HTTP2-Settings: AAMAAABkAAQAAP__\r\n";

    assert_eq!(lb.send(&get(lines)).await.status, 200);

    let received = backend.only_request();
    for name in ["X-Private", "X-Other", "Keep-Alive", "Proxy-Connection", "TE", "Upgrade", "HTTP2-Settings"] {
        assert_eq!(values(&received, name), [""; 0], "{name}: {}", received.text());
    }
    assert!(!received.field("Connection").unwrap_or_default().to_ascii_lowercase().contains("x-"));
    assert_eq!(values(&received, "X-Public"), ["3"]);
}

#[tokio::test]
async fn a_client_cannot_strip_our_fields_by_naming_them_in_connection() {
    let backend = Backend::answering(200, "");
    let lb = Lb::with_backends([&backend]).start().await;
    let ours = [
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Forwarded-Port",
        "Forwarded",
        "Via",
        "X-Request-Id",
        "Host",
    ];

    for (sent, name) in ours.into_iter().enumerate() {
        let before = backend.requests();
        let answer = lb.send(&get(&format!("Connection: close, {name}\r\n"))).await;
        // A refusal is as good: then no backend sees the request at all.
        if answer.status == 400 {
            assert_eq!(backend.requests(), before, "{name}");
            continue;
        }
        let received = backend.received().remove(before);
        for name in ours {
            assert_eq!(values(&received, name).len(), 1, "request {sent}: {name} in {}", received.text());
        }
    }
    lb.until_idle().await;
}

#[tokio::test]
async fn the_framing_of_a_body_cannot_be_stripped_by_naming_it_in_connection() {
    let backend = Backend::answering(200, "");
    let lb = Lb::with_backends([&backend]).start().await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let length = smuggled.len();
    let bodies = [
        ("Content-Length", format!("Content-Length: {length}\r\n\r\n{smuggled}")),
        ("Transfer-Encoding", format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{smuggled}\r\n0\r\n\r\n")),
    ];

    for (name, rest) in bodies {
        let head = format!("POST /outer HTTP/1.1\r\nHost: app.example\r\nConnection: {name}\r\n");
        let answer = lb.send(&format!("{head}{rest}")).await;
        assert!(matches!(answer.status, 200 | 400), "{name}: {}", answer.status);
    }

    for received in backend.received() {
        assert_eq!(received.head.first_line, "POST /outer HTTP/1.1");
        assert_eq!(received.body.content, smuggled);
    }
}

#[tokio::test]
async fn fields_for_one_hop_of_a_response_stay_with_us() {
    let fields = [
        ("Connection", "close, X-Private"),
        ("X-Private", "1"),
        ("X-Public", "2"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "close"),
        ("Upgrade", "h2c"),
        ("Via", "1.1 inner"),
    ];
    let script = Script::each([vec![Act::ReadBody, Act::Write(response(200, &fields, "hello")), Act::Close]]);
    let backend = Backend::scripted(script);
    let lb = Lb::with_backends([&backend]).start().await;
    let mut client = lb.raw().await;

    for _ in 0..2 {
        let answer = client.exchange(get("")).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
        assert_eq!(answer.fields("Connection"), ["keep-alive"]);
        for name in ["X-Private", "Keep-Alive", "Proxy-Connection", "Upgrade"] {
            assert_eq!(answer.field(name), None, "{name}");
        }
        assert_eq!(answer.field("X-Public"), Some("2"));
        assert_eq!(answer.fields("Via"), ["1.1 inner", "1.1 portcullis"]);
    }
    // A client of HTTP/2 must not see any of them: the whole response would be malformed (RFC 9113, section 8.2.2).
    let answer = lb.h2().await.get("/").await;
    assert_eq!(
        (answer.field("x-private"), answer.field("keep-alive"), answer.field("x-public")),
        (None, None, Some("2"))
    );
}

#[tokio::test]
async fn a_websocket_passes_and_no_other_upgrade_does() {
    let backend = Backend::upgrading_echo();
    let lb = Lb::with_backends([&backend]).start().await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
    let mut client = lb.raw().await;

    let answer = client.exchange(get(upgrade)).await;
    assert_eq!((answer.status, answer.field("upgrade")), (101, Some("websocket")));
    assert!(answer.field("connection").unwrap().eq_ignore_ascii_case("upgrade"));
    let bytes = "\x01\x02 not http\r\n\r\n";
    client.send(bytes).await;
    assert_eq!(client.read_exactly(bytes.len()).await, bytes);
    assert_eq!(lb.in_flight(), 1);
    drop(client);

    lb.until_idle().await;
    let line = lb.access_log(1).await.remove(0);
    assert_eq!((&line["status"], &line["reason"]), (&101.into(), &"ok".into()));
    assert_eq!(values(&backend.only_request(), "Upgrade"), ["websocket"]);
}

#[tokio::test]
async fn a_backend_that_declines_an_upgrade_leaves_an_ordinary_connection() {
    let backend = Backend::answering(200, "no");
    let lb = Lb::with_backends([&backend]).start().await;
    let mut client = lb.raw().await;

    let first = client.exchange(get("Connection: Upgrade\r\nUpgrade: websocket\r\n")).await;

    assert_eq!((first.status, first.text().as_str()), (200, "no"));
    if first.field("connection").is_none() {
        assert_eq!(client.exchange(get("")).await.text(), "no");
    }
    assert!(backend.received().iter().all(|it| it.head.first_line == "GET /a?b=c HTTP/1.1"));
}

#[tokio::test]
async fn an_upgrade_that_nobody_asked_for_reaches_no_client() {
    let backend = Backend::upgrading_echo();
    let lb = Lb::with_backends([&backend]).start().await;

    let answer = lb.send(&get("")).await;

    assert_eq!(answer.status, 502);
    assert_eq!(lb.access_log(1).await[0]["reason"], "backend_protocol");
}

/// A POST that asks first.
const ASKING: &str = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";

fn continuing() -> Backend {
    let go_on = "HTTP/1.1 100 Continue\r\n\r\n";
    Backend::scripted(Script::each([vec![
        Act::Write(go_on.into()),
        Act::ReadBody,
        Act::Write(response(200, &[], "done")),
    ]]))
}

#[tokio::test]
async fn an_expectation_is_passed_on_and_its_answer_comes_back() {
    let backend = continuing();
    let lb = Lb::with_backends([&backend]).start().await;
    let mut client = lb.raw().await;

    client.send(ASKING).await;
    let interim = client.read_response().await;
    assert_eq!((interim.status, interim.headers), (100, vec![("via".to_owned(), "1.1 portcullis".to_owned())]));
    client.send("hello").await;

    assert_eq!(client.read_response().await.text(), "done");
    let received = backend.only_request();
    assert_eq!((values(&received, "Expect"), &received.body.content[..]), (vec!["100-continue"], &b"hello"[..]));
    assert_eq!(lb.access_log(1).await[0]["status"], 200);
}

#[tokio::test]
async fn a_client_of_http_1_0_sees_no_interim_answer() {
    let backend = continuing();
    let lb = Lb::with_backends([&backend]).start().await;

    let answer = lb.send("POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello").await;

    assert_eq!((answer.status, answer.text().as_str()), (200, "done"));
    assert_eq!(values(&backend.only_request(), "Expect"), [""; 0]);
}

#[tokio::test]
async fn a_backend_may_decline_before_the_body_is_sent() {
    let backend = Backend::answering_early(403, "no");
    let listeners = "listeners: [{ address: 127.0.0.1:0, timeouts: { body: 100ms } }]";
    let lb = Lb::with_backends([&backend]).yaml_section(listeners).start().await;
    let mut client = lb.raw().await;

    let answer = client.exchange(ASKING).await;

    // The client may send the body or not, so nothing that follows could be told from it.
    assert_eq!((answer.status, answer.text().as_str(), answer.field("connection")), (403, "no", Some("close")));
    client.expect_closed().await;
    assert_eq!(lb.access_log(1).await[0]["reason"], "ok");
    assert_eq!(lb.upstream("app").members()[0].backend.reading().errors, 0);
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_still_uploads() {
    let backend = Backend::answering_early(200, "enough");
    let lb = Lb::with_backends([&backend]).start().await;
    let mut client = lb.raw().await;

    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nhello").await;
    let answer = client.read_response().await;

    assert_eq!((answer.status, answer.text().as_str(), answer.field("connection")), (200, "enough", Some("close")));
    drop(client);
    lb.until_idle().await;
    assert_eq!(lb.access_log(1).await[0]["reason"], "ok");
    assert_eq!(lb.upstream("app").members()[0].backend.reading().errors, 0);
}

#[tokio::test]
async fn an_answer_without_a_body_is_followed_by_the_next_answer() {
    for (method, status) in [("HEAD", 200), ("GET", 204), ("GET", 304)] {
        // A 204 has no length (RFC 9110, section 8.6); the others may tell that of the body they leave out.
        let length = if status == 204 { "" } else { "Content-Length: 5\r\n" };
        let bare = format!("HTTP/1.1 {status} Bare\r\nETag: \"1\"\r\n{length}\r\n");
        let acts = vec![
            vec![Act::ReadBody, Act::Write(bare.into())],
            vec![Act::ReadBody, Act::Write(response(200, &[], "next"))],
        ];
        let backend = Backend::scripted(Script::each(acts));
        let lb = Lb::with_backends([&backend]).start().await;
        let mut client = lb.raw().await;

        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let first = client.read_response_to_head().await;
        let next = client.exchange(get("")).await;
        let first = String::from_utf8_lossy(&first.raw).into_owned();

        assert_eq!((next.status, next.text().as_str()), (200, "next"), "{method} {status}");
        assert!(!first.contains("Transfer-Encoding"), "{first}");
        assert_eq!(first.contains("Content-Length: 5\r\n"), status != 204, "{first}");
    }
}

#[tokio::test]
async fn a_body_where_none_may_be_spoils_no_later_answer() {
    for (method, status) in [("HEAD", 200), ("GET", 204), ("GET", 304)] {
        let bytes = format!(
            "HTTP/1.1 {status} Liar\r\nContent-Length: 40\r\n\r\nHTTP/1.1 200 OK\r\nX: smuggled\r\n\r\n........"
        );
        let acts = vec![
            vec![Act::ReadBody, Act::Write(bytes.into())],
            vec![Act::ReadBody, Act::Write(response(200, &[], "next"))],
        ];
        let backend = Backend::scripted(Script::each(acts));
        let lb = Lb::with_backends([&backend]).start().await;

        let mut client = lb.raw().await;
        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
        let seen = client.try_read_to_end().await.unwrap_or_default();
        assert!(!String::from_utf8_lossy(&seen).contains("smuggled"), "{seen:?}");
        let next = lb.get("/").await;

        assert_eq!((next.status, next.text().as_str()), (200, "next"), "{method} {status}");
    }
}

#[tokio::test]
async fn a_chunked_response_loses_its_trailers_and_nothing_else() {
    let backend = Backend::writing(chunked_response(&["hello ", "world"], &[("X-Sum", "42")]));
    let lb = Lb::with_backends([&backend]).start().await;
    let mut client = lb.raw().await;

    for _ in 0..2 {
        let answer = client.exchange(get("TE: trailers\r\nConnection: TE\r\n")).await;
        assert_eq!((answer.framing, answer.text().as_str()), (Framing::Chunked, "hello world"));
        assert_eq!(answer.trailers, []);
    }
    let answer = lb.h2().await.get("/").await;
    assert_eq!((answer.body, answer.headers.get("transfer-encoding")), ("hello world".into(), None));
}

#[tokio::test]
async fn a_chunked_upload_arrives_whole_and_without_its_extensions() {
    let backend = Backend::answering(200, "");
    let lb = Lb::with_backends([&backend]).start().await;
    let chunks = "5;name=value\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 42\r\n\r\n";

    let answer = lb.send(&format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")).await;

    let received = backend.only_request();
    assert_eq!((answer.status, &received.body.content[..]), (200, &b"hello!"[..]));
    assert_eq!(
        (values(&received, "Transfer-Encoding"), values(&received, "Content-Length")),
        (vec!["chunked"], vec![])
    );
    assert!(!received.text().contains("name=value"), "{}", received.text());
    assert_eq!(lb.access_log(1).await[0]["bytes_in"], 6);
}

/// An upload with trailers over HTTP/2; gives the body of the answer and its trailer `x-sum`, if it has one.
async fn upload_with_trailers(lb: &Lb) -> (String, Option<String>) {
    let client = lb.h2().await;
    let (answer, mut sending) = client.open(client.build("POST", "/")).await;
    sending.send_data("hello".into(), false).unwrap();
    sending.send_trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), "42".parse().unwrap())])).unwrap();
    let mut body = answer.await.unwrap().into_body();
    let mut content = Vec::new();
    while let Some(part) = body.data().await {
        content.extend(part.unwrap());
    }
    let trailers = body.trailers().await.unwrap().unwrap_or_default();
    let sum = trailers.get("x-sum").map(|value| value.to_str().unwrap().to_owned());
    (String::from_utf8(content).unwrap(), sum)
}

#[tokio::test]
async fn the_trailers_of_a_request_go_no_further_and_its_body_does() {
    let chunks = "5\r\nhello\r\n0\r\nX-Sum: 42\r\n\r\n";
    let chunked = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
    let plain = Backend::answering(200, "");
    let lb = Lb::with_backends([&plain]).start().await;
    lb.send(&chunked).await;
    upload_with_trailers(&lb).await;
    for received in plain.received() {
        assert_eq!((&received.body.content[..], received.body.trailers), (&b"hello"[..], vec![]));
    }

    // It would send them back.
    let echo = H2Backend::plain();
    let lb = Lb::with_urls([echo.url()]).yaml_upstream("protocol: http2").start().await;
    assert_eq!(upload_with_trailers(&lb).await, ("hello".into(), None));
    assert_eq!(lb.send(&chunked).await.body, "hello");
}

#[tokio::test]
async fn the_trailers_of_a_response_arrive_from_http2_to_http2_only() {
    let echo = H2Backend::plain();
    let lb = Lb::with_urls([echo.url()]).yaml_upstream("protocol: http2").start().await;
    let client = lb.h2().await;

    let answer = client.get("/").await;

    assert_eq!(answer.trailer("grpc-status"), Some("0"));
    assert_eq!(lb.get("/").await.trailers, []);
}

#[tokio::test]
async fn a_response_that_ends_with_its_connection_is_framed_anew() {
    let backend = Backend::scripted(Script::each([vec![
        Act::ReadBody,
        Act::Write("HTTP/1.1 200 OK\r\n\r\nhello".into()),
        Act::Close,
    ]]));
    let lb = Lb::with_backends([&backend]).start().await;
    let mut client = lb.raw().await;

    for _ in 0..2 {
        let answer = client.exchange(get("")).await;
        assert_eq!((answer.framing, answer.text().as_str()), (Framing::Chunked, "hello"));
    }
    let old = lb.send("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!((old.framing, old.text().as_str()), (Framing::UntilClose, "hello"));
}

#[tokio::test]
async fn a_request_over_http2_becomes_a_plain_one_for_the_backend() {
    let backend = Backend::answering(200, "hello");
    let lb = Lb::with_backends([&backend]).start().await;
    let client = lb.h2().await;
    let mut request = client.build("GET", "/a?b=c");
    for crumb in ["a=1", "b=2"] {
        request.headers_mut().append("cookie", crumb.parse().unwrap());
    }
    request.headers_mut().append("te", "trailers".parse().unwrap());

    let answer = client.request(request, &[]).await.unwrap();

    assert_eq!((answer.status.as_u16(), answer.body), (200, "hello".into()));
    let received = backend.only_request();
    assert_eq!(received.head.first_line, "GET /a?b=c HTTP/1.1");
    assert_eq!(values(&received, "Host"), [format!("localhost:{}", lb.address(1).port())]);
    // RFC 9113, section 8.2.3: crumbs are joined where they leave HTTP/2.
    assert_eq!(values(&received, "Cookie"), ["a=1; b=2"]);
    for name in ["TE", "Transfer-Encoding", "Content-Length"] {
        assert_eq!(values(&received, name), [""; 0], "{name}");
    }
    assert!(!received.text().contains("\r\n:"), "{}", received.text());
}

#[tokio::test]
async fn an_upload_over_http2_is_framed_for_the_backend() {
    let backend = Backend::answering(200, "");
    let lb = Lb::with_backends([&backend]).start().await;
    let client = lb.h2().await;

    client.request(client.build("POST", "/open"), &["hello ", "world"]).await.unwrap();
    let mut known = client.build("POST", "/known");
    known.headers_mut().insert("content-length", "5".parse().unwrap());
    client.request(known, &["he", "llo"]).await.unwrap();

    let [open, known] = &backend.received()[..] else { panic!("two requests were sent") };
    assert_eq!((values(open, "Transfer-Encoding"), values(open, "Content-Length")), (vec!["chunked"], vec![]));
    assert_eq!(open.body.content, "hello world");
    assert_eq!((values(known, "Transfer-Encoding"), values(known, "Content-Length")), (vec![], vec!["5"]));
    assert_eq!(known.body.content, "hello");
}

#[tokio::test]
async fn a_rewrite_changes_what_the_backend_is_asked_and_nothing_else() {
    let backend = Backend::answering(200, "");
    let rewrite = "rewrite: { strip_prefix: /v1, add_prefix: /api, host: backend.internal }";
    let lb = Lb::with_backends([&backend]).yaml_route(rewrite).start().await;
    let h2 = lb.h2().await;

    lb.get("/v1/a%20b/?c=d%2F&e").await;
    lb.get("/x/../v1").await;
    lb.get("/v10/a").await;
    h2.get("/v1/a").await;

    let received = backend.received();
    let lines = received.iter().map(|it| it.head.first_line.as_str()).collect::<Vec<_>>();
    let wanted =
        ["/api/a%20b/?c=d%2F&e", "/api/", "/api/v10/a", "/api/a"].map(|target| format!("GET {target} HTTP/1.1"));
    assert_eq!(lines, wanted);
    for request in &received {
        assert_eq!(values(request, "Host"), ["backend.internal"], "{}", request.text());
        assert!(request.field("X-Forwarded-Host").unwrap().starts_with("localhost"));
    }
    let paths = lb.access_log(4).await.iter().map(|line| line["path"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(paths, ["/v1/a%20b/", "/x/../v1", "/v10/a", "/v1/a"]);
}

#[tokio::test]
async fn a_target_that_is_not_rewritten_is_forwarded_byte_for_byte() {
    let backend = Backend::answering(200, "");
    let lb = Lb::with_backends([&backend]).start().await;
    let targets = ["/a//b/./c/../d%2Fe%7e?x=%zz&y={1|2}^`", "/?", "/%e4", "/;p=1,2:@!$&'()*+"];

    for target in targets {
        assert_eq!(lb.get(target).await.status, 200, "{target}");
    }

    let lines = backend.received().iter().map(|it| it.head.first_line.clone()).collect::<Vec<_>>();
    assert_eq!(lines, targets.map(|target| format!("GET {target} HTTP/1.1")));
}

#[tokio::test]
async fn an_absolute_target_is_forwarded_as_path_and_host() {
    let backend = Backend::answering(200, "");
    let lb = Lb::with_backends([&backend]).start().await;

    let answer = lb.send("GET http://app.example:80/a?b HTTP/1.1\r\nHost: app.example:80\r\n\r\n").await;

    let received = backend.only_request();
    assert_eq!((answer.status, received.head.first_line.as_str()), (200, "GET /a?b HTTP/1.1"));
    assert_eq!(values(&received, "Host"), ["app.example:80"]);
    assert_eq!(lb.access_log(1).await[0]["host"], "app.example");
}

#[tokio::test]
async fn a_route_edits_fields_both_ways() {
    let backend = Backend::writing(response(200, &[("X-Old", "1"), ("Server", "inner"), ("X-Add", "theirs")], ""));
    let edits = "headers: { request: { set: { X-Set: new }, add: { X-Add: more }, remove: [X-Gone] }, \
        response: { set: { X-Old: new }, add: { X-Add: ours }, remove: [Server] } }";
    let lb = Lb::with_backends([&backend]).yaml_route(edits).start().await;

    let answer = lb.send(&get("X-Set: old\r\nX-Set: older\r\nX-Add: theirs\r\nX-Gone: 1\r\n")).await;

    let received = backend.only_request();
    assert_eq!(values(&received, "X-Set"), ["new"]);
    assert_eq!(values(&received, "X-Add"), ["theirs", "more"]);
    assert_eq!(values(&received, "X-Gone"), [""; 0]);
    assert_eq!((answer.fields("X-Old"), answer.fields("X-Add")), (vec!["new"], vec!["theirs", "ours"]));
    assert_eq!(answer.field("Server"), None);
}

#[tokio::test]
async fn the_inside_is_told_only_where_a_route_exposes_it() {
    let backend = Backend::answering(200, "");
    let closed = Lb::with_backends([&backend]).start().await;
    let answer = closed.get("/").await;
    assert_eq!((answer.field("X-Backend-Server"), answer.field("Server-Timing")), (None, None));

    let open = Lb::with_backends([&backend]).yaml_route("expose: [backend, timing]").start().await;
    let answer = open.get("/").await;
    assert_eq!(answer.field("X-Backend-Server"), Some(backend.address().to_string().as_str()));
    let timing = answer.field("Server-Timing").unwrap();
    let numbers = timing.strip_prefix("portcullis;dur=").and_then(|rest| rest.split_once(", upstream;dur="));
    let (ours, theirs) = numbers.unwrap_or_else(|| panic!("{timing}"));
    assert!(ours.parse::<f64>().unwrap() >= 0.0 && theirs.parse::<f64>().unwrap() >= 0.0, "{timing}");
}

#[tokio::test]
async fn over_a_unix_socket_the_sender_is_believed() {
    let backend = Backend::answering(200, "");
    let lb = Lb::with_backends([&backend]).yaml_section("listeners:\n  - { address: unix:front.sock }").start().await;
    let mut client = Client::unix(&lb.folder().join("front.sock")).await;

    client.exchange(get(CLAIMS)).await;
    client.exchange(get("")).await;

    let [told, silent] = &backend.received()[..] else { panic!("two requests were sent") };
    assert_eq!(values(told, "X-Forwarded-For"), ["6.6.6.6, 192.0.2.7", "10.0.0.9"]);
    assert_eq!(values(told, "X-Request-Id"), ["theirs-1"]);
    assert_eq!(values(silent, "X-Forwarded-For"), [""; 0]);
    assert_eq!(values(silent, "Forwarded"), ["for=unknown;host=app.example;proto=http"]);
    assert_eq!(values(silent, "X-Forwarded-Port"), [""; 0]);
    // Nobody is trusted behind the socket, so the nearest address is the client.
    assert_eq!(lb.access_log(2).await[0]["client"], "10.0.0.9");
}

#[tokio::test]
async fn a_request_id_that_would_spoil_a_log_is_made_anew() {
    let backend = Backend::answering(200, "");
    let lb = Lb::with_backends([&backend]).yaml_section(TRUSTING).start().await;

    for bad in ["a b".to_owned(), "x".repeat(129), String::new(), "caf\u{e9}".to_owned()] {
        lb.send(&get(&format!("X-Request-Id: {bad}\r\n"))).await;
    }

    for received in backend.received() {
        let id = received.field("X-Request-Id").unwrap();
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id:?}");
    }
}

#[tokio::test]
async fn http2_streams_of_one_connection_are_apart() {
    let backend = Backend::held("hello");
    let lb = Lb::with_backends([&backend]).start().await;
    let client = H2Client::tls(lb.address(1), "localhost").await;

    let (one, two) = (client.get("/one"), client.get("/two"));
    let release = async {
        backend.until_requests(2).await;
        assert_eq!(lb.in_flight(), 2);
        backend.release_all();
    };
    let (one, two, ()) = tokio::join!(one, two, release);

    assert_eq!((one.body, two.body), ("hello".into(), "hello".into()));
    lb.until_idle().await;
}

#[tokio::test]
async fn bytes_behind_a_response_are_never_the_next_response() {
    let extra = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled";
    let acts = vec![
        vec![Act::ReadBody, Act::Write(extra.into())],
        vec![Act::ReadBody, Act::Write(response(200, &[], "next"))],
    ];
    let backend = Backend::scripted(Script::each(acts));
    let lb = Lb::with_backends([&backend]).start().await;

    assert_eq!(lb.get("/").await.text(), "ok");
    assert_eq!(lb.get("/").await.text(), "next");
    assert_eq!(backend.connections(), 2);
}

#[tokio::test]
async fn a_length_beside_chunks_reaches_no_client() {
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let backend = Backend::writing(both);
    let lb = Lb::with_backends([&backend]).start().await;

    let answer = lb.get("/").await;

    // RFC 9112, section 6.3: chunks win over the length, or the response is refused.
    assert!(
        answer.status == 502 || (answer.text() == "hello" && answer.field("content-length").is_none()),
        "{answer:?}"
    );
}

#[tokio::test]
async fn an_upgrade_answer_over_http2_is_a_bad_gateway() {
    let backend = Backend::upgrading_echo();
    let lb = Lb::with_backends([&backend]).start().await;

    assert_eq!(lb.h2().await.get("/").await.status, 502);

    assert_eq!(lb.access_log(1).await[0]["reason"], "backend_protocol");
    lb.until_idle().await;
}

#[tokio::test]
async fn a_silent_tunnel_ends_and_leaves_nothing_behind() {
    let backend = Backend::upgrading_echo();
    let lb = Lb::with_backends([&backend]).yaml_upstream("timeouts: { tunnel: 100ms }").start().await;
    let mut client = lb.raw().await;
    client.exchange(get("Connection: Upgrade\r\nUpgrade: websocket\r\n")).await;

    client.send("echo").await;
    assert_eq!(client.read_exactly(4).await, "echo");
    client.expect_closed().await;

    lb.until_idle().await;
    assert_eq!(lb.access_log(1).await[0]["reason"], "stalled_response");
}

#[tokio::test]
async fn an_old_request_without_a_host_is_a_valid_one_for_the_backend() {
    let backend = Backend::answering(200, "hello");
    let lb = Lb::with_backends([&backend]).start().await;

    let answer = lb.send("GET / HTTP/1.0\r\n\r\n").await;

    let received = backend.only_request();
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    // RFC 9112, section 3.2: a request of HTTP/1.1 has a Host field, be it empty; one of HTTP/1.0 may do without.
    let valid = received.head.first_line.ends_with("HTTP/1.0") || values(&received, "Host").len() == 1;
    assert!(valid, "{}", received.text());
    assert_eq!(values(&received, "X-Forwarded-Host"), [""; 0]);
    assert_eq!(values(&received, "Forwarded"), ["for=127.0.0.1;proto=http"]);
}

#[tokio::test]
async fn an_early_answer_over_http2_is_whole_and_nobodys_error() {
    let backend = Backend::answering_early(200, "enough");
    let lb = Lb::with_backends([&backend]).start().await;
    let client = lb.h2().await;
    let (answer, mut sending) = client.open(client.build("POST", "/")).await;
    sending.send_data("hello".into(), false).unwrap();

    let (head, mut body) = support::in_time("an answer", answer).await.unwrap().into_parts();
    let first = support::in_time("a body", body.data()).await.unwrap().unwrap();
    assert_eq!((head.status.as_u16(), first), (200, "enough".into()));
    drop((body, sending));

    lb.until_idle().await;
    assert_eq!(lb.access_log(1).await[0]["status"], 200);
    assert_eq!(lb.upstream("app").members()[0].backend.reading().errors, 0);
}

#[tokio::test]
async fn an_expectation_over_http2_is_answered() {
    let backend = continuing();
    let lb = Lb::with_backends([&backend]).start().await;
    let client = lb.h2().await;
    let mut request = client.build("POST", "/");
    request.headers_mut().insert("expect", "100-continue".parse().unwrap());

    let answer = client.request(request, &["hello"]).await.unwrap();

    assert_eq!((answer.status.as_u16(), answer.body), (200, "done".into()));
    assert_eq!(backend.only_request().body.content, "hello");
}

#[tokio::test]
async fn each_half_of_a_rewrite_works_alone_over_both_protocols() {
    for (rewrite, target, host) in [
        ("rewrite: { strip_prefix: /v1 }", "/a", "localhost"),
        ("rewrite: { host: backend.internal }", "/v1/a", "backend.internal"),
    ] {
        let backend = Backend::answering(200, "");
        let lb = Lb::with_backends([&backend]).yaml_route(rewrite).start().await;

        lb.get("/v1/a").await;
        lb.h2().await.get("/v1/a").await;

        let received = backend.received();
        assert_eq!(received.len(), 2);
        for request in &received {
            assert_eq!(request.head.first_line, format!("GET {target} HTTP/1.1"));
            assert_eq!(values(request, "Host").len(), 1);
            assert!(values(request, "Host")[0].starts_with(host), "{}", request.text());
        }
    }
}

#[tokio::test]
async fn a_client_cannot_name_away_what_a_route_sets() {
    let backend = Backend::answering(200, "");
    let lb = Lb::with_backends([&backend]).yaml_route("headers: { request: { set: { X-Tenant: a } } }").start().await;

    lb.send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: X-Tenant\r\nX-Tenant: b\r\n\r\n").await;

    assert_eq!(values(&backend.only_request(), "X-Tenant"), ["a"]);
}

#[tokio::test]
async fn edits_have_the_last_word_about_forwarding_fields() {
    let backend = Backend::answering(200, "");
    let edits = "headers: { request: { set: { X-Forwarded-Proto: https }, remove: [Forwarded] } }";
    let lb = Lb::with_backends([&backend]).yaml_route(edits).start().await;

    lb.get("/").await;

    let request = backend.only_request();
    assert_eq!(values(&request, "X-Forwarded-Proto"), ["https"]);
    assert_eq!(values(&request, "Forwarded"), [""; 0]);
}
