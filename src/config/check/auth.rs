//! Does it make sense who may come in?

use http::header::{self, HeaderName};

use super::Check;
use super::files::given;
use super::route::NOT_EDITABLE;
use crate::config::file::{self, Map, Marked};
use crate::config::htpasswd::Users;
use crate::config::{Attribute, Auth, AuthBy};

impl Check<'_> {
    pub(super) fn auth(&mut self, route: &Marked<file::Route>) -> Option<Auth> {
        let auth = route.auth.as_ref()?;
        let headers = self.told(&auth.headers);
        if let (Some(first), None) = (auth.headers.0.first(), &route.upstream.value) {
            self.problems.error(&first.at, "there is no backend that could be told", "leave `headers` out");
        }
        let Some(path) = given(&auth.basic) else {
            if !self.problems.speak_of(&auth.basic.at.key) {
                self.problems.error(&route.auth.at, "nothing is asked of anybody", "add `basic: PATH`");
            }
            return None;
        };
        let joined = self.files.joined(&path);
        if let Some(bytes) = self.files.contents(&path, self.problems)
            && let Err(why) = Users::read(&bytes)
        {
            let help = "each line is a name, `:` and a hash: `htpasswd -B FILE NAME` adds one";
            self.problems.error(&path.at, format!("`{}`: {why}", joined.display()), help);
        }
        Some(Auth { by: AuthBy::Basic(joined), keep: *auth.keep, headers })
    }

    fn told(&mut self, headers: &Map<Attribute>) -> Vec<(HeaderName, Attribute)> {
        let mut told: Vec<(HeaderName, Attribute)> = Vec::new();
        for field in &headers.0 {
            let Some(attribute) = field.value.clone() else { continue };
            match field.name.parse::<HeaderName>() {
                Ok(name) if NOT_EDITABLE.contains(&name) || name == header::AUTHORIZATION => {
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
