//! Do the pages for errors make sense, and are they there?

use super::Check;
use crate::config::errors::read_page;
use crate::config::file::{self, ErrorEntry, FilePath, Marked, Named};
use crate::config::{ErrorPage, ErrorPages, PageKind, Statuses};

/// The one key of `errors` that is no status.
const OF_BACKENDS: &str = "of_backends";

impl Check<'_> {
    pub(super) fn errors(&mut self, route: &file::Route) -> Option<ErrorPages> {
        let entries = &route.errors.as_ref()?.0;
        let (mut pages, mut of_backends) = (Vec::new(), false);
        for entry in entries {
            match &entry.value {
                Some(ErrorEntry::Switch(switch)) if entry.name == OF_BACKENDS => of_backends = *switch,
                Some(ErrorEntry::Pages(files)) if entry.name != OF_BACKENDS => {
                    let statuses = self.statuses(entry);
                    let files = files.iter().filter_map(|file| self.page(file)).collect();
                    pages.extend(statuses.map(|statuses| (statuses, files)));
                }
                Some(ErrorEntry::Switch(_)) => {
                    self.problems.error(&entry.at, "this must be a page", "write the path of a file");
                }
                Some(ErrorEntry::Pages(_)) => {
                    let help = "`true` puts the pages in the place of what backends say with such a status";
                    self.problems.error(&entry.at, "this must be `true` or `false`", help);
                }
                None => {}
            }
        }
        if !entries.iter().any(|entry| entry.name != OF_BACKENDS) {
            let help = "name one, as in { 404: errors/404.html, 5xx: [errors/5xx.html, errors/5xx.json] }";
            self.problems.error(&route.errors.at, "there is no page", help);
        }
        // The exact ones first, whatever the order of the file.
        pages.sort_by_key(|(statuses, _)| *statuses);
        Some(ErrorPages { pages, of_backends })
    }

    fn statuses(&mut self, entry: &Named<ErrorEntry>) -> Option<Statuses> {
        let exact = || entry.name.parse().ok().filter(|status| (400..=599).contains(status) && entry.name.len() == 3);
        let statuses = match entry.name.as_str() {
            "4xx" => Some(Statuses::Class(4)),
            "5xx" => Some(Statuses::Class(5)),
            _ => exact().map(Statuses::Exact),
        };
        if statuses.is_none() {
            let what = format!("`{}` is not the status of an error", entry.name);
            self.problems.error(&entry.at, what, "write one from 400 to 599, `4xx`, `5xx` or `of_backends`");
        }
        statuses
    }

    fn page(&mut self, file: &Marked<FilePath>) -> Option<ErrorPage> {
        let help = "a page is UTF-8 and has 1 byte to 256 KiB";
        let path = self.followed(file, |bytes| read_page(bytes).map(drop), help);
        let kind = PageKind::of(&file.0);
        if kind.is_none() {
            let what = format!("`{}` does not tell what it is", file.0);
            self.problems.error(&file.at, what, "a page ends in .html, .htm, .json or .txt");
        }
        Some(ErrorPage { path, kind: kind? })
    }
}
