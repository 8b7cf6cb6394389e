//! What may be written about things that a program brings: `NAME`, or `{ NAME: { its settings } }`.

use serde_json::{Map as Object, Value as Json, json};

use super::decode::{Decode, refuse, scalar};
use crate::config::problem::{Problems, Spot};
use crate::config::tree::{Kind, Node, Scalar, Value};
use crate::custom::Settings;

/// A name, and the settings that go with it.
#[derive(Clone, Debug)]
pub(crate) struct Brought {
    pub(crate) name: String,
    pub(crate) settings: Settings,
}

impl Decode for Brought {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let help = "write its name, or `{ NAME: { ... } }` with its settings";
        match &node.value {
            Value::Map(entries) => match &entries[..] {
                [only] if matches!(only.value.value, Value::Map(_)) => {
                    Some(Self { name: only.key.clone(), settings: Settings::new(json(&only.value)) })
                }
                _ => refuse(node, at, "one name, with a mapping of its settings", help, problems),
            },
            Value::Scalar(_) | Value::List(_) => {
                let name = scalar(node, at, "a name", help, problems)?.text.clone();
                Some(Self { name, settings: Settings::none() })
            }
        }
    }

    fn schema() -> Json {
        let settings = json!({ "type": "object" });
        let named =
            json!({ "type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": settings });
        json!({ "anyOf": [{ "type": "string" }, named] })
    }
}

/// What YAML's core schema makes of it, as JSON.
fn json(node: &Node) -> Json {
    match &node.value {
        Value::Scalar(scalar) => of_scalar(scalar),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(entries) => {
            Json::Object(entries.iter().map(|entry| (entry.key.clone(), json(&entry.value))).collect::<Object<_, _>>())
        }
    }
}

fn of_scalar(scalar: &Scalar) -> Json {
    match scalar.kind() {
        Kind::Empty | Kind::Null => Json::Null,
        Kind::Bool(value) => Json::Bool(value),
        // What JSON cannot write, such as `0x1f`, stays as it was written.
        Kind::Number => serde_json::from_str(&scalar.text).unwrap_or_else(|_| Json::String(scalar.text.clone())),
        Kind::Text => Json::String(scalar.text.clone()),
    }
}
