//! What does a header say? The grammar of both versions, to the letter.
//!
//! What is skipped by one reader another may believe, so nothing is forgiven: one space between two words of version 1,
//! no zeros before a number, and in version 2 fields that fill their length.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use thiserror::Error;

use super::{Announced, Ends};

const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest line of version 1, with its end: two IPv6 addresses and two ports.
const V1_LONGEST: usize = 107;

/// What stands before the addresses in version 2.
const V2_FIXED: usize = 16;

/// The longest header that is read. Addresses take 216 bytes at most; 4 KiB leave room for what clouds add to them, and
/// bound what a connection may make us keep.
pub const LONGEST: usize = 4096;

/// The extra field that carries a checksum.
const TLV_CRC32C: u8 = 0x03;

/// Why a header is not one.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Malformed {
    /// The first bytes belong to neither version.
    #[error("there is no PROXY header")]
    Missing,
    /// It begins as a header of version 1.
    #[error("the PROXY header of version 1 is malformed")]
    Line,
    /// It begins as a header of version 2.
    #[error("the PROXY header of version 2 is malformed")]
    Binary,
    /// It says that it is longer than we read.
    #[error("the PROXY header is longer than {LONGEST} bytes")]
    TooLong,
    /// Its checksum is another one.
    #[error("the checksum of the PROXY header is wrong")]
    Checksum,
}

/// Reads the header at the beginning of `bytes`: what it says and how long it is, or `None` while more bytes are needed.
///
/// ```
/// use portcullis::proxy_protocol::{Announced, read};
///
/// assert_eq!(read(b"PROXY UNKNOWN\r\nGET /"), Ok(Some((Announced::Nothing, 15))));
/// assert_eq!(read(b"PROX"), Ok(None));
/// assert!(read(b"GET / HTTP/1.1").is_err());
/// ```
pub fn read(bytes: &[u8]) -> Result<Option<(Announced, usize)>, Malformed> {
    let begins_as = |signature: &[u8]| signature.iter().zip(bytes).all(|(wanted, byte)| wanted == byte);
    if begins_as(V1) {
        line(bytes)
    } else if begins_as(V2) {
        binary(bytes)
    } else {
        Err(Malformed::Missing)
    }
}

fn line(bytes: &[u8]) -> Result<Option<(Announced, usize)>, Malformed> {
    let most = &bytes[..bytes.len().min(V1_LONGEST)];
    let Some(end) = memchr::memchr(b'\n', most) else {
        return if most.len() < V1_LONGEST { Ok(None) } else { Err(Malformed::Line) };
    };
    let words = most[..end].strip_suffix(b"\r").and_then(|line| line.strip_prefix(V1)).ok_or(Malformed::Line)?;
    let announced = of_words(std::str::from_utf8(words).map_err(|_| Malformed::Line)?).ok_or(Malformed::Line)?;
    Ok(Some((announced, end + 1)))
}

fn of_words(text: &str) -> Option<Announced> {
    let mut words = text.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        // Whatever follows has to be ignored.
        return Some(Announced::Nothing);
    }
    let [client, server] = [words.next()?, words.next()?].map(|word| match family {
        "TCP4" => Ipv4Addr::from_str(word).ok().map(IpAddr::V4),
        "TCP6" => Ipv6Addr::from_str(word).ok().map(IpAddr::V6),
        _ => None,
    });
    let [from, to] = [words.next()?, words.next()?].map(port);
    let ends = ends((client?, from?), (server?, to?));
    words.next().is_none().then_some(ends)
}

fn port(word: &str) -> Option<u16> {
    let bare = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| bare)
}

fn binary(bytes: &[u8]) -> Result<Option<(Announced, usize)>, Malformed> {
    let Some(fixed) = bytes.get(..V2_FIXED) else { return Ok(None) };
    let [command, family, high, low] = [fixed[12], fixed[13], fixed[14], fixed[15]];
    let length = V2_FIXED + usize::from(u16::from_be_bytes([high, low]));
    if length > LONGEST {
        return Err(Malformed::TooLong);
    }
    // Told before the rest is there: one who is wrong already need not be waited for.
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed::Binary),
    };
    let Some(header) = bytes.get(..length) else { return Ok(None) };
    // Of one who speaks for itself everything else has to be ignored.
    let announced = if is_local { Announced::Nothing } else { addresses(family, header)? };
    Ok(Some((announced, length)))
}

