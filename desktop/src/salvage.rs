//! JSON read part by part: what cannot be read is left out and named, the rest stays, and what this version does not
//! know is carried along.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// What was read of an object.
#[derive(Debug)]
pub struct Salvaged<T> {
    /// What could be read, and defaults for the rest.
    pub read: T,
    /// Where something could not be read, as in `form.count`.
    pub lost: Vec<String>,
    /// What `T` does not know, where it was in the object.
    pub unknown: Map<String, Value>,
}

/// Reads an object. A part that cannot be read falls to its default; of an object whose parts all have defaults
/// only those parts do.
pub fn salvage<T: Default + Serialize + DeserializeOwned>(
    given: Map<String, Value>,
) -> Salvaged<T> {
    let (mut whole, mut lost) = (Value::Null, Vec::new());
    take::<T>(&mut whole, &mut lost, &[], &Value::Object(given));
    lost.sort();
    let read: T = serde_json::from_value(whole.clone()).unwrap_or_default();
    let known = serde_json::to_value(&read).unwrap_or_default();
    let unknown = match beyond(&whole, &known) {
        Some(Value::Object(unknown)) => unknown,
        _ => Map::new(),
    };
    Salvaged { read, lost, unknown }
}

/// Puts what was unknown back where it was. What has become known, or has no place any more, is left out.
pub fn put_back(unknown: &Map<String, Value>, object: &mut Map<String, Value>) {
    for (name, value) in unknown {
        match object.get_mut(name) {
            None => {
                object.insert(name.clone(), value.clone());
            }
            Some(known) => {
                if let (Value::Object(known), Value::Object(unknown)) = (known, value) {
                    put_back(unknown, known);
                }
            }
        }
    }
}

/// Drops what was unknown at a place, as in `["choice", "paths"]`: what it belonged to is there no more.
pub fn forget(unknown: &mut Map<String, Value>, place: &[&str]) {
    match place {
        [] => {}
        [name] => {
            unknown.remove(*name);
        }
        [name, rest @ ..] => {
            if let Some(Value::Object(inner)) = unknown.get_mut(*name) {
                forget(inner, rest);
            }
        }
    }
}

/// Puts into `whole`, at a place, as much of a value as leaves a `T` that can be read.
fn take<T: DeserializeOwned>(
    whole: &mut Value,
    lost: &mut Vec<String>,
    place: &[&str],
    given: &Value,
) {
    *at(whole, place) = given.clone();
    if is_readable::<T>(whole) {
        return;
    }
    if let Value::Object(parts) = given {
        *at(whole, place) = Value::Object(Map::new());
        if is_readable::<T>(whole) {
            for (name, part) in parts {
                let place = [place, &[name.as_str()][..]].concat();
                take::<T>(whole, lost, &place, part);
            }
            return;
        }
    }
    if let Some((name, parent)) = place.split_last()
        && let Some(parent) = at(whole, parent).as_object_mut()
    {
        parent.remove(*name);
    }
    lost.push(place.join("."));
}

fn is_readable<T: DeserializeOwned>(whole: &Value) -> bool {
    serde_json::from_value::<T>(whole.clone()).is_ok()
}

/// The value at a place, all of whose parents are objects.
fn at<'a>(whole: &'a mut Value, place: &[&str]) -> &'a mut Value {
    place.iter().fold(whole, |value, name| &mut value[*name])
}

/// What of a value is not in another.
fn beyond(given: &Value, known: &Value) -> Option<Value> {
    let (Value::Object(given), Value::Object(known)) = (given, known) else { return None };
    let mut rest = Map::new();
    for (name, value) in given {
        let more = match known.get(name) {
            Some(known) => beyond(value, known),
            None => Some(value.clone()),
        };
        if let Some(more) = more {
            rest.insert(name.clone(), more);
        }
    }
    (!rest.is_empty()).then_some(Value::Object(rest))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Inner {
        number: u8,
        text: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        extra: Option<u8>,
    }

    /// Its parts belong together.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Pair {
        left: u8,
        right: u8,
    }

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Outer {
        inner: Inner,
        pair: Option<Pair>,
        named: BTreeMap<String, Inner>,
    }

    fn salvaged(given: &Value) -> Salvaged<Outer> {
        salvage(given.as_object().expect("an object").clone())
    }

    #[test]
    fn what_cannot_be_read_falls_to_its_default_and_the_rest_stays() {
        let Salvaged { read, lost, unknown } = salvaged(&json!({
            "inner": {"number": "seven", "text": "kept"},
            "pair": {"left": 1, "right": null},
            "named": {"a": {"number": 1, "text": 2}, "b": 5, "c": {"number": 3}},
        }));
        assert_eq!(lost, ["inner.number", "named.a.text", "named.b", "pair"]);
        assert_eq!(read.inner, Inner { text: "kept".into(), ..Inner::default() });
        assert_eq!(read.pair, None);
        let numbers: Vec<_> = read.named.iter().map(|(name, of)| (&name[..], of.number)).collect();
        assert_eq!(numbers, [("a", 1), ("c", 3)]);
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    #[test]
    fn what_is_not_known_is_put_back_where_it_was() {
        let given = json!({
            "inner": {"number": 7, "later": [1]},
            "pair": {"left": 1, "right": 2, "middle": 3},
            "named": {"a": {"later": true}},
            "new": {"part": null},
        });
        let Salvaged { mut read, lost, unknown } = salvaged(&given);
        assert!(lost.is_empty(), "{lost:?}");
        let written = |read: &Outer| {
            let mut value = serde_json::to_value(read).expect("JSON");
            put_back(&unknown, value.as_object_mut().expect("an object"));
            value
        };
        let expected = json!({
            "inner": {"number": 7, "text": "", "later": [1]},
            "pair": {"left": 1, "right": 2, "middle": 3},
            "named": {"a": {"number": 0, "text": "", "later": true}},
            "new": {"part": null},
        });
        assert_eq!(written(&read), expected);
        // What is known now is as it is now, and the unknown part of a pair goes with it.
        read.inner.number = 8;
        read.pair = None;
        assert_eq!(written(&read)["inner"], json!({"number": 8, "text": "", "later": [1]}));
        assert_eq!(written(&read)["pair"], Value::Null);
    }

    /// Only defaults are left out where they are written.
    #[test]
    fn what_is_cleared_does_not_come_back() {
        let Salvaged { mut read, unknown, .. } = salvaged(&json!({"inner": {"extra": 7}}));
        read.inner.extra = None;
        let mut value = serde_json::to_value(&read).expect("JSON");
        put_back(&unknown, value.as_object_mut().expect("an object"));
        assert_eq!(value["inner"].get("extra"), None);
    }

    #[test]
    fn what_is_forgotten_does_not_come_back_and_the_rest_does() {
        let given = json!({"inner": {"later": 1, "more": {"a": 2, "b": 3}}, "new": 4});
        let Salvaged { mut unknown, .. } = salvaged(&given);
        let (a, later) = (["inner", "more", "a"], ["inner", "later"]);
        // Of what is not there nothing is lost.
        let places: [&[&str]; 5] = [&a, &later, &["inner", "none"], &["new", "part"], &[]];
        for place in places {
            forget(&mut unknown, place);
        }
        assert_eq!(Value::Object(unknown), json!({"inner": {"more": {"b": 3}}, "new": 4}));
    }
}
