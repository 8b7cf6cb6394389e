//! Clients that other people wrote, through the front door: curl, a WebSocket library, gRPC.
//!
//! `./test` installs what they need; where something is missing the test fails and says so, it never skips.

use crate::support;

use std::process::Command;

use support::clients::{Echo, python, run};
use support::tls::Certificate;
use support::{Backend, Lb};

#[tokio::test]
async fn curl_speaks_http1_and_http2_to_the_front_door() {
    let backend = Backend::answering(200, "hello");
    let lb = Lb::with_backends([&backend]).start().await;
    let (plain, secure) = (lb.address(0), lb.address(1));

    for (arguments, wanted) in [
        (vec!["--http1.1".to_owned(), format!("http://{plain}/")], "hello 1.1"),
        (vec!["-k".to_owned(), "--http1.1".to_owned(), format!("https://{secure}/")], "hello 1.1"),
        (vec!["-k".to_owned(), "--http2".to_owned(), format!("https://{secure}/")], "hello 2"),
    ] {
        let mut curl = Command::new("curl");
        // A proxy that the environment names is not the one under test.
        curl.args(["-sS", "--noproxy", "*", "--max-time", "10", "-w", " %{http_version}"]).args(&arguments);
        assert_eq!(run(curl).await, wanted, "curl {arguments:?}");
    }
}

#[tokio::test]
async fn websockets_pass_through_with_and_without_tls() {
    let echo = Echo::start("websocket_echo.py");
    let lb = Lb::with_urls([echo.url()]).start().await;

    for url in [format!("ws://{}/chat", lb.address(0)), format!("wss://{}/chat", lb.address(1))] {
        let mut client = python("websocket_echo.py");
        client.args(["client", &url]);
        assert_eq!(run(client).await.trim(), "every message came back");
    }
}

#[tokio::test]
async fn grpc_passes_from_end_to_end_with_its_trailers() {
    let echo = Echo::start("grpc_echo.py");
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = Certificate::for_names(&["localhost"]).save(folder.path(), "grpc");
    let tls = format!("{{ certificates: [{{ cert: {cert:?}, key: {key:?} }}] }}");
    let listeners = format!("listeners:\n  - {{ address: 127.0.0.1:0, tls: {tls} }}");
    let urls = [echo.url()];
    let lb = Lb::with_urls(urls).yaml_upstream("protocol: http2").yaml_section(&listeners).start().await;

    let mut client = python("grpc_echo.py");
    client.args(["client", &format!("localhost:{}", lb.address(0).port())]).arg(cert);
    assert_eq!(run(client).await.trim(), "every call went as it should");
}
