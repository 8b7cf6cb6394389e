//! What is stored and what is still arriving, in every coding: who leaves early, who reads along, what is not worth it,
//! and what a restart leaves on the disk.

use crate::support;

use bytes::Bytes;
use support::bytes_on_the_wire::Framing;
use support::cached::get;
use support::coded::{CODINGS, JSON, Reader, answer, begin, content, text};
use support::front_door::Builder;
use support::{Act, Backend, Client, Lb, Response, Script, in_time};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=600");
const ANY: &str = "compress: { algorithms: [zstd, br, gzip, deflate] }";

fn caching(backend: &Backend) -> Builder {
    Lb::with_backends([backend]).yaml_route("cache: {}").yaml_route(ANY)
}

async fn get_in(lb: &Lb, coding: &str) -> Response {
    get(lb, "/", &format!("Accept-Encoding: {coding}\r\n")).await
}

#[tokio::test]
async fn a_body_that_is_still_arriving_is_read_along_in_every_coding() {
    let body = text(60_000);
    let (first, second) = body.split_at(25_000);
    let whole = answer(&[JSON, FRESH], body.as_bytes());
    let start = whole.slice(..whole.len() - second.len());
    let acts = vec![Act::ReadBody, Act::Write(start), Act::Hold, Act::Write(Bytes::copy_from_slice(second.as_bytes()))];
    let backend = Backend::scripted(Script::each([acts]));
    let lb = caching(&backend).start().await;
    let mut reading = Vec::new();
    for coding in CODINGS.into_iter().chain(CODINGS) {
        let (head, mut arriving) = begin(&lb, "/", &format!("Accept-Encoding: {coding}\r\n")).await;
        assert_eq!(head.field("content-encoding"), Some(coding));
        let mut reader = Reader::new(coding);
        arriving.until(&mut reader, first.as_bytes()).await;
        reading.push((arriving, reader));
    }
    backend.release();
    for (arriving, reader) in &mut reading {
        arriving.finish(reader).await;
        assert!(reader.content() == body.as_bytes());
    }
    assert_eq!(backend.requests(), 1);
}

#[tokio::test]
async fn who_leaves_early_leaves_no_half_of_anything() {
    let body = text(6 << 20);
    let backend = Backend::writing(answer(&[JSON, FRESH], body.as_bytes()));
    let lb = caching(&backend).start().await;
    get_in(&lb, "identity").await;
    for coding in CODINGS {
        for _ in 0..3 {
            let mut client = lb.raw().await;
            client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {coding}\r\n\r\n")).await;
            client.read_head().await;
            client.read_exactly(1).await;
        }
        for _ in 0..3 {
            let got = get_in(&lb, coding).await;
            assert_eq!(got.field("content-encoding"), Some(coding));
            assert!(content(&got) == body.as_bytes(), "{coding}: {} bytes", got.body.len());
        }
        until_stored(&lb, coding).await;
    }
    assert_eq!(backend.requests(), 1);
}

/// What is large is encoded beside the requests: those that come meanwhile are encoded for one by one.
async fn until_stored(lb: &Lb, coding: &str) {
    in_time("stored in the coding", async { while !matches!(get_in(lb, coding).await.framing, Framing::Length(_)) {} })
        .await;
}

#[tokio::test]
async fn who_leaves_a_stored_answer_halfway_is_at_fault_himself() {
    let backend = Backend::writing(answer(&[JSON, FRESH], text(6 << 20).as_bytes()));
    let lb = caching(&backend).start().await;
    get_in(&lb, "identity").await;
    for coding in ["gzip", "identity"] {
        let mut client = lb.raw().await;
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {coding}\r\n\r\n")).await;
        client.read_head().await;
        drop(client);
    }
    let log = lb.access_log(3).await;
    assert_eq!((&log[1]["reason"], &log[2]["reason"]), (&"client_gone".into(), &"client_gone".into()), "{log:#?}");
}

