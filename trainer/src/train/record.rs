//! What a run records of its data and its settings, so that resuming it notices others.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::data::store::ImageStore;

/// The data that a run sees, without its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataRecord {
    /// Number of items.
    pub items: usize,
    /// Of names, labels and sizes, whatever the data set has of them.
    pub fingerprint: String,
    /// Of some of the items' values, where the fingerprint has nothing of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<String>,
}

impl DataRecord {
    /// Of items and what tells them from others.
    pub fn new(items: usize, parts: impl IntoIterator<Item = String>) -> Self {
        let crc = parts.into_iter().fold(0, |crc, part| {
            let crc = crc32c::crc32c_append(crc, &(part.len() as u64).to_le_bytes());
            crc32c::crc32c_append(crc, part.as_bytes())
        });
        Self { items, fingerprint: format!("{crc:08x}"), values: None }
    }

    /// Of an image store.
    pub fn of_store(store: &ImageStore) -> Self {
        let description = &store.description;
        let shards = description.shards.iter().map(|s| format!("{} {:08x}", s.count, s.crc32c));
        let parts = [format!("{:?}", description.classes), store.side().to_string()];
        let labels = labels(store.labels());
        Self::new(store.len(), parts.into_iter().chain(shards).chain([labels]))
    }

    /// Of these items and the images that they were made of, where these are seen, too.
    pub fn with(self, images: Option<&ImageStore>) -> Self {
        let Some(images) = images.map(Self::of_store) else { return self };
        let fingerprint = format!("{}-{}", self.fingerprint, images.fingerprint);
        Self { fingerprint, ..self }
    }
}

/// The labels of items as text.
pub fn labels(labels: &[Option<usize>]) -> String {
    let one = |label: &Option<usize>| label.map_or("-".into(), |label| label.to_string());
    labels.iter().map(one).collect::<Vec<String>>().join(" ")
}

/// What must stay in a run: settings by their names in the configuration, and the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Tables of the configuration.
    pub settings: Value,
    /// The data.
    pub data: DataRecord,
}

impl Record {
    /// What differs in `now`, as `name recorded → now`.
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let mut found = Vec::new();
        compare("", Some(&self.settings), Some(&now.settings), New::Ignored, &mut found);
        let data = |record: &Self| json!({ "data": record.data });
        compare("", Some(&data(self)), Some(&data(now)), New::Ignored, &mut found);
        told(found)
    }
}

/// What differs between two tables, as `name then → now`.
pub fn differences(then: &Value, now: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", Some(then), Some(now), New::Compared, &mut found);
    told(found)
}

/// The first difference between two tables: its name and what is there in each of them.
pub fn first_difference(a: &Value, b: &Value) -> Option<[String; 3]> {
    let mut found = Vec::new();
    compare("", Some(a), Some(b), New::Compared, &mut found);
    found.into_iter().next()
}

fn told(found: Vec<[String; 3]>) -> Vec<String> {
    found.into_iter().map(|[name, then, now]| format!("{name} {then} → {now}")).collect()
}

/// What becomes of keys that a table did not have then.
#[derive(Clone, Copy, PartialEq)]
enum New {
    /// They are settings that came with a later version.
    Ignored,
    /// They are differences.
    Compared,
}

fn compare(
    name: &str,
    then: Option<&Value>,
    now: Option<&Value>,
    new: New,
    found: &mut Vec<[String; 3]>,
) {
    let is_table = then.is_some_and(Value::is_object);
    let given = |value: &&Value| !value.is_null();
    let (then, now) = (then.filter(given), now.filter(given));
    if then == now {
        return;
    }
    match (fields(then), fields(now)) {
        (Some(before), Some(after)) => {
            let counts = new == New::Compared || !is_table;
            let more = after.iter().filter(|(key, _)| counts && !before.contains_key(*key));
            for key in before.iter().chain(more).map(|(key, _)| key) {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                compare(&name, before.get(key), after.get(key), new, found);
            }
        }
        _ => {
            let show = |value: Option<&Value>| value.map_or("none".into(), Value::to_string);
            found.push([name.to_string(), show(then), show(now)]);
        }
    }
}

/// The parts of a value that are compared one by one.
fn fields(value: Option<&Value>) -> Option<Map<String, Value>> {
    match value? {
        Value::Object(table) => Some(table.clone()),
        // Of tables, not of numbers: `betas` are one value.
        Value::Array(items) if items.iter().any(Value::is_object) => {
            let numbered = items.iter().enumerate().map(|(i, item)| (i.to_string(), item.clone()));
            Some(numbered.collect())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named() {
        let record = |settings: Value, labels: &str| Record {
            settings,
            data: DataRecord::new(3, [labels.to_string()]),
        };
        let then = record(
            json!({"loss": {"stage": 1, "time": null}, "ema": [{"decay": 0.9}],
                   "optimizer": {"betas": [0.9, 0.99]}}),
            "0,1,2",
        );
        assert!(then.differences(&then).is_empty());
        let now = record(
            json!({"loss": {"stage": 2}, "ema": [{"decay": 0.9}, {"decay": 0.99}],
                   "optimizer": {"betas": [0.9, 0.95]}}),
            "0,1,2",
        );
        assert_eq!(
            then.differences(&now),
            [
                "loss.stage 1 → 2",
                "ema.1 none → {\"decay\":0.99}",
                "optimizer.betas [0.9,0.99] → [0.9,0.95]"
            ]
        );
        let other = then.differences(&record(then.settings.clone(), "0,1,1"));
        assert!(
            matches!(other.as_slice(), [one] if one.starts_with("data.fingerprint")),
            "{other:?}"
        );
        // A setting of a later version is not a difference, but one of a network is.
        let older = record(json!({"loss": {"stage": 1}}), "0,1,2");
        let newer = record(json!({"loss": {"stage": 1, "weight": 1.0}}), "0,1,2");
        assert!(older.differences(&newer).is_empty());
        assert_eq!(differences(&older.settings, &newer.settings), ["loss.weight none → 1.0"]);
        // Borders between parts count.
        let parts = |parts: &[&str]| DataRecord::new(1, parts.iter().map(|p| p.to_string()));
        assert_ne!(parts(&["a", "bc"]), parts(&["ab", "c"]));
    }
}
