//! How are spans written? As OTLP's request in JSON: the protocol's messages, with numbers of 64 bits as text and ids in
//! hexadecimal digits.
//!
//! <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>

use std::time::SystemTime;

use serde_json::{Value as Json, json};

use super::{Role, Span, Value};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `STATUS_CODE_ERROR`
const ERROR: u8 = 2;

/// One request with these spans.
pub(super) fn request(service: &str, spans: &[Span]) -> Vec<u8> {
    let resource = [text("service.name", service), text("service.version", VERSION)];
    let scope = json!({ "name": "portcullis", "version": VERSION });
    let spans: Vec<_> = spans.iter().map(span).collect();
    let request = json!({ "resourceSpans": [
        { "resource": { "attributes": resource }, "scopeSpans": [{ "scope": scope, "spans": spans }] },
    ] });
    request.to_string().into_bytes()
}

fn span(span: &Span) -> Json {
    let kind = match span.role {
        Role::Server => 2,
        Role::Client => 3,
    };
    let began = span.began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let attributes: Vec<_> = span.attributes.iter().map(|(key, value)| attribute(key, value)).collect();
    let mut json = json!({
        "traceId": span.trace.to_string(),
        "spanId": span.id.to_string(),
        "name": span.name,
        "kind": kind,
        "startTimeUnixNano": began.as_nanos().to_string(),
        "endTimeUnixNano": (began + span.took).as_nanos().to_string(),
        "attributes": attributes,
    });
    if let Some(parent) = span.parent {
        json["parentSpanId"] = parent.to_string().into();
    }
    if let Some(error) = &span.error {
        json["status"] = json!({ "code": ERROR, "message": error });
    }
    json
}

fn attribute(key: &str, value: &Value) -> Json {
    match value {
        Value::Text(value) => text(key, value),
        Value::Number(value) => json!({ "key": key, "value": { "intValue": value.to_string() } }),
    }
}

fn text(key: &str, value: &str) -> Json {
    json!({ "key": key, "value": { "stringValue": value } })
}
