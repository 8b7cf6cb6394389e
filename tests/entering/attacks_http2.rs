//! Does HTTP/2 smuggle what HTTP/1 would not? Heads and frames that no client library sends, and what the backend gets of
//! them over HTTP/1.1.

use crate::support;

use support::attack::{Downgrade, Outcome, once, run_downgrades};
use support::{Backend, Lb};

type Field = (Vec<u8>, Vec<u8>);

const LISTENERS: &str = "listeners:\n  - { address: 127.0.0.1:0 }\n  - { address: 127.0.0.1:0, http2: only }";
const REFUSED: Outcome = Outcome::Refused(400);
const BROKEN: Outcome = Outcome::Broken(400);
const POSTED: &str = "POST /outer HTTP/1.1";
const ASKED: &str = "GET /outer HTTP/1.1";
const CRLF: &str = "\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

fn field(name: &str, value: &str) -> Field {
    (name.as_bytes().to_vec(), value.as_bytes().to_vec())
}

fn pseudo(method: &str, path: &str, authority: &str) -> Vec<Field> {
    vec![field(":method", method), field(":scheme", "http"), field(":path", path), field(":authority", authority)]
}

/// A GET with these fields.
fn get(name: &'static str, fields: &[(&str, &str)], outcome: Outcome) -> Downgrade {
    let more = fields.iter().map(|(name, value)| field(name, value));
    let fields = pseudo("GET", "/outer", "a").into_iter().chain(more).collect();
    Downgrade { name, fields, data: None, trailers: Vec::new(), outcome }
}

/// A POST with these fields and this body.
fn post(name: &'static str, fields: &[(&str, &str)], data: &'static str, outcome: Outcome) -> Downgrade {
    let more = fields.iter().map(|(name, value)| field(name, value));
    let fields = pseudo("POST", "/outer", "a").into_iter().chain(more).collect();
    Downgrade { name, fields, data: Some(data), trailers: Vec::new(), outcome }
}

/// A head of just these fields.
fn head(name: &'static str, fields: Vec<Field>, outcome: Outcome) -> Downgrade {
    Downgrade { name, fields, data: None, trailers: Vec::new(), outcome }
}

async fn check(vectors: &[Downgrade]) {
    let backend = Backend::answering(200, "");
    let lb = Lb::with_backends([&backend]).yaml_section(LISTENERS).start().await;
    run_downgrades(&lb, 1, &backend, vectors).await;
}

#[tokio::test]
async fn a_length_is_that_of_the_frames_or_no_body_is_whole() {
    check(&[
        post("a length that is true", &[("content-length", "5")], "hello", once(POSTED, "hello")),
        post("no length", &[], CRLF, once(POSTED, CRLF)),
        post("a length of nothing", &[("content-length", "0")], CRLF, BROKEN),
        post("too short a length", &[("content-length", "3")], "hello", BROKEN),
        post("too long a length", &[("content-length", "50")], "hello", BROKEN),
        get("a length without a body", &[("content-length", "5")], BROKEN),
        post("two lengths", &[("content-length", "5"), ("content-length", "6")], "hello", BROKEN),
        post("two lengths, the true one first", &[("content-length", "5"), ("content-length", "0")], "hello", BROKEN),
        post("the same length twice", &[("content-length", "5"), ("content-length", "5")], "hello", REFUSED),
        post("a list of lengths", &[("content-length", "5, 5")], "hello", BROKEN),
        post("a sign", &[("content-length", "+5")], "hello", BROKEN),
        post("a hexadecimal length", &[("content-length", "0x5")], "hello", BROKEN),
        post("a huge length", &[("content-length", "18446744073709551621")], "hello", BROKEN),
        post("no number", &[("content-length", "")], "hello", BROKEN),
        post("chunked", &[("transfer-encoding", "chunked")], "0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n", REFUSED),
        post(
            "chunked and a length",
            &[("transfer-encoding", "chunked"), ("content-length", "5")],
            "0\r\n\r\n",
            REFUSED,
        ),
        post("identity", &[("transfer-encoding", "identity")], "hello", REFUSED),
        post("a coding with a space", &[("transfer-encoding ", "chunked")], "0\r\n\r\n", REFUSED),
        post("a coding in upper case", &[("Transfer-Encoding", "chunked")], "0\r\n\r\n", REFUSED),
        post("chunks that are only bytes", &[], "5\r\nhello\r\n0\r\n\r\n", once(POSTED, "5\r\nhello\r\n0\r\n\r\n")),
    ])
    .await;
}

