//! Does it make sense who may come in?

use std::sync::Arc;

use http::header::{self, HeaderName};

use super::Check;
use super::files::given;
use super::route::NOT_EDITABLE;
use crate::config::file::{self, Map, Marked};
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
        let query = self.key_parameter(auth);
        let by = match (given(&auth.basic), given(&auth.api_keys)) {
            (Some(_), Some(second)) => {
                let what = "a route asks for one kind of credentials only";
                self.problems.error(&second.at, what, "keep one of `basic` and `api_keys`");
                None
            }
            (Some(path), None) => Some(self.basic(&path)),
            (None, Some(store)) => self.key_store(&store, stores).map(|source| AuthBy::Keys { source, query }),
            (None, None) => {
                if !["basic", "api_keys"]
                    .iter()
                    .any(|key| self.problems.speak_of(&format!("{}.{key}", route.auth.at.key)))
                {
                    let help = "add `api_keys: STORE` or `basic: PATH`";
                    self.problems.error(&route.auth.at, "nothing is asked of anybody", help);
                }
                None
            }
        };
        Some(Auth { by: by?, keep: *auth.keep, headers })
    }

    fn basic(&mut self, path: &Marked<file::FilePath>) -> AuthBy {
        let joined = self.files.joined(path);
        if let Some(bytes) = self.files.contents(path, self.problems)
            && let Err(why) = Users::read(&bytes)
        {
            let help = "each line is a name, `:` and a hash: `htpasswd -B FILE NAME` adds one";
            self.problems.error(&path.at, format!("`{}`: {why}", joined.display()), help);
        }
        AuthBy::Basic(joined)
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

    fn told(&mut self, headers: &Map<Attribute>) -> Vec<(HeaderName, Attribute)> {
        let mut told: Vec<(HeaderName, Attribute)> = Vec::new();
        for field in &headers.0 {
            let Some(attribute) = field.value.clone() else { continue };
            match field.name.parse::<HeaderName>() {
                Ok(name) if NOT_EDITABLE.contains(&name) || name == header::AUTHORIZATION || name == X_API_KEY => {
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
