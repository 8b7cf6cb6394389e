//! What is wrong with the configuration, where, and what can the operator do about it?
//!
//! Every problem has a place, the key it is about, and a line of help; the words are the program's voice at its worst
//! moment. Nothing here decides what is wrong: it only gathers.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use super::tree::Mark;

/// One thing that is wrong, or that is likely to be a mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where in the file.
    pub place: Place,
    /// The key it is about, such as `routes[2].upstream`.
    pub key: String,
    /// What is wrong, in one sentence.
    pub what: String,
    /// What to do about it.
    pub help: String,
    /// Whether the file can be used all the same.
    pub severity: Severity,
}

/// A place in a file; line and column count from one, and are 0 for a file that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file as the operator named it.
    pub file: Arc<str>,
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub col: usize,
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, but it probably does not do what its author wants.
    Warning,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let warning = match self.severity {
            Severity::Error => "",
            Severity::Warning => "warning: ",
        };
        let Self { place: Place { file, line, col }, key, what, help, .. } = self;
        match line {
            0 => write!(out, "{file}: {warning}{what}")?,
            _ => write!(out, "{file}:{line}:{col}: {key}: {warning}{what}")?,
        }
        write!(out, "\n  help: {help}")
    }
}

/// A key and where it stands: what a problem is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) mark: Mark,
    pub(crate) key: Arc<str>,
}

impl Spot {
    /// The whole file.
    pub(crate) fn root(mark: Mark) -> Self {
        Self { mark, key: "".into() }
    }

    /// A key of the mapping that stands here.
    pub(crate) fn child(&self, key: &str, mark: Mark) -> Self {
        let key = if self.key.is_empty() { key.into() } else { format!("{}.{key}", self.key).into() };
        Self { mark, key }
    }

    /// An item of the list that stands here.
    pub(crate) fn item(&self, index: usize, mark: Mark) -> Self {
        Self { mark, key: format!("{}[{index}]", self.key).into() }
    }
}

/// Gathers problems while the file is read, so that all of them are told at once.
#[derive(Debug)]
pub(crate) struct Problems {
    file: Arc<str>,
    list: Vec<Problem>,
    /// Keys that were misspelt: they count as spoken of.
    meant: Vec<String>,
    /// Values that stand in for what could not be known.
    silent: HashSet<Mark>,
}

impl Problems {
    /// None yet, for the file of this name.
    pub(crate) fn of(file: &str) -> Self {
        Self { file: file.into(), list: Vec::new(), meant: Vec::new(), silent: HashSet::new() }
    }

    /// The file cannot be used.
    pub(crate) fn error(&mut self, at: &Spot, what: impl Into<String>, help: impl Into<String>) {
        self.add(at, what.into(), help.into(), Severity::Error);
    }

    /// The file can be used, but hardly as it was meant.
    pub(crate) fn warning(&mut self, at: &Spot, what: impl Into<String>, help: impl Into<String>) {
        self.add(at, what.into(), help.into(), Severity::Warning);
    }

    /// An unknown key was probably meant to be this one, so that it is missing is not worth saying.
    pub(crate) fn was_meant(&mut self, at: &Spot) {
        self.meant.push(at.key.to_string());
    }

    /// What is said about this value from now on would only follow from what was said already.
    pub(crate) fn silence(&mut self, at: &Spot) {
        self.silent.insert(at.mark);
    }

    fn add(&mut self, at: &Spot, what: String, help: String, severity: Severity) {
        if self.silent.contains(&at.mark) {
            return;
        }
        let place = Place { file: self.file.clone(), line: at.mark.line, col: at.mark.col };
        let key = if at.key.is_empty() { "file".to_owned() } else { at.key.to_string() };
        self.list.push(Problem { place, key, what, help, severity });
    }

    /// What is wrong in another file, with the places there.
    pub(crate) fn take_over(&mut self, others: Self) {
        self.list.extend(others.list);
    }