#[tokio::test]
async fn no_byte_of_a_field_begins_another_line() {
    check(&[
        get("CR LF in a value", &[("x", "y\r\nhost: b")], REFUSED),
        get("a request in a value", &[("x", CRLF)], REFUSED),
        get("LF in a value", &[("x", "y\nhost: b")], REFUSED),
        get("CR in a value", &[("x", "y\rhost: b")], REFUSED),
        get("NUL in a value", &[("x", "y\0")], REFUSED),
        get("DEL in a value", &[("x", "y\x7f")], REFUSED),
        get("CR LF in a name", &[("x\r\nhost: b\r\nx", "y")], REFUSED),
        get("LF in a name", &[("x\n", "y")], REFUSED),
        get("NUL in a name", &[("x\0", "y")], REFUSED),
        get("a colon in a name", &[("transfer-encoding: chunked", "y")], REFUSED),
        get("a space in a name", &[("x y", "z")], REFUSED),
        get("a tab in a name", &[("x\t", "z")], REFUSED),
        get("no name", &[("", "y")], REFUSED),
        get("upper case in a name", &[("X-Upper", "y")], REFUSED),
        get("a letter beyond ASCII in a name", &[("caf\u{e9}", "y")], REFUSED),
        get("CR LF in a cookie", &[("cookie", "a=b\r\nx: y"), ("cookie", "c=d")], REFUSED),
        get("a huge field", &[("x", &"y".repeat(200_000))], REFUSED),
        get("many fields", &[("x", "y"); 5_000], REFUSED),
        get("a value that is fine", &[("x", "y z, \"w\"")], once(ASKED, "")),
    ])
    .await;
}

#[tokio::test]
async fn pseudo_fields_are_there_once_and_first() {
    let without = |name: &str| {
        let mut fields = pseudo("GET", "/outer", "a");
        fields.retain(|field| field.0 != name.as_bytes());
        fields
    };
    let late = |name: &str, value: &str| {
        let mut fields = without(name);
        fields.extend([field("x", "y"), field(name, value)]);
        fields
    };
    check(&[
        get("two paths", &[(":path", "/smuggled")], REFUSED),
        get("two methods", &[(":method", "POST")], REFUSED),
        get("two schemes", &[(":scheme", "https")], REFUSED),
        get("two authorities", &[(":authority", "b")], REFUSED),
        get("one nobody knows", &[(":x", "y")], REFUSED),
        get("one of responses", &[(":status", "200")], REFUSED),
        get("a protocol without CONNECT", &[(":protocol", "websocket")], REFUSED),
        get("no name behind the colon", &[(":", "y")], REFUSED),
        head("a late path", late(":path", "/outer"), REFUSED),
        head("a late authority", late(":authority", "a"), REFUSED),
        head("no method", without(":method"), REFUSED),
        head("no path", without(":path"), REFUSED),
        head("no scheme", without(":scheme"), REFUSED),
        head("no authority and no host", without(":authority"), REFUSED),
        head("CONNECT", vec![field(":method", "CONNECT"), field(":authority", "a:80")], REFUSED),
        head(
            "extended CONNECT",
            {
                let mut fields = pseudo("CONNECT", "/outer", "a");
                fields.push(field(":protocol", "websocket"));
                fields
            },
            REFUSED,
        ),
    ])
    .await;
}

