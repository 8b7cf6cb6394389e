//! May this page use our answer? The CORS protocol (<https://fetch.spec.whatwg.org/#http-cors-protocol>).
//!
//! A browser asks first (a *preflight*) where a page wants more than a form could do; we answer for the backend, before
//! anybody is asked for credentials, since a preflight has none. What the backend says of it in its own answers is replaced:
//! the route has the word. Nothing here refuses a request: it is the browser that keeps an answer from a page.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};

use super::Answer;
use crate::config::{self, Origin};

const ANY: HeaderValue = HeaderValue::from_static("*");
const TRUE: HeaderValue = HeaderValue::from_static("true");

/// What a preflight's answer depends on.
const PREFLIGHT_VARY: HeaderValue =
    HeaderValue::from_static("Origin, Access-Control-Request-Method, Access-Control-Request-Headers");

/// What the pages of other sites may do.
#[derive(Debug)]
pub struct Cors {
    origins: Vec<Origin>,
    methods: HeaderValue,
    /// `None`: whatever is asked for.
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    credentials: bool,
    max_age: HeaderValue,
}

impl Cors {
    /// As the route says.
    pub fn new(config: &config::Cors) -> Self {
        let methods: Vec<_> = config.methods.iter().map(Method::as_str).collect();
        let names = |names: &[HeaderName]| list(&names.iter().map(HeaderName::as_str).collect::<Vec<_>>());
        Self {
            origins: config.origins.clone(),
            methods: list(&methods),
            headers: config.headers.as_deref().map(names),
            expose: (!config.expose.is_empty()).then(|| names(&config.expose)),
            credentials: config.credentials,
            max_age: HeaderValue::from(config.max_age.as_secs()),
        }
    }

    /// The answer to a preflight; `None` where it is none. A page that may do nothing gets an answer that says nothing.
    pub fn preflight(&self, head: &RequestHeader) -> Option<Answer> {
        if head.method != Method::OPTIONS || !head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            return None;
        }
        head.headers.get(ORIGIN)?;
        let mut headers = vec![(VARY, PREFLIGHT_VARY)];
        if self.allowed(&head.headers).is_some() {
            headers.push((ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone()));
            let asked = head.headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
            // `*` would not do: it is no wildcard with credentials, and never holds Authorization.
            let fields = self.headers.clone().or_else(|| asked.cloned()).filter(|fields| !fields.is_empty());
            headers.extend(fields.map(|fields| (ACCESS_CONTROL_ALLOW_HEADERS, fields)));
            headers.push((ACCESS_CONTROL_MAX_AGE, self.max_age.clone()));
        }
        Some(Answer::Reply { status: StatusCode::NO_CONTENT, headers, body: bytes::Bytes::new() })
    }

    /// Says on an answer whether the page that asked may use it.
    pub fn tell(&self, request: &HeaderMap, head: &mut ResponseHeader) -> Result<()> {
        for name in [ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_EXPOSE_HEADERS] {
            head.remove_header(&name);
        }
        if !self.is_the_same_for_all() && !varies_by_origin(&head.headers) {
            head.append_header(VARY, HeaderValue::from_static("Origin"))?;
        }
        let Some(origin) = self.allowed(request) else { return Ok(()) };
        head.insert_header(ACCESS_CONTROL_ALLOW_ORIGIN, origin)?;
        if self.credentials {
            head.insert_header(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE)?;
        }
        match &self.expose {
            Some(names) => head.insert_header(ACCESS_CONTROL_EXPOSE_HEADERS, names.clone()),
            None => Ok(()),
        }
    }

    fn is_the_same_for_all(&self) -> bool {
        self.origins.contains(&Origin::Any)
    }

    /// What is said to the page that asks, if it may use anything.
    fn allowed(&self, request: &HeaderMap) -> Option<HeaderValue> {
        if self.is_the_same_for_all() {
            // The configuration gives no credentials to everybody.
            return Some(ANY);
        }
        let mut origins = request.get_all(ORIGIN).iter();
        let (origin, None) = (origins.next()?, origins.next()) else { return None };
        let text = origin.to_str().ok()?;
        self.origins.iter().any(|allowed| holds(allowed, text)).then(|| origin.clone())
    }
}

fn holds(allowed: &Origin, origin: &str) -> bool {
    match allowed {
        Origin::Any => true,
        Origin::Exact(exact) => origin == exact,
        Origin::Below { scheme, domain } => {
            let label = origin.strip_prefix(&**scheme).and_then(|host| host.strip_suffix(&**domain));
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
            label.is_some_and(|label| !label.is_empty() && label.bytes().all(legal))
        }
    }
}

fn varies_by_origin(headers: &HeaderMap) -> bool {
    let fields = headers.get_all(VARY).iter().filter_map(|field| field.to_str().ok());
    fields
        .flat_map(|field| field.split(','))
        .any(|name| matches!(name.trim(), "*") || name.trim().eq_ignore_ascii_case("origin"))
}

fn list(names: &[&str]) -> HeaderValue {
    // Names of methods and of fields hold nothing that a value may not.
    HeaderValue::try_from(names.join(", ")).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hosts_below_a_domain_are_below_it() {
        let below = Origin::Below { scheme: "https://".into(), domain: ".example.com".into() };
        for origin in ["https://a.example.com", "https://a.b.example.com"] {
            assert!(holds(&below, origin), "{origin}");
        }
        for origin in [
            "https://example.com",
            "https://.example.com",
            "http://a.example.com",
            "https://a.example.com:8443",
            "https://evil.com/.example.com",
            "https://evil.com#.example.com",
            "https://evil.com:1.example.com",
            "https://aexample.com",
            "https://a.example.com.evil.com",
            "null",
        ] {
            assert!(!holds(&below, origin), "{origin}");
        }
    }
}
