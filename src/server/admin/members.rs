//! What does a backend say of itself? `PUT` and `DELETE` on `/upstreams/NAME/backends/ADDRESS`, answered in JSON.
//!
//! Only the form is looked at here; what an address means is the registry's. A request with an `Origin` is refused: it
//! comes from a page in somebody's browser, and no backend is one; and so is one with a `Host` that is not this machine.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value as Json, json};

/// Bytes of a request's body; what is said of a backend is short.
pub(super) const BODY: usize = 4 * 1024;

/// What a backend asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The upstream.
    pub upstream: String,
    /// Where the backend is.
    pub url: String,
    /// What it wants.
    pub wish: Wish,
}

/// What a backend wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    /// To be a member, with what else it says of itself.
    Join(Json),
    /// Not to be one any more.
    Leave,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its status line, without the version.
    pub status: &'static str,
    /// Its body: JSON.
    pub body: String,
}

/// Asked at each request of a backend; must not block.
pub type Change = Arc<dyn Fn(Request) -> Reply + Send + Sync>;

impl Reply {
    /// An answer with this JSON.
    pub fn of(status: &'static str, body: &Json) -> Self {
        Self { status, body: body.to_string() }
    }

    /// An error, with its reason.
    pub fn error(status: &'static str, why: impl Into<String>) -> Self {
        Self::of(status, &json!({ "error": why.into() }))
    }
}

/// Whether a path is one of these.
pub(super) fn is_meant(path: &[u8]) -> bool {
    path.starts_with(b"/upstreams/")
}

/// How long the body of a request with this head is; or why it is not read, or comes from where nobody may ask.
pub(super) fn body_length(head: &[u8]) -> Result<usize, Reply> {
    let mut length = 0;
    for line in String::from_utf8_lossy(head).lines().skip(1) {
        let Some((name, value)) = line.split_once(':') else { continue };
        match name.trim().to_ascii_lowercase().as_str() {
            "origin" => return Err(Reply::error("403 Forbidden", "a browser's page may not do this")),
            "host" if !is_here(value.trim()) => {
                return Err(Reply::error("403 Forbidden", "the Host is not localhost or a loopback address"));
            }
            "transfer-encoding" => return Err(Reply::error("411 Length Required", "send a Content-Length")),
            "content-length" => {
                let digits = value.trim().bytes().all(|byte| byte.is_ascii_digit());
                let number = value.trim().parse().ok().filter(|_| digits);
                length = number.ok_or_else(|| Reply::error("400 Bad Request", "the Content-Length is no number"))?;
            }
            _ => {}
        }
    }
    if length > BODY {
        return Err(Reply::error("413 Content Too Large", format!("the body has more than {BODY} bytes")));
    }
    Ok(length)
}

/// Whether a `Host` is a name of this machine. Another one may be that of a page which has pointed its own name here.
fn is_here(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    // Over a unix socket it may be empty.
    name.is_empty() || name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|ip| ip.is_loopback())
}

/// What a request asks for; or why it makes no sense.
pub(super) fn read(method: &[u8], path: &[u8], body: &[u8]) -> Result<Request, Reply> {
    const FORM: &str = "the path is /upstreams/NAME/backends/ADDRESS";
    let text = std::str::from_utf8(path).ok().and_then(|path| path.strip_prefix("/upstreams/"));
    let parts = text.and_then(|rest| rest.split_once("/backends/"));
    let (upstream, url) = parts.ok_or_else(|| Reply::error("404 Not Found", FORM))?;
    let (upstream, url) = decoded(upstream).zip(decoded(url)).ok_or_else(|| Reply::error("400 Bad Request", FORM))?;
    let wish = match method {
        b"PUT" => Wish::Join(about(body)?),
        b"DELETE" => Wish::Leave,
        _ => return Err(Reply::error("405 Method Not Allowed", "PUT joins, and DELETE leaves")),
    };
    Ok(Request { upstream, url, wish })
}

fn about(body: &[u8]) -> Result<Json, Reply> {
    if body.trim_ascii().is_empty() {
        return Ok(json!({}));
    }
    serde_json::from_slice(body)
        .map_err(|error| Reply::error("400 Bad Request", format!("the body is not JSON: {error}")))
}

/// A part of a path without its percent signs.
fn decoded(part: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        let byte = match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        };
        bytes.push(byte);
    }
    String::from_utf8(bytes).ok().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(method: &str, path: &str, body: &str, expected: Result<(&str, &str), &str>) {
        let read = read(method.as_bytes(), path.as_bytes(), body.as_bytes());
        match expected {
            Ok((upstream, url)) => {
                let request = read.unwrap();
                assert_eq!((&*request.upstream, &*request.url), (upstream, url), "{path}");
            }
            Err(status) => assert!(read.as_ref().is_err_and(|reply| reply.status.starts_with(status)), "{read:?}"),
        }
    }

    #[test]
    fn a_path_names_an_upstream_and_an_address() {
        check("PUT", "/upstreams/app/backends/10.0.0.1:80", "", Ok(("app", "10.0.0.1:80")));
        check("PUT", "/upstreams/my%20app/backends/%5B::1%5D:80", "{}", Ok(("my app", "[::1]:80")));
        check("DELETE", "/upstreams/app/backends/https%3A%2F%2Fa.b", "", Ok(("app", "https://a.b")));
        for path in ["/upstreams/app", "/upstreams/app/backends", "/upstreams//backend/x"] {
            check("PUT", path, "", Err("404"));
        }
        for path in [
            "/upstreams//backends/x:1",
            "/upstreams/a/backends/",
            "/upstreams/a/backends/%f",
            "/upstreams/a/backends/%ff",
        ] {
            check("PUT", path, "", Err("400"));
        }
        check("POST", "/upstreams/app/backends/10.0.0.1:80", "", Err("405"));
        check("PUT", "/upstreams/app/backends/10.0.0.1:80", "{", Err("400"));
    }

    #[test]
    fn a_body_has_a_length_and_comes_from_no_page() {
        let length = |fields: &str| body_length(format!("PUT / HTTP/1.1\r\n{fields}\r\n\r\n").as_bytes());
        assert_eq!(length("Host: localhost"), Ok(0));
        assert_eq!(length("content-length: 12"), Ok(12));
        for host in ["", "LOCALHOST:9901", "127.0.0.1:9901", "127.0.0.2", "[::1]:9901", "[::1]"] {
            assert_eq!(length(&format!("Host: {host}")), Ok(0), "{host}");
        }
        for (fields, status) in [
            ("Content-Length: 5000", "413"),
            ("Content-Length: +5", "400"),
            ("Content-Length: 99999999999999999999", "400"),
            ("Transfer-Encoding: chunked", "411"),
            ("Origin: http://a.b", "403"),
            ("Host: a.b:9901", "403"),
            ("Host: 10.0.0.1", "403"),
        ] {
            assert!(length(fields).is_err_and(|reply| reply.status.starts_with(status)), "{fields}");
        }
    }
}
