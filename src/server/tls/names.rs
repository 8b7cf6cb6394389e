//! Which certificate does a client see? By the name that it asks for, exact, then wildcard, then the first of all.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::SignatureAlgorithm;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::Expiry;

/// A certificate that can be shown, with the names that it is good for.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) names: Vec<String>,
    pub(super) key: Arc<CertifiedKey>,
    pub(super) expiry: Expiry,
}

/// Certificates by name. For one name there may be several, of different kinds of key.
#[derive(Debug)]
pub(super) struct Names {
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// By the domain below which a wildcard is good for one label.
    wildcard: HashMap<String, Vec<Arc<CertifiedKey>>>,
    default: Vec<Arc<CertifiedKey>>,
}

impl Names {
    pub(super) fn new(certificates: Vec<Named>) -> Self {
        let mut exact = HashMap::<String, Vec<_>>::new();
        let mut wildcard = HashMap::<String, Vec<_>>::new();
        let first = certificates.first().map(|first| first.names.clone()).unwrap_or_default();
        let is_default = |(place, named): &(usize, &Named)| *place == 0 || named.names == first;
        let default = certificates.iter().enumerate().filter(is_default);
        let default = in_order(default.map(|(_, named)| named.key.clone()).collect());
        for Named { names, key, .. } in &certificates {
            for name in names {
                match name.strip_prefix("*.") {
                    Some(domain) => wildcard.entry(domain.to_owned()).or_default().push(key.clone()),
                    None => exact.entry(name.clone()).or_default().push(key.clone()),
                }
            }
        }
        let sorted = |map: HashMap<_, _>| map.into_iter().map(|(name, keys)| (name, in_order(keys))).collect();
        Self { exact: sorted(exact), wildcard: sorted(wildcard), default }
    }

    fn for_name(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let Some(name) = name.map(str::to_ascii_lowercase) else { return &self.default };
        let name = name.trim_end_matches('.');
        let below = || name.split_once('.').and_then(|(_, domain)| self.wildcard.get(domain));
        self.exact.get(name).or_else(below).unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let keys = self.for_name(hello.server_name());
        let usable = keys.iter().find(|key| key.key.choose_scheme(hello.signature_schemes()).is_some());
        // Without one that the client can verify, any will do: rustls ends the handshake with the right alert.
        usable.or(keys.first()).cloned()
    }
}

/// The cheap keys first: an RSA signature costs ten times an ECDSA one. In the order of the file otherwise.
fn in_order(mut keys: Vec<Arc<CertifiedKey>>) -> Vec<Arc<CertifiedKey>> {
    keys.sort_by_key(|key| key.key.algorithm() != SignatureAlgorithm::ECDSA);
    keys
}
