//! Where do we listen? All addresses of a configuration at once, or all reasons why not.

use super::Unbound;
use super::handover::{Desk, Heritage};
use super::listen::{BindError, Held, Listening, bind, bind_private, inherit};
use super::workers::{Place, Workers};
use crate::config::{Address, Config};

/// What we listen on.
pub(super) struct Sockets {
    /// Of the listeners, in the order of the configuration.
    pub(super) addresses: Vec<Address>,
    pub(super) accepting: Vec<Accepting>,
    pub(super) admin: Option<Listening>,
    pub(super) desk: Option<Desk>,
    pub(super) held: Vec<Held>,
}

/// A listener in a worker that accepts there.
pub(super) struct Accepting {
    /// Its place in the configuration.
    pub(super) listener: usize,
    pub(super) place: Place,
    pub(super) listening: Listening,
}

/// Binds the listeners, the admin address and the upgrade socket, or tells all that cannot be bound. What is inherited
/// is bound already.
pub(super) fn bind_all(config: &Config, heritage: &mut Heritage, workers: &Workers) -> Result<Sockets, Vec<Unbound>> {
    let (mut unbound, mut held) = (Vec::new(), Vec::new());
    let mut open = |key: &str, address: &Address, bind: fn(&Address) -> Result<Listening, BindError>| match heritage
        .take(address)
        .map_or_else(|| bind(address), |socket| inherit(socket, address))
    {
        Ok(listening) => {
            held.push(listening.held(address));
            Some(listening)
        }
        Err(source) => {
            unbound.push(Unbound { key: key.to_owned(), source });
            None
        }
    };
    let (mut addresses, mut accepting) = (Vec::new(), Vec::new());
    let mut broken = Vec::new();
    for (listener, config) in config.listeners.iter().enumerate() {
        let key = format!("listeners[{listener}].address");
        let Some(bound) = open(&key, &config.address, bind) else { continue };
        addresses.push(bound.local_address().clone());
        for place in workers.accepting() {
            match bound.in_runtime(place.runtime()) {
                Ok(listening) => accepting.push(Accepting { listener, place, listening }),
                Err(source) => broken.push(Unbound { key: key.clone(), source }),
            }
        }
    }
    let admin = config.admin.as_ref().and_then(|address| open("admin.address", address, bind_private));
    let desk = config.server.upgrade_socket.as_ref().map(|path| Address::Unix(path.clone()));
    let desk = desk.and_then(|address| open("server.upgrade_socket", &address, bind_private)).map(Desk::new);
    unbound.append(&mut broken);
    if unbound.is_empty() { Ok(Sockets { addresses, accepting, admin, desk, held }) } else { Err(unbound) }
}
