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

/// A method that we do not know may change something.
fn is_safe(method: &Method) -> bool {
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
