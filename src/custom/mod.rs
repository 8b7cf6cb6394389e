//! What does a program bring? Filters and ways to balance that are not ours, by the names that the file calls them.
//!
//! This is what others build on, so it stands apart from our own traits: it names no type of the proxy engine, and
//! changes by the rules of semantic versioning. `filter` and `balance` know how to use what is registered here.

mod filter;
mod policy;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value as Json;

pub(crate) use self::filter::OF_THE_CONNECTION;
pub use self::filter::{Filter, Reply, Request, Response, Verdict};
pub use self::policy::{Candidate, Policy};

/// Makes a filter from what the file says about it; the error is shown to the operator, at the place in the file.
#[doc(hidden)]
pub type MakeFilter = dyn Fn(&Settings) -> Result<Arc<dyn Filter>, String> + Send + Sync;
/// Makes a way to balance; the error is shown to the operator, at the place in the file.
#[doc(hidden)]
pub type MakePolicy = dyn Fn(&Settings) -> Result<Arc<dyn Policy>, String> + Send + Sync;

/// What a program brings, by name.
#[doc(hidden)]
#[derive(Clone, Default)]
pub struct Additions {
    filters: BTreeMap<String, Arc<MakeFilter>>,
    policies: BTreeMap<String, Arc<MakePolicy>>,
    everywhere: Vec<Arc<dyn Filter>>,
}

/// What the file says below `settings`: a mapping as JSON, empty where there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings(Json);

/// Something that a program has brought, made for one place in the file.
#[doc(hidden)]
pub struct Custom<T: ?Sized> {
    /// What the file calls it.
    pub name: Arc<str>,
    /// What it was made from.
    pub settings: Settings,
    /// The thing itself.
    pub made: Arc<T>,
}

/// Why a name of the file cannot be used.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotMade {
    /// No program has registered it; these are there.
    Unknown(Vec<String>),
    /// It does not like its settings.
    Refused(String),
}

impl Additions {
    /// Registers a filter, which routes may then name in `filters`. A second one of a name replaces the first.
    pub fn add_filter(&mut self, name: &str, make: Arc<MakeFilter>) {
        self.filters.insert(name.to_owned(), make);
    }

    /// Registers a way to balance, which upstreams may then name in `balance`.
    pub fn add_policy(&mut self, name: &str, make: Arc<MakePolicy>) {
        self.policies.insert(name.to_owned(), make);
    }

    /// Registers a filter that every route has, before those that it names.
    pub fn add_everywhere(&mut self, filter: Arc<dyn Filter>) {
        self.everywhere.push(filter);
    }

    /// The filters that every route has.
    pub fn everywhere(&self) -> Vec<Custom<dyn Filter>> {
        let custom =
            |filter: &Arc<dyn Filter>| Custom { name: "".into(), settings: Settings::none(), made: filter.clone() };
        self.everywhere.iter().map(custom).collect()
    }

    /// The filter of a name, for these settings.
    pub fn filter(&self, name: &str, settings: Settings) -> Result<Custom<dyn Filter>, NotMade> {
        make(&self.filters, name, settings, |make, settings| make(settings))
    }

    /// The way to balance of a name, for these settings.
    pub fn policy(&self, name: &str, settings: Settings) -> Result<Custom<dyn Policy>, NotMade> {
        make(&self.policies, name, settings, |make, settings| make(settings))
    }
}

fn make<M, T: ?Sized>(
    known: &BTreeMap<String, M>,
    name: &str,
    settings: Settings,
    call: impl Fn(&M, &Settings) -> Result<Arc<T>, String>,
) -> Result<Custom<T>, NotMade> {
    let make = known.get(name).ok_or_else(|| NotMade::Unknown(known.keys().cloned().collect()))?;
    let made = call(make, &settings).map_err(NotMade::Refused)?;
    Ok(Custom { name: name.into(), settings, made })
}

impl fmt::Debug for Additions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (filters, policies) = (self.filters.keys(), self.policies.keys());
        f.debug_struct("Additions")
            .field("filters", &filters.collect::<Vec<_>>())
            .field("policies", &policies.collect::<Vec<_>>())
            .field("everywhere", &self.everywhere.len())
            .finish()
    }
}

impl Settings {
    /// No settings at all.
    #[doc(hidden)]
    pub fn none() -> Self {
        Self(Json::Object(serde_json::Map::new()))
    }

    /// What stands in the file.
    #[doc(hidden)]
    pub fn new(settings: Json) -> Self {
        Self(settings)
    }

    /// Reads them into a type of the program's own.
    ///
    /// # Errors
    /// In words for the operator: what is missing, unknown or of the wrong kind, as serde says it.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, String> {
        T::deserialize(&self.0).map_err(|error| error.to_string())
    }
}

impl<T: ?Sized> Clone for Custom<T> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), settings: self.settings.clone(), made: self.made.clone() }
    }
}

/// Two are the same where the file says the same: what is made from it is expected to follow from it.
impl<T: ?Sized> PartialEq for Custom<T> {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.settings) == (&other.name, &other.settings)
    }
}

impl<T: ?Sized> fmt::Debug for Custom<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Custom").field(&self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    struct Nothing;

    impl Filter for Nothing {}

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Share {
        percent: u8,
    }

    fn additions() -> Additions {
        let mut additions = Additions::default();
        let make = |settings: &Settings| -> Result<Arc<dyn Filter>, String> {
            let share: Share = settings.read()?;
            if share.percent > 100 { Err("percent is at most 100".to_owned()) } else { Ok(Arc::new(Nothing)) }
        };
        additions.add_filter("share", Arc::new(make));
        additions
    }

    #[test]
    fn a_filter_is_made_from_its_settings_or_says_what_is_wrong_with_them() {
        let made = |settings: Json| additions().filter("share", Settings::new(settings)).map(|custom| custom.name);
        assert_eq!(made(json!({ "percent": 5 })), Ok("share".into()));
        assert_eq!(made(json!({ "percent": 101 })), Err(NotMade::Refused("percent is at most 100".to_owned())));
        for wrong in [json!({}), json!({ "percent": "five" }), json!({ "percent": 5, "precent": 6 })] {
            assert!(matches!(made(wrong.clone()), Err(NotMade::Refused(_))), "{wrong}");
        }
    }

    #[test]
    fn a_name_that_nobody_has_registered_is_told_with_those_that_are() {
        let unknown = additions().filter("shar", Settings::none());
        assert_eq!(unknown, Err(NotMade::Unknown(vec!["share".to_owned()])));
    }
}
