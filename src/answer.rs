//! What do we say ourselves? Every refusal, with its status, its public words and its label.
//!
//! One enum serves the client, the access log and `Proxy-Status`, so that they never disagree. No refusal tells
//! anything about the inside: no address, no path, no error text.

/// Why we answered a request ourselves, or why it ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The head of the request breaks RFC 9112 or RFC 9113.
    MalformedRequest,
    /// The Host field is missing, doubled or malformed (RFC 9112, section 3.2).
    BadHost,
    /// The target holds a byte that no URI may hold, or is no origin-form (RFC 9112, section 3.2).
    BadTarget,
    /// The head took longer than `timeouts.header`.
    HeaderTimeout,
    /// The body took longer than `timeouts.body` between two reads.
    BodyTimeout,
    /// The head is larger than `limits.header_size`, or has more fields than `limits.headers`.
    HeaderTooLarge,
    /// The target alone is too long.
    TargetTooLong,
    /// The body is larger than the route's `body_limit`.
    BodyTooLarge,
    /// The framing of the body is broken (RFC 9112, section 7.1).
    MalformedBody,
    /// An expectation other than `100-continue` (RFC 9110, section 10.1.1).
    UnknownExpectation,
    /// A method that a proxy does not pass on.
    MethodNotSupported,
    /// No route matches.
    NoRoute,
    /// The route's upstream has no backend that may be used.
    NoBackend,
    /// No backend accepted the connection.
    ConnectRefused,
    /// No backend accepted the connection in time.
    ConnectTimeout,
    /// The TLS handshake with the backend failed.
    BackendTls,
    /// The backend closed the connection before the head of its response was complete.
    BackendClosed,
    /// The backend's response breaks the protocol.
    BackendProtocol,
    /// The head of the response took longer than `timeouts.first_byte`.
    FirstByteTimeout,
    /// The response stalled for longer than `timeouts.between_bytes`.
    StalledResponse,
    /// The head of the response was not there within the route's `timeout`.
    RouteTimeout,
    /// We failed.
    Internal,
}

impl Refusal {
    /// The status that says it.
    pub fn status(self) -> u16 {
        match self {
            Self::MalformedRequest | Self::BadHost | Self::BadTarget | Self::MalformedBody => 400,
            Self::NoRoute => 404,
            Self::MethodNotSupported => 405,
            Self::HeaderTimeout | Self::BodyTimeout => 408,
            Self::BodyTooLarge => 413,
            Self::TargetTooLong => 414,
            Self::UnknownExpectation => 417,
            Self::HeaderTooLarge => 431,
            Self::Internal => 500,
            Self::ConnectRefused | Self::BackendTls | Self::BackendClosed | Self::BackendProtocol => 502,
            Self::NoBackend => 503,
            Self::ConnectTimeout | Self::FirstByteTimeout | Self::StalledResponse | Self::RouteTimeout => 504,
        }
    }

    /// What the client reads.
    pub fn words(self) -> &'static str {
        match self {
            Self::MalformedRequest => "the request is malformed",
            Self::BadHost => "the Host field is missing or malformed",
            Self::BadTarget => "the request target is malformed",
            Self::HeaderTimeout => "the head of the request took too long",
            Self::BodyTimeout => "the body of the request took too long",
            Self::HeaderTooLarge => "the head of the request is too large",
            Self::TargetTooLong => "the request target is too long",
            Self::BodyTooLarge => "the body of the request is too large",
            Self::MalformedBody => "the body of the request is malformed",
            Self::UnknownExpectation => "the expectation is not known",
            Self::MethodNotSupported => "the method is not supported",
            Self::NoRoute => "nothing is served here",
            Self::NoBackend | Self::ConnectRefused | Self::BackendTls => "the service is not available",
            Self::BackendClosed | Self::BackendProtocol => "the service gave no valid answer",
            Self::ConnectTimeout | Self::FirstByteTimeout | Self::StalledResponse | Self::RouteTimeout => {
                "the service took too long"
            }
            Self::Internal => "something went wrong",
        }
    }

    /// The whole answer on an HTTP/1 connection that is closed after it.
    pub fn bytes(self) -> Vec<u8> {
        let status = self.status();
        let reason = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        let reason = reason.unwrap_or_default();
        let body = format!("{status} {reason}: {}\n", self.words());
        let now = jiff::Timestamp::now();
        let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&now).unwrap_or_default();
        let length = body.len();
        format!(
            "HTTP/1.1 {status} {reason}\r\nDate: {date}\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
        .into_bytes()
    }
}
