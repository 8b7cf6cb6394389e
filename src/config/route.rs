//! Which request goes where? The `routes` section, checked.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use super::{
    AddressList, Auth, AuthBy, Caching, Compress, Cors, ErrorPages, JwtKeys, KeySource, Maintenance, RateLimit, Retry,
    SecurityHeaders, Substitution,
};
use crate::custom::Custom;

/// A match, and what it leads to.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Its name in logs; `routes[N]` unless given.
    pub name: Arc<str>,
    /// Which requests belong to it.
    pub matches: Match,
    /// What happens to them.
    pub action: Action,
    /// How the request is changed on its way to the upstream.
    pub rewrite: Rewrite,
    /// Until the head of the response is there, all attempts included.
    pub timeout: Duration,
    /// Who is served first of those that wait: who has more.
    pub priority: i32,
    /// When they are tried again.
    pub retry: Retry,
    /// What is stored of their responses; `None` is nothing.
    pub cache: Option<Arc<Caching>>,
    /// Which of their answers are made smaller; `None` is none.
    pub compress: Option<Arc<Compress>>,
    /// Which addresses may come in; all where nothing is listed.
    pub allow: AddressList,
    /// Which may not, whatever `allow` says.
    pub deny: AddressList,
    /// It is closed.
    pub maintenance: Option<Maintenance>,
    /// Pages for errors.
    pub errors: Option<ErrorPages>,
    /// Which pages of other sites may use what comes from here; `None`: nothing is said about it.
    pub cors: Option<Cors>,
    /// Fields that make browsers careful.
    pub security_headers: Option<SecurityHeaders>,
    /// Who may come in; `None` is everybody.
    pub auth: Option<Auth>,
    /// The largest request body, in bytes.
    pub body_limit: u64,
    /// How many requests each client may make.
    pub rate_limits: Vec<RateLimit>,
    /// What the program adds, in order.
    pub filters: Vec<Custom<dyn crate::custom::Filter>>,
    /// Changes to the request's fields.
    pub request_headers: HeaderEdits,
    /// Changes to the response's fields.
    pub response_headers: HeaderEdits,
    /// What the client is told about the inside.
    pub expose: Expose,
}

impl Route {
    /// The files that it refers to, which are read again when they change.
    pub fn files(&self) -> impl Iterator<Item = PathBuf> {
        let auth = self.auth.iter().filter_map(|auth| match &auth.by {
            AuthBy::Basic(path) | AuthBy::Keys { source: KeySource::File(path), .. } => Some(path.clone()),
            AuthBy::Jwt(jwt) => match &jwt.keys {
                JwtKeys::File(path) => Some(path.clone()),
                JwtKeys::Url(_) | JwtKeys::Secret(_) => None,
            },
            AuthBy::Keys { source: KeySource::Sqlite { .. }, .. } => None,
        });
        let lists = [&self.allow, &self.deny].into_iter().flat_map(|list| list.files.iter().cloned());
        let errors = self.errors.iter().flat_map(|errors| &errors.pages).flat_map(|(_, pages)| pages);
        auth.chain(lists).chain(errors.map(|page| page.path.clone()))
    }
}

/// Which requests belong to a route; an empty list asks for nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Match {
    /// The name of the listener.
    pub listener: Option<Arc<str>>,
    /// One of these hosts.
    pub hosts: Vec<HostPattern>,
    /// The path.
    pub path: PathPattern,
    /// One of these methods; GET implies HEAD.
    pub methods: Vec<Method>,
    /// Each of these fields with just this value.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Each of these query parameters with just this value.
    pub query: Vec<(String, String)>,
}

/// A host to match, in lower case and without a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Just this host.
    Exact(String),
    /// Any host below this domain: `*.example.com` holds `example.com`.
    Wildcard(String),
}

/// A path to match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// Every path.
    #[default]
    Any,
    /// Just this path.
    Exact(String),
    /// This path and all below it: `/v1/*` holds `/v1`.
    Prefix(String),
}

/// What happens to the requests of a route.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// They go to this upstream, which exists.
    Upstream(Arc<str>),
    /// They are redirected.
    Redirect {
        /// The `Location`; if it ends in `/*`, the request's path and query take the place of the `*`.
        to: String,
        /// 301, 302, 303, 307 or 308.
        status: u16,
    },
    /// They are answered here.
    Respond {
        /// The status, 200 to 599.
        status: u16,
        /// The body, as text.
        body: String,
    },
}

/// How a request is changed on its way to the upstream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rewrite {
    /// Taken off the front of the path, on a segment border.
    pub strip_prefix: Option<String>,
    /// Put before the path.
    pub add_prefix: Option<String>,
    /// What takes the path's place, made of parts of it.
    pub substitution: Option<Substitution>,
    /// The Host field for the backend.
    pub host: Option<HeaderValue>,
}

/// Changes to header fields, made in the order remove, set, add.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderEdits {
    /// Fields that get this one value.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Values added beside those that are there.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Fields taken away.
    pub remove: Vec<HeaderName>,
}

/// What the client is told about the inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expose {
    /// `X-Backend-Server`.
    pub backend: bool,
    /// `Cache-Status` (RFC 9211).
    pub cache: bool,
    /// `Server-Timing`.
    pub timing: bool,
}
