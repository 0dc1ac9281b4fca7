//! The classes of a data set and those of a network.

use anyhow::{Result, ensure};

/// Checks that the network has the classes of the dataset.
///
/// # Errors
///
/// If there is a label that is not below `num_classes`.
pub fn check_classes(labels: &[Option<usize>], num_classes: usize) -> Result<()> {
    let found = labels.iter().flatten().max().map_or(0, |last| last + 1);
    ensure!(
        found <= num_classes,
        "the data has {found} classes and the network num_classes = {num_classes}"
    );
    Ok(())
}

/// Checks that the network has a null class where labels are dropped or missing.
///
/// # Errors
///
/// If it has none, because `class_dropout_prob` is 0, and a label would be replaced by it.
pub fn check_null_class(
    labels: &[Option<usize>],
    dropout: f64,
    class_dropout_prob: f64,
) -> Result<()> {
    let replaced = dropout > 0.0 || labels.iter().any(Option::is_none);
    ensure!(
        class_dropout_prob > 0.0 || !replaced,
        "labels are dropped or missing, but model.class_dropout_prob is 0: the network has no null class"
    );
    Ok(())
}

/// The class that a network is told: the null class `num_classes` where a uniform number is below `rate`.
pub fn drop_class(label: usize, u: f64, rate: f64, num_classes: usize) -> usize {
    if u < rate { num_classes } else { label }
}

/// What a network will not learn from these labels, in a sentence; `None` if each class has images and each
/// image a class.
pub fn warning(labels: &[Option<usize>], num_classes: usize) -> Option<String> {
    if num_classes == 0 {
        return None;
    }
    let unlabelled = labels.iter().filter(|label| label.is_none()).count();
    if unlabelled == labels.len() {
        return Some(format!(
            "the data has no labels and the network {num_classes} classes; only the null class is trained"
        ));
    }
    let mut has = vec![false; num_classes];
    for label in labels.iter().flatten() {
        if let Some(has) = has.get_mut(*label) {
            *has = true;
        }
    }
    let missing: Vec<usize> = (0..num_classes).filter(|class| !has[*class]).collect();
    let mut parts = Vec::new();
    if !missing.is_empty() {
        let shown: Vec<String> = missing.iter().take(5).map(usize::to_string).collect();
        let more = if missing.len() > 5 { ", …" } else { "" };
        parts.push(format!(
            "the data has images of {} of the network's {num_classes} classes; not trained are {}{more}",
            num_classes - missing.len(),
            shown.join(", ")
        ));
    }
    if unlabelled > 0 {
        parts.push(format!(
            "{unlabelled} of {} images have no label and train the null class",
            labels.len()
        ));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_trained_is_said() {
        let all = [Some(0), Some(1), Some(1)];
        assert_eq!(warning(&all, 2), None);
        assert_eq!(warning(&[None, None], 0), None);
        let none = warning(&[None, None], 3).expect("a warning");
        assert!(none.contains("no labels") && none.contains("3 classes"), "{none}");
        let fewer = warning(&all, 10).expect("a warning");
        assert!(
            fewer.contains("2 of the network's 10") && fewer.ends_with("2, 3, 4, 5, 6, …"),
            "{fewer}"
        );
        let some = warning(&[Some(0), None], 1).expect("a warning");
        assert!(some.starts_with("1 of 2 images have no label"), "{some}");
        assert!(check_classes(&all, 2).is_ok());
        assert!(check_classes(&all, 1).is_err());
    }
}
