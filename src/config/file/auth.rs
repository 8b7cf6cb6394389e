//! What may be written about who may come in? The shape of a route's `auth`.

use serde_json::{Value as Json, json};

use super::decode::{Decode, Map, refuse, scalar};
use super::jwt::Jwt;
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
        /// A signed token.
        jwt: Option<Jwt> = "null",
        /// Whether the backend sees the credentials too; left out it sees tokens alone.
        keep: Option<bool> = "null",
        /// What the backend is told of whoever came in: `name`, `plan`, or `claim:NAME` of a token. A client's own fields of these names never arrive.
        headers: Map<Attribute> = "{}",
    }
    later {}
}

/// What stands before the name of a claim.
const CLAIM: &str = "claim:";

impl Decode for Attribute {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let wanted = "`name`, `plan` or `claim:NAME`";
        let help = "write for example { X-User: name, X-Org: claim:org }";
        match scalar(node, at, wanted, help, problems)?.text.as_str() {
            "name" => Some(Self::Name),
            "plan" => Some(Self::Plan),
            word if word.len() > CLAIM.len() && word.starts_with(CLAIM) => {
                Some(Self::Claim(word[CLAIM.len()..].to_owned()))
            }
            word => refuse(node, at, wanted, &suggest(word, "values", ["name", "plan", "claim:NAME"]), problems),
        }
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^(name|plan|claim:.+|\\$\\{.*)$" })
    }
}
