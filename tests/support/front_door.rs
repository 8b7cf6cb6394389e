//! The front door itself, in this process: listeners on ports of the system's choosing, a folder of its own for the
//! access log, and clients for it.
//!
//! [`Lb::with_backends`] is for one upstream called `app` and a route to it; [`Lb::yaml`] takes a whole file.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use portcullis::config::{Address, Config, Surroundings, parse};
use portcullis::server::{FrontDoor, Reloaded, StartError};
use portcullis::upstream::Upstream;
use serde_json::Value;
use tempfile::TempDir;

use super::{Backend, Client, Exposition, H2Client, Response, in_time, wait_for, wait_until};

/// Without TLS, and with it.
const LISTENERS: &str = "\
listeners:
  - { name: plain, address: 127.0.0.1:0 }
  - { name: secure, address: 127.0.0.1:0, tls: { self_signed: [localhost] } }
";

/// A front door to be.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    whole: Option<String>,
    urls: Vec<String>,
    upstream: Vec<String>,
    route: Vec<String>,
    top: Vec<String>,
}

/// A front door that runs until it is dropped.
pub struct Lb {
    front: FrontDoor,
    folder: TempDir,
}

impl Lb {
    /// One upstream, `app`, with these backends and no health checks; a listener without TLS and one with it.
    pub fn with_backends<'a>(backends: impl IntoIterator<Item = &'a Backend>) -> Builder {
        Lb::with_urls(backends.into_iter().map(Backend::url))
    }

    /// The same, for backends that are no [`Backend`].
    pub fn with_urls(urls: impl IntoIterator<Item = String>) -> Builder {
        Builder { urls: urls.into_iter().collect(), ..Builder::default() }
    }

    /// A whole file. Without `listeners:` it gets the usual two; without `log:` an access log that the test can read;
    /// without `admin:` an admin address. Relative paths start in [`Lb::folder`].
    pub fn yaml(text: impl Into<String>) -> Builder {
        Builder { whole: Some(text.into()), ..Builder::default() }
    }

    /// The product itself.
    pub fn front(&self) -> &FrontDoor {
        &self.front
    }

    /// Where relative paths start.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The address of a listener, counted from 0.
    pub fn address(&self, listener: usize) -> SocketAddr {
        tcp(&self.front.addresses()[listener])
    }

    /// Where `/healthz` and `/readyz` are.
    pub fn admin_address(&self) -> SocketAddr {
        tcp(self.front.admin_address().unwrap())
    }

    /// A raw client on the first listener.
    pub async fn raw(&self) -> Client {
        Client::tcp(self.address(0)).await
    }

    /// A raw client over TLS on the second listener.
    pub async fn tls(&self) -> Client {
        Client::tls(self.address(1), "localhost").await
    }

    /// An HTTP/2 client over TLS on the second listener.
    pub async fn h2(&self) -> H2Client {
        H2Client::tls(self.address(1), "localhost").await
    }

    /// GET on a connection of its own.
    pub async fn get(&self, path: &str) -> Response {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await
    }

    /// POST on a connection of its own.
    pub async fn post(&self, path: &str, body: &str) -> Response {
        let length = body.len();
        self.send(&format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}")).await
    }

    /// These bytes on a connection of their own.
    pub async fn send(&self, request: &str) -> Response {
        self.raw().await.exchange(request).await
    }

    /// The lines of the access log, as soon as there are so many; panics if there are more.
    pub async fn access_log(&self, count: usize) -> Vec<Value> {
        let file = self.folder().join("access.log");
        let complete = || {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            // A line that is still being written has no end yet.
            (text.matches('\n').count() >= count).then_some(text)
        };
        let text = wait_for(&format!("the access log should have {count} line(s)"), complete).await;
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
        assert_eq!(lines.len(), count, "{lines:#?}");
        lines
    }

    /// The page of metrics, which must be a good one.
    pub async fn metrics(&self) -> Exposition {
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let answer = Client::tcp(self.admin_address()).await.exchange(request).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        Exposition::read(&answer.text())
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.front.in_flight()
    }

    /// Waits until no request is in flight: what a request held is given back a moment after its last byte.
    pub async fn until_idle(&self) {
        self.wait_until("no request should be in flight", |lb| lb.in_flight() == 0).await;
    }

    /// Waits until this holds.
    pub async fn wait_until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        wait_until(what, || condition(self)).await;
    }

    /// An upstream, as it is now.
    pub fn upstream(&self, name: &str) -> Arc<Upstream> {
        self.front.upstream(name).unwrap()
    }

    /// Takes over another configuration; the file must be a good one.
    pub async fn reload(&self, builder: Builder) -> Result<Reloaded, StartError> {
        self.front.reload(builder.config(self.folder())).await
    }

    /// The configuration that a reload with this file would take; for a test that changes what the file names.
    pub fn config_of(&self, builder: &Builder) -> Config {
        builder.config(self.folder())
    }

    /// Leaves in order, and says whether all requests could finish.
    pub async fn shutdown(self) -> bool {
        in_time("the front door should leave", self.front.shutdown()).await
    }
}