fn addresses(family: u8, header: &[u8]) -> Result<Announced, Malformed> {
    let rest = &header[V2_FIXED..];
    let taken = match (family >> 4, family & 0xf) {
        (0, 0..=2) => 0,
        (1, 0..=2) => 12,
        (2, 0..=2) => 36,
        (3, 0..=2) => 216,
        _ => return Err(Malformed::Binary),
    };
    let (block, extra) = rest.split_at_checked(taken).ok_or(Malformed::Binary)?;
    // What stands behind the addresses of an unspecified family may be addresses as well.
    if taken > 0 {
        extra_fields(header, extra)?;
    }
    let port = |at: usize| u16::from_be_bytes([block[at], block[at + 1]]);
    let four = |at: usize| block[at..].first_chunk::<4>().map(|octets| IpAddr::from(*octets));
    let sixteen = |at: usize| block[at..].first_chunk::<16>().map(|octets| IpAddr::from(*octets));
    let ends = match family {
        // TCP alone: of a datagram nothing is known that could be true of a connection.
        0x11 => four(0).zip(four(4)).map(|(client, server)| ends((client, port(8)), (server, port(10)))),
        0x21 => sixteen(0).zip(sixteen(16)).map(|(client, server)| ends((client, port(32)), (server, port(34)))),
        _ => None,
    };
    Ok(ends.unwrap_or(Announced::Nothing))
}

/// Walks the extra fields, which must fill the header, and checks the one that is a checksum.
fn extra_fields(header: &[u8], mut fields: &[u8]) -> Result<(), Malformed> {
    while let [kind, high, low, rest @ ..] = fields {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, next) = rest.split_at_checked(length).ok_or(Malformed::Binary)?;
        if *kind == TLV_CRC32C {
            let at = header.len() - rest.len();
            let sum = value.first_chunk::<4>().filter(|_| length == 4).ok_or(Malformed::Binary)?;
            if crc32c(header, at) != u32::from_be_bytes(*sum) {
                return Err(Malformed::Checksum);
            }
        }
        fields = next;
    }
    if fields.is_empty() { Ok(()) } else { Err(Malformed::Binary) }
}

/// The checksum of a header, in which the four bytes of the checksum itself, from `at` on, count as zero.
fn crc32c(header: &[u8], at: usize) -> u32 {
    let zeroed = |(index, byte): (usize, &u8)| if (at..at + 4).contains(&index) { 0 } else { *byte };
    let bytes = header.iter().enumerate().map(zeroed);
    !bytes.fold(!0, |sum, byte| CRC32C[usize::from((sum as u8) ^ byte)] ^ (sum >> 8))
}

/// Castagnoli's polynomial, its bits in reverse.
const CRC32C: [u32; 256] = {
    let mut table = [0_u32; 256];
    let mut index = 0;
    while index < table.len() {
        let mut bits = 0;
        table[index] = index as u32;
        while bits < 8 {
            let out = if table[index] & 1 == 1 { 0x82f6_3b78 } else { 0 };
            table[index] = (table[index] >> 1) ^ out;
            bits += 1;
        }
        index += 1;
    }
    table
};

