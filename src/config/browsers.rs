//! Which pages of other sites may use what comes from here, what do all answers say to browsers, and is it closed? The
//! `cors`, `security_headers` and `maintenance` of routes, checked.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use ipnet::IpNet;

/// Which pages of other sites may use what comes from here (the CORS protocol of the Fetch standard).
#[derive(Clone, Debug, PartialEq)]
pub struct Cors {
    /// Where the pages come from.
    pub origins: Vec<Origin>,
    /// What they may ask.
    pub methods: Vec<Method>,
    /// Which fields they may send; `None` is any.
    pub headers: Option<Vec<HeaderName>>,
    /// Which fields of answers they may read, beside those that all may.
    pub expose: Vec<HeaderName>,
    /// Whether requests come with cookies; never together with any origin.
    pub credentials: bool,
    /// How long a browser remembers what it was told.
    pub max_age: Duration,
}

/// Where a page comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Anywhere.
    Any,
    /// This scheme, host and port, as browsers write them.
    Exact(String),
    /// Any host below a domain.
    Below {
        /// `https://`
        scheme: String,
        /// `.example.com`, and a port if there is one.
        domain: String,
    },
}

/// Fields that make browsers careful; each only where the backend says nothing of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct SecurityHeaders {
    /// `Strict-Transport-Security`, over TLS alone.
    pub transport: Option<HeaderValue>,
    /// All others.
    pub others: Vec<(HeaderName, HeaderValue)>,
}

/// It is closed.
#[derive(Clone, Debug, PartialEq)]
pub struct Maintenance {
    /// When it may be worth another try.
    pub retry_after: Duration,
    /// What clients read.
    pub body: String,
    /// For whom it is open.
    pub except: Vec<IpNet>,
}
