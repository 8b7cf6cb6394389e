//! A bare proxy on the same Pingora: an empty `ProxyHttp`, to measure what Portcullis adds. Not for use.
//!
//! `bare ORIGIN PLAIN_PORT TLS_PORT CERT KEY`; one thread, and Pingora's own settings for the rest. The origin is an address,
//! with `https://` before it if it speaks TLS, whose certificate nobody looks at.
#![allow(clippy::unwrap_used, reason = "a measuring tool: any mistake may end it")]

use async_trait::async_trait;
use pingora::listeners::tls::TlsSettings;
use pingora::prelude::*;
use pingora::proxy::{ProxyHttp, ProxyServiceBuilder, Session};
use pingora::server::RunArgs;
use pingora::server::configuration::ServerConf;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Bare(HttpPeer);

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(self.0.clone()))
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, origin, plain, secure, cert, key] = &args[..] else { panic!("bare ORIGIN PLAIN_PORT TLS_PORT CERT KEY") };
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let conf = ServerConf { threads: 1, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let (address, is_tls) = origin.strip_prefix("https://").map_or((&**origin, false), |address| (address, true));
    let address: std::net::SocketAddr = address.parse().unwrap();
    let mut peer = HttpPeer::new(address, is_tls, if is_tls { "localhost".to_owned() } else { String::new() });
    (peer.options.verify_cert, peer.options.verify_hostname) = (false, false);
    let bare = Bare(peer);
    let mut service = ProxyServiceBuilder::new(&server.configuration, bare).build();
    service.add_tcp(&format!("127.0.0.1:{plain}"));
    let mut tls = TlsSettings::intermediate(cert, key).unwrap();
    tls.enable_h2();
    service.add_tls_with_settings(&format!("127.0.0.1:{secure}"), None, tls);
    server.add_service(service);
    server.run(RunArgs::default());
}
