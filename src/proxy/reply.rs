//! How do we answer ourselves? Writes refusals, replies of filters and ACME challenges to the client.
//!
//! A request whose body we will not read ends its connection: what is left of the body would be taken for the next
//! request.

use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, DATE, ETAG, LAST_MODIFIED, LOCATION, RETRY_AFTER,
    TRAILER, TRANSFER_ENCODING, VARY, WWW_AUTHENTICATE,
};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;
use tokio::io::AsyncReadExt;

use super::again::Dropped;
use super::exchange::{Exchange, Request};
use super::forward;
use crate::answer::{Refusal, httpdate};
use crate::filter::Answer;
use crate::filter::accept::Accept;

/// Where ACME clients look (RFC 8555, section 8.3).
const ACME_PREFIX: &str = "/.well-known/acme-challenge/";

/// <https://www.w3.org/TR/server-timing/>
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Fields that speak of a body, besides those whose names begin with `content-`.
const OF_A_BODY: [HeaderName; 6] =
    [ACCEPT_RANGES, ETAG, LAST_MODIFIED, TRAILER, TRANSFER_ENCODING, HeaderName::from_static("repr-digest")];

/// A key authorization has fewer than 200 bytes.
const ACME_MAX: u64 = 4096;

/// Whether the client has the head of a response. An interim one leaves room for another; 101 does not (RFC 9110,
/// section 15.2).
pub(super) fn has_begun(session: &Session) -> bool {
    let is_interim = |status: StatusCode| status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS;
    session.response_written().is_some_and(|head| !is_interim(head.status))
}

/// Answers with a refusal, and remembers it.
pub(super) async fn refuse(session: &mut Session, exchange: &mut Exchange, refusal: Refusal) -> Result<()> {
    exchange.refusal = Some(refusal);
    let mut head = ResponseHeader::build(refusal.status(), Some(7))?;
    let said = exchange.say(&session.req_header().headers, refusal);
    head.insert_header(CONTENT_TYPE, said.kind)?;
    head.insert_header(VARY, "Accept")?;
    head.insert_header("proxy-status", refusal.proxy_status())?;
    head.insert_header(CACHE_CONTROL, "no-store")?;
    if let Some(seconds) = refusal.retry_after() {
        head.insert_header(RETRY_AFTER, seconds)?;
    }
    if let (Refusal::Unauthenticated(_), Some(challenge)) = (refusal, exchange.challenge()) {
        head.insert_header(WWW_AUTHENTICATE, challenge)?;
    }
    if refusal == Refusal::MethodNotSupported {
        head.insert_header("allow", "GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH")?;
    }
    write(session, exchange, head, said.body).await
}

/// Answers an exchange that failed. If a backend's answer was dropped for a retry, the client had better get that than
/// our own: whole if we have its body, else its status and fields, but for those that belong to the body that is gone.
pub(super) async fn fail(session: &mut Session, exchange: &mut Exchange, refusal: Refusal) -> Result<()> {
    exchange.forget_date();
    let dropped = exchange.dropped_answer().filter(|_| refusal.fault().is_of_the_backend());
    let Some(Dropped { head: mut theirs, body }) = dropped else { return refuse(session, exchange, refusal).await };
    exchange.refusal = Some(refusal);
    let version = theirs.version;
    forward::response(&mut theirs, version);
    let received = format!("{}; received-status={}", refusal.proxy_status(), theirs.status.as_u16());
    if let Some(body) = body.filter(|_| !exchange.says_for_backends(theirs.status, &session.req_header().headers)) {
        theirs.append_header("proxy-status", received)?;
        if let Some(plan) = &exchange.plan {
            plan.filters.on_response(&mut theirs, session.req_header());
        }
        return write(session, exchange, *theirs, body.whole()).await;
    }
    let said = exchange.say_with(&session.req_header().headers, theirs.status, refusal);
    let mut head = without_body(&theirs, said.kind, (session.req_header(), exchange))?;
    head.append_header("proxy-status", received)?;
    write(session, exchange, head, said.body).await
}

/// Answers with a page of the route's in the place of what a backend has said; says with which status.
pub(super) async fn replace(session: &mut Session, exchange: &mut Exchange) -> Result<u16> {
    exchange.forget_date();
    // Pingora ends the connection after what it takes for a failure, so the answer must say it.
    session.set_keepalive(None);
    let Some(Dropped { head: mut theirs, .. }) = exchange.dropped_answer() else { return Ok(0) };
    let version = theirs.version;
    forward::response(&mut theirs, version);
    let status = theirs.status.as_u16();
    let page = exchange.page(theirs.status, &Accept::of(&session.req_header().headers));
    // It was there a moment ago, and a file that goes away leaves what it said.
    let Some(said) = page else { return refuse(session, exchange, Refusal::Internal).await.map(|()| status) };
    let head = without_body(&theirs, said.kind, (session.req_header(), exchange))?;
    write(session, exchange, head, said.body).await.map(|()| status)
}

