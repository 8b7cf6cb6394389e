//! What is in a certificate file? The chain, the key, the names and the last day.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A certificate with its key, read but not yet trusted to belong together.
#[derive(Debug)]
pub struct Certificate {
    /// The chain, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key of the leaf.
    pub key: PrivateKeyDer<'static>,
    /// The names of the leaf, in lower case, wildcards and IP addresses among them.
    pub names: Vec<String>,
    /// When the leaf ends.
    pub not_after: SystemTime,
}

/// What is wrong with the contents of a certificate's files.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CertificateError {
    /// The certificate file is not PEM.
    #[error("the certificate file cannot be read: {0}")]
    ChainPem(String),
    /// It is PEM, but holds no certificate.
    #[error("the certificate file holds no certificate")]
    NoCertificate,
    /// The leaf is not X.509.
    #[error("the certificate cannot be read: {0}")]
    Malformed(String),
    /// The key file holds no key that we know.
    #[error("the key file holds no private key that can be read: {0}")]
    Key(String),
}

/// Reads the PEM of a chain and of its key.
pub fn read(cert_pem: &[u8], key_pem: &[u8]) -> Result<Certificate, CertificateError> {
    let chain = read_chain(cert_pem)?;
    let leaf = chain.first().ok_or(CertificateError::NoCertificate)?;
    let (names, not_after) = inspect(leaf)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| CertificateError::Key(pem_words(&error)))?;
    Ok(Certificate { chain, key, names, not_after })
}

/// Reads all certificates of a PEM file; there may be none.
pub fn read_chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    certificates.map_err(|error| CertificateError::ChainPem(pem_words(&error)))
}

/// What is wrong with a PEM file, without any of its bytes: they may be a key's.
fn pem_words(error: &pem::Error) -> String {
    let words = if let pem::Error::MissingSectionEnd { .. } = error {
        "a section has no end"
    } else if let pem::Error::IllegalSectionStart { .. } = error {
        "a section has no beginning"
    } else if let pem::Error::Base64Decode(_) = error {
        "a section is not base64"
    } else if let pem::Error::NoItemsFound = error {
        "nothing of that kind was found"
    } else {
        "it is not PEM"
    };
    words.to_owned()
}

fn inspect(leaf: &CertificateDer<'_>) -> Result<(Vec<String>, SystemTime), CertificateError> {
    let malformed = |error: &dyn std::fmt::Display| CertificateError::Malformed(error.to_string());
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|error| malformed(&error))?;
    let ends = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default();
    let alternatives = certificate.subject_alternative_name().map_err(|error| malformed(&error))?;
    let names = match alternatives {
        Some(names) => names.value.general_names.iter().filter_map(name_of).collect(),
        // Browsers have ignored the common name for years, but certificates made by hand often have nothing else.
        None => certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok()).map(lower).collect(),
    };
    Ok((names, UNIX_EPOCH + Duration::from_secs(ends)))
}

fn name_of(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(lower(name)),
        GeneralName::IPAddress(bytes) => address(bytes),
        GeneralName::OtherName(..)
        | GeneralName::RFC822Name(_)
        | GeneralName::X400Address(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EDIPartyName(_)
        | GeneralName::URI(_)
        | GeneralName::RegisteredID(_) => None,
    }
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|octets| std::net::IpAddr::from(octets).to_string());
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|octets| std::net::IpAddr::from(octets).to_string())).ok()
}

fn lower(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}
