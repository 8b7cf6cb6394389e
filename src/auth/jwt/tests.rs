//! Which tokens are good, and which are none?

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::token::{Terms, Token};
use super::{Claims, FetchedKeys, Tokens, claim};
use crate::config::jwks::KeySet;
use crate::config::{self, JwtKeys, Secret};
use crate::files::Library;

const NOW: u64 = 1_800_000_000;

fn claims(json: Json) -> Claims {
    json.as_object().unwrap().clone()
}

fn terms<'a>(audience: &'a [String]) -> Terms<'a> {
    Terms { issuer: None, audience, skew: 60 }
}

fn text(header: &Json, claims: &Json) -> String {
    let part = |json: &Json| URL_SAFE_NO_PAD.encode(json.to_string());
    format!("{}.{}.c2ln", part(header), part(claims))
}

#[test]
fn a_token_is_good_from_its_beginning_to_its_end_with_some_allowance_for_clocks() {
    for (said, good) in [
        (json!({}), false),
        (json!({ "exp": NOW + 1 }), true),
        (json!({ "exp": NOW }), true),
        (json!({ "exp": NOW - 59 }), true),
        (json!({ "exp": NOW - 60 }), false),
        (json!({ "exp": NOW as f64 - 59.5 }), true),
        (json!({ "exp": "soon" }), false),
        (json!({ "exp": null }), false),
        (json!({ "exp": 1e300 }), true),
        (json!({ "exp": -1 }), false),
        (json!({ "exp": NOW + 9, "nbf": NOW + 60 }), true),
        (json!({ "exp": NOW + 9, "nbf": NOW + 61 }), false),
        (json!({ "exp": NOW + 9, "nbf": "now" }), false),
    ] {
        assert_eq!(terms(&[]).allow(&claims(said.clone()), NOW), good, "{said}");
    }
}

#[test]
fn a_token_is_good_for_its_audience_and_from_its_issuer_alone() {
    let ours = ["api".to_owned(), "web".to_owned()];
    for (said, good) in [
        (json!({ "aud": "api" }), true),
        (json!({ "aud": ["other", "web"] }), true),
        (json!({ "aud": ["other"] }), false),
        (json!({ "aud": [] }), false),
        (json!({ "aud": "ap" }), false),
        (json!({ "aud": { "api": true } }), false),
        (json!({}), false),
    ] {
        let mut said = claims(said);
        said.insert("exp".into(), json!(NOW + 9));
        assert_eq!(terms(&ours).allow(&said, NOW), good, "{said:?}");
        said.insert("iss".into(), json!("https://issuer"));
        for (issuer, from) in [("https://issuer", true), ("https://issuer/", false)] {
            let terms = Terms { issuer: Some(issuer), ..terms(&[]) };
            assert_eq!(terms.allow(&said, NOW), from);
        }
    }
}

#[test]
fn what_cannot_be_checked_is_no_token() {
    let good = json!({ "exp": NOW + 9 });
    assert!(Token::read(&text(&json!({ "alg": "RS256", "kid": "a", "typ": "JWT" }), &good)).is_some());
    for header in [
        json!({}),
        json!({ "alg": "none" }),
        json!({ "alg": "None" }),
        json!({ "alg": "" }),
        json!({ "alg": null }),
        json!({ "alg": ["RS256"] }),
        json!({ "alg": "RS256", "kid": 7 }),
        json!({ "alg": "RS256", "crit": ["b64"], "b64": false }),
        json!({ "alg": "RS256", "crit": [] }),
    ] {
        assert!(Token::read(&text(&header, &good)).is_none(), "{header}");
    }
    let rs256 = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"}"#);
    let long = format!("{rs256}.{}.c2ln", URL_SAFE_NO_PAD.encode(format!("{{\"a\":\"{}\"}}", "x".repeat(20_000))));
    for text in ["", ".", "..", "a.b.c", &format!("{rs256}.e30"), &format!("{rs256}.W10.c2ln"), &long] {
        assert!(Token::read(text).is_none(), "{text:.60}");
    }
}

/// A key pair of each kind, as a set of its public key, and whoever signs with it.
fn pairs() -> Vec<(Algorithm, EncodingKey, Json)> {
    let ec = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let ed = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let pair = |algorithm, key: EncodingKey| {
        let jwk = Jwk::from_encoding_key(&key, algorithm).unwrap();
        (algorithm, key, serde_json::to_value(jwk).unwrap())
    };
    let ed25519 = json!({ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(ed.public_key_raw()) });
    vec![
        pair(Algorithm::ES256, EncodingKey::from_ec_der(&ec.serialize_der())),
        pair(Algorithm::ES384, EncodingKey::from_ec_der(&p384.serialize_der())),
        (Algorithm::EdDSA, EncodingKey::from_ed_der(&ed.serialize_der()), ed25519),
    ]
}

fn signed(algorithm: Algorithm, key: &EncodingKey) -> String {
    let header = jsonwebtoken::Header::new(algorithm);
    jsonwebtoken::encode(&header, &json!({ "sub": "ann", "exp": NOW }), key).unwrap()
}

fn set(keys: &[Json]) -> Result<KeySet, String> {
    KeySet::read(json!({ "keys": keys }).to_string().as_bytes())
}

