//! Where do we listen? All addresses of a configuration at once, or all reasons why not.

use super::Unbound;
use super::handover::{Desk, Heritage};
use super::listen::{BindError, Held, Listening, bind, bind_private, inherit};
use crate::config::{Address, Config};

/// What we listen on.
pub(super) struct Sockets {
    pub(super) listening: Vec<Listening>,
    pub(super) admin: Option<Listening>,
    pub(super) desk: Option<Desk>,
    pub(super) held: Vec<Held>,
}

/// Binds the listeners, the admin address and the upgrade socket, or tells all that cannot be bound. What is inherited
/// is bound already.
pub(super) fn bind_all(config: &Config, heritage: &mut Heritage) -> Result<Sockets, Vec<Unbound>> {
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
    let listeners = config.listeners.iter().enumerate();
    let listening = listeners.filter_map(|(index, it)| open(&format!("listeners[{index}].address"), &it.address, bind));
    let listening = listening.collect();
    let admin = config.admin.as_ref().and_then(|address| open("admin.address", address, bind_private));
    let desk = config.server.upgrade_socket.as_ref().map(|path| Address::Unix(path.clone()));
    let desk = desk.and_then(|address| open("server.upgrade_socket", &address, bind_private)).map(Desk::new);
    if unbound.is_empty() { Ok(Sockets { listening, admin, desk, held }) } else { Err(unbound) }
}
