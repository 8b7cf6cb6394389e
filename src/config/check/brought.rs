//! Does the program bring what is named, and does it like its settings?

use super::Check;
use crate::config::Balance;
use crate::config::file::{self, Brought, Marked};
use crate::config::problem::{Spot, suggest};
use crate::custom::{Custom, Filter, NotMade};

impl Check<'_> {
    /// The filters of every route, and then those that this one names.
    pub(super) fn brought_filters(&mut self, route: &file::Route) -> Vec<Custom<dyn Filter>> {
        let mut filters = self.around.additions.everywhere();
        let named = route.filters.iter().filter_map(|brought| self.brought_filter(brought));
        filters.extend(named.collect::<Vec<_>>());
        filters
    }

    fn brought_filter(&mut self, brought: &Marked<Brought>) -> Option<Custom<dyn Filter>> {
        match self.around.additions.filter(&brought.name, brought.settings.clone()) {
            Ok(filter) => Some(filter),
            Err(NotMade::Refused(why)) => self.refused(brought, &brought.at, &why),
            Err(NotMade::Unknown(known)) => {
                let what = format!("there is no filter `{}`", brought.name);
                let help = match &known[..] {
                    [] => "programs that are built on Portcullis bring filters; this one brings none".to_owned(),
                    known => suggest(&brought.name, "filters", known.iter().map(String::as_str)),
                };
                self.problems.error(&brought.at, what, help);
                None
            }
        }
    }

    pub(super) fn brought_policy(&mut self, brought: &Brought, at: &Spot) -> Balance {
        match self.around.additions.policy(&brought.name, brought.settings.clone()) {
            Ok(policy) => return Balance::Custom(policy),
            Err(NotMade::Refused(why)) => self.refused::<()>(brought, at, &why),
            Err(NotMade::Unknown(known)) => {
                let words = file::Balance::WORDS.iter().copied().chain(known.iter().map(String::as_str));
                let help = suggest(&brought.name, "ways", words);
                let what = format!("this must be a way to choose a backend, not `{}`", brought.name);
                self.problems.error(at, what, help);
                None
            }
        };
        Balance::RoundRobin
    }

    fn refused<T>(&mut self, brought: &Brought, at: &Spot, why: &str) -> Option<T> {
        let help = format!("the program that brings `{}` knows its settings", brought.name);
        self.problems.error(at, format!("`{}` cannot be made: {why}", brought.name), help);
        None
    }
}