impl Builder {
    /// A key of the upstream: `balance: least_connections`.
    pub fn yaml_upstream(mut self, line: &str) -> Self {
        self.upstream.push(line.to_owned());
        self
    }

    /// A key of the route: `timeout: 1s`.
    pub fn yaml_route(mut self, line: &str) -> Self {
        self.route.push(line.to_owned());
        self
    }

    /// A section of the file: `server: { grace_period: 1s }`, or `listeners:` in place of the usual two.
    pub fn yaml_section(mut self, text: &str) -> Self {
        self.top.push(text.to_owned());
        self
    }

    /// Opens the front door.
    pub async fn start(self) -> Lb {
        self.try_start().await.unwrap()
    }

    /// Opens the front door, or says why it does not open. The file must be a good one.
    pub async fn try_start(self) -> Result<Lb, StartError> {
        self.try_start_in(tempfile::tempdir().unwrap()).await
    }

    /// Opens the front door in a folder that holds what the file names.
    pub async fn try_start_in(self, folder: TempDir) -> Result<Lb, StartError> {
        let config = self.config(folder.path());
        let front = in_time("the front door should open", FrontDoor::start(config)).await?;
        Ok(Lb { front, folder })
    }

    /// The file as it is given to the front door.
    pub fn text(&self) -> String {
        let mut text = self.whole.clone().unwrap_or_else(|| self.app());
        for section in &self.top {
            let _ = writeln!(text, "{section}");
        }
        let usual = ["log: { access: access.log, dashboard: none }\n", "admin: { address: 127.0.0.1:0 }\n", LISTENERS];
        for section in usual {
            let key = section.split_inclusive(':').next().unwrap();
            if !text.lines().any(|line| line.starts_with(key)) {
                text.push_str(section);
            }
        }
        text
    }

    /// One upstream and a route to it.
    fn app(&self) -> String {
        let mut text = format!("upstreams:\n  app:\n    backends: {:?}\n", self.urls);
        // A probe would be a connection and a request that no test counts on.
        let quiet = "health_check: none".to_owned();
        let probed = self.upstream.iter().any(|line| line.starts_with("health_check"));
        for line in self.upstream.iter().chain((!probed).then_some(&quiet)) {
            let _ = writeln!(text, "    {line}");
        }
        text.push_str("routes:\n  - upstream: app\n");
        for line in &self.route {
            let _ = writeln!(text, "    {line}");
        }
        text
    }

    fn config(&self, folder: &Path) -> Config {
        let text = self.text();
        let checked = parse(&text, "test.yaml", &Surroundings::of_process(folder.to_path_buf()));
        checked.unwrap_or_else(|problems| panic!("{text}\nis refused: {problems:#?}")).config
    }
}

fn tcp(address: &Address) -> SocketAddr {
    match address {
        Address::Tcp(address) => *address,
        Address::Unix(path) => panic!("{} is a unix socket", path.display()),
    }
}
