//! Does anybody get a request past us that we have not seen? Smuggling and desynchronisation over HTTP/1, vector by
//! vector, judged by the bytes that the backend received.

use crate::support;

use support::attack::{Outcome, POISON, Vector, get, once, post, run, vector};
use support::{Backend, Lb};

const OUTER: &str = "POST /outer HTTP/1.1";
const ASKED: &str = "GET /outer HTTP/1.1";
const REFUSED: Outcome = Outcome::Refused(400);

async fn check(vectors: &[Vector]) {
    check_on("retry: {}", vectors).await;
}

/// On a route with this setting, which may lead through other parts of the house.
async fn check_on(setting: &str, vectors: &[Vector]) {
    let backend = Backend::answering(200, "");
    let lb = Lb::with_backends([&backend]).yaml_route(setting).start().await;
    run(&lb, &backend, vectors).await;
}

/// The poison as one chunk, and the last chunk.
fn chunked_poison() -> String {
    format!("{:x}\r\n{POISON}\r\n0\r\n\r\n", POISON.len())
}

fn pair(first: &str, content: &str, second: &str) -> Vec<(String, String)> {
    vec![(first.to_owned(), content.to_owned()), (second.to_owned(), String::new())]
}

const SMUGGLED: &str = "GET /smuggled HTTP/1.1";

