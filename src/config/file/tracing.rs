//! What may be written about traces? The shape of `tracing`.

use serde_json::{Value as Json, json};

use super::decode::Decode;
use super::leaves::{FilePath, SecretText, with_unit};
use super::section::section;
use crate::config::problem::{Problems, Spot};
use crate::config::tree::Node;
use crate::config::{HttpUrl, TraceFrom, units};

section! {
    /// How requests are traced: by W3C trace context, told as OTLP.
    Tracing {
        /// The URL that takes spans as OTLP over HTTP, in JSON: `http://127.0.0.1:4318/v1/traces`.
        otlp: HttpUrl,
        /// The share of requests that are told, where nobody who is believed has decided.
        sample: Part = "1%",
        /// Whose `sampled` flag decides: that of `trusted` proxies, or of `any` client.
        from: TraceFrom = "trusted",
        /// What we are called: the `service.name`.
        service: String = "portcullis",
        /// Sent as `Authorization: Bearer`: a text of 16 bytes or more, or `file:` and a path.
        token: Option<SecretText> = "null",
        /// A PEM file of the authorities that are believed, instead of the system's.
        ca: Option<FilePath> = "null",
    }
    later {}
}

/// A part of a whole, 1.0 for all of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part(pub(crate) f64);

impl Decode for Part {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let words = ("a part of a whole", "write a number from 0 to 100 and %: 1%, 0.1%");
        with_unit(node, at, words, units::part, problems).map(Self)
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^([0-9]+(\\.[0-9]+)?%|\\$\\{.*)$" })
    }
}
