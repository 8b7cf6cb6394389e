//! Streams that are made smaller arrive as they are sent: event by event, over every protocol, and in every coding.
//!
//! No test here waits for a time: a backend sends its next event when the client has read the one before.

use crate::support;

use bytes::Bytes;
use support::coded::{Arriving, CODINGS, Reader, begin, chunk, compressing, text};
use support::{Act, Backend, H2Backend, H2Client, Lb, Script, in_time};

const ANY: &str = "{ algorithms: [zstd, br, gzip, deflate] }";

/// Sends a head, and each piece when the test lets it.
fn sending(head: &str, pieces: &[Bytes]) -> Backend {
    let head = Bytes::from(format!("HTTP/1.1 200 OK\r\n{head}\r\n"));
    let pieces = pieces.iter().flat_map(|piece| [Act::Hold, Act::Write(piece.clone())]);
    Backend::scripted(Script::each([[Act::ReadBody, Act::Write(head)].into_iter().chain(pieces).collect::<Vec<_>>()]))
}

/// Events, from a few bytes to more than a buffer.
fn events() -> Vec<String> {
    let event = |size: &usize| format!("data: {}\n\n", &text(60_000)[..*size].replace('\n', " "));
    [5, 1, 20_000, 2, 60_000, 1, 1].iter().map(event).collect()
}

fn chunks(events: &[String]) -> Vec<Bytes> {
    events.iter().map(chunk).chain(["0\r\n\r\n".into()]).collect()
}

/// Reads one event after the other: each must have come before the next is sent.
async fn follow(backend: &Backend, mut arriving: Arriving, coding: &str, events: &[String]) {
    let (mut reader, mut so_far) = (Reader::new(coding), String::new());
    for event in events {
        backend.release();
        so_far.push_str(event);
        arriving.until(&mut reader, so_far.as_bytes()).await;
    }
    backend.release();
    arriving.finish(&mut reader).await;
    assert!(reader.content() == so_far.as_bytes(), "{coding}");
}

#[tokio::test]
async fn every_event_arrives_before_the_next_is_sent() {
    for media in ["text/event-stream", "application/x-ndjson", "application/json"] {
        let events = events();
        let head = format!("Content-Type: {media}\r\nTransfer-Encoding: chunked\r\n");
        let backend = sending(&head, &chunks(&events));
        let lb = compressing(&backend, "{ algorithms: [zstd, br, gzip, deflate], types: [\"*/*\"] }").await;
        for coding in CODINGS {
            let (head, arriving) = begin(&lb, "/", &format!("Accept-Encoding: {coding}\r\n")).await;
            assert_eq!(head.field("content-encoding"), Some(coding), "{media}");
            follow(&backend, arriving, coding, &events).await;
        }
    }
}

#[tokio::test]
async fn event_streams_and_json_lines_are_compressed_unless_the_route_says_otherwise() {
    for media in ["text/event-stream", "application/x-ndjson"] {
        let events = events();
        let backend = sending(&format!("Content-Type: {media}\r\nTransfer-Encoding: chunked\r\n"), &chunks(&events));
        let lb = compressing(&backend, "{}").await;
        let (head, arriving) = begin(&lb, "/", "Accept-Encoding: gzip\r\n").await;
        let coding = head.field("content-encoding").unwrap_or("identity").to_owned();
        assert_eq!(coding, "gzip", "{media}");
        follow(&backend, arriving, &coding, &events).await;
    }
}

/// A GET over HTTP/2 whose answer's body is left to be read.
async fn begin_h2(client: &H2Client, path: &str, coding: &str) -> Arriving {
    let mut request = client.build("GET", path);
    request.headers_mut().insert("accept-encoding", coding.parse().unwrap());
    let (answer, mut sending) = client.open(request).await;
    sending.send_data(Bytes::new(), true).unwrap();
    let (head, body) = in_time("the head of an answer", answer).await.unwrap().into_parts();
    assert_eq!(head.headers.get("content-encoding").map(|value| value.to_str().unwrap()), Some(coding));
    Arriving::Http2(body)
}

#[tokio::test]
async fn every_event_arrives_over_http2_too() {
    let events = events();
    let backend = sending("Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n", &chunks(&events));
    let lb = compressing(&backend, ANY).await;
    let client = lb.h2().await;
    for coding in CODINGS {
        follow(&backend, begin_h2(&client, "/", coding).await, coding, &events).await;
    }
}

