//! What does it look like? Sample backends and a front door in one process: the first thing a newcomer runs.
//!
//! One backend is steady, one is slow, and one fails for a while and recovers by itself, so that the dashboard has
//! something to show.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

use crate::config::{Address, Problem, Surroundings, parse};
use crate::server::{self, Heritage, ProcessError};

const CONFIGURATION: &str = include_str!("../conf/demo.yaml");

/// How long the slow backend thinks.
const SLOW: Duration = Duration::from_millis(300);
/// How long the flaky backend is well, and how long it is not.
const WELL: Duration = Duration::from_secs(20);
const ILL: Duration = Duration::from_secs(10);

/// Why the demonstration did not start.
#[derive(Debug, Error)]
pub enum DemoError {
    /// A sample backend could not be started.
    #[error("cannot start a sample backend: {0}")]
    Backend(#[from] io::Error),
    /// Its configuration is bad.
    #[error("the configuration of the demonstration has problems: {}", list(.0))]
    Configuration(Vec<Problem>),
    /// The front door did not open.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n{problem}")).collect()
}

/// Runs until a signal ends it.
pub fn run() -> Result<(), DemoError> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let backend = |kind| runtime.block_on(start(kind));
    let (steady, slow, flaky) = (backend(Kind::Steady)?, backend(Kind::Slow)?, backend(Kind::Flaky)?);
    let mut surroundings = Surroundings::of_process(PathBuf::new());
    surroundings.environment = Box::new(move |name| match name {
        "DEMO_STEADY" => Some(steady.to_string()),
        "DEMO_SLOW" => Some(slow.to_string()),
        "DEMO_FLAKY" => Some(flaky.to_string()),
        other => std::env::var(other).ok(),
    });
    let checked = parse(CONFIGURATION, "conf/demo.yaml", &surroundings).map_err(DemoError::Configuration)?;
    Ok(server::run(checked.config, None, Heritage::default(), |addresses| log::info!("{}", welcome(addresses)))?)
}

/// What to try, at the ports that we have in fact: the environment may have chosen others than the usual.
fn welcome(addresses: &[Address]) -> String {
    let port = |listener: usize| match addresses.get(listener) {
        Some(Address::Tcp(address)) => address.port(),
        Some(Address::Unix(_)) | None => 0,
    };
    let (tls, plain) = (port(0), port(1));
    format!(
        "
Portcullis is up, with three sample backends behind it. Try:

  curl -k https://localhost:{tls}/          answered by a backend that is not busy
  curl -ki https://localhost:{tls}/hello    the same, with the fields that tell which one
  curl -i http://localhost:{plain}/teapot     answered by a route, without a backend

Watch the table below: `flaky` fails after 20 seconds, and recovers by itself. Ctrl-C ends it.
"
    )
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Steady,
    Slow,
    Flaky,
}

async fn start(kind: Kind) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let started = Instant::now();
    tokio::spawn(async move {
        // An error here is one of a client that is gone already.
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, kind, started));
        }
    });
    Ok(address)
}

/// Answers requests without bodies, which is what the demonstration sends.
async fn serve(stream: TcpStream, kind: Kind, started: Instant) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if stream.read_line(&mut first).await? == 0 {
            return Ok(());
        }
        let mut line = String::new();
        while stream.read_line(&mut line).await? > 2 {
            line.clear();
        }
        let path = first.split(' ').nth(1).unwrap_or("/");
        if matches!(kind, Kind::Slow) && path != "/healthz" {
            tokio::time::sleep(SLOW).await;
        }
        stream.get_mut().write_all(answer(kind, path, started).as_bytes()).await?;
    }
}

fn answer(kind: Kind, path: &str, started: Instant) -> String {
    let phase = started.elapsed().as_secs() % (WELL + ILL).as_secs();
    let is_ill = matches!(kind, Kind::Flaky) && phase >= WELL.as_secs();
    let (status, body) = match (is_ill, kind) {
        (true, _) => ("503 Service Unavailable", "I do not feel well\n".to_owned()),
        (false, Kind::Steady) => ("200 OK", format!("{path}, answered by the steady backend\n")),
        (false, Kind::Slow) => ("200 OK", format!("{path}, answered by the slow backend\n")),
        (false, Kind::Flaky) => ("200 OK", format!("{path}, answered by the flaky backend\n")),
    };
    format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
