//! Labels that a data set lists in files of its own.

use std::collections::BTreeMap;

use serde_json::Value;
use tintype::files::text_of;
use tintype::model::MAX_CLASSES;

/// The label list that NVIDIA's data tools write.
pub(super) const LABEL_FILE: &str = "dataset.json";

/// Labels by name, `None` for an image without one; `None` if no image has one.
pub(in crate::data) type Labels = Option<BTreeMap<String, Option<usize>>>;

/// A label: a whole number, which some tools write as `3.0`; −1 is none. One that no network has a class for is a
/// mistake, and each class below it would get a name.
fn label(number: f64) -> Option<Option<usize>> {
    match number {
        -1.0 => Some(None),
        number if number.fract() == 0.0 && (0.0..MAX_CLASSES as f64).contains(&number) => {
            Some(Some(number as usize))
        }
        _ => None,
    }
}

/// Reads `{"labels": [["name", label], …]}` or `{"labels": null}`.
///
/// # Errors
///
/// A sentence if it is neither.
pub(in crate::data) fn from_json(bytes: &[u8]) -> Result<Labels, String> {
    let unusable = |problem: &str| format!("{LABEL_FILE} has no usable labels: {problem}");
    let text = text_of(bytes).map_err(|e| unusable(&e.to_string()))?;
    let list: Value = serde_json::from_str(text).map_err(|e| unusable(&e.to_string()))?;
    let labels = list.get("labels").ok_or_else(|| unusable("there is no list \"labels\""))?;
    // NVIDIA's tool writes null for a set without labels.
    if labels.is_null() {
        return Ok(None);
    }
    let rows = labels.as_array().ok_or_else(|| unusable("\"labels\" is not a list"))?;
    let row = |row: &Value| -> Result<(String, Option<usize>), String> {
        match row.as_array().map(Vec::as_slice) {
            Some([Value::String(name), Value::Null]) => Ok((name.clone(), None)),
            Some([Value::String(name), value]) => match value.as_f64().and_then(label) {
                Some(label) => Ok((name.clone(), label)),
                None => Err(unusable(&format!(
                    "the label of {name:?} is {value}, and labels are whole numbers below {MAX_CLASSES}"
                ))),
            },
            _ => Err(unusable(&format!("{row} is not a name and a label"))),
        }
    };
    rows.iter().map(row).collect::<Result<_, _>>().map(Some)
}

/// The key of a sample in a web dataset: its name up to the first dot of the file's.
pub(super) fn key(name: &str) -> &str {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    let end = name[file..].find('.').map_or(name.len(), |dot| file + dot);
    &name[..end]
}

/// The label in a web dataset's `KEY.cls`; `None` for −1.
///
/// # Errors
///
/// A sentence if it is not a whole number.
pub(super) fn from_cls(name: &str, bytes: &[u8]) -> Result<Option<usize>, String> {
    let text = text_of(bytes).map_err(|e| format!("{name} has no label: {e}"))?.trim();
    let number: f64 = text.parse().map_err(|_| format!("{name} has no label, but {text:?}"))?;
    label(number).ok_or_else(|| {
        format!("{name} has the label {number}, and labels are whole numbers below {MAX_CLASSES}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_whole_floats_are_labels() {
        let of = |json: &str| from_json(json.as_bytes());
        assert_eq!(of(r#"{"labels": null}"#), Ok(None));
        let labels = |list: &[(&str, Option<usize>)]| -> Result<Labels, String> {
            Ok(Some(list.iter().map(|(name, label)| (name.to_string(), *label)).collect()))
        };
        let two = labels(&[("a.png", Some(3)), ("b.png", Some(0))]);
        assert_eq!(of(r#"{"labels": [["a.png", 3.0], ["b.png", 0]]}"#), two);
        let none = labels(&[("a.png", None), ("b.png", None)]);
        assert_eq!(of(r#"{"labels": [["a.png", null], ["b.png", -1]]}"#), none);
        for wrong in [
            r#"{"labels": [["a.png", 1.5]]}"#,
            r#"{"labels": [["a.png", -2]]}"#,
            r#"{"labels": [["a.png", 1048576]]}"#,
            r#"{"labels": [["a.png", 1e30]]}"#,
            r#"{"labels": {"a.png": 1}}"#,
            r#"{"names": []}"#,
            "{",
        ] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
        let error = of(r#"{"labels": [["a.png", 9999999]]}"#).expect_err("it is too large");
        let expected = r#"dataset.json has no usable labels: the label of "a.png" is 9999999"#;
        assert!(error.starts_with(expected), "{error}");
        assert_eq!(from_cls("0.cls", b"1048575"), Ok(Some(1_048_575)));
        for (text, number) in [("1048576", "1048576"), ("1.5", "1.5"), ("-2", "-2"), ("nan", "NaN")]
        {
            let expected =
                format!("0.cls has the label {number}, and labels are whole numbers below 1048576");
            assert_eq!(from_cls("0.cls", text.as_bytes()), Err(expected));
        }
        let none = from_cls("0.cls", b"cat").expect_err("no number");
        assert_eq!(none, "0.cls has no label, but \"cat\"");
    }

    #[test]
    fn keys_end_at_the_first_dot_of_the_file() {
        assert_eq!(key("shard.0/0001.seg.png"), "shard.0/0001");
        assert_eq!(key("0001"), "0001");
        assert_eq!(from_cls("0.cls", b" 7\n"), Ok(Some(7)));
        assert_eq!(from_cls("0.cls", b"3.0"), Ok(Some(3)));
        assert_eq!(from_cls("0.cls", b"-1"), Ok(None));
        assert_eq!(from_cls("0.cls", b"\xef\xbb\xbf7\r\n"), Ok(Some(7)));
    }

    #[test]
    fn labels_in_another_encoding_say_so() {
        let list = from_json(b"\xff\xfe{\0}\0").expect_err("UTF-16");
        assert!(list.ends_with("it is UTF-16; save it as UTF-8"), "{list}");
        let one = from_cls("0.cls", b"\xff\xfe7\0").expect_err("UTF-16");
        assert_eq!(one, "0.cls has no label: it is UTF-16; save it as UTF-8");
        assert_eq!(from_json(b"\xef\xbb\xbf{\"labels\": null}"), Ok(None));
    }
}
