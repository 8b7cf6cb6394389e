//! Where do traces go? The `tracing` section, checked.

use std::path::PathBuf;

use super::{HttpUrl, Secret};

/// How requests are traced.
#[derive(Clone, Debug, PartialEq)]
pub struct Tracing {
    /// Who takes spans, as OTLP in JSON.
    pub otlp: HttpUrl,
    /// The share of requests that are told, where nobody who is believed has decided; 1.0 is all.
    pub sample: f64,
    /// Who is believed.
    pub from: TraceFrom,
    /// What we are called.
    pub service: String,
    /// Shown to whoever takes spans.
    pub token: Option<Secret>,
    /// The authorities that are believed, instead of the system's.
    pub ca: Option<PathBuf>,
}

/// Whose word it is whether a trace is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceFrom {
    /// That of each client.
    Any,
    /// That of peers in `server.trusted_proxies`.
    Trusted,
}
