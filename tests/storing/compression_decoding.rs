//! Bodies in a coding that the other side does not read: they are decoded, in both directions, and what is broken stays
//! visibly broken.

use crate::support;

use std::io::ErrorKind;

use bytes::Bytes;
use support::bytes_on_the_wire::Framing;
use support::coded::{CODINGS, JSON, answer, chunk, compressing, encode, get, get_in, text};
use support::{Act, Backend, Lb, Portcullis, Script};

const TAG: (&str, &str) = ("ETag", "\"1\"");

/// A backend that answers in this coding, whatever it is asked for.
fn coding(coding: &str, body: &[u8]) -> Backend {
    Backend::writing(answer(&[JSON, TAG, ("Content-Encoding", coding)], &encode(coding, body)))
}

#[tokio::test]
async fn a_client_that_does_not_read_a_coding_gets_the_content() {
    let body = text(20_000);
    for sent in CODINGS {
        let backend = coding(sent, body.as_bytes());
        let lb = compressing(&backend, "{}").await;
        let refused = format!("Accept-Encoding: {sent};q=0, *;q=0\r\n");
        for lines in ["", "Accept-Encoding:\r\n", "Accept-Encoding: identity\r\n", &refused] {
            let got = get(&lb, "/", lines).await;
            assert_eq!((got.status, got.field("content-encoding")), (200, None), "{sent}: {lines}");
            assert!(got.body == body.as_bytes(), "{sent}: {lines}");
            assert_eq!((got.field("etag"), got.fields("vary")), (Some("W/\"1\""), vec!["Accept-Encoding"]), "{sent}");
            assert_eq!(got.framing, Framing::Chunked, "its length is not known before its end");
        }
        let over_h2 = lb.h2().await.get("/").await;
        assert_eq!((over_h2.status.as_u16(), over_h2.field("content-encoding")), (200, None));
        assert!(over_h2.body == body.as_bytes(), "{sent}");
        for line in lb.access_log(5).await {
            assert_eq!((&line["encoding"]["coding"], &line["encoding"]["decoded"]), (&"identity".into(), &sent.into()));
            assert_eq!((&line["encoding"]["after"], &line["reason"]), (&20_000.into(), &"ok".into()));
        }
    }
}

#[tokio::test]
async fn a_client_that_reads_a_coding_gets_it_as_it_was_sent() {
    for sent in CODINGS {
        let backend = coding(sent, text(20_000).as_bytes());
        let lb = compressing(&backend, "{}").await;
        let got = get_in(&lb, "/", sent).await;
        assert_eq!((got.field("content-encoding"), got.field("etag")), (Some(sent), Some("\"1\"")));
        assert!(got.body == encode(sent, text(20_000).as_bytes()), "{sent}");
        assert_eq!((got.framing, got.fields("vary")), (Framing::Length(got.body.len()), vec!["Accept-Encoding"]));
        assert!(lb.access_log(1).await[0]["encoding"].is_null());
    }
}

#[tokio::test]
async fn nothing_is_decoded_where_the_route_says_so() {
    for sent in CODINGS {
        let backend = coding(sent, text(20_000).as_bytes());
        let lb = compressing(&backend, "{ decode: false }").await;
        let got = get(&lb, "/", "").await;
        assert_eq!((got.field("content-encoding"), got.field("etag")), (Some(sent), Some("\"1\"")));
        assert!(got.body == encode(sent, text(20_000).as_bytes()), "{sent}");
    }
}

#[tokio::test]
async fn what_is_decoded_arrives_as_it_is_sent() {
    let body = text(60_000);
    for sent in CODINGS {
        let coded = encode(sent, body.as_bytes());
        let pieces = coded.chunks(1000).map(|piece| Act::Write(chunk(piece)));
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Encoding: {sent}\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        let acts =
            [Act::Write(head.into())].into_iter().chain(pieces).chain([Act::Hold, Act::Write("0\r\n\r\n".into())]);
        let backend = Backend::scripted(Script::each([acts.collect::<Vec<_>>()]));
        let lb = compressing(&backend, "{}").await;
        let (head, mut arriving) = support::coded::begin(&lb, "/", "").await;
        assert_eq!(head.field("content-encoding"), None, "whatever its type");
        let mut reader = support::coded::Reader::new("identity");
        arriving.until(&mut reader, body.as_bytes()).await;
        backend.release();
        arriving.finish(&mut reader).await;
    }
}

