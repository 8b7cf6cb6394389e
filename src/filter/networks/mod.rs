//! Is this address on the list? A set of networks, in which 100,000 are found as fast as ten.
//!
//! The networks of a list are melted into ranges that do not touch each other, in order. Between the first and the last
//! address of all, the space is cut into about as many stretches of one length as there are ranges, and each knows where
//! its ranges begin; so a search looks at a few ranges, unless nearly all of them lie in one corner, when it is a binary
//! search. IPv4 has a set of its own; an IPv4 address that is written as an IPv6 one (`::ffff:192.0.2.1`) is the former.

mod lists;
mod ranges;

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use self::ranges::Ranges;

pub use self::lists::Lists;

/// Networks, as a set of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

impl Networks {
    /// The set of all addresses that are in one of these.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match canonical(network) {
                IpNet::V4(network) => v4.push((network.network().to_bits(), network.broadcast().to_bits())),
                IpNet::V6(network) => v6.push((network.network().to_bits(), network.broadcast().to_bits())),
            }
        }
        Self { v4: Ranges::new(v4), v6: Ranges::new(v6) }
    }

    /// Whether it holds this address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => self.v4.contains(address.to_bits()),
            IpAddr::V6(address) => self.v6.contains(address.to_bits()),
        }
    }

    /// Whether it holds no address at all.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

/// IPv4 networks that are written as IPv6 ones hold the addresses that we see as IPv4.
fn canonical(network: IpNet) -> IpNet {
    const MAPPED: u8 = 96;
    match network {
        IpNet::V6(v6) if v6.prefix_len() >= MAPPED => {
            let v4 = v6.network().to_ipv4_mapped().and_then(|first| Ipv4Net::new(first, v6.prefix_len() - MAPPED).ok());
            v4.map_or(network, IpNet::V4)
        }
        IpNet::V4(_) | IpNet::V6(_) => network,
    }
}

#[cfg(test)]
mod tests;
