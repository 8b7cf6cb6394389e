//! Is content of this type in a set of types? Only the type counts, not its parameters (RFC 9110, section 8.3.1).

use http::HeaderMap;
use http::header::CONTENT_TYPE;

use crate::config::MediaRange;

/// The type that a head names, as it is written there, without parameters; `None` if it names none.
pub(super) fn of(fields: &HeaderMap) -> Option<&[u8]> {
    let value = fields.get(CONTENT_TYPE)?.as_bytes();
    let media = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    (media.len() > 1 && media.contains(&b'/')).then_some(media)
}

/// Whether the set has this type in it.
pub(super) fn holds(range: &MediaRange, media: &[u8]) -> bool {
    match range {
        MediaRange::Exact(name) => media.eq_ignore_ascii_case(name.as_bytes()),
        MediaRange::Type(start) => begins(media, start.as_bytes()),
        MediaRange::Suffix(end) => {
            let at = media.len().checked_sub(end.len());
            at.is_some_and(|at| media[at..].eq_ignore_ascii_case(end.as_bytes()))
        }
        MediaRange::All => true,
    }
}

/// `application/grpc`, `application/grpc+proto`, `application/grpc-web-text` and what else begins like this.
pub(super) fn is_grpc(media: &[u8]) -> bool {
    begins(media, b"application/grpc")
}

fn begins(media: &[u8], start: &[u8]) -> bool {
    media.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, value.parse().unwrap())])
    }

    #[track_caller]
    fn check(range: &MediaRange, value: &str, expected: bool) {
        let fields = fields(value);
        assert_eq!(of(&fields).is_some_and(|media| holds(range, media)), expected, "{range:?} {value:?}");
    }

    #[test]
    fn one_type_is_held_in_any_case_and_with_any_parameters() {
        let json = MediaRange::Exact("application/json".into());
        let yes = ["application/json", "Application/JSON", "application/json;charset=utf-8", "application/json ; a=b"];
        let no = ["application/jsonp", "application/problem+json", "text/json", "application/json, text/html", "json"];
        yes.iter().for_each(|value| check(&json, value, true));
        no.iter().for_each(|value| check(&json, value, false));
    }

    #[test]
    fn all_of_a_type_are_held() {
        let text = MediaRange::Type("text/".into());
        ["text/html", "TEXT/CSS; charset=x", "text/event-stream"].iter().for_each(|value| check(&text, value, true));
        ["text", "texts/html", "application/text", "image/png", "tex"]
            .iter()
            .for_each(|value| check(&text, value, false));
    }

    #[test]
    fn all_with_a_suffix_are_held() {
        let json = MediaRange::Suffix("+json".into());
        let yes = ["application/problem+json", "application/ld+JSON; profile=x", "model/gltf+json"];
        let no = ["application/json", "application/x+json+zip", "+json", "application/problem; x=+json", ""];
        yes.iter().for_each(|value| check(&json, value, true));
        no.iter().for_each(|value| check(&json, value, false));
    }

    #[test]
    fn everything_is_everything_that_has_a_type() {
        ["image/png", "x/y"].iter().for_each(|value| check(&MediaRange::All, value, true));
        ["", "/", ";charset=utf-8", "html"].iter().for_each(|value| check(&MediaRange::All, value, false));
    }

    #[test]
    fn grpc_is_known_in_all_its_forms() {
        let yes = ["application/grpc", "application/grpc+proto", "application/gRPC-web-text; x=y"];
        assert!(yes.iter().all(|value| of(&fields(value)).is_some_and(is_grpc)));
        assert!(!of(&fields("application/gzip")).is_some_and(is_grpc));
    }
}
