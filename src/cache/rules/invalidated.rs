//! What must be forgotten after a request that changes something (RFC 9111, section 4.4)?

use http::header::{CONTENT_LOCATION, LOCATION};
use http::{HeaderMap, Method, StatusCode};

/// Where a request went.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// `http` or `https`
    pub scheme: &'a str,
    /// Host and, unless it is the usual one, port.
    pub authority: &'a str,
    /// The path, with its query.
    pub path: &'a str,
}

/// The paths, with their queries, below the target's origin whose stored responses are not true any more: that of the
/// target first, and those that the response names in Location and Content-Location. Another origin's are its own matter:
/// else anybody could empty anybody's store.
pub fn invalidated(method: &Method, status: StatusCode, target: &Target<'_>, fields: &HeaderMap) -> Vec<String> {
    let is_error = !(status.is_success() || status.is_redirection());
    if is_safe(method) || is_error {
        return Vec::new();
    }
    let named = [LOCATION, CONTENT_LOCATION].into_iter().filter_map(|name| fields.get(name));
    let named = named.filter_map(|line| target.resolve(line.to_str().ok()?));
    let mut paths = vec![target.path.to_owned()];
    for path in named {
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    paths
}

/// Whether a method changes nothing (RFC 9110, section 9.2.1). One that we do not know may change something.
pub fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

impl Target<'_> {
    /// The path and query that a reference stands for (RFC 3986, section 5.2), if it is of the same origin.
    fn resolve(&self, reference: &str) -> Option<String> {
        let reference = reference.split('#').next().unwrap_or_default();
        let rest = match scheme(reference) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case(self.scheme) => {
                rest.starts_with("//").then_some(rest)?
            }
            Some(_) => return None,
            None => reference,
        };
        let Some(rest) = rest.strip_prefix("//") else { return Some(self.below(rest)) };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        self.is_mine(authority).then(|| if path.starts_with('/') { without_dots(path) } else { format!("/{path}") })
    }

    /// A reference without an authority.
    fn below(&self, reference: &str) -> String {
        let own = self.path.split('?').next().unwrap_or_default();
        match reference.chars().next() {
            None => self.path.to_owned(),
            Some('?') => format!("{own}{reference}"),
            Some('/') => without_dots(reference),
            Some(_) => {
                let folder = own.rfind('/').map_or("/", |slash| &own[..=slash]);
                without_dots(&format!("{folder}{reference}"))
            }
        }
    }

    fn is_mine(&self, authority: &str) -> bool {
        let usual = if self.scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
        let bare = |authority: &str| authority.strip_suffix(usual).or(authority.strip_suffix(':')).map(str::to_owned);
        let plain = |authority: &str| bare(authority).unwrap_or_else(|| authority.to_owned()).to_ascii_lowercase();
        plain(authority) == plain(self.authority)
    }
}

/// A scheme and what follows its colon.
fn scheme(reference: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = reference.split_once(':')?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    is_scheme.then_some((scheme, rest))
}

