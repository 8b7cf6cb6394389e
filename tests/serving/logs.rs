//! Where do lines end up, and in which form? Files that are moved and put aside, usage events, a push to Loki, traces.

use crate::support;

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use support::{Act, Backend, Lb, Portcullis, Response, Script, wait_for, wait_until};

/// The admin token of these tests.
const TOKEN: &str = "open sesame, all of you";

fn text(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap_or_default()
}

/// The lines of a file, as soon as there are so many.
async fn lines(lb: &Lb, name: &str, count: usize) -> Vec<String> {
    let path = lb.folder().to_owned();
    let complete = || {
        let text = text(&path, name);
        (text.matches('\n').count() >= count).then(|| text.lines().map(str::to_owned).collect())
    };
    wait_for(&format!("{name} should have {count} line(s)"), complete).await
}

fn respond(log: &str) -> String {
    format!("routes: [{{ respond: {{ status: 200, body: ok }} }}]\nlog: {{ {log}, dashboard: none }}\n")
}

/// A program with one listener, and its address.
async fn program(folder: tempfile::TempDir, log: &str) -> (Portcullis, std::net::SocketAddr) {
    let yaml = format!("listeners: [{{ address: 127.0.0.1:0 }}]\nadmin: {{ address: none }}\n{}", respond(log));
    std::fs::write(folder.path().join("portcullis.yaml"), yaml).unwrap();
    let program = Portcullis::start(folder, &["run"]);
    let address = program.line_with("listening on ").await.rsplit(' ').next().unwrap().parse().unwrap();
    (program, address)
}

async fn get(address: std::net::SocketAddr, path: &str) -> Response {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    support::Client::tcp(address).await.exchange(request).await
}