#[tokio::test]
async fn every_event_of_a_backend_that_speaks_http2_arrives() {
    let backend = H2Backend::plain();
    let lb = Lb::with_urls([backend.url()])
        .yaml_upstream("protocol: http2")
        .yaml_route(&format!("compress: {ANY}"))
        .start()
        .await;
    let client = lb.h2().await;
    for coding in CODINGS {
        // What is sent comes back, with trailers at the end.
        let mut request = client.build("POST", "/as/text/event-stream");
        request.headers_mut().insert("accept-encoding", coding.parse().unwrap());
        let (answer, mut sending) = client.open(request).await;
        let (mut reader, mut so_far, mut arriving) = (Reader::new(coding), String::new(), None);
        let mut answer = Some(answer);
        for event in ["data: 1\n\n", "data: 2\n\n", &format!("data: {}\n\n", "long ".repeat(1000)), "data: 3\n\n"] {
            sending.send_data(Bytes::copy_from_slice(event.as_bytes()), false).unwrap();
            so_far.push_str(event);
            if let Some(answer) = answer.take() {
                let (head, body) = in_time("the head of an answer", answer).await.unwrap().into_parts();
                assert_eq!(head.headers["content-encoding"], coding);
                arriving = Some(Arriving::Http2(body));
            }
            arriving.as_mut().unwrap().until(&mut reader, so_far.as_bytes()).await;
        }
        sending.send_data(Bytes::new(), true).unwrap();
        arriving.unwrap().finish(&mut reader).await;
        assert_eq!(String::from_utf8_lossy(reader.content()), so_far);
    }
}

#[tokio::test]
async fn half_of_an_announced_body_arrives_before_the_other_half_is_sent() {
    let body = text(50_000);
    let (first, second) = body.split_at(20_000);
    let head = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    let backend = sending(&head, &[first.to_owned().into(), second.to_owned().into()]);
    let lb = compressing(&backend, ANY).await;
    for coding in CODINGS {
        let (head, mut arriving) = begin(&lb, "/", &format!("Accept-Encoding: {coding}\r\n")).await;
        assert_eq!((head.field("content-length"), head.field("transfer-encoding")), (None, Some("chunked")));
        let mut reader = Reader::new(coding);
        backend.release();
        arriving.until(&mut reader, first.as_bytes()).await;
        backend.release();
        arriving.finish(&mut reader).await;
        assert!(reader.content() == body.as_bytes(), "{coding}");
    }
}

#[tokio::test]
async fn the_head_of_a_stream_arrives_before_its_first_event() {
    let backend =
        sending("Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n", &chunks(&["data: 1\n\n".into()]));
    let lb = compressing(&backend, ANY).await;
    for coding in CODINGS {
        let (head, arriving) = begin(&lb, "/", &format!("Accept-Encoding: {coding}\r\n")).await;
        assert_eq!(head.field("content-encoding"), Some(coding));
        follow(&backend, arriving, coding, &["data: 1\n\n".to_owned()]).await;
    }
}

#[tokio::test]
async fn a_stream_without_a_single_byte_is_a_whole_stream_or_no_coding_at_all() {
    let backend = sending("Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n", &chunks(&[]));
    let lb = compressing(&backend, ANY).await;
    backend.release_all();
    for coding in CODINGS {
        let got = support::coded::get_in(&lb, "/", coding).await;
        assert_eq!(support::coded::content(&got), b"", "{coding}");
        assert_eq!(got.status, 200);
    }
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_leaves_no_request_behind() {
    let events = events();
    for coding in CODINGS {
        let backend = sending("Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n", &chunks(&events));
        let lb = compressing(&backend, ANY).await;
        let (_, mut arriving) = begin(&lb, "/", &format!("Accept-Encoding: {coding}\r\n")).await;
        backend.release();
        arriving.until(&mut Reader::new(coding), events[0].as_bytes()).await;
        drop(arriving);
        backend.release();
        lb.until_idle().await;
        let line = lb.access_log(1).await.remove(0);
        assert_ne!(line["reason"], "ok", "{line}");
        assert_eq!(line["encoding"]["coding"], coding, "{line}");
    }
}

#[tokio::test]
async fn a_backend_that_closes_instead_of_ending_is_an_end_where_that_is_one() {
    let body = text(9000);
    let bytes = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{body}");
    let backend = Backend::scripted(Script::each([vec![Act::ReadBody, Act::Write(bytes.into()), Act::Close]]));
    let lb = compressing(&backend, ANY).await;
    for coding in CODINGS {
        let got = support::coded::get_in(&lb, "/", coding).await;
        assert_eq!(got.field("content-encoding"), Some(coding));
        assert!(support::coded::content(&got) == body.as_bytes(), "{coding}");
    }
}
