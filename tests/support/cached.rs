//! What the tests of the cache share: a front door whose one route caches, short requests, and what the log says.

use super::backend::response;
use super::{Act, Backend, Client, Lb, Response, Script};

/// A front door whose one route caches as `cache` says.
pub async fn caching(backend: &Backend, cache: &str) -> Lb {
    Lb::with_backends([backend]).yaml_route("expose: [cache]").yaml_route(&format!("cache: {cache}")).start().await
}

/// Answers each request with a 200.
pub fn backend(fields: &[(&str, &str)], body: &str) -> Backend {
    Backend::writing(response(200, fields, body))
}

/// Gives one answer after the other; the last is repeated.
pub fn backend_saying(answers: impl IntoIterator<Item = bytes::Bytes>) -> Backend {
    Backend::scripted(Script::each(answers.into_iter().map(|answer| vec![Act::ReadBody, Act::Write(answer)])))
}

/// A 200 that is fresh for a minute.
pub fn fresh(body: &str) -> bytes::Bytes {
    response(200, &[("Cache-Control", "max-age=60")], body)
}

/// GET for host `a` with these lines, on a connection of its own.
pub async fn get(lb: &Lb, target: &str, lines: &str) -> Response {
    ask(lb, "GET", target, lines, "").await
}

/// A request for host `a`, on a connection of its own.
pub async fn ask(lb: &Lb, method: &str, target: &str, lines: &str, body: &str) -> Response {
    let mut client = lb.raw().await;
    client.send(request(method, target, lines, body)).await;
    if method == "HEAD" { client.read_response_to_head().await } else { client.read_response().await }
}

/// The bytes of a request for host `a`.
pub fn request(method: &str, target: &str, lines: &str, body: &str) -> String {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{length}{lines}\r\n{body}")
}

/// What the log says of the cache, request by request, once there are so many.
pub async fn words(lb: &Lb, count: usize) -> Vec<String> {
    let log = lb.access_log(count).await;
    log.iter().map(|line| line["cache"].as_str().unwrap_or("none").to_owned()).collect()
}

/// Sends a request on `count` connections at once, and leaves the answers to be read.
pub async fn crowd(lb: &Lb, count: usize, request: &str) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = lb.raw().await;
        client.send(request).await;
        clients.push(client);
    }
    clients
}
