//! What is told of a request as a trace? The trace that it is in, what backends are told of it, and its spans when it is
//! over: one of the request, and one of each attempt.
//!
//! Names and attributes are those of OpenTelemetry's conventions for HTTP; what they have no name for begins with
//! `portcullis.`. No query is told, and no field: both may hold secrets.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::{Instant, SystemTime};

use http::{HeaderValue, Method, Version};
use pingora::Result;
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use super::exchange::{Ended, Exchange};
use crate::answer;
use crate::config::Target;
use crate::observe::access_log::Entry;
use crate::observe::tracing::{Role, Span, TRACEPARENT, TRACESTATE, Trace, Value};

type Attributes = Vec<(&'static str, Value)>;

/// The methods that the conventions name; others are one, so that a client cannot make up names of spans.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

impl Exchange {
    /// Begins or continues a trace, where requests are traced. What no client waits for is in none.
    pub(super) fn begin_trace(&mut self, head: &RequestHeader) {
        let tracer = self.snapshot.tracer.as_ref().filter(|_| !self.in_background);
        self.trace = tracer.map(|tracer| tracer.begin(&head.headers, self.sender.trusted));
    }

    /// Tells a backend which span its work is part of. What was said of a trace that is none goes.
    pub(super) fn tell_trace(&self, head: &mut RequestHeader) -> Result<()> {
        let (Some(trace), Some(attempt)) = (&self.trace, &self.attempt) else { return Ok(()) };
        if let Ok(parent) = HeaderValue::try_from(trace.parent_for(attempt.span)) {
            head.insert_header(TRACEPARENT, parent)?;
        }
        if trace.parent.is_none() {
            head.remove_header(&TRACESTATE);
        }
        Ok(())
    }

    /// Gives the spans of an exchange that is over to whoever sends them.
    pub(super) fn end_trace(&self, session: &Session, ended: answer::Ended) {
        let sampled = self.trace.as_ref().filter(|trace| trace.is_sampled);
        let (Some(trace), Some(tracer)) = (sampled, &self.snapshot.tracer) else { return };
        let now = Moment { instant: Instant::now(), time: SystemTime::now() };
        let mut spans = vec![self.span(session, trace, ended, now)];
        let attempts = self.attempts.iter().enumerate();
        spans.extend(attempts.map(|(place, attempt)| self.span_of_attempt(attempt, place, trace, now)));
        tracer.take(spans);
    }

    fn span(&self, session: &Session, trace: &Trace, ended: answer::Ended, now: Moment) -> Span {
        let status = session.response_written().map(|head| head.status);
        let is_ours = status.is_none_or(|status| status.is_server_error()) && ended != answer::Ended::ClientGone;
        let error = (is_ours && (ended != answer::Ended::Complete || status.is_some())).then(|| match ended {
            answer::Ended::Complete | answer::Ended::ClientGone => status_word(status.map_or(0, |it| it.as_u16())),
            answer::Ended::Refused(refusal) => refusal.label().into(),
        });
        let route = self.plan.as_ref().map(|plan| plan.name.clone());
        let mut all = self.attributes_of(session);
        all.extend(status.map(|status| ("http.response.status_code", Value::Number(status.as_u16().into()))));
        all.extend(route.as_ref().map(|route| ("portcullis.route", text(route.to_string()))));
        all.extend(self.cache_word(session).map(|word| ("portcullis.cache", Value::Text(word))));
        if ended != answer::Ended::Complete {
            all.push(("portcullis.reason", text(ended.label())));
        }
        all.extend(error.clone().map(|error| ("error.type", Value::Text(error))));
        let method = method(&self.request.method);
        Span {
            trace: trace.id,
            id: trace.span,
            parent: trace.parent,
            role: Role::Server,
            name: route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}")),
            began: now.at(self.began),
            took: now.instant.saturating_duration_since(self.began),
            attributes: all,
            error,
        }
    }

    fn attributes_of(&self, session: &Session) -> Attributes {
        let tls = self.connection.as_ref().is_some_and(|connection| connection.tls.is_some());
        let id = self.request.id.to_str().unwrap_or_default();
        let mut all = vec![
            ("http.request.method", text(method(&self.request.method))),
            ("url.scheme", text(if tls { "https" } else { "http" })),
            ("url.path", text(Entry::path_of(&self.request.path))),
            ("network.protocol.version", text(version(session.req_header().version))),
            ("http.request.body.size", Value::Number(self.body_seen)),
            ("http.response.body.size", Value::Number(session.body_bytes_sent() as u64)),
            ("portcullis.request_id", text(id.to_owned())),
        ];
        if !self.request.host().is_empty() {
            all.push(("server.address", text(self.request.host().to_owned())));
        }
        all.extend(self.sender.client.map(|client: IpAddr| ("client.address", text(client.to_string()))));
        all
    }

    fn span_of_attempt(&self, attempt: &Ended, place: usize, trace: &Trace, now: Moment) -> Span {
        let method = method(&self.request.method);
        let mut all = vec![
            ("http.request.method", text(method)),
            ("portcullis.upstream", text(attempt.backend.upstream.to_string())),
            ("portcullis.backend", text(attempt.backend.name.to_string())),
        ];
        all.extend(address(&attempt.backend.target));
        if place > 0 {
            all.push(("http.request.resend_count", Value::Number(place as u64)));
        }
        let failed = (attempt.outcome != answer::Ended::Complete.label()).then(|| attempt.outcome.clone());
        let bad = attempt.status.filter(|status| status.is_client_error() || status.is_server_error());
        let error = failed.or_else(|| bad.map(|status| status_word(status.as_u16())));
        all.extend(attempt.status.map(|status| ("http.response.status_code", Value::Number(status.as_u16().into()))));
        all.extend(error.clone().map(|error| ("error.type", Value::Text(error))));
        Span {
            trace: trace.id,
            id: attempt.span,
            parent: Some(trace.span),
            role: Role::Client,
            name: method.to_owned(),
            began: now.at(attempt.began),
            took: attempt.took,
            attributes: all,
            error,
        }
    }
}

/// The same moment on both clocks: spans are told in the time of day.
#[derive(Clone, Copy)]
struct Moment {
    instant: Instant,
    time: SystemTime,
}

impl Moment {
    fn at(self, instant: Instant) -> SystemTime {
        let ago = self.instant.saturating_duration_since(instant);
        self.time.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

fn address(target: &Target) -> Attributes {
    match target {
        Target::Address(address) => vec![
            ("server.address", text(address.ip().to_string())),
            ("server.port", Value::Number(address.port().into())),
        ],
        Target::Name { host, port } => {
            vec![("server.address", text(host.to_string())), ("server.port", Value::Number((*port).into()))]
        }
        Target::Unix(path) => vec![("server.address", text(path.display().to_string()))],
    }
}

fn text(value: impl Into<Cow<'static, str>>) -> Value {
    Value::Text(value.into())
}

fn status_word(status: u16) -> Cow<'static, str> {
    status.to_string().into()
}

fn method(method: &Method) -> &'static str {
    METHODS.into_iter().find(|known| *known == method.as_str()).unwrap_or("_OTHER")
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    }
}
