//! What is made smaller and what is left alone, and what becomes of heads: through the front door, on the wire.

use crate::support;

use bytes::Bytes;
use support::backend::response;
use support::bytes_on_the_wire::Framing;
use support::coded::{CODINGS, JSON, answer, chunk, compressing, content, decode, get, get_in, text};
use support::{Act, Backend, Lb, Response, Script};

const ANY: &str = "{ algorithms: [zstd, br, gzip, deflate] }";
/// One that the front door passes on, so that answers can be compared byte for byte.
const DATE: (&str, &str) = ("Date", "Sun, 06 Nov 1994 08:49:37 GMT");

#[tokio::test]
async fn an_answer_is_smaller_and_its_head_says_what_is_true_of_it() {
    let text = text(20_000);
    let of_the_body = ["Content-MD5", "Digest", "Content-Digest", "Repr-Digest"].map(|name| (name, "x=:eA==:"));
    let fields =
        [&[JSON, ("ETag", "\"1\""), ("Accept-Ranges", "bytes"), ("X-Own", "stays")], &of_the_body[..]].concat();
    let backend = Backend::writing(answer(&fields, text.as_bytes()));
    let lb = compressing(&backend, ANY).await;
    for coding in CODINGS {
        let got = get_in(&lb, "/", coding).await;
        assert_eq!((got.status, got.field("content-encoding"), got.framing), (200, Some(coding), Framing::Chunked));
        assert_eq!((got.field("etag"), got.fields("vary")), (Some("W/\"1\""), vec!["Accept-Encoding"]));
        assert_eq!((got.field("content-type"), got.field("x-own")), (Some("application/json"), Some("stays")));
        for gone in ["content-length", "accept-ranges", "content-md5", "digest", "content-digest", "repr-digest"] {
            assert_eq!(got.field(gone), None, "{coding}: {gone}");
        }
        assert!(got.body.len() < text.len() / 3, "{coding}: {} bytes", got.body.len());
        assert!(decode(coding, &got.body) == text.as_bytes(), "{coding}");
    }
}

#[tokio::test]
async fn the_log_tells_what_became_of_the_body() {
    let backend = Backend::writing(answer(&[JSON], text(20_000).as_bytes()));
    let lb = compressing(&backend, ANY).await;
    let mut sent = Vec::new();
    for coding in CODINGS {
        sent.push(get_in(&lb, "/", coding).await.body.len());
    }
    get_in(&lb, "/", "identity").await;
    let log = lb.access_log(CODINGS.len() + 1).await;
    for ((line, coding), sent) in log.iter().zip(CODINGS).zip(sent) {
        let encoding = &line["encoding"];
        assert_eq!((&encoding["coding"], &encoding["before"]), (&coding.into(), &20_000.into()), "{line}");
        assert_eq!(encoding["after"], sent, "{line}");
        let ratio = (sent as f64 / 20.0).round() / 1000.0;
        assert_eq!(encoding["ratio"], ratio, "{line}");
        assert!(encoding["ms"].as_f64().unwrap() > 0.0 && encoding.get("decoded").is_none(), "{line}");
        assert_eq!(line["reason"], "ok");
    }
    assert!(log[CODINGS.len()]["encoding"].is_null(), "{}", log[CODINGS.len()]);
}