#[test]
fn a_signature_is_good_by_its_own_key_alone() {
    let pairs = pairs();
    for (algorithm, key, jwk) in &pairs {
        let text = signed(*algorithm, key);
        let token = Token::read(&text).unwrap();
        assert!(token.is_signed_by(&set(std::slice::from_ref(jwk)).unwrap()), "{algorithm:?}");
        let others: Vec<_> = pairs.iter().filter(|(other, ..)| other != algorithm).map(|it| it.2.clone()).collect();
        assert!(!token.is_signed_by(&set(&others).unwrap()), "{algorithm:?}");
        let (signed, signature) = text.rsplit_once('.').unwrap();
        let (header, _) = signed.split_once('.').unwrap();
        let other = URL_SAFE_NO_PAD.encode(json!({ "sub": "root", "exp": NOW }).to_string());
        let forged = format!("{header}.{other}.{signature}");
        assert!(!Token::read(&forged).unwrap().is_signed_by(&set(std::slice::from_ref(jwk)).unwrap()));
        let cut = format!("{signed}.");
        assert!(!Token::read(&cut).unwrap().is_signed_by(&set(std::slice::from_ref(jwk)).unwrap()));
    }
}

/// RFC 8725, section 2.1: the public key, which everybody knows, taken for a secret.
#[test]
fn a_public_key_is_never_taken_for_a_secret() {
    for (_, _, jwk) in pairs() {
        let keys = set(std::slice::from_ref(&jwk)).unwrap();
        let secrets = ["x", "y", "n"].iter().filter_map(|part| jwk.get(*part)?.as_str());
        for secret in secrets.flat_map(|text| [text.as_bytes().to_vec(), URL_SAFE_NO_PAD.decode(text).unwrap()]) {
            for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                let text = signed(algorithm, &EncodingKey::from_secret(&secret));
                assert!(!Token::read(&text).unwrap().is_signed_by(&keys), "{algorithm:?}");
            }
        }
    }
}

#[test]
fn a_set_holds_only_keys_that_verify_and_are_public() {
    let [(_, key, jwk), ..] = &pairs()[..] else { panic!() };
    let text = signed(Algorithm::ES256, key);
    let token = Token::read(&text).unwrap();
    let with = |name: &str, value: Json| {
        let mut jwk = jwk.clone();
        jwk[name] = value;
        jwk
    };
    assert!(token.is_signed_by(&set(&[with("use", json!("sig"))]).unwrap()));
    assert!(token.is_signed_by(&set(&[json!({ "kty": "unheard-of" }), with("kid", json!("other"))]).unwrap()));
    for useless in [
        with("use", json!("enc")),
        with("alg", json!("RS256")),
        with("key_ops", json!(["sign"])),
        with("crv", json!("P-521")),
        json!({ "kty": "oct", "k": "c2VjcmV0" }),
    ] {
        let refused = set(std::slice::from_ref(&useless)).unwrap_err();
        assert!(refused.starts_with("none of its keys"), "{useless}: {refused}");
    }
    for (bytes, why) in [("{}", "it has no list `keys`"), ("[]", "it has no list `keys`"), ("<html>", "it is not JSON")]
    {
        assert!(KeySet::read(bytes.as_bytes()).unwrap_err().starts_with(why), "{bytes}");
    }
}

#[test]
fn a_claim_is_text_or_nothing() {
    let said = claims(json!({
        "name": "Ann", "age": 7, "admin": true, "roles": ["a", "b"], "mixed": ["a", {}], "sly": ["a,admin"], "none": null,
        "realm": { "roles": ["x"], "deep": { "er": 1 } }, "https://a.b/c": "url",
    }));
    for (name, text) in [
        ("name", Some("Ann")),
        ("age", Some("7")),
        ("admin", Some("true")),
        ("roles", Some("a,b")),
        ("mixed", None),
        ("sly", None),
        ("none", None),
        ("realm", None),
        ("realm.roles", Some("x")),
        ("realm.deep.er", Some("1")),
        ("https://a.b/c", Some("url")),
        ("nothing", None),
    ] {
        assert_eq!(claim(&said, name).as_deref(), text, "{name}");
    }
}

proptest! {
    #[test]
    fn no_token_and_no_set_makes_it_panic(text in "[ -~]{0,80}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Token::read(&text);
        let _ = Token::read(&format!("{}.{}.{text}", URL_SAFE_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&text)));
        let _ = KeySet::read(&bytes);
    }
}

#[test]
fn what_is_known_outlives_a_reload_for_those_who_ask_the_same() {
    let (tokens, library, fetched) = (Tokens::default(), Library::default(), FetchedKeys::default());
    let config = |secret: &str, audience: &[&str]| config::Jwt {
        keys: JwtKeys::Secret(Secret::new(secret.as_bytes())),
        algorithms: vec![Algorithm::HS256],
        issuer: None,
        audience: audience.iter().map(|&name| name.to_owned()).collect(),
        skew: Duration::from_secs(60),
        refresh: Duration::from_secs(600),
    };
    let at = |config: &config::Jwt| tokens.at(config, &library, &fetched).unwrap();
    let first = at(&config("one", &["a"]));
    assert!(Arc::ptr_eq(&first, &at(&config("one", &["a"]))));
    assert!(!Arc::ptr_eq(&first, &at(&config("two", &["a"]))));
    assert!(!Arc::ptr_eq(&first, &at(&config("one", &["b"]))));
}
