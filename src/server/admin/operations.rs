//! What can be asked at the admin address? The one list of paths and methods.
//!
//! Requests are looked up in it and the OpenAPI document is made of it, so neither knows something that the other does
//! not. What an operation does is decided where its [`What`] is matched.

use super::guard::Kind;
use super::page::File;

/// One method of one path.
pub(super) struct Operation {
    pub(super) method: &'static str,
    /// Parameters stand in braces, each a whole segment.
    pub(super) path: &'static str,
    pub(super) what: What,
    pub(super) about: &'static str,
    /// The schema of the body, if it has one.
    pub(super) takes: Option<&'static str>,
    /// Of each status with which it succeeds: the media type, and a schema where it is JSON.
    pub(super) gives: &'static [(u16, &'static str, Option<&'static str>)],
    /// The statuses of problems, besides those that all have.
    pub(super) refuses: &'static [u16],
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Healthz,
    Readyz,
    Page(File),
    OpenApi,
    Metrics,
    Events,
    Cache,
    Purge,
    Operate(Operate),
}

/// A wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operate {
    Status,
    Config,
    Differences,
    Undo,
    Drain,
    Undrain,
    Weigh,
    Remove,
    Add,
    Register,
    Reload,
    LogLevel,
}

impl What {
    /// Who may ask.
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Healthz | Self::Readyz => Kind::Probe,
            Self::Page(_) => Kind::Page,
            Self::OpenApi | Self::Metrics | Self::Events | Self::Cache | Self::Purge | Self::Operate(_) => Kind::Fact,
        }
    }
}

const TEXT: &str = "text/plain";
const JSON: &str = "application/json";
const YAML: &str = "application/yaml";

