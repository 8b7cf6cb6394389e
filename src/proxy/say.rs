//! What does the client read of an error? A page of the route's, a problem (RFC 9457), or a line of text.
//!
//! All of them say the same of what happened; which one it is goes by what the client reads.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType};
use serde::Serialize;

use super::admit::Admission;
use super::exchange::Exchange;
use crate::answer::Refusal;
use crate::filter::accept::Accept;
use crate::filter::error_pages::ErrorPages;

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";

/// A body, and of which type it is.
pub(super) struct Said {
    pub(super) kind: &'static str,
    pub(super) body: Bytes,
}

impl Said {
    fn text(text: String) -> Self {
        Self { kind: "text/plain; charset=utf-8", body: text.into() }
    }
}

/// RFC 9457, section 3.1. Without a type it says no more than the status does.
#[derive(Serialize)]
struct Problem<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    title: &'static str,
    status: u16,
    detail: &'static str,
    #[serde(rename = "violated-policies", skip_serializing_if = "Vec::is_empty")]
    violated_policies: Vec<&'a str>,
}

impl Problem<'_> {
    fn of(status: StatusCode, refusal: Refusal) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        Self { r#type: None, title, status: status.as_u16(), detail: refusal.words(), violated_policies: Vec::new() }
    }

    fn said(&self) -> Option<Said> {
        Some(Said { kind: PROBLEM, body: serde_json::to_vec(self).ok()?.into() })
    }
}

impl Exchange {
    /// What the client reads of a refusal.
    pub(super) fn say(&self, asked: &HeaderMap, refusal: Refusal) -> Said {
        let accept = Accept::of(asked);
        if let (Refusal::Maintenance { .. }, Some(closed)) =
            (refusal, self.admission().and_then(|it| it.maintenance.as_ref()))
        {
            let (kind, body) = closed.words();
            return Said { kind, body: body.into() };
        }
        let page = self.page(refusal.status(), &accept);
        page.or_else(|| self.problem_of_rates(refusal, &accept))
            .or_else(|| self.problem(refusal, &accept))
            .unwrap_or_else(|| Said::text(refusal.body()))
    }

    /// What the client reads with the status of a backend whose own words are gone.
    pub(super) fn say_with(&self, asked: &HeaderMap, status: StatusCode, refusal: Refusal) -> Said {
        self.page(status, &Accept::of(asked)).unwrap_or_else(|| Said::text(refusal.body_with(status)))
    }

    /// The page of the route for this status, if it has one that the client reads.
    pub(super) fn page(&self, status: StatusCode, accept: &Accept) -> Option<Said> {
        let (kind, body) = self.pages()?.page(status, accept)?;
        Some(Said { kind, body })
    }

    /// Whether a page of the route stands for what backends say with this status.
    pub(super) fn says_for_backends(&self, status: StatusCode, asked: &HeaderMap) -> bool {
        let of_backends = self.pages().is_some_and(ErrorPages::are_of_backends);
        of_backends && self.page(status, &Accept::of(asked)).is_some()
    }

    fn pages(&self) -> Option<&ErrorPages> {
        self.admission()?.pages.as_ref()
    }

    fn admission(&self) -> Option<&Admission> {
        self.plan.as_ref()?.admission.as_deref()
    }

    /// Puts a page in the place of an answer that would be passed on, where the route wants that: it is given up, and the
    /// error is answered by [`super::reply::replace`].
    pub(super) fn replace_answer(&mut self, session: &Session, head: &ResponseHeader) -> Result<()> {
        if !self.says_for_backends(head.status, &session.req_header().headers) {
            return Ok(());
        }
        self.give_up_for_a_page(head);
        Err(Error::explain(ErrorType::HTTPStatus(head.status.as_u16()), "a page takes its place").into_up())
    }

    /// What a refusal is where the client would rather read JSON. Without a route the guard below Pingora may be the one who
    /// answers, which reads no `Accept`: all of these are answered alike.
    fn problem(&self, refusal: Refusal, accept: &Accept) -> Option<Said> {
        let is_routed = self.plan.is_some() || refusal == Refusal::NoRoute;
        Problem::of(refusal.status(), refusal).said().filter(|_| is_routed && prefers_json(accept))
    }

    fn problem_of_rates(&self, refusal: Refusal, accept: &Accept) -> Option<Said> {
        if !matches!(refusal, Refusal::RateLimited { .. }) || !takes_json(accept) {
            return None;
        }
        let violated = self.standings.iter().filter(|standing| standing.refuses());
        let violated_policies = violated.map(|standing| &*standing.limit.name).collect();
        let r#type = Some("https://iana.org/assignments/http-problem-types#quota-exceeded");
        Problem { r#type, violated_policies, ..Problem::of(refusal.status(), refusal) }.said()
    }
}

/// How much the client wants JSON, if it names that.
fn named_json(accept: &Accept) -> Option<u16> {
    accept.named(PROBLEM).max(accept.named(JSON))
}

/// Whether the client names JSON, and would rather have it than text.
fn prefers_json(accept: &Accept) -> bool {
    let Some(json) = named_json(accept).filter(|json| *json > 0) else { return false };
    let text = accept.quality("text/plain");
    json > text || (json == text && accept.named("text/plain").is_none())
}

/// Whether the client reads JSON: it says so, or takes anything and does not name texts of its own (as browsers do).
fn takes_json(accept: &Accept) -> bool {
    if !accept.is_there() || named_json(accept).is_some_and(|json| json > 0) {
        return true;
    }
    accept.quality(JSON) > 0 && named_json(accept).is_none() && !accept.names_any("text")
}

#[cfg(test)]
mod tests {
    use http::header::ACCEPT;

    use super::*;

    fn accept(field: &str) -> Accept {
        Accept::of(&HeaderMap::from_iter([(ACCEPT, field.parse().unwrap())]))
    }

    #[test]
    fn the_problem_of_a_limit_is_for_those_who_read_json() {
        assert!(takes_json(&Accept::of(&HeaderMap::new())));
        for field in ["*/*", "application/json", "text/html, application/problem+json;q=0.1", "Application/*;q=0.5"] {
            assert!(takes_json(&accept(field)), "{field}");
        }
        for field in
            ["text/html,application/xhtml+xml,*/*;q=0.8", "text/plain", "application/json;q=0", "image/png", ""]
        {
            assert!(!takes_json(&accept(field)), "{field}");
        }
    }

    #[test]
    fn any_other_problem_is_for_those_who_would_rather_read_json() {
        assert!(!prefers_json(&Accept::of(&HeaderMap::new())));
        for field in ["application/json", "application/problem+json, text/html", "application/json, */*"] {
            assert!(prefers_json(&accept(field)), "{field}");
        }
        for field in [
            "*/*",
            "application/*",
            "application/json;q=0.5, */*",
            "application/json, text/plain, */*",
            "application/json;q=0",
            "text/html, */*;q=0.8",
        ] {
            assert!(!prefers_json(&accept(field)), "{field}");
        }
    }
}
