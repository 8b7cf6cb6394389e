//! What may be written about pages for errors? The shape of a route's `errors`.

use serde_json::{Value as Json, json};

use super::decode::{Decode, Marked};
use super::leaves::FilePath;
use crate::config::problem::{Problems, Spot};
use crate::config::tree::{Kind, Node, Value};

/// What may stand behind a key of `errors`.
#[derive(Clone, Debug)]
pub(crate) enum ErrorEntry {
    /// The page for a status, in one form or several.
    Pages(Vec<Marked<FilePath>>),
    /// Whether something is done.
    Switch(bool),
}

impl Decode for ErrorEntry {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        match &node.value {
            Value::Scalar(scalar) => match scalar.kind() {
                Kind::Bool(switch) => Some(Self::Switch(switch)),
                Kind::Empty | Kind::Null | Kind::Number | Kind::Text => {
                    let value = FilePath::decode(node, at, problems)?;
                    Some(Self::Pages(vec![Marked { value, at: at.clone(), written: true }]))
                }
            },
            Value::List(_) | Value::Map(_) => Vec::decode(node, at, problems).map(Self::Pages),
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }, { "type": "boolean" }] })
    }
}
