//! What do backends learn of a client's certificate, and can anybody else say it? Through the front door.

use crate::support;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use support::backend::response;
use support::front_door::Builder;
use support::h2_backend::H2Backend;
use support::tls::{Certificate, Offer};
use support::{Backend, Client, H2Client, Lb, Script};
use tempfile::TempDir;

const ALL: &str = "{ Client-Cert: certificate, X-Client-Subject: subject, X-Client-CN: common_name, X-San: san, \
                   X-Fp: fingerprint, X-Serial: serial }";

/// What somebody sends who would like to be another.
const FORGED: &str = "X-Client-Subject: CN=root\r\nX-Client-CN: root\r\nX_Client_CN: root\r\nx.client_cn: root\r\n\
                      Client-Cert: :AAAA:\r\nClient_Cert: :AAAA:\r\nX-Fp: 00\r\n\
                      Connection: x-client-cn, x-client-subject, client-cert, x-fp\r\n";

/// A plain listener, and one that asks for a certificate and tells of it.
fn listeners(headers: &str) -> String {
    format!(
        "listeners:\n  - {{ name: plain, address: 127.0.0.1:0 }}\n  - {{ name: secure, address: 127.0.0.1:0, tls: {{ \
         self_signed: [localhost], client_auth: {{ ca: ca.pem, mode: request, headers: {headers} }} }} }}\n"
    )
}

/// A folder in which this client's certificate is its own authority.
fn trusting(client: &Certificate) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    client.save(folder.path(), "ca");
    folder
}

async fn open(builder: Builder, client: &Certificate) -> Lb {
    builder.yaml_section(&listeners(ALL)).try_start_in(trusting(client)).await.unwrap()
}

async fn secure(lb: &Lb, client: Option<&Certificate>) -> Client {
    let offer = Offer { alpn: &["http/1.1"], certificate: client, ..Offer::default() };
    Client::tls_with(lb.address(1), "localhost", &offer).await.unwrap()
}

async fn secure_h2(lb: &Lb, client: Option<&Certificate>) -> H2Client {
    let offer = Offer { alpn: &["h2"], certificate: client, ..Offer::default() };
    H2Client::tls_with(lb.address(1), "localhost", &offer).await
}

