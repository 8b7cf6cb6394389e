//! Which coding an answer leaves in: what a client says that it reads, on the wire, and nothing that it could break.

use crate::support;

use http::{HeaderName, HeaderValue};
use support::coded::{JSON, answer, compressing, content, decode, get, text};
use support::{Backend, Lb};

/// Lines of a request, and the coding that its answer must have; the route offers zstd, br and gzip, in this order.
const ASKED: [(&str, &str); 30] = [
    ("", "identity"),
    ("Accept-Encoding:\r\n", "identity"),
    ("Accept-Encoding: identity\r\n", "identity"),
    ("Accept-Encoding: gzip\r\n", "gzip"),
    ("Accept-Encoding: gzip, deflate\r\n", "gzip"),
    ("Accept-Encoding: gzip, deflate, br\r\n", "br"),
    ("Accept-Encoding: gzip, deflate, br, zstd\r\n", "zstd"),
    ("Accept-Encoding: deflate\r\n", "identity"),
    ("Accept-Encoding: compress, exi, aes128gcm\r\n", "identity"),
    ("Accept-Encoding: gzip;q=1.0, br;q=0.5\r\n", "gzip"),
    ("Accept-Encoding: br;q=0.3, gzip;q=0.301\r\n", "gzip"),
    ("Accept-Encoding: gzip;q=0\r\n", "identity"),
    ("Accept-Encoding: gzip;q=0.000, br\r\n", "br"),
    ("Accept-Encoding: *\r\n", "zstd"),
    ("Accept-Encoding: *, zstd;q=0\r\n", "br"),
    ("Accept-Encoding: *;q=0\r\n", "identity"),
    ("Accept-Encoding: *;q=0, gzip\r\n", "gzip"),
    ("Accept-Encoding: identity;q=0\r\n", "identity"),
    ("Accept-Encoding: identity;q=0, *;q=0.1\r\n", "zstd"),
    ("Accept-Encoding: identity, gzip;q=0.5\r\n", "identity"),
    ("Accept-Encoding: identity;q=0.5, gzip\r\n", "gzip"),
    ("Accept-Encoding: x-gzip\r\n", "gzip"),
    ("Accept-Encoding: GZip;Q=0.001\r\n", "gzip"),
    ("Accept-Encoding: gzip;q=1.5\r\n", "identity"),
    ("Accept-Encoding: gzip;q=\r\n", "identity"),
    ("Accept-Encoding: gzip;q=nan, br\r\n", "br"),
    ("Accept-Encoding: , ,gzip ; q=0.8 ,,\tbr\t;\tq=0.9,\r\n", "br"),
    ("Accept-Encoding: br;q=0\r\nAccept-Encoding: br, gzip\r\n", "gzip"),
    ("accept-encoding: gzip\r\nACCEPT-ENCODING: zstd\r\n", "zstd"),
    ("X-Accept-Encoding: gzip\r\n", "identity"),
];

#[tokio::test]
async fn an_answer_is_in_the_coding_that_its_client_likes_best() {
    let text = text(5000);
    let backend = Backend::writing(answer(&[JSON], text.as_bytes()));
    let lb = compressing(&backend, "{}").await;
    for (lines, wanted) in ASKED {
        let got = get(&lb, "/", lines).await;
        assert_eq!(got.status, 200, "{lines}");
        assert_eq!(got.field("content-encoding").unwrap_or("identity"), wanted, "{lines}");
        assert_eq!(got.fields("vary"), ["Accept-Encoding"], "{lines}");
        assert!(content(&got) == text.as_bytes(), "{lines}");
    }
}

#[tokio::test]
async fn http2_says_it_in_the_same_words() {
    let text = text(5000);
    let backend = Backend::writing(answer(&[JSON], text.as_bytes()));
    let lb = compressing(&backend, "{}").await;
    let client = lb.h2().await;
    for (lines, wanted) in ASKED {
        let mut request = client.build("GET", "/");
        for line in lines.lines() {
            let (name, value) = line.split_once(':').unwrap();
            let name = HeaderName::from_bytes(name.to_lowercase().as_bytes()).unwrap();
            request.headers_mut().append(name, HeaderValue::from_str(value.trim()).unwrap());
        }
        let got = client.request(request, &[]).await.unwrap();
        let coding = got.field("content-encoding").unwrap_or("identity");
        assert_eq!((coding, got.field("vary")), (wanted, Some("Accept-Encoding")), "{lines}");
        let body = if coding == "identity" { got.body.to_vec() } else { decode(coding, &got.body) };
        assert!(body == text.as_bytes(), "{lines}");
    }
}

