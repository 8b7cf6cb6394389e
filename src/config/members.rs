//! Which backends does a list name? Lists that are discovered, in JSON or YAML, with the same entries as `backends`.
//!
//! A list comes from outside and may be wrong in any way: an entry that makes no sense is skipped and told, the others
//! are used. Variables are not replaced, as whoever writes lists shall not read our environment.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value as Json;

use super::check::{check_backend, is_a_name};
use super::file::{self, Decode};
use super::problem::{Problem, Problems, Spot};
use super::tree::{self, Entry, Mark, Node, Scalar, Value};
use super::{Backend, Target, Upstream};

/// Entries of one list; what is beyond is not read.
pub const MOST_MEMBERS: usize = 10_000;

/// What a list says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Members {
    /// The backends, as they stand in it.
    pub backends: Vec<Backend>,
    /// What was skipped, and why.
    pub skipped: Vec<String>,
}

/// Where the entries of a list may lead.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Whether an address may be spoken to over TLS: its certificate needs a name, or is not looked at.
    pub https_by_address: bool,
    /// Where relative paths of unix sockets start; without it there are none.
    pub folder: Option<&'a Path>,
}

impl<'a> Rules<'a> {
    /// The rules of an upstream.
    pub fn of(upstream: &Upstream, folder: Option<&'a Path>) -> Self {
        Self { https_by_address: !upstream.tls.verify || upstream.tls.server_name.is_some(), folder }
    }
}

/// Reads a list in YAML, or in JSON; or says in a few words why it is none.
pub fn members(text: &str, rules: Rules<'_>) -> Result<Members, String> {
    match serde_json::from_str(text) {
        Ok(json) => members_of(&node(&json), rules),
        Err(error) => {
            // What begins like JSON may still be YAML, so both are tried.
            let mut problems = Problems::of("list");
            let root = tree::parse(text, &mut problems);
            let first = problems.into_parts().0.into_iter().next();
            match (root, first) {
                (Some(root), None) => members_of(&root, rules),
                (_, Some(problem)) if text.trim_start().starts_with(['[', '{']) => {
                    Err(format!("{} (as JSON: {error})", problem.what))
                }
                (_, Some(problem)) => Err(problem.what),
                (None, None) => Err("there is nothing in it".to_owned()),
            }
        }
    }
}

/// Reads a list in JSON; or says in a few words why it is none.
pub fn members_of_json(text: &[u8], rules: Rules<'_>) -> Result<Members, String> {
    let json: Json = serde_json::from_slice(text).map_err(|error| format!("it is not JSON: {error}"))?;
    members_of(&node(&json), rules)
}

/// One backend of its URL and what else is said of it, as a JSON object; or a few words on why it is none.
pub fn member(url: &str, about: &Json, rules: Rules<'_>) -> Result<Backend, String> {
    let Json::Object(fields) = about else { return Err("it must be a JSON object".to_owned()) };
    let mut fields = fields.clone();
    if fields.insert("url".to_owned(), url.into()).is_some() {
        return Err("`url` is in the path already".to_owned());
    }
    let nowhere = Mark::default();
    one(&node(&Json::Object(fields)), &Spot::root(nowhere), rules)
}

/// One backend of an entry as it stands in a file, in JSON; or a few words on why it is none.
pub fn entry(json: &Json, rules: Rules<'_>) -> Result<Backend, String> {
    one(&node(json), &Spot::root(Mark::default()), rules)
}

/// A host and a port as the target of a backend; `None` if they are none.
pub fn target_of(host: &str, port: u16) -> Option<Target> {
    let host = file::dns_name(host)?;
    (port > 0).then(|| Target::Name { host: host.into(), port })
}

fn members_of(root: &Node, rules: Rules<'_>) -> Result<Members, String> {
    let Value::List(items) = &root.value else { return Err("it must be a list of backends".to_owned()) };
    let mut members = Members::default();
    for (index, item) in items.iter().take(MOST_MEMBERS).enumerate() {
        match one(item, &Spot::root(item.mark).item(index, item.mark), rules) {
            Ok(backend) => members.backends.push(backend),
            Err(why) => members.skipped.push(why),
        }
    }
    if items.len() > MOST_MEMBERS {
        members.skipped.push(format!("{} entries beyond the first {MOST_MEMBERS}", items.len() - MOST_MEMBERS));
    }
    Ok(members)
}

fn one(item: &Node, at: &Spot, rules: Rules<'_>) -> Result<Backend, String> {
    let mut problems = Problems::of("list");
    let backend = file::Backend::decode(item, at, &mut problems);
    let backend = backend.map(|backend| {
        refuse(&backend.0.url, rules, &mut problems);
        if let Some(name) = backend.0.name.as_deref().filter(|name| !is_a_name(name)) {
            problems.error(&backend.0.name.at, format!("{name:?} cannot be shown as a name"), "");
        }
        check_backend(&backend.0, rules.folder.unwrap_or(Path::new("")), &mut problems)
    });
    let said = |problem: Problem| format!("{}: {}", problem.key, problem.what);
    match (backend, problems.into_parts().0.into_iter().next()) {
        (Some(backend), None) => Ok(backend),
        (_, Some(problem)) => Err(said(problem)),
        (None, None) => Err("it is no backend".to_owned()),
    }
}

