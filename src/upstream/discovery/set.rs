//! Who is it in the end? One answer put in order, and joined with the backends that the file names. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::config::{self, Backend, Target};

/// An answer in order: everybody once, so that another order of the same is the same.
pub fn tidy(found: Vec<Backend>) -> Vec<Backend> {
    let mut seen = HashSet::new();
    let mut set: Vec<_> = found.into_iter().filter(|one| seen.insert((one.target.clone(), one.tls))).collect();
    // Names may be the same, places are not.
    set.sort_by_cached_key(|one| (one.tier, one.name.clone(), one.target.show(), one.tls));
    set
}

/// An upstream with those who were discovered, and the places of those for whom no name is left. Whoever the file names
/// is not named again, and no name stands twice: who would share one is called by its place, all of them, so that nobody
/// gets the name of another when their order changes.
pub fn together(upstream: &config::Upstream, discovered: &[Backend]) -> (config::Upstream, Vec<Arc<str>>) {
    let mut whole = upstream.clone();
    let targets: HashSet<(Target, bool)> = whole.backends.iter().map(|it| (it.target.clone(), it.tls)).collect();
    let new = discovered.iter().filter(|it| !targets.contains(&(it.target.clone(), it.tls)));
    let new: Vec<_> = new.map(|backend| (backend, backend.target.show())).collect();
    let mut wanted: HashMap<Arc<str>, usize> = HashMap::new();
    for (backend, place) in &new {
        // A place may be needed as a name, so only who is there may be called by it.
        let names = BTreeSet::from([&backend.name, place]);
        names.into_iter().for_each(|name| *wanted.entry(name.clone()).or_default() += 1);
    }
    let mut names: HashSet<Arc<str>> = whole.backends.iter().map(|it| it.name.clone()).collect();
    let of_file = names.clone();
    let mut nameless = Vec::new();
    for (backend, place) in new {
        let is_shared = of_file.contains(&backend.name) || wanted.get(&backend.name).is_some_and(|count| *count > 1);
        let name = if is_shared { place.clone() } else { backend.name.clone() };
        match names.insert(name.clone()) {
            true => whole.backends.push(Backend { name, ..backend.clone() }),
            false => nameless.push(place),
        }
    }
    (whole, nameless)
}

/// Priorities of SRV records as tiers, and their weights as ours (RFC 2782): the lowest priority is tier 0, whatever it
/// is, and no weight is so small that it never serves.
pub fn ranked(records: &[(u16, u16)]) -> Vec<(u32, u32)> {
    const TIERS: u32 = 9;
    const HEAVIEST: u32 = 1000;
    let tiers: BTreeMap<u16, u32> = {
        let priorities: BTreeSet<u16> = records.iter().map(|(priority, _)| *priority).collect();
        priorities.into_iter().zip((0..=TIERS).chain(std::iter::repeat(TIERS))).collect()
    };
    let heaviest = records.iter().map(|(_, weight)| u32::from(*weight)).max().unwrap_or(0).max(HEAVIEST);
    let rank = |&(priority, weight): &(u16, u16)| {
        let weight = u32::from(weight) * HEAVIEST / heaviest;
        (tiers.get(&priority).copied().unwrap_or(TIERS), weight.max(1))
    };
    records.iter().map(rank).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::members::{Rules, members};
    use crate::config::{Surroundings, parse};

    fn list(text: &str) -> Vec<Backend> {
        members(text, Rules { https_by_address: true, folder: None }).unwrap().backends
    }

    fn upstream(backends: &str) -> config::Upstream {
        let text = format!(
            "listeners: [{{ address: 127.0.0.1:0 }}]\nroutes: [{{ upstream: app }}]\n\
             upstreams: {{ app: {{ backends: {backends}, discover: {{ file: list.yaml }} }} }}\n"
        );
        parse(&text, "f", &Surroundings::of_process("".into())).unwrap().config.upstreams.remove(0)
    }

    #[track_caller]
    fn check(backends: &str, discovered: &str, expected: &[&str]) {
        let (whole, _) = together(&upstream(backends), &tidy(list(discovered)));
        assert_eq!(whole.backends.iter().map(|it| &*it.name).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn those_of_the_file_and_those_that_were_discovered_add_up() {
        check("[10.0.0.1:80]", "[10.0.0.3:80, 10.0.0.2:80]", &["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
        check("[]", "[10.0.0.2:80]", &["10.0.0.2:80"]);
        check("[10.0.0.1:80]", "[]", &["10.0.0.1:80"]);
    }

    #[test]
    fn nobody_is_named_twice() {
        check("[10.0.0.1:80]", "[10.0.0.1:80, 10.0.0.2:80, http://10.0.0.2]", &["10.0.0.1:80", "10.0.0.2:80"]);
        let twice = "[{ url: 10.0.0.2:80, name: a }, { url: 10.0.0.3:80, name: a }]";
        check("[{ url: 10.0.0.1:80, name: a }]", twice, &["a", "10.0.0.2:80", "10.0.0.3:80"]);
        check("[]", twice, &["10.0.0.2:80", "10.0.0.3:80"]);
        let of_another = "[{ url: 10.0.0.2:80, name: a }, { url: 10.0.0.3:80, name: \"10.0.0.2:80\" }]";
        check("[]", of_another, &["10.0.0.3:80", "a"]);
        check("[{ url: 10.0.0.1:80, name: \"10.0.0.2:80\" }]", "[10.0.0.2:80]", &["10.0.0.2:80"]);
    }

    #[test]
    fn who_gets_no_name_is_told() {
        let known = upstream("[{ url: 10.0.0.1:80, name: \"10.0.0.2:80\" }]");
        let (whole, nameless) = together(&known, &tidy(list("[10.0.0.2:80, 10.0.0.3:80]")));
        assert_eq!((whole.backends.len(), nameless), (2, vec!["10.0.0.2:80".into()]));
    }

    #[test]
    fn names_that_are_shared_do_not_depend_on_the_order() {
        let entries = ["{ url: 10.0.0.2:80, name: a }", "{ url: 10.0.0.3:80, name: a }"];
        let joined = |[a, b]: [&str; 2]| together(&upstream("[]"), &tidy(list(&format!("[{a}, {b}]")))).0;
        assert_eq!(joined(entries), joined([entries[1], entries[0]]));
    }

    #[test]
    fn another_order_is_the_same_set() {
        let [a, b] = ["[10.0.0.1:80, 10.0.0.2:80]", "[10.0.0.2:80, 10.0.0.1:80, 10.0.0.2:80]"].map(list);
        assert_eq!(tidy(a), tidy(b));
    }

    #[test]
    fn priorities_become_tiers_and_weights_stay_in_proportion() {
        assert_eq!(ranked(&[(10, 60), (10, 20), (20, 0)]), [(0, 60), (0, 20), (1, 1)]);
        assert_eq!(ranked(&[(5, 0), (5, 0)]), [(0, 1), (0, 1)]);
        assert_eq!(ranked(&[(0, 50_000), (0, 25_000), (0, 1)]), [(0, 1000), (0, 500), (0, 1)]);
        let many: Vec<_> = (0..20).map(|priority| (priority, 1)).collect();
        assert_eq!(ranked(&many)[19].0, 9);
    }
}
