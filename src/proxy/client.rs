//! Who sent this request? The client's address behind the proxies that the operator trusts.
//!
//! `X-Forwarded-For` or `Forwarded`, whichever trusted proxies write, is walked from right to left, past trusted addresses, to
//! the first that is not; an element that is no address ends the walk. Nothing is believed unless the peer is trusted, and
//! of the other field nothing at all: a proxy that does not write it lets through what the client has written.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;

use crate::config::ForwardedBy;

/// What is believed about the sender of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sender {
    /// The client; `None` on a unix socket without a trusted word about it.
    pub(crate) client: Option<IpAddr>,
    /// Whether the peer's forwarding fields are believed.
    pub(crate) trusted: bool,
}

/// Who is believed, and where.
#[derive(Clone, Debug)]
pub(crate) struct Believed {
    /// The proxies that are.
    pub(crate) proxies: Vec<IpNet>,
    /// The field in which they say who the client is.
    pub(crate) field: ForwardedBy,
}

impl Sender {
    /// Whoever is at the other end, whatever is said.
    pub(super) fn alone(peer: Option<SocketAddr>) -> Self {
        Self { client: peer.map(|peer| peer.ip().to_canonical()), trusted: false }
    }
}

/// Finds the sender. Whoever can open our unix socket is trusted.
pub(crate) fn sender(peer: Option<SocketAddr>, headers: &HeaderMap, believed: &Believed) -> Sender {
    let peer = peer.map(|peer| peer.ip().to_canonical());
    let is_trusted = |address: IpAddr| believed.proxies.iter().any(|net| net.contains(&address));
    if !peer.is_none_or(is_trusted) {
        return Sender { client: peer, trusted: false };
    }
    let of = |name: &'static str| headers.get_all(name).iter().rev().map(|field| field.to_str().unwrap_or(""));
    // Several fields are one list, in their order (RFC 9110, section 5.3).
    let client = match believed.field {
        ForwardedBy::XForwardedFor => {
            walk(peer, of("x-forwarded-for").flat_map(|field| field.rsplit(',')).map(parse), is_trusted)
        }
        ForwardedBy::Forwarded => {
            walk(peer, of("forwarded").flat_map(|field| field.rsplit(',')).map(|it| parse(node(it)?)), is_trusted)
        }
    };
    Sender { client, trusted: true }
}

/// The first address that is not trusted, or the last before one that cannot be read.
fn walk(
    peer: Option<IpAddr>,
    elements: impl Iterator<Item = Option<IpAddr>>,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let mut client = peer;
    for element in elements {
        let Some(address) = element else { break };
        client = Some(address);
        if !is_trusted(address) {
            break;
        }
    }
    client
}

/// Whom an element of `Forwarded` is for (RFC 7239, section 5.2).
fn node(element: &str) -> Option<&str> {
    let mut pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| name.eq_ignore_ascii_case("for")).map(|(_, node)| node.trim_matches('"'))
}

/// An address, bare or with a port, as proxies write it.
fn parse(element: &str) -> Option<IpAddr> {
    let element = element.trim();
    let bare = element.parse::<IpAddr>().or_else(|_| element.trim_matches(['[', ']']).parse());
    let address = bare.or_else(|_| element.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn believed(field: ForwardedBy) -> Believed {
        Believed { proxies: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()], field }
    }

    fn client(peer: &str, fields: &[&str]) -> String {
        let believed = believed(ForwardedBy::XForwardedFor);
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append("x-forwarded-for", field.parse().unwrap());
        }
        let peer = SocketAddr::new(peer.parse().unwrap(), 1234);
        sender(Some(peer), &headers, &believed).client.unwrap().to_string()
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_claims() {
        assert_eq!(client("192.0.2.1", &["1.2.3.4"]), "192.0.2.1");
    }

    #[test]
    fn the_first_untrusted_from_the_right_is_the_client() {
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 192.0.2.7, 10.0.0.2"]), "192.0.2.7");
        assert_eq!(client("10.0.0.1", &["6.6.6.6", "192.0.2.7", "10.0.0.2"]), "192.0.2.7");
        assert_eq!(client("10.0.0.1", &["192.0.2.7:5555"]), "192.0.2.7");
        assert_eq!(client("fd00::1", &["[2001:db8::7]:443"]), "2001:db8::7");
        assert_eq!(client("::ffff:10.0.0.1", &["192.0.2.7"]), "192.0.2.7");
    }

    #[test]
    fn only_the_field_that_proxies_write_is_walked() {
        let client = |field: ForwardedBy, fields: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, value.parse().unwrap());
            }
            let peer = Some("10.0.0.1:1".parse().unwrap());
            sender(peer, &headers, &believed(field)).client.unwrap().to_string()
        };
        let forwarded = |fields: &[(&'static str, &str)]| client(ForwardedBy::Forwarded, fields);
        let other = |fields: &[(&'static str, &str)]| client(ForwardedBy::XForwardedFor, fields);
        let list = "for=6.6.6.6, for=192.0.2.7;proto=https, for=10.0.0.2";
        assert_eq!(forwarded(&[("forwarded", list)]), "192.0.2.7");
        assert_eq!(forwarded(&[("forwarded", "proto=http;For=\"[2001:db8::7]:443\"")]), "2001:db8::7");
        assert_eq!(forwarded(&[("forwarded", "for=_hidden")]), "10.0.0.1");
        assert_eq!(other(&[("forwarded", list)]), "10.0.0.1");
        let both = [("forwarded", "for=192.0.2.7"), ("x-forwarded-for", "192.0.2.8")];
        assert_eq!((forwarded(&both), other(&both)), ("192.0.2.7".to_owned(), "192.0.2.8".to_owned()));
    }

    #[test]
    fn an_element_that_is_no_address_ends_the_walk() {
        assert_eq!(client("10.0.0.1", &["192.0.2.7, unknown, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(client("10.0.0.1", &["192.0.2.7, , 10.0.0.2"]), "10.0.0.2");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }
}
