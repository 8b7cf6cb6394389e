//! What do we say about a connection that we relay? One header, before its first byte.

use std::net::{IpAddr, SocketAddr};

use super::Ends;

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// One line of text.
    V1,
    /// Binary.
    V2,
}

impl Version {
    /// The header of a connection that is relayed for a client; `None` is a client without an address.
    pub fn header(self, ends: Option<Ends>) -> Vec<u8> {
        match (self, ends.map(one_family)) {
            (Self::V1, Some((client, server))) => {
                let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
                let (from, to) = (client.port(), server.port());
                format!("PROXY {family} {} {} {from} {to}\r\n", client.ip(), server.ip()).into_bytes()
            }
            (Self::V1, None) => b"PROXY UNKNOWN\r\n".to_vec(),
            (Self::V2, Some((client, server))) => relayed(client, server),
            (Self::V2, None) => [V2, &[0x21, 0, 0, 0]].concat(),
        }
    }

    /// The header of a connection of our own, such as a probe's.
    pub fn own_header(self) -> Vec<u8> {
        match self {
            Self::V1 => b"PROXY UNKNOWN\r\n".to_vec(),
            Self::V2 => [V2, &[0x20, 0, 0, 0]].concat(),
        }
    }
}

fn relayed(client: SocketAddr, server: SocketAddr) -> Vec<u8> {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let (family, length) = if client.is_ipv4() { (0x11, 12) } else { (0x21, 36) };
    let mut header = [V2, &[0x21, family, 0, length]].concat();
    header.extend(octets(client.ip()));
    header.extend(octets(server.ip()));
    header.extend(client.port().to_be_bytes());
    header.extend(server.port().to_be_bytes());
    header
}

/// A header has one family for both ends; where they differ, IPv4 is written as IPv6.
fn one_family(ends: Ends) -> (SocketAddr, SocketAddr) {
    let (client, server) = (ends.client.ip().to_canonical(), ends.server.ip().to_canonical());
    let wide = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => IpAddr::V6(ip.to_ipv6_mapped()),
        IpAddr::V6(_) => ip,
    };
    let (client, server) =
        if client.is_ipv4() == server.is_ipv4() { (client, server) } else { (wide(client), wide(server)) };
    (SocketAddr::new(client, ends.client.port()), SocketAddr::new(server, ends.server.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(client: &str, server: &str) -> Option<Ends> {
        Some(Ends { client: client.parse().unwrap(), server: server.parse().unwrap() })
    }

    #[test]
    fn a_line_is_written_as_the_protocol_has_it() {
        let line = |ends| String::from_utf8(Version::V1.header(ends)).unwrap();
        assert_eq!(line(ends("192.0.2.1:5", "[::1]:6")), "PROXY TCP6 ::ffff:192.0.2.1 ::1 5 6\r\n");
        assert_eq!(line(ends("192.0.2.1:5", "192.0.2.2:6")), "PROXY TCP4 192.0.2.1 192.0.2.2 5 6\r\n");
        assert_eq!(line(None), "PROXY UNKNOWN\r\n");
    }

    #[test]
    fn version_2_is_written_as_the_protocol_has_it() {
        let header = Version::V2.header(ends("192.0.2.1:258", "192.0.2.2:772"));
        assert_eq!(header[12..], [0x21, 0x11, 0, 12, 192, 0, 2, 1, 192, 0, 2, 2, 1, 2, 3, 4]);
        assert_eq!(Version::V2.header(ends("[::1]:1", "[::2]:2")).len(), 16 + 36);
        assert_eq!(Version::V2.header(None)[12..], [0x21, 0, 0, 0]);
        assert_eq!(Version::V2.own_header()[12..], [0x20, 0, 0, 0]);
    }
}
