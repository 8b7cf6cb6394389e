//! Can the files that the configuration names be used?
//!
//! They are read while the configuration is checked, so that a start or a reload does not fail on them later.

use std::path::{Path, PathBuf};

use crate::config::certificate::{self, CertificateError};
use crate::config::file::{self, FilePath, Marked};
use crate::config::problem::Problems;
use crate::config::surroundings::Surroundings;
use crate::config::{Address, CertificateFiles, Target};

const FORTNIGHT: i64 = 14 * 86_400;

/// The files around a configuration.
pub(super) struct Files<'a> {
    around: &'a Surroundings,
}

impl<'a> Files<'a> {
    pub(super) fn of(around: &'a Surroundings) -> Self {
        Self { around }
    }

    /// The path, starting in the folder of the configuration if it is relative.
    pub(super) fn joined(&self, path: &FilePath) -> PathBuf {
        self.around.folder.join(&path.0)
    }

    pub(super) fn joined_address(&self, address: &Address) -> Address {
        match address {
            Address::Tcp(socket) => Address::Tcp(*socket),
            Address::Unix(path) => Address::Unix(self.around.folder.join(path)),
        }
    }

    /// Where relative paths start.
    pub(super) fn folder(&self) -> &'a Path {
        &self.around.folder
    }

    /// A directory that must be there.
    pub(super) fn directory(&self, path: &Marked<FilePath>, problems: &mut Problems) -> PathBuf {
        let joined = self.joined(path);
        if !(self.around.has_directory)(&joined) {
            problems.error(&path.at, format!("there is no directory `{}`", joined.display()), "create it first");
        }
        joined
    }

    /// A directory for files of ours, which may be one that is still to be made.
    pub(super) fn kept_in(&self, path: &Marked<FilePath>, problems: &mut Problems) -> PathBuf {
        let joined = self.joined(path);
        if let Err(error) = (self.around.keeps_files)(&joined) {
            let what = format!("no files can be kept in `{}`: {error}", joined.display());
            let help = "name a folder that this user may write to; it is made if only its last part is missing";
            problems.error(&path.at, what, help);
        }
        joined
    }

    /// A certificate and its key.
    pub(super) fn certificate(
        &self,
        cert: &Marked<FilePath>,
        key: &Marked<FilePath>,
        problems: &mut Problems,
    ) -> CertificateFiles {
        let pair = CertificateFiles { cert: self.joined(cert), key: self.joined(key) };
        let texts = (self.read(&pair.cert, cert, problems), self.read(&pair.key, key, problems));
        let (Some(cert_pem), Some(key_pem)) = texts else { return pair };
        match certificate::read(&cert_pem, &key_pem) {
            Ok(read) => self.expiry(&pair.cert, cert, read.not_after, problems),
            Err(error) if error.is_about_the_key() => refuse(&pair.key, key, &error, problems),
            Err(error) => refuse(&pair.cert, cert, &error, problems),
        }
        pair
    }

    /// A file of certificates to trust.
    pub(super) fn authorities(&self, ca: &Marked<FilePath>, problems: &mut Problems) -> PathBuf {
        self.pem(ca, |pem| certificate::chain(pem).map(drop), problems)
    }

    /// A file of revocation lists.
    pub(super) fn revocations(&self, crl: &Marked<FilePath>, problems: &mut Problems) -> PathBuf {
        self.pem(crl, |pem| certificate::revocation_lists(pem).map(drop), problems)
    }

    /// What is in a file.
    pub(super) fn contents(&self, path: &Marked<FilePath>, problems: &mut Problems) -> Option<Vec<u8>> {
        self.read(&self.joined(path), path, problems)
    }

    fn pem(
        &self,
        path: &Marked<FilePath>,
        read: impl Fn(&[u8]) -> Result<(), CertificateError>,
        problems: &mut Problems,
    ) -> PathBuf {
        let joined = self.joined(path);
        if let Some(pem) = self.read(&joined, path, problems)
            && let Err(error) = read(&pem)
        {
            refuse(&joined, path, &error, problems);
        }
        joined
    }

    fn read(&self, path: &Path, from: &Marked<FilePath>, problems: &mut Problems) -> Option<Vec<u8>> {
        match (self.around.read_file)(path) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                let what = format!("`{}` cannot be read: {error}", path.display());
                problems.error(
                    &from.at,
                    what,
                    "name a file that this user may read; a relative path starts at this file",
                );
                None
            }
        }
    }

    fn expiry(&self, path: &Path, cert: &Marked<FilePath>, not_after: i64, problems: &mut Problems) {
        let left = not_after - self.around.now;
        if left < FORTNIGHT {
            let when = match left {
                ..0 => "has expired".to_owned(),
                left => format!("expires within {} days", left / 86_400 + 1),
            };
            problems.warning(
                &cert.at,
                format!("the certificate in `{}` {when}", path.display()),
                "renew it; the files are read again when they change",
            );
        }
    }
}

fn refuse(path: &Path, from: &Marked<FilePath>, error: &CertificateError, problems: &mut Problems) {
    let help = match error {
        CertificateError::NotPem(_) | CertificateError::NoCertificate | CertificateError::NotX509 => {
            "the file holds `-----BEGIN CERTIFICATE-----` blocks, the server's own certificate first"
        }
        CertificateError::NoKey | CertificateError::UnknownKey => {
            "the file holds one `-----BEGIN PRIVATE KEY-----` block: ECDSA, Ed25519 or RSA, not encrypted"
        }
        CertificateError::KeyMismatch => "name the key that the certificate was made with",
        CertificateError::NoRevocationList => "the file holds `-----BEGIN X509 CRL-----` blocks",
    };
    problems.error(&from.at, format!("`{}`: {error}", path.display()), help);
}

/// The target, with the path of a socket starting in this folder if it is relative.
pub(super) fn joined_target(folder: &Path, target: &Target) -> Target {
    match target {
        Target::Unix(path) => Target::Unix(folder.join(path)),
        Target::Address(_) | Target::Name { .. } => target.clone(),
    }
}

/// An optional value with its place, if there is one.
pub(super) fn given<T: Clone>(option: &Marked<Option<T>>) -> Option<Marked<T>> {
    let value = option.value.clone()?;
    Some(file::Marked { value, at: option.at.clone(), written: option.written })
}
