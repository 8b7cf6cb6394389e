//! Are these two PEM texts a certificate and its key, and what do they say?
//!
//! The same reading serves `check`, the start and a reload, so a file that passed the check can be served. It verifies
//! no chain and no date: whether clients trust a certificate is theirs to say.

use std::net::IpAddr;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// A certificate with its key.
#[derive(Debug)]
pub struct Certificate {
    /// The chain, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's private key.
    pub key: PrivateKeyDer<'static>,
    /// The DNS names and IP addresses that the leaf is for; its common name if it lists none.
    pub names: Vec<String>,
    /// When the leaf expires, in seconds since 1970.
    pub not_after: i64,
}

/// Why PEM text cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The text that should hold certificates is no PEM.
    #[error("the certificate is not PEM text: {0}")]
    NotPem(pem::Error),
    /// The text holds no certificate.
    #[error("there is no certificate in it")]
    NoCertificate,
    /// The certificate itself is damaged.
    #[error("the certificate cannot be read: it is not X.509")]
    NotX509,
    /// The text that should hold a private key does not.
    #[error("there is no private key in it that can be read")]
    NoKey,
    /// The key is of a kind that is not supported.
    #[error("its private key is of a kind that TLS here does not know")]
    UnknownKey,
    /// The key belongs to another certificate.
    #[error("the key does not belong to the certificate")]
    KeyMismatch,
    /// The text holds no revocation list.
    #[error("there is no revocation list in it")]
    NoRevocationList,
}

impl CertificateError {
    /// Whether the file with the key is at fault, not the one with the certificate.
    pub fn is_about_the_key(&self) -> bool {
        match self {
            Self::NoKey | Self::UnknownKey | Self::KeyMismatch => true,
            Self::NotPem(_) | Self::NoCertificate | Self::NotX509 | Self::NoRevocationList => false,
        }
    }
}

/// Reads a chain and its key, and makes sure that they belong together.
pub fn read(cert_pem: &[u8], key_pem: &[u8]) -> Result<Certificate, CertificateError> {
    let chain = chain(cert_pem)?;
    let (_, leaf) = X509Certificate::from_der(&chain[0]).map_err(|_| CertificateError::NotX509)?;
    let (names, not_after) = (names(&leaf), leaf.validity().not_after.timestamp());
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| CertificateError::NoKey)?;
    let signing = any_supported_type(&key).map_err(|_| CertificateError::UnknownKey)?;
    let pair = CertifiedKey::new(chain, signing);
    match pair.keys_match() {
        // A key that cannot tell its public half is none of ours; rustls finds out in the handshake.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
        Err(_) => return Err(CertificateError::KeyMismatch),
    }
    Ok(Certificate { chain: pair.cert, key, names, not_after })
}

/// Reads certificates: at least one, each of them X.509.
pub fn chain(cert_pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert_pem).collect();
    let chain = chain.map_err(CertificateError::NotPem)?;
    if chain.is_empty() {
        return Err(CertificateError::NoCertificate);
    }
    if chain.iter().any(|der| X509Certificate::from_der(der).is_err()) {
        return Err(CertificateError::NotX509);
    }
    Ok(chain)
}

/// Reads revocation lists: at least one.
pub fn revocation_lists(pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, CertificateError> {
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    let lists = lists.map_err(CertificateError::NotPem)?;
    if lists.is_empty() { Err(CertificateError::NoRevocationList) } else { Ok(lists) }
}

fn names(leaf: &X509Certificate<'_>) -> Vec<String> {
    let extension = leaf.subject_alternative_name().ok().flatten();
    let listed = extension.iter().flat_map(|extension| &extension.value.general_names);
    let names: Vec<String> = listed.filter_map(name).collect();
    if !names.is_empty() {
        return names;
    }
    let common = leaf.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    common.map(str::to_owned).collect()
}

fn name(general: &GeneralName<'_>) -> Option<String> {
    if let GeneralName::DNSName(name) = general {
        return Some(name.to_ascii_lowercase());
    }
    if let GeneralName::IPAddress(bytes) = general {
        let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
        let v6 = <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
        return v4.or(v6).ok().map(|ip| ip.to_string());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn a_certificate_and_its_key_are_read_with_names_and_date() {
        let (cert, key) = made(&["Example.com", "*.example.com", "127.0.0.1"]);
        let read = read(cert.as_bytes(), key.as_bytes()).unwrap();
        assert_eq!(read.names, ["example.com", "*.example.com", "127.0.0.1"]);
        assert!(read.not_after > 2_000_000_000);
        assert_eq!(read.chain.len(), 1);
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let ((cert, _), (_, key)) = (made(&["a"]), made(&["b"]));
        assert!(matches!(read(cert.as_bytes(), key.as_bytes()), Err(CertificateError::KeyMismatch)));
    }

    #[test]
    fn a_certificate_that_lists_no_names_is_for_its_common_name() {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "old.example.com");
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap().pem();
        assert_eq!(read(cert.as_bytes(), key.serialize_pem().as_bytes()).unwrap().names, ["old.example.com"]);
    }

    #[test]
    fn a_revocation_list_is_read() {
        let key = rcgen::KeyPair::generate().unwrap();
        let issuer = rcgen::Issuer::new(rcgen::CertificateParams::default(), key);
        let list = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2026, 1, 1),
            next_update: rcgen::date_time_ymd(2027, 1, 1),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let pem = list.signed_by(&issuer).unwrap().pem().unwrap();
        assert_eq!(revocation_lists(pem.as_bytes()).unwrap().len(), 1);
    }

    #[test]
    fn what_is_no_certificate_or_no_key_is_refused() {
        let (cert, key) = made(&["a"]);
        assert!(matches!(read(b"hello", key.as_bytes()), Err(CertificateError::NoCertificate)));
        assert!(matches!(read(cert.as_bytes(), b"hello"), Err(CertificateError::NoKey)));
        let damaged = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(read(damaged, key.as_bytes()), Err(CertificateError::NotX509)));
        assert!(matches!(revocation_lists(cert.as_bytes()), Err(CertificateError::NoRevocationList)));
    }
}
