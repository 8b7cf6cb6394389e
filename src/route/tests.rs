//! What a table finds, and that it finds what the definition of [`Rank`] says.

use proptest::prelude::*;

use super::*;
use crate::config::PathPattern;

/// A route in short: `host path`, either of them `-` for any; `*.` and `/*` as in the configuration.
fn route(short: &str) -> Match {
    let (host, path) = short.split_once(' ').unwrap_or((short, "-"));
    let hosts = match (host, host.strip_prefix("*.")) {
        ("-", _) => vec![],
        (_, Some(parent)) => vec![HostPattern::Wildcard(parent.into())],
        (_, None) => vec![HostPattern::Exact(host.into())],
    };
    let path = match (path, path.strip_suffix("/*")) {
        ("-", _) => PathPattern::Any,
        (_, Some(prefix)) => PathPattern::Prefix(prefix.into()),
        (_, None) => PathPattern::Exact(path.into()),
    };
    Match { hosts, path, ..Match::default() }
}

fn find<'a, T>(table: &'a Table<T>, method: &Method, host: &str, path: &str) -> Option<&'a T> {
    let headers = HeaderMap::new();
    table.find(&RequestView { listener: None, host, path, method, headers: &headers, query: None })
}

/// Finds `request` (`host path`) among routes in short, and expects one of them or none.
#[track_caller]
fn check(routes: &[&str], request: &str, expected: Option<&str>) {
    let table = Table::new(routes.iter().map(|&short| (route(short), short)).collect());
    let (host, path) = request.split_once(' ').unwrap();
    assert_eq!(find(&table, &Method::GET, host, path).copied(), expected, "{request}");
}

#[test]
fn an_exact_host_comes_before_a_wildcard_before_any() {
    let routes = ["-", "*.example.com", "*.b.example.com", "a.b.example.com"];
    check(&routes, "a.b.example.com /", Some("a.b.example.com"));
    check(&routes, "c.b.example.com /", Some("*.b.example.com"));
    check(&routes, "x.y.b.example.com /", Some("*.b.example.com"));
    check(&routes, "b.example.com /", Some("*.example.com"));
    check(&routes, "example.com /", Some("-"));
    check(&routes, "notexample.com /", Some("-"));
}

#[test]
fn an_exact_path_comes_before_the_longest_prefix() {
    let routes = ["- /*", "- /v1/*", "- /v1/users/*", "- /v1/users"];
    check(&routes, "h /v1/users", Some("- /v1/users"));
    check(&routes, "h /v1/users/7", Some("- /v1/users/*"));
    check(&routes, "h /v1/user", Some("- /v1/*"));
    check(&routes, "h /v2", Some("- /*"));
}

#[test]
fn a_prefix_ends_on_a_segment_border() {
    check(&["- /v1/*"], "h /v1", Some("- /v1/*"));
    check(&["- /v1/*"], "h /v1/", Some("- /v1/*"));
    check(&["- /v1/*"], "h /v1x", None);
    check(&["- /v1/*"], "h /v1%2Fx", None);
    check(&["- /v1"], "h /v1/", None);
}

#[test]
fn a_host_without_the_path_falls_back_to_less_specific_hosts() {
    let routes = ["a.example.com /only", "*.example.com /wild/*", "- -"];
    check(&routes, "a.example.com /only", Some("a.example.com /only"));
    check(&routes, "a.example.com /wild/x", Some("*.example.com /wild/*"));
    check(&routes, "a.example.com /else", Some("- -"));
}

#[test]
fn any_path_holds_the_asterisk_of_options() {
    check(&["- -"], "h *", Some("- -"));
    check(&["- /v1/*"], "h *", None);
}

#[test]
fn a_pattern_is_normalised_as_paths_are() {
    check(&["- /%7euser//a/*"], "h /~user/a/b", Some("- /%7euser//a/*"));
    check(&["- /a%2fb"], "h /a%2Fb", Some("- /a%2fb"));
}

#[test]
fn more_conditions_come_first_then_the_order_of_the_file() {
    let get = Match { methods: vec![Method::GET], ..route("- /a") };
    let table = Table::new(vec![(route("- /a"), "first"), (route("- /a"), "second"), (get, "get")]);
    assert_eq!(find(&table, &Method::GET, "h", "/a"), Some(&"get"));
    assert_eq!(find(&table, &Method::POST, "h", "/a"), Some(&"first"));
}

