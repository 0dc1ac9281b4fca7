//! Reading a table so that no key of it is ignored.
//!
//! serde ignores the keys that no field has, and in flattened and tagged tables it cannot be told not to. A key
//! that is read, under its own name or another one that serde knows, does not take every value. So each is
//! given two values that nothing takes both of, text and a number, and one that takes both without a
//! difference is read by nothing. The table is read anew for each of them, so their number has a limit.

use anyhow::{Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Most keys of a table and of those in it: ten times as many as any configuration has.
const MOST_KEYS: usize = 1000;

/// Deserializes a table.
///
/// # Errors
///
/// If a key is missing, of another type, or read by nothing, in arrays of tables, too, or there are more than 1000.
pub fn parse_table<T: Serialize + DeserializeOwned>(table: &Value) -> Result<T> {
    let parsed: T = serde_json::from_value(table.clone()).map_err(|e| {
        anyhow::anyhow!("{}", e.to_string().replace("missing field", "there is no key"))
    })?;
    let read = serde_json::to_value(&parsed)?;
    let mut keys = Vec::new();
    list(table, &mut Vec::new(), &mut keys);
    if keys.len() > MOST_KEYS {
        bail!("there are more than {MOST_KEYS} keys");
    }
    let mut changing = table.clone();
    for key in keys {
        if !is_read::<T>(&mut changing, &read, &key) {
            let name = key.iter().map(Step::to_string).collect::<String>();
            let hint = near(&read, &key).map_or(String::new(), |n| format!("; did you mean {n}?"));
            bail!("unknown key {}{hint}", name.trim_start_matches('.'));
        }
    }
    Ok(parsed)
}

/// A step into a table or an array.
#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Key(&'a str),
    Item(usize),
}

impl std::fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(key) => write!(f, ".{key}"),
            Self::Item(index) => write!(f, "[{index}]"),
        }
    }
}

/// The paths of all keys of a table and of those below it, outer ones first; of too many one too many.
fn list<'a>(value: &'a Value, path: &mut Vec<Step<'a>>, keys: &mut Vec<Vec<Step<'a>>>) {
    let mut below = Vec::new();
    match value {
        Value::Object(table) => {
            for (key, value) in table {
                below.push((Step::Key(key), value));
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                below.push((Step::Item(index), value));
            }
        }
        _ => {}
    }
    for (step, value) in below {
        if keys.len() > MOST_KEYS {
            return;
        }
        let is_key = matches!(step, Step::Key(_));
        path.push(step);
        if is_key {
            keys.push(path.clone());
        }
        list(value, path, keys);
        path.pop();
    }
}

/// Whether a key is read. The table is changed there, and changed back.
fn is_read<T: Serialize + DeserializeOwned>(
    table: &mut Value,
    read: &Value,
    key: &[Step<'_>],
) -> bool {
    [json!("\u{0}"), json!(-0.5)].into_iter().any(|nonsense| {
        let Some(value) = at(table, key) else { return true };
        let given = std::mem::replace(value, nonsense);
        let parsed = T::deserialize(&*table);
        if let Some(value) = at(table, key) {
            *value = given;
        }
        let Ok(parsed) = parsed else { return true };
        serde_json::to_value(&parsed).is_ok_and(|value| value != *read)
    })
}

fn at<'a>(table: &'a mut Value, path: &[Step<'_>]) -> Option<&'a mut Value> {
    path.iter().try_fold(table, |value, step| match step {
        Step::Key(key) => value.get_mut(key),
        Step::Item(index) => value.get_mut(index),
    })
}

/// The key of the same table that looks like an unknown one.
fn near(read: &Value, key: &[Step<'_>]) -> Option<String> {
    let (Step::Key(wanted), above) = key.split_last()? else { return None };
    let table = above.iter().try_fold(read, |value, step| match step {
        Step::Key(key) => value.get(key),
        Step::Item(index) => value.get(index),
    });
    let likeness = |key: &String| strsim::jaro_winkler(key, wanted);
    let keys = table?.as_object()?.keys();
    let nearest = keys.max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(nearest) > 0.6).then(|| nearest.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Serialize, Deserialize)]
    struct Outer {
        #[serde(flatten)]
        inner: Inner,
        #[serde(default)]
        list: Vec<Kind>,
        #[serde(default)]
        path: Option<std::path::PathBuf>,
        #[serde(default, skip_serializing_if = "is_zero")]
        hidden: f64,
    }

    #[derive(Debug, Serialize, Deserialize)]
    struct Inner {
        #[serde(alias = "width")]
        hidden_size: usize,
    }

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(tag = "type", rename_all = "lowercase")]
    enum Kind {
        Global,
        Local {
            #[serde(default)]
            kernel_size: usize,
        },
    }

    fn is_zero(value: &f64) -> bool {
        *value == 0.0
    }

    #[test]
    fn keys_are_known_by_every_name_and_at_every_depth() {
        let parse = |text: &str| {
            let table: Value = serde_json::from_str(text).expect("JSON");
            parse_table::<Outer>(&table).map_err(|e| e.to_string())
        };
        for text in [
            r#"{"hidden_size": 3, "path": "x", "hidden": 0.0}"#,
            r#"{"width": 3, "list": [{"type": "local", "kernel_size": 7}, {"type": "global"}]}"#,
        ] {
            parse(text).expect(text);
        }
        let refused = |text: &str| parse(text).expect_err(text);
        let error = refused(r#"{"width": 3, "list": [{"type": "local", "kernel_sise": 7}]}"#);
        assert_eq!(error, "unknown key list[0].kernel_sise; did you mean kernel_size?");
        let error = refused(r#"{"width": 3, "list": [{"type": "global", "kernel_size": 7}]}"#);
        assert_eq!(error, "unknown key list[0].kernel_size");
        assert!(refused(r#"{"width": 3, "pfad": "x"}"#).starts_with("unknown key pfad"));
        assert!(refused(r#"{"list": []}"#).contains("there is no key"));
    }

    #[test]
    fn a_table_has_at_most_a_thousand_keys() {
        let of_levels = |levels: usize| {
            let level = json!({"type": "local", "kernel_size": 7});
            let table = json!({"width": 3, "list": vec![level; levels]});
            parse_table::<Outer>(&table).map_err(|e| e.to_string())
        };
        assert_eq!(of_levels(20).expect("42 keys").list.len(), 20);
        assert_eq!(of_levels(500).expect_err("1002 keys"), "there are more than 1000 keys");
    }
}
