//! What is the admin API, for programs that read OpenAPI 3.1? Made of the list of operations, and of the forms below.

use serde_json::{Map, Value as Json, json};

use super::guard::Kind;
use super::operations::{OPERATIONS, Operation};

/// The document.
pub(super) fn document() -> Json {
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method.to_ascii_lowercase()] = described(operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Portcullis admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Where `admin.token` is set, all but the probes and the files of the status page want it as \
                            `Authorization: Bearer TOKEN`. HEAD works wherever GET does.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": schemas(),
        },
    })
}

fn described(operation: &Operation) -> Json {
    let mut answers = Map::new();
    for (status, kind, schema) in operation.gives {
        let answer =
            answers.entry(status.to_string()).or_insert_with(|| json!({ "description": said(*status), "content": {} }));
        let schema = schema.map_or_else(|| json!({ "type": "string" }), refer);
        answer["content"][*kind] = json!({ "schema": schema });
    }
    let always: &[u16] = match operation.what.kind() {
        Kind::Probe => &[],
        Kind::Page => &[403],
        Kind::Fact => &[401, 403],
    };
    for status in always.iter().chain(operation.refuses) {
        let content = json!({ "application/problem+json": { "schema": refer("Problem") } });
        answers.insert(status.to_string(), json!({ "description": said(*status), "content": content }));
    }
    let names = operation.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameters: Vec<_> = names
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .chain(query_of(operation))
        .collect();
    let mut described = json!({ "summary": operation.about, "operationId": id(operation), "responses": answers });
    if !parameters.is_empty() {
        described["parameters"] = parameters.into();
    }
    if let Some(schema) = operation.takes {
        let content = json!({ "application/json": { "schema": refer(schema) } });
        described["requestBody"] = json!({ "required": schema != "About", "content": content });
    }
    if operation.what.kind() == Kind::Fact {
        described["security"] = json!([{ "token": [] }, {}]);
    }
    described
}

/// Two forms mean that one can be chosen.
fn query_of(operation: &Operation) -> Option<Json> {
    let yaml = operation.gives.iter().any(|(_, kind, _)| *kind == "application/yaml");
    yaml.then(|| json!({ "name": "form", "in": "query", "schema": { "enum": ["json", "yaml"], "default": "json" } }))
}

fn refer(schema: &str) -> Json {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn id(operation: &Operation) -> String {
    let words = operation.path.split(['/', '.']).filter(|part| !part.is_empty() && !part.starts_with('{'));
    let words: Vec<_> = words.map(str::to_owned).collect();
    format!(
        "{}_{}",
        operation.method.to_ascii_lowercase(),
        if words.is_empty() { "page".to_owned() } else { words.join("_") }
    )
}

fn said(status: u16) -> &'static str {
    match status {
        200 => "Done",
        201 => "Done, and it is new",
        400 => "The request makes no sense",
        401 => "The token is missing or wrong",
        403 => "The request comes from a page of another origin, or asks for another host",
        404 => "There is no such upstream or backend",
        409 => "That cannot be done as things are",
        422 => "What was said makes no sense; the file of a reload has problems",
        500 => "The upstream could not be built anew, and nothing was changed",
        503 => "Not now",
        507 => "Too many have registered",
        _ => "Refused",
    }
}

/// An object with these properties, all of which are there.
fn object(properties: Json) -> Json {
    let required: Vec<_> = properties.as_object().map(|all| all.keys().cloned().collect()).unwrap_or_default();
    json!({ "type": "object", "properties": properties, "required": required })
}

fn list(items: Json) -> Json {
    json!({ "type": "array", "items": items })
}

fn or_null(kind: &str) -> Json {
    json!({ "type": [kind, "null"] })
}

