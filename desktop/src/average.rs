//! Moving averages (EMA) of a network's weights, where a file or a training run holds several. They are one model in
//! what is remembered of it, and models of their own where models are compared.

use tintype::generate::{ModelFiles, ModelPaths};

use crate::model::Model;

/// One of several averages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Average {
    /// What the file calls it.
    pub name: String,
    /// Tells its weights from others; `None` where they cannot be opened, which choosing them tells.
    pub fingerprint: Option<String>,
}

/// The averages that the network's file of an opened model holds, in the order of their numbers; none where there is
/// nothing to choose.
pub(crate) fn averages(paths: &ModelPaths, files: &ModelFiles) -> Vec<Average> {
    let present = paths.average.unwrap_or(1);
    let fingerprint = |number: usize| {
        if number == present {
            return Some(files.model.fingerprint());
        }
        let network = ModelPaths {
            model: paths.model.clone(),
            average: Some(number),
            names: paths.names.clone(),
            ..ModelPaths::default()
        };
        Some(ModelFiles::open(&network).ok()?.model.fingerprint())
    };
    let names = files.model.averages().into_iter().zip(1..);
    names.map(|(name, number)| Average { name, fingerprint: fingerprint(number) }).collect()
}

/// The same model with the average of a number, counted from 1. The first is what opens where none is named, so that
/// nobody takes the two for different models.
pub(crate) fn with_average(paths: &ModelPaths, number: usize) -> ModelPaths {
    ModelPaths { average: (number > 1).then_some(number), ..paths.clone() }
}

/// A name, with the number of the average behind it where that is not the first.
fn titled(name: &str, average: Option<usize>) -> String {
    match average {
        Some(number) if number > 1 => format!("{name}, average {number}"),
        _ => name.into(),
    }
}

impl Model {
    /// The number of its average, counted from 1.
    pub fn average(&self) -> usize {
        self.paths.average.unwrap_or(1)
    }

    /// What tells it from other averages of its file, too: "run", "run, average 2".
    pub fn title(&self) -> String {
        titled(&self.name, self.paths.average)
    }

    /// The fingerprint under which its settings and classes are remembered: averages of a file share that of the first.
    pub fn key(&self) -> &str {
        let first = self.averages.first().and_then(|average| average.fingerprint.as_deref());
        first.unwrap_or(&self.fingerprint)
    }

    /// The number of another average of its file, by the fingerprint of its weights; `None` where these are its own or
    /// those of none.
    pub fn other_average(&self, fingerprint: &str) -> Option<usize> {
        if fingerprint == self.fingerprint {
            return None;
        }
        let is_it = |average: &Average| average.fingerprint.as_deref() == Some(fingerprint);
        Some(self.averages.iter().position(is_it)? + 1)
    }

    /// The models that its files are, by title: one for each average.
    pub fn variants(&self) -> Vec<(String, ModelPaths)> {
        if self.averages.is_empty() {
            return vec![(self.title(), self.paths.clone())];
        }
        let variant = |number| {
            let paths = with_average(&self.paths, number);
            (titled(&self.name, paths.average), paths)
        };
        (1..=self.averages.len()).map(variant).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use tempfile::TempDir;
    use tintype::burn::tensor::Device;
    use tintype::weights::write_safetensors;
    use tintype_test_models::configs::jit;
    use tintype_test_models::tensors;

    use super::*;
    use crate::model::inspect;

    const NAMES: [&str; 2] = ["ema.safetensors", "ema_2.safetensors"];

    /// A training run of a small JiT that keeps two averages.
    fn run() -> TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let network = jit().init(&Device::flex()).expect("valid");
        for (name, scale) in NAMES.into_iter().zip([0.4, 0.2]) {
            let file = write_safetensors(&tensors(&network, scale, |_| false), &BTreeMap::new());
            std::fs::write(folder.path().join(name), file.expect("a file")).expect("written");
        }
        folder
    }

    fn opened(run: &Path, average: Option<usize>) -> Result<Model, String> {
        let paths = ModelPaths { model: Some(run.into()), average, ..ModelPaths::default() };
        inspect(&paths, &crate::browser::empty())
    }

    #[test]
    fn averages_of_a_run_are_models_that_share_what_is_remembered() {
        let run = run();
        let [first, second] =
            [None, Some(2)].map(|average| opened(run.path(), average).expect("it would load"));
        let names: Vec<&str> = first.averages.iter().map(|average| average.name.as_str()).collect();
        assert_eq!(names, NAMES);
        assert_eq!(first.averages, second.averages);
        assert_eq!([first.average(), second.average()], [1, 2]);
        let [own, other] = [&first, &second].map(|model| model.fingerprint.as_str());
        assert_ne!(own, other);
        assert_eq!([first.key(), second.key()], [own, own]);
        // Whichever is open, there are these two.
        let titles = [first.name.clone(), format!("{}, average 2", first.name)];
        assert_eq!([first.title(), second.title()], titles);
        let [title, another] = titles;
        let expected = [(title, first.paths.clone()), (another, second.paths.clone())];
        assert_eq!((first.variants(), second.variants()), (expected.to_vec(), expected.to_vec()));
        // Pictures are of one of them.
        assert_eq!([first.other_average(own), first.other_average("of none")], [None; 2]);
        assert_eq!([first.other_average(other), second.other_average(own)], [Some(2), Some(1)]);
    }

    #[test]
    fn an_average_that_cannot_be_opened_is_told_when_it_is_chosen() {
        let run = run();
        let second = run.path().join(NAMES[1]);
        std::fs::write(&second, "no weights").expect("written");
        let model = opened(run.path(), None).expect("the first would load");
        let known: Vec<bool> = model.averages.iter().map(|a| a.fingerprint.is_some()).collect();
        assert_eq!(known, [true, false]);
        assert!(opened(run.path(), Some(2)).is_err());
        // One alone is nothing to choose from.
        std::fs::remove_file(second).expect("removed");
        let model = opened(run.path(), None).expect("it would load");
        assert!(model.averages.is_empty());
        assert_eq!(model.variants(), [(model.name.clone(), model.paths.clone())]);
        assert_eq!(model.key(), model.fingerprint);
        let trouble = opened(run.path(), Some(2)).expect_err("there is one");
        assert!(trouble.contains("it holds no average 2"), "{trouble}");
    }
}
