//! TLS, as clients see it.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SignatureAlgorithm};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tempfile::TempDir;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::config::{CertificateFiles, ClientAuth, ClientAuthMode, TlsVersion};
use crate::server::tls::install_crypto;

/// An authority, and a directory with the certificates that it made.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    files: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let files = tempfile::tempdir().unwrap();
        std::fs::write(files.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, files }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Makes (or makes anew) the certificate `file` for these names.
    fn sign(&self, file: &str, names: &[&str], kind: &'static SignatureAlgorithm) -> CertificateFiles {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let key = KeyPair::generate_for(kind).unwrap();
        let mut params = CertificateParams::new(names).unwrap();
        params.serial_number = Some(rcgen::SerialNumber::from(7_u64));
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files =
            CertificateFiles { cert: self.path(&format!("{file}.pem")), key: self.path(&format!("{file}.key")) };
        std::fs::write(&files.cert, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    fn ecdsa(&self, file: &str, names: &[&str]) -> CertificateFiles {
        self.sign(file, names, &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        roots
    }

    fn client(&self) -> ClientConfig {
        ClientConfig::builder().with_root_certificates(self.roots()).with_no_client_auth()
    }

    fn client_showing(&self, files: &CertificateFiles) -> ClientConfig {
        let chain = CertificateDer::pem_file_iter(&files.cert).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
        ClientConfig::builder().with_root_certificates(self.roots()).with_client_auth_cert(chain, key).unwrap()
    }
}

fn tls(certificates: Vec<CertificateFiles>) -> Tls {
    Tls { certificates, self_signed: Vec::new(), client_auth: None, min_version: TlsVersion::V1_2 }
}

fn client_auth(ca: &Path, mode: ClientAuthMode, crl: Option<PathBuf>) -> Option<ClientAuth> {
    Some(ClientAuth { ca: ca.to_owned(), mode, crl, headers: Vec::new() })
}

impl Door {
    async fn handshake(&self, config: &Arc<ClientConfig>, name: &str) -> std::io::Result<Raw<TlsStream<TcpStream>>> {
        let tcp = TcpStream::connect(self.tcp()).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connector = TlsConnector::from(config.clone());
        timeout(DEADLINE, connector.connect(name, tcp)).await.expect("a handshake in time").map(Raw)
    }

    /// A handshake and a request, as a client that must have both.
    async fn ask(&self, config: &Arc<ClientConfig>, name: &str) -> String {
        let mut client = self.handshake(config, name).await.unwrap();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.response().await
    }

    /// Whether a request gets through. In TLS 1.3 a client learns only after its handshake that it was refused.
    async fn admits(&self, config: &Arc<ClientConfig>, name: &str) -> bool {
        let Ok(mut client) = self.handshake(config, name).await else { return false };
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        timeout(DEADLINE, client.0.read_u8()).await.expect("an answer in time").is_ok()
    }

    /// Why no request gets through, as the client is told.
    async fn refuses(&self, config: &Arc<ClientConfig>, name: &str) -> String {
        let refusal = match self.handshake(config, name).await {
            Ok(mut client) => timeout(DEADLINE, client.0.read_u8()).await.expect("an answer in time").map(drop),
            Err(error) => Err(error),
        };
        refusal.unwrap_err().to_string()
    }
}

fn leaf(client: &Raw<TlsStream<TcpStream>>) -> Vec<u8> {
    client.0.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

fn kind(client: &Raw<TlsStream<TcpStream>>) -> HandshakeKind {
    client.0.get_ref().1.handshake_kind().unwrap()
}

fn file(path: &Path) -> Vec<u8> {
    CertificateDer::from_pem_file(path).unwrap().to_vec()
}

#[tokio::test]
async fn http1_over_tls_knows_its_connection() {
    let authority = Authority::new();
    let door = Door::with_tls(tls(vec![authority.ecdsa("a", &["a.test"])]));
    let answer = door.ask(&Arc::new(authority.client()), "a.test").await;
    assert!(answer.contains("tls=TLSv1.3 sni=a.test client=false"), "{answer}");
}

#[tokio::test]
async fn http2_is_chosen_by_alpn() {
    let authority = Authority::new();
    let door = Door::with_tls(tls(vec![authority.ecdsa("a", &["a.test"])]));
    let mut config = authority.client();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let client = door.handshake(&Arc::new(config), "a.test").await.unwrap();
    assert_eq!(client.0.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let body = http2_get(client.0).await;
    assert!(body.contains("GET /h2 0 tls=TLSv1.3 sni=a.test"), "{body}");
}

/// One GET over HTTP/2.
pub(super) async fn http2_get(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
) -> String {
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("https://a.test/h2").body(()).unwrap();
    let (response, _) = sender.send_request(request, true).unwrap();
    let mut body = timeout(DEADLINE, response).await.unwrap().unwrap().into_body();
    let mut text = Vec::new();
    while let Some(bytes) = body.data().await {
        text.extend_from_slice(&bytes.unwrap());
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn the_certificate_is_chosen_by_name_exact_then_wildcard_then_first() {
    let authority = Authority::new();
    let first = authority.ecdsa("first", &["first.test"]);
    let wildcard = authority.ecdsa("wildcard", &["*.example.test"]);
    let exact = authority.ecdsa("exact", &["www.example.test"]);
    let door = Door::with_tls(tls(vec![first.clone(), wildcard.clone(), exact.clone()]));
    let config = Arc::new(authority.client());
    for (name, shown) in [("www.example.test", &exact), ("api.example.test", &wildcard), ("first.test", &first)] {
        let client = door.handshake(&config, name).await.unwrap();
        assert_eq!(leaf(&client), file(&shown.cert), "{name}");
    }
    // The first is the default: the client refuses it, as it has another name.
    assert!(door.handshake(&config, "a.b.example.test").await.is_err());
}

#[tokio::test]
async fn of_two_kinds_of_key_the_client_gets_one_that_it_can_verify() {
    let authority = Authority::new();
    let ed25519 = authority.sign("ed25519", &["a.test"], &rcgen::PKCS_ED25519);
    let ecdsa = authority.ecdsa("ecdsa", &["a.test"]);
    let door = Door::with_tls(tls(vec![ed25519.clone(), ecdsa.clone()]));
    let client = door.handshake(&Arc::new(authority.client()), "a.test").await.unwrap();
    assert_eq!(leaf(&client), file(&ecdsa.cert), "ECDSA is preferred");

    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    let only: &[(rustls::SignatureScheme, &[&dyn rustls::pki_types::SignatureVerificationAlgorithm])] =
        Box::leak(Box::new(
            provider
                .signature_verification_algorithms
                .mapping
                .iter()
                .copied()
                .filter(|(scheme, _)| *scheme == rustls::SignatureScheme::ED25519)
                .collect::<Vec<_>>(),
        ));
    provider.signature_verification_algorithms.mapping = only;
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(authority.roots())
        .with_no_client_auth();
    let client = door.handshake(&Arc::new(config), "a.test").await.unwrap();
    assert_eq!(leaf(&client), file(&ed25519.cert));
}

#[tokio::test]
async fn a_ticket_resumes_even_after_the_certificate_was_renewed() {
    let authority = Authority::new();
    let door = Door::with_tls(tls(vec![authority.ecdsa("a", &["a.test"])]));
    let config = Arc::new(authority.client());
    for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let mut client = door.handshake(&config, "a.test").await.unwrap();
        // The tickets come after the handshake, with the first answer.
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.response().await;
        assert_eq!(kind(&client), expected);
        authority.ecdsa("a", &["a.test"]);
        assert!(door.front.tls().unwrap().reload().unwrap());
        assert_eq!(door.front.tls().unwrap().resumed(), u64::from(expected == HandshakeKind::Resumed));
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_new_connections_and_old_ones_go_on() {
    let authority = Authority::new();
    let files = authority.ecdsa("a", &["a.test"]);
    let door = Door::with_tls(tls(vec![files.clone()]));
    let mut config = authority.client();
    config.resumption = rustls::client::Resumption::disabled();
    let config = Arc::new(config);
    let mut old = door.handshake(&config, "a.test").await.unwrap();
    let before = leaf(&old);
    assert!(!door.front.tls().unwrap().reload().unwrap(), "nothing has changed yet");
    authority.ecdsa("a", &["a.test"]);
    assert!(door.front.tls().unwrap().reload().unwrap());
    let new = door.handshake(&config, "a.test").await.unwrap();
    assert_ne!(leaf(&new), before);
    assert_eq!(leaf(&new), file(&files.cert));
    let answer = old.send("GET /old HTTP/1.1\r\nHost: a\r\n\r\n").await.response().await;
    assert!(answer.contains("GET /old"), "{answer}");
}

#[tokio::test]
async fn a_broken_file_keeps_the_old_certificate_and_says_which_file() {
    let authority = Authority::new();
    let files = authority.ecdsa("a", &["a.test"]);
    let door = Door::with_tls(tls(vec![files.clone()]));
    let state = door.front.tls().unwrap();
    std::fs::write(&files.cert, "-----BEGIN CERTIFICATE-----\nno base64!\n").unwrap();
    let problem = state.reload().unwrap_err().to_string();
    assert!(problem.contains("a.pem"), "{problem}");
    let answer = door.ask(&Arc::new(authority.client()), "a.test").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let other = authority.ecdsa("b", &["a.test"]);
    std::fs::copy(&other.cert, &files.cert).unwrap();
    let problem = state.reload().unwrap_err().to_string();
    assert!(problem.contains("a.key"), "the key is of another certificate: {problem}");
    std::fs::copy(&other.key, &files.key).unwrap();
    assert!(state.reload().unwrap());
}

#[tokio::test]
async fn a_required_client_certificate_is_verified() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let mut settings = tls(vec![authority.ecdsa("a", &["a.test"])]);
    settings.client_auth = client_auth(&authority.path("ca.pem"), ClientAuthMode::Require, None);
    let door = Door::with_tls(settings);
    let answer = door.ask(&Arc::new(authority.client_showing(&authority.ecdsa("me", &["me"]))), "a.test").await;
    assert!(answer.contains("client=true"), "{answer}");
    let without = door.refuses(&Arc::new(authority.client()), "a.test").await;
    assert_eq!(without, "received fatal alert: CertificateRequired");
    let unknown = Arc::new(authority.client_showing(&stranger.ecdsa("me", &["me"])));
    // Both authorities have one name, so that it is their signature that is wrong.
    assert_eq!(door.refuses(&unknown, "a.test").await, "received fatal alert: DecryptError");
    assert!(!door.admits(&unknown, "a.test").await);
}

#[tokio::test]
async fn a_requested_client_certificate_may_be_missing() {
    let authority = Authority::new();
    let mut settings = tls(vec![authority.ecdsa("a", &["a.test"])]);
    settings.client_auth = client_auth(&authority.path("ca.pem"), ClientAuthMode::Request, None);
    let door = Door::with_tls(settings);
    let answer = door.ask(&Arc::new(authority.client()), "a.test").await;
    assert!(answer.contains("client=false"), "{answer}");
    let answer = door.ask(&Arc::new(authority.client_showing(&authority.ecdsa("me", &["me"]))), "a.test").await;
    assert!(answer.contains("client=true"), "{answer}");
}

#[tokio::test]
async fn a_revoked_client_certificate_is_refused_even_with_a_ticket() {
    let authority = Authority::new();
    let me = authority.ecdsa("me", &["me"]);
    write_crl(&authority, &[]);
    let mut settings = tls(vec![authority.ecdsa("a", &["a.test"])]);
    settings.client_auth =
        client_auth(&authority.path("ca.pem"), ClientAuthMode::Require, Some(authority.path("crl.pem")));
    let door = Door::with_tls(settings);
    let config = Arc::new(authority.client_showing(&me));
    assert!(door.ask(&config, "a.test").await.contains("client=true"));
    // All certificates of these tests have the serial number 7.
    write_crl(&authority, &[7]);
    assert!(door.front.tls().unwrap().reload().unwrap());
    assert!(!door.admits(&config, "a.test").await);
}

fn write_crl(authority: &Authority, serials: &[u64]) {
    let day = |n: i32| rcgen::date_time_ymd(2026 + n, 1, 1);
    let revoked = |&serial: &u64| rcgen::RevokedCertParams {
        serial_number: serial.into(),
        revocation_time: day(0),
        reason_code: None,
        invalidity_date: None,
    };
    let params = rcgen::CertificateRevocationListParams {
        this_update: day(0),
        next_update: day(50),
        crl_number: 1_u64.into(),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(revoked).collect(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let list = params.signed_by(&authority.issuer).unwrap().pem().unwrap();
    std::fs::write(authority.path("crl.pem"), list).unwrap();
}

#[tokio::test]
async fn a_client_of_an_older_version_is_refused() {
    let authority = Authority::new();
    let mut settings = tls(vec![authority.ecdsa("a", &["a.test"])]);
    install_crypto();
    let old = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS12])
        .with_root_certificates(authority.roots())
        .with_no_client_auth();
    let old = Arc::new(old);
    let door = Door::with_tls(settings.clone());
    assert!(door.ask(&old, "a.test").await.contains("tls=TLSv1.2"));
    settings.min_version = TlsVersion::V1_3;
    let door = Door::with_tls(settings);
    assert_eq!(door.refuses(&old, "a.test").await, "received fatal alert: ProtocolVersion");
}

#[tokio::test]
async fn a_client_whose_records_are_broken_is_told_so() {
    let authority = Authority::new();
    let door = Door::with_tls(tls(vec![authority.ecdsa("a", &["a.test"])]));
    let mut client = door.handshake(&Arc::new(authority.client()), "a.test").await.unwrap();
    let mut record = vec![0x17, 3, 3, 0, 32];
    record.extend([7; 32]);
    client.0.get_mut().0.write_all(&record).await.unwrap();
    let told = timeout(DEADLINE, client.0.read_u8()).await.expect("an answer in time");
    assert_eq!(told.unwrap_err().to_string(), "received fatal alert: BadRecordMac");
}

#[tokio::test]
async fn who_waits_when_we_leave_is_told_that_nothing_more_comes() {
    let authority = Authority::new();
    let door = Door::with_tls(tls(vec![authority.ecdsa("a", &["a.test"])]));
    let mut client = door.handshake(&Arc::new(authority.client()), "a.test").await.unwrap();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.response().await;
    door.stop.send(true).unwrap();
    let mut rest = Vec::new();
    let end = timeout(DEADLINE, client.0.read_to_end(&mut rest)).await.expect("an end in time");
    assert_eq!(end.expect("`close_notify` comes before the end"), 0);
}

#[tokio::test]
async fn a_handshake_that_never_comes_is_cut_and_counted() {
    let authority = Authority::new();
    let mut config = Listener { tls: Some(tls(vec![authority.ecdsa("a", &["a.test"])])), ..listener() };
    config.timeouts.handshake = Duration::from_millis(50);
    let door = Door::open(config);
    let mut client = door.connect().await;
    assert_eq!(client.rest().await, "");
    assert_eq!(door.front.counters().failed_handshakes.get(), [("timeout", 1)]);
}

#[tokio::test]
async fn a_listener_for_http2_alone_refuses_other_clients() {
    let authority = Authority::new();
    let settings = tls(vec![authority.ecdsa("a", &["a.test"])]);
    let door = Door::open(Listener { tls: Some(settings), http2: Http2::Only, ..listener() });
    assert!(!door.admits(&Arc::new(authority.client()), "a.test").await, "a client without ALPN");
    let mut config = authority.client();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let told = door.refuses(&Arc::new(config.clone()), "a.test").await;
    assert_eq!(told, "received fatal alert: NoApplicationProtocol");
    config.alpn_protocols = vec![b"h2".to_vec()];
    let client = door.handshake(&Arc::new(config), "a.test").await.unwrap();
    assert!(http2_get(client.0).await.contains("GET /h2"));
}

#[tokio::test]
async fn a_self_signed_certificate_is_good_for_its_names_and_this_machine() {
    let settings = Tls { self_signed: vec!["dev.test".into()], ..tls(Vec::new()) };
    let door = Door::with_tls(settings);
    let untrusting = Arc::new(Authority::new().client());
    assert!(door.handshake(&untrusting, "dev.test").await.is_err(), "nobody vouches for it");
    let state = door.front.tls().unwrap();
    assert!(state.files().is_empty());
    assert!(!state.reload().unwrap());
}
