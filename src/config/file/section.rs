//! How does one declaration become a struct, a decoder, a schema and a list of keys?
//!
//! The decoder of a section never stops at its first problem: every field is tried, and what is not a key is told.

use serde_json::{Value as Json, json};

use super::decode::{Decode, Marked, refuse, scalar};
use crate::config::outline::Field;
use crate::config::problem::{Problems, Spot, closest};
use crate::config::tree::{Entry, Kind, Mark, Node, Value};

/// Declares a section: `key: Type = "default as it would be written"`, with the manual's words as docs. A key without
/// a default must be there. `later` names keys that the language has but this version does not.
macro_rules! section {
    (
        $(#[doc = $about:literal])*
        $name:ident {
            $( $(#[doc = $doc:literal])* $key:ident : $type:ty $(= $default:literal)? ),* $(,)?
        }
        later { $($later:ident),* }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug)]
        pub(crate) struct $name {
            $( $(#[doc = $doc])* pub(crate) $key: $crate::config::file::decode::Marked<$type>, )*
        }

        impl $crate::config::file::decode::Decode for $name {
            fn decode(
                node: &$crate::config::tree::Node,
                at: &$crate::config::problem::Spot,
                problems: &mut $crate::config::problem::Problems,
            ) -> Option<Self> {
                const KEYS: &[&str] = &[$(stringify!($key)),*];
                const LATER: &[&str] = &[$(stringify!($later)),*];
                let fields = $crate::config::file::section::Fields::open(node, at, problems)?;
                fields.refuse_others(KEYS, LATER, problems);
                // Every field is decoded before the first that is missing ends it.
                $( let $key = fields.take::<$type>(stringify!($key), [$($default)?].first().copied(), problems); )*
                Some(Self { $( $key: $key? ),* })
            }

            fn spell(node: &$crate::config::tree::Node) -> $crate::config::outline::Spelled {
                $crate::config::outline::Spelled::Map(vec![$(
                    $crate::config::file::section::spell::<$type>(
                        node, stringify!($key), [$($default)?].first().copied(),
                    )
                ),*].into_iter().flatten().collect())
            }

            fn schema() -> serde_json::Value {
                let mut section = $crate::config::file::section::SectionSchema::new();
                $( section.add::<$type>(stringify!($key), &[$($doc),*], [$($default)?].first().copied()); )*
                section.finish()
            }

            fn keys(prefix: &str, keys: &mut Vec<String>) {
                $(
                    let key = $crate::config::file::section::dotted(prefix, stringify!($key));
                    keys.push(key.clone());
                    <$type as $crate::config::file::decode::Decode>::keys(&key, keys);
                )*
            }
        }
    };
}
pub(crate) use section;

/// The entries of a section that is being decoded.
pub(crate) struct Fields<'a> {
    entries: &'a [Entry],
    at: &'a Spot,
    mark: Mark,
}

impl<'a> Fields<'a> {
    /// The entries of a mapping; anything else is a problem.
    pub(crate) fn open(node: &'a Node, at: &'a Spot, problems: &mut Problems) -> Option<Self> {
        if let Value::Map(entries) = &node.value {
            return Some(Self { entries, at, mark: node.mark });
        }
        if let Value::Scalar(_) = node.value {
            scalar(
                node,
                at,
                "a mapping of keys, or `none` where it may be left out",
                "write `key: value` lines",
                problems,
            )?;
        }
        refuse(node, at, "a mapping of keys", "write `key: value` lines below it", problems)
    }

    /// Tells each entry that is none of `keys`.
    pub(crate) fn refuse_others(&self, keys: &[&str], later: &[&str], problems: &mut Problems) {
        for entry in self.entries {
            let spot = self.at.child(&entry.key, entry.mark);
            if keys.iter().any(|key| yaml_key(key) == entry.key) {
                continue;
            }
            if later.contains(&entry.key.as_str()) {
                problems.error(
                    &spot,
                    "this key is not supported yet",
                    "leave it out; its feature is still to be built",
                );
                continue;
            }
            let known: Vec<&str> = keys.iter().map(|key| yaml_key(key)).collect();
            let help = match closest(&entry.key, known.iter().copied().chain(later.iter().copied())) {
                Some(near) => {
                    problems.was_meant(&self.at.child(near, entry.mark));
                    format!("did you mean `{near}`? the keys here are {}", known.join(", "))
                }
                None => format!("the keys here are {}", known.join(", ")),
            };
            problems.error(&spot, "there is no such key", help);
        }
    }

    /// The value of a key, or its default if it is left out or cannot be decoded.
    pub(crate) fn take<T: Decode>(
        &self,
        key: &str,
        default: Option<&str>,
        problems: &mut Problems,
    ) -> Option<Marked<T>> {
        let key = yaml_key(key);
        let entry = self.entries.iter().find(|entry| entry.key == key);
        let at = self.at.child(key, entry.map_or(self.mark, |entry| entry.value.mark));
        if let Some(entry) = entry {
            if is_empty(&entry.value) {
                let help = "give it a value or leave the key out; `none` means that it is not used";
                problems.error(&self.at.child(key, entry.mark), "this key has no value", help);
            } else if let Some(value) = T::decode(&entry.value, &at, problems) {
                return Some(Marked { value, at, written: true });
            }
        }
        let Some(default) = default else {
            if entry.is_none() && !problems.speak_of(&at.key) {
                problems.error(&at, "this key is missing", format!("add `{key}:`; it has no default"));
            }
            return None;
        };
        // The problem of a value that could not be decoded is told; the default lets the checks that follow go on.
        let value = T::decode(&default_node(default, at.mark), &at, problems)?;
        Some(Marked { value, at, written: false })
    }
}

/// A key of a section with its value, or its default; `None` if it has neither.
pub(crate) fn spell<T: Decode>(node: &Node, key: &str, default: Option<&str>) -> Option<Field> {
    let key = yaml_key(key);
    let entries = if let Value::Map(entries) = &node.value { entries.as_slice() } else { &[] };
    let entry = entries.iter().find(|entry| entry.key == key);
    let value = match entry {
        Some(entry) => T::spell(&entry.value),
        None => T::spell(&default_node(default?, node.mark)),
    };
    Some(Field { key: key.to_owned(), value, written: entry.is_some() })
}

fn is_empty(node: &Node) -> bool {
    if let Value::Scalar(scalar) = &node.value { scalar.kind() == Kind::Empty } else { false }
}

fn default_node(text: &str, mark: Mark) -> Node {
    let mut node = Node::of_default(text.trim_matches('"'), mark);
    if let (true, Value::Scalar(scalar)) = (text.starts_with('"'), &mut node.value) {
        scalar.plain = false;
    }
    node
}

/// `match` is a word of Rust's: the field is called `r#match`.
fn yaml_key(field: &str) -> &str {
    field.strip_prefix("r#").unwrap_or(field)
}

/// A key below a prefix, which may be empty.
pub(crate) fn dotted(prefix: &str, field: &str) -> String {
    let key = yaml_key(field);
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}

/// The JSON Schema of a section while it is put together.
pub(crate) struct SectionSchema {
    properties: serde_json::Map<String, Json>,
    required: Vec<String>,
}

impl SectionSchema {
    /// Without a key.
    pub(crate) fn new() -> Self {
        Self { properties: serde_json::Map::new(), required: Vec::new() }
    }

    /// One more key.
    pub(crate) fn add<T: Decode>(&mut self, field: &str, doc: &[&str], default: Option<&str>) {
        let key = yaml_key(field).to_owned();
        let mut schema = T::schema();
        if let Some(object) = schema.as_object_mut() {
            let words: Vec<&str> = doc.iter().map(|line| line.trim()).collect();
            object.insert("description".into(), words.join(" ").into());
            if let Some(default) = default {
                object.insert("default".into(), default_json(default));
            }
        }
        if default.is_none() {
            self.required.push(key.clone());
        }
        self.properties.insert(key, schema);
    }

    /// The finished schema, which allows no other key.
    pub(crate) fn finish(self) -> Json {
        let mut schema = json!({ "type": "object", "additionalProperties": false, "properties": self.properties });
        if !self.required.is_empty() {
            schema["required"] = self.required.into();
        }
        schema
    }
}

/// A default is JSON, except for words that need no quotes in YAML, alone or in a list.
fn default_json(text: &str) -> Json {
    if let Some(items) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).filter(|text| !text.is_empty())
    {
        return items.split(", ").map(default_json).collect();
    }
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}
