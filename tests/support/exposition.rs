//! A page of metrics, read as strictly as its format says, and more strictly than Prometheus reads it.

use std::collections::{BTreeMap, HashSet};

/// Labels by name.
pub type Labels = BTreeMap<String, String>;

/// A page.
#[derive(Debug, Default)]
pub struct Exposition {
    /// The kind of each family.
    pub kinds: BTreeMap<String, String>,
    pub samples: Vec<Sample>,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Sample {
    pub name: String,
    pub labels: Labels,
    pub value: f64,
}

impl Exposition {
    /// Reads a page; panics at whatever is wrong with it.
    pub fn read(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line has no end");
        let mut page = Self::default();
        let (mut helped, mut series, mut family) = (HashSet::new(), HashSet::new(), String::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect(line);
                assert!(helped.insert(name.to_owned()), "two helps: {line}");
                assert!(!help.trim().is_empty(), "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect(line);
                assert!(helped.contains(name), "a kind before its help: {line}");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(page.kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "two kinds: {line}");
                family = name.to_owned();
            } else {
                let sample = sample(line);
                let kind = page.kinds.get(&family).unwrap_or_else(|| panic!("no kind: {line}"));
                assert!(belongs(&sample, &family, kind), "not of {family}, a {kind}: {line}");
                assert!(series.insert((sample.name.clone(), sample.labels.clone())), "twice: {line}");
                assert!(kind != "counter" || sample.value >= 0.0, "{line}");
                page.samples.push(sample);
            }
        }
        assert_eq!(helped.len(), page.kinds.len());
        page.check_histograms();
        page
    }

    /// The value of the one series with these labels, whatever others it has.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let found: Vec<_> = self.all(name, labels).collect();
        assert!(found.len() < 2, "{name} {labels:?} is not one: {found:#?}");
        found.first().map(|sample| sample.value)
    }

    /// The sum of all series with these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.all(name, labels).map(|sample| sample.value).sum()
    }

    pub fn all<'a>(&'a self, name: &'a str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a Sample> {
        let has = |sample: &Sample, (key, value): &(&str, &str)| sample.labels.get(*key).is_some_and(|it| it == value);
        let named = self.samples.iter().filter(move |sample| sample.name == name);
        named.filter(move |sample| labels.iter().all(|label| has(sample, label)))
    }

    /// Buckets grow, the last is all, and sum and count are there.
    fn check_histograms(&self) {
        for (family, _) in self.kinds.iter().filter(|(_, kind)| *kind == "histogram") {
            let mut last: BTreeMap<Labels, (f64, f64)> = BTreeMap::new();
            for bucket in self.samples.iter().filter(|sample| sample.name == format!("{family}_bucket")) {
                let mut labels = bucket.labels.clone();
                let bound: f64 = labels.remove("le").expect("a bound").replace("+Inf", "inf").parse().unwrap();
                let (below, count) = last.get(&labels).copied().unwrap_or((f64::NEG_INFINITY, 0.0));
                assert!(bound > below && bucket.value >= count, "{family} is not cumulative: {bucket:?}");
                last.insert(labels, (bound, bucket.value));
            }
            for (labels, (bound, count)) in last {
                let pairs: Vec<_> = labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
                assert_eq!(bound, f64::INFINITY, "{family} {labels:?}");
                assert_eq!(self.value(&format!("{family}_count"), &pairs), Some(count), "{family} {labels:?}");
                assert!(self.value(&format!("{family}_sum"), &pairs).is_some_and(|sum| sum >= 0.0), "{family}");
            }
        }
    }
}

fn belongs(sample: &Sample, family: &str, kind: &str) -> bool {
    let suffix = sample.name.strip_prefix(family);
    match kind {
        "histogram" => matches!(suffix, Some("_bucket" | "_sum" | "_count")),
        _ => suffix == Some("") && !sample.labels.contains_key("le"),
    }
}

fn sample(line: &str) -> Sample {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no value: {line}"));
    let (name, rest) = line.split_at(end);
    assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{line}");
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest, line),
        None => (Labels::new(), rest),
    };
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("no space before the value: {line}"));
    let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
    Sample { name: name.to_owned(), labels, value }
}

/// Labels up to the closing bracket, and what stands behind it.
fn labels<'a>(mut rest: &'a str, line: &str) -> (Labels, &'a str) {
    let mut labels = Labels::new();
    loop {
        let (name, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("no value of a label: {line}"));
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') && !name.is_empty(), "{line}");
        let (value, after) = quoted(after, line);
        assert!(labels.insert(name.to_owned(), value).is_none(), "a label twice: {line}");
        match (after.strip_prefix(','), after.strip_prefix('}')) {
            (Some(more), _) => rest = more,
            (None, Some(end)) => return (labels, end),
            (None, None) => panic!("neither a comma nor a bracket: {line}"),
        }
    }
}

fn quoted<'a>(text: &'a str, line: &str) -> (String, &'a str) {
    let (mut value, mut letters) = (String::new(), text.char_indices());
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match letters.next() {
                Some((_, '\\')) => '\\',
                Some((_, '"')) => '"',
                Some((_, 'n')) => '\n',
                other => panic!("an unknown escape {other:?}: {line}"),
            }),
            letter => value.push(letter),
        }
    }
    panic!("a value without an end: {line}")
}
