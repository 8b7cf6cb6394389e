//! What does Pingora ask about a connection? A listener's settings, in Pingora's terms.

use pingora::apps::HttpServerOptions;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};

use crate::config::{Http2, Listener};

/// What a client may send on a stream before we have read it: enough for an upload at full speed over a long line, and
/// little enough that all streams of a connection at once stay in the low megabytes.
const H2_STREAM_WINDOW: u32 = 256 * 1024;

/// The same for all streams of a connection together. It bounds the memory that one connection may take.
const H2_CONNECTION_WINDOW: u32 = 1024 * 1024;

/// What may wait on a stream until the socket takes it. The default of 400 KiB would be 40 MiB for a client that opens
/// all streams and all windows and then reads nothing.
const H2_SEND_BUFFER: usize = 128 * 1024;

/// Streams that a client opens and gives up before Pingora has taken them; with more it is told to be calm. What is given
/// up later is counted by `frames`.
const H2_RESET_BEFORE_US: usize = 20;

/// Streams that we have reset and still remember for a second, so that what is under way to them is no error.
const H2_RESET_BY_US: usize = 50;

/// Streams of one connection that we may have to reset because of what the client did wrong with them. A client that
/// works makes no such error, and each costs us an answer; the default is 1024.
const H2_ERRORS: usize = 128;

/// What holds for HTTP/1 and for both.
pub(super) fn http(config: &Listener) -> HttpServerOptions {
    let mut options = HttpServerOptions::default();
    options.h2c = config.tls.is_none() && config.http2 == Http2::Only;
    // Pingora counts how often a connection may be used again, after its first request.
    options.keepalive_request_limit = Some(config.limits.requests_per_connection.saturating_sub(1));
    // On HTTP/2 `front` closes what is idle: Pingora would do it without a word.
    options.h2_idle_timeout = None;
    options
}

/// What holds for HTTP/2. The header list is counted as RFC 9113 says: 32 bytes more for each field.
pub(super) fn http2(config: &Listener) -> H2Options {
    let mut options = default_h2_options();
    options.max_concurrent_streams(config.limits.h2_streams);
    options.max_header_list_size(u32::try_from(config.limits.header_size).unwrap_or(u32::MAX));
    options.initial_window_size(H2_STREAM_WINDOW);
    options.initial_connection_window_size(H2_CONNECTION_WINDOW);
    options.max_send_buffer_size(H2_SEND_BUFFER);
    options.max_pending_accept_reset_streams(H2_RESET_BEFORE_US);
    options.max_concurrent_reset_streams(H2_RESET_BY_US);
    options.max_local_error_reset_streams(Some(H2_ERRORS));
    options
}
