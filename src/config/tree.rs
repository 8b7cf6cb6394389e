//! What does the YAML say, and where does it say it?
//!
//! Text becomes a tree of values with their places: YAML 1.2, core schema, one document. What could make a small file
//! a large or a deep one (anchors, aliases, tags, endless nesting) is refused, so a tree is never larger than its text.
//! It knows nothing of our keys.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use super::problem::{Problems, Spot};

/// Deeper than any key of ours lies; the decoder recurses.
const MAX_DEPTH: usize = 32;

/// A place in the text, counted from one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Mark {
    pub(crate) line: usize,
    pub(crate) col: usize,
}

impl Mark {
    fn of(marker: &Marker) -> Self {
        Self { line: marker.line().max(1), col: marker.col() + 1 }
    }
}

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) mark: Mark,
    pub(crate) value: Value,
}

/// What YAML 1.2's core schema knows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A value that is neither a list nor a mapping, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    /// Quoted and block scalars are always text; only a plain one can be a number, a boolean or null.
    pub(crate) plain: bool,
}

/// A key of a mapping with its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) mark: Mark,
    pub(crate) value: Node,
}

/// What a scalar is in the core schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing at all stands there.
    Empty,
    Null,
    Bool(bool),
    Number,
    Text,
}

impl Scalar {
    /// A plain one.
    pub(crate) fn plain(text: &str) -> Self {
        Self { text: text.to_owned(), plain: true }
    }

    /// What it is in the core schema (YAML 1.2.2, 10.3.2).
    pub(crate) fn kind(&self) -> Kind {
        if !self.plain {
            return Kind::Text;
        }
        match self.text.as_str() {
            "" => Kind::Empty,
            "~" | "null" | "Null" | "NULL" => Kind::Null,
            "true" | "True" | "TRUE" => Kind::Bool(true),
            "false" | "False" | "FALSE" => Kind::Bool(false),
            text if is_number(text) => Kind::Number,
            _ => Kind::Text,
        }
    }
}

fn is_number(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-']);
    let hex = digits.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let octal = digits.strip_prefix("0o").is_some_and(|rest| rest.bytes().all(|byte| matches!(byte, b'0'..=b'7')));
    let starts = digits.trim_start_matches('.').starts_with(|first: char| first.is_ascii_digit());
    hex || octal || (starts && digits.parse::<f64>().is_ok())
}

impl Node {
    /// What a default, written as in a file, stands for: a plain scalar, a list of these, or `{}`.
    pub(crate) fn of_default(text: &str, mark: Mark) -> Self {
        let value = match text {
            "[]" => Value::List(Vec::new()),
            "{}" => Value::Map(Vec::new()),
            list if list.starts_with('[') => {
                let items = list.trim_matches(['[', ']']).split(", ");
                Value::List(items.map(|item| Self::of_default(item, mark)).collect())
            }
            word => Value::Scalar(Scalar::plain(word)),
        };
        Self { mark, value }
    }

    /// Calls `change` with each scalar value, the place and the key of it; keys are left alone.
    pub(crate) fn each_scalar(&mut self, at: &Spot, change: &mut impl FnMut(&mut Scalar, &Spot)) {
        match &mut self.value {
            Value::Scalar(scalar) => change(scalar, at),
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    let spot = at.item(index, item.mark);
                    item.each_scalar(&spot, change);
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    let spot = at.child(&entry.key, entry.value.mark);
                    entry.value.each_scalar(&spot, change);
                }
            }
        }
    }
}

/// The tree of a text, or `None` after telling why there is none.
pub(crate) fn parse(text: &str, problems: &mut Problems) -> Option<Node> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text.trim_start_matches('\u{feff}')) {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                let (what, help) = explain(error.info(), text, error.marker());
                problems.error(&yaml(Mark::of(error.marker())), what, help);
                return None;
            }
        };
        let mark = Mark::of(&span.start);
        let empty = span.start.index() == span.end.index();
        if let Err(Refused { what, help }) = builder.take(event, mark, empty) {
            problems.error(&yaml(mark), what, help);
            return None;
        }
    }
    if builder.root.is_none() {
        problems.error(&Spot::root(Mark { line: 1, col: 1 }), "there is nothing in it", "start from conf/minimal.yaml");
    }
    let root = builder.root?;
    let spot = Spot::root(root.mark);
    refuse_doubles(&root, &spot, problems);
    Some(root)
}

