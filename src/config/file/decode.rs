//! How does a piece of the tree become a value of one type, with all of its problems gathered?
//!
//! Here are the trait and the general types: text, numbers, booleans, options, lists and mappings with free keys.

use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};
use std::ops::Deref;

use serde_json::{Value as Json, json};

use crate::config::outline::{Field, Spelled};
use crate::config::problem::{Problems, Spot};
use crate::config::tree::{Entry, Kind, Node, Scalar, Value};

/// A type that the file can hold.
pub(crate) trait Decode: Sized {
    /// The value, or `None` after telling at least one problem.
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self>;

    /// What stands there, in words that may be shown.
    fn spell(node: &Node) -> Spelled {
        Spelled::of(node)
    }

    /// Its JSON Schema.
    fn schema() -> Json;

    /// Adds the keys below it, each with this prefix.
    fn keys(_prefix: &str, _keys: &mut Vec<String>) {}
}

/// A value, where it stands, and whether it was written or is the default.
#[derive(Clone, Debug)]
pub(crate) struct Marked<T> {
    pub(crate) value: T,
    pub(crate) at: Spot,
    pub(crate) written: bool,
}

impl<T> Deref for Marked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// A mapping whose keys the operator chooses. A value that could not be decoded leaves its key here, so that what
/// refers to it is not called wrong too.
#[derive(Clone, Debug)]
pub(crate) struct Map<T>(pub(crate) Vec<Named<T>>);

/// An entry of a [`Map`].
#[derive(Clone, Debug)]
pub(crate) struct Named<T> {
    pub(crate) name: String,
    /// Where the key stands.
    pub(crate) at: Spot,
    pub(crate) value: Option<T>,
}

/// What stands there, for the sentence "not ...".
pub(crate) fn describe(node: &Node) -> String {
    match &node.value {
        Value::List(_) => "a list".into(),
        Value::Map(_) => "a mapping".into(),
        Value::Scalar(scalar) => match scalar.kind() {
            Kind::Empty => "nothing".into(),
            Kind::Null | Kind::Bool(_) | Kind::Number | Kind::Text if scalar.plain => {
                format!("`{}`", shorten(&scalar.text))
            }
            Kind::Null | Kind::Bool(_) | Kind::Number | Kind::Text => format!("the text \"{}\"", shorten(&scalar.text)),
        },
    }
}

/// The scalar that stands there as it was written, for the search for what was meant.
pub(crate) fn written(node: &Node) -> &str {
    if let Value::Scalar(scalar) = &node.value { &scalar.text } else { "" }
}

/// The beginning of a text that may be long, for a message.
pub(crate) fn shorten(text: &str) -> String {
    const SHOWN: usize = 60;
    let one_line = text.lines().next().unwrap_or_default();
    if one_line.len() == text.len() && text.chars().count() <= SHOWN {
        return text.to_owned();
    }
    one_line.chars().take(SHOWN).chain("...".chars()).collect()
}

/// A value of this form was wanted, and something else stands there.
pub(crate) fn refuse<T>(node: &Node, at: &Spot, wanted: &str, help: &str, problems: &mut Problems) -> Option<T> {
    problems.error(at, format!("this must be {wanted}, not {}", describe(node)), help);
    None
}

/// The scalar that stands here, or a problem. Lists, mappings, nothing and words that are booleans elsewhere are none.
pub(crate) fn scalar<'a>(
    node: &'a Node,
    at: &Spot,
    wanted: &str,
    help: &str,
    problems: &mut Problems,
) -> Option<&'a Scalar> {
    let Value::Scalar(scalar) = &node.value else { return refuse(node, at, wanted, help, problems) };
    if scalar.plain && is_old_boolean(&scalar.text) {
        let what = format!("`{}` is a boolean to some YAML tools and a text to others", scalar.text);
        problems.error(at, what, format!("it is neither here; this must be {wanted}, and for text put it in quotes"));
        return None;
    }
    match scalar.kind() {
        Kind::Empty | Kind::Null => refuse(node, at, wanted, help, problems),
        Kind::Bool(_) | Kind::Number | Kind::Text => Some(scalar),
    }
}

/// YAML 1.1 read these as booleans; many tools still do.
pub(crate) fn is_old_boolean(text: &str) -> bool {
    ["on", "off", "yes", "no"].iter().any(|word| text.eq_ignore_ascii_case(word))
}

impl Decode for String {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let scalar = scalar(node, at, "text", "write a text", problems)?;
        match scalar.kind() {
            Kind::Text => Some(scalar.text.clone()),
            Kind::Empty | Kind::Null | Kind::Bool(_) | Kind::Number => {
                let help = format!("put it in quotes if that text is meant: \"{}\"", scalar.text);
                refuse(node, at, "text", &help, problems)
            }
        }
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

impl Decode for bool {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let help = "write `true` or `false`, without quotes";
        if let Kind::Bool(value) = scalar(node, at, "`true` or `false`", help, problems)?.kind() {
            return Some(value);
        }
        refuse(node, at, "`true` or `false`", help, problems)
    }

