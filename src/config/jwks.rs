//! Whose signatures are good? A set of public keys (RFC 7517), as issuers of tokens publish it.
//!
//! What cannot verify a signature is passed over, as RFC 7517, section 5, asks: encryption keys, unknown types and curves.
//! Symmetric keys too: a set is published, and a secret is not.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde_json::Value as Json;

/// Issuers have two or three; a token without an id has to be tried with each.
const KEYS_MAX: usize = 64;

/// Bytes of an RSA key's modulus: a longer one makes each verification a way to keep us busy, and 8192 bits are the most that
/// aws-lc takes.
const MODULUS_MAX: usize = 1024;

/// Keys that verify signatures: at least one.
#[derive(Debug)]
pub struct KeySet(Vec<SigningKey>);

/// A public key.
pub struct SigningKey {
    id: Option<Box<str>>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id).field("algorithms", &self.algorithms).finish_non_exhaustive()
    }
}

impl KeySet {
    /// Reads a set, or says why it is none.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let set: Json = serde_json::from_slice(bytes).map_err(|error| format!("it is not JSON: {error}"))?;
        let keys =
            set.get("keys").and_then(Json::as_array).ok_or("it has no list `keys`: this is no JWKS (RFC 7517)")?;
        if keys.len() > KEYS_MAX {
            return Err(format!("it has {} keys; {KEYS_MAX} are the most", keys.len()));
        }
        let usable: Vec<_> = keys.iter().filter_map(SigningKey::read).collect();
        if usable.is_empty() {
            return Err("none of its keys can verify a signature: RSA, EC (P-256, P-384) and Ed25519 can".to_owned());
        }
        Ok(Self(usable))
    }

    /// The one key of those who share a secret.
    pub fn of_secret(secret: &[u8], algorithms: &[Algorithm]) -> Self {
        Self(vec![SigningKey { id: None, algorithms: algorithms.to_vec(), key: DecodingKey::from_secret(secret) }])
    }

    /// The keys that a token with this id and algorithm may be signed with.
    pub fn candidates(&self, id: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &DecodingKey> {
        let fits = move |key: &&SigningKey| {
            key.algorithms.contains(&algorithm) && (id.is_none() || key.id.is_none() || key.id.as_deref() == id)
        };
        self.0.iter().filter(fits).map(|key| &key.key)
    }

    /// Whether a key may be the one that this id names.
    pub fn knows(&self, id: &str) -> bool {
        self.0.iter().any(|key| key.id.as_deref().is_none_or(|known| known == id))
    }
}

impl SigningKey {
    fn read(key: &Json) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(key.clone()).ok()?;
        let common = &jwk.common;
        let signs = common.public_key_use.as_ref().is_none_or(|of| *of == PublicKeyUse::Signature)
            && common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
        let mut algorithms = possible(&jwk.algorithm);
        if let Some(only) = common.key_algorithm {
            algorithms.retain(|algorithm| KeyAlgorithm::from(*algorithm) == only);
        }
        let key = DecodingKey::from_jwk(&jwk).ok().filter(|_| signs && !algorithms.is_empty())?;
        Some(Self { id: common.key_id.as_deref().map(Into::into), algorithms, key })
    }
}

/// What a key of this type can verify (RFC 7518, section 3.1; RFC 8037, section 3.1).
#[expect(clippy::wildcard_enum_match_arm, reason = "types that the crate may add are passed over too")]
fn possible(parameters: &AlgorithmParameters) -> Vec<Algorithm> {
    if let AlgorithmParameters::RSA(rsa) = parameters
        && rsa.n.len() <= (MODULUS_MAX + 1) * 4 / 3 + 1
    {
        return AlgorithmFamily::Rsa.algorithms().to_vec();
    }
    let elliptic = match parameters {
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => Some(Algorithm::ES256),
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P384 => Some(Algorithm::ES384),
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => Some(Algorithm::EdDSA),
        _ => None,
    };
    elliptic.into_iter().collect()
}