fn refuse(url: &file::Marked<file::BackendUrl>, rules: Rules<'_>, problems: &mut Problems) {
    match &url.target {
        Target::Unix(_) if rules.folder.is_none() => {
            problems.error(&url.at, "a unix socket is only for lists in files", "");
        }
        Target::Address(_) | Target::Unix(_) if url.tls && !rules.https_by_address => {
            problems.error(&url.at, "an https backend given by its address has no name to verify", "");
        }
        Target::Address(_) | Target::Name { .. } | Target::Unix(_) => {}
    }
}

/// JSON as the tree of a file.
fn node(json: &Json) -> Node {
    let mark = Mark::default();
    let plain = |text: String| Value::Scalar(Scalar { text, plain: true });
    let value = match json {
        Json::Null => plain("null".to_owned()),
        Json::Bool(value) => plain(value.to_string()),
        Json::Number(number) => plain(number.to_string()),
        Json::String(text) => Value::Scalar(Scalar { text: text.clone(), plain: false }),
        Json::Array(items) => Value::List(items.iter().map(node).collect()),
        Json::Object(fields) => {
            let entry = |(key, value): (&String, &Json)| Entry { key: key.clone(), mark, value: node(value) };
            Value::Map(fields.iter().map(entry).collect())
        }
    };
    Node { mark, value }
}

impl Target {
    /// As the default name of a backend.
    pub fn show(&self) -> Arc<str> {
        match self {
            Self::Address(address) => address.to_string().into(),
            Self::Name { host, port } => format!("{host}:{port}").into(),
            Self::Unix(path) => format!("unix:{}", path.display()).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: Rules<'_> = Rules { https_by_address: false, folder: None };

    #[track_caller]
    fn check(text: &str, names: &[&str], skipped: &[&str]) {
        let members = members(text, STRICT).unwrap_or_else(|why| panic!("{text}: {why}"));
        assert_eq!(members.backends.iter().map(|backend| &*backend.name).collect::<Vec<_>>(), names, "{text}");
        assert_eq!(members.skipped.len(), skipped.len(), "{:?}", members.skipped);
        for (said, part) in members.skipped.iter().zip(skipped) {
            assert!(said.contains(part), "{said} should say {part}");
        }
    }

    #[test]
    fn yaml_and_json_say_the_same() {
        for text in [
            "- 10.0.0.1:80\n- { url: http://app.internal, name: big, weight: 3, tier: 2 }\n",
            "[10.0.0.1:80, { url: \"http://app.internal\", name: big, weight: 3, tier: 2 }]",
            "[\n\t\"10.0.0.1:80\",\n\t{\"url\": \"http:\\/\\/app.internal\", \"name\": \"big\", \"weight\": 3, \"tier\": 2}\n]",
        ] {
            check(text, &["10.0.0.1:80", "big"], &[]);
            let big = members(text, STRICT).unwrap().backends.remove(1);
            assert_eq!((big.weight, big.tier), (3, 2));
        }
        check("[]", &[], &[]);
    }

    #[test]
    fn an_entry_that_makes_no_sense_is_skipped_alone() {
        let text =
            "- nonsense\n- 10.0.0.1:80\n- { url: 10.0.0.2:80, weight: -1 }\n- [1]\n- { url: 10.0.0.3:80, wieght: 2 }\n";
        check(text, &["10.0.0.1:80"], &["[0]", "[2].weight", "[3]", "[4].wieght"]);
        check("[unix:/run/docker.sock, https://10.0.0.1]", &[], &["unix socket", "no name to verify"]);
        check("[\"${HOME}:80\"]", &[], &["no valid host"]);
    }

    #[test]
    fn what_is_no_list_is_refused_whole() {
        for (text, part) in [
            ("", "nothing"),
            ("[\"10.0.0.1:80\", \"10.0", "JSON"),
            ("{ \"backends\": [] }", "a list"),
            ("- &a 10.0.0.1:80\n- *a\n", "anchors"),
            ("12", "a list"),
        ] {
            let error = members(text, STRICT).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(members_of_json(b"- 10.0.0.1:80", STRICT).unwrap_err().contains("not JSON"));
        assert!(members_of_json(&[0xff], STRICT).is_err());
    }

    #[test]
    fn a_list_of_everything_ends_at_a_bound() {
        let all: Vec<_> = (0..MOST_MEMBERS + 5).map(|n| format!("10.{}.{}.1:80", n / 250, n % 250)).collect();
        let members = members_of_json(serde_json::to_string(&all).unwrap().as_bytes(), STRICT).unwrap();
        assert_eq!((members.backends.len(), members.skipped.len()), (MOST_MEMBERS, 1));
        assert!(members.skipped[0].starts_with("5 entries"));
    }

    #[test]
    fn one_member_is_read_like_an_entry() {
        let about = |text: &str| serde_json::from_str::<Json>(text).unwrap();
        let backend = member("10.0.0.1:80", &about(r#"{ "weight": 7, "name": "a" }"#), STRICT).unwrap();
        assert_eq!((&*backend.name, backend.weight), ("a", 7));
        for (url, text, part) in [
            ("10.0.0.1:80", "[]", "object"),
            ("10.0.0.1", "{}", "no port"),
            ("10.0.0.1:80", r#"{ "url": "10.0.0.2:80" }"#, "url"),
            ("10.0.0.1:80", r#"{ "weight": 5000 }"#, "weight"),
            ("unix:/run/a", "{}", "unix"),
        ] {
            let error = member(url, &about(text), STRICT).unwrap_err();
            assert!(error.contains(part), "{url} {text}: {error}");
        }
    }
}