    fn schema() -> Json {
        json!({ "type": "boolean" })
    }
}

macro_rules! numbers {
    ($($type:ty: $least:literal to $most:expr),* $(,)?) => { $(
        impl Decode for $type {
            fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
                let wanted = format!("a whole number from {} to {}", $least, $most);
                let help = "write it in digits, without a unit and without quotes";
                let scalar = scalar(node, at, &wanted, help, problems)?;
                let digits = scalar.kind() == Kind::Number && scalar.text.bytes().all(|byte| byte.is_ascii_digit());
                match scalar.text.parse() {
                    Ok(number) if digits => Some(number),
                    Ok(_) | Err(_) => refuse(node, at, &wanted, help, problems),
                }
            }

            fn schema() -> Json {
                json!({ "type": "integer", "minimum": $least, "maximum": u64::from($most) })
            }
        }
    )* };
}

// The upper ends keep sums and products of two settings far from overflow.
numbers! {
    u16: 0 to u16::MAX,
    u32: 0 to u32::MAX,
    NonZeroU16: 1 to u16::MAX,
    NonZeroU32: 1 to u32::MAX,
}

impl Decode for NonZeroUsize {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let number = NonZeroU32::decode(node, at, problems)?;
        NonZeroUsize::try_from(number).ok()
    }

    fn schema() -> Json {
        NonZeroU32::schema()
    }
}

impl<T: Decode> Decode for Option<T> {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        if let Value::Scalar(scalar) = &node.value
            && (scalar.kind() == Kind::Null || (scalar.plain && scalar.text == "none"))
        {
            return Some(None);
        }
        T::decode(node, at, problems).map(Some)
    }

    fn spell(node: &Node) -> Spelled {
        match &node.value {
            Value::Scalar(scalar) if scalar.kind() == Kind::Null || (scalar.plain && scalar.text == "none") => {
                Spelled::Text("none".to_owned())
            }
            Value::Scalar(_) | Value::List(_) | Value::Map(_) => T::spell(node),
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [T::schema(), { "type": "null" }, { "const": "none" }] })
    }

    fn keys(prefix: &str, keys: &mut Vec<String>) {
        T::keys(prefix, keys);
    }
}

impl<T: Decode> Decode for Vec<Marked<T>> {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let Value::List(items) = &node.value else {
            let one = if let Value::Scalar(scalar) = &node.value { shorten(&scalar.text) } else { "...".into() };
            let help = format!("write a list, even of one: `[{one}]`");
            return refuse(node, at, "a list", &help, problems);
        };
        let spots = items.iter().enumerate().map(|(index, item)| (at.item(index, item.mark), item));
        let decode = |(at, item): (Spot, &Node)| {
            let value = T::decode(item, &at, problems)?;
            Some(Marked { value, at, written: true })
        };
        Some(spots.filter_map(decode).collect())
    }

    fn spell(node: &Node) -> Spelled {
        if let Value::List(items) = &node.value {
            return Spelled::List(items.iter().map(T::spell).collect());
        }
        Spelled::of(node)
    }

    fn schema() -> Json {
        json!({ "type": "array", "items": T::schema() })
    }

    fn keys(prefix: &str, keys: &mut Vec<String>) {
        T::keys(&format!("{prefix}[]"), keys);
    }
}

impl<T: Decode> Decode for Map<T> {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            return refuse(node, at, "a mapping of names", "write `name: value` lines below it", problems);
        };
        let mut named = Vec::new();
        for entry in entries {
            let key = at.child(&entry.key, entry.mark);
            if is_old_boolean(&entry.key) {
                problems.error(&key, format!("`{}` is a boolean to some YAML tools", entry.key), "choose another name");
            }
            let value = T::decode(&entry.value, &at.child(&entry.key, entry.value.mark), problems);
            named.push(Named { name: entry.key.clone(), at: key, value });
        }
        Some(Self(named))
    }

    fn spell(node: &Node) -> Spelled {
        let Value::Map(entries) = &node.value else { return Spelled::of(node) };
        let field = |entry: &Entry| Field {
            key: entry.key.clone(),
            value: T::spell(&entry.value).unless_telling(&entry.key),
            written: true,
        };
        Spelled::Map(entries.iter().map(field).collect())
    }

    fn schema() -> Json {
        json!({ "type": "object", "additionalProperties": T::schema() })
    }

    fn keys(prefix: &str, keys: &mut Vec<String>) {
        T::keys(&format!("{prefix}.NAME"), keys);
    }
}
