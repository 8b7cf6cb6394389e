//! A backend that speaks HTTP/2 by prior knowledge or over TLS, with the manners of gRPC.
//!
//! The path says what it does: `/half` resets the stream within a body that could be stored; `/error` answers with trailers alone and `grpc-status: 7`; `/reset` resets the stream,
//! `/refused` as one that it did nothing with; `/unavailable` answers 503; `/hang` never answers;
//! `/as/TYPE/SUBTYPE` says that what it sends back is of that type, not gRPC;
//! `/not/PORT` is answered 503 by the backend on this port, once it has had the whole body, and `/late/PORT` never;
//! anything else sends each DATA frame back as it comes and ends with the trailers that came and `grpc-status: 0`.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderValue, Request, Response};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::backend::bound;
use super::client::Stream;
use super::tls::{self, Certificate};

/// An HTTP/2 server on a port of its own.
pub struct H2Backend {
    address: SocketAddr,
    task: JoinHandle<()>,
    heads: Heads,
    certificate: Option<Certificate>,
}

type Heads = Arc<Mutex<Vec<http::request::Parts>>>;

impl H2Backend {
    /// Without TLS, by prior knowledge.
    pub fn plain() -> Self {
        H2Backend::open(None)
    }

    /// Over TLS, with a certificate for `localhost` and `127.0.0.1`.
    pub fn over_tls() -> Self {
        H2Backend::open(Some(Certificate::for_names(&["localhost", "127.0.0.1"])))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As the configuration writes it.
    pub fn url(&self) -> String {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The certificate it shows.
    pub fn certificate(&self) -> &Certificate {
        self.certificate.as_ref().expect("this backend does not speak TLS")
    }

    /// The heads of the requests so far.
    pub fn heads(&self) -> Vec<http::request::Parts> {
        self.heads.lock().unwrap().clone()
    }

    fn open(certificate: Option<Certificate>) -> Self {
        let listener = bound("127.0.0.1:0".parse().unwrap()).listen(1024).unwrap();
        let address = listener.local_addr().unwrap();
        let tls = certificate.as_ref().map(|own| TlsAcceptor::from(tls::server(own, &["h2"])));
        let heads = Heads::default();
        let task = tokio::spawn(accept(listener, tls, Arc::clone(&heads)));
        H2Backend { address, task, heads, certificate }
    }
}

impl Drop for H2Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, heads: Heads) {
    let port = listener.local_addr().unwrap().port();
    let mut serving = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (tls, heads) = (tls.clone(), Arc::clone(&heads));
        serving.spawn(async move {
            match tls {
                // A failed handshake is for the test to see from the other side.
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => serve(port, stream, heads).await,
                    Err(_) => Ok(()),
                },
                None => serve(port, stream, heads).await,
            }
        });
    }
}

async fn serve(port: u16, stream: impl Stream, heads: Heads) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(stream).await?;
    let mut answering = JoinSet::new();
    while let Some(request) = connection.accept().await {
        let (request, respond) = request?;
        let (head, body) = request.into_parts();
        heads.lock().unwrap().push(head.clone());
        answering.spawn(answer(port, Request::from_parts(head, body), respond));
    }
    Ok(())
}

async fn answer(port: u16, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
    let media = request.uri().path().strip_prefix("/as/").unwrap_or("application/grpc");
    let head = Response::builder().header("content-type", media);
    match request.uri().path() {
        path if path == format!("/late/{port}") => std::future::pending().await,
        path if path == format!("/not/{port}") => {
            let mut receiving = request.into_body();
            while let Some(part) = receiving.data().await {
                receiving.flow_control().release_capacity(part?.len())?;
            }
            respond.send_response(head.status(503).body(()).unwrap(), true).map(drop)
        }
        "/reset" => {
            respond.send_reset(Reason::INTERNAL_ERROR);
            Ok(())
        }
        "/half" => {
            let head = Response::builder().header("cache-control", "max-age=60").body(()).unwrap();
            let mut sending = respond.send_response(head, false)?;
            sending.send_data(Bytes::from_static(b"half"), false)?;
            sending.send_reset(Reason::INTERNAL_ERROR);
            Ok(())
        }
        "/refused" => {
            respond.send_reset(Reason::REFUSED_STREAM);
            Ok(())
        }
        "/unavailable" => respond.send_response(head.status(503).body(()).unwrap(), true).map(drop),
        "/hang" => std::future::pending().await,
        "/error" => {
            let head = head.header("grpc-status", "7").header("grpc-message", "no").body(()).unwrap();
            respond.send_response(head, true).map(drop)
        }
        _ => {
            let mut sending = respond.send_response(head.body(()).unwrap(), false)?;
            let mut receiving = request.into_body();
            while let Some(part) = receiving.data().await {
                let part = part?;
                receiving.flow_control().release_capacity(part.len())?;
                sending.send_data(part, false)?;
            }
            let mut trailers = receiving.trailers().await?.unwrap_or_default();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            sending.send_trailers(trailers)
        }
    }
}