#[tokio::test]
async fn among_what_a_client_likes_alike_the_route_chooses() {
    let backend = Backend::writing(answer(&[JSON], text(5000).as_bytes()));
    for (offered, wanted) in
        [("[gzip, br, zstd]", "gzip"), ("[deflate, gzip]", "deflate"), ("[br]", "br"), ("[deflate]", "deflate")]
    {
        let lb = compressing(&backend, &format!("{{ algorithms: {offered} }}")).await;
        let got = get(&lb, "/", "Accept-Encoding: gzip, deflate, br, zstd\r\n").await;
        assert_eq!(got.field("content-encoding"), Some(wanted), "{offered}");
    }
}

/// Fields that somebody sends who wants to see what happens.
fn hostile() -> Vec<(Vec<u8>, Option<&'static str>)> {
    let line = |value: &[u8]| [b"Accept-Encoding: ", value, b"\r\n"].concat();
    let many = |member: &str, size: usize| member.repeat(size / member.len());
    vec![
        (line(many("gzip;q=0.5, ", 6 << 10).as_bytes()), Some("gzip")),
        (line(many("x, ", 6 << 10).as_bytes()), None),
        (line(many(",", 6 << 10).as_bytes()), None),
        (line(format!("{}gzip", many(";", 6 << 10)).as_bytes()), None),
        (line(format!("gzip;q=0.{}", many("0", 6 << 10)).as_bytes()), None),
        (line(format!("gzip;{}q=1", many("a=b;", 6 << 10)).as_bytes()), Some("gzip")),
        (line(b"gz\xc3\xafp, \xff\xfe, gzip"), Some("gzip")),
        (line(b"gzip;q=\xff"), None),
        (line(b"gzip;q=\"1\""), None),
        (line(b"gzip;q=-0"), None),
        (line(b"gzip;q=0x1"), None),
        (line(b"gzip;q=1e9"), None),
        (line(b"gzip;q=0;q=1"), None),
        (line(b";q=1, =, ;;, *;;q"), None),
        (line(b"gzip;q==1"), None),
        (line(b"GZIP\x0b"), None),
        (line(b"gzip\tbr zstd"), None),
        (line(b"br;q=0, *;q=0, gzip;q=0, zstd;q=0, identity;q=0"), None),
        (line(b"gzip").repeat(60), Some("gzip")),
        ([line(b"gzip").repeat(30), line(b"gzip;q=0")].concat(), None),
    ]
}

#[tokio::test]
async fn a_hostile_field_costs_at_most_its_own_request_a_coding() {
    let text = text(5000);
    let backend = Backend::writing(answer(&[JSON], text.as_bytes()));
    let lb = compressing(&backend, "{}").await;
    for (lines, wanted) in hostile() {
        let request = [b"GET / HTTP/1.1\r\nHost: a\r\n", &lines[..], b"\r\n"].concat();
        let shown = String::from_utf8_lossy(&lines[..lines.len().min(80)]).into_owned();
        let mut client = lb.raw().await;
        client.send(request).await;
        let got = client.read_response().await;
        // A control character is none of a field's; that it is refused is as good.
        if shown.contains('\u{b}') && got.status == 400 {
            continue;
        }
        assert_eq!((got.status, got.field("content-encoding")), (200, wanted), "{shown}");
        assert!(content(&got) == text.as_bytes(), "{shown}");
    }
}

#[tokio::test]
async fn what_is_beyond_the_limits_of_a_head_is_refused_as_ever() {
    let backend = Backend::writing(answer(&[JSON], text(5000).as_bytes()));
    let lb = compressing(&backend, "{}").await;
    for lines in ["Accept-Encoding: gzip\r\n".repeat(500), format!("Accept-Encoding: {}\r\n", "gzip,".repeat(20 << 10))]
    {
        assert_eq!(get(&lb, "/", &lines).await.status, 431);
    }
    assert_eq!(backend.requests(), 0);
}

#[tokio::test]
async fn what_a_route_without_compression_answers_is_what_the_backend_sent() {
    let bytes = answer(&[JSON, ("ETag", "\"1\"")], text(5000).as_bytes());
    let backend = Backend::writing(bytes.clone());
    let lb = Lb::with_backends([&backend]).start().await;
    let got = get(&lb, "/", "Accept-Encoding: gzip, br, zstd\r\n").await;
    assert_eq!((got.field("content-encoding"), got.field("vary"), got.field("etag")), (None, None, Some("\"1\"")));
    assert!(bytes.ends_with(&got.body) && got.body.len() == 5000);
}