fn get(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

/// The fields that speak of a certificate, as a backend got them.
fn told(backend: &Backend) -> Vec<(String, String)> {
    let received = backend.received().pop().unwrap();
    let speaks = |name: &str| {
        let name = name.to_ascii_lowercase().replace(['_', '.'], "-");
        ["client-cert", "x-client-subject", "x-client-cn", "x-san", "x-fp", "x-serial"].contains(&name.as_str())
    };
    let fields = received.head.fields.iter().filter(|(name, _)| speaks(name));
    let mut told: Vec<_> = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
    told.sort();
    told
}

fn expected(client: &Certificate, name: &str) -> Vec<(String, String)> {
    let certificate = format!(":{}:", STANDARD.encode(&client.cert));
    let fields = [
        ("client-cert", certificate.as_str()),
        ("x-client-cn", name),
        ("x-client-subject", &format!("CN={name}")),
        ("x-fp", &client.fingerprint()),
        ("x-serial", "07"),
    ];
    fields.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

#[tokio::test]
async fn a_backend_learns_of_a_certificate_and_nobody_forges_one() {
    let (client, backend) = (Certificate::of("ann"), Backend::answering(200, "in"));
    let lb = open(Lb::with_backends([&backend]), &client).await;

    assert_eq!(secure(&lb, Some(&client)).await.exchange(get(FORGED)).await.status, 200);
    assert_eq!(told(&backend), expected(&client, "ann"));

    let mut request = secure_h2(&lb, Some(&client)).await.build("GET", "/");
    for name in ["x-client-cn", "x_client_cn", "client-cert"] {
        request.headers_mut().append(name, "root".parse().unwrap());
    }
    assert_eq!(secure_h2(&lb, Some(&client)).await.request(request.clone(), &[]).await.unwrap().status, 200);
    assert_eq!(told(&backend), expected(&client, "ann"));

    // Without a certificate nothing is known, on whichever listener.
    assert_eq!(secure(&lb, None).await.exchange(get(FORGED)).await.status, 200);
    assert_eq!(told(&backend), []);
    assert_eq!(secure_h2(&lb, None).await.request(request, &[]).await.unwrap().status, 200);
    assert_eq!(told(&backend), []);
    assert_eq!(lb.send(&get(FORGED)).await.status, 200);
    assert_eq!(told(&backend), []);
}

#[tokio::test]
async fn an_upgrade_tells_of_the_certificate_too() {
    let (client, backend) = (Certificate::of("ann"), Backend::upgrading_echo());
    let lb = open(Lb::with_backends([&backend]), &client).await;
    let mut upgrading = secure(&lb, Some(&client)).await;
    let lines = format!("{}Upgrade: websocket\r\n", FORGED.replace("Connection: ", "Connection: upgrade, "));
    upgrading.send(get(&lines)).await;
    assert_eq!(upgrading.read_response_to_head().await.status, 101);
    assert_eq!(told(&backend), expected(&client, "ann"));
}

#[tokio::test]
async fn trailers_tell_a_backend_nothing_of_a_certificate() {
    let (client, backend) = (Certificate::of("ann"), H2Backend::plain());
    let app = Lb::with_urls([backend.url()]).yaml_upstream("protocol: http2");
    let lb = open(app, &client).await;
    let h2 = secure_h2(&lb, Some(&client)).await;
    let (answer, mut body) = h2.open(h2.build("POST", "/")).await;
    body.send_data(Bytes::from_static(b"x"), false).unwrap();
    let forged = HeaderMap::from_iter([("x-client-cn".parse().unwrap(), "root".parse().unwrap())]);
    body.send_trailers(forged).unwrap();
    let mut answer = answer.await.unwrap().into_body();
    while let Some(part) = answer.data().await {
        answer.flow_control().release_capacity(part.unwrap().len()).unwrap();
    }
    // This backend sends the trailers back that came.
    let trailers = answer.trailers().await.unwrap().unwrap_or_default();
    assert_eq!(trailers.get("x-client-cn"), None);
    assert_eq!(backend.heads()[0].headers.get("x-client-cn").unwrap(), "ann");
}

#[tokio::test]
async fn routes_and_limits_go_by_what_the_certificate_says() {
    let (client, backend) = (Certificate::of("ann"), Backend::answering(200, "in"));
    let rest = format!(
        "upstreams: {{ app: {{ backends: [{}], health_check: none }} }}\nroutes:\n  - {{ name: ann, match: {{ headers: {{ \
         X-Client-CN: ann }} }}, upstream: app, rate_limits: [{{ rate: 2/h, key: \"header:X-Client-Subject\" }}] }}\n  - {{ \
         name: others, respond: {{ status: 403, body: nobody }} }}\n",
        backend.url()
    );
    let lb = open(Lb::yaml(rest), &client).await;
    assert_eq!(lb.send(&get("X-Client-CN: ann\r\n")).await.status, 403);
    assert_eq!(secure(&lb, None).await.exchange(get("X-Client-CN: ann\r\n")).await.status, 403);
    let mut statuses = Vec::new();
    for number in 0..3 {
        let forged = format!("X-Client-Subject: CN=other{number}\r\n");
        statuses.push(secure(&lb, Some(&client)).await.exchange(get(&forged)).await.status);
    }
    assert_eq!(statuses, [200, 200, 429]);
}

#[tokio::test]
async fn a_name_that_holds_a_line_ends_no_field() {
    let (client, backend) = (Certificate::of("ann\r\nX-Admin: yes"), Backend::answering(200, "in"));
    let lb = open(Lb::with_backends([&backend]), &client).await;
    assert_eq!(secure(&lb, Some(&client)).await.exchange(get("")).await.status, 200);
    let received = backend.only_request();
    assert_eq!(received.field("x-client-cn"), Some("ann\\0D\\0AX-Admin: yes"));
    assert_eq!(received.field("x-admin"), None);
}

#[tokio::test]
async fn an_answer_for_one_certificate_is_not_stored_for_others_unless_the_backend_says_so() {
    for (control, sent) in [("max-age=60", 2), ("max-age=60, public", 1)] {
        let client = Certificate::of("ann");
        let backend = Backend::writing(response(200, &[("Cache-Control", control)], "in"));
        let lb = open(Lb::with_backends([&backend]).yaml_route("cache: {}"), &client).await;
        for client in [Some(&client), None] {
            assert_eq!(secure(&lb, client).await.exchange(get("")).await.status, 200);
        }
        assert_eq!(backend.requests(), sent, "{control}");
    }
}

#[tokio::test]
async fn what_is_stale_is_fetched_anew_with_the_certificate_of_whoever_asked() {
    let control = [("Cache-Control", "public, max-age=0, stale-while-revalidate=60")];
    let (client, backend) = (Certificate::of("ann"), Backend::writing(response(200, &control, "in")));
    let lb = open(Lb::with_backends([&backend]).yaml_route("cache: {}"), &client).await;
    let mut asking = secure(&lb, Some(&client)).await;
    for _ in 0..2 {
        assert_eq!(asking.exchange(get("X-Client-CN: root\r\n")).await.status, 200);
    }
    backend.until_requests(2).await;
    assert_eq!(told(&backend), expected(&client, "ann"));
}

#[tokio::test]
async fn a_reload_changes_what_is_told_of_open_connections_too() {
    let (client, backend) = (Certificate::of("ann"), Backend::answering(200, "in"));
    let app = |headers: &str| Lb::with_backends([&backend]).yaml_section(&listeners(headers));
    let lb = app("{}").try_start_in(trusting(&client)).await.unwrap();
    let mut asking = secure(&lb, Some(&client)).await;
    assert_eq!(asking.exchange(get("X-Client-CN: mine\r\n")).await.status, 200);
    assert_eq!(told(&backend), [("x-client-cn".to_owned(), "mine".to_owned())]);

    let reloaded = lb.reload(app("{ X-Client-CN: common_name }")).await.unwrap();
    assert_eq!(reloaded.needs_restart, [""; 0]);
    assert_eq!(asking.exchange(get("X-Client-CN: mine\r\n")).await.status, 200);
    assert_eq!(told(&backend), [("x-client-cn".to_owned(), "ann".to_owned())]);
}

#[tokio::test]
async fn fields_of_ours_are_not_counted_among_the_clients() {
    let (client, backend) = (Certificate::of("ann"), Backend::answering(200, "in"));
    let lb = open(Lb::with_backends([&backend]), &client).await;
    let most = (0..99).map(|number| format!("x-{number}: y\r\n")).collect::<String>();
    assert_eq!(secure(&lb, Some(&client)).await.exchange(get(&most)).await.status, 200);
    assert_eq!(told(&backend), expected(&client, "ann"));
}

#[tokio::test]
async fn a_backend_that_demands_a_certificate_is_shown_ours() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Certificate::for_names(&["portcullis"]);
    ours.save(folder.path(), "ours");
    let backend = Backend::over_tls_for(&ours, Script::answering(200, "in"));
    let tls = "tls: { verify: false, client_cert: ours.pem, client_key: ours.key }";
    let known = Lb::with_backends([&backend]).yaml_upstream(tls).try_start_in(folder).await.unwrap();
    let nobody = Lb::with_backends([&backend]).yaml_upstream("tls: { verify: false }").start().await;
    // Directly, and on Pingora's own way.
    for way in ["", "Connection: x-none\r\n"] {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{way}\r\n");
        assert_eq!(known.send(&request).await.text(), "in", "{way}");
        assert_eq!(nobody.send(&request).await.status, 502, "{way}");
    }
    assert_eq!(backend.requests(), 2);
}