    /// Whether something was said about this key or one below it. What follows from that is not worth saying too.
    pub(crate) fn speak_of(&self, key: &str) -> bool {
        let below = |of: &str| of.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        self.list.iter().map(|problem| &problem.key).chain(&self.meant).any(|key| below(key))
    }

    /// Whether something was said about this very key.
    pub(crate) fn speak_of_exactly(&self, key: &str) -> bool {
        self.list.iter().any(|problem| problem.key == key)
    }

    /// Errors and warnings, each in the order of the file.
    pub(crate) fn into_parts(mut self) -> (Vec<Problem>, Vec<Problem>) {
        self.list.sort_by(|a, b| a.place.cmp(&b.place));
        self.list.into_iter().partition(|problem| problem.severity == Severity::Error)
    }
}

/// The name that was probably meant, if one of them is near enough to what was written.
pub(crate) fn closest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let reach = 1 + written.chars().count().min(64) / 4;
    let names: Vec<&str> = names.into_iter().collect();
    // A name longer than any sensible one is not worth a table of its square.
    let near = names.iter().filter(|name| name.len().abs_diff(written.len()) <= 4 * reach && written.len() <= 256);
    let near = near.map(|&name| (distance(written, name), name)).filter(|(far, _)| *far <= reach).min();
    // `listen` for `listeners`, `logging` for `log`.
    let begins =
        |name: &&str| written.len().min(name.len()) > 2 && (name.starts_with(written) || written.starts_with(name));
    near.map(|(_, name)| name).or_else(|| names.iter().copied().find(|name| begins(name)))
}

/// `did you mean `x`? ` or nothing, followed by all the names.
pub(crate) fn suggest<'a>(written: &str, what: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 30;
    let names: Vec<&str> = names.into_iter().collect();
    if names.is_empty() {
        return format!("there are no {what}: add one");
    }
    let more = if names.len() > SHOWN { format!(" and {} more", names.len() - SHOWN) } else { String::new() };
    let all = format!("the {what} are {}{more}", names[..names.len().min(SHOWN)].join(", "));
    match closest(written, names) {
        Some(name) => format!("did you mean `{name}`? {all}"),
        None => all,
    }
}

/// How many letters have to be added, dropped, changed or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let change = last[j] + usize::from(a[i] != b[j]);
            let mut best = change.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swapped_pair_of_letters_is_one_mistake() {
        assert_eq!(distance("upstraem", "upstream"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("weihgt", "weight"), 1);
    }

    #[test]
    fn a_name_is_suggested_only_if_it_is_near() {
        assert_eq!(closest("checkuot", ["static", "checkout"]), Some("checkout"));
        assert_eq!(closest("zebra", ["static", "checkout"]), None);
    }

    #[test]
    fn a_name_is_suggested_for_its_beginning_and_for_more_than_itself() {
        assert_eq!(closest("listen", ["log", "listeners"]), Some("listeners"));
        assert_eq!(closest("logging", ["log", "listeners"]), Some("log"));
        assert_eq!(closest("li", ["log", "listeners"]), None);
    }

    #[test]
    fn a_problem_is_shown_as_place_key_what_and_help() {
        let mut problems = Problems::of("edge.yaml");
        let spot =
            Spot::root(Mark { line: 3, col: 7 }).child("routes", Mark::default()).item(2, Mark { line: 3, col: 7 });
        problems.error(&spot, "is wrong", "put it right");
        let (errors, _) = problems.into_parts();
        assert_eq!(errors[0].to_string(), "edge.yaml:3:7: routes[2]: is wrong\n  help: put it right");
    }

    #[test]
    fn a_key_is_spoken_of_if_one_below_it_is() {
        let mut problems = Problems::of("f");
        problems.error(&Spot { mark: Mark::default(), key: "routes[1].path".into() }, "", "");
        assert!(problems.speak_of("routes[1]") && problems.speak_of("routes"));
        assert!(!problems.speak_of("routes[10]") && !problems.speak_of("route"));
    }
}
