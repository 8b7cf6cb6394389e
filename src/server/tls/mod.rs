//! Who are we, to this client? Certificates by name, kept in a rustls configuration that is swapped while we serve.
//!
//! A connection uses the configuration that was current when it arrived, to its end. A file that cannot be read changes
//! nothing. Nothing here touches a socket.

pub(super) mod failure;
mod names;
mod resumption;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, SupportedProtocolVersion, version};
use thiserror::Error;
use xxhash_rust::xxh3::Xxh3;

use crate::config::certificate::{self, Certificate, CertificateError};
use crate::config::{CertificateFiles, ClientAuth, ClientAuthMode, Http2, Tls, TlsVersion};
use crate::count::Count;
use names::{Named, Names};
use resumption::Resumption;

/// What a certificate of our own is called where others are called by their file.
const SELF_SIGNED: &str = "self_signed";

/// How long a certificate of our own is good: it is made anew at each start.
const SELF_SIGNED_DAYS: u64 = 90;

/// Where a developer's browser goes, whatever the names that were asked for.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Why a TLS configuration cannot be built from its files.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A certificate or its key is malformed.
    #[error("{path}: {source}")]
    Certificate {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong.
        source: CertificateError,
    },
    /// The key belongs to another certificate, or is of no use.
    #[error("{key} cannot be used as the key of {cert}: {source}")]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
    /// The authorities for client certificates, or their revocation lists, are of no use.
    #[error("{path}: {what}")]
    ClientAuth {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// No certificate could be made.
    #[error("cannot make a self-signed certificate: {0}")]
    SelfSigned(#[from] rcgen::Error),
    /// rustls refuses.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// Makes aws-lc-rs the process's cryptography, for Pingora's connections to backends too. To be called before any TLS.
pub fn install_crypto() {
    // The first one wins; a second call in the same process means the same thing.
    let _ = aws_lc_rs::default_provider().install_default();
}

/// The TLS of one listener.
#[derive(Debug)]
pub struct TlsState {
    current: ArcSwap<ServerConfig>,
    /// When the certificates of `current` end.
    expiries: ArcSwap<Vec<Expiry>>,
    settings: Tls,
    alpn: Vec<Vec<u8>>,
    kept: Kept,
    /// A hash over all files, as they were when `current` was made.
    fingerprint: Mutex<u64>,
}

/// What outlives a reload.
#[derive(Debug)]
struct Kept {
    provider: Arc<CryptoProvider>,
    resumption: Resumption,
    /// How often somebody came back with a ticket or a session that was good.
    resumed: Arc<Count>,
    self_signed: Option<Named>,
}

/// A certificate that is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// Its file, or `self_signed`.
    pub certificate: String,
    /// What it is for.
    pub names: Vec<String>,
    /// When it ends, in seconds since 1970.
    pub at: i64,
}

impl TlsState {
    /// Reads the files and makes what has to be made.
    pub fn new(settings: &Tls, http2: Http2) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let self_signed = match settings.self_signed.as_slice() {
            [] => None,
            names => Some(self_signed(names, &provider)?),
        };
        let resumed = Arc::default();
        let kept = Kept { provider, resumption: Resumption::new(&resumed)?, resumed, self_signed };
        let files = Files::read(settings)?;
        let (config, expiries) = build(settings, alpn(http2), &kept, &files)?;
        Ok(Self {
            current: ArcSwap::from_pointee(config),
            expiries: ArcSwap::from_pointee(expiries),
            settings: settings.clone(),
            alpn: alpn(http2),
            kept,
            fingerprint: Mutex::new(files.fingerprint()),
        })
    }

    /// The same listener under other settings: sessions go on, as does a self-signed certificate for the same names.
    pub fn with_settings(&self, settings: &Tls) -> Result<Self, TlsError> {
        let kept = &self.kept;
        let self_signed = match settings.self_signed.as_slice() {
            [] => None,
            same if same == self.settings.self_signed => kept.self_signed.clone(),
            names => Some(self_signed(names, &kept.provider)?),
        };
        let kept = Kept {
            provider: kept.provider.clone(),
            resumption: kept.resumption.clone(),
            resumed: kept.resumed.clone(),
            self_signed,
        };
        let files = Files::read(settings)?;
        let (config, expiries) = build(settings, self.alpn.clone(), &kept, &files)?;
        Ok(Self {
            current: ArcSwap::from_pointee(config),
            expiries: ArcSwap::from_pointee(expiries),
            settings: settings.clone(),
            alpn: self.alpn.clone(),
            kept,
            fingerprint: Mutex::new(files.fingerprint()),
        })
    }

    /// The configuration for a connection that arrives now.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// When the certificates that are in use end.
    pub fn expiries(&self) -> Arc<Vec<Expiry>> {
        self.expiries.load_full()
    }

    /// How often a client came back with a ticket or a session that was good.
    pub fn resumed(&self) -> u64 {
        self.kept.resumed.get()
    }

    /// The files that [`TlsState::reload`] reads.
    pub fn files(&self) -> Vec<PathBuf> {
        files_of(&self.settings)
    }

    /// Reads the files again; whether they had changed. An error leaves everything as it was.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let files = Files::read(&self.settings)?;
        let fingerprint = files.fingerprint();
        // Held for the whole of a reload, so that two at once cannot leave the older files in place.
        let mut current = self.fingerprint.lock().unwrap_or_else(PoisonError::into_inner);
        if *current == fingerprint {
            return Ok(false);
        }
        let (config, expiries) = build(&self.settings, self.alpn.clone(), &self.kept, &files)?;
        self.current.store(Arc::new(config));
        self.expiries.store(Arc::new(expiries));
        *current = fingerprint;
        Ok(true)
    }
}

