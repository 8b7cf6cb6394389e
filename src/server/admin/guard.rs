//! May they ask? Who reaches the admin address, from where, and with which token.
//!
//! Without a token whoever reaches the address is on this machine, and may ask; so the `Host` must be a name of this
//! machine, or a page could point its own name here (DNS rebinding). With a token it is the token that counts. In both
//! cases nothing is done for a page of another origin: there is no CORS, and requests that a browser says were made by
//! one are refused, reads too, so that no page can use up what is bounded.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};

use super::head::Head;
use super::operator::Reply;
use crate::config::Secret;

/// Where a request came from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct From {
    pub(super) peer: Option<SocketAddr>,
    /// The user at the other end of a unix socket.
    pub(super) user: Option<u32>,
}

/// Who asks, for the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who {
    from: From,
    has_token: bool,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.from.peer, self.from.user) {
            (Some(peer), _) => write!(f, "{peer}")?,
            (None, Some(user)) => write!(f, "user {user} on the socket")?,
            (None, None) => f.write_str("the socket")?,
        }
        f.write_str(if self.has_token { ", with the token" } else { "" })
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whether we live and are ready: everybody may ask.
    Probe,
    /// A file of the page, in which there is no fact: it has to be there before a token can be shown.
    Page,
    /// Everything else.
    Fact,
}

/// Who asks, if they may; or why not.
pub(super) fn admit(head: &Head, kind: Kind, from: From, token: Option<&Secret>) -> Result<Who, Reply> {
    if kind == Kind::Probe {
        return Ok(Who { from, has_token: false });
    }
    if token.is_none() && !head.field("host").is_none_or(is_here) {
        let help = "ask for localhost or a loopback address, or give `admin.token` a secret";
        return Err(Reply::problem("403 Forbidden", "the Host is not localhost or a loopback address", help));
    }
    if is_of_another_page(head, kind) {
        let help = "open the status page itself, or use a program that is no browser";
        return Err(Reply::problem("403 Forbidden", "a page of another origin may not do this", help));
    }
    match token {
        Some(token) if kind == Kind::Fact && !shows(head, token) => {
            let help = "send `Authorization: Bearer TOKEN` with the secret of `admin.token`";
            Err(Reply::problem("401 Unauthorized", "the token is missing, or is not the right one", help))
        }
        Some(_) | None => Ok(Who { from, has_token: token.is_some() && kind == Kind::Fact }),
    }
}

/// Whether a browser says that a page of another origin asks. To follow a link to the page is fine.
fn is_of_another_page(head: &Head, kind: Kind) -> bool {
    let follows_link = kind == Kind::Page && head.method == "GET" && head.field("sec-fetch-mode") == Some("navigate");
    let site = head.field("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none"));
    let origin = head.field("origin").is_some_and(|origin| !is_own(origin, head.field("host").unwrap_or_default()));
    (site && !follows_link) || origin
}

/// Whether an origin is that of the page which we serve under this host.
fn is_own(origin: &str, host: &str) -> bool {
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    authority.is_some_and(|authority| !host.is_empty() && authority.eq_ignore_ascii_case(host))
}

/// Whether a `Host` is a name of this machine.
fn is_here(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    // Over a unix socket it may be empty.
    name.is_empty() || name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|ip| ip.is_loopback())
}

/// Compared by their digests, so that neither the place of a difference nor a length shows in the time that it takes.
fn shows(head: &Head, token: &Secret) -> bool {
    let Some((scheme, shown)) = head.field("authorization").and_then(|value| value.split_once(' ')) else {
        return false;
    };
    let [shown, token] = [shown.trim().as_bytes(), token.bytes()].map(|bytes| digest(&SHA256, bytes));
    scheme.eq_ignore_ascii_case("bearer") && verify_slices_are_equal(shown.as_ref(), token.as_ref()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::head::head;
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    #[track_caller]
    fn check(method: &str, fields: &str, kind: Kind, token: Option<&str>, expected: &str) {
        let head = head(&format!("{method} / HTTP/1.1{fields}"));
        let secret = token.map(|token| Secret::new(token.as_bytes()));
        let status = match admit(&head, kind, From::default(), secret.as_ref()) {
            Ok(_) => "200".to_owned(),
            Err(reply) => reply.status[..3].to_owned(),
        };
        assert_eq!(status, expected, "{method} {fields:?} {kind:?} {token:?}");
    }

    #[test]
    fn without_a_token_the_host_must_be_this_machine() {
        for host in ["", "LOCALHOST:9901", "127.0.0.1:9901", "127.0.0.2", "[::1]:9901", "[::1]"] {
            check("GET", &format!("\r\nHost: {host}"), Kind::Fact, None, "200");
        }
        check("GET", "", Kind::Fact, None, "200");
        for host in ["a.b:9901", "10.0.0.1", "localhost.a.b", "127.0.0.1.a.b", "0.0.0.0"] {
            check("GET", &format!("\r\nHost: {host}"), Kind::Fact, None, "403");
            check("GET", &format!("\r\nHost: {host}"), Kind::Page, None, "403");
            check("GET", &format!("\r\nHost: {host}"), Kind::Probe, None, "200");
        }
        check("GET", &format!("\r\nHost: a.b\r\nAuthorization: Bearer {TOKEN}"), Kind::Fact, Some(TOKEN), "200");
    }

    #[test]
    fn facts_want_the_token_and_nothing_else_does() {
        for (kind, expected) in [(Kind::Probe, "200"), (Kind::Page, "200"), (Kind::Fact, "401")] {
            check("GET", "", kind, Some(TOKEN), expected);
        }
        for (shown, expected) in [
            (format!("Bearer {TOKEN}"), "200"),
            (format!("bearer  {TOKEN}"), "200"),
            (format!("Basic {TOKEN}"), "401"),
            (format!("Bearer {}", &TOKEN[1..]), "401"),
            (format!("Bearer {TOKEN}0"), "401"),
            (TOKEN.to_owned(), "401"),
            ("Bearer ".to_owned(), "401"),
        ] {
            check("POST", &format!("\r\nAuthorization: {shown}"), Kind::Fact, Some(TOKEN), expected);
        }
    }

    #[test]
    fn no_page_of_another_origin_may_ask() {
        const HERE: &str = "\r\nHost: 127.0.0.1:9901\r\n";
        for (method, fields, kind, expected) in [
            ("POST", "Origin: http://127.0.0.1:9901", Kind::Fact, "200"),
            ("POST", "Origin: http://127.0.0.1:9901\r\nSec-Fetch-Site: same-origin", Kind::Fact, "200"),
            ("POST", "Origin: http://127.0.0.1:3000", Kind::Fact, "403"),
            ("POST", "Origin: http://localhost:9901", Kind::Fact, "403"),
            ("POST", "Origin: null", Kind::Fact, "403"),
            ("POST", "Origin: ", Kind::Fact, "403"),
            ("POST", "Sec-Fetch-Site: same-site", Kind::Fact, "403"),
            ("GET", "Sec-Fetch-Site: cross-site", Kind::Fact, "403"),
            ("GET", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate", Kind::Fact, "403"),
            ("GET", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate", Kind::Page, "200"),
            ("GET", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors", Kind::Page, "403"),
            ("POST", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate", Kind::Page, "403"),
            ("GET", "Sec-Fetch-Site: none", Kind::Fact, "200"),
        ] {
            check(method, &format!("{HERE}{fields}"), kind, None, expected);
            let with_token = format!("{HERE}{fields}\r\nAuthorization: Bearer {TOKEN}");
            check(method, &with_token, kind, Some(TOKEN), expected);
        }
    }
}
