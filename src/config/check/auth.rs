//! Does it make sense who may come in?

use std::path::PathBuf;
use std::sync::Arc;

use http::header::{self, HeaderName};

use super::Check;
use super::files::given;
use super::route::is_ours;
use crate::config::file::{self, FilePath, Map, Marked};
use crate::config::htpasswd::Users;
use crate::config::problem::suggest;
use crate::config::{Attribute, Auth, AuthBy, KeySource, KeyStore};

/// Where a client shows its key.
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

impl Check<'_> {
    pub(super) fn auth(
        &mut self,
        route: &Marked<file::Route>,
        stores: (&Map<file::KeyStore>, &[KeyStore]),
    ) -> Option<Auth> {
        let auth = route.auth.as_ref()?;
        let headers = self.told(&auth.headers);
        if let (Some(first), None) = (auth.headers.0.first(), &route.upstream.value) {
            self.problems.error(&first.at, "there is no backend that could be told", "leave `headers` out");
        }
        let by = self.auth_by(route, auth, stores)?;
        let has_claims = matches!(by, AuthBy::Jwt(_));
        for field in &auth.headers.0 {
            let help = match field.value {
                Some(Attribute::Claim(_)) if !has_claims => "only tokens make claims: write `name`, or use `jwt`",
                Some(Attribute::Plan) if has_claims => "a token has no plan: write `claim:NAME`",
                Some(Attribute::Name | Attribute::Plan | Attribute::Claim(_)) | None => continue,
            };
            self.problems.error(&field.at, "this is never known here", help);
        }
        Some(Auth { by, keep: auth.keep.unwrap_or(has_claims), headers })
    }

    fn auth_by(
        &mut self,
        route: &Marked<file::Route>,
        auth: &file::Auth,
        stores: (&Map<file::KeyStore>, &[KeyStore]),
    ) -> Option<AuthBy> {
        let query = self.key_parameter(auth);
        let ways = [
            ("basic", &auth.basic.at, auth.basic.is_some()),
            ("api_keys", &auth.api_keys.at, auth.api_keys.is_some()),
            ("jwt", &auth.jwt.at, auth.jwt.is_some()),
        ];
        let mut written = ways.iter().filter(|(_, _, is_written)| *is_written);
        let (first, second) = (written.next(), written.next());
        if let (Some((first, ..)), Some((_, at, _))) = (first, second) {
            let what = format!("this route asks for `{first}` already");
            self.problems.error(at, what, "a route asks for one kind of credentials: keep one of the two");
            return None;
        }
        if first.is_none() && !ways.iter().any(|(_, at, _)| self.problems.speak_of(&at.key)) {
            let help = "add `api_keys: STORE`, `jwt: { jwks: URL }` or `basic: PATH`";
            self.problems.error(&route.auth.at, "nothing is asked of anybody", help);
        }
        match (given(&auth.basic), given(&auth.api_keys), auth.jwt.as_ref()) {
            (Some(path), ..) => Some(self.basic(&path)),
            (_, Some(store), _) => self.key_store(&store, stores).map(|source| AuthBy::Keys { source, query }),
            (_, _, Some(jwt)) => self.jwt(&auth.jwt, jwt).map(AuthBy::Jwt),
            (None, None, None) => None,
        }
    }

    fn basic(&mut self, path: &Marked<FilePath>) -> AuthBy {
        let help = "each line is a name, `:` and a hash: `htpasswd -B FILE NAME` adds one";
        AuthBy::Basic(self.followed(path, |bytes| Users::read(bytes).map(drop), help))
    }

    /// A file that is read again when it changes, and must be a good one now.
    pub(super) fn followed(
        &mut self,
        path: &Marked<FilePath>,
        read: impl Fn(&[u8]) -> Result<(), String>,
        help: &str,
    ) -> PathBuf {
        let joined = self.files.joined(path);
        if let Some(bytes) = self.files.contents(path, self.problems)
            && let Err(why) = read(&bytes)
        {
            self.problems.error(&path.at, format!("`{}`: {why}", joined.display()), help);
        }
        joined
    }

    /// The store of this name, among those that are written and those of them that make sense.
    fn key_store(
        &mut self,
        name: &Marked<String>,
        (written, stores): (&Map<file::KeyStore>, &[KeyStore]),
    ) -> Option<KeySource> {
        let names = || written.0.iter().map(|named| named.name.as_str());
        if !names().any(|known| known == name.value) && !self.problems.speak_of_exactly("keys") {
            let help = match names().next() {
                Some(_) => suggest(name, "stores", names()),
                None => format!("add `keys: {{ {}: {{ file: keys.yaml }} }}`", name.value),
            };
            self.problems.error(&name.at, format!("no store of keys is called `{}`", name.value), help);
        }
        stores.iter().find(|store| *store.name == *name.value).map(|store| store.source.clone())
    }

    fn key_parameter(&mut self, auth: &file::Auth) -> Option<Arc<str>> {
        let name = given(&auth.query)?;
        if auth.api_keys.is_none() && !self.problems.speak_of(&auth.api_keys.at.key) {
            let what = "only a key can be in the query";
            self.problems.error(&name.at, what, "it belongs to `api_keys`: leave it out");
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if name.is_empty() || !name.bytes().all(plain) {
            let help = "write letters, digits, `-`, `.`, `_` and `~`, as in api_key";
            self.problems.error(&name.at, format!("`{}` is not the name of a parameter", name.value), help);
        }
        Some(name.as_str().into())
    }

    /// The fields in which backends are told something.
    pub(super) fn told<T: Clone>(&mut self, headers: &Map<T>) -> Vec<(HeaderName, T)> {
        let mut told: Vec<(HeaderName, T)> = Vec::new();
        for field in &headers.0 {
            let Some(attribute) = field.value.clone() else { continue };
            match field.name.parse::<HeaderName>() {
                Ok(name) if is_ours(&name) || name == header::AUTHORIZATION || name == X_API_KEY => {
                    let help = "choose a name of your own, such as X-User";
                    self.problems.error(&field.at, format!("`{}` cannot be set here", field.name), help);
                }
                Ok(name) if told.iter().any(|(other, _)| *other == name) => {
                    let help = "upper and lower case are the same in names of fields: take one of the two away";
                    self.problems.error(&field.at, format!("`{}` is there already", field.name), help);
                }
                Ok(name) => told.push((name, attribute)),
                Err(_) => {
                    let what = format!("`{}` is not the name of a header field", field.name);
                    self.problems.error(&field.at, what, "write a name such as X-User");
                }
            }
        }
        told
    }
}
