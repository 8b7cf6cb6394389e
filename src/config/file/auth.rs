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
        /// The store in `keys` whose keys open the route: in `X-API-Key`, or in `Authorization: Bearer`.
        api_keys: Option<String> = "null",
        /// With `api_keys`: a query parameter that may hold the key too. It is taken out before anything else is done.
        query: Option<String> = "null",
        /// Whether the backend sees the credentials too.
        keep: bool = "false",
        /// What the backend is told of whoever came in: `name`, `plan`. A client's own fields of these names never arrive.
        headers: Map<Attribute> = "{}",
    }
    later { jwt }
}

impl Decode for Attribute {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let (wanted, help) = ("`name` or `plan`", "write for example { X-User: name, X-Plan: plan }");
        match scalar(node, at, wanted, help, problems)?.text.as_str() {
            "name" => Some(Self::Name),
            "plan" => Some(Self::Plan),
            word => refuse(node, at, wanted, &suggest(word, "values", ["name", "plan"]), problems),
        }
    }

    fn schema() -> Json {
        json!({ "enum": ["name", "plan"] })
    }
}
