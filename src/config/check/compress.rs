//! Does it make sense what is made smaller, and how?
//!
//! What cannot be meant is refused; what only costs time, or comes to nothing, is a warning.

use std::sync::Arc;

use super::Check;
use crate::config::file::{self, Marked, Share};
use crate::config::{Coding, Compress, Levels, MediaRange};

/// Content that has been made small already, and sets that are full of it.
const SMALL_ALREADY: [&str; 20] = [
    "*/*",
    "audio/",
    "video/",
    "image/",
    "image/avif",
    "image/gif",
    "image/heic",
    "image/jpeg",
    "image/jxl",
    "image/png",
    "image/webp",
    "application/gzip",
    "application/x-gzip",
    "application/pdf",
    "application/zip",
    "application/zstd",
    "application/x-7z-compressed",
    "application/x-xz",
    "font/woff",
    "font/woff2",
];

impl Check<'_> {
    pub(super) fn compress(&mut self, route: &Marked<file::Route>) -> Option<Arc<Compress>> {
        let compress = route.compress.as_ref()?;
        if route.redirect.is_some() {
            let what = "a redirect has next to no body that could be smaller";
            self.problems.error(&route.compress.at, what, "leave `compress` out");
        }
        let algorithms = self.algorithms(compress);
        self.types_of_content(compress);
        let max_cpu = compress.max_cpu.as_ref().and_then(|share| self.some_of_the_time(&compress.max_cpu, *share));
        self.what_is_never_compressed(route, compress);
        self.levels_that_do_nothing(route, compress, &algorithms);
        Some(Arc::new(Compress {
            algorithms,
            min_size: compress.min_size.0,
            types: compress.types.iter().map(|range| range.value.clone()).collect(),
            levels: levels(&compress.levels),
            decode: *compress.decode,
            decode_requests: *compress.decode_requests,
            max_cpu,
        }))
    }

    fn algorithms(&mut self, compress: &file::Compress) -> Vec<Coding> {
        let mut algorithms = Vec::new();
        for coding in compress.algorithms.iter() {
            if algorithms.contains(&coding.value) {
                let what = format!("`{}` is in this list already", coding.value);
                self.problems.error(&coding.at, what, "take one of the two away: the first is the one that counts");
            } else {
                algorithms.push(coding.value);
            }
        }
        if algorithms.is_empty() && !self.problems.speak_of(&compress.algorithms.at.key) {
            let help = "leave `compress` out of the route, or `algorithms` to its default";
            self.problems.error(&compress.algorithms.at, "nothing would be compressed", help);
        }
        algorithms
    }

    fn types_of_content(&mut self, compress: &file::Compress) {
        let decodes = *compress.decode || *compress.decode_requests;
        if compress.types.is_empty() && !decodes && !self.problems.speak_of(&compress.types.at.key) {
            let help = "leave `compress` out of the route, or `types` to its default";
            self.problems.error(&compress.types.at, "nothing would be compressed or decoded", help);
        }
        for (index, range) in compress.types.iter().enumerate() {
            let mut others = compress.types.iter().enumerate().filter(|(other, _)| *other != index);
            let covers = |(other, wider): &(usize, &Marked<MediaRange>)| {
                covers(&wider.value, &range.value) && (*other < index || wider.value != range.value)
            };
            if let Some((_, wider)) = others.find(covers) {
                let what = format!("`{}` holds this type already", show(&wider.value));
                self.problems.warning(&range.at, what, "leave it out");
            }
            self.small_already(range);
        }
    }

    fn small_already(&mut self, range: &Marked<MediaRange>) {
        let written = match &range.value {
            MediaRange::Exact(name) | MediaRange::Type(name) => name.as_str(),
            MediaRange::Suffix(_) => return,
            MediaRange::All => "*/*",
        };
        if SMALL_ALREADY.contains(&written) {
            let what = format!("`{}` is, or holds much that is, small already", show(&range.value));
            let help = "it takes time and saves nothing; name the types that are worth it, as image/svg+xml";
            self.problems.warning(&range.at, what, help);
        }
    }

    fn some_of_the_time(&mut self, at: &Marked<Option<Share>>, share: Share) -> Option<u8> {
        // A share is written in whole percent.
        let percent = (share.0 * 100.0).round();
        if (1.0..=99.0).contains(&percent) {
            return Some(percent as u8);
        }
        let help = "write for example 80%, or `none` where the levels are to stay as they are";
        self.problems.error(&at.at, "this must be from 1% to 99%: at 100% all levels are at their lowest", help);
        None
    }

    fn what_is_never_compressed(&mut self, route: &file::Route, compress: &file::Compress) {
        let Some(respond) = route.respond.as_ref().filter(|_| route.upstream.is_none()) else { return };
        let length = respond.body.len() as u64;
        if length < compress.min_size.0 && !self.problems.speak_of(&compress.min_size.at.key) {
            let what =
                format!("this route's answer has {length} bytes, less than `min_size`, so it is never compressed");
            self.problems.warning(&route.compress.at, what, "leave `compress` out");
        }
        if *compress.decode_requests {
            let what = "no request is sent on, so none is decoded";
            self.problems.warning(&compress.decode_requests.at, what, "leave `decode_requests` out");
        }
    }

    fn levels_that_do_nothing(&mut self, route: &file::Route, compress: &file::Compress, offered: &[Coding]) {
        let file::Levels { zstd, br, gzip, deflate } = &compress.levels.value;
        let levels = [
            (Coding::Zstd, &zstd.at, zstd.written, zstd.is_least(), zstd.0 >= 16),
            (Coding::Br, &br.at, br.written, br.is_least(), br.0 >= 10),
            (Coding::Gzip, &gzip.at, gzip.written, gzip.is_least(), false),
            (Coding::Deflate, &deflate.at, deflate.written, deflate.is_least(), false),
        ];
        let mut can_step_down = false;
        for (coding, at, written, least, slow) in levels {
            if !offered.contains(&coding) {
                if written && !offered.is_empty() {
                    let help = format!("add {coding} to `algorithms`, or leave its level out");
                    self.problems.warning(
                        at,
                        format!("`{coding}` is not offered, so its level counts for nothing"),
                        help,
                    );
                }
                continue;
            }
            can_step_down |= !least;
            if slow && route.cache.is_none() {
                let what = format!("this level of {coding} is meant for what is compressed once and sent often");
                self.problems.warning(at, what, "choose a lower one, or let the route have a `cache`");
            }
        }
        if compress.max_cpu.is_some() && !can_step_down && !offered.is_empty() {
            let what = "every level is at its lowest already, so none can step down";
            self.problems.warning(&compress.max_cpu.at, what, "leave `max_cpu` out, or raise a level");
        }
    }
}