/// IPv4 clients under addresses of IPv6 are IPv4 clients.
fn ends(client: (IpAddr, u16), server: (IpAddr, u16)) -> Announced {
    let end = |(ip, port): (IpAddr, u16)| SocketAddr::new(ip.to_canonical(), port);
    Announced::Ends(Ends { client: end(client), server: end(server) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proxy_protocol::Version;

    fn said(client: &str, server: &str) -> Announced {
        Announced::Ends(Ends { client: client.parse().unwrap(), server: server.parse().unwrap() })
    }

    /// What the header says, which must be the same with other bytes behind it, and `None` of any part of it.
    fn check(header: &[u8]) -> Result<Announced, Malformed> {
        for cut in 0..header.len() {
            if let Ok(Some(early)) = read(&header[..cut]) {
                panic!("{early:?} of the first {cut} bytes of {header:?}");
            }
        }
        let with_more = [header, b"GET / HTTP/1.1\r\n\r\n"].concat();
        let (announced, length) = read(&with_more)?.expect("the whole header is there");
        assert_eq!(length, header.len());
        assert_eq!(read(header), Ok(Some((announced, length))));
        Ok(announced)
    }

    /// A header of version 2.
    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [V2, &[command, family], &length[..], rest].concat()
    }

    const FOUR: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 7, 0xd4, 0x31, 0x01, 0xbb];

    #[test]
    fn a_line_names_both_ends() {
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.7 54321 443\r\n";
        assert_eq!(check(line), Ok(said("192.0.2.1:54321", "198.51.100.7:443")));
        let line = b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n";
        assert_eq!(check(line), Ok(said("[2001:db8::1]:1", "[2001:db8::2]:65535")));
        let line = b"PROXY TCP6 ::ffff:192.0.2.1 ::1 0 443\r\n";
        assert_eq!(check(line), Ok(said("192.0.2.1:0", "[::1]:443")));
    }

    #[test]
    fn an_unknown_line_announces_nothing_whatever_follows() {
        assert_eq!(check(b"PROXY UNKNOWN\r\n"), Ok(Announced::Nothing));
        assert_eq!(check(b"PROXY UNKNOWN ffff::1 \xc3\xa4 1\r\n"), Ok(Announced::Nothing));
    }

    #[test]
    fn a_line_that_is_not_to_the_letter_is_refused() {
        for line in [
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY tcp4 192.0.2.1 198.51.100.7 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 1 2 3\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 1 2 \r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.7 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 1 65536\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 1 +2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 01 2\r\n",
            "PROXY TCP4 192.0.2.256 198.51.100.7 1 2\r\n",
            "PROXY TCP4 ::1 198.51.100.7 1 2\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.7 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 1 2\n",
            "PROXY UNKNOWNS\r\n",
        ] {
            assert_eq!(check(line.as_bytes()), Err(Malformed::Line), "{line:?}");
        }
        let endless = format!("PROXY UNKNOWN {}", "x".repeat(200));
        assert_eq!(read(endless.as_bytes()), Err(Malformed::Line));
        assert_eq!(read(&endless.as_bytes()[..V1_LONGEST - 1]), Ok(None));
    }

    #[test]
    fn version_2_names_both_ends() {
        assert_eq!(check(&v2(0x21, 0x11, &FOUR)), Ok(said("192.0.2.1:54321", "198.51.100.7:443")));
        let mut six = [0; 36];
        (six[15], six[31], six[33], six[35]) = (1, 2, 3, 4);
        assert_eq!(check(&v2(0x21, 0x21, &six)), Ok(said("[::1]:3", "[::2]:4")));
    }

    #[test]
    fn what_is_no_tcp_connection_announces_nothing() {
        for (command, family, rest) in [
            (0x20, 0x00, &b""[..]),
            (0x20, 0xff, b"whatever"),
            (0x21, 0x00, b""),
            (0x21, 0x00, b"no fields"),
            (0x21, 0x12, &FOUR),
            (0x21, 0x31, &[b'/'; 216]),
        ] {
            assert_eq!(check(&v2(command, family, rest)), Ok(Announced::Nothing), "{command} {family}");
        }
    }

    #[test]
    fn a_version_2_that_is_not_to_the_letter_is_refused() {
        for (command, family, rest) in [
            (0x11, 0x11, &FOUR[..]),
            (0x22, 0x11, &FOUR),
            (0x21, 0x41, &FOUR),
            (0x21, 0x13, &FOUR),
            (0x21, 0x11, &FOUR[..11]),
            (0x21, 0x21, &FOUR),
            (0x21, 0x11, &[&FOUR[..], &[4]].concat()),
            (0x21, 0x11, &[&FOUR[..], &[4, 0, 2, 0]].concat()),
            (0x21, 0x11, &[&FOUR[..], &[TLV_CRC32C, 0, 1, 0]].concat()),
        ] {
            assert_eq!(check(&v2(command, family, rest)), Err(Malformed::Binary), "{command} {family} {rest:?}");
        }
    }

    #[test]
    fn the_longest_header_has_a_bound_that_is_told_at_once() {
        let block = |length: usize| [&FOUR[..], &[4], &u16::try_from(length).unwrap().to_be_bytes()[..]].concat();
        let most = LONGEST - V2_FIXED - FOUR.len() - 3;
        let fits = [block(most), vec![0; most]].concat();
        assert_eq!(check(&v2(0x21, 0x11, &fits)), Ok(said("192.0.2.1:54321", "198.51.100.7:443")));
        let longer = [block(most + 1), vec![0; most + 1]].concat();
        assert_eq!(read(&v2(0x21, 0x11, &longer)[..V2_FIXED]), Err(Malformed::TooLong));
    }

    #[test]
    fn a_checksum_is_checked_wherever_it_stands() {
        // The check value that every description of CRC-32C gives.
        assert_eq!(crc32c(b"123456789", 100), 0xe306_9283);
        let fields = [&FOUR[..], &[4, 0, 1, 7], &[TLV_CRC32C, 0, 4, 0, 0, 0, 0], &[5, 0, 0]].concat();
        let mut header = v2(0x21, 0x11, &fields);
        assert_eq!(read(&header), Err(Malformed::Checksum));
        let at = header.len() - 7;
        let sum = crc32c(&header, at).to_be_bytes();
        header[at..at + 4].copy_from_slice(&sum);
        assert!(check(&header).is_ok());
        header[17] ^= 1;
        assert_eq!(read(&header), Err(Malformed::Checksum));
    }

    #[test]
    fn what_is_no_header_is_told_at_its_first_wrong_byte() {
        for (begin, other) in
            [("PROX", "PROP"), ("P", "G"), ("\r\n", "\r\nGET"), ("PR", "PRI * HTTP/2.0"), ("", "\x16")]
        {
            assert_eq!(read(begin.as_bytes()), Ok(None), "{begin:?}");
            assert_eq!(read(other.as_bytes()), Err(Malformed::Missing), "{other:?}");
        }
    }

    fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
        let tail = proptest::collection::vec(any::<u8>(), 0..300);
        let v2_like =
            (0x1f_u8..0x23, 0_u8..0x40, 0_u16..300, tail.clone()).prop_map(|(command, family, length, tail)| {
                [V2, &[command, family], &length.to_be_bytes(), &tail].concat()
            });
        let line = "PROXY (TCP4|TCP6|UNKNOWN) [0-9a-f:. ]{0,90}(\r\n)?.{0,9}".prop_map(String::into_bytes);
        prop_oneof![tail, v2_like, line]
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_look_beyond_the_header(bytes in any_bytes(), other in any::<u8>()) {
            if let Ok(Some((announced, length))) = read(&bytes) {
                prop_assert!(length <= bytes.len() && length <= LONGEST);
                let mut changed = bytes.clone();
                changed[length..].fill(other);
                prop_assert_eq!(read(&changed), Ok(Some((announced, length))));
                prop_assert_eq!(read(&bytes[..length]), Ok(Some((announced, length))));
                prop_assert_eq!(read(&bytes[..length - 1]), Ok(None));
            }
        }

        #[test]
        fn what_is_written_is_read(
            client in any::<[u8; 16]>(), server in any::<[u8; 16]>(), ports in any::<(u16, u16)>(),
            four in any::<(bool, bool)>(), second in any::<bool>(),
        ) {
            let ip = |octets: [u8; 16], four: bool| match four {
                true => IpAddr::from([octets[0], octets[1], octets[2], octets[3]]),
                false => IpAddr::from(octets).to_canonical(),
            };
            let client = SocketAddr::new(ip(client, four.0), ports.0);
            let server = SocketAddr::new(ip(server, four.1), ports.1);
            let version = if second { Version::V2 } else { Version::V1 };
            let header = version.header(Some(Ends { client, server }));
            prop_assert_eq!(check(&header), Ok(Announced::Ends(Ends { client, server })));
        }
    }
}
