//! How is it written? Prometheus's text format, version 0.0.4.
//!
//! Of a family the page has its help and kind once, and each series once: a second one with the same labels would make the
//! whole page unreadable to Prometheus, so it is left out. Lines end with `\n`, names come from the catalogue, and only the
//! values of labels need escapes.

use std::collections::HashSet;
use std::fmt::{self, Display, Write};

use super::catalogue::{Family, Kind};
use crate::count::{BOUNDS, Spread};

/// The type of the page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page that is being written.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
}

/// The series of one family.
#[derive(Debug)]
pub struct Series<'a> {
    text: &'a mut String,
    family: &'static Family,
    /// The labels of those that are there, as they are written.
    seen: HashSet<Box<str>>,
}

impl Page {
    /// Writes a family; `write` gives its series.
    pub fn family(&mut self, family: &'static Family, write: impl FnOnce(&mut Series<'_>)) {
        let Family { name, kind, help, .. } = family;
        // Writing to a string never fails.
        let _ = write!(self.text, "# HELP {name} {}\n# TYPE {name} {}\n", Help(help), kind.word());
        write(&mut Series { text: &mut self.text, family, seen: HashSet::new() });
    }

    /// Writes a family of one series without labels.
    pub fn single(&mut self, family: &'static Family, value: impl Display) {
        self.family(family, |series| series.put([], value));
    }

    /// The whole page.
    pub fn finish(self) -> String {
        self.text
    }
}

impl Series<'_> {
    /// Writes a series; the values of its labels are in the order of the catalogue.
    pub fn put<const N: usize>(&mut self, labels: [&str; N], value: impl Display) {
        if let Some(labels) = self.claim(&labels) {
            self.line("", &labels, "", value);
        }
    }

    /// Writes one if there is a value.
    pub fn put_some<const N: usize>(&mut self, labels: [&str; N], value: Option<impl Display>) {
        if let Some(value) = value {
            self.put(labels, value);
        }
    }

    /// Writes a histogram.
    pub fn spread<const N: usize>(&mut self, labels: [&str; N], spread: &Spread) {
        debug_assert_eq!(self.family.kind, Kind::Histogram);
        let Some(labels) = self.claim(&labels) else { return };
        let bounds = BOUNDS.iter().map(|bound| bound.as_secs_f64().to_string()).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(spread.at_most) {
            self.line("_bucket", &labels, &bound, count);
        }
        self.line("_sum", &labels, "", spread.sum);
        self.line("_count", &labels, "", spread.count());
    }

    /// The labels as they are written, unless they are there already.
    fn claim(&mut self, values: &[&str]) -> Option<String> {
        debug_assert_eq!(values.len(), self.family.labels.len(), "{}", self.family.name);
        let mut text = String::new();
        for (name, value) in self.family.labels.iter().zip(values) {
            let comma = if text.is_empty() { "" } else { "," };
            let _ = write!(text, "{comma}{name}=\"{}\"", Value(value));
        }
        self.seen.insert(text.as_str().into()).then_some(text)
    }

    fn line(&mut self, suffix: &str, labels: &str, bound: &str, value: impl Display) {
        let name = self.family.name;
        let _ = match (labels, bound) {
            ("", "") => writeln!(self.text, "{name}{suffix} {value}"),
            ("", bound) => writeln!(self.text, "{name}{suffix}{{le=\"{bound}\"}} {value}"),
            (labels, "") => writeln!(self.text, "{name}{suffix}{{{labels}}} {value}"),
            (labels, bound) => writeln!(self.text, "{name}{suffix}{{{labels},le=\"{bound}\"}} {value}"),
        };
    }
}

/// The value of a label: quotes, backslashes and ends of lines are escaped.
struct Value<'a>(&'a str);

impl Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|letter| match letter {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            letter => f.write_char(letter),
        })
    }
}

/// A help text: here quotes stand for themselves.
struct Help<'a>(&'a str);

impl Display for Help<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|letter| match letter {
            '\\' => f.write_str("\\\\"),
            '\n' => f.write_str("\\n"),
            letter => f.write_char(letter),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::count::Durations;

    const PLAIN: Family = Family { name: "a_total", kind: Kind::Counter, labels: &[], help: "What \\ is\nthis \"a\"?" };
    const LABELLED: Family = Family { name: "b", kind: Kind::Gauge, labels: &["x", "y"], help: "B." };
    const SPREAD: Family = Family { name: "c_seconds", kind: Kind::Histogram, labels: &["x"], help: "C." };

    #[test]
    fn a_family_has_its_help_and_kind_once_and_its_series_after_them() {
        let mut page = Page::default();
        page.single(&PLAIN, 3);
        page.family(&LABELLED, |series| {
            series.put(["1", "a\\b\"c\nd"], 0.25);
            series.put_some(["2", ""], Some(7));
            series.put_some(["3", ""], None::<u64>);
        });
        let expected = "# HELP a_total What \\\\ is\\nthis \"a\"?\n# TYPE a_total counter\na_total 3\n\
                        # HELP b B.\n# TYPE b gauge\nb{x=\"1\",y=\"a\\\\b\\\"c\\nd\"} 0.25\nb{x=\"2\",y=\"\"} 7\n";
        assert_eq!(page.finish(), expected);
    }

    #[test]
    fn a_series_that_is_there_is_not_written_again() {
        let mut page = Page::default();
        page.family(&LABELLED, |series| {
            series.put(["1", "2"], 1);
            series.put(["1", "2"], 2);
        });
        assert_eq!(page.finish().matches("b{").count(), 1);
    }

    #[test]
    fn a_histogram_has_every_bound_its_sum_and_its_count() {
        let durations = Durations::default();
        for millis in [1, 20, 90_000] {
            durations.took(Duration::from_millis(millis));
        }
        let mut page = Page::default();
        page.family(&SPREAD, |series| series.spread(["r"], &durations.get()));
        let text = page.finish();
        for line in [
            "c_seconds_bucket{x=\"r\",le=\"0.0005\"} 0\n",
            "c_seconds_bucket{x=\"r\",le=\"0.001\"} 1\n",
            "c_seconds_bucket{x=\"r\",le=\"0.025\"} 2\n",
            "c_seconds_bucket{x=\"r\",le=\"60\"} 2\n",
            "c_seconds_bucket{x=\"r\",le=\"+Inf\"} 3\n",
            "c_seconds_sum{x=\"r\"} 90.021\n",
            "c_seconds_count{x=\"r\"} 3\n",
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
    }
}
