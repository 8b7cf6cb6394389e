//! What may be written about traces? The shape of `tracing`.

use super::leaves::{SecretText, Share};
use super::section::section;
use crate::config::{HttpUrl, TraceFrom};

section! {
    /// How requests are traced: by W3C trace context, told as OTLP.
    Tracing {
        /// The URL that takes spans as OTLP over HTTP, in JSON: `http://127.0.0.1:4318/v1/traces`.
        otlp: HttpUrl,
        /// The share of requests that are told, where nobody who is believed has decided.
        sample: Share = "1%",
        /// Whose `sampled` flag decides: that of `trusted` proxies, or of `any` client.
        from: TraceFrom = "trusted",
        /// What we are called: the `service.name`.
        service: String = "portcullis",
        /// Sent as `Authorization: Bearer`: a text of 16 bytes or more, or `file:` and a path.
        token: Option<SecretText> = "null",
    }
    later {}
}
