//! May one more connection be open? A total for the process, and a number for each client address of a listener.
//!
//! A place is given back when its guard is dropped, whatever ended the connection. Memory is bounded by the open
//! connections: an address is remembered only while it has one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use ipnet::IpNet;

/// The bits of an IPv6 address that one customer usually has: counting single addresses would limit nobody.
const IPV6_PREFIX: u32 = 64;

/// Open connections of the whole process.
#[derive(Debug)]
pub struct TotalLimit {
    open: AtomicUsize,
    most: usize,
}

impl TotalLimit {
    /// At most this many at once.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { open: AtomicUsize::new(0), most })
    }

    /// A place for one connection, or `None` when all are taken.
    pub fn take(self: &Arc<Self>) -> Option<TotalPlace> {
        let place = TotalPlace(self.clone());
        // Counted first, so that two at once cannot both take the last place; the guard takes it back if it was none.
        (self.open.fetch_add(1, Relaxed) < self.most).then_some(place)
    }

    /// The connections that are open now.
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }
}

/// One connection's place in the total.
#[derive(Debug)]
pub struct TotalPlace(Arc<TotalLimit>);

impl Drop for TotalPlace {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// Open connections of each client address.
#[derive(Debug)]
pub struct AddressLimit {
    most: usize,
    trusted: ArcSwap<Vec<IpNet>>,
    open: Mutex<HashMap<IpAddr, usize>>,
}

impl AddressLimit {
    /// At most this many for one address; peers in `trusted` are not counted.
    pub fn new(most: usize, trusted: &[IpNet]) -> Arc<Self> {
        Arc::new(Self { most, trusted: ArcSwap::from_pointee(trusted.to_vec()), open: Mutex::default() })
    }

    /// Counts other peers from now on: all but these.
    pub fn trust(&self, trusted: &[IpNet]) {
        self.trusted.store(Arc::new(trusted.to_vec()));
    }

    /// A place for one connection from `peer`, or `None` when it has too many.
    pub fn take(self: &Arc<Self>, peer: IpAddr) -> Option<AddressPlace> {
        let client = client_of(peer);
        if self.trusted.load().iter().any(|net| net.contains(&peer.to_canonical())) {
            return Some(AddressPlace { limit: None, client });
        }
        let mut open = self.lock();
        let count = open.entry(client).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        drop(open);
        Some(AddressPlace { limit: Some(self.clone()), client })
    }

    /// The addresses that have a connection now.
    pub fn addresses(&self) -> usize {
        self.lock().len()
    }

    // Taken once a connection, for an addition in a map: never on a request's way.
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place among those of its address.
#[derive(Debug)]
pub struct AddressPlace {
    limit: Option<Arc<AddressLimit>>,
    client: IpAddr,
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let Some(limit) = &self.limit else { return };
        let mut open = limit.lock();
        if let Some(count) = open.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.client);
            }
        }
    }
}

/// Whom an address stands for: itself, or its network in IPv6.
fn client_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() >> (Ipv6Addr::BITS - IPV6_PREFIX) << (Ipv6Addr::BITS - IPV6_PREFIX);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_place_in_the_total_comes_back_when_it_is_dropped() {
        let limit = TotalLimit::new(1);
        let place = limit.take();
        assert!(place.is_some());
        assert!(limit.take().is_none());
        assert_eq!(limit.open(), 1);
        drop(place);
        assert_eq!(limit.open(), 0);
        assert!(limit.take().is_some());
    }

    #[test]
    fn each_address_has_its_own_places() {
        let limit = AddressLimit::new(1, &[]);
        let first = limit.take(ip("192.0.2.1"));
        assert!(first.is_some());
        assert!(limit.take(ip("192.0.2.1")).is_none());
        assert!(limit.take(ip("192.0.2.2")).is_some());
        drop(first);
        assert!(limit.take(ip("192.0.2.1")).is_some());
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let limit = AddressLimit::new(1, &[]);
        let _first = limit.take(ip("2001:db8::1")).unwrap();
        assert!(limit.take(ip("2001:db8::ffff:1")).is_none());
        assert!(limit.take(ip("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn a_mapped_ipv4_address_is_the_ipv4_address() {
        let limit = AddressLimit::new(1, &[]);
        let _first = limit.take(ip("192.0.2.1")).unwrap();
        assert!(limit.take(ip("::ffff:192.0.2.1")).is_none());
        assert!(limit.take(ip("::ffff:192.0.2.2")).is_some());
    }

    #[test]
    fn a_trusted_proxy_is_not_counted() {
        let limit = AddressLimit::new(1, &["10.0.0.0/8".parse().unwrap()]);
        let _places = [limit.take(ip("10.1.1.1")).unwrap(), limit.take(ip("10.1.1.1")).unwrap()];
        assert_eq!(limit.addresses(), 0);
    }

    #[test]
    fn an_address_without_connections_is_forgotten() {
        let limit = AddressLimit::new(4, &[]);
        let places: Vec<_> = (0..9).filter_map(|_| limit.take(ip("192.0.2.1"))).collect();
        assert_eq!((places.len(), limit.addresses()), (4, 1));
        drop(places);
        assert_eq!(limit.addresses(), 0);
    }
}
