//! What does a browser get? The files of the status page, which are part of the binary.
//!
//! There is no fact in them, so they need no token. Nothing is loaded from elsewhere, nothing stands inline, and nobody
//! may frame the page: the policy below holds browsers to that.

/// A file of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum File {
    Html,
    Css,
    Script,
    Rows,
    Theme,
    Icon,
}

/// What a browser may do with the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

/// The fields of each file, besides its type.
pub(super) const FIELDS: [(&str, &str); 6] = [
    ("Content-Security-Policy", POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
];

impl File {
    /// Its media type.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Html => "text/html; charset=utf-8",
            Self::Css => "text/css; charset=utf-8",
            Self::Script | Self::Rows | Self::Theme => "text/javascript; charset=utf-8",
            Self::Icon => "image/svg+xml",
        }
    }

    /// What is in it.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Html => include_str!("page.html"),
            Self::Css => include_str!("page.css"),
            Self::Script => include_str!("page.js"),
            Self::Rows => include_str!("rows.js"),
            Self::Theme => include_str!("theme.js"),
            Self::Icon => include_str!("icon.svg"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_stands_inline_and_nothing_comes_from_elsewhere() {
        let html = File::Html.text();
        let handler = |word: &str| word.starts_with("on") && word.contains('=');
        assert!(!html.contains("<style") && !html.contains("style="), "an inline style");
        assert!(!html.split_ascii_whitespace().any(handler), "an inline handler");
        assert!(html.matches("<script").count() == html.matches("<script src=\"/").count(), "an inline script");
        for file in [File::Html, File::Css, File::Script, File::Rows, File::Theme, File::Icon] {
            let text = file.text().replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("innerHTML"), "{file:?}");
        }
    }
}
