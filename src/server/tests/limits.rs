//! Addresses, connection limits, HTTP/2 without TLS, and leaving.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;

use tokio::net::UnixStream;

use super::tls::http2_get;
use super::*;
use crate::server::listen::BindError;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn unix(directory: &tempfile::TempDir) -> (PathBuf, Listener) {
    let path = directory.path().join("door.sock");
    (path.clone(), Listener { address: Address::Unix(path), ..listener() })
}

#[tokio::test]
async fn a_connection_over_the_total_is_closed_at_once() {
    let door = Door::open_with(listener(), 1);
    let mut first = door.connect().await;
    first.send(GET).await.response().await;
    assert_eq!(door.connect().await.rest().await, "");
    assert_eq!(door.front.counters().over_total.load(Relaxed), 1);
    first.send(GET).await.response().await;
    drop(first);
    // The place comes back once the door has seen that the first is gone.
    let served = timeout(DEADLINE, async {
        loop {
            let mut client = door.connect().await;
            client.send(GET).await;
            if client.0.read_u8().await.is_ok() {
                return;
            }
        }
    });
    served.await.expect("a place comes back");
}

#[tokio::test]
async fn a_connection_over_its_addresss_limit_is_closed_at_once() {
    let door = Door::open(Listener { max_connections_per_address: Some(1), ..listener() });
    let mut first = door.connect().await;
    first.send(GET).await.response().await;
    assert_eq!(door.connect().await.rest().await, "");
    assert_eq!(door.front.counters().over_address.load(Relaxed), 1);
}

#[tokio::test]
async fn a_unix_socket_is_served_and_open_to_its_group_only() {
    let directory = tempfile::tempdir().unwrap();
    let (path, config) = unix(&directory);
    let door = Door::open(config);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let mut client = Raw(UnixStream::connect(&path).await.unwrap());
    assert!(client.send(GET).await.response().await.starts_with("HTTP/1.1 200 OK"));
    assert_eq!(door.address, Address::Unix(path));
}

#[tokio::test]
async fn a_socket_file_is_replaced_only_if_nobody_answers_on_it() {
    let directory = tempfile::tempdir().unwrap();
    let (path, config) = unix(&directory);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let listening = bind(&config.address).expect("nobody answers");
    assert!(matches!(bind(&config.address), Err(BindError::InUse { .. })));
    drop(listening);
    assert!(!path.exists());
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(bind(&config.address), Err(BindError::NotASocket { .. })));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    let nowhere = Address::Unix(directory.path().join("none").join("door.sock"));
    assert!(matches!(bind(&nowhere), Err(BindError::NoDirectory { .. })));
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let listening = bind(&listener().address).unwrap();
    let problem = bind(listening.local_address()).unwrap_err();
    assert!(matches!(problem, BindError::InUse { .. }));
    let Address::Tcp(address) = listening.local_address() else { panic!("a TCP address") };
    assert_eq!(problem.to_string(), format!("{address} is in use by another process"));
    let elsewhere = bind(&Address::Tcp("192.0.2.1:0".parse().unwrap()));
    assert!(matches!(elsewhere, Err(BindError::NotOurs { .. })));
}

#[tokio::test]
async fn http2_is_spoken_without_tls_by_prior_knowledge() {
    let door = Door::open(Listener { http2: Http2::Only, ..listener() });
    let stream = TcpStream::connect(door.tcp()).await.unwrap();
    assert!(http2_get(stream).await.contains("GET /h2 0 tls=none"));
}

#[tokio::test]
async fn an_http2_connection_without_a_request_is_closed() {
    let door = Door::open(Listener { http2: Http2::Only, ..listener() });
    for beginning in ["", "GET /", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut client = door.connect().await;
        let mut rest = Vec::new();
        client.send(beginning).await;
        let closed = timeout(DEADLINE, client.0.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "{beginning:?} is closed in time");
    }
}

#[tokio::test]
async fn leaving_frees_the_port_and_closes_what_waits() {
    let door = Door::plain();
    let mut client = door.connect().await;
    client.send(GET).await.response().await;
    door.stop.send(true).unwrap();
    assert_eq!(client.rest().await, "");
    timeout(DEADLINE, door.accepting).await.expect("accepting ends").unwrap();
    bind(&door.address).expect("the port is free");
    timeout(DEADLINE, door.in_flight.none_left()).await.expect("nothing is in flight");
}

/// They wait in the system's queue: nothing accepts before we leave.
#[tokio::test]
async fn who_connected_before_we_leave_is_served() {
    let door = Door::plain();
    let clients = [(); 3].map(|()| {
        let mut client = std::net::TcpStream::connect(door.tcp()).unwrap();
        std::io::Write::write_all(&mut client, GET.as_bytes()).unwrap();
        client.set_nonblocking(true).unwrap();
        Raw(TcpStream::from_std(client).unwrap())
    });
    door.stop.send(true).unwrap();
    door.front.stop_waiting().await;
    for mut client in clients {
        assert!(client.rest().await.contains("GET / 0 "));
    }
    timeout(DEADLINE, door.accepting).await.expect("accepting ends").unwrap();
}
