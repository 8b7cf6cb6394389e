//! Bodies of requests that come in a coding, for backends that read none; and what compression must not break: retries,
//! hedging and bodies that are sent again.

use crate::support;

use bytes::Bytes;
use support::backend::response;
use support::bytes_on_the_wire::Framing;
use support::coded::{CODINGS, JSON, answer, chunk, compressing, content, encode, get_in, text};
use support::front_door::Builder;
use support::{Backend, Lb, Response};

const DECODING: &str = "{ decode_requests: true }";

/// A POST whose body is these bytes, with its length or in chunks.
fn post(lines: &str, body: &[u8], chunked: bool) -> Vec<u8> {
    let head = |framing: &str| format!("POST /a HTTP/1.1\r\nHost: a\r\n{lines}{framing}\r\n\r\n").into_bytes();
    if !chunked {
        return [&head(&format!("Content-Length: {}", body.len()))[..], body].concat();
    }
    let chunks: Vec<_> = body.chunks(3000).map(chunk).collect();
    [&head("Transfer-Encoding: chunked")[..], &chunks.concat(), b"0\r\n\r\n"].concat()
}

/// The same with a method that may reach a backend twice.
fn as_put(post: &[u8]) -> Vec<u8> {
    [b"PUT", &post[4..]].concat()
}

fn in_coding(coding: &str) -> String {
    format!("Content-Encoding: {coding}\r\nContent-Type: application/json\r\nContent-MD5: eA==\r\n")
}

#[tokio::test]
async fn a_backend_gets_the_content_of_a_request_and_no_word_of_its_coding() {
    let body = text(40_000);
    let backend = Backend::answering(200, "thanks");
    let lb = compressing(&backend, DECODING).await;
    let mut client = lb.raw().await;
    for coding in CODINGS.into_iter().chain(["x-gzip", "GZIP"]) {
        for chunked in [false, true] {
            let name = coding.trim_start_matches("x-").to_lowercase();
            let got = client.exchange(post(&in_coding(coding), &encode(&name, body.as_bytes()), chunked)).await;
            assert_eq!((got.status, got.text().as_str()), (200, "thanks"), "{coding}");
            let request = backend.received().pop().unwrap();
            assert!(request.body.content == body.as_bytes(), "{coding}");
            for gone in ["content-encoding", "content-md5"] {
                assert_eq!(request.field(gone), None, "{coding}");
            }
            assert_eq!(request.field("content-type"), Some("application/json"));
            let framing = request.head.framing(Framing::None);
            assert!(framing == Framing::Chunked || framing == Framing::Length(body.len()), "{coding}: {framing:?}");
        }
    }
    assert_eq!(lb.in_flight(), 0);
}

#[tokio::test]
async fn requests_over_http2_are_decoded_too() {
    let body = "a b c ".repeat(500);
    let backend = Backend::answering(200, "thanks");
    let lb = compressing(&backend, DECODING).await;
    let client = lb.h2().await;
    for coding in CODINGS {
        let mut request = client.build("POST", "/");
        request.headers_mut().insert("content-encoding", coding.parse().unwrap());
        let (answer, mut sending) = client.open(request).await;
        for piece in encode(coding, body.as_bytes()).chunks(20) {
            sending.send_data(bytes::Bytes::copy_from_slice(piece), false).unwrap();
        }
        sending.send_data(bytes::Bytes::new(), true).unwrap();
        assert_eq!(support::in_time("an answer", answer).await.unwrap().status(), 200, "{coding}");
        let got = backend.received().pop().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&got.body.content),
            body,
            "{coding}: {}",
            String::from_utf8_lossy(&got.head.raw)
        );
    }
}

#[tokio::test]
async fn what_is_not_asked_for_is_not_done() {
    let coded = encode("gzip", text(5000).as_bytes());
    let backend = Backend::answering(200, "thanks");
    for (compress, lines) in [
        ("{}", in_coding("gzip")),
        (DECODING, in_coding("compress")),
        (DECODING, in_coding("identity")),
        (DECODING, "Content-Type: application/gzip\r\n".to_owned()),
    ] {
        let lb = compressing(&backend, compress).await;
        let mut client = lb.raw().await;
        assert_eq!(client.exchange(post(&lines, &coded, false)).await.status, 200, "{lines}");
        let request = backend.received().pop().unwrap();
        assert!(request.body.content == coded, "{lines}");
        assert_eq!(request.head.framing(Framing::None), Framing::Length(coded.len()));
    }
}

