//! What does an operator want, and what does he get? Wishes, read from requests, and replies in JSON.
//!
//! Only the form is looked at here; what a name means, and whether a wish can be granted, is the [`Operator`]'s. Every
//! error is a problem (RFC 9457) with a `help`.

use async_trait::async_trait;
use log::LevelFilter;
use serde_json::{Value as Json, json};

use super::operations::Operate;
use crate::config::changes;
use crate::config::{Problem, Secret};
use crate::server::watching::{Listener, News};

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";
const YAML: &str = "application/yaml; charset=utf-8";

/// What somebody wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    /// To know how everything is.
    Status,
    /// To see what is in effect.
    Config(Form),
    /// To see what differs from the file.
    Differences(Form),
    /// To end all that differs.
    Undo,
    /// Something of one backend.
    Backend {
        /// Its upstream.
        upstream: String,
        /// Its name.
        backend: String,
        /// What.
        wish: changes::Wish,
    },
    /// One more backend, as an entry of the file.
    Add {
        /// Its upstream.
        upstream: String,
        /// The entry.
        entry: Json,
    },
    /// A backend says that it is there.
    Register {
        /// Its upstream.
        upstream: String,
        /// Where it is.
        url: String,
        /// What else it says of itself.
        about: Json,
    },
    /// To read the file again.
    Reload,
    /// Another level of the log.
    LogLevel(LevelFilter),
}

/// How something is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For programs.
    Json,
    /// For the file.
    Yaml,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its status line, without the version.
    pub status: &'static str,
    /// Its media type.
    pub kind: &'static str,
    /// Its body.
    pub body: String,
}

/// Who grants wishes. Nothing here may block.
#[async_trait]
pub trait Operator: Send + Sync {
    /// What must be shown by whoever has a wish; `None` is nothing.
    fn token(&self) -> Option<Secret>;

    /// Somebody wants to hear of every change, if not too many do already.
    fn listen(&self) -> Option<Listener>;

    /// Everything, for a listener that was too late.
    fn told_so_far(&self) -> News;

    /// Grants a wish of `who`, or says why not.
    async fn grant(&self, wish: Wish, who: &str) -> Reply;
}

impl Reply {
    /// An answer with this JSON.
    pub fn of(status: &'static str, body: &Json) -> Self {
        Self { status, kind: JSON, body: body.to_string() }
    }

    /// An answer with this YAML.
    pub fn yaml(text: &str) -> Self {
        Self { status: "200 OK", kind: YAML, body: text.trim_end().to_owned() }
    }

    /// What is wrong, and what to do about it.
    pub fn problem(status: &'static str, what: impl Into<String>, help: impl Into<String>) -> Self {
        Self::problem_with(status, (what.into(), help.into()), json!({}))
    }

    /// The file cannot be used, for these reasons.
    pub fn bad_file(problems: &[Problem]) -> Self {
        let told = |it: &Problem| {
            let place = &it.place;
            json!({ "file": &*place.file, "line": place.line, "column": place.col, "key": it.key, "what": it.what, "help": it.help })
        };
        let what = "the file has problems, and nothing was changed".to_owned();
        let more = json!({ "problems": problems.iter().map(told).collect::<Vec<_>>() });
        Self::problem_with("422 Unprocessable Content", (what, "mend what `problems` names".to_owned()), more)
    }

    fn problem_with(status: &'static str, (what, help): (String, String), mut more: Json) -> Self {
        let (code, title) = status.split_once(' ').unwrap_or((status, ""));
        more["type"] = "about:blank".into();
        more["title"] = title.into();
        more["status"] = code.parse::<u16>().unwrap_or_default().into();
        more["detail"] = what.into();
        more["help"] = help.into();
        Self { status, kind: PROBLEM, body: more.to_string() }
    }
}

/// A request that has been found among the operations: the parameters of its path, its query and its body.
pub(super) struct Asking<'a> {
    pub(super) parameters: &'a [String],
    pub(super) query: &'a str,
    pub(super) body: &'a [u8],
}

