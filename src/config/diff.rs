//! What differs between two files? One line a change, for the log of a reload.
//!
//! Keys are compared one by one, with their defaults, whatever they mean. Items of a list are told apart by what the
//! operator calls them (a name, a URL, an address, what a route matches), so an item that only moved is no change of
//! those beside it. Secrets are compared too, but never shown.

use std::collections::HashSet;
use std::fmt::Write;

use super::outline::{Field, Outline, Spelled};

/// The keys by which an item of a list is called, the first that is given.
const CALLED_BY: [&str; 5] = ["name", "url", "address", "cert", "match"];

/// Characters of one value that are shown.
const LONGEST: usize = 80;

/// What has changed from one file to another: lines such as `server.grace_period: 20s -> 25s` and
/// `upstreams.app.backends[10.0.0.3:80]: added`. Empty if they say the same.
pub fn changes(old: &Outline, new: &Outline) -> Vec<String> {
    let mut lines = Vec::new();
    compare("", &old.0, &new.0, &mut lines);
    lines
}

fn compare(key: &str, old: &Spelled, new: &Spelled, lines: &mut Vec<String>) {
    match (old, new) {
        (old, new) if old == new => {}
        (Spelled::Map(old), Spelled::Map(new)) => compare_maps(key, old, new, lines),
        (Spelled::List(old), Spelled::List(new)) => compare_lists(key, old, new, lines),
        (Spelled::Hidden(_), Spelled::Hidden(_)) => lines.push(format!("{key}: changed (not shown)")),
        (old, new) => {
            let line = format!("{key}: {} -> {}", shown(old), shown(new));
            // Only what does not matter here differs, as whether a default was written out.
            if shown(old) != shown(new) {
                lines.push(line);
            }
        }
    }
}

fn compare_maps(key: &str, old: &[Field], new: &[Field], lines: &mut Vec<String>) {
    let below = |field: &Field| if key.is_empty() { field.key.clone() } else { format!("{key}.{}", field.key) };
    let find = |fields: &'_ [Field], key: &str| fields.iter().position(|field| field.key == key);
    for field in new {
        match find(old, &field.key).and_then(|place| old.get(place)) {
            Some(before) => compare(&below(field), &before.value, &field.value, lines),
            None => lines.push(format!("{}: added{}", below(field), details(&field.value, ""))),
        }
    }
    let gone = old.iter().filter(|field| find(new, &field.key).is_none());
    lines.extend(gone.map(|field| format!("{}: removed", below(field))));
}

fn compare_lists(key: &str, old: &[Spelled], new: &[Spelled], lines: &mut Vec<String>) {
    let (old, new) = (called(old), called(new));
    for (name, item) in &new {
        match find(&old, name) {
            Some(before) => compare(&format!("{key}[{name}]"), before, item, lines),
            None => lines.push(format!("{key}[{name}]: added{}", details(item, name))),
        }
    }
    let gone = old.iter().filter(|(name, _)| find(&new, name).is_none());
    lines.extend(gone.map(|(name, _)| format!("{key}[{name}]: removed")));
    let stays = |of: &[(String, &Spelled)], others: &[(String, &Spelled)]| -> Vec<String> {
        let others: HashSet<_> = others.iter().map(|(name, _)| name).collect();
        of.iter().filter(|(name, _)| others.contains(name)).map(|(name, _)| name.clone()).collect()
    };
    if stays(&old, &new) != stays(&new, &old) {
        lines.push(format!("{key}: in another order"));
    }
}

fn find<'a>(items: &[(String, &'a Spelled)], name: &str) -> Option<&'a Spelled> {
    items.iter().find(|(other, _)| other == name).map(|(_, item)| *item)
}

/// The items, each with what it is called; those that are called alike are numbered.
fn called(items: &[Spelled]) -> Vec<(String, &Spelled)> {
    let mut seen = HashSet::new();
    let mut named = |item| {
        let name = name_of(item);
        let mut unique = name.clone();
        let mut count = 1;
        while !seen.insert(unique.clone()) {
            count += 1;
            unique = format!("{name} #{count}");
        }
        (unique, item)
    };
    items.iter().map(&mut named).collect()
}