/// Bodies that say that they are in this coding and are not, or not to their end.
fn broken(coding: &str) -> Vec<(&'static str, Vec<u8>)> {
    let whole = encode(coding, text(50_000).as_bytes());
    let damaged = {
        let mut bytes = whole.clone();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 40].fill(0xFF);
        bytes
    };
    vec![
        ("cut in half", whole[..whole.len() / 2].to_vec()),
        ("without its last byte", whole[..whole.len() - 1].to_vec()),
        ("its first byte", whole[..1].to_vec()),
        ("damaged", damaged),
        ("something else", text(5000).into_bytes()),
        ("more behind its end", [&whole[..], b"more"].concat()),
    ]
}

#[tokio::test]
async fn a_broken_stream_is_never_a_shorter_answer() {
    for sent in CODINGS {
        for (what, body) in broken(sent) {
            let backend = Backend::writing(answer(&[JSON, ("Content-Encoding", sent)], &body));
            let lb = compressing(&backend, "{}").await;

            let mut client = lb.raw().await;
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            match client.try_read_response(Framing::UntilClose).await {
                Ok(got) => assert_eq!(got.status, 502, "{sent}, {what}: {} bytes came whole", got.body.len()),
                Err(error) => {
                    let gone = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
                    assert!(gone.contains(&error.kind()), "{sent}, {what}: {error}");
                }
            }
            let h2 = lb.h2().await;
            match h2.request(h2.build("GET", "/"), &[]).await {
                Ok(got) => assert_eq!(got.status, 502, "{sent}, {what}: {} bytes came whole", got.body.len()),
                Err(error) => assert!(error.is_reset(), "{sent}, {what}: {error}"),
            }
            for line in lb.access_log(2).await {
                assert_eq!(line["reason"], "backend_protocol", "{sent}, {what}: {line}");
            }
            lb.until_idle().await;
        }
    }
}

#[tokio::test]
async fn a_stream_that_its_backend_abandons_has_no_end() {
    let body = text(50_000);
    for coding in CODINGS.into_iter().chain(["identity"]) {
        let half = &answer(&[JSON], body.as_bytes())[..30_000];
        let acts = vec![Act::ReadBody, Act::Write(Bytes::copy_from_slice(half)), Act::Hold, Act::Reset];
        let backend = Backend::scripted(Script::each([acts]));
        let lb = compressing(&backend, "{ algorithms: [zstd, br, gzip, deflate] }").await;
        let mut client = lb.raw().await;
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {coding}\r\n\r\n")).await;
        let head = client.read_head().await;
        if coding == "identity" {
            assert_eq!(head.framing(Framing::None), Framing::Length(body.len()));
            backend.release();
            // Closed or reset, before so many bytes have come.
            let came = client.try_read_to_end().await.map_or(0, |bytes| bytes.len());
            assert!(came < body.len(), "all of what has no end");
        } else {
            assert_eq!((head.field("content-encoding"), head.framing(Framing::None)), (Some(coding), Framing::Chunked));
            assert!(!client.read_chunk().await.unwrap().is_empty(), "{coding}");
            backend.release();
            while let Ok(chunk) = client.read_chunk().await {
                assert!(!chunk.is_empty(), "{coding}: the last chunk of what has no end");
            }
        }
        let line = lb.access_log(1).await.remove(0);
        assert_ne!(line["reason"], "ok", "{coding}: {line}");
    }
}

/// Bodies that would fill the memory of whoever believes them.
fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    // RFC 8878, section 3.1.1: a window of 128 KiB; blocks of that size, as they are, or of one byte alone.
    const FRAME: [u8; 6] = [0x28, 0xB5, 0x2F, 0xFD, 0, 7 << 3];
    const REPEATED: [u8; 4] = [0x02, 0x00, 0x10, b'0'];
    let as_it_is = [&[0x00, 0x00, 0x10], &vec![b'1'; 128 << 10][..]].concat();
    let member = encode("gzip", &vec![b'0'; 1 << 20]);
    let zeros = vec![b'0'; 24 << 20];
    vec![
        ("zstd", [&FRAME[..], &REPEATED.repeat(8 << 10)].concat()),
        // 2 GiB, where a hundred times of what came would be 2.6 GB.
        ("zstd", [&FRAME[..], &as_it_is.repeat(25 << 3), &REPEATED.repeat(16 << 10)].concat()),
        ("gzip", member.repeat(1 << 10)),
        ("br", encode("br", &zeros)),
        ("deflate", encode("deflate", &zeros)),
    ]
}