#[tokio::test]
async fn head_gets_the_head_of_get() {
    let fields = [JSON, DATE, ("ETag", "\"1\""), ("Accept-Ranges", "bytes"), ("Vary", "Origin")];
    let whole = answer(&fields, text(5000).as_bytes());
    let head_only = whole.slice(..whole.len() - 5000);
    for lines in ["", "Accept-Encoding: br\r\n", "Accept-Encoding: zstd;q=0\r\n"] {
        let answers = [whole.clone(), head_only.clone(), whole.clone()];
        let backend = Backend::scripted(Script::each(answers.map(|answer| vec![Act::Write(answer)])));
        let lb = compressing(&backend, ANY).await;
        let got = get(&lb, "/", lines).await;
        let mut client = lb.raw().await;
        client.send(format!("HEAD / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).await;
        let head = client.read_response_to_head().await;
        assert_eq!(head.status, 200);
        // How the end of a body is told may be left out where there is none (RFC 9110, section 9.3.2).
        let but_framing = |got: &Response| {
            let fields = got.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("transfer-encoding"));
            fields.cloned().collect::<Vec<_>>()
        };
        assert_eq!(but_framing(&head), but_framing(&got), "{lines}");
        // Nothing follows a HEAD, so the next answer begins where it ended.
        let next = client.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!((next.status, next.body.len()), (200, 5000), "{lines}");
    }
}

/// A request's lines, the answer to it, and whether it is asked with HTTP/1.0.
struct Alone {
    what: &'static str,
    lines: &'static str,
    answer: Bytes,
    version: &'static str,
}

fn alone(what: &'static str, answer: Bytes) -> Alone {
    Alone { what, lines: "", answer, version: "1.1" }
}

/// What must leave as it came, byte for byte.
fn left_alone() -> Vec<Alone> {
    let body = text(4000);
    let with = |fields: &[(&str, &str)]| answer(&[&[JSON, DATE, ("ETag", "\"1\"")], fields].concat(), body.as_bytes());
    let typed = |media| answer(&[("Content-Type", media), DATE], body.as_bytes());
    let status =
        |status, fields: &[(&str, &str)], body: &str| response(status, &[&[JSON, DATE], fields].concat(), body);
    let bare = |status| Bytes::from(format!("HTTP/1.1 {status} X\r\n{}: {}\r\nETag: \"1\"\r\n\r\n", DATE.0, DATE.1));
    let trailed = [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n",
        &chunk(&body)[..],
        b"0\r\nX-Sum: 1\r\n\r\n",
    ];
    vec![
        alone("no content", bare(204)),
        alone("a part", status(206, &[("Content-Range", "bytes 0-3999/9000")], &body)),
        alone("a part with another status", with(&[("Content-Range", "bytes 0-3999/9000")])),
        alone("a range that cannot be had", status(416, &[("Content-Range", "bytes */9000")], &body)),
        alone("no-transform", with(&[("Cache-Control", "max-age=1, No-Transform")])),
        alone("a coding that we do not speak", with(&[("Content-Encoding", "compress")])),
        alone("two codings", with(&[("Content-Encoding", "br, gzip")])),
        alone("grpc", typed("application/grpc+proto")),
        alone("a type that is not listed", typed("image/png")),
        alone("nothing like a type", typed("json")),
        alone("no type", answer(&[DATE], body.as_bytes())),
        alone("a byte too small", answer(&[JSON, DATE], &body.as_bytes()[..1023])),
        alone("nothing", answer(&[JSON, DATE], &[])),
        alone("trailers", trailed.concat().into()),
        Alone { version: "1.0", ..alone("a client of old", with(&[])) },
        Alone { lines: "Cache-Control: max-age=0, no-transform\r\n", ..alone("the client forbids it", with(&[])) },
    ]
}

#[tokio::test]
async fn what_is_left_alone_is_what_comes_without_compression_byte_for_byte() {
    for Alone { what, lines, answer, version } in left_alone() {
        let backend = Backend::writing(answer);
        let (with, without) = (compressing(&backend, ANY).await, Lb::with_backends([&backend]).start().await);
        let request = format!(
            "GET / HTTP/{version}\r\nHost: a\r\nAccept-Encoding: gzip, br, zstd\r\nConnection: close\r\n{lines}\r\n"
        );
        let mut both = Vec::new();
        for lb in [&with, &without] {
            let mut client = lb.raw().await;
            client.send(&request).await;
            both.push(String::from_utf8_lossy(&client.read_to_end().await).into_owned());
        }
        assert!(both[0].len() > 50, "{what}: {}", both[0]);
        assert_eq!(both[0], both[1], "{what}");
        assert!(with.access_log(1).await[0]["encoding"].is_null(), "{what}");
    }
}

#[tokio::test]
async fn an_answer_of_the_least_size_is_coded() {
    let backend = Backend::writing(answer(&[JSON], text(1024).as_bytes()));
    let lb = compressing(&backend, "{}").await;
    assert_eq!(get_in(&lb, "/", "gzip").await.field("content-encoding"), Some("gzip"));
    let small = Backend::writing(answer(&[JSON], b"{}"));
    let lb = compressing(&small, "{ min_size: 2B }").await;
    assert_eq!(content(&get_in(&lb, "/", "gzip").await), b"{}");
    let chunked =
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
    let unknown = Backend::writing(chunked);
    let lb = compressing(&unknown, "{}").await;
    let got = get_in(&lb, "/", "gzip").await;
    assert_eq!((got.field("content-encoding"), content(&got)), (Some("gzip"), b"x".to_vec()), "nobody knew its size");
}

#[tokio::test]
async fn errors_and_redirects_of_a_backend_are_made_smaller_too() {
    for status in [201, 301, 404, 410, 500] {
        let backend = Backend::writing(response(status, &[("Content-Type", "text/html")], &text(3000)));
        let lb = compressing(&backend, "{}").await;
        let got = get_in(&lb, "/", "br").await;
        assert_eq!((got.status, got.field("content-encoding")), (status, Some("br")));
        assert!(content(&got) == text(3000).as_bytes());
    }
}

#[tokio::test]
async fn vary_is_said_once_and_keeps_what_it_said() {
    for (sent, wanted) in [
        (vec![], vec!["Accept-Encoding"]),
        (vec!["Origin"], vec!["Origin, Accept-Encoding"]),
        (vec!["Origin, Cookie"], vec!["Origin, Cookie, Accept-Encoding"]),
        (vec!["accept-encoding"], vec!["accept-encoding"]),
        (vec!["Origin,ACCEPT-ENCODING"], vec!["Origin,ACCEPT-ENCODING"]),
        (vec!["*"], vec!["*"]),
        (vec!["Origin", "Cookie"], vec!["Origin, Cookie, Accept-Encoding"]),
    ] {
        let fields: Vec<_> = [JSON].into_iter().chain(sent.iter().map(|value| ("Vary", *value))).collect();
        let backend = Backend::writing(answer(&fields, text(3000).as_bytes()));
        let lb = compressing(&backend, "{}").await;
        for coding in ["gzip", "identity"] {
            assert_eq!(get_in(&lb, "/", coding).await.fields("vary"), wanted, "{sent:?} {coding}");
        }
    }
}

#[tokio::test]
async fn a_tag_is_weakened_only_where_the_body_changes() {
    for (sent, coded) in [("\"1\"", Some("W/\"1\"")), ("W/\"1\"", Some("W/\"1\"")), ("bare", None)] {
        let backend = Backend::writing(answer(&[JSON, ("ETag", sent)], text(3000).as_bytes()));
        let lb = compressing(&backend, "{}").await;
        assert_eq!(get_in(&lb, "/", "gzip").await.field("etag"), coded, "{sent}");
        let plain = get_in(&lb, "/", "identity").await;
        assert_eq!((plain.field("etag"), plain.field("content-length")), (Some(sent), Some("3000")));
    }
}

#[tokio::test]
async fn a_304_has_the_tag_and_the_vary_of_what_the_client_has() {
    let backend =
        Backend::writing(format!("HTTP/1.1 304 Not Modified\r\n{}: {}\r\nETag: \"1\"\r\n\r\n", DATE.0, DATE.1));
    let lb = compressing(&backend, "{}").await;
    for (lines, tag) in [
        ("Accept-Encoding: gzip\r\nIf-None-Match: W/\"1\"\r\n", "W/\"1\""),
        ("Accept-Encoding: gzip\r\nIf-None-Match: \"1\"\r\n", "\"1\""),
        ("If-None-Match: W/\"1\"\r\n", "W/\"1\""),
        ("Accept-Encoding: gzip\r\nIf-None-Match: *\r\n", "W/\"1\""),
        ("If-None-Match: \"1\"\r\n", "\"1\""),
    ] {
        let got = get(&lb, "/", lines).await;
        assert_eq!(
            (got.status, got.field("etag"), got.field("vary")),
            (304, Some(tag), Some("Accept-Encoding")),
            "{lines}"
        );
        assert_eq!((got.body.len(), got.field("content-encoding"), got.field("transfer-encoding")), (0, None, None));
    }
}

#[tokio::test]
async fn one_connection_carries_answers_in_every_coding_and_in_none() {
    let text = text(9000);
    let backend = Backend::writing(answer(&[JSON], text.as_bytes()));
    let lb = compressing(&backend, ANY).await;
    let mut client = lb.raw().await;
    let all: String = CODINGS
        .iter()
        .chain(["identity", "gzip"].iter())
        .map(|coding| format!("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {coding}\r\n\r\n"))
        .collect();
    client.send(all).await;
    for coding in CODINGS.into_iter().chain(["identity", "gzip"]) {
        let got: Response = client.read_response().await;
        assert_eq!(got.field("content-encoding").unwrap_or("identity"), coding);
        assert!(content(&got) == text.as_bytes(), "{coding}");
    }
    assert_eq!(backend.connections(), 1, "the backend's connection is used again");
}

#[tokio::test]
async fn answers_of_our_own_can_be_read() {
    let refused = Backend::refusing();
    let body = text(3000).replace('"', "'").replace('\n', " ");
    let lb = Lb::yaml(format!(
        "upstreams: {{ app: {{ backends: [\"{}\"], health_check: none }} }}\nroutes:\n  - {{ match: {{ path: /own }}, respond: {{ body: \"{body}\" }}, compress: {{}} }}\n  - {{ upstream: app, compress: {{ min_size: 1B }} }}\n",
        refused.url()
    ))
    .start()
    .await;
    for coding in ["zstd", "br", "gzip", "identity"] {
        let own = get_in(&lb, "/own", coding).await;
        assert_eq!(own.status, 200);
        assert!(content(&own) == body.as_bytes(), "{coding}: {own:?}");
        let refusal = get_in(&lb, "/", coding).await;
        assert_eq!(refusal.status, 502, "{coding}");
        assert!(!content(&refusal).is_empty() && content(&refusal).is_ascii(), "{coding}");
    }
}

#[tokio::test]
async fn a_level_of_the_route_reaches_the_encoder() {
    let backend = Backend::writing(answer(&[JSON], text(60_000).as_bytes()));
    for (coding, low, high) in [("zstd", 1, 19), ("br", 0, 6), ("gzip", 1, 9), ("deflate", 1, 9)] {
        let mut lengths = Vec::new();
        for level in [low, high] {
            let lb =
                compressing(&backend, &format!("{{ algorithms: [{coding}], levels: {{ {coding}: {level} }} }}")).await;
            lengths.push(get_in(&lb, "/", coding).await.body.len());
        }
        assert_ne!(lengths[0], lengths[1], "{coding}");
    }
}

/// The load is that of this process: it is busy for as long as the test asks.
#[tokio::test]
async fn levels_step_down_while_the_process_is_busy() {
    let backend = Backend::writing(answer(&[JSON], text(20_000).as_bytes()));
    let route = |path: &str, more: &str| {
        format!(
            "  - {{ match: {{ path: {path} }}, upstream: app, compress: {{ algorithms: [gzip], levels: {{ gzip: 9 }}{more} }} }}\n"
        )
    };
    let lb = Lb::yaml(format!(
        "upstreams: {{ app: {{ backends: [\"{}\"], health_check: none }} }}\nroutes:\n{}{}",
        backend.url(),
        route("/limited", ", max_cpu: 1%"),
        route("/free", "")
    ))
    .start()
    .await;
    let free = get_in(&lb, "/free", "gzip").await.body.len();
    let began = std::time::Instant::now();
    // Of so short a text a lower level may make less as well as more: that goes by the processor.
    while get_in(&lb, "/limited", "gzip").await.body.len() == free {
        assert!(began.elapsed() < std::time::Duration::from_secs(30), "still at the highest level");
    }
    assert_eq!(get_in(&lb, "/free", "gzip").await.body.len(), free, "a route without a limit keeps its level");
}