#[test]
fn conditions_that_fail_fall_back_to_a_less_specific_route() {
    let post = Match { methods: vec![Method::POST], ..route("h /a") };
    let table = Table::new(vec![(post, "post"), (route("- /*"), "all")]);
    assert_eq!(find(&table, &Method::GET, "h", "/a"), Some(&"all"));
}

#[test]
fn a_route_answers_for_each_of_its_hosts() {
    let mut matches = route("a.example");
    matches.hosts.push(HostPattern::Wildcard("b.example".into()));
    matches.hosts.push(HostPattern::Exact("a.example".into()));
    let table = Table::new(vec![(matches, ())]);
    assert!(find(&table, &Method::GET, "a.example", "/").is_some());
    assert!(find(&table, &Method::GET, "x.b.example", "/").is_some());
    assert!(find(&table, &Method::GET, "b.example", "/").is_none());
}

#[test]
fn an_empty_table_finds_nothing() {
    check(&[], "h /", None);
}

/// The definition: of all routes that match, the one of the highest rank.
fn by_rank(routes: &[Match], head: &RequestView<'_>) -> Option<usize> {
    let path_holds = |pattern: &PathPattern| match pattern {
        PathPattern::Any => true,
        PathPattern::Exact(path) => path == head.path,
        PathPattern::Prefix(prefix) => head.path == prefix || head.path.starts_with(&format!("{prefix}/")),
    };
    let host_holds = |pattern: &&HostPattern| match pattern {
        HostPattern::Exact(host) => host == head.host,
        HostPattern::Wildcard(parent) => head.host.ends_with(&format!(".{parent}")),
    };
    let ranks = routes.iter().enumerate().filter_map(|(place, matches)| {
        let holds = path_holds(&matches.path) && Conditions::new(matches).hold(head);
        let hosts = matches.hosts.iter().filter(host_holds).map(Some);
        let any = matches.hosts.is_empty().then_some(None);
        hosts.chain(any).filter(|_| holds).map(|host| (Rank::new(matches, host, place), place)).max()
    });
    ranks.max().map(|(_, place)| place)
}

fn any_match() -> impl Strategy<Value = Match> {
    let host = prop_oneof![Just("a.b.c"), Just("b.c"), Just("*.b.c"), Just("*.c"), Just("d")];
    let path =
        prop_oneof![Just("-"), Just("/*"), Just("/a"), Just("/a/*"), Just("/a/b"), Just("/a/b/*"), Just("/ab/*")];
    let method = prop_oneof![Just(Method::GET), Just(Method::POST)];
    let (hosts, methods) = (prop::collection::vec(host, 0..3), prop::collection::vec(method, 0..2));
    let query = prop::collection::vec(prop_oneof![Just("x"), Just("y")], 0..2);
    (hosts, path, methods, query).prop_map(|(hosts, path, methods, query)| Match {
        hosts: hosts.into_iter().flat_map(|host| route(host).hosts).collect(),
        methods,
        query: query.into_iter().map(|name| (name.to_owned(), "1".to_owned())).collect(),
        ..route(&format!("- {path}"))
    })
}

proptest! {
    #[test]
    fn a_table_finds_the_highest_rank(
        routes in prop::collection::vec(any_match(), 0..12),
        host in prop_oneof![Just("a.b.c"), Just("x.b.c"), Just("b.c"), Just("x.c"), Just("d"), Just("")],
        path in prop_oneof![Just("/"), Just("/a"), Just("/a/"), Just("/a/b"), Just("/a/b/c"), Just("/ab"), Just("/abc")],
        query in prop_oneof![Just(None), Just(Some("x=1")), Just(Some("x=1&y=1"))],
        get: bool,
    ) {
        let headers = HeaderMap::new();
        let method = if get { Method::HEAD } else { Method::POST };
        let head = RequestView { listener: None, host, path, method: &method, headers: &headers, query };
        let expected = by_rank(&routes, &head);
        let table = Table::new(routes.into_iter().zip(0..).collect());
        prop_assert_eq!(table.find(&head).copied(), expected);
    }
}