#[tokio::test]
async fn two_framings_are_never_two_requests() {
    let length = POISON.len();
    let chunked = chunked_poison();
    let prefix = "0\r\n\r\nG";
    let both =
        |length: usize, body: &str| post(&format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"), body);
    let poisoned = format!("0\r\n\r\n{POISON}");
    // More than is kept of a body at once.
    let long = POISON.repeat(4000);
    let old = |lines: &str, body: &str| format!("POST /outer HTTP/1.0\r\nHost: a\r\n{lines}\r\n{body}");
    let vectors = [
        vector("CL.TE", both(6, prefix), once(OUTER, "")),
        vector("CL.TE with a whole request", both(poisoned.len(), &poisoned), once(OUTER, "")),
        vector("TE.CL", both(4, &chunked), once(OUTER, POISON)),
        vector(
            "TE before CL",
            post("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", &chunked),
            once(OUTER, POISON),
        ),
        vector("CL.0", post(&format!("Content-Length: {length}\r\n"), POISON), once(OUTER, POISON)),
        vector("0.CL: a GET with a body", get(&format!("Content-Length: {length}\r\n")) + POISON, once(ASKED, POISON)),
        vector("a GET in chunks", get("Transfer-Encoding: chunked\r\n") + &chunked, once(ASKED, POISON)),
        vector(
            "a length of nothing",
            post("Content-Length: 0\r\n", POISON),
            Outcome::Passed(pair(OUTER, "", SMUGGLED)),
        ),
        vector("no framing at all", post("", POISON), Outcome::Passed(pair(OUTER, "", SMUGGLED))),
        vector("CL and TE on HTTP/1.0", old("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", &chunked), REFUSED),
        vector("TE on HTTP/1.0", old("Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n", &chunked), REFUSED),
        vector(
            "a lookalike of TE",
            post(&format!("Transfer_Encoding: chunked\r\nContent-Length: {length}\r\n"), POISON),
            once(OUTER, POISON),
        ),
        vector(
            "a long body that looks like requests",
            post(&format!("Content-Length: {}\r\n", long.len()), &long),
            once(OUTER, &long),
        ),
        vector(
            "long chunks that look like requests",
            post("Transfer-Encoding: chunked\r\n", &format!("{:X}\r\n{long}\r\n0\r\n\r\n{}", long.len(), "\0")),
            once(OUTER, &long),
        ),
    ];
    // Long bodies that may be sent again, requests that two backends may be asked for, and stored answers go their own ways.
    for setting in [
        "retry: {}",
        "retry: none",
        "retry: { hedge: { after: 5s } }",
        "cache: {}",
        "body_limit: 10MiB",
        "compress: {}",
    ] {
        check_on(setting, &vectors).await;
    }
}

#[tokio::test]
async fn a_transfer_coding_is_chunked_or_it_is_refused() {
    let body = chunked_poison();
    let written = |lines: &str| vector(format!("{lines:?}"), post(lines, &body), REFUSED);
    let mut vectors = [
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: chunked chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
        "Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: 'chunked'\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding: \x0cchunked\r\n",
        "Transfer-Encoding: chunked\0\r\n",
        "Transfer-Encoding: chun\u{a0}ked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "X: y\n Transfer-Encoding: chunked\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Transfer-Encoding: x\r\n\tchunked\r\n",
        "Transfer-Encoding\r\n: chunked\r\n",
        "Transfer-Encoding:\r\n",
        "Content-Length: 3\r\nTransfer-Encoding: xchunked\r\n",
    ]
    .map(written)
    .to_vec();
    let passed =
        ["Transfer-Encoding:chunked\r\n", "Transfer-Encoding:\tchunked \r\n", "TRANSFER-encoding: cHuNkEd\r\n"];
    vectors.extend(passed.map(|lines| vector(format!("{lines:?}"), post(lines, &body), once(OUTER, POISON))));
    check(&vectors).await;
}

#[tokio::test]
async fn a_length_is_one_number_or_it_is_refused() {
    let written =
        |value: &str| vector(format!("{value:?}"), post(&format!("Content-Length: {value}\r\n"), POISON), REFUSED);
    let mut vectors = [
        "5\r\nContent-Length: 6",
        "6\r\ncontent-length: 5",
        "5, 6",
        "5,",
        ",5",
        "+5",
        "-5",
        "-0",
        "0x5",
        "5.0",
        "5e1",
        "5 5",
        "5;",
        "\"5\"",
        "",
        "\u{ff15}",
        "18446744073709551616",
        "99999999999999999999999999",
        "5\0",
        "5\r\n 5",
        "\x0b5",
    ]
    .map(written)
    .to_vec();
    let length = POISON.len();
    vectors.push(written(&format!("{length}, {length}")));
    vectors.push(written(&format!("{length}\r\nContent-Length: {length}")));
    vectors.push(vector(
        "zeros before",
        post(&format!("Content-Length: \t000{length} \r\n"), POISON),
        once(OUTER, POISON),
    ));
    check(&vectors).await;
}

#[tokio::test]
async fn a_head_that_could_be_read_in_two_ways_is_refused() {
    let lines = [
        "GET /outer HTTP/1.1\nHost: a\n\n",
        "GET /outer HTTP/1.1\r\nHost: a\n\r\n",
        "GET /outer HTTP/1.1\r\nHost: a\r\n\n",
        "GET /outer HTTP/1.1\r\nHost: a\r\nX: y\n\nGET /smuggled HTTP/1.1\r\n\r\n",
        "GET /outer HTTP/1.1\rHost: a\r\r\n\r\n",
        "GET /outer HTTP/1.1\r\nHost: a\r\r\n\r\n",
        "GET /outer HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n",
        "GET /outer HTTP/1.1\r\nHost: a\r\nX: \r\r\nSet: z\r\n\r\n",
        "\rGET /outer HTTP/1.1\r\nHost: a\r\n\r\n",
        "\nGET /outer HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /outer HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
        "GET /outer HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz\r\n\r\n",
        "GET /outer HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET /outer HTTP/1.1\r\n\tX: y\r\nHost: a\r\n\r\n",
        "GET /outer HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET /outer HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
        "GET /outer HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n",
        "GET /outer HTTP/1.1\r\nHost: a\r\nX Y: z\r\n\r\n",
        "GET /outer HTTP/1.1\r\nHost: a\r\nX\0: y\r\n\r\n",
        "GET /outer HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        "GET /outer HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n",
        "GET /outer HTTP/1.1\r\nHost: a\r\nX: \x1b[2J\r\n\r\n",
        "GET /outer HTTP/1.1\r\nHost: a\r\nX(y): z\r\n\r\n",
        "GET /outer HTTP/1.1\r\nHost: a\r\n\u{e9}: z\r\n\r\n",
        "GET /outer\0 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /outer\tHTTP/1.1\r\nHost: a\r\n\r\n",
        "GET\t/outer HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET  /outer HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /outer  HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /outer HTTP/1.1 \r\nHost: a\r\n\r\n",
        "GET /outer HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n",
        " GET /outer HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /outer\r\n",
        "GET /outer HTTP/1.2\r\nHost: a\r\n\r\n",
        "GET /outer HTTP/0.9\r\nHost: a\r\n\r\n",
        "GET /outer HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET /outer HTTP/1.10\r\nHost: a\r\n\r\n",
        "GET /outer http/1.1\r\nHost: a\r\n\r\n",
        "GET /outer HTTP/ 1.1\r\nHost: a\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\x16\x03\x01\x02\0\x01\0\x01\x03\x03",
    ];
    check(&lines.map(|bytes| vector(format!("{bytes:?}"), bytes, REFUSED))).await;
}

#[tokio::test]
async fn chunks_follow_the_grammar_or_no_body_is_whole() {
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(2000));
    let trailer = format!("0\r\nX: {}\r\n\r\n", "a".repeat(20_000));
    let bad = [
        "5;\r\nhello\r\n0\r\n\r\n",
        "5;;a\r\nhello\r\n0\r\n\r\n",
        "5;a=\"b\r\nhello\r\n0\r\n\r\n",
        "5;a=\"b\n\"\r\nhello\r\n0\r\n\r\n",
        "5;a\nhello\r\n0\r\n\r\n",
        "5;\rhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\t;\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5_0\r\nhello\r\n0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\r\nhello\r\n\r\n0\r\n\r\n",
        "\r\n5\r\nhello\r\n0\r\n\r\n",
        "5\0\r\nhello\r\n0\r\n\r\n",
        "0\r\n\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        "0\n\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        "0\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\nX: \0\r\n\r\n",
        &long,
        &trailer,
    ];
    let chunked = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    let mut vectors = bad
        .map(|body| vector(format!("{:?}", &body[..body.len().min(60)]), chunked(body), Outcome::Broken(400)))
        .to_vec();
    let trailers = "0\r\nContent-Length: 50\r\nTransfer-Encoding: x\r\nHost: evil\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n";
    vectors.extend([
        vector(
            "extensions go no further",
            chunked("5;a=\"\\\"0\\\"\" ; b\r\nhello\r\n00\r\n\r\n"),
            once(OUTER, "hello"),
        ),
        vector("forbidden trailers", chunked(trailers), once(OUTER, "")),
        vector(
            "behind the last chunk",
            chunked(&format!("0\r\n\r\n{POISON}")),
            Outcome::Passed(pair(OUTER, "", SMUGGLED)),
        ),
        vector("nonsense behind the last chunk", chunked("0\r\n\r\n\0\0\0"), once(OUTER, "")),
        vector("a body that looks like a request", chunked(&chunked_poison()), once(OUTER, POISON)),
    ]);
    check(&vectors).await;
}

