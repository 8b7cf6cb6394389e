//! What may a program build on? Everything that is promised, in a list that nobody changes by accident.
//!
//! The list is made of the sources, as they are formatted: types, functions and fields that are public and not hidden from the
//! documentation. What a line of it loses or changes breaks programs, so the version must say so; what it gains does not.

use std::fs;
use std::path::{Path, PathBuf};

/// Where what `lib.rs` shows is declared; all of a file, or these types of it.
const SOURCES: &[(&str, &[&str])] = &[
    ("src/lib.rs", &[]),
    ("src/program.rs", &[]),
    ("src/server/mod.rs", &["FrontDoor"]),
    ("src/config/mod.rs", &["Address"]),
    ("src/custom/mod.rs", &[]),
    ("src/custom/filter.rs", &[]),
    ("src/custom/policy.rs", &[]),
];

#[test]
fn what_programs_build_on_changes_on_purpose_only() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let sections = SOURCES.iter().map(|(file, only)| {
        let items = listing(&fs::read_to_string(root.join(file)).unwrap(), only);
        assert!(!items.is_empty(), "{file} shows nothing");
        format!("// {file}\n{}\n", items.join("\n"))
    });
    let found = sections.collect::<Vec<_>>().join("\n");
    golden(&root.join("tests/public_api.txt"), &found);
}

fn golden(kept: &Path, found: &str) {
    if std::env::var_os("BLESS").is_some() {
        fs::write(kept, found).unwrap();
    }
    assert_eq!(found, fs::read_to_string(kept).unwrap_or_default(), "a promise has changed; BLESS=1 writes it down");
}

#[test]
fn hidden_and_private_things_are_no_promise() {
    let text = "/// Seen.\n#[derive(Debug)]\npub struct Seen {\n    /// Yes.\n    pub yes: u8,\n    no: u8,\n}\n\n#[doc(hidden)]\n\
                pub struct Hidden;\n\nstruct Private;\n\npub struct Tuple(u8);\n\npub enum Choice {\n    /// One.\n    One(u8),\n    Two,\n}\n\nimpl Seen {\n    /// It.\n    pub fn shows(\n        &self,\n    ) -> u8 \
                {\n        self.yes\n    }\n\n    #[doc(hidden)]\n    pub fn hides(&self) {}\n\n    fn keeps(&self) {}\n}\n\n\
                impl Default for Hidden {}\nimpl Default for Seen {\n    fn default() -> Self {\n    }\n}\n\
                pub trait Step {\n    fn must(&self);\n    fn may(&self) {}\n}\n#[cfg(test)]\nmod tests {}\npub fn late() {}\n";
    let wanted = [
        "#[derive(Debug)] pub struct Seen",
        "    pub yes: u8,",
        "pub struct Tuple",
        "pub enum Choice",
        "    One(u8),",
        "    Two,",
        "impl Seen",
        "    pub fn shows( &self, ) -> u8",
        "impl Default for Seen",
        "pub trait Step",
        "    fn must(&self);",
        "    fn may(&self) { .. }",
    ];
    assert_eq!(listing(text, &[]), wanted);
}

/// Around what the members of the item stand.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Trait,
    Enum,
    Struct,
    Impl,
    Other,
}

fn listing(text: &str, only: &[&str]) -> Vec<String> {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let mut found: Vec<String> = Vec::new();
    let mut attributes: Vec<&str> = Vec::new();
    let mut around = None;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let code = line.trim();
        let indent = line.len() - line.trim_start().len();
        if code.starts_with("#[") {
            attributes.push(code);
            continue;
        }
        if indent > 4 || code.is_empty() || code.starts_with("//") || code.starts_with('}') {
            continue;
        }
        let hidden = attributes.contains(&"#[doc(hidden)]");
        let told = attributes.drain(..).filter(|it| !it.starts_with("#[doc")).collect::<Vec<_>>();
        let mut whole = [told, vec![code]].concat().join(" ");
        while !ends(&whole) {
            let Some(more) = lines.next() else { break };
            whole.push_str(&format!(" {}", more.trim()));
        }
        if indent == 0 {
            around = kind(code, &found, only).filter(|_| !hidden);
            let shown = around.is_some_and(|kind| kind != Kind::Impl || code.contains(" for "));
            if shown || around == Some(Kind::Impl) {
                found.push(without_secrets(whole.trim_end_matches('{').trim()).to_owned());
            }
        } else if let (Some(kind), false) = (around, hidden)
            && is_member(kind, code)
        {
            let (head, body) = whole.split_once(" {").map_or((&*whole, false), |(head, _)| (head, true));
            let body = if body && kind == Kind::Trait { " { .. }" } else { "" };
            found.push(format!("    {head}{body}"));
        }
    }
    // What only hidden things stand in is not shown either.
    let empty = |at: usize| found.get(at + 1).is_none_or(|next| !next.starts_with(' '));
    let inherent = |line: &str| line.starts_with("impl") && !line.contains(" for ");
    let kept = found.iter().enumerate().filter(|(at, line)| !(inherent(line) && empty(*at)));
    kept.map(|(_, line)| line.clone()).collect()
}

/// What stands in the parentheses of a struct is nobody's business, unless it is public.
fn without_secrets(head: &str) -> &str {
    let Some(named) = head.find("pub struct ") else { return head };
    match head[named..].find('(') {
        Some(at) if !head[named + at..].contains("pub ") => &head[..named + at],
        Some(_) | None => head,
    }
}

/// Whether a declaration is over, or its body begins.
fn ends(code: &str) -> bool {
    code.ends_with(['{', ';', '}']) || (code.ends_with(',') && !code.contains("fn "))
}

/// What an item is, if it is public and asked for.
fn kind(code: &str, found: &[String], only: &[&str]) -> Option<Kind> {
    let named = |name: &str| only.is_empty() || only.contains(&name);
    if let Some(rest) = code.strip_prefix("pub ") {
        let mut words = rest.split(|it: char| !it.is_alphanumeric() && it != '_');
        let kind = match words.next() {
            Some("trait") => Kind::Trait,
            Some("enum") => Kind::Enum,
            Some("struct") => Kind::Struct,
            Some(_) | None => Kind::Other,
        };
        return words.next().is_some_and(named).then_some(kind);
    }
    // Of a type that is shown.
    let of = code.strip_prefix("impl")?.trim_end_matches('{').trim();
    let of = of.rsplit(" for ").next()?.split_whitespace().last()?.split('<').next()?;
    let is_shown = |line: &String| {
        let mut words = line.split(|it: char| !it.is_alphanumeric() && it != '_').skip_while(|it| *it != "pub");
        words.nth(2) == Some(of)
    };
    found.iter().any(is_shown).then_some(Kind::Impl)
}

fn is_member(kind: Kind, code: &str) -> bool {
    match kind {
        Kind::Trait | Kind::Enum => true,
        Kind::Struct | Kind::Impl => code.starts_with("pub ") && !code.starts_with("pub("),
        Kind::Other => false,
    }
}
