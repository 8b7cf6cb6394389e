//! The `Date` that clients read on HTTP/1: the one of the response, byte for byte, and no other byte of it changed.

use crate::support;

use support::{Act, Backend, Client, Lb, Script};

const OLD: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn written(head: &str, body: &str) -> Vec<Act> {
    let length = body.len();
    vec![Act::Write(format!("HTTP/1.1 200 OK\r\n{head}Content-Length: {length}\r\n\r\n{body}").into())]
}

fn dated(fields: &str) -> String {
    format!("Cache-Control: max-age=9999999999\r\ndate: {OLD}\r\n{fields}")
}

async fn front_door(backend: &Backend) -> Lb {
    Lb::with_backends([backend]).yaml_route("cache: {}").start().await
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

#[tokio::test]
async fn an_answer_keeps_its_date_when_it_passes_and_when_it_is_stored() {
    let backend = Backend::scripted(Script::each([written(&dated(""), "x")]));
    let lb = front_door(&backend).await;
    for client in [lb.raw().await, lb.raw().await] {
        let mut client = client;
        for _ in 0..2 {
            assert_eq!(client.exchange(request("/")).await.field("date"), Some(OLD));
        }
    }
    assert_eq!(backend.requests(), 1);
}

#[tokio::test]
async fn pipelined_answers_have_each_its_own_date_and_bodies_are_left_alone() {
    let body = format!("HTTP/1.1 200 OK\r\nDate: {OLD}\r\n\r\n");
    let now = "Date: Sun, 22 Nov 2026 11:17:31 GMT\r\nCache-Control: no-store\r\n";
    let answers = [
        written(&dated(""), &body),
        written("Cache-Control: no-store\r\n", &body),
        written(now, &body),
        written("Date: yesterday\r\nCache-Control: no-store\r\n", &body),
    ];
    let backend = Backend::scripted(Script::each(answers));
    let lb = front_door(&backend).await;
    let mut client = lb.raw().await;
    client.send(["/1", "/2", "/1", "/3", "/4", "/1"].map(request).concat()).await;
    let mut dates = Vec::new();
    for _ in 0..6 {
        let answer = client.read_response().await;
        assert_eq!((answer.status, answer.text()), (200, body.clone()));
        dates.push(answer.field("date").unwrap().to_owned());
    }
    assert_eq!([&dates[0], &dates[2], &dates[5]], [OLD; 3], "{dates:?}");
    assert_eq!(dates[3], "Sun, 22 Nov 2026 11:17:31 GMT");
    for present in [&dates[1], &dates[4]] {
        assert!(present.ends_with(" GMT") && *present != OLD && present.len() == OLD.len(), "{dates:?}");
    }
}

#[tokio::test]
async fn an_interim_answer_passes_before_a_date_in_its_place() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let mut answer = vec![Act::Write(hints.into())];
    answer.extend(written(&dated(""), "x"));
    let backend = Backend::scripted(Script::each([answer]));
    let lb = Lb::with_backends([&backend]).start().await;
    let mut client = lb.raw().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let all = String::from_utf8(client.try_read_to_end().await.unwrap().to_vec()).unwrap();
    assert_eq!(all.matches("HTTP/1.1 103 ").count(), 1, "{all}");
    assert_eq!(all.to_ascii_lowercase().matches("\r\ndate: ").count(), 1, "{all}");
    assert!(all.contains(OLD) && all.ends_with("\r\n\r\nx"), "{all}");
}

#[tokio::test]
async fn a_large_answer_is_the_same_but_for_its_date() {
    let body: String = (0..100_000).map(|index| format!("{index} {OLD}\n")).collect();
    let padding: String = (0..80).map(|index| format!("X-{index}: {}\r\n", "y".repeat(90))).collect();
    let backend = Backend::scripted(Script::each([written(&dated(&padding), &body)]));
    let lb = front_door(&backend).await;
    for _ in 0..2 {
        let answer = lb.get("/").await;
        assert_eq!((answer.field("date"), answer.field("x-79").map(str::len)), (Some(OLD), Some(90)));
        assert!(answer.text() == body);
    }
}

#[tokio::test]
async fn our_own_answers_have_the_present() {
    let backend = Backend::scripted(Script::each([written(&dated(""), "x"), vec![Act::Close]]));
    let lb = front_door(&backend).await;
    let mut client: Client = lb.raw().await;
    assert_eq!(client.exchange(request("/")).await.field("date"), Some(OLD));
    let refused = client.exchange(request("/other")).await;
    assert_eq!((refused.status, refused.field("date") == Some(OLD)), (502, false));
}
