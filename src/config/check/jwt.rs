//! Does it make sense which tokens are good?

use jsonwebtoken::{Algorithm, AlgorithmFamily};

use super::Check;
use super::files::given;
use crate::config::file::{self, KeysAt, Marked, SecretText};
use crate::config::jwks::KeySet;
use crate::config::problem::Spot;
use crate::config::{Jwt, JwtKeys, Secret};

/// Bytes of a secret that tokens are signed with.
const SHORTEST_SECRET: usize = 32;

impl Check<'_> {
    pub(super) fn jwt(&mut self, at: &Marked<Option<file::Jwt>>, jwt: &file::Jwt) -> Option<Jwt> {
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
}
