//! The set agrees with a list that is searched from its beginning to its end.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::config::networks::{BadLine, parse};

fn set(networks: &[&str]) -> Networks {
    Networks::new(networks.iter().map(|network| parse(network).unwrap()[0]))
}

fn held(networks: &[&str], address: &str) -> bool {
    set(networks).contains(address.parse().unwrap())
}

#[test]
fn networks_and_single_addresses_hold_what_is_in_them() {
    let networks = ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "fd00::1"];
    let inside = ["10.0.0.0", "10.255.255.255", "192.0.2.7", "2001:db8:ffff::1", "fd00::1"];
    let outside = ["9.255.255.255", "11.0.0.0", "192.0.2.6", "192.0.2.8", "2001:db9::", "fd00::2", "::", "0.0.0.0"];
    inside.iter().for_each(|address| assert!(held(&networks, address), "{address}"));
    outside.iter().for_each(|address| assert!(!held(&networks, address), "{address}"));
}

#[test]
fn an_empty_set_holds_nothing_and_a_whole_one_all() {
    assert!(!Networks::default().contains("10.0.0.1".parse().unwrap()) && Networks::default().is_empty());
    let all = ["0.0.0.0/0", "::/0"];
    for address in ["0.0.0.0", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] {
        assert!(held(&all, address) && !held(&[], address), "{address}");
        assert!(held(&[address], address));
    }
    assert!(!held(&["::/0"], "192.0.2.1"), "an IPv4 address is no IPv6 one");
}

#[test]
fn an_address_of_version_4_is_one_however_it_is_written() {
    assert!(held(&["192.0.2.0/24"], "::ffff:192.0.2.1"));
    assert!(held(&["::ffff:192.0.2.0/120"], "192.0.2.1"));
    assert!(held(&["::ffff:192.0.2.1"], "192.0.2.1"));
    assert!(!held(&["::ffff:192.0.2.0/120"], "192.0.3.1"));
}

#[test]
fn bits_behind_the_prefix_do_not_matter() {
    assert!(held(&["10.1.2.3/8"], "10.0.0.0"));
}

#[test]
fn a_list_has_comments_empty_lines_and_any_line_ends() {
    let text = "\u{feff}# offices\r\n10.0.0.0/8 # Berlin\r\n\r\n   2001:db8::/32\n192.0.2.1";
    assert_eq!(parse(text).unwrap().len(), 3);
    assert_eq!(parse("").unwrap(), []);
}

#[test]
fn a_line_that_is_no_network_is_named() {
    let text = "10.0.0.0/8\n# fine\n10.0.0.0/33\n";
    assert_eq!(parse(text), Err(BadLine { number: 3, text: "10.0.0.0/33".into() }));
    for line in ["example.com", "10.0.0", "10.0.0.0 10.0.0.1", "fe80::1%eth0", "[::1]", "10.0.0.0/-1"] {
        assert!(parse(line).is_err(), "{line}");
    }
    assert_eq!(parse(&"x".repeat(1_000)).unwrap_err().text.len(), 60);
}

/// Networks close to each other, so that they touch, overlap and hold each other.
fn networks() -> impl Strategy<Value = Vec<IpNet>> {
    let v4 = (any::<u32>(), 0_u32..4, 0_u8..=32, any::<bool>()).prop_map(|(bits, corner, prefix, near)| {
        let bits = if near { 0x0a00_0000 | corner << 8 | bits & 0xff } else { bits };
        IpNet::new(Ipv4Addr::from_bits(bits).into(), prefix).unwrap()
    });
    let v6 = (any::<u128>(), 0_u8..=128, any::<bool>()).prop_map(|(bits, prefix, near)| {
        let bits = if near { 0x2001_0db8 << 96 | bits & 0x0f0f } else { bits };
        IpNet::new(Ipv6Addr::from_bits(bits).into(), prefix).unwrap()
    });
    // Short prefixes swallow everything, so few have one.
    prop::collection::vec(prop_oneof![v4, v6], 0..80)
        .prop_map(|all| all.into_iter().filter(|net| net.prefix_len() > 6 || net.prefix_len() == 1).collect())
}

/// All but one address, as tools write it that take one network out of another.
#[test]
fn everything_but_one_address_is_everything_but_that() {
    let one = 1_u128;
    let others = (0..128).map(|bit| {
        let network = (one ^ (1 << bit)) >> bit << bit;
        IpNet::new(Ipv6Addr::from_bits(network).into(), 128 - bit).unwrap()
    });
    let set = Networks::new(others);
    for (address, inside) in [("::1", false), ("::", true), ("::2", true), ("2001:db8::", true), ("2001:db8::1", true)]
    {
        assert_eq!(set.contains(address.parse().unwrap()), inside, "{address}");
    }
}

proptest! {
    #[test]
    fn it_agrees_with_a_list_that_is_searched_from_end_to_end(networks in networks(), others in any::<[u128; 8]>()) {
        let set = Networks::new(networks.iter().copied());
        let near = |net: &IpNet| match net {
            IpNet::V4(net) => [net.network().to_bits(), net.broadcast().to_bits()]
                .map(|bits| [bits.wrapping_sub(1), bits, bits.wrapping_add(1)].map(|bits| Ipv4Addr::from_bits(bits).into()))
                .concat(),
            IpNet::V6(net) => [net.network().to_bits(), net.broadcast().to_bits()]
                .map(|bits| [bits.wrapping_sub(1), bits, bits.wrapping_add(1)].map(|bits| Ipv6Addr::from_bits(bits).into()))
                .concat(),
        };
        let random = others.iter().flat_map(|bits| [Ipv6Addr::from_bits(*bits).into(), Ipv4Addr::from_bits(*bits as u32).into()]);
        for address in networks.iter().flat_map(near).chain(random) {
            // What is inside of ::ffff:0:0/96 is IPv4, and is tried above.
            let address: IpAddr = address;
            let seen = address.to_canonical();
            let listed = networks.iter().any(|net| canonical(*net).contains(&seen));
            prop_assert_eq!(set.contains(address), listed, "{}", address);
        }
    }

    #[test]
    fn no_text_makes_the_list_panic(text in "\\PC*|[0-9a-f:./# \n\r-]{0,120}") {
        if let Ok(networks) = parse(&text) {
            Networks::new(networks);
        }
    }
}