#[tokio::test]
async fn a_request_that_is_broken_is_refused_and_never_shorter() {
    for coding in CODINGS {
        let whole = encode(coding, text(50_000).as_bytes());
        for (what, body) in [
            ("something else", text(5000).into_bytes()),
            ("cut in half", whole[..whole.len() / 2].to_vec()),
            ("more behind its end", [&whole[..], b"more"].concat()),
        ] {
            let backend = Backend::answering(200, "thanks");
            let lb = compressing(&backend, DECODING).await;
            let mut client = lb.raw().await;
            client.send(post(&in_coding(coding), &body, false)).await;
            let got = client.read_response().await;
            assert_eq!(got.status, 400, "{coding}, {what}");
            let line = lb.access_log(1).await.remove(0);
            assert_ne!(line["reason"], "ok", "{line}");
            lb.until_idle().await;
            // What a backend has of it, if anything, has no end.
            for request in backend.received() {
                assert!(
                    request.body.raw.is_empty(),
                    "{coding}, {what}: {} bytes came whole",
                    request.body.content.len()
                );
            }
        }
    }
}

#[tokio::test]
async fn a_request_that_becomes_too_large_is_refused() {
    for coding in CODINGS {
        let body = vec![b'0'; 300_000];
        let backend = Backend::answering(200, "thanks");
        let lb = Lb::with_backends([&backend])
            .yaml_route(&format!("compress: {DECODING}"))
            .yaml_route("body_limit: 100KiB")
            .start()
            .await;
        let mut client = lb.raw().await;
        client.send(post(&in_coding(coding), &encode(coding, &body), false)).await;
        assert_eq!(client.read_response().await.status, 413, "{coding}");
        let fits = encode(coding, &body[..100 << 10]);
        assert_eq!(lb.raw().await.exchange(post(&in_coding(coding), &fits, true)).await.status, 200, "{coding}");
    }
}

/// Requests go to the first backend, and to the second only once the first has failed.
fn first_then(first: &Backend, second: &Backend, route: &str) -> Builder {
    Lb::yaml(format!(
        "upstreams:\n  app:\n    backends:\n      - \"{}\"\n      - {{ url: \"{}\", backup: true }}\n    \
         health_check: none\n    passive_health: none\n    obey: {{ retry_after: false }}\n\
         routes:\n  - upstream: app\n    compress: {{ decode_requests: true }}\n{route}",
        first.url(),
        second.url()
    ))
}

#[tokio::test]
async fn a_request_that_is_sent_again_is_decoded_again() {
    for (size, retry) in [(20_000, "{}"), (400_000, "{ buffer: 1MiB }")] {
        let body = text(size);
        for coding in CODINGS {
            let bad = Backend::answering(503, "busy");
            let good = Backend::answering(200, "thanks");
            let lb = first_then(&bad, &good, &format!("    retry: {retry}\n")).start().await;
            let request = as_put(&post(&in_coding(coding), &encode(coding, body.as_bytes()), true));
            assert_eq!(lb.raw().await.exchange(request).await.text(), "thanks", "{coding} {size}");
            for backend in [&bad, &good] {
                let got = backend.only_request();
                assert_eq!(
                    (got.body.content.len(), got.head.framing(Framing::None)),
                    (body.len(), Framing::Chunked),
                    "{coding}: {}",
                    got.head.first_line
                );
                assert!(got.body.content == body.as_bytes(), "{coding} {size}");
            }
        }
    }
}

/// The only answer to a GET that takes any coding.
async fn once(lb: &Lb, coding: &str) -> Response {
    let got = get_in(lb, "/", coding).await;
    lb.until_idle().await;
    assert_eq!(got.fields("content-encoding"), [coding]);
    got
}