/// All that there is.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        method: "GET",
        path: "/healthz",
        what: What::Healthz,
        about: "Whether the process lives. Needs no token.",
        takes: None,
        gives: &[(200, TEXT, None)],
        refuses: &[],
    },
    Operation {
        method: "GET",
        path: "/readyz",
        what: What::Readyz,
        about: "Whether traffic should be sent here: all upstreams have been probed, and we are not draining. Needs no token.",
        takes: None,
        gives: &[(200, TEXT, None), (503, TEXT, None)],
        refuses: &[],
    },
    Operation {
        method: "GET",
        path: "/",
        what: What::Page(File::Html),
        about: "The status page, for browsers. Needs no token: it asks for it, as there is no fact in it.",
        takes: None,
        gives: &[(200, "text/html", None)],
        refuses: &[],
    },
    Operation {
        method: "GET",
        path: "/page.css",
        what: What::Page(File::Css),
        about: "How the status page looks.",
        takes: None,
        gives: &[(200, "text/css", None)],
        refuses: &[],
    },
    Operation {
        method: "GET",
        path: "/page.js",
        what: What::Page(File::Script),
        about: "What the status page does.",
        takes: None,
        gives: &[(200, "text/javascript", None)],
        refuses: &[],
    },
    Operation {
        method: "GET",
        path: "/rows.js",
        what: What::Page(File::Rows),
        about: "How the status page draws its rows.",
        takes: None,
        gives: &[(200, "text/javascript", None)],
        refuses: &[],
    },
    Operation {
        method: "GET",
        path: "/theme.js",
        what: What::Page(File::Theme),
        about: "Which theme the status page has, before it is drawn.",
        takes: None,
        gives: &[(200, "text/javascript", None)],
        refuses: &[],
    },
    Operation {
        method: "GET",
        path: "/icon.svg",
        what: What::Page(File::Icon),
        about: "The icon of the status page.",
        takes: None,
        gives: &[(200, "image/svg+xml", None)],
        refuses: &[],
    },
    Operation {
        method: "GET",
        path: "/metrics",
        what: What::Metrics,
        about: "All metrics, for Prometheus.",
        takes: None,
        gives: &[(200, TEXT, None)],
        refuses: &[],
    },
    Operation {
        method: "GET",
        path: "/openapi.json",
        what: What::OpenApi,
        about: "This document.",
        takes: None,
        gives: &[(200, JSON, Some("Document"))],
        refuses: &[],
    },
    Operation {
        method: "GET",
        path: "/status.json",
        what: What::Operate(Operate::Status),
        about: "How everything is: upstreams, backends, certificates, the cache, limits, and what has changed lately.",
        takes: None,
        gives: &[(200, JSON, Some("Status"))],
        refuses: &[],
    },
    Operation {
        method: "GET",
        path: "/events",
        what: What::Events,
        about: "Server-sent events: `state` is what /status.json says; then, once a second, `change` has the fields that \
                differ, and of the items of `upstreams` and `backends` those that differ, with their `name`; without \
                `history`, and without the totals of a backend. Where items come or go, `state` is sent again.",
        takes: None,
        gives: &[(200, "text/event-stream", None)],
        refuses: &[503],
    },
    Operation {
        method: "GET",
        path: "/config",
        what: What::Operate(Operate::Config),
        about: "What is in effect: the file with its defaults and all that was discovered and changed. Secrets are not \
                shown, nor is what comes from the environment. `?form=yaml` prints it as YAML.",
        takes: None,
        gives: &[(200, JSON, Some("Configuration")), (200, YAML, None)],
        refuses: &[400],
    },
    Operation {
        method: "GET",
        path: "/config/differences",
        what: What::Operate(Operate::Differences),
        about: "What was changed here beside the file. `?form=yaml` prints it as it would stand in the file.",
        takes: None,
        gives: &[(200, JSON, Some("Differences")), (200, YAML, None)],
        refuses: &[400],
    },
    Operation {
        method: "DELETE",
        path: "/config/differences",
        what: What::Operate(Operate::Undo),
        about: "Undoes all that was changed here: the file alone counts again.",
        takes: None,
        gives: &[(200, JSON, Some("Differences"))],
        refuses: &[500],
    },
    Operation {
        method: "POST",
        path: "/upstreams/{upstream}/backends",
        what: What::Operate(Operate::Add),
        about: "Adds a backend, said as an entry of `backends` in the file. One that was removed and is the same comes back.",
        takes: Some("Entry"),
        gives: &[(201, JSON, Some("Changed"))],
        refuses: &[400, 404, 409, 422, 500],
    },
    Operation {
        method: "PUT",
        path: "/upstreams/{upstream}/backends/{backend}",
        what: What::Operate(Operate::Register),
        about: "A backend at this URL says that it is there; for upstreams with `discover: { register: ... }`.",
        takes: Some("About"),
        gives: &[(200, JSON, Some("Registered")), (201, JSON, Some("Registered"))],
        refuses: &[400, 404, 422, 507],
    },
    Operation {
        method: "DELETE",
        path: "/upstreams/{upstream}/backends/{backend}",
        what: What::Operate(Operate::Remove),
        about: "A backend leaves: one that has registered at this URL, or else the one of this name, which finishes what it \
                has begun.",
        takes: None,
        gives: &[(200, JSON, Some("Left"))],
        refuses: &[404, 409, 500],
    },
    Operation {
        method: "POST",
        path: "/upstreams/{upstream}/backends/{backend}/drain",
        what: What::Operate(Operate::Drain),
        about: "The backend takes nothing new and finishes what it has begun: DRAINING.",
        takes: None,
        gives: &[(200, JSON, Some("Changed"))],
        refuses: &[404, 500],
    },
    Operation {
        method: "POST",
        path: "/upstreams/{upstream}/backends/{backend}/undrain",
        what: What::Operate(Operate::Undrain),
        about: "It takes requests again.",
        takes: None,
        gives: &[(200, JSON, Some("Changed"))],
        refuses: &[404, 409, 500],
    },
    Operation {
        method: "PUT",
        path: "/upstreams/{upstream}/backends/{backend}/weight",
        what: What::Operate(Operate::Weigh),
        about: "Its share of the requests beside the others', 0 to 1000.",
        takes: Some("Weight"),
        gives: &[(200, JSON, Some("Changed"))],
        refuses: &[400, 404, 422, 500],
    },
    Operation {
        method: "POST",
        path: "/reload",
        what: What::Operate(Operate::Reload),
        about: "Reads the file again, and takes it over whole or not at all.",
        takes: None,
        gives: &[(200, JSON, Some("Reloaded"))],
        refuses: &[409, 422],
    },
    Operation {
        method: "PUT",
        path: "/log/level",
        what: What::Operate(Operate::LogLevel),
        about: "The least important level that is logged: none, error, warn, info, debug, trace.",
        takes: Some("Level"),
        gives: &[(200, JSON, Some("Level"))],
        refuses: &[400, 422],
    },
    Operation {
        method: "GET",
        path: "/cache",
        what: What::Cache,
        about: "How the cache is.",
        takes: None,
        gives: &[(200, JSON, Some("Cache"))],
        refuses: &[],
    },
    Operation {
        method: "POST",
        path: "/cache/purge",
        what: What::Purge,
        about: "Forgets what is stored: `?url=`, `?prefix=`, `?host=`, `?tag=` or `?all=true`; `&soft=true` makes it stale.",
        takes: None,
        gives: &[(200, JSON, Some("Purged"))],
        refuses: &[400],
    },
];

