//! What do we say ourselves? Every refusal, with its status, its public words and its label.
//!
//! One enum serves the client, the access log and `Proxy-Status`, so that they never disagree. No refusal tells
//! anything about the inside: no address, no path, no error text. This file does not decide when to refuse.

use std::time::SystemTime;

use http::StatusCode;

/// Why we answered a request ourselves, or why it ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The head of the request breaks RFC 9112 or RFC 9113.
    MalformedRequest,
    /// The Host field is missing, doubled or malformed (RFC 9112, section 3.2).
    BadHost,
    /// The target holds a byte that no URI may hold, or has a form that only a proxy of another kind serves (RFC 9112, section 3.2).
    BadTarget,
    /// The head took longer than `timeouts.header`.
    HeaderTimeout,
    /// The body stalled for longer than `timeouts.body`.
    BodyTimeout,
    /// The whole request took longer than `timeouts.request`.
    RequestTimeout,
    /// The body came slower than `limits.min_rate`.
    SlowBody,
    /// The response was taken slower than `limits.min_rate`, or not at all for longer than `timeouts.write`.
    SlowReader,
    /// The client sent too many frames of HTTP/2 that only cost.
    Flood,
    /// The head is larger than `limits.header_size`, or has more fields than `limits.headers`.
    HeaderTooLarge,
    /// The request target alone is too long.
    TargetTooLong,
    /// The body is larger than the route's `body_limit`.
    BodyTooLarge,
    /// The framing of the body is broken (RFC 9112, section 7.1).
    MalformedBody,
    /// An expectation other than `100-continue` (RFC 9110, section 10.1.1).
    UnknownExpectation,
    /// A method that we do not pass on, as CONNECT.
    MethodNotSupported,
    /// No route matches.
    NoRoute,
    /// The route's upstream has no backend that may be used.
    NoBackend,
    /// All backends that could serve have asked to be left alone.
    Throttled {
        /// The seconds until the first of them may be asked again.
        retry_after: u32,
    },
    /// All backends that could serve have had what their quotas allow, or have asked to be left alone, for longer than a
    /// request waits.
    QuotaUsedUp {
        /// The seconds until the first of them may be asked again.
        retry_after: u32,
    },
    /// All backends that could serve have as much as they may have, and as many requests wait as may.
    QueueFull {
        /// The seconds after which it may be worth another try.
        retry_after: u32,
    },
    /// All backends that could serve had as much as they may have for as long as a request waits.
    QueueTimeout {
        /// The same.
        retry_after: u32,
    },
    /// There are no credentials, or they are not good (RFC 9110, section 15.5.2).
    Unauthenticated(Credentials),
    /// Whoever it is may not come in here (RFC 9110, section 15.5.4).
    Forbidden(Forbidden),
    /// The route is closed (RFC 9110, section 15.6.4).
    Maintenance {
        /// The seconds after which it may be open.
        retry_after: u32,
    },
    /// A client has had as many requests as a limit of the route allows (RFC 6585, section 4).
    RateLimited {
        /// The seconds until this request may be sent again.
        retry_after: u32,
    },
    /// What could tell whether the credentials are good cannot be asked at the moment.
    AuthUnavailable,
    /// The client would have only what is stored (RFC 9111, section 5.2.1.7).
    OnlyIfCached,
    /// No backend accepted the connection.
    ConnectRefused,
    /// No backend accepted the connection in time.
    ConnectTimeout,
    /// The TLS handshake with the backend failed.
    BackendTls,
    /// The backend closed the connection before its response was complete.
    BackendClosed,
    /// The backend's response breaks the protocol.
    BackendProtocol,
    /// The head of the response took longer than `timeouts.first_byte`.
    FirstByteTimeout,
    /// The attempt took longer than the route's `retry.per_attempt`.
    AttemptTimeout,
    /// The response stalled for longer than `timeouts.between_bytes`, or the tunnel for longer than `timeouts.tunnel`.
    StalledResponse,
    /// The backend took nothing of the request for longer than `timeouts.write`.
    StalledRequest,
    /// The head of the response was not there within the route's `timeout`.
    RouteTimeout,
    /// The backend of a tunnel is gone from the configuration, and the tunnel has had its time.
    BackendRemoved,
    /// We failed.
    Internal,
}