fn yaml(mark: Mark) -> Spot {
    Spot { mark, key: "yaml".into() }
}

/// A syntax error in our words, with what usually causes it.
fn explain(info: &str, text: &str, marker: &Marker) -> (String, &'static str) {
    let line = text.lines().nth(marker.line().saturating_sub(1)).unwrap_or_default();
    let indent = line.len() - line.trim_start().len();
    if line[..indent].contains('\t') {
        return (
            "the line is indented with a tab".into(),
            "YAML is indented with spaces; replace the tab by two of them",
        );
    }
    if has_bare_variable(line) {
        return (
            format!("this is not YAML: {info}"),
            "quote what holds a variable: in a list in `[]` and a mapping in `{}`, YAML takes the `{` of `${NAME}` for its own",
        );
    }
    let help = "look at the indentation, the colons and the brackets of this line and the one above; \
                text that holds `: `, ` #` or begins with one of `[{*&!%@` needs quotes";
    (format!("this is not YAML: {info}"), help)
}

/// Whether `${` stands in this line outside of quotes.
fn has_bare_variable(line: &str) -> bool {
    let mut quote = None;
    let mut before = ' ';
    for c in line.chars() {
        match quote {
            None if c == '{' && before == '$' => return true,
            None if matches!(c, '"' | '\'') => quote = Some(c),
            Some(open) if c == open => quote = None,
            None | Some(_) => {}
        }
        before = c;
    }
    false
}

struct Refused {
    what: &'static str,
    help: &'static str,
}

/// Puts events together without recursion.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    documents: usize,
}

enum Open {
    List(Mark, Vec<Node>),
    /// A mapping, and the key whose value comes next.
    Map(Mark, Vec<Entry>, Option<(String, Mark)>),
}

impl Builder {
    fn take(&mut self, event: Event<'_>, mark: Mark, empty: bool) -> Result<(), Refused> {
        const ANCHOR: Refused = Refused {
            what: "anchors and aliases (`&name`, `*name`) are not part of this language",
            help: "write the value out where it is used; put a text that begins with `*` or `&` in quotes",
        };
        const TAG: Refused =
            Refused { what: "tags (`!name`) are not part of this language", help: "leave the tag out; quote a text" };
        match event {
            Event::Alias(_) => Err(ANCHOR),
            Event::Scalar(_, _, anchor, _) | Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _)
                if anchor > 0 =>
            {
                Err(ANCHOR)
            }
            Event::Scalar(_, _, _, Some(_)) | Event::SequenceStart(_, Some(_)) | Event::MappingStart(_, Some(_)) => {
                Err(TAG)
            }
            Event::Scalar(text, style, _, None) => {
                let plain = style == ScalarStyle::Plain;
                let text = if plain && empty { String::new() } else { text.into_owned() };
                self.put(Node { mark, value: Value::Scalar(Scalar { text, plain }) })
            }
            Event::SequenceStart(_, None) => self.push(Open::List(mark, Vec::new())),
            Event::MappingStart(_, None) => self.push(Open::Map(mark, Vec::new(), None)),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(mark, items)) => self.put(Node { mark, value: Value::List(items) }),
                Some(Open::Map(mark, entries, _)) => self.put(Node { mark, value: Value::Map(entries) }),
                None => Ok(()),
            },
            Event::DocumentStart(_) => self.begin_document(),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn begin_document(&mut self) -> Result<(), Refused> {
        self.documents += 1;
        if self.documents > 1 {
            return Err(Refused {
                what: "a second document begins here",
                help: "a configuration is one YAML document",
            });
        }
        Ok(())
    }

    fn push(&mut self, open: Open) -> Result<(), Refused> {
        if self.open.len() >= MAX_DEPTH {
            return Err(Refused { what: "this is nested too deeply", help: "no key of the language lies this deep" });
        }
        if matches!(self.open.last(), Some(Open::Map(_, _, None))) {
            return Err(Refused {
                what: "a list or a mapping cannot be a key",
                help: "`{` and `[` at the start of a text need quotes",
            });
        }
        self.open.push(open);
        Ok(())
    }

    fn put(&mut self, node: Node) -> Result<(), Refused> {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List(_, items)) => items.push(node),
            Some(Open::Map(_, entries, pending)) => match (pending.take(), node.value) {
                (Some((key, mark)), value) => entries.push(Entry { key, mark, value: Node { mark: node.mark, value } }),
                (None, Value::Scalar(scalar)) => *pending = Some((scalar.text, node.mark)),
                (None, Value::List(_) | Value::Map(_)) => {}
            },
        }
        Ok(())
    }
}