#[tokio::test]
async fn our_own_answer_is_never_taken_for_what_is_stored() {
    let body = text(20_000);
    let fields = [JSON, ("Cache-Control", "max-age=0"), ("ETag", "\"1\"")];
    let still_so = support::backend::response(304, &[("Cache-Control", "max-age=0"), ("ETag", "\"1\"")], "");
    let acts = |bytes| vec![Act::ReadBody, Act::Write(bytes)];
    let backend = Backend::scripted(Script::each([acts(answer(&fields, body.as_bytes())), acts(still_so)]));
    let compress = "compress: { algorithms: [zstd, br, gzip, deflate], min_size: 1B }";
    let lb = Lb::with_backends([&backend]).yaml_route("cache: {}").yaml_route(compress).start().await;
    get_in(&lb, "identity").await;
    for coding in CODINGS {
        let refused = get(&lb, "/", &format!("Accept-Encoding: {coding}\r\nCache-Control: only-if-cached\r\n")).await;
        assert_eq!((refused.status, refused.field("content-encoding")), (504, Some(coding)));
        assert!(content(&refused).starts_with(b"504 "), "{coding}");
        for _ in 0..2 {
            let got = get_in(&lb, coding).await;
            assert_eq!((got.status, got.field("content-encoding")), (200, Some(coding)));
            assert!(content(&got) == body.as_bytes(), "{coding}");
        }
    }
}

#[tokio::test]
async fn what_is_not_smaller_in_a_coding_is_sent_as_it_is_from_then_on() {
    let mut state = 5_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        // xorshift: nothing that a coding could make smaller.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(50_000)
    .collect();
    let backend = Backend::writing(answer(&[JSON, FRESH], &noise));
    let lb = caching(&backend).start().await;
    for coding in CODINGS {
        for _ in 0..3 {
            assert!(content(&get_in(&lb, coding).await) == noise, "{coding}");
        }
        let last = get_in(&lb, coding).await;
        assert_eq!((last.field("content-encoding"), last.framing), (None, Framing::Length(noise.len())), "{coding}");
        assert_eq!(last.fields("vary"), ["Accept-Encoding"]);
    }
    assert_eq!(backend.requests(), 1);
}

#[tokio::test]
async fn hits_leave_over_http2_in_every_coding() {
    let body = text(20_000);
    let backend = Backend::writing(answer(&[JSON, FRESH, ("ETag", "\"1\"")], body.as_bytes()));
    let lb = caching(&backend).start().await;
    let client = lb.h2().await;
    for round in 0..3 {
        for coding in CODINGS {
            let mut request = client.build("GET", "/");
            request.headers_mut().insert("accept-encoding", coding.parse().unwrap());
            let got = client.request(request, &[]).await.unwrap();
            assert_eq!((got.field("content-encoding"), got.field("etag")), (Some(coding), Some("W/\"1\"")), "{round}");
            assert!(support::coded::decode(coding, &got.body) == body.as_bytes(), "{round} {coding}");
            let length = got.body.len().to_string();
            assert!(round < 2 || got.field("content-length") == Some(&length), "{round} {coding}");
        }
    }
    assert_eq!(backend.requests(), 1);
}

#[tokio::test]
async fn a_restart_finds_on_the_disk_what_every_coding_is_made_of() {
    let body = text(20_000);
    let backend = Backend::writing(answer(&[JSON, FRESH, ("ETag", "\"1\"")], body.as_bytes()));
    let folder = tempfile::tempdir().unwrap();
    // A port is part of what an answer is stored under, and a socket has none.
    let socket = folder.path().join("edge.sock");
    let front_door = || {
        caching(&backend)
            .yaml_section(&format!("listeners: [{{ address: \"unix:{}\" }}]", socket.display()))
            .yaml_section(&format!(
                "cache: {{ disk: {{ path: \"{}\", size: 64MiB }} }}",
                folder.path().join("disk").display()
            ))
    };
    for _ in 0..2 {
        let lb = front_door().start().await;
        for coding in CODINGS.into_iter().chain(["identity"]).chain(CODINGS) {
            let request = format!("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {coding}\r\n\r\n");
            let got = Client::unix(&socket).await.exchange(request).await;
            assert_eq!(got.field("content-encoding").unwrap_or("identity"), coding);
            assert!(content(&got) == body.as_bytes(), "{coding}");
        }
        assert!(lb.shutdown().await);
    }
    assert_eq!(backend.requests(), 1);
}
