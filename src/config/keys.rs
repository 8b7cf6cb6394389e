//! Which keys open the door? What a store of API keys says of each, and how a file of them is read.
//!
//! A key itself is never here: only its hash, which nobody can turn back, because a key is chosen by chance. No message
//! shows what stands where a hash should: it might be a key.

use std::fmt::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use ipnet::IpNet;
use jiff::Timestamp;

use super::check::is_a_name;
use super::file::{self, Decode};
use super::problem::{Problem, Problems, Spot};
use super::tree::{self, Node, Value};

/// Problems of one file that are told in the log; `check` tells all.
const MOST_TOLD: usize = 5;

/// The beginning of every key that we make.
pub const PREFIX: &str = "pck_";

/// A named place where keys are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyStore {
    /// What routes call it.
    pub name: Arc<str>,
    /// Where it is.
    pub source: KeySource,
}

/// Where keys are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// In a YAML list, which is read again when it changes.
    File(PathBuf),
    /// In a database, which `portcullis keys` changes while we run.
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Who comes in while it has never been read.
        on_error: OnStoreError,
        /// How long what was read last is good while it cannot be read and nobody is let in without a key; `None` is for ever.
        stale_for: Option<Duration>,
    },
}

/// Who comes in while a store has never been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStoreError {
    /// Nobody.
    Deny,
    /// Everybody, with or without a key, as nobody in particular.
    Allow,
}

/// A key as a store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its public part, by which it is named and revoked.
    pub id: Option<Arc<str>>,
    /// What a key must hash to.
    pub hash: KeyHash,
    /// Whose it is.
    pub name: Arc<str>,
    /// What its owner pays for.
    pub plan: Option<Arc<str>>,
    /// Where it opens.
    pub limits: KeyLimits,
    /// It does not open before.
    pub not_before: Option<Timestamp>,
    /// It does not open from then on.
    pub expires: Option<Timestamp>,
    /// It was taken back then.
    pub revoked: Option<Timestamp>,
}

/// Where a key opens. An empty list is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyLimits {
    /// The names of routes.
    pub routes: Vec<Arc<str>>,
    /// Methods; GET implies HEAD.
    pub methods: Vec<Method>,
    /// Where the client is.
    pub addresses: Vec<IpNet>,
}

/// The SHA-256 of a whole key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash(pub [u8; 32]);

impl KeyHash {
    /// Reads `sha256:` and 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.trim().strip_prefix("sha256:")?.as_bytes();
        let mut hash = [0; 32];
        if digits.len() != 2 * hash.len() {
            return None;
        }
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |at: usize| char::from(*pair.get(at)?).to_digit(16);
            *byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
        }
        Some(Self(hash))
    }

    /// As a file of keys has it.
    pub fn show(&self) -> String {
        self.0.iter().fold("sha256:".to_owned(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(..)")
    }
}

impl KeyLimits {
    /// Whether a client at this address may use it; one without an address (on a unix socket) only where all may.
    pub fn allow_address(&self, address: Option<IpAddr>) -> bool {
        let holds = |address: IpAddr| self.addresses.iter().any(|net| net.contains(&address));
        self.addresses.is_empty() || address.is_some_and(|address| holds(address.to_canonical()))
    }

    /// Whether it opens for this method.
    pub fn allow_method(&self, method: &Method) -> bool {
        let implied = method == Method::HEAD && self.methods.contains(&Method::GET);
        self.methods.is_empty() || implied || self.methods.contains(method)
    }

    /// Whether it opens this route.
    pub fn allow_route(&self, name: &str) -> bool {
        self.routes.is_empty() || self.routes.iter().any(|route| **route == *name)
    }
}

/// Reads a file of keys, or says in one line what is wrong with it.
pub fn parse_keys(bytes: &[u8]) -> Result<Vec<Key>, String> {
    let mut problems = Problems::of("keys");
    let keys = parse(bytes, &mut problems).unwrap_or_default();
    let (errors, _) = problems.into_parts();
    if errors.is_empty() {
        return Ok(keys.into_iter().map(|(key, _)| key).collect());
    }
    let one =
        |problem: &Problem| format!("{}:{}: {}: {}", problem.place.line, problem.place.col, problem.key, problem.what);
    let mut told: Vec<_> = errors.iter().take(MOST_TOLD).map(one).collect();
    if errors.len() > MOST_TOLD {
        told.push(format!("and {} more", errors.len() - MOST_TOLD));
    }
    Err(told.join("; "))
}

/// The keys, each with the place of its routes.
pub(super) fn parse(bytes: &[u8], problems: &mut Problems) -> Option<Vec<(Key, Spot)>> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        problems.error(&Spot::root(tree::Mark { line: 1, col: 1 }), "it is not UTF-8 text", "save it as UTF-8");
        return None;
    };
    let root = tree::parse(text, problems)?;
    let at = Spot::root(root.mark);
    let Value::List(items) = &root.value else {
        problems.error(&at, "this must be a list of keys", "write `- name: ...` lines; an empty list is `[]`");
        return None;
    };
    let mut keys: Vec<(Key, Spot)> = Vec::with_capacity(items.len());
    let mut seen = std::collections::HashMap::new();
    for (index, item) in items.iter().enumerate() {
        let at = at.item(index, item.mark);
        let Some((key, routes)) = one(item, &at, problems) else { continue };
        let first = *seen.entry(key.hash).or_insert(item.mark);
        if first != item.mark {
            let what = format!("this key is already at line {}, column {}", first.line, first.col);
            problems.error(&at, what, "a key belongs to one owner: take one of the two away");
        }
        keys.push((key, routes));
    }
    Some(keys)
}