/// What came of an answer in chunks that must not come to its end.
async fn until_broken_off(client: &mut support::Client) -> usize {
    let mut came = 0;
    while let Ok(chunk) = client.read_chunk().await {
        assert!(!chunk.is_empty(), "all of it came");
        came += chunk.len();
    }
    came
}

#[tokio::test]
async fn a_bomb_is_broken_off_after_what_was_harmless_of_it() {
    for (number, (coding, body)) in bombs().into_iter().enumerate() {
        let backend = Backend::writing(answer(&[JSON, ("Content-Encoding", coding)], &body));
        let lb = compressing(&backend, "{}").await;
        let mut client = lb.raw().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = client.read_head().await;
        assert_eq!(head.field("content-encoding"), None, "{coding}");
        let came = if head.first_line.contains(" 200 ") { until_broken_off(&mut client).await } else { 0 };
        let harmless = if number == 1 { (24 << 20)..=(35 << 20) } else { 0..=(10 << 20) };
        assert!(harmless.contains(&came), "{coding} {number}: {came} bytes came");
        let line = lb.access_log(1).await.remove(0);
        assert_eq!(line["reason"], "backend_protocol", "{coding} {number}: {line}");
    }
}

/// The real program, so that its memory is its own.
#[tokio::test]
async fn bombs_at_once_take_little_memory() {
    let backends: Vec<_> = bombs()
        .into_iter()
        .map(|(coding, body)| Backend::writing(answer(&[JSON, ("Content-Encoding", coding)], &body)))
        .collect();
    let urls: Vec<_> = backends.iter().map(Backend::url).collect();
    let program = Portcullis::run(&format!(
        "server: {{ threads: 2 }}\nlisteners: [{{ name: plain, address: 127.0.0.1:0 }}]\n\
         upstreams: {{ app: {{ backends: {urls:?}, health_check: none }} }}\n\
         routes: [{{ upstream: app, compress: {{}} }}]\nadmin: {{ address: none }}\nlog: {{ access: none, dashboard: none }}\n"
    ));
    let address = listening(&program).await;
    let before = program.memory("VmHWM");
    support::all_of((0..4 * urls.len()).map(|_| async move {
        let mut client = support::Client::tcp(address).await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        if client.read_head().await.first_line.contains(" 200 ") {
            until_broken_off(&mut client).await;
        }
    }))
    .await;
    let grown = (program.memory("VmHWM").saturating_sub(before)) >> 20;
    // Twenty at once: each may have 10 MiB on their way to its client, and two threads each a piece in the making, which
    // is 10 MiB and a hundred times its bytes at most, in a buffer that was doubled to get there.
    assert!(grown < 256, "{grown} MiB");
}

/// Where the program says that it listens.
async fn listening(program: &Portcullis) -> std::net::SocketAddr {
    let line = program.line_with("listening on").await;
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_head_of_what_is_coded_says_what_a_get_would() {
    for sent in CODINGS {
        let fields = [JSON, TAG, ("Content-Encoding", sent)];
        let whole = answer(&fields, &encode(sent, text(20_000).as_bytes()));
        let end = whole.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        let answers = [whole.clone(), whole.slice(..end)].map(|bytes| vec![Act::ReadBody, Act::Write(bytes)]);
        let backend = Backend::scripted(Script::each(answers));
        let lb: Lb = compressing(&backend, "{}").await;
        let got = get(&lb, "/", "").await;
        let mut client = lb.raw().await;
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = client.read_response_to_head().await;
        for name in ["content-encoding", "content-length", "etag", "vary", "content-type"] {
            assert_eq!((head.status, head.field(name)), (200, got.field(name)), "{sent}: {name}");
        }
    }
}