#[tokio::test]
async fn a_request_is_for_one_host_or_it_is_refused() {
    let hosts = [
        "",
        "Host: a\r\nHost: b\r\n",
        "Host: a\r\nhost: a\r\n",
        "Host: a\r\nHost : b\r\n",
        "Host: a, b\r\n",
        "Host: b@a\r\n",
        "Host: a/../b\r\n",
        "Host: a?b\r\n",
        "Host: a#b\r\n",
        "Host: a\\b\r\n",
        "Host: a b\r\n",
        "Host: a:80:80\r\n",
        "Host: a:b\r\n",
        "Host: a:-1\r\n",
        "Host: [::1\r\n",
        "Host: ::1\r\n",
        "Host: a\x0b\r\n",
        "Host: a%0d%0aX:y\r\n",
        "Host:\r\n",
    ];
    let mut vectors: Vec<Vector> =
        hosts.map(|host| vector(format!("{host:?}"), format!("GET /outer HTTP/1.1\r\n{host}\r\n"), REFUSED)).to_vec();
    for target in [
        "http://b/outer",
        "http://a:81/outer",
        "http://b@a/outer",
        "http://a@b/outer",
        "http://a\\@b/outer",
        "http:///outer",
        "http:/outer",
        "a:80",
        "@b/outer",
        "outer",
        "?outer",
        "/outer#x",
        "/outer\\x",
    ] {
        vectors.push(vector(target, format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"), REFUSED));
    }
    vectors.push(vector("an absolute target", "GET http://a/outer HTTP/1.1\r\nHost: a\r\n\r\n", once(ASKED, "")));
    vectors.push(vector(
        "a host as a path",
        "GET //b/outer HTTP/1.1\r\nHost: a\r\n\r\n",
        once("GET //b/outer HTTP/1.1", ""),
    ));
    check(&vectors).await;
}

#[tokio::test]
async fn what_connection_expect_and_upgrade_say_changes_no_framing() {
    let length = POISON.len();
    let framed = |lines: &str| post(&format!("{lines}Content-Length: {length}\r\n"), POISON);
    let chunked = |lines: &str| post(&format!("{lines}Transfer-Encoding: chunked\r\n"), &chunked_poison());
    let h2c = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n";
    let websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let one = once(OUTER, POISON);
    let two = Outcome::Passed(pair(ASKED, "", SMUGGLED));
    check(&[
        vector("a length named by Connection", framed("Connection: Content-Length\r\n"), one.clone()),
        vector("a coding named by Connection", chunked("Connection: Transfer-Encoding\r\n"), one.clone()),
        vector("a host named by Connection", framed("Connection: Host\r\n"), REFUSED),
        vector("our fields named by Connection", framed("Connection: X-Forwarded-For, Via, X-Request-Id\r\n"), REFUSED),
        vector("close named twice", framed("Connection: close, Content-Length, close\r\n"), one.clone()),
        vector("an expectation nobody knows", framed("Expect: 200-ok\r\n"), Outcome::Refused(417)),
        vector("two expectations", framed("Expect: 100-continue\r\nExpect: x\r\n"), Outcome::Refused(417)),
        vector("an expectation and its body at once", framed("Expect: 100-continue\r\n"), one.clone()),
        vector("an expectation and chunks at once", chunked("Expect: 100-continue\r\n"), one.clone()),
        vector("h2c", get(h2c) + POISON, two.clone()),
        vector("h2c with a preface", get(h2c) + "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", once(ASKED, "")),
        vector("h2c in upper case", get("Connection: UPGRADE\r\nUpgrade: H2C\r\n") + POISON, two.clone()),
        vector(
            "an upgrade nobody nominates",
            get("Upgrade: websocket\r\n") + POISON,
            Outcome::Apart(pair(ASKED, "", SMUGGLED)),
        ),
        vector("a declined websocket", get(websocket) + POISON, Outcome::Apart(pair(ASKED, "", SMUGGLED))),
        vector("a declined websocket with a length", framed(websocket), Outcome::Apart(pair(OUTER, POISON, SMUGGLED))),
        vector("a declined websocket in chunks", chunked(websocket), Outcome::Apart(pair(OUTER, POISON, SMUGGLED))),
        vector(
            "another upgrade",
            get("Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n") + POISON,
            Outcome::Apart(pair(ASKED, "", SMUGGLED)),
        ),
        vector("CONNECT", format!("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n{POISON}"), Outcome::Refused(405)),
    ])
    .await;
}