/// What is wrong with a request's credentials. The client is never told; the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Credentials {
    /// There are none.
    Missing,
    /// They cannot be read, or there are several.
    Malformed,
    /// They are nobody's, or belong to somebody else.
    Wrong,
    /// Their time is over.
    Expired,
    /// Their time has not begun.
    TooEarly,
    /// They were taken back.
    Revoked,
}

/// Why somebody may not come in. The client is never told; the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forbidden {
    /// `deny` names the client's address, or `allow` does not.
    Address,
    /// Their key is not for this route.
    Route,
    /// Their key is not for this method.
    Method,
    /// Their key is not for clients at this address.
    KeyAddress,
}

/// Who is to blame when a request ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The client: it sent what may not be sent, or too slowly, or too much.
    Client,
    /// The backends: none is ready, or none answered well.
    Backend,
    /// The way to the backend, or its host: there was no connection, or it broke.
    Network,
    /// Nobody: what may be asked of the backends is used up.
    Quota,
    /// Portcullis itself.
    Us,
}

impl Fault {
    /// Whether it counts against the backend that had the request. The network does: a backend that cannot be reached
    /// is of as little use as one that does not answer.
    pub fn is_of_the_backend(self) -> bool {
        match self {
            Self::Backend | Self::Network => true,
            Self::Client | Self::Quota | Self::Us => false,
        }
    }
}

/// How a request ended: the `reason` of its access log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ended {
    /// Its response was delivered whole.
    Complete,
    /// The client went away first.
    ClientGone,
    /// We refused it, or cut it short.
    Refused(Refusal),
}

impl Ended {
    /// The word in the access log.
    pub fn label(self) -> &'static str {
        match self {
            Self::Complete => "ok",
            Self::ClientGone => "client_gone",
            Self::Refused(refusal) => refusal.label(),
        }
    }
}

/// What is known of a refusal.
struct Facts {
    status: u16,
    label: &'static str,
    words: &'static str,
    /// The error type of RFC 9209, section 2.3.
    error: &'static str,
    fault: Fault,
}

/// Names the columns of the table below.
const fn facts(status: u16, label: &'static str, words: &'static str, error: &'static str, fault: Fault) -> Facts {
    Facts { status, label, words, error, fault }
}

/// Whoever guesses learns from the answer only that it was wrong.
const fn unauthenticated(label: &'static str) -> Facts {
    facts(401, label, "valid credentials are needed", "http_request_denied", Fault::Client)
}

/// The same for whoever may not come in.
const fn forbidden(label: &'static str) -> Facts {
    facts(403, label, "this is not allowed", "http_request_denied", Fault::Client)
}