fn one(item: &Node, at: &Spot, problems: &mut Problems) -> Option<(Key, Spot)> {
    // Not by the decoder's own words: they show what stands there, and that may be a key.
    if !matches!(item.value, Value::Map(_)) {
        problems.error(at, "this must be a mapping of `name`, `hash` and more", "write `- { name: ..., hash: ... }`");
        return None;
    }
    let written = file::Key::decode(item, at, problems)?;
    if !is_a_key_name(&written.name) {
        let help = "choose 1 to 300 visible letters; it is shown in logs, so it must not be a key";
        problems.error(&written.name.at, "this cannot be the name of a key's owner", help);
    }
    if let Some(plan) = written.plan.value.as_deref().filter(|plan| !is_a_key_name(plan)) {
        problems.error(&written.plan.at, format!("{plan:?} cannot be the name of a plan"), "choose visible letters");
    }
    let (not_before, expires) = (written.not_before.value.map(|time| time.0), written.expires.value.map(|time| time.0));
    if let (Some(from), Some(until)) = (not_before, expires)
        && until <= from
    {
        problems.error(&written.expires.at, "it ends before it begins", "give it a time after `not_before`");
    }
    let key = Key {
        id: written.id.value.as_deref().map(Into::into),
        hash: *written.hash,
        name: written.name.as_str().into(),
        plan: written.plan.value.as_deref().map(Into::into),
        limits: KeyLimits {
            routes: written.routes.iter().map(|route| route.value.as_str().into()).collect(),
            methods: written.methods.iter().map(|method| method.value.clone()).collect(),
            addresses: written.addresses.iter().map(|net| net.value.trunc()).collect(),
        },
        not_before,
        expires,
        revoked: None,
    };
    Some((key, written.routes.at.clone()))
}

