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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Seat;
    use crate::config::{self, CertificateFiles};

    fn settings() -> UpstreamTls {
        UpstreamTls { verify: true, ca: None, server_name: None, client: None }
    }

    fn backend(target: Target) -> Backend {
        let config = config::Backend {
            name: "b".into(),
            target,
            tls: true,
            weight: 1,
            tier: 0,
            limits: config::Limits::default(),
            send_proxy: None,
            drained: false,
        };
        Backend::new(&"app".into(), &config, Seat(0))
    }

    /// What is said about a file with this content, as an authority and as a client certificate.
    fn complaints(content: &str) -> [String; 2] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file.pem");
        std::fs::write(&path, content).unwrap();
        let files = CertificateFiles { cert: path.clone(), key: path.clone() };
        [UpstreamTls { ca: Some(path), ..settings() }, UpstreamTls { client: Some(files), ..settings() }].map(|tls| {
            let problem = PeerTls::load(&tls).unwrap_err().to_string();
            problem.replace(&dir.path().display().to_string(), "DIR")
        })
    }

    #[test]
    fn a_file_without_a_certificate_is_told_by_its_path() {
        assert_eq!(complaints(""), ["DIR/file.pem: no certificate in it", "DIR/file.pem: no certificate in it"]);
    }

    #[test]
    fn a_broken_certificate_is_an_error_and_no_panic() {
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(complaints(broken).iter().all(|problem| problem == "DIR/file.pem: a certificate in it cannot be read"));
        let garbled = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        assert!(complaints(garbled).iter().all(|problem| problem.starts_with("DIR/file.pem: ")));
    }

    #[test]
    fn a_certificate_without_its_key_is_refused() {
        let made = rcgen::generate_simple_self_signed(["client".to_owned()]).unwrap();
        let [as_authority, as_client] = {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("cert.pem");
            std::fs::write(&path, made.cert.pem()).unwrap();
            let files = CertificateFiles { cert: path.clone(), key: path.clone() };
            [UpstreamTls { ca: Some(path), ..settings() }, UpstreamTls { client: Some(files), ..settings() }]
                .map(|tls| PeerTls::load(&tls))
        };
        assert!(as_authority.is_ok());
        assert!(matches!(as_client, Err(PeerTlsError::Pem { .. })));
    }

    #[test]
    fn the_server_name_is_the_urls_host_unless_given() {
        let tls = PeerTls::load(&settings()).unwrap();
        let named = backend(Target::Name { host: "app.internal".into(), port: 8443 });
        assert_eq!(tls.server_name(&named), "app.internal");
        assert_eq!(tls.server_name(&backend(Target::Address("[::1]:1".parse().unwrap()))), "::1");
        let given = UpstreamTls { server_name: Some("other".into()), ..settings() };
        assert_eq!(PeerTls::load(&given).unwrap().server_name(&named), "other");
    }

    #[test]
    fn the_systems_authorities_are_needed_only_to_verify_without_others() {
        assert!(PeerTls::load(&settings()).unwrap().needs_system_roots());
        assert!(!PeerTls::load(&UpstreamTls { verify: false, ..settings() }).unwrap().needs_system_roots());
    }
}
