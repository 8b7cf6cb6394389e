//! Who is let in by a signed token? JSON Web Tokens through the front door, with keys from files, URLs and secrets.

use crate::support;

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value as Json, json};
use support::backend::response;
use support::{Act, Backend, Lb, Script};

/// An issuer of tokens with one key.
struct Issuer {
    id: &'static str,
    key: EncodingKey,
}

impl Issuer {
    fn new(id: &'static str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        Self { id, key: EncodingKey::from_ec_der(&pair.serialize_der()) }
    }

    fn jwks(&self) -> String {
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&self.key, Algorithm::ES256).unwrap()).unwrap();
        jwk["kid"] = json!(self.id);
        json!({ "keys": [jwk] }).to_string()
    }

    fn token(&self, mut claims: Json) -> String {
        let header = Header { kid: Some(self.id.to_owned()), ..Header::new(Algorithm::ES256) };
        if claims.get("exp").is_none() {
            claims["exp"] = json!(in_seconds(600));
        }
        jsonwebtoken::encode(&header, &claims, &self.key).unwrap()
    }
}

fn in_seconds(seconds: i64) -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 + seconds
}

fn get(token: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nX-Org: forged\r\n\r\n")
}

async fn with_file(backend: &Backend, issuer: &Issuer, more: &str) -> Lb {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("jwks.json"), issuer.jwks()).unwrap();
    let auth = format!("auth: {{ jwt: {{ jwks: jwks.json{more} }}, headers: {{ X-User: name, X-Org: claim:org }} }}");
    Lb::with_backends([backend]).yaml_route(&auth).try_start_in(folder).await.unwrap()
}

#[tokio::test]
async fn whoever_has_a_good_token_comes_in_and_the_backend_learns_its_claims() {
    let (backend, issuer) = (Backend::answering(200, "in"), Issuer::new("k1"));
    let lb = with_file(&backend, &issuer, "").await;
    let token = issuer.token(json!({ "sub": "ann", "org": "acme" }));
    for _ in 0..2 {
        assert_eq!(lb.send(&get(&token)).await.status, 200);
    }
    assert_eq!(lb.send(&get(&issuer.token(json!({ "sub": "bob", "org": "line\nbreak" })))).await.status, 200);
    let received = backend.received();
    let told = |at: usize, name: &str| received[at].field(name).map(str::to_owned);
    assert_eq!((told(1, "x-user"), told(1, "x-org")), (Some("ann".into()), Some("acme".into())));
    assert_eq!(told(1, "authorization"), Some(format!("Bearer {token}")), "backends read tokens themselves");
    assert_eq!((told(2, "x-user"), told(2, "x-org")), (Some("bob".into()), None));
    assert_eq!(lb.access_log(3).await[0]["identity"], "ann");
}

#[tokio::test]
async fn whoever_has_none_is_told_no_more_than_that() {
    let (backend, issuer) = (Backend::answering(200, "in"), Issuer::new("k1"));
    let lb = with_file(&backend, &issuer, ", issuer: us, audience: [api], algorithms: [ES256]").await;
    let ours = json!({ "sub": "ann", "iss": "us", "aud": "api" });
    let with = |name: &str, value: Json| {
        let mut claims = ours.clone();
        claims[name] = value;
        issuer.token(claims)
    };
    let good = issuer.token(ours.clone());
    assert_eq!(lb.send(&get(&good)).await.status, 200);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let claims = signed.split_once('.').unwrap().1;
    let shared = EncodingKey::from_secret(issuer.jwks().as_bytes());
    let confused = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &ours, &shared).unwrap();
    let bad = [
        with("exp", json!(in_seconds(-61))),
        with("nbf", json!(in_seconds(120))),
        with("iss", json!("them")),
        with("aud", json!("web")),
        Issuer::new("k1").token(ours.clone()),
        // {"alg":"none"}, with and without a signature.
        format!("eyJhbGciOiJub25lIn0.{claims}."),
        format!("eyJhbGciOiJub25lIn0.{claims}.{signature}"),
        confused,
        format!("{signed}."),
        signed.to_owned(),
        format!("{good}x"),
        "x".repeat(30_000),
    ];
    for token in &bad {
        let answer = lb.send(&get(token)).await;
        let expected = (401, Some("Bearer realm=\"restricted\""), "401 Unauthorized: valid credentials are needed\n");
        assert_eq!((answer.status, answer.field("www-authenticate"), answer.text().as_str()), expected, "{token:.80}");
    }
    assert_eq!(backend.requests(), 1);
    assert_eq!(lb.send(&get(&good)).await.status, 200);
}

