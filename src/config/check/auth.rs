//! Does it make sense who may come in?

use std::path::PathBuf;

use http::header::{self, HeaderName};
use jsonwebtoken::{Algorithm, AlgorithmFamily};

use super::Check;
use super::files::given;
use super::route::NOT_EDITABLE;
use crate::config::file::{self, FilePath, KeysAt, Map, Marked, SecretText};
use crate::config::htpasswd::Users;
use crate::config::jwks::KeySet;
use crate::config::problem::Spot;
use crate::config::{Attribute, Auth, AuthBy, Jwt, JwtKeys, Secret};

/// Bytes of a secret that tokens are signed with.
const SHORTEST_SECRET: usize = 32;

impl Check<'_> {
    pub(super) fn auth(&mut self, route: &Marked<file::Route>) -> Option<Auth> {
        let auth = route.auth.as_ref()?;
        let headers = self.told(&auth.headers);
        if let (Some(first), None) = (auth.headers.0.first(), &route.upstream.value) {
            self.problems.error(&first.at, "there is no backend that could be told", "leave `headers` out");
        }
        let by = self.auth_by(route, auth)?;
        let has_claims = matches!(by, AuthBy::Jwt(_));
        let keep = auth.keep.unwrap_or(has_claims);
        for field in auth.headers.0.iter().filter(|_| !has_claims) {
            if let Some(Attribute::Claim(_)) = field.value {
                self.problems.error(&field.at, "only tokens make claims", "write `name`, or use `jwt`");
            }
        }
        Some(Auth { by, keep, headers })
    }

    fn auth_by(&mut self, route: &Marked<file::Route>, auth: &file::Auth) -> Option<AuthBy> {
        let ways = [("basic", &auth.basic.at, auth.basic.is_some()), ("jwt", &auth.jwt.at, auth.jwt.is_some())];
        let mut given_ways = ways.iter().filter(|(_, _, given)| *given);
        match (given_ways.next(), given_ways.next()) {
            (Some(_), None) => {}
            (Some((first, ..)), Some((_, at, _))) => {
                let what = format!("this route asks for `{first}` already");
                self.problems.error(at, what, "keep one of basic and jwt; a second route can ask for the other");
            }
            (None, _) => {
                if !ways.iter().any(|(_, at, _)| self.problems.speak_of(&at.key)) {
                    let help = "add `basic: PATH` or `jwt: { jwks: URL }`";
                    self.problems.error(&route.auth.at, "nothing is asked of anybody", help);
                }
                return None;
            }
        }
        match (given(&auth.basic), auth.jwt.as_ref()) {
            (Some(path), _) => Some(self.basic(&path)),
            (None, Some(jwt)) => self.jwt(&auth.jwt, jwt).map(AuthBy::Jwt),
            (None, None) => None,
        }
    }

    fn basic(&mut self, path: &Marked<FilePath>) -> AuthBy {
        let help = "each line is a name, `:` and a hash: `htpasswd -B FILE NAME` adds one";
        AuthBy::Basic(self.followed(path, |bytes| Users::read(bytes).map(drop), help))
    }

    fn jwt(&mut self, at: &Marked<Option<file::Jwt>>, jwt: &file::Jwt) -> Option<Jwt> {
        let (keys, default) = match (given(&jwt.jwks), &jwt.secret.value) {
            (Some(_), Some(_)) => {
                let help = "keep one of the two: a token is signed with a private key, or with a shared secret";
                self.problems.error(&jwt.secret.at, "there are keys of the issuer already", help);
                return None;
            }
            (None, None) => {
                if !self.problems.speak_of(&jwt.jwks.at.key) && !self.problems.speak_of(&jwt.secret.at.key) {
                    let what = "there is no key that a token could be signed with";
                    self.problems.error(&at.at, what, "add `jwks: URL or PATH`, or `secret`");
                }
                return None;
            }
            (Some(keys), None) => (Some(self.keys_at(&keys)), vec![Algorithm::RS256, Algorithm::ES256]),
            (None, Some(secret)) => (self.jwt_secret(secret, &jwt.secret.at), vec![Algorithm::HS256]),
        };
        let by_secret = jwt.secret.is_some();
        let algorithms = match &jwt.algorithms.value {
            Some(written) => self.algorithms_of(written, by_secret, &jwt.algorithms.at),
            None => default,
        };
        if let (true, false) = (jwt.refresh.written, matches!(keys, Some(JwtKeys::Url(_)) | None)) {
            self.problems.error(
                &jwt.refresh.at,
                "nothing is fetched that could be fetched again",
                "leave `refresh` out",
            );
        }
        Some(Jwt {
            keys: keys?,
            algorithms,
            issuer: jwt.issuer.value.clone(),
            audience: jwt.audience.iter().map(|name| name.value.clone()).collect(),
            skew: *jwt.skew,
            refresh: jwt.refresh.0,
        })
    }

    fn keys_at(&mut self, keys: &Marked<KeysAt>) -> JwtKeys {
        match &keys.value {
            KeysAt::Url(url) => {
                if !url.tls && !url.is_loopback() {
                    let what = "whoever is on the way to this URL can put keys of their own in its place";
                    self.problems.warning(&keys.at, what, "use https");
                }
                JwtKeys::Url(url.clone())
            }
            KeysAt::File(path) => {
                let path = Marked { value: path.clone(), at: keys.at.clone(), written: keys.written };
                let help = "the file holds a JWKS: { \"keys\": [ ... ] } with the issuer's public keys";
                JwtKeys::File(self.followed(&path, |bytes| KeySet::read(bytes).map(drop), help))
            }
        }
    }

    /// RFC 7518, section 3.2: a key at least as long as the hash.
    fn jwt_secret(&mut self, secret: &SecretText, at: &Spot) -> Option<JwtKeys> {
        let secret = self.secret(secret, at)?;
        if (Secret::LEAST..SHORTEST_SECRET).contains(&secret.bytes().len()) {
            let what = format!("this secret has less than {SHORTEST_SECRET} bytes, so that tokens can be forged");
            self.problems.error(at, what, "agree on a longer one with the issuer: `head -c 32 /dev/urandom | base64`");
        }
        Some(JwtKeys::Secret(secret))
    }

    /// A public key is no secret: whoever could choose the algorithm would sign with it (RFC 8725, section 2.1).
    fn algorithms_of(&mut self, written: &[Marked<Algorithm>], by_secret: bool, at: &Spot) -> Vec<Algorithm> {
        if written.is_empty() && !self.problems.speak_of(&at.key) {
            self.problems.error(at, "no token would be good", "leave `algorithms` out, or name one");
        }
        for algorithm in written {
            if (algorithm.value.family() == AlgorithmFamily::Hmac) != by_secret {
                let (what, help) = match by_secret {
                    true => ("is not made with a secret", "with `secret` they are HS256, HS384 and HS512"),
                    false => ("is made with a secret", "with `jwks` they are RS, PS, ES and EdDSA"),
                };
                self.problems.error(&algorithm.at, format!("{:?} {what}", algorithm.value), help);
            }
        }
        written.iter().map(|algorithm| algorithm.value).collect()
    }

    /// A file that is read again when it changes, and must be a good one now.
    fn followed(&mut self, path: &Marked<FilePath>, read: impl Fn(&[u8]) -> Result<(), String>, help: &str) -> PathBuf {
        let joined = self.files.joined(path);
        if let Some(bytes) = self.files.contents(path, self.problems)
            && let Err(why) = read(&bytes)
        {
            self.problems.error(&path.at, format!("`{}`: {why}", joined.display()), help);
        }
        joined
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
