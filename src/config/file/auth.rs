//! What may be written about who may come in? The shape of a route's `auth`.

use serde_json::{Value as Json, json};

use super::decode::{Decode, Map, refuse, scalar};
use super::leaves::FilePath;
use super::section::section;
use crate::config::Attribute;
use crate::config::problem::{Problems, Spot, suggest};
use crate::config::tree::Node;

section! {
    /// What is asked of those who come in.
    Auth {
        /// A file of names and passwords, as `htpasswd -B` writes it: bcrypt or argon2. It is read again when it changes.
        basic: Option<FilePath> = "null",
        /// Whether the backend sees the credentials too.
        keep: bool = "false",
        /// What the backend is told of whoever came in: `name`. A client's own fields of these names never arrive.
        headers: Map<Attribute> = "{}",
    }
    later { api_keys, query, jwt }
}

impl Decode for Attribute {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let (wanted, help) = ("`name`", "write for example { X-User: name }");
        match scalar(node, at, wanted, help, problems)?.text.as_str() {
            "name" => Some(Self::Name),
            word => refuse(node, at, wanted, &suggest(word, "values", ["name"]), problems),
        }
    }

    fn schema() -> Json {
        json!({ "enum": ["name"] })
    }
}
