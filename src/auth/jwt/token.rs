//! What does a token say, and may it be believed now? JSON Web Tokens in the compact form (RFC 7519, RFC 7515).
//!
//! Nothing here looks at a clock: the time comes in. A token is what it claims to be only once a signature was good; until
//! then its parts are words of a stranger.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::Value as Json;

use super::Claims;
use crate::config::jwks::KeySet;

/// A longer token is none that a header could reasonably hold.
const LONGEST: usize = 16 << 10;

/// What a token says.
pub(super) struct Token<'a> {
    /// How it says it was signed; one that we know.
    pub(super) algorithm: Algorithm,
    /// The key that it names.
    pub(super) key_id: Option<String>,
    /// What it says of its holder.
    pub(super) claims: Claims,
    signed: &'a [u8],
    signature: &'a str,
}

/// Which tokens are good, if they are signed well.
pub(super) struct Terms<'a> {
    /// Who must have issued them.
    pub(super) issuer: Option<&'a str>,
    /// Whom they must be meant for: one of these, unless there is none.
    pub(super) audience: &'a [String],
    /// How far clocks may be apart, in seconds.
    pub(super) skew: u64,
}

impl<'a> Token<'a> {
    /// Takes a token apart; `None` is what is none, or what we could not check.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header = object(header)?;
        // RFC 7515, section 4.1.11: what must be understood and is not makes it invalid. We understand no extension.
        if header.contains_key("crit") {
            return None;
        }
        // `none` is no algorithm that we know.
        let algorithm = header.get("alg")?.as_str()?.parse().ok()?;
        let key_id = match header.get("kid") {
            Some(id) => Some(id.as_str()?.to_owned()),
            None => None,
        };
        Some(Self { algorithm, key_id, claims: object(claims)?, signed: signed.as_bytes(), signature })
    }

    /// Whether one of these keys has signed it.
    pub(super) fn is_signed_by(&self, keys: &KeySet) -> bool {
        let is_good = |key| jsonwebtoken::crypto::verify(self.signature, self.signed, key, self.algorithm);
        keys.candidates(self.key_id.as_deref(), self.algorithm).any(|key| is_good(key).unwrap_or(false))
    }
}

impl Terms<'_> {
    /// Whether a token that says this is good at this time, in seconds since 1970. One that never ends is not.
    pub(super) fn allow(&self, claims: &Claims, now: u64) -> bool {
        let (now, skew) = (now as f64, self.skew as f64);
        // RFC 7519, section 2: seconds, perhaps with a fraction. What is no number is no time.
        let time = |name: &str| claims.get(name).map(|time| time.as_f64().unwrap_or(f64::NAN));
        let ends = time("exp").is_some_and(|ends| now < ends + skew);
        let has_begun = time("nbf").is_none_or(|begins| begins - skew <= now);
        ends && has_begun && self.is_from(claims) && self.is_for(claims)
    }

    fn is_from(&self, claims: &Claims) -> bool {
        self.issuer.is_none_or(|issuer| claims.get("iss").and_then(Json::as_str) == Some(issuer))
    }

    /// RFC 7519, section 4.1.3: one, or a list.
    fn is_for(&self, claims: &Claims) -> bool {
        let is_ours = |name: &Json| name.as_str().is_some_and(|name| self.audience.iter().any(|ours| ours == name));
        match claims.get("aud") {
            _ if self.audience.is_empty() => true,
            Some(Json::Array(names)) => names.iter().any(is_ours),
            Some(name) => is_ours(name),
            None => false,
        }
    }
}

fn object(part: &str) -> Option<Claims> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// What a claim says, as text for a field: a list is its parts with commas between them. A name with dots is first looked for
/// as it is, then as a way into objects.
pub(in crate::auth) fn claim(claims: &Claims, name: &str) -> Option<String> {
    let found = claims.get(name).or_else(|| {
        let (first, rest) = name.split_once('.')?;
        rest.split('.').try_fold(claims.get(first)?, |value, part| value.get(part))
    })?;
    let Json::Array(parts) = found else { return plain(found) };
    // A part with a comma would be read as two.
    let plain = |part: &Json| plain(part).filter(|text| !text.contains(','));
    parts.iter().map(plain).collect::<Option<Vec<_>>>().map(|parts| parts.join(","))
}

fn plain(value: &Json) -> Option<String> {
    match value {
        Json::String(text) => Some(text.clone()),
        Json::Number(_) | Json::Bool(_) => Some(value.to_string()),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}