/// The files that these settings name.
pub fn files_of(settings: &Tls) -> Vec<PathBuf> {
    let certificates = settings.certificates.iter().flat_map(|files| [files.cert.clone(), files.key.clone()]);
    let clients = settings.client_auth.iter().flat_map(|auth| [Some(auth.ca.clone()), auth.crl.clone()]);
    certificates.chain(clients.flatten()).collect()
}

/// The contents of all files, in the order of the configuration.
struct Files {
    certificates: Vec<(Vec<u8>, Vec<u8>)>,
    authorities: Vec<u8>,
    revoked: Option<Vec<u8>>,
}

impl Files {
    fn read(settings: &Tls) -> Result<Self, TlsError> {
        let pair = |files: &CertificateFiles| Ok((read_file(&files.cert)?, read_file(&files.key)?));
        let certificates = settings.certificates.iter().map(pair).collect::<Result<_, TlsError>>()?;
        let auth = settings.client_auth.as_ref();
        let authorities = auth.map(|auth| read_file(&auth.ca)).transpose()?.unwrap_or_default();
        let revoked = auth.and_then(|auth| auth.crl.as_deref()).map(read_file).transpose()?;
        Ok(Self { certificates, authorities, revoked })
    }

    fn fingerprint(&self) -> u64 {
        let mut hash = Xxh3::new();
        let pairs = self.certificates.iter().flat_map(|(cert, key)| [cert, key]);
        for file in pairs.chain([&self.authorities]).chain(&self.revoked) {
            hash.update(&file.len().to_le_bytes());
            hash.update(file);
        }
        hash.digest()
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn alpn(http2: Http2) -> Vec<Vec<u8>> {
    let names: &[&str] = match http2 {
        Http2::Off => &["http/1.1"],
        Http2::ByAlpn => &["h2", "http/1.1"],
        Http2::Only => &["h2"],
    };
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

fn build(
    settings: &Tls,
    alpn: Vec<Vec<u8>>,
    kept: &Kept,
    files: &Files,
) -> Result<(ServerConfig, Vec<Expiry>), TlsError> {
    let versions: &[&SupportedProtocolVersion] = match settings.min_version {
        TlsVersion::V1_2 => &[&version::TLS13, &version::TLS12],
        TlsVersion::V1_3 => &[&version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(kept.provider.clone()).with_protocol_versions(versions)?;
    let builder = match &settings.client_auth {
        Some(auth) => builder.with_client_cert_verifier(client_verifier(auth, files, &kept.provider)?),
        None => builder.with_no_client_auth(),
    };
    let certified = certified(settings, kept, files)?;
    let expiries = certified.iter().map(|named| named.expiry.clone()).collect();
    let names = Names::new(certified);
    let mut config = builder.with_cert_resolver(Arc::new(names));
    // A session that resumes skips the check of the client's certificate. So where clients are checked, nothing from
    // before a change may resume: an authority or a certificate may have been taken away.
    let resumption =
        if settings.client_auth.is_some() { Resumption::new(&kept.resumed)? } else { kept.resumption.clone() };
    resumption.put_into(&mut config);
    config.alpn_protocols = alpn;
    Ok((config, expiries))
}

fn certified(settings: &Tls, kept: &Kept, files: &Files) -> Result<Vec<Named>, TlsError> {
    let pairs = settings.certificates.iter().zip(&files.certificates);
    let from_files = pairs.map(|(paths, (cert, key))| {
        let Certificate { chain, key, names, not_after } = certificate::read(cert, key)
            .map_err(|source| TlsError::Certificate { path: at_fault(paths, &source).to_owned(), source })?;
        let key = CertifiedKey::from_der(chain, key, &kept.provider).map_err(|source| TlsError::Pair {
            cert: paths.cert.clone(),
            key: paths.key.clone(),
            source,
        })?;
        let expiry = Expiry { certificate: paths.cert.display().to_string(), names: names.clone(), at: not_after };
        Ok(Named { names, key: Arc::new(key), expiry })
    });
    from_files.chain(kept.self_signed.clone().map(Ok)).collect()
}

fn at_fault<'a>(paths: &'a CertificateFiles, error: &CertificateError) -> &'a Path {
    if error.is_about_the_key() { &paths.key } else { &paths.cert }
}

fn self_signed(names: &[String], provider: &CryptoProvider) -> Result<Named, TlsError> {
    let mut names: Vec<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
    let missing: Vec<_> = LOCAL_NAMES.into_iter().filter(|local| !names.iter().any(|name| name == local)).collect();
    names.extend(missing.into_iter().map(str::to_owned));
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut params = rcgen::CertificateParams::new(names.clone())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, names.first().map_or("localhost", String::as_str));
    let now = SystemTime::now();
    let ends = now + DAY * u32::try_from(SELF_SIGNED_DAYS).unwrap_or(1);
    // A day back, for clients whose clocks are slow.
    params.not_before = (now - DAY).into();
    params.not_after = ends.into();
    let certificate = params.self_signed(&key)?;
    let der = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
    let key = CertifiedKey::from_der(vec![certificate.der().clone()], der.into(), provider)?;
    let at = ends.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let at = i64::try_from(at).unwrap_or(i64::MAX);
    let expiry = Expiry { certificate: SELF_SIGNED.to_owned(), names: names.clone(), at };
    Ok(Named { names, key: Arc::new(key), expiry })
}

fn client_verifier(
    auth: &ClientAuth,
    files: &Files,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let problem = |path: &Path, what: String| TlsError::ClientAuth { path: path.to_owned(), what };
    let mut roots = RootCertStore::empty();
    for authority in certificate::chain(&files.authorities).map_err(|error| problem(&auth.ca, error.to_string()))? {
        roots.add(authority).map_err(|error| problem(&auth.ca, error.to_string()))?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    if let (Some(path), Some(revoked)) = (&auth.crl, &files.revoked) {
        let lists = certificate::revocation_lists(revoked).map_err(|error| problem(path, error.to_string()))?;
        // Of the client's own certificate only: lists for the authorities in between are rarely at hand, and a chain
        // without one would be refused.
        builder = builder.with_crls(lists).only_check_end_entity_revocation();
    }
    builder = match auth.mode {
        ClientAuthMode::Require => builder,
        ClientAuthMode::Request => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| problem(&auth.ca, error.to_string()))
}
