//! The cache's tier on disk: what it knows after a restart, and what it must have forgotten.
//!
//! The listeners are unix sockets, since a port is part of what an answer is stored under, and the system gives each
//! front door another.

use crate::support;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use portcullis::server::StartError;
use support::backend::response;
use support::front_door::Builder;
use support::{Act, Backend, Client, Lb, Portcullis, Response, Script};
use tempfile::TempDir;

const SIZE: u64 = 64 << 20;

/// What lasts while front doors come and go.
struct Site {
    folder: TempDir,
    backend: Backend,
}

impl Site {
    fn new(answers: impl IntoIterator<Item = Bytes>) -> Self {
        let answers = answers.into_iter().map(|answer| vec![Act::Write(answer)]);
        Self { folder: tempfile::tempdir().unwrap(), backend: Backend::scripted(Script::each(answers)) }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("edge.sock")
    }

    fn disk(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn front_door(&self) -> Builder {
        let (socket, disk) = (self.socket(), self.disk());
        Lb::with_backends([&self.backend])
            .yaml_section(&format!("listeners: [{{ address: \"unix:{}\" }}]", socket.display()))
            .yaml_section(&format!("cache: {{ disk: {{ path: \"{}\", size: 64MiB }} }}", disk.display()))
            .yaml_route("expose: [cache]")
            .yaml_route("cache: {}")
            .yaml_route("retry: none")
    }

    async fn ask(&self, request: &str) -> Response {
        Client::unix(&self.socket()).await.exchange(request).await
    }

    async fn get(&self, path: &str, fields: &str) -> Response {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await
    }
}

fn is_hit(response: &Response) -> bool {
    response.field("cache-status").unwrap().contains("; hit")
}

fn answer(fields: &[(&str, &str)], body: &str) -> Bytes {
    response(200, fields, body)
}

fn fresh(body: &str) -> Bytes {
    answer(&[("Cache-Control", "max-age=600"), ("ETag", "\"1\""), ("X-Own", "yes")], body)
}

/// A body that says whose it is, at each of its places.
fn body(of: usize, length: usize) -> String {
    format!("{of:07}.").chars().cycle().take(length).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_before_a_restart_is_served_after_it() {
    let all = body(1, 300_000);
    let site = Site::new([fresh(&all), fresh("another")]);
    let lb = site.front_door().start().await;
    assert_eq!(site.get("/a", "").await.text(), all);
    assert!(lb.shutdown().await);
    let lb = site.front_door().start().await;
    for _ in 0..2 {
        let again = site.get("/a", "").await;
        assert!(is_hit(&again));
        assert_eq!(
            (again.text(), again.field("x-own"), again.field("etag")),
            (all.clone(), Some("yes"), Some("\"1\""))
        );
    }
    let part = site.get("/a", "Range: bytes=70000-70015\r\n").await;
    assert_eq!((part.status, part.text()), (206, all[70_000..=70_015].to_owned()));
    assert_eq!(site.get("/a", "If-None-Match: \"1\"\r\n").await.status, 304);
    assert_eq!(site.backend.requests(), 1);
    assert_eq!(site.get("/b", "").await.text(), "another");
    assert!(lb.shutdown().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn head_and_ranges_are_served_by_what_is_only_on_disk() {
    let site = Site::new([fresh(&body(1, 100_000))]);
    let lb = site.front_door().start().await;
    site.get("/a", "").await;
    assert!(lb.shutdown().await);
    let lb = site.front_door().start().await;
    let mut client = Client::unix(&site.socket()).await;
    client.send("HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = client.read_response_to_head().await;
    assert_eq!((head.status, head.field("content-length"), is_hit(&head)), (200, Some("100000"), true));
    assert!(lb.shutdown().await);
    let lb = site.front_door().start().await;
    let part = site.get("/a", "Range: bytes=-8\r\n").await;
    assert_eq!((part.status, part.text()), (206, body(1, 8)));
    assert_eq!(site.backend.requests(), 1);
    assert!(lb.shutdown().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_variant_returns_to_those_whom_it_was_for() {
    let vary = |body| answer(&[("Cache-Control", "max-age=600"), ("Vary", "Accept-Language")], body);
    let site = Site::new([vary("hello"), vary("hallo"), vary("salut")]);
    let lb = site.front_door().start().await;
    for (language, text) in [("en", "hello"), ("de", "hallo")] {
        assert_eq!(site.get("/a", &format!("Accept-Language: {language}\r\n")).await.text(), text);
    }
    assert!(lb.shutdown().await);
    let lb = site.front_door().start().await;
    for (language, text, hit) in [("de", "hallo", true), ("fr", "salut", false), ("en", "hello", true)] {
        let got = site.get("/a", &format!("Accept-Language: {language}\r\n")).await;
        assert_eq!((got.text(), is_hit(&got)), (text.to_owned(), hit));
    }
    assert!(lb.shutdown().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stale_after_a_restart_is_revalidated_and_not_fetched_anew() {
    let stale = answer(&[("Cache-Control", "max-age=0"), ("ETag", "\"1\"")], "stale");
    let unchanged = response(304, &[("Cache-Control", "max-age=600"), ("ETag", "\"1\"")], "");
    let site = Site::new([stale, unchanged]);
    let lb = site.front_door().start().await;
    site.get("/a", "").await;
    assert!(lb.shutdown().await);
    let lb = site.front_door().start().await;
    assert_eq!(site.get("/a", "").await.text(), "stale");
    assert_eq!(site.backend.received()[1].field("if-none-match"), Some("\"1\""));
    assert!(is_hit(&site.get("/a", "").await));
    assert_eq!(site.backend.requests(), 2);
    assert!(lb.shutdown().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stale_after_a_restart_serves_while_no_backend_does() {
    let site = Site::new([answer(&[("Cache-Control", "max-age=0, stale-if-error=600")], "stale")]);
    let lb = site.front_door().start().await;
    site.get("/a", "").await;
    assert!(lb.shutdown().await);
    site.backend.stop().await;
    let lb = site.front_door().start().await;
    let got = site.get("/a", "").await;
    assert_eq!((got.status, got.text()), (200, "stale".to_owned()));
    assert!(lb.shutdown().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_post_has_changed_does_not_return() {
    let site = Site::new([fresh("old"), answer(&[], "changed"), fresh("new")]);
    let lb = site.front_door().start().await;
    assert_eq!(site.get("/a", "").await.text(), "old");
    site.ask("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    assert!(lb.shutdown().await);
    let lb = site.front_door().start().await;
    assert_eq!(site.get("/a", "").await.text(), "new");
    assert!(is_hit(&site.get("/a", "").await));
    assert!(lb.shutdown().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_to_be_stored_is_not_on_disk_either() {
    let private = answer(&[("Cache-Control", "private, max-age=600")], "for one");
    let site = Site::new([private, fresh("for all")]);
    let lb = site.front_door().start().await;
    assert_eq!(site.get("/a", "").await.text(), "for one");
    assert!(lb.shutdown().await);
    let lb = site.front_door().start().await;
    assert_eq!(site.get("/a", "").await.text(), "for all");
    assert!(lb.shutdown().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_takes_no_more_than_it_may() {
    let objects = 18;
    let site = Site::new((0..objects).map(|object| fresh(&body(object, 4 << 20))).chain([fresh("fetched anew")]));
    let lb = site.front_door().start().await;
    for object in 0..objects {
        site.get(&format!("/{object}"), "").await;
    }
    assert!(lb.shutdown().await);
    assert!(taken(&site.disk()) <= SIZE, "{}", taken(&site.disk()));
    let lb = site.front_door().start().await;
    let mut hits = 0;
    for object in 0..objects {
        let got = site.get(&format!("/{object}"), "").await;
        let expected = if is_hit(&got) { body(object, 4 << 20) } else { "fetched anew".to_owned() };
        assert!(got.text() == expected, "{object}");
        hits += usize::from(is_hit(&got));
    }
    assert!(hits > 0 && hits < objects, "{hits}");
    assert!(lb.shutdown().await);
}

fn taken(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| if entry.path().is_dir() { taken(&entry.path()) } else { entry.metadata().unwrap().len() })
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_used_is_told_at_the_start_with_help() {
    let site = Site::new([fresh("x")]);
    let refused = async || site.front_door().try_start().await.err().unwrap();
    // Even root cannot write to a file that is a folder.
    fs::create_dir_all(site.disk().join("lock")).unwrap();
    let error = refused().await;
    assert!(matches!(error, StartError::CacheDisk(_)), "{error:?}");
    let (text, path) = (error.to_string(), site.disk().display().to_string());
    assert!(text.starts_with("cache.disk: ") && text.contains(&path) && text.contains("can write to"), "{text}");
    fs::remove_dir(site.disk().join("lock")).unwrap();
    let lb = site.front_door().start().await;
    fs::remove_file(site.socket()).unwrap();
    let text = refused().await.to_string();
    assert!(text.contains("another process uses this folder; give each its own `cache.disk.path`"), "{text}");
    assert!(lb.shutdown().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_disk_needs_a_restart_and_the_old_one_stays_in_use() {
    let site = Site::new([fresh("x")]);
    let lb = site.front_door().start().await;
    let elsewhere = format!("cache: {{ disk: {{ path: \"{}\" }} }}", site.folder.path().join("other").display());
    let text = site
        .front_door()
        .text()
        .replace(&format!("cache: {{ disk: {{ path: \"{}\", size: 64MiB }} }}", site.disk().display()), &elsewhere);
    let reloaded = lb.reload(Lb::yaml(text)).await.unwrap();
    assert_eq!(reloaded.needs_restart, ["cache.disk"]);
    site.get("/a", "").await;
    assert!(lb.shutdown().await);
    let lb = site.front_door().start().await;
    assert!(is_hit(&site.get("/a", "").await));
    assert!(lb.shutdown().await);
}

/// Objects that are stored until the program is killed, and after how many answers that is.
const OBJECTS: usize = 400;
const KILLED_AFTER: [usize; 2] = [60, 150];

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_killed_while_it_stores_serves_no_wrong_body_and_nothing_invalidated() {
    for killed_after in KILLED_AFTER {
        let objects = (0..OBJECTS).map(|object| fresh(&body(object, 50_000)));
        let answers = [fresh("old"), answer(&[], "changed")].into_iter().chain(objects).chain([fresh("fetched anew")]);
        let site = Site::new(answers);
        let file = site.front_door().text();
        let mut program = Portcullis::run(&file);
        program.line_with("listening on ").await;
        assert_eq!(site.get("/changed", "").await.text(), "old");
        site.ask("POST /changed HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
        for object in 0..killed_after {
            site.get(&format!("/{object}"), "").await;
        }
        program.signal("KILL");
        assert_eq!(program.exit_code().await, None);
        site.backend.until_requests(killed_after + 2).await;
        let program = Portcullis::run(&file);
        program.line_with("listening on ").await;
        let mut hits = 0;
        for object in 0..killed_after {
            let got = site.get(&format!("/{object}"), "").await;
            if is_hit(&got) {
                assert!(got.text() == body(object, 50_000), "{object}");
                hits += 1;
            }
        }
        assert!(hits > 0, "something was on disk");
        assert!(!is_hit(&site.get("/changed", "").await));
    }
}

/// An upgrade of a program that has stored `/a` and `/b`, with something done before the disk is the new one's.
async fn upgraded(site: &Site, meanwhile: &str) -> Portcullis {
    let server = format!("server: {{ upgrade_socket: '{}' }}", site.folder.path().join("upgrade.sock").display());
    let program = Arc::new(Portcullis::run(&site.front_door().yaml_section(&server).text()));
    let admin: SocketAddr = program.line_with("/readyz on ").await.rsplit(' ').next().unwrap().parse().unwrap();
    let ask = async |request: String| Client::tcp(admin).await.exchange(request).await;
    let purge =
        |url: &str| format!("POST /cache/purge?url={url} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    for path in ["/a", "/b", "/c"] {
        assert!(!is_hit(&site.get(path, "").await));
    }
    assert_eq!(ask(purge("http://a/c")).await.status, 200, "the old one can still write it down");
    // Whoever waits for a lock has it before those who look now and then, as the new process does.
    let (lock, had) = (site.disk().join("lock"), Arc::new(Barrier::new(2)));
    let (release, freed) = std::sync::mpsc::channel::<()>();
    let others = had.clone();
    let holder = thread::spawn(move || {
        let file = fs::File::open(lock).unwrap();
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
        others.wait();
        freed.recv().unwrap();
    });
    let upgrading = program.clone();
    let upgrade = move || upgrading.command(&["upgrade", "-c", "portcullis.yaml"]);
    let done = tokio::task::spawn_blocking(upgrade).await.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    program.line_with("drained").await;
    tokio::task::spawn_blocking(move || had.wait()).await.unwrap();
    if !meanwhile.is_empty() {
        assert_eq!(ask(purge(meanwhile)).await.status, 200);
    }
    release.send(()).unwrap();
    holder.join().unwrap();
    let opened = async || {
        let page = ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned()).await;
        page.text().contains("\nportcullis_cache_disk_bytes ").then_some(())
    };
    until("the new process should have the disk", opened).await;
    Arc::into_inner(program).unwrap()
}

/// Asks again and again until there is something; nothing here tells when it is.
async fn until(what: &str, mut asked: impl AsyncFnMut() -> Option<()>) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while asked().await.is_none() {
        assert!(Instant::now() < deadline, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_takes_the_disk_over_with_what_was_purged_before() {
    let site = Site::new(["old a", "old b", "old c", "new c"].map(fresh));
    let _program = upgraded(&site, "").await;
    for (path, text) in [("/a", "old a"), ("/b", "old b")] {
        let got = site.get(path, "").await;
        assert!(is_hit(&got) && got.text() == text, "{path}: {got:?}");
    }
    let purged = site.get("/c", "").await;
    assert!(!is_hit(&purged) && purged.text() == "new c", "{purged:?}");
    assert_eq!(site.backend.requests(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_during_an_upgrade_leaves_nothing_of_what_it_may_mean() {
    let site = Site::new(["old a", "old b", "old c", "new a", "new b"].map(fresh));
    let _program = upgraded(&site, "http://a/a").await;
    for (path, text) in [("/a", "new a"), ("/b", "new b")] {
        let got = site.get(path, "").await;
        assert!(!is_hit(&got) && got.text() == text, "{path}: {got:?}");
    }
}
