//! Answers that are made smaller, read by decoders that other people wrote: Python's, Node's, curl's and Chromium's.
//!
//! `./test` installs what they need; where something is missing the test fails and says so, it never skips.

use crate::support;

use std::fmt::Write as _;
use std::process::Command;

use support::backend::response;
use support::clients::{Echo, in_clients, python, run, run_for_bytes};
use support::coded::{CODINGS, chunk};
use support::{Act, Backend, Lb, Script};

/// A front door that answers below `/WORD` in just this coding, with more settings for its route.
async fn coding_below<'a>(echo: &Echo, words: impl IntoIterator<Item = (String, &'a str, String)>) -> Lb {
    let mut text = format!("upstreams: {{ app: {{ backends: [\"{}\"], health_check: none }} }}\nroutes:\n", echo.url());
    for (word, coding, more) in words {
        let compress = format!("{{ algorithms: [{coding}]{more} }}");
        let _ = writeln!(text, "  - {{ match: {{ path: \"/{word}/*\" }}, upstream: app, compress: {compress} }}");
    }
    Lb::yaml(text).start().await
}

/// Every level of a coding decodes strictly, whatever the body and however it came.
async fn every_level(coding: &str, levels: std::ops::RangeInclusive<u8>) {
    let echo = Echo::start("decode.py");
    let words: Vec<String> = levels.clone().map(|level| format!("{coding}-{level}")).collect();
    let routes = words
        .iter()
        .zip(levels)
        .map(|(word, level)| (word.clone(), coding, format!(", levels: {{ {coding}: {level} }}")));
    let lb = coding_below(&echo, routes).await;

    let mut client = python("decode.py");
    client.arg("client").arg(lb.address(0).to_string()).args(&words);
    let said = run(client).await;

    assert!(said.trim_end().ends_with("bodies came whole"), "{said}");
    lb.until_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_reads_every_level_of_zstd() {
    every_level("zstd", 1..=19).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_reads_every_level_of_brotli() {
    every_level("br", 0..=11).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_reads_every_level_of_gzip() {
    every_level("gzip", 1..=9).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_reads_every_level_of_deflate() {
    every_level("deflate", 1..=9).await;
}

/// A front door that answers below the name of each coding in it, and elsewhere in any.
async fn one_route_each(echo: &Echo) -> Lb {
    let each = CODINGS.map(|coding| (coding.to_owned(), coding, String::new()));
    coding_below(echo, each.into_iter().chain([("any".to_owned(), "zstd, br, gzip, deflate", String::new())])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_reads_what_it_asks_for_over_http1_and_http2() {
    let echo = Echo::start("decode.py");
    let lb = one_route_each(&echo).await;

    let mut node = Command::new("node");
    node.arg("--no-warnings").arg(in_clients("decode.mjs"));
    node.args([format!("http://{}", lb.address(0)), format!("https://{}", lb.address(1)), "/any/text".to_owned()]);
    let said = run(node).await;

    for coding in ["gzip", "br", "deflate"] {
        assert!(said.contains(coding), "{said}");
    }
    assert_eq!(said.trim_end().ends_with("no zstd"), !node_has_zstd().await, "{said}");
}

/// Node reads it from 22.15 and 23.8 on. Before, that part of the test proves nothing; Chromium, curl and Python read it.
async fn node_has_zstd() -> bool {
    let mut node = Command::new("node");
    node.arg("--version");
    let said = run(node).await;
    let numbers: Vec<u32> = said.trim().trim_start_matches('v').split('.').map(|part| part.parse().unwrap()).collect();
    numbers[..2] >= [22, 15][..] && !(numbers[0] == 23 && numbers[1] < 8)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_reads_each_coding_over_http1_and_http2() {
    let echo = Echo::start("decode.py");
    let lb = one_route_each(&echo).await;
    let (plain, secure) = (format!("http://{}", lb.address(0)), format!("https://{}", lb.address(1)));
    let curl = |arguments: &[&str], url: String| {
        let mut curl = Command::new("curl");
        // A proxy that the environment names is not the one under test.
        curl.args(["-k", "-sS", "--noproxy", "*", "--max-time", "60"]).args(arguments).arg(url);
        curl
    };
    let wanted = run_for_bytes(curl(&["--http1.1"], format!("{plain}/any/text"))).await;
    assert_eq!(wanted.len(), 300 << 10);

    for (protocol, address) in [("--http1.1", &plain), ("--http2", &secure)] {
        for coding in CODINGS {
            let url = format!("{address}/{coding}/text");
            let told = run(curl(&[protocol, "--compressed", "-o", "/dev/null", "-D", "-"], url.clone())).await;
            assert!(told.to_lowercase().contains(&format!("content-encoding: {coding}\r\n")), "{url}: {told}");
            assert!(run_for_bytes(curl(&[protocol, "--compressed"], url)).await == wanted, "{coding} {protocol}");
        }
    }
}

/// What the page's script finds goes into its title, which is what the browser is asked to print.
const PAGE: &str = "<!doctype html><title>none</title><script>
const found = async (coding) => {
  const answer = await fetch(`/${coding}/text`)
  const body = await answer.arrayBuffer()
  const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', body))
  return `${coding}:${answer.headers.get('content-encoding')}:${body.byteLength}:${hash.toHex()}`
}
Promise.all(['zstd', 'br', 'gzip', 'deflate'].map(found))
  .then((all) => { document.title = all.join(' ') }, (error) => { document.title = String(error) })
</script>";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_reads_each_coding_and_the_page_that_asks_for_them() {
    let echo = Echo::start("decode.py");
    // Larger than what is left as it is, so that the page itself is coded too.
    let padding = "<!-- a page of a size -->".repeat(100);
    let page = Backend::writing(response(200, &[("Content-Type", "text/html")], &format!("{PAGE}{padding}")));
    let mut text = format!(
        "upstreams:\n  app: {{ backends: [\"{}\"], health_check: none }}\n  page: {{ backends: [\"{}\"], health_check: none }}\nroutes:\n",
        echo.url(),
        page.url()
    );
    for coding in CODINGS {
        let _ = writeln!(
            text,
            "  - {{ match: {{ path: \"/{coding}/*\" }}, upstream: app, compress: {{ algorithms: [{coding}] }} }}"
        );
    }
    text.push_str("  - { upstream: page, compress: {} }\n");
    let lb = Lb::yaml(text).start().await;

    let title = title_in_chromium(&format!("https://localhost:{}/", lb.address(1).port())).await;

    let found: Vec<&str> = title.split(' ').collect();
    assert_eq!(found.len(), CODINGS.len(), "{title}");
    let hash = found[0].rsplit(':').next().unwrap();
    assert_eq!(hash.len(), 64, "{title}");
    let wanted: Vec<String> = CODINGS.iter().map(|coding| format!("{coding}:{coding}:{}:{hash}", 300 << 10)).collect();
    assert_eq!(found, wanted);
}

/// Asks for the next event once it has the one before, which is how the test knows that it has come.
const EVENTS: &str = "<!doctype html><title>none</title><script>
const seen = []
const source = new EventSource('/events')
source.onmessage = (event) => {
  seen.push(event.data)
  if (event.data === 'last') {
    source.close()
    document.title = seen.join(' ')
  } else {
    fetch('/next')
  }
}
</script>";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_gets_each_event_of_a_compressed_stream_as_it_is_sent() {
    for coding in CODINGS {
        let page = Backend::writing(response(200, &[("Content-Type", "text/html")], EVENTS));
        let next = Backend::answering(200, "");
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        let events = ["one", "two", "three", "last"].map(|word| Act::Write(chunk(format!("data: {word}\n\n"))));
        let held = events.into_iter().flat_map(|event| [event, Act::Hold]);
        let acts: Vec<_> = [Act::Write(head.into())].into_iter().chain(held).collect();
        let stream = Backend::scripted(Script::each([acts]));
        let urls = [("page", &page), ("next", &next), ("stream", &stream)]
            .map(|(name, backend)| format!("  {name}: {{ backends: [\"{}\"], health_check: none }}\n", backend.url()));
        let lb = Lb::yaml(format!(
            "upstreams:\n{}routes:\n  - {{ match: {{ path: /events }}, upstream: stream, compress: {{ algorithms: [{coding}] }} }}\n  \
             - {{ match: {{ path: /next }}, upstream: next }}\n  - {{ upstream: page }}\n",
            urls.concat()
        ))
        .start()
        .await;
        let url = format!("https://localhost:{}/", lb.address(1).port());
        let (title, ()) = tokio::join!(title_in_chromium(&url), async {
            for count in 1..=3 {
                next.until_requests(count).await;
                stream.release();
            }
        });
        stream.release_all();
        assert_eq!(title, "one two three last", "{coding}");
    }
}

/// The title of a page once its script has done what it does.
async fn title_in_chromium(url: &str) -> String {
    let profile = tempfile::tempdir().unwrap();
    let mut chromium = Command::new("chromium");
    chromium
        .arg(format!("--user-data-dir={}", profile.path().display()))
        // As root, which CI is, its sandbox does not start; and the certificate is the test's own.
        .args(["--headless=new", "--no-sandbox", "--ignore-certificate-errors", "--no-proxy-server"])
        .args(["--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--no-first-run"])
        // The time that passes for the page, which stands still while it waits for an answer.
        .args(["--virtual-time-budget=20000", "--dump-dom", url]);
    let dom = run(chromium).await;
    let title = dom.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>"));
    title.unwrap_or_else(|| panic!("a page without a title: {dom}")).0.to_owned()
}