/// Tells each key that stands twice in one mapping, with both places.
fn refuse_doubles(node: &Node, at: &Spot, problems: &mut Problems) {
    match &node.value {
        Value::Scalar(_) => {}
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                refuse_doubles(item, &at.item(index, item.mark), problems);
            }
        }
        Value::Map(entries) => {
            let mut seen: HashMap<&str, Mark> = HashMap::new();
            for entry in entries {
                let spot = at.child(&entry.key, entry.mark);
                if let Some(first) = seen.insert(&entry.key, entry.mark) {
                    let what = format!("this key is already at line {}, column {}", first.line, first.col);
                    problems.error(&spot, what, "keep one of the two");
                }
                refuse_doubles(&entry.value, &spot, problems);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> (Option<Node>, Vec<String>) {
        let mut problems = Problems::of("f");
        let root = parse(text, &mut problems);
        (root, problems.into_parts().0.iter().map(|problem| problem.to_string()).collect())
    }

    fn kind(text: &str) -> Kind {
        Scalar::plain(text).kind()
    }

    #[test]
    fn places_count_from_one_and_in_characters() {
        let Some(Node { value: Value::Map(entries), .. }) = tree("a: 1\nb:\n  ü: [x, y]\n").0 else {
            panic!("a mapping")
        };
        let Value::Map(inner) = &entries[1].value.value else { panic!("a mapping") };
        assert_eq!(inner[0].mark, Mark { line: 3, col: 3 });
        let Value::List(items) = &inner[0].value.value else { panic!("a list") };
        assert_eq!(items[1].mark, Mark { line: 3, col: 10 });
    }

    #[test]
    fn plain_scalars_follow_the_core_schema_and_quoted_ones_are_text() {
        assert_eq!((kind("true"), kind("False"), kind("~")), (Kind::Bool(true), Kind::Bool(false), Kind::Null));
        for number in ["0", "-1", "1.5", "1e3", "0x1F", "0o17", ".5"] {
            assert_eq!(kind(number), Kind::Number, "{number}");
        }
        for text in ["yes", "10s", "1.2.3.4", "200-399", "inf", "nan", "-", "/*"] {
            assert_eq!(kind(text), Kind::Text, "{text}");
        }
        assert_eq!(Scalar { text: "1".into(), plain: false }.kind(), Kind::Text);
    }

    #[test]
    fn a_key_that_stands_twice_is_told_with_both_places() {
        let (_, problems) = tree("a:\n  - b: 1\n    c: 2\n    b: 3\n");
        assert!(problems[0].starts_with("f:4:5: a[0].b: this key is already at line 2, column 5"), "{problems:?}");
    }

    #[test]
    fn what_could_grow_beyond_its_text_is_refused() {
        for (text, word) in [("a: &x 1\nb: *x\n", "anchors"), ("a: !!str 1\n", "tags"), ("? [a]\n: 1\n", "key")] {
            let (root, problems) = tree(text);
            assert!(root.is_none() && problems[0].contains(word), "{text}: {problems:?}");
        }
        assert!(tree(&"[".repeat(100)).1[0].contains("nested too deeply"));
    }
}