/// Without `.` and `..` in the path (RFC 3986, section 5.2.4).
fn without_dots(target: &str) -> String {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            name => kept.push(name),
        }
    }
    format!("/{}{query}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::rules::samples::head;
    use proptest::prelude::*;

    const HERE: Target<'_> = Target { scheme: "http", authority: "a.example:8080", path: "/b/c/d?q" };

    fn after(method: &str, status: u16) -> Vec<String> {
        invalidated(
            &method.parse().unwrap(),
            StatusCode::from_u16(status).unwrap(),
            &HERE,
            &head(&[("location", "/x")]),
        )
    }

    #[test]
    fn a_method_that_is_not_safe_invalidates_as_rfc_9111_section_4_4_says() {
        for method in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "post", "FOO"] {
            assert_eq!(after(method, 200), ["/b/c/d?q", "/x"], "{method}");
        }
        for method in ["GET", "HEAD", "OPTIONS", "TRACE"] {
            assert_eq!(after(method, 200), [""; 0], "{method}");
        }
    }

    #[test]
    fn an_error_invalidates_nothing_as_rfc_9111_section_4_4_says() {
        for status in [200, 201, 204, 299, 301, 303] {
            assert_eq!(after("POST", status).len(), 2, "{status}");
        }
        for status in [100, 400, 404, 500, 503] {
            assert_eq!(after("POST", status), [""; 0], "{status}");
        }
    }

    #[track_caller]
    fn check(reference: &str, expected: Option<&str>) {
        assert_eq!(HERE.resolve(reference).as_deref(), expected, "{reference}");
    }

    #[test]
    fn references_are_resolved_as_rfc_3986_section_5_4_says() {
        for (reference, expected) in [
            ("g", "/b/c/g"),
            ("./g", "/b/c/g"),
            ("g/", "/b/c/g/"),
            ("/g", "/g"),
            ("?y", "/b/c/d?y"),
            ("g?y", "/b/c/g?y"),
            ("#s", "/b/c/d?q"),
            ("g?y#s", "/b/c/g?y"),
            ("", "/b/c/d?q"),
            (".", "/b/c/"),
            ("..", "/b/"),
            ("../", "/b/"),
            ("../g", "/b/g"),
            ("../..", "/"),
            ("../../../g", "/g"),
            ("/./g", "/g"),
            ("/../g", "/g"),
            ("g.", "/b/c/g."),
            ("..g", "/b/c/..g"),
            ("g/./h", "/b/c/g/h"),
            ("g/../h", "/b/c/h"),
            ("g?y/../x", "/b/c/g?y/../x"),
        ] {
            check(reference, Some(expected));
        }
    }

    #[test]
    fn only_the_same_origin_is_touched_as_rfc_9111_section_4_4_says() {
        check("http://a.example:8080/x", Some("/x"));
        check("HTTP://A.Example:8080/x?y#z", Some("/x?y"));
        check("//a.example:8080/x", Some("/x"));
        check("http://a.example:8080", Some("/"));
        check("http://a.example:8080?y", Some("/?y"));
        for other in [
            "https://a.example:8080/x",
            "http://a.example/x",
            "http://b.example:8080/x",
            "//b.example/x",
            "http://u@a.example:8080/x",
            "http://a.example:8080.b.example/x",
            "http:x",
            "http:/x",
            "mailto:a@b",
            "urn:x",
        ] {
            check(other, None);
        }
    }

    #[test]
    fn the_usual_port_need_not_be_said() {
        for (scheme, own, named) in
            [("http", "a", "http://a:80/"), ("https", "a:443", "https://a/"), ("http", "a", "//a:/")]
        {
            assert_eq!(Target { scheme, authority: own, path: "/p" }.resolve(named).as_deref(), Some("/"), "{named}");
        }
        assert_eq!(Target { scheme: "https", authority: "a", path: "/p" }.resolve("https://a:80/"), None);
    }

    #[test]
    fn each_is_named_once_and_what_cannot_be_read_not_at_all() {
        let paths = |fields: &[(&str, &str)]| invalidated(&Method::POST, StatusCode::OK, &HERE, &head(fields));
        assert_eq!(paths(&[("location", "d?q"), ("content-location", "/x")]), ["/b/c/d?q", "/x"]);
        assert_eq!(paths(&[("location", "/x"), ("content-location", "/x")]), ["/b/c/d?q", "/x"]);
        assert_eq!(paths(&[("location", "/\u{e9}")]), ["/b/c/d?q"]);
    }

    proptest! {
        #[test]
        fn no_reference_makes_it_panic(reference in "\\PC{0,30}|[a-z:/?#.]{0,20}", path in "/[a-z/.?]{0,10}") {
            let resolved = Target { path: &path, ..HERE }.resolve(&reference);
            prop_assert!(resolved.is_none_or(|resolved| resolved.starts_with('/')));
        }
    }
}
