//! Who may come in by address: lists in the configuration and in files, through the front door.

use crate::support;

use std::fmt::Write as _;
use std::fs;

use support::front_door::Builder;
use support::{Backend, Client, Lb};

fn listed(backend: &Backend, lists: &[&str]) -> Builder {
    let trusting = "server: { trusted_proxies: [127.0.0.0/8] }";
    lists.iter().fold(Lb::with_backends([backend]).yaml_section(trusting), |lb, list| lb.yaml_route(list))
}

/// The status for a client at this address.
async fn from(lb: &Lb, address: &str) -> u16 {
    lb.send(&format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {address}\r\n\r\n")).await.status
}

#[tokio::test]
async fn only_who_is_allowed_and_not_denied_comes_in() {
    let backend = Backend::answering(200, "in");
    let lists = ["allow: [10.0.0.0/8, \"2001:db8::/32\", 192.0.2.7]", "deny: [10.1.0.0/16, \"2001:db8:1::1\"]"];
    let lb = listed(&backend, &lists).start().await;
    let cases = [
        ("10.2.0.1", 200),
        ("10.1.0.1", 403),
        ("192.0.2.7", 200),
        ("192.0.2.8", 403),
        ("::ffff:10.2.0.1", 200),
        ("::ffff:10.1.0.1", 403),
        ("2001:db8::1", 200),
        ("2001:db8:1::1", 403),
        ("2001:db9::1", 403),
    ];
    for (address, status) in cases {
        assert_eq!(from(&lb, address).await, status, "{address}");
    }
    assert_eq!(backend.requests(), 4);
    let reasons: Vec<_> = lb.access_log(9).await.iter().map(|line| line["reason"].as_str() == Some("ok")).collect();
    assert_eq!(reasons, cases.map(|(_, status)| status == 200));
}

#[tokio::test]
async fn a_refusal_tells_nothing_and_is_found_in_the_log() {
    let backend = Backend::answering(200, "in");
    let lb = Lb::with_backends([&backend]).yaml_route("deny: [127.0.0.0/8]").start().await;
    let refused = lb.get("/").await;
    assert_eq!((refused.status, &*refused.text()), (403, "403 Forbidden: this is not allowed\n"));
    assert_eq!(lb.h2().await.get("/").await.status, 403);
    let upgrade = lb.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    assert_eq!(upgrade.status, 403);
    // Nobody can say that he is somebody else, unless he is trusted.
    assert_eq!(from(&lb, "192.0.2.1").await, 403);
    assert!(lb.access_log(4).await.iter().all(|line| line["reason"] == "address_denied"));
    assert_eq!(backend.requests(), 0);
}

#[tokio::test]
async fn who_is_kept_out_is_not_asked_for_a_password_and_not_counted() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("users"), format!("ann:{}\n", bcrypt::hash("opensesame", 4).unwrap())).unwrap();
    let backend = Backend::answering(200, "in");
    let lists = ["deny: [192.0.2.1]", "auth: { basic: users }", "rate_limits: [{ rate: 1/h, key: route }]"];
    let lb = listed(&backend, &lists).try_start_in(folder).await.unwrap();
    for (address, status) in
        [("192.0.2.1", 403), ("192.0.2.1", 403), ("192.0.2.2", 401), ("192.0.2.2", 429), ("192.0.2.1", 403)]
    {
        assert_eq!(from(&lb, address).await, status, "{address}");
    }
}

#[tokio::test]
async fn a_list_in_a_file_is_read_again_and_a_bad_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("blocked");
    let mut list = String::from("# 100,000 of them\n");
    (0..100_000_u32).for_each(|n| writeln!(list, "{}", std::net::Ipv4Addr::from_bits(0x0b00_0000 + 2 * n)).unwrap());
    fs::write(&file, &list).unwrap();
    let backend = Backend::answering(200, "in");
    let lb = listed(&backend, &["deny: [10.0.0.1, file:blocked]"]).try_start_in(folder).await.unwrap();
    assert!(lb.front().followed_files().contains(&file));
    let statuses = async || [from(&lb, "11.0.0.4").await, from(&lb, "11.0.0.5").await, from(&lb, "10.0.0.1").await];
    assert_eq!(statuses().await, [403, 200, 403]);
    for (contents, expected) in [
        ("11.0.0.5\n", [200, 403, 403]),
        ("11.0.0.4\nnonsense\n", [200, 403, 403]),
        ("", [200, 200, 403]),
        ("11.0.0.0/24", [403, 403, 403]),
    ] {
        fs::write(&file, contents).unwrap();
        lb.front().reread_files();
        assert_eq!(statuses().await, expected, "{contents}");
    }
}

#[tokio::test]
async fn who_has_no_address_is_on_no_list() {
    let backend = Backend::answering(200, "in");
    for (list, status) in [("deny: [0.0.0.0/0, \"::/0\"]", 200), ("allow: [0.0.0.0/0, \"::/0\"]", 403)] {
        let listener = "listeners: [{ address: unix:front.sock }]";
        let lb = Lb::with_backends([&backend]).yaml_section(listener).yaml_route(list).start().await;
        let mut client = Client::unix(&lb.folder().join("front.sock")).await;
        assert_eq!(client.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.status, status, "{list}");
    }
}

#[tokio::test]
async fn only_the_field_that_trusted_proxies_write_says_who_the_client_is() {
    let backend = Backend::answering(200, "in");
    let (forwarded, x_forwarded_for) = ("Forwarded: for=", "X-Forwarded-For: ");
    for (key, believed, other) in
        [("forwarded", forwarded, x_forwarded_for), ("x_forwarded_for", x_forwarded_for, forwarded)]
    {
        let server = format!("server: {{ trusted_proxies: [127.0.0.0/8], forwarded_by: {key} }}");
        let lb = Lb::with_backends([&backend]).yaml_section(&server).yaml_route("deny: [192.0.2.7]").start().await;
        let cases = [
            (format!("{believed}192.0.2.7\r\n{other}192.0.2.8\r\n"), 403, "192.0.2.7"),
            (format!("{believed}192.0.2.8\r\n{other}192.0.2.7\r\n"), 200, "192.0.2.8"),
            (format!("{other}192.0.2.7\r\n"), 200, "127.0.0.1"),
        ];
        for (number, (lines, status, client)) in cases.iter().enumerate() {
            let answer = lb.send(&format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).await;
            assert_eq!(answer.status, *status, "{key}: {lines}");
            assert_eq!(lb.access_log(number + 1).await[number]["client"], *client, "{key}: {lines}");
        }
    }
}