fn levels(levels: &file::Levels) -> Levels {
    Levels { zstd: levels.zstd.0, br: levels.br.0, gzip: levels.gzip.0, deflate: levels.deflate.0 }
}

/// Whether the one has in it all that the other has.
fn covers(wide: &MediaRange, narrow: &MediaRange) -> bool {
    match (wide, narrow) {
        (MediaRange::All, _) => true,
        (MediaRange::Type(start), MediaRange::Exact(name) | MediaRange::Type(name)) => name.starts_with(start.as_str()),
        (MediaRange::Suffix(end), MediaRange::Exact(name) | MediaRange::Suffix(name)) => name.ends_with(end.as_str()),
        (MediaRange::Exact(one), MediaRange::Exact(other)) => one == other,
        (MediaRange::Exact(_), _) | (MediaRange::Type(_), _) | (MediaRange::Suffix(_), _) => false,
    }
}

/// As it is written.
fn show(range: &MediaRange) -> String {
    match range {
        MediaRange::Exact(name) => name.clone(),
        MediaRange::Type(start) => format!("{start}*"),
        MediaRange::Suffix(end) => format!("*/*{end}"),
        MediaRange::All => "*/*".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Surroundings, parse};

    fn route(compress: &str) -> Option<Arc<Compress>> {
        let text = format!(
            "listeners: [{{ address: 127.0.0.1:0 }}]\nupstreams: {{ app: {{ backends: [127.0.0.1:8000] }} }}\n\
             routes: [{{ upstream: app, compress: {compress} }}]\n"
        );
        let around = Surroundings::of_process("/etc/app".into());
        let config = parse(&text, "f", &around).unwrap_or_else(|problems| panic!("{text}{problems:#?}")).config;
        config.routes[0].compress.clone()
    }

    fn compress(keys: &str) -> Compress {
        Compress::clone(&route(keys).unwrap())
    }

    #[test]
    fn nothing_is_compressed_unless_a_route_says_so() {
        assert_eq!(route("none"), None);
        assert_eq!(route("null"), None);
    }

    #[test]
    fn a_route_that_says_nothing_else_offers_the_three_that_browsers_read() {
        let compress = compress("{}");
        let expected = Compress {
            algorithms: vec![Coding::Zstd, Coding::Br, Coding::Gzip],
            min_size: 1024,
            types: compress.types.clone(),
            levels: Levels::default(),
            decode: true,
            decode_requests: false,
            max_cpu: None,
        };
        assert_eq!(compress, expected);
        for range in ["text/", "+json"] {
            let within =
                |held: &MediaRange| matches!(held, MediaRange::Type(name) | MediaRange::Suffix(name) if name == range);
            assert!(compress.types.iter().any(within), "{range}");
        }
    }

    #[test]
    fn the_default_types_hold_each_other_nowhere_and_nothing_that_is_small_already() {
        let types = compress("{}").types;
        let held = |range: &MediaRange| types.iter().filter(|other| covers(other, range)).count();
        assert!(types.iter().all(|range| held(range) == 1));
        let text: Vec<String> = types.iter().map(show).collect();
        assert!(text.iter().all(|name| !SMALL_ALREADY.contains(&name.trim_end_matches('*'))), "{text:?}");
    }

    #[test]
    fn types_are_one_all_of_a_kind_all_with_a_suffix_or_all() {
        let expected = [
            MediaRange::Exact("application/json".into()),
            MediaRange::Type("text/".into()),
            MediaRange::Suffix("+json".into()),
            MediaRange::All,
        ];
        assert_eq!(compress("{ types: [Application/JSON, text/*, \"*/*+JSON\", \"*/*\"] }").types, expected);
    }

    #[test]
    fn levels_sizes_and_shares_are_what_is_written() {
        let written = "{ algorithms: [deflate, br], min_size: 0, levels: { br: 0, deflate: 9, zstd: 19, gzip: 1 }, \
                       decode: false, decode_requests: true, max_cpu: 80% }";
        let compress = compress(written);
        assert_eq!(compress.algorithms, [Coding::Deflate, Coding::Br]);
        assert_eq!(compress.levels, Levels { zstd: 19, br: 0, gzip: 1, deflate: 9 });
        assert_eq!((compress.min_size, compress.max_cpu), (0, Some(80)));
        assert!(!compress.decode && compress.decode_requests);
    }
}
