//! What is different a second later? Only that is sent to those who watch.
//!
//! The difference of two objects is an object of the fields that differ. Lists of objects that have a `name` are compared
//! item by item, and a difference holds those that differ, with their names; any other value is there whole or not at all.
//! Where items have come, gone or moved there is no difference: then everything is sent anew.

use serde_json::{Map, Value as Json};

/// What a reader keeps himself, or asks for when he wants it.
const LEFT_OUT: [&str; 3] = ["history", "requests", "errors"];

/// What differs, as an object that may be empty; `None` if the two do not have the same items.
pub fn difference(old: &Json, new: &Json) -> Option<Json> {
    let (Json::Object(old), Json::Object(new)) = (old, new) else { return None };
    let mut changed = Map::new();
    for (key, value) in new {
        let before = old.get(key)?;
        if before == value || is_left_out(key, new) {
            continue;
        }
        let value = match (named(before), named(value)) {
            (Some(before), Some(items)) => match items_that_differ(before, items)? {
                none if none.is_empty() => continue,
                some => Json::Array(some),
            },
            (None, None) => value.clone(),
            (Some(_), None) | (None, Some(_)) => return None,
        };
        changed.insert(key.clone(), value);
    }
    Some(Json::Object(changed))
}

/// When it was last well is told of those who are not: the others are now.
fn is_left_out(key: &str, of: &Map<String, Json>) -> bool {
    let is_well = || of.get("state").is_some_and(|state| state == "HEALTHY");
    (LEFT_OUT.contains(&key) && of.contains_key("name")) || (key == "last_healthy" && is_well())
}

/// The items of a list if they have names.
fn named(value: &Json) -> Option<&[Json]> {
    let items = value.as_array()?;
    let first = items.first()?;
    first.get("name").filter(|_| first.get("backends").is_some() || first.get("state").is_some())?;
    Some(items)
}

fn items_that_differ(old: &[Json], new: &[Json]) -> Option<Vec<Json>> {
    if old.len() != new.len() {
        return None;
    }
    let mut differ = Vec::new();
    for (before, item) in old.iter().zip(new) {
        if before["name"] != item["name"] {
            return None;
        }
        let Json::Object(mut changed) = difference(before, item)? else { return None };
        if !changed.is_empty() {
            changed.insert("name".to_owned(), item["name"].clone());
            differ.push(Json::Object(changed));
        }
    }
    Some(differ)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status(weights: [u32; 2], now: u32) -> Json {
        let backend = |(name, weight): (&str, u32)| json!({ "name": name, "state": "HEALTHY", "weight": weight, "requests": now, "last_healthy": now, "history": [now] });
        let backends: Vec<_> = ["a", "b"].into_iter().zip(weights).map(backend).collect();
        json!({ "now": now, "limits": [1, 2], "upstreams": [{ "name": "app", "in_flight": 1, "backends": backends }] })
    }

    #[test]
    fn only_what_differs_is_told() {
        let told = difference(&status([1, 1], 1), &status([1, 5], 2)).unwrap();
        let expected =
            json!({ "now": 2, "upstreams": [{ "name": "app", "backends": [{ "name": "b", "weight": 5 }] }] });
        assert_eq!(told, expected);
        assert_eq!(difference(&status([1, 1], 1), &status([1, 1], 1)), Some(json!({})));
    }

    #[test]
    fn when_it_was_last_well_is_told_of_those_who_are_not() {
        let ill = json!({ "name": "a", "state": "EJECTED", "last_healthy": 2 });
        let told = difference(&json!({ "name": "a", "state": "HEALTHY", "last_healthy": 1 }), &ill);
        assert_eq!(told, Some(json!({ "state": "EJECTED", "last_healthy": 2 })));
    }

    #[test]
    fn who_comes_goes_or_moves_is_no_difference_but_another_state() {
        let (old, mut new) = (status([1, 1], 1), status([1, 1], 1));
        new["upstreams"][0]["backends"].as_array_mut().unwrap().swap(0, 1);
        assert_eq!(difference(&old, &new), None);
        new["upstreams"][0]["backends"].as_array_mut().unwrap().pop();
        assert_eq!(difference(&old, &new), None);
    }
}