#[tokio::test]
async fn combined_is_what_tools_for_nginx_read() {
    let lb = Lb::yaml(respond("access: access.log, format: combined")).start().await;
    let fields = "Host: a\r\nReferer: http://b/?c\r\nUser-Agent: one \"two\" \\\r\n";
    lb.send(&format!("GET /a?b=c HTTP/1.1\r\n{fields}\r\n")).await;
    lb.send("GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n").await;
    lb.send("nonsense\r\n\r\n").await;

    let lines = lines(&lb, "access.log", 3).await;

    let (start, rest) = lines[0].split_once(" [").unwrap();
    let (time, rest) = rest.split_once("] ").unwrap();
    assert_eq!((start, time.len(), &time[20..]), ("127.0.0.1 - -", 26, " +0000"));
    assert_eq!(rest, r#""GET /a?b=c HTTP/1.1" 200 2 "http://b/?c" "one \x22two\x22 \x5C""#);
    let refused = |line: usize| lines[line].split_once("] ").unwrap().1;
    assert!(refused(1).starts_with(r#""GET /a\x5Cb HTTP/1.1" 400 "#), "{}", refused(1));
    assert!(refused(2).starts_with(r#""" 400 "#), "{}", refused(2));
}

#[tokio::test]
async fn a_template_says_what_it_names_and_a_reload_changes_it_at_once() {
    let lb = Lb::yaml(respond("access: one.log, format: '{method} {path} {status} \"{user_agent}\"'")).start().await;
    lb.get("/one?secret=1").await;
    assert_eq!(lines(&lb, "one.log", 1).await, [r#"GET /one 200 "-""#]);

    let done = lb.reload(Lb::yaml(respond("access: two.log, format: '{reason}'"))).await.unwrap();
    lb.get("/two").await;

    assert_eq!(done.needs_restart, [""; 0]);
    assert_eq!(lines(&lb, "two.log", 1).await, ["ok"]);
    assert_eq!(lines(&lb, "one.log", 1).await.len(), 1);
}

#[tokio::test]
async fn a_file_is_put_aside_by_size_and_no_line_is_lost() {
    let lb = Lb::yaml(respond("access: a.log, format: '{path}', rotate: { size: 40B, keep: 2 }")).start().await;
    for number in 0..10 {
        lb.get(&format!("/request/{number}")).await;
        wait_until("it is written", || {
            ["a.log", "a.log.1"].iter().any(|name| text(lb.folder(), name).contains(&format!("/{number}\n")))
        })
        .await;
    }

    let kept = ["a.log.2", "a.log.1", "a.log"].map(|name| text(lb.folder(), name));

    assert!(kept.iter().all(|text| text.len() <= 40), "{kept:?}");
    assert_eq!(kept.concat(), (3..10).map(|number| format!("/request/{number}\n")).collect::<String>());
    assert!(!lb.folder().join("a.log.3").exists());
}

#[tokio::test]
async fn a_file_that_was_moved_is_opened_anew_on_sigusr1() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let (program, address) = program(folder, "access: access.log, usage: { file: usage.log }").await;
    get(address, "/before").await;
    wait_until("it is written", || text(&path, "access.log").contains("/before")).await;
    for name in ["access.log", "usage.log"] {
        std::fs::rename(path.join(name), path.join(format!("{name}.old"))).unwrap();
    }
    get(address, "/moved").await;
    wait_until("the moved file goes on", || text(&path, "access.log.old").contains("/moved")).await;

    program.signal("USR1");
    program.line_with("were opened again").await;
    get(address, "/after").await;

    wait_until("there is a new file", || text(&path, "access.log").contains("/after")).await;
    wait_until("of usage events too", || text(&path, "usage.log").lines().count() == 1).await;
    assert!(!text(&path, "access.log.old").contains("/after"));
}

#[tokio::test]
async fn a_full_disk_is_told_once_and_holds_up_nobody_and_heals() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    // What is written there meets a disk that is full.
    std::os::unix::fs::symlink("/dev/full", path.join("access.log")).unwrap();
    let (program, address) = program(folder, "access: access.log").await;
    for _ in 0..300 {
        assert_eq!(get(address, "/full").await.body, "ok");
    }
    program.line_with("the access log cannot be written").await;
    program.line_with("access log lines were dropped").await;

    std::fs::remove_file(path.join("access.log")).unwrap();
    program.signal("USR1");
    program.line_with("were opened again").await;
    get(address, "/healed").await;

    wait_until("it is written again", || text(&path, "access.log").contains("/healed")).await;
    assert!(text(&path, "access.log").lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    assert_eq!(program.lines().iter().filter(|line| line.contains("cannot be written")).count(), 1);
}

#[tokio::test]
async fn a_key_in_a_query_is_never_quoted() {
    let backend = Backend::answering(200, "hello");
    let lb = Lb::yaml(format!(
        "upstreams: {{ app: {{ backends: ['{}'], health_check: none }} }}\nkeys: {{ team: {{ sqlite: keys.db }} }}\nroutes:\n  \
         - {{ upstream: app, auth: {{ api_keys: team, query: api_key }} }}\nlog: {{ access: access.log, format: combined, \
         dashboard: none }}\n",
        backend.url()
    ));
    let lb = lb.start().await;
    let request =
        "GET /a?api_key=pck_12345678_secret&b=1 HTTP/1.1\r\nHost: a\r\nReferer: http://a/?api_key=hidden\r\n\r\n";
    assert_eq!(lb.send(request).await.status, 503);

    let line = &lines(&lb, "access.log", 1).await[0];

    assert!(line.contains("\"GET /a?b=1 HTTP/1.1\" 503 ") && !line.contains("secret"), "{line}");
    assert!(line.contains("\"http://a/\"") && !line.contains("hidden"), "{line}");
}

/// The ids of the events in these requests to a receiver.
fn ids(receiver: &Backend) -> Vec<String> {
    let bodies = receiver.received().into_iter().map(|request| request.body.content);
    let events = bodies
        .flat_map(|body| String::from_utf8(body.to_vec()).unwrap().lines().map(str::to_owned).collect::<Vec<_>>());
    events.map(|event| serde_json::from_str::<Value>(&event).unwrap()["id"].as_str().unwrap().to_owned()).collect()
}

fn usage(receiver: &Backend, more: &str) -> String {
    let url = receiver.url();
    format!("access: none, usage: {{ http: '{url}/events', spool: spool, interval: 50ms, token: let-me-in{more} }}")
}

/// The ids in the files of a spool.
fn spooled(folder: &Path) -> BTreeSet<String> {
    let files = std::fs::read_dir(folder.join("spool")).into_iter().flatten().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|ending| ending == "ndjson"));
    let text: String = files.map(|path| std::fs::read_to_string(path).unwrap_or_default()).collect();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn usage_events_arrive_in_batches_and_again_until_they_are_taken() {
    let answer = |status: u16| vec![Act::ReadBody, Act::Write(support::backend::response(status, &[], ""))];
    let receiver = Backend::scripted(Script::each([answer(503), answer(429), answer(200)]));
    let lb = Lb::yaml(respond(&usage(&receiver, ""))).start().await;
    for number in 0..20 {
        lb.get(&format!("/{number}")).await;
    }

    let taken = || {
        let ids: Vec<_> = ids(&receiver);
        (receiver.requests() > 2 && ids.iter().collect::<BTreeSet<_>>().len() == 20).then_some(ids)
    };
    let ids = wait_for("all events arrive", taken).await;

    assert!(ids.len() > 20, "the first were refused, and offered again");
    let requests = receiver.received();
    assert!(requests.len() < 20, "{} requests", requests.len());
    assert_eq!(requests[0].body.content, requests[1].body.content);
    let first = &requests[0];
    assert_eq!(
        (first.field("content-type"), first.field("authorization")),
        (Some("application/x-ndjson"), Some("Bearer let-me-in"))
    );
    assert!(first.head.first_line.starts_with("POST /events "));
    let event: Value =
        serde_json::from_str(first.text().split("\r\n\r\n").nth(1).unwrap().lines().next().unwrap()).unwrap();
    assert_eq!((&event["status"], &event["requests"], &event["bytes_out"]), (&200.into(), &1.into(), &2.into()));
    assert_eq!(lb.front().log_losses().usage, 0);
}

#[tokio::test]
async fn nothing_in_the_spool_is_lost_when_the_process_is_killed() {
    let answer = |status: u16| vec![Act::ReadBody, Act::Write(support::backend::response(status, &[], ""))];
    // The first takes all and says so to nobody: whether it has them is not known.
    let silent = Backend::hanging();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let (program_before, address) = program(folder, &usage(&silent, "")).await;
    for number in 0..50 {
        get(address, &format!("/{number}")).await;
    }
    wait_until("all are in the spool", || spooled(&path).len() == 50).await;
    silent.until_requests(1).await;
    let before = spooled(&path);
    program_before.signal("KILL");
    let mut program_before = program_before;
    program_before.exit_code().await;
    // Its death in the middle of a line.
    let segment = std::fs::read_dir(path.join("spool")).unwrap().map(|entry| entry.unwrap().path());
    let segment = segment.filter(|path| path.extension().is_some_and(|it| it == "ndjson")).last().unwrap();
    let torn = [std::fs::read(&segment).unwrap(), b"{\"id\":\"torn".to_vec()].concat();
    std::fs::write(&segment, torn).unwrap();

    let receiver = Backend::scripted(Script::each([answer(500), answer(200)]));
    let again = tempfile::tempdir().unwrap();
    copy_folder(&path.join("spool"), &again.path().join("spool"));
    let (_program, _) = program(again, &usage(&receiver, "")).await;

    let all = || ids(&receiver).into_iter().collect::<BTreeSet<_>>().len() == 50;
    wait_until("the next process sends what is left", all).await;
    assert_eq!(ids(&receiver).into_iter().collect::<BTreeSet<_>>(), before, "with the same ids");
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test]
async fn a_spool_that_is_full_drops_and_counts_and_holds_up_nobody() {
    let silent = Backend::hanging();
    let lb = Lb::yaml(respond(&usage(&silent, ", spool_size: 4KiB"))).start().await;
    for number in 0..50 {
        assert_eq!(lb.get(&format!("/{number}")).await.body, "ok");
    }
    lb.wait_until("some are dropped", |lb| {
        spooled(lb.folder()).len() as u64 + lb.front().log_losses().usage == 50 && lb.front().log_losses().usage > 0
    })
    .await;
}

#[tokio::test]
async fn events_wait_for_a_batch_after_the_first_one_too() {
    let receiver = Backend::held("");
    let lb = Lb::yaml(respond(&usage(&receiver, ", batch: 5").replace("50ms", "1h"))).start().await;
    for number in 0..12 {
        lb.get(&format!("/{number}")).await;
    }
    wait_until("all are in the spool", || spooled(lb.folder()).len() == 12).await;
    receiver.release_all();
    wait_until("two batches arrive", || ids(&receiver).len() >= 10).await;
    for number in 12..15 {
        lb.get(&format!("/{number}")).await;
    }
    wait_until("the rest arrives", || ids(&receiver).len() == 15).await;

    let batches = receiver.received().into_iter().map(|it| it.body.content.split(|byte| *byte == b'\n').count() - 1);
    assert_eq!(batches.collect::<Vec<_>>(), [5, 5, 5]);
}

#[tokio::test]
async fn a_file_of_events_is_put_aside_by_size() {
    let lb =
        Lb::yaml(respond("access: none, usage: { file: usage.log, rotate: { size: 500B, keep: 100 } }")).start().await;
    for number in 0..6 {
        lb.get(&format!("/{number}")).await;
    }
    let whole = |folder: &Path| {
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let files = files.filter(|path| path.to_string_lossy().contains("usage.log"));
        // One that is put aside between the two calls has another name then.
        files.filter_map(|path| std::fs::read_to_string(path).ok()).collect::<Vec<_>>()
    };
    lb.wait_until("all are written", |lb| whole(lb.folder()).concat().lines().count() == 6).await;
    let files = whole(lb.folder());
    assert!(files.len() >= 3 && files.iter().all(|text| text.len() <= 500), "{files:?}");
}

#[tokio::test]
async fn a_collector_over_tls_is_believed_by_its_authority_and_by_no_other() {
    let take = || Script::each([vec![Act::ReadBody, Act::Write(support::backend::response(204, &[], ""))]]);
    let (events, lines) = (Backend::over_tls(take()), Backend::over_tls(take()));
    let folder = tempfile::tempdir().unwrap();
    let (events_ca, _) = events.certificate().save(folder.path(), "events");
    let (lines_ca, _) = lines.certificate().save(folder.path(), "lines");
    let with = |of_events: &Path, of_lines: &Path| {
        let usage = usage(&events, &format!(", ca: '{}'", of_events.display()));
        let loki = loki(&lines, &format!(", ca: '{}'", of_lines.display())).replacen("access: none, ", "", 1);
        Lb::yaml(respond(&format!("{usage}, {loki}")))
    };

    let good = with(&events_ca, &lines_ca).start().await;
    good.get("/good").await;
    wait_until("both arrive", || ids(&events).len() == 1 && pushed(&lines).len() == 1).await;
    assert!(good.shutdown().await);

    let before = (events.connections(), lines.connections());
    let wrong = with(&lines_ca, &events_ca).start().await;
    wrong.get("/wrong").await;
    wait_until("it is in the spool", || spooled(wrong.folder()).len() == 1).await;
    let tried = || events.connections() > before.0 && lines.connections() > before.1;
    wait_until("both are tried", tried).await;
    assert_eq!((ids(&events).len(), pushed(&lines).len()), (1, 1), "who is not believed is told nothing");
    // What is kept for them arrives once the right authorities are in the files.
    let [for_events, for_lines] = [&events_ca, &lines_ca].map(|path| std::fs::read(path).unwrap());
    std::fs::write(&lines_ca, for_events).unwrap();
    std::fs::write(&events_ca, for_lines).unwrap();
    wait_until("both arrive", || ids(&events).len() == 2 && pushed(&lines).len() == 2).await;
    assert_eq!(wrong.front().log_losses().usage + wrong.front().log_losses().loki, 0);
}

fn loki(receiver: &Backend, more: &str) -> String {
    format!("access: none, loki: {{ url: '{}', labels: {{ job: test }}, interval: 50ms{more} }}", receiver.url())
}

/// The values of the pushes to a Loki: pairs of a time and a line.
fn pushed(receiver: &Backend) -> Vec<(String, Value)> {
    let bodies = receiver.received().into_iter().map(|it| serde_json::from_slice::<Value>(&it.body.content).unwrap());
    let values = bodies.flat_map(|body| {
        assert_eq!(body["streams"][0]["stream"], serde_json::json!({ "job": "test" }));
        body["streams"][0]["values"].as_array().unwrap().clone()
    });
    let pair = |value: Value| {
        let line = serde_json::from_str(value[1].as_str().unwrap()).unwrap();
        (value[0].as_str().unwrap().to_owned(), line)
    };
    values.map(pair).collect()
}

#[tokio::test]
async fn lines_are_pushed_to_loki_in_batches_and_again_after_a_429() {
    let answer = |status: u16| vec![Act::ReadBody, Act::Write(support::backend::response(status, &[], ""))];
    let receiver = Backend::scripted(Script::each([answer(429), answer(204)]));
    let lb =
        Lb::yaml(respond(&loki(&receiver, ", tenant: edge, basic: { user: ann, password: secret }"))).start().await;
    lb.get("/one").await;
    lb.get("/two").await;

    let paths = |lines: &[(String, Value)]| {
        lines.iter().map(|(_, line)| line["path"].to_string()).collect::<BTreeSet<_>>().len()
    };
    wait_until("both are pushed, one of them twice", || {
        receiver.requests() >= 2 && paths(&pushed(&receiver)) == 2 && pushed(&receiver).len() > 2
    })
    .await;

    let first = &receiver.received()[0];
    assert!(first.head.first_line.starts_with("POST /loki/api/v1/push "), "{}", first.head.first_line);
    assert_eq!(
        (first.field("x-scope-orgid"), first.field("authorization")),
        (Some("edge"), Some("Basic YW5uOnNlY3JldA=="))
    );
    assert!(pushed(&receiver).iter().all(|(at, _)| at.len() == 19 && at.bytes().all(|byte| byte.is_ascii_digit())));
    assert_eq!(lb.front().log_losses().loki, 0);
}

#[tokio::test]
async fn the_last_lines_are_pushed_before_the_end() {
    let receiver = Backend::answering(204, "");
    let lb = Lb::yaml(respond(&loki(&receiver, "").replace("50ms", "1h"))).start().await;
    lb.get("/last").await;
    lb.until_idle().await;

    assert!(lb.shutdown().await);

    assert_eq!(pushed(&receiver)[0].1["path"], "/last");
}

#[tokio::test]
async fn a_loki_that_refuses_or_is_gone_costs_lines_and_no_request() {
    for status in [400, 401] {
        let receiver = Backend::answering(status, "no");
        let lb = Lb::yaml(respond(&loki(&receiver, ""))).start().await;
        assert_eq!(lb.get("/").await.body, "ok");
        lb.wait_until("it is counted", |lb| lb.front().log_losses().loki == 1).await;
        assert_eq!(receiver.requests(), 1, "it is not tried again");
    }
    let gone = Backend::refusing();
    let lb = Lb::yaml(respond(&loki(&gone, ""))).start().await;
    assert_eq!(lb.get("/").await.body, "ok");
    assert!(lb.shutdown().await);
}

fn debug(path: &str, token: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nPortcullis-Debug: {token}\r\n\r\n")
}

fn trace(answer: &Response) -> Value {
    serde_json::from_str(answer.field("portcullis-trace").unwrap()).unwrap()
}

fn with_token(builder: support::front_door::Builder) -> support::front_door::Builder {
    builder.yaml_section(&format!("admin: {{ address: 127.0.0.1:0, token: '{TOKEN}' }}"))
}

#[tokio::test]
async fn an_operator_is_told_why_and_nobody_else_is() {
    let (bad, good) = (Backend::answering(503, "no"), Backend::answering(200, "yes"));
    let lb = with_token(Lb::with_backends([&bad, &good]))
        .yaml_upstream("balance: round_robin")
        .yaml_route("retry: { attempts: 2, when: [503] }")
        .start()
        .await;
    for _ in 0..2 {
        let answer = lb.send(&debug("/", TOKEN)).await;
        assert_eq!(answer.body, "yes");
        let trace = trace(&answer);
        let last = trace["attempts"].as_array().unwrap().last().unwrap();
        assert_eq!((&last["backend"], &last["outcome"]), (&good.address().to_string().into(), &"under_way".into()));
        if trace["attempts"].as_array().unwrap().len() == 2 {
            assert_eq!(trace["attempts"][0]["outcome"], "status_503", "{trace}");
            let second = &trace["choices"][1];
            assert_eq!(second["excluded"][0]["why"], "tried", "{trace}");
            assert_eq!(second["candidates"][0]["backend"], good.address().to_string(), "{trace}");
        }
    }
    for token in ["open sesame, all of yoU", "", "x"] {
        assert_eq!(lb.send(&debug("/", token)).await.field("portcullis-trace"), None);
    }
    let doubled =
        format!("GET / HTTP/1.1\r\nHost: a\r\nPortcullis-Debug: {TOKEN}\r\nPortcullis-Debug: {TOKEN}\r\n\r\n");
    assert_eq!(lb.send(&doubled).await.field("portcullis-trace"), None);

    let log = lb.access_log(6).await;
    assert!(
        log[..2]
            .iter()
            .all(|line| line["trace"]["attempts"].as_array().unwrap().len()
                == line["attempts"].as_array().unwrap().len())
    );
    assert!(log[2..].iter().all(|line| line.get("trace").is_none()), "{log:#?}");
    for request in bad.received().iter().chain(&good.received()) {
        assert_eq!(request.field("portcullis-debug"), None, "{}", request.text());
    }
    let told = text(lb.folder(), "access.log");
    assert!(!told.contains("sesame"), "{told}");
}

#[tokio::test]
async fn without_a_token_the_field_is_like_any_other() {
    let backend = Backend::answering(200, "hello");
    let lb = Lb::with_backends([&backend]).start().await;
    assert_eq!(lb.send(&debug("/", TOKEN)).await.field("portcullis-trace"), None);
    assert_eq!(backend.only_request().field("portcullis-debug"), Some(TOKEN));
}

#[tokio::test]
async fn a_trace_names_states_and_limits_and_fits_into_a_field() {
    let mut urls: Vec<_> = (1..=99).map(|port| format!("http://127.0.0.1:{port}")).collect();
    let backend = Backend::answering(200, "hello");
    urls.push(backend.url());
    let weights: String = urls
        .iter()
        .enumerate()
        .map(|(place, url)| format!("      - {{ url: '{url}', weight: {} }}\n", u32::from(place == 99)))
        .collect();
    let yaml = format!(
        "upstreams:\n  app:\n    health_check: none\n    backends:\n{weights}routes: [{{ upstream: app, rate_limits: [{{ rate: 5/m, key: client_address }}] }}]\n"
    );
    let lb = with_token(Lb::yaml(yaml)).start().await;

    let answer = lb.send(&debug("/", TOKEN)).await;

    let field = answer.field("portcullis-trace").unwrap();
    assert!(field.len() <= 4096 && field.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{}", field.len());
    let trace = trace(&answer);
    assert_eq!(trace["choices"][0]["excluded"][0]["why"], "weight", "{trace}");
    assert!(trace["choices"][0]["more"].as_u64().unwrap() > 50, "{trace}");
    assert_eq!(
        (&trace["limits"][0]["remaining"], &trace["limits"][0]["exceeded"]),
        (&4.into(), &false.into()),
        "{trace}"
    );
    let line = &lb.access_log(1).await[0];
    assert_eq!(line["trace"]["choices"][0]["excluded"].as_array().unwrap().len(), 99, "the log has it all");
}

#[tokio::test]
async fn a_trace_says_why_a_backend_was_passed_over() {
    let (full, next) = (Backend::held("full"), Backend::answering(200, "next"));
    let yaml = format!(
        "upstreams:\n  app:\n    health_check: none\n    backends: [{{ url: '{}', max_connections: 1 }}, {{ url: '{}', tier: 1 \
         }}]\nroutes: [{{ upstream: app }}]\n",
        full.url(),
        next.url()
    );
    let lb = with_token(Lb::yaml(yaml)).start().await;
    let mut first = lb.raw().await;
    first.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    full.until_requests(1).await;

    let answer = lb.send(&debug("/", TOKEN)).await;

    assert_eq!(answer.body, "next");
    let choice = &trace(&answer)["choices"][0];
    let why = |place: usize| (&choice["excluded"][place]["backend"], &choice["excluded"][place]["why"]);
    assert_eq!(why(0), (&full.address().to_string().into(), &"limit".into()), "{choice}");
    assert_eq!(why(1), (&next.address().to_string().into(), &"tier".into()), "{choice}");
    full.release();
    assert_eq!(first.read_response().await.body, "full");
}

#[tokio::test]
async fn a_refusal_and_a_hit_have_their_trace_and_the_store_has_none() {
    let backend = Backend::writing("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 5\r\n\r\nhello");
    let lb = with_token(Lb::with_backends([&backend]))
        .yaml_route("cache: {}")
        .yaml_route("match: { path: /a }")
        .start()
        .await;
    let refused = lb.send(&debug("/lost", TOKEN)).await;
    assert_eq!((refused.status, &trace(&refused)["refused"]), (404, &"no_route".into()));
    assert_eq!(trace(&lb.send(&debug("/a", TOKEN)).await)["cache"], "miss");
    assert_eq!(lb.get("/a").await.field("portcullis-trace"), None, "what is stored says nothing of it");
    assert_eq!(trace(&lb.send(&debug("/a", TOKEN)).await)["cache"], "hit");
    assert_eq!(backend.requests(), 1);
}
