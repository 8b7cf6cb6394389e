//! Whom does a limit count? What of a request tells one from another.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use http::header::GetAll;
use http::{HeaderMap, HeaderValue};

use super::Who;
use crate::config::RateKey;

/// One that is told apart from others by a limit. Those without what tells them apart are one too.
#[derive(Debug)]
pub(super) enum Subject<'a> {
    /// It has no address, no name, no such field, no such claim.
    Unknown,
    V4([u8; 4]),
    /// The network of an IPv6 address: whoever has one address of it has all.
    V6([u8; 8]),
    Name(&'a str),
    Field(GetAll<'a, HeaderValue>),
    Claim(String),
    Everybody,
}

impl<'a> Subject<'a> {
    /// Whom a request comes from, as this key sees it.
    pub(super) fn of(key: &RateKey, who: &Who<'a>) -> Self {
        match key {
            RateKey::ClientAddress => who.address.map_or(Self::Unknown, Self::address),
            RateKey::ApiKey => who.name.map_or(Self::Unknown, Self::Name),
            RateKey::Header(name) => Self::field(who.headers, name),
            RateKey::Claim(name) => (who.claim)(name).map_or(Self::Unknown, Self::Claim),
            RateKey::Route => Self::Everybody,
        }
    }

    fn address(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => Self::V6(*address.octets().first_chunk().unwrap_or(&[0; 8])),
        }
    }

    fn field(headers: &'a HeaderMap, name: &http::HeaderName) -> Self {
        let values = headers.get_all(name);
        if values.iter().next().is_some() { Self::Field(values) } else { Self::Unknown }
    }

    /// The wide network that an address is in: as much as one owner of many usually has.
    pub(super) fn network(&self) -> Option<[u8; 4]> {
        match self {
            Self::V4([a, b, ..]) => Some([*a, *b, 0, 0]),
            Self::V6([a, b, c, d, ..]) => Some([*a, *b, *c, *d]),
            Self::Unknown | Self::Name(_) | Self::Field(_) | Self::Claim(_) | Self::Everybody => None,
        }
    }
}

impl Hash for Subject<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
        match self {
            Self::Unknown | Self::Everybody => {}
            Self::V4(address) => address.hash(state),
            Self::V6(network) => network.hash(state),
            Self::Name(name) => name.hash(state),
            Self::Claim(value) => value.hash(state),
            // Each with its length, so that no two lists run together.
            Self::Field(values) => values.iter().for_each(|value| value.as_bytes().hash(state)),
        }
    }
}