impl Refusal {
    /// Every one of them, each with one second where it says after how long to come back.
    pub const ALL: &[Self] = &[
        Self::MalformedRequest,
        Self::BadHost,
        Self::BadTarget,
        Self::HeaderTimeout,
        Self::BodyTimeout,
        Self::RequestTimeout,
        Self::SlowBody,
        Self::SlowReader,
        Self::Flood,
        Self::HeaderTooLarge,
        Self::TargetTooLong,
        Self::BodyTooLarge,
        Self::MalformedBody,
        Self::UnknownExpectation,
        Self::MethodNotSupported,
        Self::NoRoute,
        Self::NoBackend,
        Self::Throttled { retry_after: 1 },
        Self::QueueFull { retry_after: 1 },
        Self::QuotaUsedUp { retry_after: 1 },
        Self::QueueTimeout { retry_after: 1 },
        Self::Unauthenticated(Credentials::Missing),
        Self::Unauthenticated(Credentials::Malformed),
        Self::Unauthenticated(Credentials::Wrong),
        Self::Unauthenticated(Credentials::Expired),
        Self::Unauthenticated(Credentials::TooEarly),
        Self::Unauthenticated(Credentials::Revoked),
        Self::Forbidden(Forbidden::Route),
        Self::Forbidden(Forbidden::Method),
        Self::Forbidden(Forbidden::KeyAddress),
        Self::Forbidden(Forbidden::Address),
        Self::Maintenance { retry_after: 1 },
        Self::RateLimited { retry_after: 1 },
        Self::AuthUnavailable,
        Self::OnlyIfCached,
        Self::ConnectRefused,
        Self::ConnectTimeout,
        Self::BackendTls,
        Self::BackendClosed,
        Self::BackendProtocol,
        Self::FirstByteTimeout,
        Self::AttemptTimeout,
        Self::StalledResponse,
        Self::StalledRequest,
        Self::RouteTimeout,
        Self::BackendRemoved,
        Self::Internal,
    ];

    /// The status for the client, 400 to 599.
    pub fn status(self) -> StatusCode {
        // Every status in the table is a literal between 400 and 599, which a test walks through.
        StatusCode::from_u16(self.facts().status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The word in logs and metrics.
    pub fn label(self) -> &'static str {
        self.facts().label
    }

    /// What the client reads; it says nothing of the inside.
    pub fn words(self) -> &'static str {
        self.facts().words
    }

    /// Whose fault it is.
    pub fn fault(self) -> Fault {
        self.facts().fault
    }

    /// Whether it is about who sent the request, and not about where it came from.
    pub fn is_of_credentials(self) -> bool {
        let of_a_key = matches!(self, Self::Forbidden(why) if why != Forbidden::Address);
        of_a_key || matches!(self, Self::Unauthenticated(_) | Self::AuthUnavailable)
    }

    /// The value of the `Retry-After` field, if it has one: in seconds.
    pub fn retry_after(self) -> Option<u32> {
        if let Self::RateLimited { retry_after }
        | Self::Maintenance { retry_after }
        | Self::Throttled { retry_after }
        | Self::QuotaUsedUp { retry_after }
        | Self::QueueFull { retry_after }
        | Self::QueueTimeout { retry_after } = self
        {
            return Some(retry_after);
        }
        None
    }

