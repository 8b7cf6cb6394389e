//! The status page in a real browser: that it shows what is so, goes on by itself, can be worked by keyboard, and that
//! nothing goes wrong on it.

use crate::support;

use std::fmt::Write as _;

use support::clients::{python, run};
use support::{Backend, Lb};

/// What the browser is to do, by the names of tests/clients/status_page.py; it fails if something is not as it should be.
async fn browse(lb: &Lb, arguments: &[&str]) {
    let mut browser = python("status_page.py");
    browser.arg(format!("http://{}/", lb.admin_address())).args(arguments);
    run(browser).await;
}

/// A front door for so many backends, which are never asked for anything.
async fn many(count: usize) -> Lb {
    let mut text = String::from("upstreams:\n  app:\n    health_check: none\n    backends:\n");
    for index in 0..count {
        let _ = writeln!(text, "      - {{ url: 10.1.{}.{}:80, name: app-{index} }}", index / 250, index % 250 + 1);
    }
    text.push_str("routes: [{ upstream: app }]\n");
    Lb::yaml(text).start().await
}

#[tokio::test]
async fn a_few_backends_are_shown_live_and_drained_by_keyboard() {
    let backends = ["a", "b", "c"].map(Backend::named);
    let lb = Lb::with_backends(&backends).start().await;
    for _ in 0..9 {
        lb.get("/").await;
    }
    browse(&lb, &["rows=3", "themes", "keyboard", "drain"]).await;
}

#[tokio::test]
async fn the_card_of_the_cache_shows_the_disk() {
    let cacheable = support::backend::response(200, &[("Cache-Control", "max-age=60")], "hello");
    let backend = Backend::scripted(support::Script::each([vec![support::Act::Write(cacheable)]]));
    let disk = tempfile::tempdir().unwrap();
    let cache = format!("cache: {{ disk: {{ path: '{}', size: 64MiB }} }}", disk.path().join("tier").display());
    let lb = Lb::with_backends([&backend]).yaml_section(&cache).yaml_route("cache: {}").start().await;
    lb.get("/").await;
    browse(&lb, &["rows=1", "disk=64 MiB"]).await;
}

#[tokio::test]
async fn five_hundred_backends_are_patched_and_filtered() {
    let lb = many(500).await;
    browse(&lb, &["rows=500", "themes", "patched", "filter", "drain"]).await;
}

#[tokio::test]
async fn the_page_asks_for_the_token_and_shows_nothing_without_it() {
    let backend = Backend::named("a");
    let admin = "admin: { address: 127.0.0.1:0, token: 0123456789abcdef }";
    let lb = Lb::with_backends([&backend]).yaml_section(admin).start().await;
    browse(&lb, &["login=0123456789abcdef", "rows=1"]).await;
}