/// The status and the fields of a backend's answer, but for those that belong to a body which is gone.
fn without_body(
    theirs: &ResponseHeader,
    kind: &'static str,
    (request, exchange): (&RequestHeader, &Exchange),
) -> Result<ResponseHeader> {
    let mut head = ResponseHeader::build(theirs.status, Some(theirs.headers.len() + 4))?;
    let of_the_body = |name: &HeaderName| name.as_str().starts_with("content-") || OF_A_BODY.contains(name);
    for (name, value) in theirs.headers.iter().filter(|(name, _)| !of_the_body(name)) {
        head.append_header(name, value)?;
    }
    if let Some(plan) = &exchange.plan {
        plan.filters.on_response(&mut head, request);
    }
    head.insert_header(CONTENT_TYPE, kind)?;
    head.append_header(VARY, "Accept")?;
    head.insert_header(CACHE_CONTROL, "no-store")?;
    Ok(head)
}

/// Answers as a filter says.
pub(super) async fn answer(session: &mut Session, exchange: &mut Exchange, answer: Answer) -> Result<()> {
    match answer {
        Answer::Refuse(refusal) => refuse(session, exchange, refusal).await,
        Answer::Reply { status, headers, body } => {
            // Names as they are: to remember how each was written costs as much as the field.
            let mut head = ResponseHeader::build_no_case(status, Some(headers.len() + 6))?;
            for (name, value) in headers {
                head.append_header(name, value)?;
            }
            if let Some(plan) = &exchange.plan {
                plan.filters.on_response(&mut head, session.req_header());
            }
            write(session, exchange, head, body).await
        }
    }
}

/// The `https` address of a request that came in over `http`; 308 keeps the method (RFC 9110, section 15.4.9).
pub(super) fn to_https(request: &Request, target: &str, port: u16) -> Answer {
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    match HeaderValue::from_str(&format!("https://{}{port}{target}", request.host())) {
        Ok(location) if !request.host().is_empty() => Answer::Reply {
            status: StatusCode::PERMANENT_REDIRECT,
            headers: vec![(LOCATION, location)],
            body: Bytes::new(),
        },
        // Without a host there is no address to send anyone to.
        _ => Answer::Refuse(Refusal::BadHost),
    }
}

/// The answer to an ACME challenge; `None` when the path is not one.
pub(super) async fn acme_challenge(folder: &Path, path: &str) -> Option<Answer> {
    let token = path.strip_prefix(ACME_PREFIX)?;
    let base64url = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if token.is_empty() || !token.bytes().all(base64url) {
        return Some(Answer::Refuse(Refusal::NoRoute));
    }
    let mut body = Vec::new();
    let read = async { tokio::fs::File::open(folder.join(token)).await?.take(ACME_MAX).read_to_end(&mut body).await };
    Some(match read.await {
        Ok(_) => Answer::Reply {
            status: StatusCode::OK,
            headers: vec![(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))],
            body: body.into(),
        },
        Err(_) => Answer::Refuse(Refusal::NoRoute),
    })
}

/// RFC 9112, section 6.3: whatever the head says.
pub(super) fn never_has_a_body(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

async fn write(session: &mut Session, exchange: &mut Exchange, mut head: ResponseHeader, body: Bytes) -> Result<()> {
    head.insert_header(DATE, httpdate(SystemTime::now()))?;
    // RFC 9110, section 8.6: never with 204; and with 304 it would be the length of what the client has.
    if !never_has_a_body(head.status) {
        head.insert_header(CONTENT_LENGTH, body.len())?;
    }
    if !session.as_downstream_mut().is_body_done() {
        session.set_keepalive(None);
    }
    exchange.part(session.req_header(), &mut head)?;
    exchange.recode_own(session, &mut head)?;
    exchange.tell_why(session, &mut head)?;
    let no_body = body.is_empty() || session.req_header().method == Method::HEAD;
    session.write_response_header(Box::new(head), no_body).await?;
    if !no_body {
        session.write_response_body(Some(body), true).await?;
    }
    Ok(())
}

/// Tells the client what its route exposes of the inside.
pub(super) fn expose(session: &Session, head: &mut ResponseHeader, exchange: &Exchange) -> Result<()> {
    let Some(plan) = &exchange.plan else { return Ok(()) };
    if plan.cache.is_some() {
        exchange.tell_age(session, head)?;
    }
    if plan.expose.cache {
        exchange.expose_cache(session, head)?;
    }
    let Some(attempt) = &exchange.attempt else { return Ok(()) };
    if plan.expose.backend {
        head.insert_header("x-backend-server", &*attempt.pick.backend().name)?;
    }
    if plan.expose.timing {
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        let (total, upstream) = (exchange.began.elapsed(), attempt.began.elapsed());
        let ours = total.saturating_sub(upstream);
        head.append_header(SERVER_TIMING, format!("portcullis;dur={:.1}, upstream;dur={:.1}", ms(ours), ms(upstream)))?;
    }
    Ok(())
}