    /// The error type of RFC 9209, section 2.3.
    pub fn error_type(self) -> &'static str {
        self.facts().error
    }

    /// The word that the client is told: that of the log, but for what would help whoever guesses credentials.
    pub fn told(self) -> &'static str {
        if let Self::Unauthenticated(_) = self {
            return "unauthenticated";
        }
        if let Self::Forbidden(_) = self { "forbidden" } else { self.label() }
    }

    /// The value of the `Proxy-Status` field (RFC 9209).
    pub fn proxy_status(self) -> String {
        format!("portcullis; error={}; details=\"{}\"", self.error_type(), self.told())
    }

    /// The body of the answer: one line of text.
    pub fn body(self) -> String {
        self.body_with(self.status())
    }

    /// The same with another status, which a backend has given.
    pub fn body_with(self, status: StatusCode) -> String {
        format!("{} {}: {}\n", status.as_u16(), status.canonical_reason().unwrap_or("Error"), self.words())
    }

    /// A whole HTTP/1.1 answer that ends the connection, for requests that never reach the proxy.
    pub fn to_bytes(self, now: SystemTime) -> Vec<u8> {
        let (status, body) = (self.status(), self.body());
        format!(
            "HTTP/1.1 {} {}\r\nDate: {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
             Proxy-Status: {}\r\nConnection: close\r\n\r\n{body}",
            status.as_u16(),
            status.canonical_reason().unwrap_or("Error"),
            httpdate(now),
            body.len(),
            self.proxy_status(),
        )
        .into_bytes()
    }

    #[rustfmt::skip]
    fn facts(self) -> Facts {
        use Fault::{Backend, Client, Network, Quota, Us};
        match self {
            Self::MalformedRequest   => facts(400, "malformed_request", "the request is malformed", "http_request_error", Client),
            Self::BadHost            => facts(400, "bad_host", "the Host field is missing or malformed", "http_request_error", Client),
            Self::BadTarget          => facts(400, "bad_target", "the request target is malformed", "http_request_error", Client),
            Self::HeaderTimeout      => facts(408, "header_timeout", "the request took too long to arrive", "http_request_error", Client),
            Self::BodyTimeout        => facts(408, "body_timeout", "the request body took too long to arrive", "http_request_error", Client),
            Self::RequestTimeout     => facts(408, "request_timeout", "the request took too long to arrive", "http_request_error", Client),
            Self::SlowBody           => facts(408, "slow_body", "the request body took too long to arrive", "http_request_error", Client),
            Self::SlowReader         => facts(408, "slow_reader", "the response took too long to be read", "connection_write_timeout", Client),
            Self::Flood              => facts(429, "http2_flood", "too many frames", "http_protocol_error", Client),
            Self::HeaderTooLarge     => facts(431, "header_too_large", "the request head is too large", "http_request_error", Client),
            Self::TargetTooLong      => facts(414, "target_too_long", "the request target is too long", "http_request_error", Client),
            Self::BodyTooLarge       => facts(413, "body_too_large", "the request body is too large", "http_request_error", Client),
            Self::MalformedBody      => facts(400, "malformed_body", "the request body is malformed", "http_request_error", Client),
            Self::UnknownExpectation => facts(417, "unknown_expectation", "the expectation is not supported", "http_request_error", Client),
            Self::MethodNotSupported => facts(405, "method_not_supported", "the method is not supported", "http_request_denied", Client),
            Self::NoRoute            => facts(404, "no_route", "nothing is served here", "destination_not_found", Client),
            Self::NoBackend          => facts(503, "no_backend", "the service is not available at the moment", "destination_unavailable", Backend),
            Self::Throttled { .. }   => facts(503, "throttled", "the service asks for some patience", "destination_unavailable", Quota),
            Self::QueueFull { .. }   => facts(503, "queue_full", "the service has too much to do at the moment", "connection_limit_reached", Backend),
            Self::QuotaUsedUp { .. } => facts(503, "quota_used_up", "the service asks for some patience", "destination_unavailable", Quota),
            Self::QueueTimeout { .. } => facts(503, "queue_timeout", "the service has too much to do at the moment", "connection_limit_reached", Backend),
            Self::Unauthenticated(Credentials::Missing)   => unauthenticated("credentials_missing"),
            Self::Unauthenticated(Credentials::Malformed) => unauthenticated("credentials_malformed"),
            Self::Unauthenticated(Credentials::Wrong)     => unauthenticated("credentials_wrong"),
            Self::Unauthenticated(Credentials::Expired)   => unauthenticated("credentials_expired"),
            Self::Unauthenticated(Credentials::TooEarly)  => unauthenticated("credentials_too_early"),
            Self::Unauthenticated(Credentials::Revoked)   => unauthenticated("credentials_revoked"),
            Self::Forbidden(Forbidden::Route)      => forbidden("key_route"),
            Self::Forbidden(Forbidden::Method)     => forbidden("key_method"),
            Self::Forbidden(Forbidden::KeyAddress) => forbidden("key_address"),
            Self::Forbidden(Forbidden::Address) => forbidden("address_denied"),
            Self::Maintenance { .. } => facts(503, "maintenance", "the service is closed for maintenance", "destination_unavailable", Us),
            Self::RateLimited { .. } => facts(429, "rate_limited", "too many requests", "http_request_denied", Client),
            Self::AuthUnavailable    => facts(503, "auth_unavailable", "the service is not available at the moment", "proxy_internal_error", Us),
            Self::OnlyIfCached       => facts(504, "only_if_cached", "nothing is stored that could be served", "http_request_denied", Client),
            Self::ConnectRefused     => facts(502, "connect_refused", "the service could not be reached", "connection_refused", Network),
            Self::ConnectTimeout     => facts(504, "connect_timeout", "the service could not be reached in time", "connection_timeout", Network),
            Self::BackendTls         => facts(502, "backend_tls", "the service could not be reached", "tls_protocol_error", Backend),
            Self::BackendClosed      => facts(502, "backend_closed", "the service gave no complete answer", "connection_terminated", Network),
            Self::BackendProtocol    => facts(502, "backend_protocol", "the service gave no valid answer", "http_protocol_error", Backend),
            Self::FirstByteTimeout   => facts(504, "first_byte_timeout", "the service took too long to answer", "http_response_timeout", Backend),
            Self::AttemptTimeout     => facts(504, "attempt_timeout", "the service took too long to answer", "http_response_timeout", Backend),
            Self::StalledResponse    => facts(504, "stalled_response", "the service took too long to answer", "connection_read_timeout", Backend),
            Self::StalledRequest     => facts(504, "stalled_request", "the service took too long to take the request", "connection_write_timeout", Backend),
            Self::RouteTimeout       => facts(504, "route_timeout", "the service took too long to answer", "http_response_timeout", Backend),
            Self::BackendRemoved     => facts(503, "backend_removed", "the service has moved", "connection_terminated", Us),
            Self::Internal           => facts(500, "internal", "an internal error", "proxy_internal_error", Us),
        }
    }
}

