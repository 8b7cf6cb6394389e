//! What may be written about API keys? The shape of `keys`, and of a file of keys.

use jiff::Timestamp;
use serde_json::{Value as Json, json};

use super::decode::{Decode, Marked, refuse, scalar, written};
use super::leaves::{FilePath, Timeout};
use super::section::section;
use crate::config::outline::Spelled;
use crate::config::problem::{Problems, Spot, suggest};
use crate::config::tree::Node;
use crate::config::{KeyHash, OnStoreError};
use http::Method;
use ipnet::IpNet;

section! {
    /// Where API keys are kept: one of `file` and `sqlite`.
    KeyStore {
        /// A YAML list of keys, which is read again when it changes.
        file: Option<FilePath> = "null",
        /// A database that `portcullis keys` changes while we run.
        sqlite: Option<FilePath> = "null",
        /// With `sqlite`: who comes in as long as it has never been read: nobody (`deny`), or everybody, without a key
        /// (`allow`).
        on_store_error: OnStoreError = "deny",
        /// With `sqlite` and `deny`: how long the keys that were read last are good while it cannot be read. `none`: for ever.
        stale_for: Option<Timeout> = "1h",
    }
    later {}
}

section! {
    /// A key in a file of keys.
    Key {
        /// Whose it is.
        name: String,
        /// The SHA-256 of the whole key: `sha256:` and 64 hexadecimal digits.
        hash: KeyHash,
        /// The part of a key between the first `_` and the second, by which it is named.
        id: Option<String> = "null",
        /// What its owner pays for.
        plan: Option<String> = "null",
        /// The names of the routes that it opens; left out it opens all.
        routes: Vec<Marked<String>> = "[]",
        /// The methods that it opens; GET implies HEAD.
        methods: Vec<Marked<Method>> = "[]",
        /// The networks that it opens from.
        addresses: Vec<Marked<IpNet>> = "[]",
        /// It does not open before this time.
        not_before: Option<Time> = "null",
        /// It does not open from this time on.
        expires: Option<Time> = "null",
    }
    later {}
}

/// A moment, as RFC 3339 writes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time(pub(crate) Timestamp);

impl Decode for Time {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let (wanted, help) = ("a time", "write it with its zone: 2027-01-31T12:00:00Z, 2027-01-31T13:00:00+01:00");
        let text = &scalar(node, at, wanted, help, problems)?.text;
        text.parse().ok().map(Self).or_else(|| refuse(node, at, wanted, help, problems))
    }

    fn schema() -> Json {
        json!({ "type": "string", "format": "date-time" })
    }
}

impl Decode for KeyHash {
    /// What stands there is never shown: it may be the key itself.
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let hash = Self::parse(written(node));
        if hash.is_none() {
            let help = "`portcullis keys new --hash-only` makes a key and its hash; \
                        `printf %s KEY | sha256sum` gives the digits for one that you have";
            problems.error(at, "this must be `sha256:` and 64 hexadecimal digits", help);
        }
        hash
    }

    fn spell(node: &Node) -> Spelled {
        Spelled::hidden(node)
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^sha256:[0-9a-fA-F]{64}$" })
    }
}

impl Decode for OnStoreError {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let (wanted, words) = ("`deny` or `allow`", ["deny", "allow"]);
        match scalar(node, at, wanted, "`deny` lets nobody in", problems)?.text.as_str() {
            "deny" => Some(Self::Deny),
            "allow" => Some(Self::Allow),
            word => refuse(node, at, wanted, &suggest(word, "values", words), problems),
        }
    }

    fn schema() -> Json {
        json!({ "enum": ["deny", "allow"] })
    }
}
