//! Why does a request not belong to a route? What a route asks for and the request does not have, in words.
//!
//! Each part of what it asks for is asked in a table of its own, so that there is no second copy of the rules.

use super::{RequestView, Table};
use crate::config::{HostPattern, Match, PathPattern};

/// What a route asks for.
pub fn wishes(matches: &Match) -> Vec<String> {
    parts(matches).into_iter().map(|(_, wish)| wish).collect()
}

/// What a route asks for and this request has not; nothing where the route matches.
pub fn missing(matches: &Match, request: &RequestView<'_>) -> Vec<String> {
    let is_missing = |part: Match| Table::new(vec![(part, ())]).find(request).is_none();
    parts(matches).into_iter().filter_map(|(part, wish)| is_missing(part).then_some(wish)).collect()
}

/// Each part alone, and what it asks for.
fn parts(matches: &Match) -> Vec<(Match, String)> {
    let alone = Match::default;
    let mut parts = Vec::new();
    if let Some(listener) = &matches.listener {
        parts.push((Match { listener: Some(listener.clone()), ..alone() }, format!("listener {listener}")));
    }
    if !matches.hosts.is_empty() {
        let names: Vec<_> = matches.hosts.iter().map(host).collect();
        parts.push((Match { hosts: matches.hosts.clone(), ..alone() }, format!("host {}", names.join(" or "))));
    }
    let path = match &matches.path {
        PathPattern::Any => None,
        PathPattern::Exact(path) => Some(format!("path {path}")),
        PathPattern::Prefix(prefix) => Some(format!("path {}/*", prefix.trim_end_matches('/'))),
    };
    parts.extend(path.map(|wish| (Match { path: matches.path.clone(), ..alone() }, wish)));
    if !matches.methods.is_empty() {
        let names: Vec<_> = matches.methods.iter().map(http::Method::as_str).collect();
        parts.push((Match { methods: matches.methods.clone(), ..alone() }, format!("method {}", names.join(" or "))));
    }
    for field in &matches.headers {
        let value = String::from_utf8_lossy(field.1.as_bytes());
        parts.push((Match { headers: vec![field.clone()], ..alone() }, format!("field {}: {value}", field.0)));
    }
    for (name, value) in &matches.query {
        let query = vec![(name.clone(), value.clone())];
        parts.push((Match { query, ..alone() }, format!("query {name}={value}")));
    }
    parts
}

fn host(pattern: &HostPattern) -> String {
    match pattern {
        HostPattern::Exact(host) => host.clone(),
        HostPattern::Wildcard(parent) => format!("*.{parent}"),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::*;

    #[test]
    fn what_is_missing_is_named_part_by_part() {
        let matches = Match {
            listener: Some("edge".into()),
            hosts: vec![HostPattern::Exact("a.example".into()), HostPattern::Wildcard("b.example".into())],
            path: PathPattern::Prefix("/v1".into()),
            methods: vec![Method::POST],
            query: vec![("v".into(), "2".into())],
            ..Match::default()
        };
        let headers = HeaderMap::new();
        let request = |host, path, method| RequestView {
            listener: Some("edge"),
            host,
            path,
            method,
            headers: &headers,
            query: Some("v=2"),
        };
        assert_eq!(missing(&matches, &request("x.b.example", "/v1/a", &Method::POST)), [""; 0]);
        let far = missing(&matches, &request("c.example", "/v2", &Method::GET));
        assert_eq!(far, ["host a.example or *.b.example", "path /v1/*", "method POST"]);
        assert_eq!(wishes(&matches).len(), 5);
    }
}
