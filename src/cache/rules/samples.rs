//! Heads for the tests of the rules.

use http::{HeaderMap, HeaderName, HeaderValue};

/// A head with these fields, in this order.
pub(super) fn head(fields: &[(&str, &str)]) -> HeaderMap {
    let mut head = HeaderMap::new();
    for (name, value) in fields {
        head.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    head
}

/// The lines of a head, sorted by name.
pub(super) fn lines(head: &HeaderMap) -> Vec<String> {
    let mut lines: Vec<_> = head.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    lines.sort_by(|one, other| one.split(':').next().cmp(&other.split(':').next()));
    lines
}
