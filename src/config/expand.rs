//! What stands in the environment for `${NAME}`?
//!
//! Replaced after parsing and in scalar values only, so a variable can never add a key or change the file's structure.

use super::problem::{Problems, Spot};
use super::tree::{Node, Scalar};

/// Replaces every `${NAME}` and `${NAME:-default}`; `$${` stands for `${`.
pub(crate) fn expand(root: &mut Node, lookup: &dyn Fn(&str) -> Option<String>, problems: &mut Problems) {
    let spot = Spot::root(root.mark);
    root.each_scalar(&spot, &mut |scalar, at| {
        if scalar.text.contains("${") && !replace(scalar, at, lookup, problems) {
            problems.silence(at);
        }
    });
}

/// Whether all of them could be replaced.
fn replace(scalar: &mut Scalar, at: &Spot, lookup: &dyn Fn(&str) -> Option<String>, problems: &mut Problems) -> bool {
    let mut good = true;
    let mut done = String::new();
    let mut rest = scalar.text.as_str();
    while let Some(start) = rest.find("${") {
        let (before, after) = (&rest[..start], &rest[start + 2..]);
        if let Some(before) = before.strip_suffix('$') {
            done.push_str(before);
            done.push_str("${");
            rest = after;
            continue;
        }
        done.push_str(before);
        let Some((inside, tail)) = after.split_once('}') else {
            problems.error(
                at,
                "`${` has no closing `}`",
                "write `${NAME}`, or `$${` for the two characters themselves",
            );
            return false;
        };
        match value_of(inside, lookup) {
            Ok(value) => done.push_str(&value),
            Err((what, help)) => {
                problems.error(at, what, help);
                good = false;
            }
        }
        rest = tail;
    }
    done.push_str(rest);
    scalar.text = done;
    good
}

fn value_of(inside: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, (String, String)> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) || !name.bytes().all(word) {
        let what = format!("`${{{inside}}}` does not name an environment variable");
        return Err((
            what,
            "a name has letters, digits and `_`; `$${` stands for the two characters themselves".into(),
        ));
    }
    // As in a shell, `:-` also stands in for a variable that is set to nothing.
    let value = lookup(name).filter(|value| default.is_none() || !value.is_empty());
    value.or(default.map(str::to_owned)).ok_or_else(|| {
        let what = format!("the environment variable `{name}` is not set");
        (what, format!("set it, or give a default: `${{{name}:-value}}`"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree::{Mark, Value};

    fn check(text: &str, expected: Result<&str, &str>) {
        let mut problems = Problems::of("f");
        let mut node = Node::of_default(text, Mark::default());
        expand(&mut node, &|name| (name == "PORT").then(|| "8000".to_owned()), &mut problems);
        let (errors, _) = problems.into_parts();
        let Value::Scalar(scalar) = node.value else { panic!("a scalar stays one") };
        match expected {
            Ok(value) => assert_eq!((scalar.text.as_str(), errors.len()), (value, 0)),
            Err(part) => assert!(errors[0].what.contains(part), "{errors:?}"),
        }
    }

    #[test]
    fn variables_are_replaced_and_doubled_dollars_are_kept() {
        check("10.0.0.1:${PORT}", Ok("10.0.0.1:8000"));
        check("${HOST:-localhost}:${PORT:-1}", Ok("localhost:8000"));
        check("$${PORT} $5 ${X:-}", Ok("${PORT} $5 "));
    }

    #[test]
    fn what_cannot_be_replaced_is_told() {
        check("${UNSET}", Err("`UNSET` is not set"));
        check("${PORT", Err("no closing"));
        check("${a b}", Err("does not name"));
        check("${}", Err("does not name"));
    }
}