#[tokio::test]
async fn a_shared_secret_verifies_what_was_signed_with_it() {
    let backend = Backend::answering(200, "in");
    let secret = "0123456789abcdef0123456789abcdef";
    let auth = format!("auth: {{ jwt: {{ secret: {secret} }}, keep: false }}");
    let lb = Lb::with_backends([&backend]).yaml_route(&auth).start().await;
    let signed = |algorithm, secret: &str| {
        let claims = json!({ "sub": "ann", "exp": in_seconds(9) });
        jsonwebtoken::encode(&Header::new(algorithm), &claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
    };
    assert_eq!(lb.send(&get(&signed(Algorithm::HS256, secret))).await.status, 200);
    assert_eq!(backend.only_request().field("authorization"), None);
    assert_eq!(lb.send(&get(&signed(Algorithm::HS512, secret))).await.status, 401, "only what is configured is good");
    assert_eq!(lb.send(&get(&signed(Algorithm::HS256, &secret.replace('0', "1")))).await.status, 401);
}

#[tokio::test]
async fn a_changed_file_of_keys_counts_and_a_broken_one_does_not() {
    let backend = Backend::answering(200, "in");
    let (old, new) = (Issuer::new("k1"), Issuer::new("k2"));
    let lb = with_file(&backend, &old, "").await;
    let (by_old, by_new) = (old.token(json!({ "sub": "a" })), new.token(json!({ "sub": "a" })));
    let file = lb.folder().join("jwks.json");
    for (contents, statuses) in [("{}".to_owned(), (200, 401)), (new.jwks(), (401, 200))] {
        fs::write(&file, contents).unwrap();
        lb.front().reread_files();
        assert_eq!((lb.send(&get(&by_old)).await.status, lb.send(&get(&by_new)).await.status), statuses);
    }
}

/// An issuer that publishes one set of keys after the other, and the route that believes it.
async fn with_url(publishes: impl IntoIterator<Item = (u16, String)>, backend: &Backend) -> (Backend, Lb) {
    let answers = publishes.into_iter().map(|(status, set)| vec![Act::Write(response(status, &[], &set)), Act::Close]);
    let published = Backend::scripted(Script::each(answers));
    let auth = format!("auth: {{ jwt: {{ jwks: \"http://{}/jwks.json\" }} }}", published.address());
    let lb = Lb::with_backends([backend]).yaml_route(&auth).start().await;
    (published, lb)
}

#[tokio::test]
async fn a_new_key_of_the_issuer_is_fetched_when_a_token_names_it() {
    let backend = Backend::answering(200, "in");
    let (old, new) = (Issuer::new("k1"), Issuer::new("k2"));
    let (published, lb) = with_url([(200, old.jwks()), (200, new.jwks())], &backend).await;
    let by_old = old.token(json!({ "sub": "a" }));
    assert_eq!(lb.send(&get(&by_old)).await.status, 200, "fetched before the door opened");
    assert_eq!(lb.send(&get(&new.token(json!({ "sub": "a" })))).await.status, 200);
    assert_eq!(lb.send(&get(&by_old)).await.status, 401, "a key that is gone is none, whoever is known by it");
    for stranger in 0..20 {
        let token = Issuer::new("unheard-of").token(json!({ "sub": stranger.to_string() }));
        assert_eq!(lb.send(&get(&token)).await.status, 401);
    }
    assert_eq!(published.requests(), 2, "strangers do not make us ask the issuer again and again");
}

#[tokio::test]
async fn keys_that_were_good_stay_and_without_any_nobody_is_judged() {
    let backend = Backend::answering(200, "in");
    let issuer = Issuer::new("k1");
    let (published, lb) = with_url([(200, issuer.jwks()), (500, String::new())], &backend).await;
    assert_eq!(lb.send(&get(&Issuer::new("k2").token(json!({})))).await.status, 401);
    published.until_requests(2).await;
    assert_eq!(lb.send(&get(&issuer.token(json!({ "sub": "a" })))).await.status, 200);

    let (published, lb) = with_url([(200, "<html>".to_owned()), (200, issuer.jwks())], &backend).await;
    let answer = lb.send(&get(&issuer.token(json!({ "sub": "a" })))).await;
    // It may have asked again meanwhile.
    assert!(answer.status == 503 || published.requests() > 1, "{}", answer.status);
    published.until_requests(2).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while lb.send(&get(&issuer.token(json!({ "sub": "a" })))).await.status != 200 {
        assert!(tokio::time::Instant::now() < deadline, "it heals by itself");
    }
}