/// What a method and a path lead to.
pub(super) enum Found {
    /// This operation, with the parameters of its path.
    Operation(&'static Operation, Vec<String>),
    /// The path is there, and these are its methods.
    OtherMethods(String),
    Nothing,
    /// A parameter of the path cannot be read.
    Malformed,
}

/// Looks a request up. HEAD is asked as GET is.
pub(super) fn find(method: &str, path: &str) -> Found {
    let method = if method == "HEAD" { "GET" } else { method };
    let mut others = Vec::new();
    for operation in OPERATIONS {
        match parameters(operation.path, path) {
            None => {}
            Some(None) => return Found::Malformed,
            Some(Some(parameters)) if operation.method == method => return Found::Operation(operation, parameters),
            Some(Some(_)) => others.push(operation.method),
        }
    }
    if others.is_empty() {
        return Found::Nothing;
    }
    if let Some(get) = others.iter().position(|method| *method == "GET") {
        others.insert(get + 1, "HEAD");
    }
    Found::OtherMethods(others.join(", "))
}

/// The parameters of a path that has this form; `None` within if one of them cannot be read.
#[allow(clippy::option_option, reason = "the outer one is whether it fits, the inner one whether it can be read")]
fn parameters(form: &str, path: &str) -> Option<Option<Vec<String>>> {
    let (form, path): (Vec<_>, Vec<_>) = (form.split('/').collect(), path.split('/').collect());
    let fits = |(form, part): (&&str, &&str)| if form.starts_with('{') { !part.is_empty() } else { form == part };
    if form.len() != path.len() || !form.iter().zip(&path).all(fits) {
        return None;
    }
    let given = form.iter().zip(&path).filter(|(form, _)| form.starts_with('{'));
    Some(given.map(|(_, part)| decoded(part)).collect())
}

/// A part of a path without its percent signs.
fn decoded(part: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(method: &str, path: &str, expected: &str) {
        let found = match find(method, path) {
            Found::Operation(operation, parameters) => format!("{} {}", operation.path, parameters.join(" ")),
            Found::OtherMethods(methods) => methods,
            Found::Nothing => "nothing".to_owned(),
            Found::Malformed => "malformed".to_owned(),
        };
        assert_eq!(found.trim(), expected, "{method} {path}");
    }

    #[test]
    fn a_path_names_an_upstream_and_a_backend() {
        const ONE: &str = "/upstreams/{upstream}/backends/{backend}";
        check("PUT", "/upstreams/app/backends/10.0.0.1:80", &format!("{ONE} app 10.0.0.1:80"));
        check("PUT", "/upstreams/my%20app/backends/%5B::1%5D:80", &format!("{ONE} my app [::1]:80"));
        check("DELETE", "/upstreams/app/backends/https%3A%2F%2Fa.b", &format!("{ONE} app https://a.b"));
        check("POST", "/upstreams/app/backends/a/drain", &format!("{ONE}/drain app a"));
        for nothing in
            ["/upstreams/app", "/upstreams//backends/x:1", "/upstreams/a/backends/", "/upstreams/a/backends/b/c", "//"]
        {
            check("PUT", nothing, "nothing");
        }
        for malformed in ["/upstreams/a/backends/%f", "/upstreams/a/backends/%ff", "/upstreams/a/backends/%zz"] {
            check("PUT", malformed, "malformed");
        }
    }

    #[test]
    fn a_path_has_its_methods() {
        check("HEAD", "/healthz", "/healthz");
        check("POST", "/healthz", "GET, HEAD");
        check("GET", "/upstreams/a/backends/b", "PUT, DELETE");
        check("PUT", "/config/differences", "GET, HEAD, DELETE");
        check("GET", "/nothing", "nothing");
    }

    #[test]
    fn no_operation_is_there_twice() {
        let mut seen = std::collections::HashSet::new();
        for operation in OPERATIONS {
            assert!(seen.insert((operation.method, operation.path)), "{} {}", operation.method, operation.path);
        }
    }
}
