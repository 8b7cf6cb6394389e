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