fn name_of(item: &Spelled) -> String {
    let Spelled::Map(fields) = item else { return shown(item) };
    let given = |key: &str| fields.iter().find(|field| field.key == key && field.written).map(|field| &field.value);
    let value = CALLED_BY.iter().find_map(|key| given(key)).filter(|value| **value != Spelled::Text("none".into()));
    value.map_or_else(|| "any".to_owned(), shown)
}

/// What an item that was added says besides its name.
fn details(item: &Spelled, name: &str) -> String {
    let text = shown(item);
    if text == name || text == "{ }" { String::new() } else { format!(" {text}") }
}

/// A value in one short line.
fn shown(value: &Spelled) -> String {
    let mut text = String::new();
    write_to(&mut text, value);
    let text = text.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'");
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// Without the keys that stand at their defaults: the operator did not write them.
fn write_to(text: &mut String, value: &Spelled) {
    match value {
        Spelled::Text(words) => text.push_str(words),
        Spelled::Hidden(_) => text.push_str("(not shown)"),
        Spelled::List(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                text.push_str(if index > 0 { ", " } else { "" });
                write_to(text, item);
            }
            text.push(']');
        }
        Spelled::Map(fields) => {
            text.push_str("{ ");
            for (index, field) in fields.iter().filter(|field| field.written).enumerate() {
                let _ = write!(text, "{}{}: ", if index > 0 { ", " } else { "" }, field.key);
                write_to(text, &field.value);
            }
            text.push_str(if text.ends_with(' ') { "}" } else { " }" });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Surroundings, parse};

    fn outline(text: &str) -> Outline {
        let mut around = Surroundings::of_process("/nowhere".into());
        around.environment = Box::new(|_| Some("127.0.0.1:9".to_owned()));
        around.keeps_files = Box::new(|_| Ok(()));
        around.read_file = Box::new(|path| Ok(format!("{} of sixteen bytes", path.display()).into_bytes()));
        let whole = format!("listeners: [{{ address: 127.0.0.1:0 }}]\n{text}\n");
        parse(&whole, "f", &around).unwrap_or_else(|problems| panic!("{whole}{problems:#?}")).outline
    }

    #[track_caller]
    fn check(old: &str, new: &str, expected: &[&str]) {
        assert_eq!(changes(&outline(old), &outline(new)), expected);
    }

    const ROUTE: &str = "routes: [{ upstream: app }]\n";

    fn app(keys: &str) -> String {
        format!("{ROUTE}upstreams:\n  app: {{ {keys} }}\n")
    }

    #[test]
    fn backends_are_told_by_their_urls_or_names() {
        let old = app("backends: [10.0.0.1:80, { url: 10.0.0.2:80, weight: 3 }, { url: 10.0.0.4:80, name: big }]");
        let new = app("backends: [{ url: 10.0.0.4:80, name: big, tier: 1 }, { url: 10.0.0.2:80 }, 10.0.0.3:80]");
        let told = [
            "upstreams.app.backends[big].tier: 0 -> 1",
            "upstreams.app.backends[10.0.0.2:80].weight: 3 -> 1",
            "upstreams.app.backends[10.0.0.3:80]: added { url: 10.0.0.3:80 }",
            "upstreams.app.backends[10.0.0.1:80]: removed",
            "upstreams.app.backends: in another order",
        ];
        check(&old, &new, &told);
    }

    #[test]
    fn a_setting_is_told_with_its_old_and_its_new_value() {
        let told = ["server.grace_period: 20s -> 1m", "upstreams.app.timeouts.connect: 1s -> 2s"];
        let new = app("backends: [10.0.0.1:80], timeouts: { connect: 2s }") + "server: { grace_period: 1m }";
        check(&app("backends: [10.0.0.1:80]"), &new, &told);
    }

    #[test]
    fn what_is_not_used_any_more_is_none() {
        let with = app("backends: [10.0.0.1:80], sticky: { cookie: sid }");
        let told = ["upstreams.app.sticky: none -> { cookie: sid }"];
        check(&app("backends: [10.0.0.1:80]"), &with, &told);
    }

    #[test]
    fn routes_are_told_by_their_names_or_by_what_they_match() {
        let old = "routes: [{ name: a, respond: {} }, { match: { path: /x }, respond: {} }, { respond: {} }]";
        let new =
            "routes: [{ respond: {} }, { name: a, timeout: 1s, respond: {} }, { match: { path: /y }, respond: {} }]";
        let told = [
            "routes[a].timeout: 60s -> 1s",
            "routes[{ path: /y }]: added { match: { path: /y }, respond: { } }",
            "routes[{ path: /x }]: removed",
            "routes: in another order",
        ];
        check(old, new, &told);
    }

    #[test]
    fn a_default_that_is_written_out_and_another_layout_are_no_change() {
        let same = "upstreams: { app: { backends: [{ weight: 1, url: \"10.0.0.1:80\" }], balance: round_robin } }\n";
        check(&app("backends: [10.0.0.1:80]"), &format!("{same}{ROUTE}server: {{}}"), &[]);
    }

    #[test]
    fn what_is_stored_and_where_is_told_key_for_key() {
        let with = |route: &str, store: &str| {
            let app = "upstreams: { app: { backends: [\"10.0.0.1:80\"] } }";
            format!("{app}\nroutes: [{{ name: a, upstream: app, cache: {route} }}]\ncache: {store}")
        };
        let told = [
            "routes[a].cache.ttl: none -> 1m",
            "routes[a].cache.key.query: all -> [page]",
            "routes[a].cache.bypass[cookie:sid]: added",
            "cache.size: 256MiB -> 1GiB",
            "cache.disk: none -> { path: . }",
        ];
        let new = "{ ttl: 1m, key: { query: [page] }, bypass: [cookie:sid], lock: 5s }";
        check(&with("{}", "{}"), &with(new, "{ size: 1GiB, max_object: 8MiB, disk: { path: . } }"), &told);
        check(&with("none", "{}"), &with("{}", "{}"), &["routes[a].cache: none -> { }"]);
    }

    #[test]
    fn what_is_compressed_is_told_key_for_key() {
        let with = |compress: &str| format!("routes: [{{ name: a, respond: {{}}, compress: {compress} }}]");
        let told = [
            "routes[a].compress.types[font/otf]: added",
            "routes[a].compress.levels.br: 4 -> 6",
            "routes[a].compress.max_cpu: none -> 80%",
        ];
        let old = with("{ types: [text/*] }");
        check(&old, &with("{ types: [text/*, font/otf], levels: { br: 6, gzip: 5 }, max_cpu: 80% }"), &told);
        check(&with("none"), &with("{}"), &["routes[a].compress: none -> { }"]);
    }

    #[test]
    fn secrets_are_compared_and_never_shown() {
        let with = |secret: &str, bearer: &str| {
            let headers =
                format!("headers: {{ request: {{ set: {{ authorization: {bearer}, x-plain: {bearer} }} }} }}");
            format!("routes: [{{ name: a, respond: {{}}, {headers} }}]\nserver: {{ secret: {secret} }}")
        };
        let told = [
            "server.secret: changed (not shown)",
            "routes[a].headers.request.set.authorization: changed (not shown)",
            "routes[a].headers.request.set.x-plain: one -> two",
        ];
        check(&with("0123456789abcdef", "one"), &with("\"file:b\"", "two"), &told);
    }

    #[test]
    fn what_comes_from_the_environment_is_not_shown() {
        let old = app("backends: [10.0.0.1:80]");
        let told = [
            "upstreams.app.backends[${WHERE}]: added { url: ${WHERE} }",
            "upstreams.app.backends[10.0.0.1:80]: removed",
        ];
        check(&old, &app("backends: [\"${WHERE}\"]"), &told);
    }

    #[test]
    fn a_long_value_is_cut_short_and_stays_in_its_line() {
        let body = format!("routes: [{{ name: a, respond: {{ body: \"x\\n{}\" }} }}]", "y".repeat(1000));
        let told = changes(&outline("routes: [{ name: a, respond: {} }]"), &outline(&body));
        assert_eq!(told.len(), 1);
        assert!(told[0].len() < 200 && told[0].contains(r"x\nyyy") && told[0].ends_with("..."), "{told:?}");
    }
}
