//! Reading a table so that no key of it is ignored.
//!
//! serde ignores the keys that no field has, and in flattened and tagged tables it cannot be told not to. A key
//! that is read, under its own name or another one that serde knows, does not take every value. So each is
//! given two values that nothing takes both of, text and a number, and one that takes both without a
//! difference is read by nothing.

use anyhow::{Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Deserializes a table.
///
/// # Errors
///
/// If a key is missing, of another type, or read by nothing, in arrays of tables, too.
pub fn parse_table<T: Serialize + DeserializeOwned>(table: &Value) -> Result<T> {
    let parsed: T = serde_json::from_value(table.clone()).map_err(|e| {
        anyhow::anyhow!("{}", e.to_string().replace("missing field", "there is no key"))
    })?;
    let read = serde_json::to_value(&parsed)?;
    let mut keys = Vec::new();
    list(table, &mut Vec::new(), &mut keys);
    for key in keys {
        if !is_read::<T>(table, &read, &key) {
            let name = key.iter().map(Step::to_string).collect::<String>();
            let hint = near(&read, &key).map_or(String::new(), |n| format!("; did you mean {n}?"));
            bail!("unknown key {}{hint}", name.trim_start_matches('.'));
        }
    }
    Ok(parsed)
}

/// A step into a table or an array.
#[derive(Clone, Debug)]
enum Step {
    Key(String),
    Item(usize),
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(key) => write!(f, ".{key}"),
            Self::Item(index) => write!(f, "[{index}]"),
        }
    }
}

/// The paths of all keys of a table and of those below it, outer ones first.
fn list(value: &Value, path: &mut Vec<Step>, keys: &mut Vec<Vec<Step>>) {
    let mut below = Vec::new();
    match value {
        Value::Object(table) => {
            for (key, value) in table {
                below.push((Step::Key(key.clone()), value));
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
        let is_key = matches!(step, Step::Key(_));
        path.push(step);
        if is_key {
            keys.push(path.clone());
        }
        list(value, path, keys);
        path.pop();
    }
}

fn is_read<T: Serialize + DeserializeOwned>(table: &Value, read: &Value, key: &[Step]) -> bool {
    [json!("\u{0}"), json!(-0.5)].into_iter().any(|nonsense| {
        let mut changed = table.clone();
        let Some(value) = at(&mut changed, key) else { return true };
        *value = nonsense;
        let Ok(parsed) = serde_json::from_value::<T>(changed) else { return true };
        serde_json::to_value(&parsed).is_ok_and(|value| value != *read)
    })
}

fn at<'a>(table: &'a mut Value, path: &[Step]) -> Option<&'a mut Value> {
    path.iter().try_fold(table, |value, step| match step {
        Step::Key(key) => value.get_mut(key),
        Step::Item(index) => value.get_mut(index),
    })
}

/// The key of the same table that looks like an unknown one.
fn near(read: &Value, key: &[Step]) -> Option<String> {
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
}
