//! What does a file say, key for key, with the defaults of what it leaves out? In words that may be shown to anybody.
//!
//! Taken before `${NAME}` is replaced, so that what comes from the environment never stands in it. What is a secret by
//! its type, or by the name of its field, is known but never shown. It knows nothing of our keys: each type of the
//! file's shape spells itself, so a new key is in here without a line of code.

use super::Secret;
use super::tree::{Kind, Node, Scalar, Value};

/// A file as it may be shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outline(pub(crate) Spelled);

/// A value as it was written, or would be written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Spelled {
    Text(String),
    Hidden(Secret),
    List(Vec<Spelled>),
    Map(Vec<Field>),
}

/// One key of a mapping.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Field {
    pub(crate) key: String,
    pub(crate) value: Spelled,
    /// Whether it stands in the file; else it is the default.
    pub(crate) written: bool,
}

/// Parts of names whose values nobody shall read: they are those of fields that carry credentials.
const TELLING: [&str; 8] = ["auth", "cookie", "credential", "key", "passw", "secret", "session", "token"];

impl Default for Spelled {
    fn default() -> Self {
        Self::Map(Vec::new())
    }
}

impl Outline {
    /// Puts the secret itself where the file may only name another file that holds it.
    pub(crate) fn with_secret(mut self, section: &str, key: &str, secret: Secret) -> Self {
        if let Some(field) = self.0.field_mut(section).and_then(|section| section.field_mut(key)) {
            *field = Spelled::Hidden(secret);
        }
        self
    }
}

impl Spelled {
    /// What stands there, without any default.
    pub(crate) fn of(node: &Node) -> Self {
        match &node.value {
            Value::Scalar(scalar) => Self::Text(words(scalar)),
            Value::List(items) => Self::List(items.iter().map(Self::of).collect()),
            Value::Map(entries) => {
                let field = |(key, node): (&String, &Node)| Field {
                    key: key.clone(),
                    value: Self::of(node).unless_telling(key),
                    written: true,
                };
                Self::Map(entries.iter().map(|entry| field((&entry.key, &entry.value))).collect())
            }
        }
    }

    /// Something that is never shown.
    pub(crate) fn hidden(node: &Node) -> Self {
        match &node.value {
            Value::Scalar(scalar) if scalar.kind() != Kind::Null => Self::Hidden(Secret::new(scalar.text.as_bytes())),
            Value::Scalar(_) | Value::List(_) | Value::Map(_) => Self::of(node),
        }
    }

    /// The value of a key that an operator has chosen, hidden if its name tells that nobody shall read it.
    pub(crate) fn unless_telling(self, key: &str) -> Self {
        let key = key.to_ascii_lowercase();
        match self {
            Self::Text(text) if TELLING.iter().any(|part| key.contains(part)) => {
                Self::Hidden(Secret::new(text.as_bytes()))
            }
            Self::Text(_) | Self::Hidden(_) | Self::List(_) | Self::Map(_) => self,
        }
    }

    /// The value of a key of a mapping.
    pub(crate) fn field(&self, key: &str) -> Option<&Self> {
        let Self::Map(fields) = self else { return None };
        fields.iter().find(|field| field.key == key).map(|field| &field.value)
    }

    /// The same, to change it.
    pub(crate) fn field_mut(&mut self, key: &str) -> Option<&mut Self> {
        let Self::Map(fields) = self else { return None };
        fields.iter_mut().find(|field| field.key == key).map(|field| &mut field.value)
    }
}

fn words(scalar: &Scalar) -> String {
    match scalar.kind() {
        Kind::Null => "none".to_owned(),
        Kind::Empty | Kind::Bool(_) | Kind::Number | Kind::Text => scalar.text.clone(),
    }
}