/// Whether an owner or a plan can be called this. It goes into logs and header fields.
pub fn is_a_key_name(name: &str) -> bool {
    is_a_name(name) && name.trim() == name && !name.starts_with(PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "sha256:0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789abcdef";

    #[track_caller]
    fn refused(text: &str, parts: &[&str]) -> String {
        let said = parse_keys(text.as_bytes()).unwrap_err();
        for part in parts {
            assert!(said.contains(part), "{text}: {said}");
        }
        said
    }

    #[test]
    fn a_key_is_read_with_all_that_limits_it() {
        let text = format!(
            "- name: ci\n  hash: {HASH}\n  id: Zk3uT9aB\n  plan: gold\n  routes: [api, web]\n  methods: [GET]\n  \
             addresses: [10.1.2.3/8, \"2001:db8::1\"]\n  not_before: 2026-01-01T00:00:00Z\n  expires: 2026-02-01T01:00:00+01:00\n\
             - {{ name: plain, hash: \"{}\" }}\n",
            HASH.replace('0', "1"),
        );
        let keys = parse_keys(text.as_bytes()).unwrap();
        let [ci, plain] = &keys[..] else { panic!("{keys:?}") };
        assert_eq!((ci.id.as_deref(), ci.plan.as_deref(), &*ci.name), (Some("Zk3uT9aB"), Some("gold"), "ci"));
        assert_eq!(ci.hash.show(), HASH.to_lowercase());
        assert_eq!(ci.expires.unwrap().to_string(), "2026-02-01T00:00:00Z");
        assert_eq!(ci.limits.addresses[0].to_string(), "10.0.0.0/8");
        assert_eq!((&plain.limits, plain.expires, plain.plan.as_deref()), (&KeyLimits::default(), None, None));
        assert_eq!(parse_keys(b"[]"), Ok(Vec::new()));
    }

    #[test]
    fn what_is_wrong_is_told_at_once_and_with_its_place() {
        let text = format!(
            "- name: a\n  hash: {HASH}\n  expires: tomorrow\n- hash: {HASH}\n  name: \"\"\n- {{ name: b, hsh: {HASH} }}\n\
             - {{ name: d, hash: {}, not_before: 2026-01-02T00:00:00Z, expires: 2026-01-01T00:00:00Z }}\n",
            HASH.replace('0', "1"),
        );
        let parts = [
            "3:12: [0].expires",
            "5:9: [1].name",
            "6:14: [2].hsh: there is no such key",
            "already at line 1",
            "ends before",
        ];
        refused(&text, &parts);
        refused("", &["nothing in it"]);
        refused("name: a", &["a list of keys"]);
        refused("- a: &x 1\n", &["anchors"]);
        assert!(parse_keys(&[0xff, 0xfe]).unwrap_err().contains("UTF-8"));
        assert!(refused(&"- 1\n".repeat(9), &[]).ends_with("and 4 more"));
    }

    #[test]
    fn no_message_shows_what_may_be_a_key() {
        const SECRET: &str = "pck_Zk3uT9aB_hunter2hunter2hunter2hunter2";
        for text in [
            format!("- {SECRET}\n"),
            format!("- [{SECRET}]\n"),
            SECRET.to_owned(),
            format!("- {{ name: a, hash: {SECRET} }}\n"),
            format!("- {{ name: a, hash: sha256:{SECRET} }}\n"),
            format!("- {{ name: a, key: {SECRET} }}\n"),
            format!("- {{ name: {SECRET}, hash: {HASH} }}\n"),
        ] {
            let said = refused(&text, &[]);
            assert!(!said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn get_implies_head_and_an_empty_list_limits_nothing() {
        let get = KeyLimits { methods: vec![Method::GET], ..KeyLimits::default() };
        assert!(get.allow_method(&Method::HEAD) && !get.allow_method(&Method::POST));
        assert!(KeyLimits::default().allow_method(&Method::POST) && KeyLimits::default().allow_route("any"));
        let here = KeyLimits { addresses: vec!["10.0.0.0/8".parse().unwrap()], ..KeyLimits::default() };
        for (address, allowed) in [("10.1.1.1", true), ("::ffff:10.1.1.1", true), ("11.1.1.1", false)] {
            assert_eq!(here.allow_address(Some(address.parse().unwrap())), allowed, "{address}");
        }
        assert!(!here.allow_address(None) && KeyLimits::default().allow_address(None));
    }

    proptest::proptest! {
        #[test]
        fn no_file_makes_it_panic(bytes: Vec<u8>, text: String) {
            let _ = parse_keys(&bytes);
            let _ = parse_keys(text.as_bytes());
            let _ = KeyHash::parse(&text);
        }
    }
}