#[tokio::test]
async fn an_answer_that_is_dropped_leaves_no_trace_in_the_next() {
    let (busy, hello) = (text(9000), text(7000));
    for coding in ["zstd", "br", "gzip"] {
        for route in ["", "    retry: { hedge: { after: 10s } }\n"] {
            let bad = Backend::writing(response(503, &[JSON, ("ETag", "\"bad\"")], &busy));
            let good = Backend::writing(answer(&[JSON, ("Vary", "Origin")], hello.as_bytes()));
            let lb = first_then(&bad, &good, route).start().await;
            let got = once(&lb, coding).await;
            assert_eq!(
                (got.status, got.field("etag"), got.fields("vary")),
                (200, None, vec!["Origin, Accept-Encoding"])
            );
            assert!(content(&got) == hello.as_bytes(), "{coding}");
            let line = lb.access_log(1).await.remove(0);
            assert_eq!((&line["encoding"]["before"], &line["status"]), (&7000.into(), &200.into()), "{line}");
        }
    }
}

#[tokio::test]
async fn the_last_answer_is_whole_where_nobody_has_a_better_one() {
    let busy = text(9000);
    for route in ["", "    retry: { hedge: { after: 10s } }\n", "    retry: { buffer: 1MiB }\n"] {
        let bad = || Backend::writing(response(503, &[JSON], &busy));
        let (first, second) = (bad(), bad());
        let lb = first_then(&first, &second, route).start().await;
        let got = once(&lb, "gzip").await;
        assert_eq!(got.status, 503, "{route}");
        assert!(content(&got) == busy.as_bytes(), "{route}");
    }
}

#[tokio::test]
async fn an_answer_that_was_held_back_is_coded_once_and_whole() {
    // The second is hardly larger than what is worth it, and smaller once it is coded; the third comes coded.
    let (busy, small) = (text(9000), text(1160));
    let coded = encode("gzip", busy.as_bytes());
    let in_gzip = ("Content-Encoding", "gzip");
    let late = |fields: &[(&str, &str)], body: &[u8]| {
        let ok = answer(fields, body);
        Bytes::from([&b"HTTP/1.1 503 Busy"[..], &ok[b"HTTP/1.1 200 OK".len()..]].concat())
    };
    for (bad, asked, expected, sent) in [
        (late(&[JSON], busy.as_bytes()), "gzip", Some("gzip"), &busy),
        (late(&[JSON], small.as_bytes()), "gzip", Some("gzip"), &small),
        (late(&[JSON, in_gzip], &coded), "identity", None, &busy),
        (late(&[JSON, in_gzip], &coded), "gzip", Some("gzip"), &busy),
    ] {
        for route in ["    retry: { attempts: 2 }\n", "    retry: { attempts: 2, buffer: 1MiB }\n"] {
            let (first, second) = (Backend::writing(bad.clone()), Backend::closing_after_request());
            let lb = first_then(&first, &second, route).start().await;
            let got = get_in(&lb, "/", asked).await;
            assert_eq!((got.status, got.field("content-encoding")), (503, expected), "{asked} {route}");
            assert!(content(&got) == sent.as_bytes(), "{asked} {route}: {} bytes", got.body.len());
        }
    }
}

#[tokio::test]
async fn whoever_answers_first_is_coded_where_two_are_asked() {
    let hello = text(50_000);
    for coding in ["zstd", "br", "gzip"] {
        let slow = Backend::held("slow");
        let quick = Backend::writing(answer(&[JSON], hello.as_bytes()));
        let lb = first_then(&slow, &quick, "    retry: { hedge: { after: 20ms } }\n").start().await;
        assert!(content(&once(&lb, coding).await) == hello.as_bytes(), "{coding}");
    }
}

#[tokio::test]
async fn the_answer_to_a_long_body_is_coded_like_any_other() {
    let hello = text(50_000);
    let good = Backend::writing(answer(&[JSON], hello.as_bytes()));
    let closing = Backend::closing_after_request();
    let lb = first_then(&closing, &good, "    retry: { buffer: 1MiB }\n").start().await;
    let body = text(200_000);
    let request = as_put(&post("Accept-Encoding: br\r\n", body.as_bytes(), true));
    let mut client = lb.raw().await;
    for _ in 0..2 {
        let got = client.exchange(&request).await;
        assert_eq!((got.status, got.field("content-encoding")), (200, Some("br")));
        assert!(content(&got) == hello.as_bytes());
    }
}
