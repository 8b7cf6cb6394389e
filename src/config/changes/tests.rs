//! Tests of changes beside the file.

use super::*;
use crate::config::members::{Rules, member};
use crate::config::{Surroundings, parse};

fn config(backends: &str, more: &str) -> Config {
    let text = format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\nroutes: [{{ upstream: app }}]\n\
         upstreams: {{ app: {{ backends: {backends}{more} }} }}\n"
    );
    parse(&text, "f", &Surroundings::of_process("".into())).unwrap().config
}

fn app(backends: &str) -> Upstream {
    config(backends, "").upstreams.remove(0)
}

fn new(url: &str) -> Backend {
    member(url, &serde_json::json!({}), Rules { https_by_address: false, folder: None }).unwrap()
}

/// Each backend as `name/weight`, with `!` while it is drained.
fn seen(changes: &Changes, upstream: &Upstream) -> Vec<String> {
    let mut upstream = upstream.clone();
    changes.apply(&mut upstream);
    let show = |it: &Backend| format!("{}/{}{}", it.name, it.weight, if it.drained { "!" } else { "" });
    upstream.backends.iter().map(show).collect()
}

const TWO: &str = "[{ url: 10.0.0.1:80, name: a }, { url: 10.0.0.2:80, name: b, weight: 3 }]";

#[test]
fn what_is_undone_leaves_nothing_behind() {
    let (app, mut changes) = (app(TWO), Changes::default());
    assert_eq!(changes.wish(&app, "a", &Wish::Drain), Ok(true));
    assert_eq!(changes.wish(&app, "a", &Wish::Drain), Ok(false), "it is already");
    assert_eq!(changes.wish(&app, "b", &Wish::Weigh(9)), Ok(true));
    assert_eq!(seen(&changes, &app), ["a/1!", "b/9"]);
    assert_eq!(changes.wish(&app, "a", &Wish::Undrain), Ok(true));
    assert_eq!(changes.wish(&app, "b", &Wish::Weigh(3)), Ok(true));
    assert_eq!(changes, Changes::default());
    assert_eq!(changes.wish(&app, "b", &Wish::Weigh(3)), Ok(false), "as the file says");
    assert!(changes.is_empty());
}

#[test]
fn who_was_removed_comes_back_by_being_added() {
    let (app, mut changes) = (app(TWO), Changes::default());
    changes.wish(&app, "a", &Wish::Drain).unwrap();
    assert_eq!(changes.wish(&app, "a", &Wish::Remove), Ok(true));
    assert_eq!(seen(&changes, &app), ["b/3"]);
    assert_eq!(changes.wish(&app, "a", &Wish::Drain), Err(Refused::NoBackend("app".into(), "a".into())));
    let same = Backend { name: "a".into(), ..new("10.0.0.1:80") };
    assert_eq!(changes.add(&app, same), Ok(false));
    assert_eq!((seen(&changes, &app), changes.len()), (vec!["a/1".to_owned(), "b/3".to_owned()], 0), "and not drained");
}

#[test]
fn who_was_added_can_be_weighed_drained_and_removed() {
    let (app, mut changes) = (app(TWO), Changes::default());
    assert_eq!(changes.add(&app, new("10.0.0.3:80")), Ok(true));
    changes.wish(&app, "10.0.0.3:80", &Wish::Weigh(5)).unwrap();
    changes.wish(&app, "10.0.0.3:80", &Wish::Drain).unwrap();
    assert_eq!(seen(&changes, &app), ["a/1", "b/3", "10.0.0.3:80/5!"]);
    for taken in ["10.0.0.3:80", "10.0.0.1:80"] {
        assert!(matches!(changes.add(&app, new(taken)), Err(Refused::Taken(..))), "{taken}");
    }
    assert!(matches!(changes.add(&app, Backend { name: "b".into(), ..new("10.0.0.9:80") }), Err(Refused::Taken(..))));
    changes.wish(&app, "10.0.0.3:80", &Wish::Remove).unwrap();
    assert_eq!(changes, Changes::default());
}

#[test]
fn the_last_one_stays_unless_others_may_be_discovered() {
    let (alone, mut changes) = (app("[10.0.0.1:80]"), Changes::default());
    assert!(matches!(changes.wish(&alone, "10.0.0.1:80", &Wish::Remove), Err(Refused::Last(..))));
    assert_eq!(changes, Changes::default());
    let discovers = config("[10.0.0.1:80]", ", discover: { file: list.yaml }").upstreams.remove(0);
    assert_eq!(changes.wish(&discovers, "10.0.0.1:80", &Wish::Remove), Ok(true));
}

#[test]
fn only_a_weight_ends_a_weight_of_nothing() {
    let (app, mut changes) = (app("[{ url: 10.0.0.1:80, weight: 0 }, 10.0.0.2:80]"), Changes::default());
    assert!(matches!(changes.wish(&app, "10.0.0.1:80", &Wish::Undrain), Err(Refused::NoWeight(..))));
    assert_eq!(changes, Changes::default());
    changes.wish(&app, "10.0.0.1:80", &Wish::Weigh(1)).unwrap();
    assert_eq!(seen(&changes, &app), ["10.0.0.1:80/1", "10.0.0.2:80/1"]);
}

#[test]
fn another_file_keeps_what_still_makes_sense() {
    let (whole, mut changes) = (config(TWO, ""), Changes::default());
    let app = &whole.upstreams[0];
    changes.wish(app, "a", &Wish::Drain).unwrap();
    changes.wish(app, "b", &Wish::Weigh(7)).unwrap();
    changes.add(app, new("10.0.0.3:80")).unwrap();
    changes.add(app, new("10.0.0.4:80")).unwrap();
    assert_eq!(changes.clone().settle(&whole), [""; 0]);

    let next = config("[{ url: 10.0.0.2:80, name: b, weight: 7 }, 10.0.0.3:80]", "");
    let gone = changes.settle(&next);
    assert_eq!(gone, ["upstream app: the file names 10.0.0.3:80 now", "upstream app: backend a is gone"]);
    assert_eq!(seen(&changes, &next.upstreams[0]), ["b/7", "10.0.0.3:80/1", "10.0.0.4:80/1"]);
    let words: Vec<_> =
        changes.differences(&next).iter().map(|it| format!("{} {}", it.backend, it.what.word())).collect();
    assert_eq!(words, ["10.0.0.4:80 added"]);
}

#[test]
fn whoever_may_be_discovered_again_stays_drained() {
    let whole = config("[]", ", discover: { file: list.yaml }");
    let mut found = whole.upstreams[0].clone();
    found.backends.push(new("10.0.0.5:80"));
    let mut changes = Changes::default();
    changes.wish(&found, "10.0.0.5:80", &Wish::Drain).unwrap();
    assert_eq!(changes.settle(&whole), [""; 0]);
    assert_eq!(seen(&changes, &found), ["10.0.0.5:80/1!"]);
}
