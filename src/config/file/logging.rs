//! What may be written about logs? The shape of `log`.

use std::num::NonZeroU32;

use serde_json::{Value as Json, json};

use super::decode::{Decode, Map, refuse, scalar};
use super::leaves::{FilePath, PathOr, SecretText, Size, Timeout};
use super::section::section;
use crate::config::problem::{Problems, Spot, closest};
use crate::config::tree::Node;
use crate::config::{Dashboard, HttpUrl, LogField, LogForm, Piece};

section! {
    /// What is logged, and where.
    Log {
        /// The least important level that is written: `error`, `warn`, `info`, `debug`, `trace` or `none`.
        level: log::LevelFilter = "info",
        /// Where the access log goes, one line a request: `none`, `stdout` or a file.
        access: PathOr = "stdout",
        /// The form of access log lines: `json`, `combined` (nginx's), or a template such as `{client} {status} {path}`.
        format: LogForm = "json",
        /// When the file of the access log is put aside.
        rotate: Option<Rotate> = "null",
        /// Where usage events go: who asked for what, and how much it was.
        usage: Option<Usage> = "null",
        /// A Loki that access log lines are pushed to, in JSON.
        loki: Option<Loki> = "null",
        /// When the table of backends is logged: `none`, `on_change`, or also at an interval such as `5s`.
        dashboard: Dashboard = "on_change",
    }
    later {}
}

section! {
    /// When a file is put aside: `access.log` becomes `access.log.1`.
    Rotate {
        /// With so many bytes.
        size: Size = "100MiB",
        /// So many files are kept beside the one that is written.
        keep: NonZeroU32 = "5",
    }
    later {}
}

section! {
    /// Where usage events go: one of `file` and `http`.
    Usage {
        /// To the end of a file, one JSON object a line.
        file: Option<FilePath> = "null",
        /// With `file`: when it is put aside.
        rotate: Option<Rotate> = "null",
        /// To a URL, many in a POST, until they are taken.
        http: Option<HttpUrl> = "null",
        /// With `http`: the folder in which they wait.
        spool: Option<FilePath> = "null",
        /// With `http`: the most that waits there.
        spool_size: Size = "256MiB",
        /// With `http`: shown as `Authorization: Bearer`; a text, or `file:` and a path.
        token: Option<SecretText> = "null",
        /// With `http`: a PEM file of the authorities that are believed, instead of the system's.
        ca: Option<FilePath> = "null",
        /// With `http`: the most events of a POST.
        batch: NonZeroU32 = "1000",
        /// With `http`: how long an event waits for others.
        interval: Timeout = "5s",
    }
    later {}
}

section! {
    /// A Loki that access log lines are pushed to.
    Loki {
        /// Where it is; without a path it is that of the push API, `/loki/api/v1/push`.
        url: HttpUrl,
        /// What all lines are labelled with; left out it is `job: portcullis`.
        labels: Map<String> = "{}",
        /// The tenant (`X-Scope-OrgID`), where it serves several.
        tenant: Option<String> = "null",
        /// Shown as `Authorization: Bearer`: a text, or `file:` and a path.
        token: Option<SecretText> = "null",
        /// Instead of `token`: a name and a password.
        basic: Option<Basic> = "null",
        /// A PEM file of the authorities that are believed, instead of the system's.
        ca: Option<FilePath> = "null",
        /// The most lines of a push.
        batch: NonZeroU32 = "1000",
        /// How long a line waits for others.
        interval: Timeout = "1s",
    }
    later {}
}

section! {
    /// A name and a password.
    Basic {
        /// The name.
        user: String,
        /// The password: a text, or `file:` and a path.
        password: SecretText,
    }
    later {}
}

const FORMS: &str = "write json, combined, or a template with fields in it, such as `{client} {status} {path}`";

impl Decode for LogForm {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let text = &scalar(node, at, "the form of a line", FORMS, problems)?.text;
        match text.as_str() {
            "json" => Some(Self::Json),
            "combined" => Some(Self::Combined),
            template if template.contains(['{', '}']) => match pieces(template) {
                Ok(pieces) => Some(Self::Template(pieces)),
                Err(wrong) => {
                    problems.error(at, wrong.what, wrong.help);
                    None
                }
            },
            _ => refuse(node, at, "`json`, `combined` or a template", FORMS, problems),
        }
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

/// What is wrong with a template, and what to do.
#[derive(Debug, PartialEq)]
struct Wrong {
    what: String,
    help: String,
}

impl Wrong {
    fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { what: what.into(), help: help.into() }
    }
}

/// The parts of a template. `{{` and `}}` stand for braces.
fn pieces(template: &str) -> Result<Vec<Piece>, Wrong> {
    if template.chars().any(|letter| letter.is_control() && letter != '\t') {
        return Err(Wrong::new(
            "a line of the log is one line",
            "leave out what ends a line, and other control characters",
        ));
    }
    let (mut found, mut text, mut rest) = (Vec::new(), String::new(), template);
    while let Some(at) = rest.find(['{', '}']) {
        let (before, after) = rest.split_at(at);
        text.push_str(before);
        if let Some(escaped) = after.strip_prefix("{{").or_else(|| after.strip_prefix("}}")) {
            text.push_str(&after[..1]);
            rest = escaped;
            continue;
        }
        let inside = after.strip_prefix('{').and_then(|after| after.split_once('}'));
        let Some((name, behind)) = inside else {
            let which = if after.starts_with('{') { "`{` is not closed" } else { "`}` closes nothing" };
            return Err(Wrong::new(
                which,
                "a field is written {status}; a brace of its own is written twice: {{ or }}",
            ));
        };
        if !text.is_empty() {
            found.push(Piece::Text(std::mem::take(&mut text)));
        }
        found.push(Piece::Field(LogField::named(name).ok_or_else(|| unknown(name))?));
        rest = behind;
    }
    text.push_str(rest);
    if !text.is_empty() {
        found.push(Piece::Text(text));
    }
    Ok(found)
}

fn unknown(name: &str) -> Wrong {
    let all = format!("the fields are {}", LogField::NAMES.join(", "));
    let help = match closest(name, LogField::NAMES.iter().copied()) {
        Some(near) => format!("did you mean `{{{near}}}`? {all}"),
        None => all,
    };
    Wrong::new(format!("the log has no field `{{{}}}`", super::decode::shorten(name)), help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_text_with_fields_in_it() {
        let text = |text: &str| Piece::Text(text.to_owned());
        let expected =
            vec![Piece::Field(LogField::Client), text(" {\""), Piece::Field(LogField::UserAgent), text("\"}")];
        assert_eq!(pieces("{client} {{\"{user_agent}\"}}"), Ok(expected));
        assert_eq!(pieces("{{}}"), Ok(vec![text("{}")]));
    }

    #[test]
    fn what_is_no_field_is_told_with_what_was_meant() {
        let what = |template: &str| pieces(template).unwrap_err().what;
        assert!(pieces("{stauts}").unwrap_err().help.starts_with("did you mean `{status}`?"));
        assert_eq!(what("{password}"), "the log has no field `{password}`");
        assert_eq!(what("{status"), "`{` is not closed");
        assert_eq!(what("status}"), "`}` closes nothing");
        assert_eq!(what("{status}\n"), "a line of the log is one line");
    }

    #[test]
    fn each_name_is_that_of_a_field() {
        assert!(LogField::NAMES.iter().all(|name| LogField::named(name).is_some()));
    }
}
