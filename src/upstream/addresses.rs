//! Which of a backend's addresses shall an attempt use? They take turns, and one that refused waits.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora::upstreams::peer::HttpPeer;

/// After this many turns the addresses that refused get another chance.
const TURNS_UNTIL_FORGIVEN: u64 = 256;

/// The turns of one backend's addresses.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    turns: AtomicU64,
    /// A bit for each of the first 64 addresses that refused a connection.
    down: AtomicU64,
}

impl Addresses {
    /// The next address; `None` when there is none at all.
    pub(super) fn next(&self, all: &[SocketAddr]) -> Option<SocketAddr> {
        if let [only] = all {
            return Some(*only);
        }
        let turn = self.turns.fetch_add(1, Relaxed);
        if turn.is_multiple_of(TURNS_UNTIL_FORGIVEN) {
            self.down.store(0, Relaxed);
        }
        let down = self.down.load(Relaxed);
        let length = all.len().max(1);
        let from = usize::try_from(turn).unwrap_or(0) % length;
        let mut round = (0..all.len()).map(|step| (from + step) % length);
        let up = round.clone().find(|&index| index >= 64 || down & (1 << index) == 0);
        up.or_else(|| round.next()).and_then(|index| all.get(index)).copied()
    }

    /// Lets an address wait.
    pub(super) fn mark_down(&self, all: &[SocketAddr], peer: &HttpPeer) {
        let PeerAddr::Inet(address) = &peer._address else { return };
        if let Some(index) = all.iter().take(64).position(|other| other == address) {
            self.down.fetch_or(1 << index, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(ports: &[u16]) -> Vec<SocketAddr> {
        ports.iter().map(|&port| SocketAddr::from(([127, 0, 0, 1], port))).collect()
    }

    fn peer(address: SocketAddr) -> HttpPeer {
        HttpPeer::new(address, false, String::new())
    }

    #[test]
    fn addresses_take_turns_and_one_that_refused_waits() {
        let (addresses, all) = (Addresses::default(), list(&[1, 2, 3]));
        let turns: Vec<_> = (0..3).filter_map(|_| addresses.next(&all)).collect();
        assert_eq!(turns, all);

        addresses.mark_down(&all, &peer(all[1]));
        assert!((0..30).all(|_| addresses.next(&all) != Some(all[1])));
        assert!((0..TURNS_UNTIL_FORGIVEN).any(|_| addresses.next(&all) == Some(all[1])));
    }

    #[test]
    fn when_all_refused_one_is_tried_all_the_same() {
        let (addresses, all) = (Addresses::default(), list(&[1, 2]));
        all.iter().for_each(|&address| addresses.mark_down(&all, &peer(address)));
        assert!(addresses.next(&all).is_some());
        assert_eq!(addresses.next(&[]), None);
    }
}
