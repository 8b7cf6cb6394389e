//! Whose connection is this? What a trusted peer says about it before its first byte, with the PROXY protocol.
//!
//! Nobody else is listened to: where the header is only accepted, the bytes of a stranger are what they always were, the
//! beginning of a request or a handshake. What was read beyond the header goes to whoever reads next. Nothing here waits
//! longer than a handshake may take, and nothing keeps more than the longest header and one read.

use std::io;
use std::time::Duration;

use bytes::Buf;
use ipnet::IpNet;
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::config::ProxyProtocol;
use crate::proxy_protocol::{Announced, Malformed, read};
use crate::server::listen::Accepted;

/// Why a connection is closed before it has said anything.
#[derive(Debug, Error)]
pub(super) enum NotIntroduced {
    #[error("it is not in server.trusted_proxies")]
    Stranger,
    #[error("{0}")]
    Malformed(#[from] Malformed),
    #[error("its PROXY header took too long")]
    Late,
    #[error("it broke off within its PROXY header")]
    BrokeOff,
    /// It left without a word, as whoever only looks whether we are there.
    #[error("it left")]
    Gone,
    #[error("{0}")]
    Read(#[from] io::Error),
}

/// Lets the peer of a connection say whose it is.
pub(super) async fn introduce(
    accepted: Accepted,
    mode: ProxyProtocol,
    trusted: &[IpNet],
    within: Duration,
) -> Result<Accepted, NotIntroduced> {
    // Whoever can open our unix socket is trusted.
    let is_trusted = accepted.peer.is_none_or(|peer| trusted.iter().any(|net| net.contains(&peer.ip())));
    match (mode, is_trusted) {
        (ProxyProtocol::None, _) | (ProxyProtocol::Accept, false) => Ok(accepted),
        (ProxyProtocol::Require, false) => Err(NotIntroduced::Stranger),
        (ProxyProtocol::Accept | ProxyProtocol::Require, true) => {
            timeout(within, listen(accepted, mode)).await.unwrap_or(Err(NotIntroduced::Late))
        }
    }
}

async fn listen(mut accepted: Accepted, mode: ProxyProtocol) -> Result<Accepted, NotIntroduced> {
    loop {
        match read(&accepted.ahead) {
            Ok(Some((announced, length))) => {
                accepted.ahead.advance(length);
                match announced {
                    Announced::Ends(ends) => {
                        (accepted.peer, accepted.local) = (Some(ends.client), Some(ends.server));
                    }
                    Announced::Nothing => accepted.is_nobodys = true,
                }
                return Ok(accepted);
            }
            Ok(None) => {}
            Err(Malformed::Missing) if mode == ProxyProtocol::Accept => return Ok(accepted),
            Err(malformed) => return Err(malformed.into()),
        }
        if accepted.socket.read_buf(&mut accepted.ahead).await? == 0 {
            let silent = accepted.ahead.is_empty();
            return Err(if silent { NotIntroduced::Gone } else { NotIntroduced::BrokeOff });
        }
    }
}
