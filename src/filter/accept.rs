//! What does the client read? `Accept` (RFC 9110, section 12.5.1).
//!
//! A range that cannot be read says nothing. Parameters of media types are not compared: nothing that we send has any but its
//! charset.

use http::HeaderMap;
use http::header::ACCEPT;

/// More ranges than any client sends.
const RANGES_MAX: usize = 64;

/// The most that a client can want something, in thousandths.
const MOST: u16 = 1000;

/// What a client says that it reads.
#[derive(Debug)]
pub struct Accept {
    /// `None`: it says nothing.
    ranges: Option<Vec<Range>>,
}

#[derive(Debug)]
struct Range {
    kind: String,
    subtype: String,
    quality: u16,
}

impl Accept {
    /// What these fields say.
    pub fn of(headers: &HeaderMap) -> Self {
        let fields = headers.get_all(ACCEPT).iter().filter_map(|field| field.to_str().ok());
        let ranges = fields.flat_map(|field| field.split(',')).take(RANGES_MAX).filter_map(range).collect();
        Self { ranges: headers.contains_key(ACCEPT).then_some(ranges) }
    }

    /// How much it wants this media type, in thousandths; what is most specific counts.
    pub fn quality(&self, wanted: &str) -> u16 {
        let Some((kind, _)) = wanted.split_once('/') else { return 0 };
        let Some(ranges) = &self.ranges else { return MOST };
        let of = |kind: &str, subtype: &str| {
            ranges
                .iter()
                .filter(|range| range.kind == kind && range.subtype == subtype)
                .map(|range| range.quality)
                .max()
        };
        self.named(wanted).or_else(|| of(kind, "*")).or_else(|| of("*", "*")).unwrap_or(0)
    }

    /// How much it wants this media type, if it names it.
    pub fn named(&self, wanted: &str) -> Option<u16> {
        let (kind, subtype) = wanted.split_once('/')?;
        let same = self.ranges.iter().flatten().filter(|range| range.kind == kind && range.subtype == subtype);
        same.map(|range| range.quality).max()
    }

    /// Whether it names a type of this kind, such as `text`, and wants it.
    pub fn names_any(&self, kind: &str) -> bool {
        self.ranges.iter().flatten().any(|range| range.kind == kind && range.quality > 0)
    }

    /// Whether it says anything.
    pub fn is_there(&self) -> bool {
        self.ranges.is_some()
    }
}

fn range(text: &str) -> Option<Range> {
    let mut parts = text.split(';').map(str::trim);
    let (kind, subtype) = parts.next()?.split_once('/')?;
    let mut quality = MOST;
    for parameter in parts {
        if let Some(value) = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q=")) {
            quality = thousandths(value)?;
            // What follows belongs to no media type.
            break;
        }
    }
    Some(Range { kind: kind.to_ascii_lowercase(), subtype: subtype.to_ascii_lowercase(), quality })
}

/// A weight (RFC 9110, section 12.4.2).
fn thousandths(text: &str) -> Option<u16> {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    if rest.len() > 3 || !rest.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let rest: u16 = format!("{rest:0<3}").parse().ok()?;
    match whole {
        "0" => Some(rest),
        "1" if rest == 0 => Some(MOST),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(field: &str) -> Accept {
        Accept::of(&HeaderMap::from_iter([(ACCEPT, field.parse().unwrap())]))
    }

    #[test]
    fn the_most_specific_range_counts() {
        let asked = accept("text/*;q=0.3, text/html;q=0.7, */*;q=0.5, application/json;q=0");
        for (kind, quality) in
            [("text/html", 700), ("text/plain", 300), ("image/png", 500), ("application/json", 0), ("none", 0)]
        {
            assert_eq!(asked.quality(kind), quality, "{kind}");
        }
        assert_eq!((asked.named("text/html"), asked.named("text/plain")), (Some(700), None));
        assert!(asked.names_any("text") && !asked.names_any("application") && asked.is_there());
    }

    #[test]
    fn what_says_nothing_takes_anything_and_what_cannot_be_read_nothing() {
        assert_eq!(Accept::of(&HeaderMap::new()).quality("text/html"), 1000);
        for (field, quality) in [
            ("", 0),
            ("text", 0),
            ("text/html;q=2", 0),
            ("text/html;q=0.1234", 0),
            ("text/html;q=", 0),
            ("TEXT/HTML;level=1;Q=0.5;more=1", 500),
            ("text/html;q=1.000", 1000),
            ("text/html;q=1.001", 0),
            ("text/html;q=0.", 0),
            ("text/html;q=0.05, text/html;q=0.5", 500),
        ] {
            assert_eq!(accept(field).quality("text/html"), quality, "{field}");
        }
        assert_eq!(accept(&"a/b,".repeat(RANGES_MAX)).quality("text/html"), 0);
    }
}
