//! How do we speak TLS to a backend? The files of an upstream's `tls`, read once, in the form that Pingora takes.
//!
//! Requests and probes share one [`PeerTls`], so that a backend that passes its probes can be spoken to. Reading files
//! blocks: do it when a configuration is loaded.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::{HttpPeer, PeerOptions};
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::{Target, UpstreamTls};

use super::Backend;

/// TLS towards the backends of one upstream.
#[derive(Clone, Debug)]
pub struct PeerTls {
    verify: bool,
    server_name: Option<String>,
    ca: Option<Arc<CaType>>,
    client: Option<Arc<CertKey>>,
}

/// Why an upstream's TLS files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PeerTlsError {
    /// The file cannot be read, or is not PEM.
    #[error("{path}: {source}", path = path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// The file holds no certificate.
    #[error("{path}: no certificate in it", path = .0.display())]
    NoCertificate(PathBuf),
    /// A certificate in the file is broken.
    #[error("{path}: a certificate in it cannot be read", path = .0.display())]
    BadCertificate(PathBuf),
    /// No stand-in authority could be made.
    #[error("cannot make a stand-in authority: {0}")]
    StandIn(#[from] rcgen::Error),
}

impl PeerTls {
    /// Reads the files that the configuration names.
    pub fn load(config: &UpstreamTls) -> Result<Self, PeerTlsError> {
        let ca = match &config.ca {
            Some(path) => Some(authorities(path)?),
            None if config.verify => None,
            None => Some(stand_in()?),
        };
        let client = config.client.as_ref().map(|files| {
            let chain = certificates(&files.cert)?;
            let key = PrivateKeyDer::from_pem_file(&files.key)
                .map_err(|source| PeerTlsError::Pem { path: files.key.clone(), source })?;
            Ok::<_, PeerTlsError>(Arc::new(CertKey::new(chain, key.secret_der().to_vec())))
        });
        Ok(Self { verify: config.verify, server_name: config.server_name.clone(), ca, client: client.transpose()? })
    }

    /// The name to send in SNI and to verify. Without one in the configuration it is the URL's host; an IP address
    /// is verified too, but never sent (RFC 6066, section 3).
    pub fn server_name(&self, backend: &Backend) -> String {
        if let Some(name) = &self.server_name {
            return name.clone();
        }
        match &backend.target {
            Target::Address(address) => address.ip().to_string(),
            Target::Name { host, .. } => host.to_string(),
            Target::Unix(_) => "localhost".to_owned(),
        }
    }

    /// Puts all of this into a peer, which must have been made with [`PeerTls::server_name`].
    pub fn apply(&self, peer: &mut HttpPeer) {
        self.apply_options(&mut peer.options);
        peer.client_cert_key = self.client.clone();
    }

    /// Whether the system's authorities are needed.
    pub fn needs_system_roots(&self) -> bool {
        self.ca.is_none()
    }

    fn apply_options(&self, options: &mut PeerOptions) {
        options.verify_cert = self.verify;
        options.verify_hostname = self.verify;
        options.ca = self.ca.clone();
    }
}

/// The certificates of a PEM file, each one known to be readable: Pingora would panic on one that is not.
fn certificates(path: &Path) -> Result<Vec<Vec<u8>>, PeerTlsError> {
    let pem = |source| PeerTlsError::Pem { path: path.to_owned(), source };
    let found: Vec<_> = CertificateDer::pem_file_iter(path).map_err(pem)?.collect::<Result<_, _>>().map_err(pem)?;
    if found.is_empty() {
        return Err(PeerTlsError::NoCertificate(path.to_owned()));
    }
    if found.iter().any(|der| X509Certificate::from_der(der).is_err()) {
        return Err(PeerTlsError::BadCertificate(path.to_owned()));
    }
    Ok(found.into_iter().map(|der| der.to_vec()).collect())
}

fn authorities(path: &Path) -> Result<Arc<CaType>, PeerTlsError> {
    let wrapped: Vec<_> = certificates(path)?.into_iter().map(|der| WrappedX509::new(der, parse_x509)).collect();
    Ok(wrapped.into())
}

/// Pingora cannot build a verifier from an empty list of authorities, not even one that verifies nothing, so without
/// verification a machine that has none installed could not speak TLS at all.
fn stand_in() -> Result<Arc<CaType>, PeerTlsError> {
    let made = rcgen::generate_simple_self_signed(Vec::new())?;
    Ok(vec![WrappedX509::new(made.cert.der().to_vec(), parse_x509)].into())
}
