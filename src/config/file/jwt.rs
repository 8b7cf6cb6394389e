//! What may be written about tokens? The shape of `auth.jwt`.

use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde_json::{Value as Json, json};

use super::decode::{Decode, Marked, refuse, scalar};
use super::leaves::{FilePath, SecretText, Timeout};
use super::section::section;
use crate::config::HttpUrl;
use crate::config::outline::Spelled;
use crate::config::problem::{Problems, Spot, suggest};
use crate::config::tree::Node;

section! {
    /// Which tokens are good: signed JSON Web Tokens, in `Authorization: Bearer`.
    Jwt {
        /// The issuer's public keys (JWKS): an `http` or `https` URL, which is fetched in the background, or a file, which is read
        /// again when it changes.
        jwks: Option<KeysAt> = "null",
        /// Instead of `jwks`: a secret shared with the issuer, for the HS algorithms; a text of 32 bytes or more, or `file:` and
        /// a path.
        secret: Option<SecretText> = "null",
        /// The issuer (`iss`) that a token must name.
        issuer: Option<String> = "null",
        /// The audiences of which a token must name one (`aud`); left out it is anybody.
        audience: Vec<Marked<String>> = "[]",
        /// How far the issuer's clock may be from ours.
        skew: Duration = "60s",
        /// How tokens may be signed. Left out: RS256 and ES256, with `secret` HS256.
        algorithms: Option<Vec<Marked<Algorithm>>> = "null",
        /// How often keys are fetched from a URL.
        refresh: Timeout = "10m",
    }
    later {}
}

/// Where keys are.
#[derive(Clone, Debug)]
pub(crate) enum KeysAt {
    Url(HttpUrl),
    File(FilePath),
}

impl Decode for KeysAt {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let help = "write https://issuer.example/jwks.json, or the path of a file";
        let text = &scalar(node, at, "a URL or a path", help, problems)?.text;
        if text.contains("://") {
            HttpUrl::decode(node, at, problems).map(Self::Url)
        } else {
            FilePath::decode(node, at, problems).map(Self::File)
        }
    }

    /// A query may hold what nobody shall read.
    fn spell(node: &Node) -> Spelled {
        HttpUrl::spell(node)
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

/// Those that verify by a secret, and those that verify by a public key.
const ALGORITHMS: [&str; 12] =
    ["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

impl Decode for Algorithm {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let wanted = "an algorithm that tokens are signed with";
        let text = &scalar(node, at, wanted, "write for example [RS256, ES256]", problems)?.text;
        text.parse().ok().or_else(|| refuse(node, at, wanted, &suggest(text, "algorithms", ALGORITHMS), problems))
    }

    fn schema() -> Json {
        json!({ "enum": ALGORITHMS })
    }
}