fn schemas() -> Json {
    let (text, whole, number, yes) = (
        json!({ "type": "string" }),
        json!({ "type": "integer" }),
        json!({ "type": "number" }),
        json!({ "type": "boolean" }),
    );
    let time = json!({ "type": "string", "format": "date-time" });
    let time_or_null = json!({ "type": ["string", "null"], "format": "date-time" });
    let mut schemas = json!({
        "Problem": object(json!({ "type": text, "title": text, "status": whole, "detail": text, "help": text })),
        "Document": object(json!({ "openapi": text, "info": { "type": "object" }, "paths": { "type": "object" } })),
        "Configuration": { "type": "object", "description": "As in the file, with defaults.", "required": ["listeners", "upstreams", "routes", "log"] },
        "Entry": {
            "description": "An entry of `backends` as in the file: a URL, or an object with it.",
            "anyOf": [text, { "type": "object", "required": ["url"], "properties": {
                "url": text, "name": text, "weight": whole, "tier": whole, "max_connections": whole, "quota": list(text.clone()), "send_proxy": text,
            } }],
        },
        "About": { "type": "object", "description": "The same without `url`.", "properties": { "name": text, "weight": whole, "tier": whole } },
        "Weight": object(json!({ "weight": { "type": "integer", "minimum": 0, "maximum": 1000 } })),
        "Level": object(json!({ "level": { "enum": ["none", "error", "warn", "info", "debug", "trace"] } })),
        "Changed": object(json!({ "upstream": text, "backend": text, "changed": yes, "ready": whole })),
        "Registered": object(json!({ "backend": text, "new": yes, "expires_in_seconds": number })),
        "Left": object(json!({ "backend": text, "left": yes })),
        "Reloaded": object(json!({ "changes": list(text.clone()), "needs_restart": list(text.clone()), "warnings": list(text.clone()) })),
        "Purged": object(json!({ "purged": whole })),
        "Cache": object(json!({
            "bytes": whole, "size": whole, "objects": whole, "hits": whole, "misses": whole, "hit_ratio": or_null("number"),
        })),
    });
    let difference = object(
        json!({ "upstream": or_null("string"), "backend": or_null("string"), "what": text, "file": {}, "now": {} }),
    );
    schemas["Differences"] = object(json!({ "differences": list(difference) }));
    schemas["Status"] = object(json!({
        "version": text, "now": time, "started": time,
        "readiness": object(json!({ "ready": yes, "why": or_null("string") })),
        "configuration": object(json!({ "hash": text, "since": time, "differences": whole, "problem": or_null("string") })),
        "totals": object(json!({
            "connections": whole, "max_connections": whole, "in_flight": whole,
            "requests_per_second": number, "errors_per_second": number,
        })),
        "upstreams": list(refer("Upstream")),
        "certificates": list(object(json!({ "listener": text, "names": list(text.clone()), "expires": time, "days_left": whole }))),
        "cache": { "anyOf": [refer("Cache"), { "type": "null" }] },
        "limits": list(object(json!({ "route": text, "name": text, "rate": text, "burst": whole, "key": text, "dry_run": yes, "allowed": whole, "refused": whole }))),
        "refused": { "type": "object", "additionalProperties": whole },
        "changes": list(object(json!({
            "id": whole, "at": time, "kind": { "enum": ["state", "operator", "reload"] }, "upstream": or_null("string"),
            "backend": or_null("string"), "from": or_null("string"), "to": or_null("string"), "what": text,
        }))),
    }));
    schemas["Upstream"] = object(json!({
        "name": text, "balance": text, "waiting": or_null("integer"), "in_flight": whole,
        "requests_per_second": number, "errors_per_second": number, "p50_ms": or_null("number"), "p95_ms": or_null("number"),
        "backends": list(refer("Backend")),
    }));
    schemas["Backend"] = object(json!({
        "name": text,
        "state": { "enum": ["PENDING", "HEALTHY", "THROTTLED", "EJECTED", "UNREACHABLE", "DRAINING"] },
        "state_until": time_or_null, "on_trial": yes,
        "source": { "enum": ["file", "discovery", "api", "gone"] },
        "changed": list(json!({ "enum": ["added", "drained", "weight"] })),
        "weight": whole, "tier": whole, "in_flight": whole, "max_in_flight": or_null("integer"),
        "quota": { "type": ["object", "null"] }, "requests": whole, "errors": whole,
        "requests_per_second": number, "errors_per_second": number, "p50_ms": or_null("number"), "p95_ms": or_null("number"),
        "last_second": object(json!({ "requests": whole, "errors": whole, "p95_ms": or_null("number") })),
        "history": object(json!({ "requests": list(whole.clone()), "p95_ms": list(or_null("number")) })),
        "last_healthy": time_or_null, "last_error": { "type": ["object", "null"] },
    }));
    schemas
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_that_is_named_is_there() {
        let document = document();
        let text = document.to_string();
        for part in text.split("\"#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
    }

    #[test]
    fn no_two_operations_share_an_id() {
        let mut ids: Vec<_> = OPERATIONS.iter().map(id).collect();
        ids.sort();
        let all = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), all, "{ids:?}");
    }
}