#[tokio::test]
async fn the_first_line_holds_what_a_first_line_may_hold() {
    let path = |name, path: &str| head(name, pseudo("GET", path, "a"), REFUSED);
    let method = |name, method: &str| head(name, pseudo(method, "/outer", "a"), REFUSED);
    let scheme = |name, scheme: &str| {
        let mut fields = pseudo("GET", "/outer", "a");
        fields[1] = field(":scheme", scheme);
        head(name, fields, REFUSED)
    };
    check(&[
        path("no path at all", ""),
        path("a space", "/outer HTTP/1.1"),
        path("CR LF", "/outer HTTP/1.1\r\nHost: b\r\n\r\n"),
        path("LF", "/outer\nx: y"),
        path("NUL", "/outer\0"),
        path("a tab", "/outer\tx"),
        path("no slash", "outer"),
        path("a query alone", "?outer"),
        head("a fragment goes no further", pseudo("GET", "/outer#x", "a"), once(ASKED, "")),
        path("a backslash", "/outer\\x"),
        path("an asterisk", "*"),
        path("a whole URI", "http://b/outer"),
        path("another host behind an at sign", "@b/outer"),
        path("a port", ":80/outer"),
        path("beyond the root", "/../outer"),
        path("an escaped NUL", "/outer%00"),
        path("a letter beyond ASCII", "/caf\u{e9}"),
        method("a space in a method", "GET /smuggled HTTP/1.1"),
        method("CR LF in a method", "GET / HTTP/1.1\r\nHost: b\r\n\r\nGET"),
        method("no method", ""),
        method("a method with a parenthesis", "G(T"),
        method("a method without end", "MMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMM"),
        scheme("a scheme that is a host", "http://b/?"),
        scheme("a scheme with CR LF", "http\r\nx: y"),
    ])
    .await;
}

#[tokio::test]
async fn the_host_is_the_authority_and_there_is_one() {
    let authority = |name, authority: &str| head(name, pseudo("GET", "/outer", authority), REFUSED);
    let with_host = |name, hosts: &[&str], outcome| {
        let hosts = hosts.iter().map(|host| ("host", *host)).collect::<Vec<_>>();
        get(name, &hosts, outcome)
    };
    let bare = |name, host: &str, outcome| {
        let mut fields = pseudo("GET", "/outer", "a");
        fields.pop();
        fields.push(field("host", host));
        head(name, fields, outcome)
    };
    check(&[
        authority("a user", "u@a"),
        authority("a path", "a/b"),
        authority("a query", "a?b"),
        authority("a space", "a b"),
        authority("a comma", "a,b"),
        authority("CR LF", "a\r\nx: y"),
        authority("a port that is none", "a:b"),
        authority("a bracket", "[::1"),
        authority("nothing", ""),
        with_host("another host", &["b"], REFUSED),
        with_host("two hosts", &["a", "b"], REFUSED),
        with_host("the same host", &["a"], once(ASKED, "")),
        with_host("no name in the host", &[""], REFUSED),
        bare("a host alone", "a", once(ASKED, "")),
        bare("a host alone, with a user", "u@a", REFUSED),
        bare("a host alone, with CR LF", "a\r\nx: y", REFUSED),
    ])
    .await;
}

#[tokio::test]
async fn fields_of_a_connection_have_no_place_in_http2() {
    let trailing = |name, trailers: &[(&str, &str)], outcome| Downgrade {
        trailers: trailers.iter().map(|(name, value)| field(name, value)).collect(),
        ..post(name, &[], "hello", outcome)
    };
    check(&[
        get("connection", &[("connection", "close")], REFUSED),
        get("connection that names a field", &[("connection", "x-forwarded-for")], REFUSED),
        get("keep-alive", &[("keep-alive", "timeout=5")], REFUSED),
        get("proxy-connection", &[("proxy-connection", "keep-alive")], REFUSED),
        get("upgrade", &[("upgrade", "h2c")], REFUSED),
        get("te", &[("te", "gzip")], REFUSED),
        get("te for trailers", &[("te", "trailers")], once(ASKED, "")),
        get("settings of an upgrade", &[("http2-settings", "AAMAAABkAAQAAP__")], once(ASKED, "")),
        get("an expectation nobody knows", &[("expect", "200-ok")], Outcome::Refused(417)),
        get("somebody else's address", &[("x-forwarded-for", "6.6.6.6"), ("x-request-id", "theirs")], once(ASKED, "")),
        trailing("trailers", &[("x-sum", "42")], once(POSTED, "hello")),
        trailing("trailers that frame", &[("content-length", "5"), ("host", "b")], once(POSTED, "hello")),
        trailing("pseudo fields in trailers", &[(":path", "/smuggled")], once(POSTED, "hello")),
        trailing("a coding in trailers", &[("transfer-encoding", "chunked")], BROKEN),
        trailing("CR LF in trailers", &[("x", "y\r\nz: w")], BROKEN),
    ])
    .await;
}