impl Asking<'_> {
    /// What is wanted; or why it makes no sense.
    pub(super) fn read(&self, operate: Operate) -> Result<Wish, Reply> {
        Ok(match operate {
            Operate::Status => Wish::Status,
            Operate::Config => Wish::Config(self.form()?),
            Operate::Differences => Wish::Differences(self.form()?),
            Operate::Undo => Wish::Undo,
            Operate::Drain => self.of_backend(changes::Wish::Drain),
            Operate::Undrain => self.of_backend(changes::Wish::Undrain),
            Operate::Weigh => self.of_backend(changes::Wish::Weigh(self.weight()?)),
            Operate::Remove => self.of_backend(changes::Wish::Remove),
            Operate::Add => Wish::Add { upstream: self.parameter(0), entry: self.json()? },
            Operate::Register => {
                let about = if self.body.trim_ascii().is_empty() { json!({}) } else { self.json()? };
                Wish::Register { upstream: self.parameter(0), url: self.parameter(1), about }
            }
            Operate::Reload => Wish::Reload,
            Operate::LogLevel => Wish::LogLevel(self.level()?),
        })
    }

    fn parameter(&self, index: usize) -> String {
        self.parameters.get(index).cloned().unwrap_or_default()
    }

    fn of_backend(&self, wish: changes::Wish) -> Wish {
        Wish::Backend { upstream: self.parameter(0), backend: self.parameter(1), wish }
    }

    fn json(&self) -> Result<Json, Reply> {
        serde_json::from_slice(self.body).map_err(|error| {
            Reply::problem(
                "400 Bad Request",
                format!("the body is not JSON: {error}"),
                "send JSON, as in -d '{ \"weight\": 3 }'",
            )
        })
    }

    fn weight(&self) -> Result<u32, Reply> {
        let weight = self.json()?["weight"].as_u64().filter(|weight| *weight <= 1000);
        weight.and_then(|weight| u32::try_from(weight).ok()).ok_or_else(|| {
            let what = "`weight` must be a whole number from 0 to 1000";
            Reply::problem("422 Unprocessable Content", what, "send { \"weight\": 3 }")
        })
    }

    fn level(&self) -> Result<LevelFilter, Reply> {
        let body = self.json()?;
        let word = body["level"].as_str().unwrap_or_default();
        let level = if word == "none" { Some(LevelFilter::Off) } else { word.parse().ok() };
        level.filter(|_| word.bytes().all(|byte| byte.is_ascii_lowercase()) && word != "off").ok_or_else(|| {
            let what = "`level` must be none, error, warn, info, debug or trace";
            Reply::problem("422 Unprocessable Content", what, "send { \"level\": \"debug\" }")
        })
    }

    fn form(&self) -> Result<Form, Reply> {
        match self.query {
            "" | "form=json" => Ok(Form::Json),
            "form=yaml" => Ok(Form::Yaml),
            _ => {
                Err(Reply::problem("400 Bad Request", "the query is not known", "there are ?form=json and ?form=yaml"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(operate: Operate, query: &str, body: &str, expected: Result<Wish, &str>) {
        let parameters = ["app".to_owned(), "10.0.0.1:80".to_owned()];
        let read = Asking { parameters: &parameters, query, body: body.as_bytes() }.read(operate);
        match expected {
            Ok(wish) => assert_eq!(read, Ok(wish), "{operate:?} {query} {body}"),
            Err(status) => {
                let reply = read.unwrap_err();
                assert!(reply.status.starts_with(status), "{operate:?} {query} {body}: {reply:?}");
                let problem: Json = serde_json::from_str(&reply.body).unwrap();
                assert!(problem["help"].as_str().is_some_and(|help| !help.is_empty()), "{problem}");
            }
        }
    }

    #[test]
    fn a_wish_is_read_from_path_query_and_body() {
        let of = |wish| Wish::Backend { upstream: "app".into(), backend: "10.0.0.1:80".into(), wish };
        check(Operate::Drain, "", "", Ok(of(changes::Wish::Drain)));
        check(Operate::Weigh, "", r#"{ "weight": 3 }"#, Ok(of(changes::Wish::Weigh(3))));
        check(Operate::LogLevel, "", r#"{ "level": "none" }"#, Ok(Wish::LogLevel(LevelFilter::Off)));
        check(Operate::Differences, "form=yaml", "", Ok(Wish::Differences(Form::Yaml)));
        let register = Wish::Register { upstream: "app".into(), url: "10.0.0.1:80".into(), about: json!({}) };
        check(Operate::Register, "", " ", Ok(register));
    }

    #[test]
    fn what_makes_no_sense_is_a_problem_with_help() {
        for body in ["", "{", r#"{ "weight": 1001 }"#, r#"{ "weight": -1 }"#, r#"{ "weight": "3" }"#, "[]"] {
            check(Operate::Weigh, "", body, Err(if body.len() < 2 && body != "[]" { "400" } else { "422" }));
        }
        for level in ["loud", "off", "INFO", ""] {
            check(Operate::LogLevel, "", &json!({ "level": level }).to_string(), Err("422"));
        }
        check(Operate::Add, "", "nonsense", Err("400"));
        check(Operate::Config, "form=toml", "", Err("400"));
    }
}
