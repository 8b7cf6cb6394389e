//! How is a key written down? As a row, in JSON, as the entry of a file: never with its secret, and with its hash only
//! where that is what is asked for.

use std::fmt::{self, Display};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::auth::keys::Listed;
use crate::config::Key;

/// All keys, for programs.
pub(super) fn in_json(keys: &[Listed], now: Timestamp) -> String {
    let all: Vec<_> = keys.iter().map(|listed| object(listed, now)).collect();
    format!("{:#}", Value::from(all))
}

/// All keys, for people.
pub(super) fn in_rows(keys: &[Listed], now: Timestamp) -> String {
    let mut rows = vec![["ID", "NAME", "PLAN", "STATE", "CREATED", "EXPIRES", "ONLY"].map(str::to_owned)];
    rows.extend(keys.iter().map(|listed| row(listed, now)));
    table(&rows)
}

/// The entry of a file of keys. What JSON quotes, YAML reads.
pub(super) fn entry(key: &Key) -> String {
    let quoted = |text: &dyn Display| serde_json::Value::from(text.to_string()).to_string();
    let list = |items: Vec<String>| format!("[{}]", items.join(", "));
    let limits = &key.limits;
    let fields = [
        ("id", key.id.as_ref().map(|id| quoted(id))),
        ("plan", key.plan.as_ref().map(|plan| quoted(plan))),
        ("routes", some(&limits.routes).map(|all| list(all.iter().map(|it| quoted(it)).collect()))),
        ("methods", some(&limits.methods).map(|all| list(all.iter().map(|it| quoted(it)).collect()))),
        ("addresses", some(&limits.addresses).map(|all| list(all.iter().map(|it| quoted(it)).collect()))),
        ("not_before", key.not_before.as_ref().map(|time| quoted(time))),
        ("expires", key.expires.as_ref().map(|time| quoted(time))),
    ];
    let mut text = format!("- name: {}\n  hash: {}", quoted(&key.name), key.hash.show());
    for (name, value) in fields {
        if let Some(value) = value {
            text.push_str(&format!("\n  {name}: {value}"));
        }
    }
    text
}

fn some<T>(list: &[T]) -> Option<&[T]> {
    (!list.is_empty()).then_some(list)
}

/// What a key is at the moment.
#[derive(Clone, Copy)]
enum State {
    Good,
    TooEarly,
    Expired,
    Revoked,
}

impl State {
    fn of(key: &Key, now: Timestamp) -> Self {
        match () {
            () if key.revoked.is_some() => Self::Revoked,
            () if key.expires.is_some_and(|end| end <= now) => Self::Expired,
            () if key.not_before.is_some_and(|start| now < start) => Self::TooEarly,
            () => Self::Good,
        }
    }
}

impl Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Good => "good",
            Self::TooEarly => "not yet",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        })
    }
}

fn object(Listed { key, created }: &Listed, now: Timestamp) -> serde_json::Value {
    let texts = |items: Vec<String>| serde_json::Value::from(items);
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
    json!({
        "id": key.id.as_deref(),
        "name": &*key.name,
        "plan": key.plan.as_deref(),
        "state": State::of(key, now).to_string(),
        "routes": texts(key.limits.routes.iter().map(ToString::to_string).collect()),
        "methods": texts(key.limits.methods.iter().map(ToString::to_string).collect()),
        "addresses": texts(key.limits.addresses.iter().map(ToString::to_string).collect()),
        "created": created.to_string(),
        "not_before": time(key.not_before),
        "expires": time(key.expires),
        "revoked": time(key.revoked),
    })
}

fn row(Listed { key, created }: &Listed, now: Timestamp) -> [String; 7] {
    let limits = &key.limits;
    let routes = limits.routes.iter().map(ToString::to_string);
    let methods = limits.methods.iter().map(ToString::to_string);
    let only: Vec<_> = routes.chain(methods).chain(limits.addresses.iter().map(ToString::to_string)).collect();
    let or_dash = |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_owned());
    [
        or_dash(key.id.as_deref().map(str::to_owned)),
        key.name.to_string(),
        or_dash(key.plan.as_deref().map(str::to_owned)),
        State::of(key, now).to_string(),
        created.to_string(),
        or_dash(key.expires.map(|end| end.to_string())),
        or_dash(Some(only.join(" "))),
    ]
}

/// Columns as wide as what is in them.
fn table(rows: &[[String; 7]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(width);
    let line = |row: &[String; 7]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;

    use super::*;
    use crate::auth::keys::NewKey;
    use crate::config::{KeyLimits, parse_keys};

    #[test]
    fn the_entry_for_a_file_is_read_as_it_was_meant() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let made = NewKey::make();
        let key = Key {
            id: Some(made.id.as_str().into()),
            hash: made.hash(),
            name: "ci: \"the\" #1 \u{fc}".into(),
            plan: Some("yes".into()),
            limits: KeyLimits {
                routes: vec!["routes[0]".into(), "on".into()],
                methods: vec![Method::GET],
                addresses: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
            },
            not_before: Some(now),
            expires: Some(now + Duration::from_secs(86_400)),
            revoked: None,
        };
        assert_eq!(parse_keys(entry(&key).as_bytes()).unwrap(), [key]);
    }
}
