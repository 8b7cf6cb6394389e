//! Do the routes make sense, alone and together, and does what they refer to exist?

use std::collections::BTreeSet;
use std::sync::Arc;

use http::Uri;
use http::header::{self, HeaderName, HeaderValue};

use super::files::given;
use super::rate_limit::SharedLimits;
use super::{Check, Names};
use crate::config::file::{self, File, Map, Marked, Statuses};
use crate::config::problem::suggest;
use crate::config::substitution;
use crate::config::{Action, Expose, HeaderEdits, KeyStore, Match, Rewrite, Route, Substitution};
use crate::custom::OF_THE_CONNECTION;

/// Whether a field is ours to write, not a route's.
pub(super) fn is_ours(name: &HeaderName) -> bool {
    *name == header::HOST || OF_THE_CONNECTION.contains(name)
}

/// A body of our own is part of the configuration and is held in memory.
const MAX_BODY: usize = 64 << 10;

/// What routes may refer to.
struct Known<'a> {
    file: &'a File,
    keys: &'a [KeyStore],
    upstreams: BTreeSet<&'a str>,
}

impl Check<'_> {
    pub(super) fn routes(&mut self, file: &File, keys: &[KeyStore]) -> Vec<Route> {
        let redirects_only = file.listeners.iter().all(|listener| listener.redirect_to_https.is_some());
        if file.routes.is_empty() && !redirects_only && !self.problems.speak_of("routes") {
            let help = "add one: `- upstream: NAME` takes every request";
            self.problems.error(&file.routes.at, "there is no route", help);
        }
        let (mut names, mut limits) = (Names::default(), SharedLimits::default());
        let known = Known { file, keys, upstreams: file.upstreams.0.iter().map(|named| named.name.as_str()).collect() };
        let route = |route| {
            let mut checked = self.route(route, &known, &mut names);
            checked.rate_limits = self.rate_limits(route, &mut limits);
            checked
        };
        file.routes.iter().map(route).collect()
    }

    fn route(&mut self, route: &Marked<file::Route>, known: &Known<'_>, names: &mut Names) -> Route {
        let name: Arc<str> = match given(&route.name) {
            Some(name) => {
                names.claim(&name, &name.at, "the route", self.problems);
                name.value.into()
            }
            None => route.at.key.clone(),
        };
        let action = self.action(route, known);
        if let (Some(rewrite), true) = (given(&route.rewrite), route.upstream.is_none()) {
            self.problems.error(&rewrite.at, "nothing is sent on that could be rewritten", "leave `rewrite` out");
        }
        let exposes = |what| route.expose.iter().any(|exposed| exposed.value == what);
        Route {
            name,
            matches: self.matches(&route.r#match, known.file),
            action,
            rewrite: self.rewrite(route.rewrite.as_ref(), &route.r#match),
            timeout: route.timeout.0,
            priority: self.priority(route),
            retry: self.retry(route, &known.file.server.retry_buffers),
            cache: self.caching(route),
            compress: self.compress(route),
            allow: self.addresses(&route.allow),
            deny: self.addresses(&route.deny),
            maintenance: self.maintenance(route),
            errors: self.errors(route),
            cors: self.cors(route),
            security_headers: self.security_headers(route),
            auth: self.auth(route, (&known.file.keys, known.keys)),
            body_limit: route.body_limit.0,
            rate_limits: Vec::new(),
            filters: self.brought_filters(route),
            request_headers: self.edits(&route.headers.request),
            response_headers: self.edits(&route.headers.response),
            expose: Expose {
                backend: exposes(file::Exposed::Backend),
                cache: exposes(file::Exposed::Cache),
                timing: exposes(file::Exposed::Timing),
            },
        }
    }

    fn action(&mut self, route: &Marked<file::Route>, known: &Known<'_>) -> Action {
        let given = [
            route.upstream.is_some().then_some(&route.upstream.at),
            route.redirect.is_some().then_some(&route.redirect.at),
            route.respond.is_some().then_some(&route.respond.at),
        ];
        let mut given = given.into_iter().flatten();
        let (first, second) = (given.next(), given.next());
        if let (Some(_), Some(at)) = (first, second) {
            self.problems.error(at, "this route already leads elsewhere", "keep one of upstream, redirect and respond");
        }
        if first.is_none() && !["upstream", "redirect", "respond"].iter().any(|key| self.spoken(route, key)) {
            self.problems.error(&route.at, "this route leads nowhere", "add `upstream: NAME`, `redirect` or `respond`");
        }
        if let Some(name) = &route.upstream.value {
            self.upstream_exists(name, route, known);
            return Action::Upstream(name.as_str().into());
        }
        match (&route.redirect.value, &route.respond.value) {
            (Some(redirect), _) => self.redirect(redirect),
            (None, Some(respond)) => self.respond(respond),
            (None, None) => Action::Respond { status: 404, body: String::new() },
        }
    }

    /// Whether something was said about this key of a route.
    pub(super) fn spoken(&self, route: &Marked<file::Route>, key: &str) -> bool {
        self.problems.speak_of(&format!("{}.{key}", route.at.key))
    }

    fn upstream_exists(&mut self, name: &str, route: &file::Route, known: &Known<'_>) {
        if !known.upstreams.contains(name) && !self.problems.speak_of_exactly("upstreams") {
            let help = suggest(name, "upstreams", known.upstreams.iter().copied());
            self.problems.error(&route.upstream.at, format!("no upstream is called `{name}`"), help);
        }
    }

    fn redirect(&mut self, redirect: &file::Redirect) -> Action {
        let target = redirect.to.strip_suffix("/*").map_or_else(|| redirect.to.value.clone(), |to| format!("{to}/"));
        // A path of the client's alone may begin with two slashes, which name a host.
        let local = target.starts_with('/') && !target.starts_with("//") && redirect.to.value != "/*";
        let absolute = target.starts_with("http://") || target.starts_with("https://");
        let uri =
            target.parse::<Uri>().ok().filter(|_| target.is_ascii() && !target.contains('*') && (local || absolute));
        if uri.is_none() {
            let help = "write https://example.com/new, /new, or https://example.com/* to keep the path";
            self.problems.error(&redirect.to.at, format!("`{}` is nowhere to go", *redirect.to), help);
        }
        if !Statuses::REDIRECT.contains(&redirect.status) {
            let what = format!("{} is not the status of a redirect", *redirect.status);
            self.problems.error(&redirect.status.at, what, "choose 301, 302, 303, 307 or 308; 308 keeps the method");
        }
        Action::Redirect { to: redirect.to.value.clone(), status: *redirect.status }
    }

    fn respond(&mut self, respond: &file::Respond) -> Action {
        if !(200..=599).contains(&*respond.status) {
            let what = format!("{} is not the status of an answer", *respond.status);
            self.problems.error(&respond.status.at, what, "choose one from 200 to 599");
        }
        if respond.body.len() > MAX_BODY {
            let help = "serve it from a backend";
            self.problems.error(&respond.body.at, "an answer of our own holds at most 64KiB", help);
        }
        if matches!(*respond.status, 204 | 205 | 304) && !respond.body.is_empty() {
            let what = format!("an answer with status {} has no body", *respond.status);
            self.problems.error(&respond.body.at, what, "leave the body out, or choose 200");
        }
        Action::Respond { status: *respond.status, body: respond.body.value.clone() }
    }

    fn matches(&mut self, condition: &file::Match, file: &File) -> Match {
        if let Some(name) = given(&condition.listener) {
            let names = file.listeners.iter().filter_map(|listener| listener.name.as_deref());
            if !names.clone().any(|known| known == name.value) && !self.problems.speak_of("listeners") {
                let help = suggest(&name, "listeners with a name", names);
                self.problems.error(&name.at, format!("no listener is called `{}`", *name), help);
            }
        }
        let redirecting = file.listeners.iter().filter(|listener| listener.redirect_to_https.is_some());
        let named =
            |name: &Marked<String>| redirecting.clone().any(|listener| listener.name.as_deref() == Some(name.as_str()));
        if let Some(name) = given(&condition.listener).filter(named) {
            let what = format!("this route can never match: the listener `{}` redirects every request", *name);
            self.problems.warning(&name.at, what, "take its `redirect_to_https` or this condition away");
        }
        let query = condition.query.0.iter().filter_map(|named| Some((named.name.clone(), named.value.clone()?)));
        Match {
            listener: condition.listener.as_deref().map(Into::into),
            hosts: condition.host.iter().map(|host| host.value.clone()).collect(),
            path: condition.path.value.clone(),
            methods: condition.methods.iter().map(|method| method.value.clone()).collect(),
            headers: self.fields(&condition.headers),
            query: query.collect(),
        }
    }

    /// Decodes the names of header fields; the values are decoded already.
    fn fields(&mut self, fields: &Map<HeaderValue>) -> Vec<(HeaderName, HeaderValue)> {
        let mut names = Names::default();
        let mut checked = Vec::new();
        for field in &fields.0 {
            let Ok(name) = field.name.parse::<HeaderName>() else {
                let what = format!("`{}` is no name of a header field", field.name);
                self.problems.error(&field.at, what, "write a name such as x-request-id");
                continue;
            };
            names.claim(name.as_str(), &field.at, "the field", self.problems);
            checked.extend(field.value.clone().map(|value| (name, value)));
        }
        checked
    }

    fn edits(&mut self, edits: &file::Edits) -> HeaderEdits {
        let written =
            |map: &Map<HeaderValue>| -> Vec<_> { map.0.iter().map(|f| (f.name.clone(), f.at.clone())).collect() };
        let mut all = [written(&edits.set), written(&edits.add)].concat();
        all.extend(edits.remove.iter().map(|name| (name.as_str().to_owned(), name.at.clone())));
        for (name, at) in all {
            if name.parse().is_ok_and(|name| is_ours(&name)) {
                let help = if name.eq_ignore_ascii_case("host") {
                    "write `rewrite: { host: NAME }` in the route"
                } else {
                    "it belongs to one connection and is written for each; leave it out"
                };
                self.problems.error(&at, format!("`{name}` cannot be changed here"), help);
            }
        }
        let remove = edits.remove.iter().map(|name| name.value.clone()).collect();
        HeaderEdits { set: self.fields(&edits.set), add: self.fields(&edits.add), remove }
    }

    fn substitution(&mut self, rewrite: &file::Rewrite) -> Option<Substitution> {
        let (written, to) = match (given(&rewrite.pattern), given(&rewrite.to)) {
            (None, None) => return None,
            (Some(alone), None) => {
                if !self.problems.speak_of(&rewrite.to.at.key) {
                    self.problems.error(&alone.at, "nothing takes its place", "add `to: \"/x/$1\"`");
                }
                return None;
            }
            (None, Some(alone)) => {
                if !self.problems.speak_of(&rewrite.pattern.at.key) {
                    self.problems.error(&alone.at, "of nothing", "add `pattern`, which says what it is made of");
                }
                return None;
            }
            (Some(pattern), Some(to)) => (pattern, to),
        };
        if rewrite.strip_prefix.is_some() || rewrite.add_prefix.is_some() {
            let what = "the path is changed by a prefix already";
            self.problems.error(&written.at, what, "keep either `pattern` and `to` or the prefixes");
        }
        let compiled = substitution::pattern(&written).map_err(|why| {
            let help = "it matches the whole path, as in ^/users/([0-9]+)(/.*)?$; there are no back references";
            self.problems.error(&written.at, format!("this is no pattern: {why}"), help);
        });
        let made = Substitution::new(compiled.ok()?, &to).map_err(|why| {
            let help = "write a path such as /u/$1; `$$` is a `$`, `$${name}` a group with a name";
            self.problems.error(&to.at, format!("`{}` cannot be put together: {why}", to.value), help);
        });
        made.ok()
    }

    fn rewrite(&mut self, rewrite: Option<&file::Rewrite>, condition: &file::Match) -> Rewrite {
        let Some(rewrite) = rewrite else { return Rewrite::default() };
        let prefixes = [given(&rewrite.strip_prefix), given(&rewrite.add_prefix)];
        for prefix in prefixes.iter().flatten() {
            let legal = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'*' | b'?' | b'#');
            if !prefix.starts_with('/') || prefix.ends_with('/') || !prefix.bytes().all(legal) {
                let help = "write it like /v1: with `/` at its start, not at its end, other characters as %XX";
                self.problems.error(&prefix.at, format!("`{}` is no prefix of a path", **prefix), help);
            }
        }
        if let Some(host) = given(&rewrite.host) {
            let authority = host.to_str().ok().and_then(|host| host.parse::<http::uri::Authority>().ok());
            if authority.is_none_or(|authority| authority.as_str().contains('@')) {
                self.problems.error(&host.at, "this is no host", "write a name such as backend.internal");
            }
        }
        super::lint::strips_nothing(prefixes[0].as_ref(), condition, self.problems);
        Rewrite {
            substitution: self.substitution(rewrite),
            strip_prefix: rewrite.strip_prefix.value.clone(),
            add_prefix: rewrite.add_prefix.value.clone(),
            host: rewrite.host.value.clone(),
        }
    }
}
