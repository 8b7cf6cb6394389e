//! Certificates made on the spot, and rustls settings for both ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::any_server::AnyServer;

/// A self-signed certificate and its key.
pub struct Certificate {
    pub cert_pem: String,
    pub key_pem: String,
    pub cert: CertificateDer<'static>,
    key: Vec<u8>,
}

/// What a client shows and asks for in its handshake.
#[derive(Default)]
pub struct Offer<'a> {
    pub alpn: &'a [&'a str],
    pub certificate: Option<&'a Certificate>,
    pub versions: Option<&'a [&'static SupportedProtocolVersion]>,
}

impl Certificate {
    /// Self-signed, for these names or addresses, with an ECDSA key.
    pub fn for_names(names: &[&str]) -> Self {
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        Certificate {
            cert_pem: made.cert.pem(),
            key_pem: made.signing_key.serialize_pem(),
            cert: made.cert.der().clone(),
            key: made.signing_key.serialize_der(),
        }
    }

    /// Self-signed and numbered 7, of somebody with this common name.
    pub fn of(name: &str) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, rcgen::DnValue::Utf8String(name.to_owned()));
        params.serial_number = Some(vec![7].into());
        let made = params.self_signed(&key).unwrap();
        let (cert_pem, cert) = (made.pem(), made.der().clone());
        Certificate { cert_pem, key_pem: key.serialize_pem(), cert, key: key.serialize_der() }
    }

    /// The SHA-256 of the certificate, in hexadecimal.
    pub fn fingerprint(&self) -> String {
        let digest = ::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA256, &self.cert);
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Writes `NAME.pem` and `NAME.key` into a folder.
    pub fn save(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (cert, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        std::fs::write(&cert, &self.cert_pem).unwrap();
        std::fs::write(&key, &self.key_pem).unwrap();
        (cert, key)
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.clone()).unwrap()
    }
}

/// A server that shows this certificate and takes any client.
pub fn server(certificate: &Certificate, alpn: &[&str]) -> Arc<ServerConfig> {
    serving(certificate, WebPkiClientVerifier::no_client_auth(), alpn)
}

/// A server that shows the first certificate, and takes no client but one that shows the second.
pub fn server_for(certificate: &Certificate, client: &Certificate, alpn: &[&str]) -> Arc<ServerConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(client.cert.clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider()).build().unwrap();
    serving(certificate, verifier, alpn)
}

fn serving(certificate: &Certificate, clients: Arc<dyn ClientCertVerifier>, alpn: &[&str]) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![certificate.cert.clone()], certificate.key())
        .unwrap();
    config.alpn_protocols = protocols(alpn);
    Arc::new(config)
}

/// A client that takes any server: what the front door shows is for the test to judge.
pub fn client(offer: &Offer<'_>) -> Arc<ClientConfig> {
    let versions = offer.versions.unwrap_or(rustls::DEFAULT_VERSIONS);
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider())));
    let mut config = match offer.certificate {
        Some(own) => builder.with_client_auth_cert(vec![own.cert.clone()], own.key()).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols(offer.alpn);
    Arc::new(config)
}

// Named here, not taken from the process: a test must not depend on whether the front door installed it before.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn protocols(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}
