//! What do we change or refuse on the way? Filters, and the chain that a route's requests pass through.
//!
//! A filter sees heads, the count of body bytes and the client; never the session, the upstream or another filter. A
//! new filter is one file, one variant of `Kind`, its line in `Kind::of` and its name.

pub mod accept;
mod body_limit;
pub mod cors;
mod custom;
mod edits;
pub mod error_pages;
pub mod networks;
mod redirect;
mod respond;
mod rewrite;
pub mod security_headers;

use std::net::IpAddr;
use std::ops::ControlFlow;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};

use crate::answer::Refusal;
use crate::config;

pub use self::body_limit::announced_length;

/// What a filter may know of whoever sent the request.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// The client's address, behind trusted proxies; `None` on a unix socket.
    pub address: Option<IpAddr>,
    /// Whether it came over TLS.
    pub tls: bool,
}

/// An answer that ends a request before it reaches a backend.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// It is refused.
    Refuse(Refusal),
    /// It is answered as the route says.
    Reply {
        /// The status.
        status: StatusCode,
        /// Fields beside the length and the date.
        headers: Vec<(HeaderName, HeaderValue)>,
        /// The body.
        body: Bytes,
    },
}

/// One step that changes or refuses; each call does nothing unless it is overridden.
pub trait Filter: Send + Sync {
    /// The head of the request, before a backend is chosen.
    fn on_request(&self, _head: &mut RequestHeader, _client: &Client) -> ControlFlow<Answer> {
        ControlFlow::Continue(())
    }

    /// The head that goes to the backend, complete but for this. Whatever is set here cannot be taken away by a
    /// `Connection` field of the client's.
    fn on_forward(&self, _head: &mut RequestHeader) -> ControlFlow<Refusal> {
        ControlFlow::Continue(())
    }

    /// The bytes of the request's body so far.
    fn on_body(&self, _seen: u64) -> ControlFlow<Refusal> {
        ControlFlow::Continue(())
    }

    /// The head of the response, on its way to the client, and the request as filters left it.
    fn on_response(&self, _head: &mut ResponseHeader, _request: &RequestHeader) {}
}

/// The list of filters, in the order in which requests meet them.
enum Kind {
    BodyLimit(body_limit::BodyLimit),
    Rewrite(rewrite::Rewrite),
    Edits(edits::Edits),
    Custom(custom::Custom),
    Redirect(redirect::Redirect),
    Respond(respond::Respond),
}

impl Kind {
    /// The filters that a route asks for; one that would do nothing is left out.
    fn of(route: &config::Route) -> Vec<Self> {
        let ours = [
            Some(Self::BodyLimit(body_limit::BodyLimit::new(route.body_limit))),
            rewrite::Rewrite::new(&route.rewrite).map(Self::Rewrite),
            edits::Edits::new(&route.request_headers, &route.response_headers).map(Self::Edits),
        ];
        let custom = route.filters.iter().map(|filter| Self::Custom(custom::Custom::new(&filter.made)));
        let answers = [
            redirect::Redirect::new(&route.action).map(Self::Redirect),
            respond::Respond::new(&route.action).map(Self::Respond),
        ];
        ours.into_iter().flatten().chain(custom).chain(answers.into_iter().flatten()).collect()
    }

    /// What operators are told of it.
    fn name(&self) -> &'static str {
        match self {
            Self::BodyLimit(_) => "body_limit",
            Self::Rewrite(_) => "rewrite",
            Self::Edits(_) => "headers",
            Self::Custom(_) => "custom",
            Self::Redirect(_) => "redirect",
            Self::Respond(_) => "respond",
        }
    }

    fn boxed(self) -> Box<dyn Filter> {
        match self {
            Self::BodyLimit(filter) => Box::new(filter),
            Self::Rewrite(filter) => Box::new(filter),
            Self::Edits(filter) => Box::new(filter),
            Self::Custom(filter) => Box::new(filter),
            Self::Redirect(filter) => Box::new(filter),
            Self::Respond(filter) => Box::new(filter),
        }
    }
}

/// The filters of one route, in order.
pub struct Chain {
    filters: Vec<Box<dyn Filter>>,
    names: Box<[&'static str]>,
}

impl Chain {
    /// The chain that a route asks for.
    pub fn new(route: &config::Route) -> Self {
        let kinds = Kind::of(route);
        let names = kinds.iter().map(Kind::name).collect();
        Self { filters: kinds.into_iter().map(Kind::boxed).collect(), names }
    }

    /// What the filters are called, in order.
    pub fn names(&self) -> &[&'static str] {
        &self.names
    }

    /// A chain of these alone.
    #[cfg(test)]
    pub(crate) fn of(filters: Vec<Box<dyn Filter>>) -> Self {
        Self { filters, names: Box::default() }
    }

    /// Passes the head of a request through; the first filter that breaks ends it.
    pub fn on_request(&self, head: &mut RequestHeader, client: &Client) -> ControlFlow<Answer> {
        self.filters.iter().try_for_each(|filter| filter.on_request(head, client))
    }

    /// Passes the head that goes to the backend through.
    pub fn on_forward(&self, head: &mut RequestHeader) -> ControlFlow<Refusal> {
        self.filters.iter().try_for_each(|filter| filter.on_forward(head))
    }

    /// Tells how much of the request's body has been seen.
    pub fn on_body(&self, seen: u64) -> ControlFlow<Refusal> {
        self.filters.iter().try_for_each(|filter| filter.on_body(seen))
    }

    /// Passes the head of a response through, in the opposite order.
    pub fn on_response(&self, head: &mut ResponseHeader, request: &RequestHeader) {
        self.filters.iter().rev().for_each(|filter| filter.on_response(head, request));
    }
}