/// A date as HTTP writes it (RFC 9110, section 5.6.7).
pub fn httpdate(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).map_or_else(
        |_| "Thu, 01 Jan 1970 00:00:00 GMT".to_owned(),
        |at| at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::time::Duration;

    #[test]
    fn every_refusal_has_an_error_status_and_a_label_of_its_own() {
        let labels: HashSet<_> = Refusal::ALL.iter().map(|refusal| refusal.label()).collect();
        assert_eq!(labels.len(), Refusal::ALL.len());
        for refusal in Refusal::ALL {
            assert!(refusal.status().is_client_error() || refusal.status().is_server_error(), "{refusal:?}");
            assert_eq!(refusal.status().as_u16(), refusal.facts().status, "{refusal:?}");
            // RFC 9111, section 5.2.1.7, has 504 for what only the client wants.
            let clients_fault = refusal.fault() == Fault::Client && *refusal != Refusal::OnlyIfCached;
            assert_eq!(refusal.status().is_client_error(), clients_fault, "{refusal:?}");
        }
    }

    /// A refusal that the list leaves out would be in no document and in no test.
    #[test]
    fn the_list_of_all_leaves_none_out() {
        let table = include_str!("answer.rs").split("fn facts(self)").nth(1).unwrap();
        let table = table.split("#[cfg(test)]").next().unwrap();
        let rows = ["=> facts(", "=> unauthenticated(", "=> forbidden("].map(|row| table.matches(row).count());
        assert_eq!(rows.iter().sum::<usize>(), Refusal::ALL.len());
    }

    #[test]
    fn an_answer_is_framed_by_its_length() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let answer = String::from_utf8(Refusal::HeaderTimeout.to_bytes(at)).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "408 Request Timeout: the request took too long to arrive\n");
        assert_eq!(
            head,
            format!(
                "HTTP/1.1 408 Request Timeout\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/plain; \
                 charset=utf-8\r\nContent-Length: {}\r\nProxy-Status: portcullis; error=http_request_error; \
                 details=\"header_timeout\"\r\n\
                 Connection: close",
                body.len()
            )
        );
    }
}
