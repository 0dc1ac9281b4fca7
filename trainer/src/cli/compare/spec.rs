//! A model of a comparison as it is written: `MODEL`, `MODEL,KEY=VALUE,…` or `KEY=VALUE,…`.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Result;
use clap::ValueEnum;
use tintype::catalogue::Address;
use tintype::generate::Settings;
use tintype::model::Architecture;

use crate::cli::model::PartsArgs;
use crate::cli::sampling::{Quality, SamplingArgs};

/// What the model inside the program is called.
const EMBEDDED: &str = "emoji";

/// Every key: files, the label, settings.
const KEYS: [&str; 26] = [
    "model",
    "config",
    "ema",
    "names",
    "vae",
    "stats",
    "guide",
    "label",
    "quality",
    "steps",
    "sampler",
    "times",
    "shift",
    "cfg",
    "cfg-interval",
    "cfg-channels",
    "cfg-adaptive",
    "tau",
    "eta",
    "s-noise",
    "s-churn",
    "s-tmin",
    "s-tmax",
    "rho",
    "sigma-min",
    "sigma-max",
];

/// A model and what it is to be compared with.
#[derive(Debug)]
pub struct Spec {
    /// The model's name; of a path or an address that of the file, without where it lies.
    pub model: String,
    /// The label, else the model's name.
    pub name: String,
    /// Its files; names and addresses until these are found.
    pub parts: PartsArgs,
    quality: Option<Quality>,
    /// Options of all models, and its own in their places.
    pub sampling: SamplingArgs,
}

/// Why a text names no model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A key that there is not.
    #[error("there is no key {key}; the keys are {}", KEYS.join(", "))]
    UnknownKey {
        /// As it was written.
        key: String,
    },
    /// A key, or the model, twice.
    #[error("{key} is given twice")]
    Twice {
        /// The key.
        key: &'static str,
    },
    /// Nothing behind a key, or no model.
    #[error("{key} has no value")]
    Empty {
        /// The key.
        key: &'static str,
    },
    /// A value of another kind.
    #[error("{key}={value} is not {kind}")]
    Value {
        /// The key.
        key: &'static str,
        /// As it was written.
        value: String,
        /// What it should be.
        kind: &'static str,
    },
}

impl Spec {
    /// Reads a model.
    ///
    /// * `sampling`, `quality`: options of all models, which its own override; its own quality stands for steps and
    ///   sampler, too
    ///
    /// # Errors
    ///
    /// [`SpecError`] if the text is none. Whether files and samplers exist is not looked at, nor are ranges.
    pub fn parse(
        text: &str,
        sampling: &SamplingArgs,
        quality: Option<Quality>,
    ) -> Result<Self, SpecError> {
        let pairs = pairs(text)?;
        let mut spec = Self {
            model: String::new(),
            name: String::new(),
            parts: PartsArgs::default(),
            quality,
            sampling: sampling.clone(),
        };
        if pairs.iter().any(|(key, _)| *key == "quality") {
            (spec.sampling.steps, spec.sampling.sampler) = (None, None);
        }
        for (key, value) in &pairs {
            spec.set(key, value)?;
        }
        let model = spec.parts.model.model.as_deref();
        spec.model = model.map_or(EMBEDDED.into(), file_name);
        if spec.name.is_empty() {
            spec.name.clone_from(&spec.model);
        }
        Ok(spec)
    }

    fn set(&mut self, key: &'static str, value: &str) -> Result<(), SpecError> {
        if value.is_empty() {
            return Err(SpecError::Empty { key });
        }
        let path = || Some(PathBuf::from(value));
        let Self { name, parts, quality, sampling, .. } = self;
        match key {
            "model" => {
                let is_embedded = value == EMBEDDED && !Path::new(value).exists();
                parts.model.model = path().filter(|_| !is_embedded);
            }
            "config" => parts.model.config = path(),
            "ema" => {
                let number = |value: &str| value.parse::<usize>().ok().filter(|number| *number > 0);
                parts.model.average.ema = Some(read(key, value, "a whole number from 1", number)?);
            }
            "names" => parts.model.names.names = path(),
            "vae" => parts.vae = path(),
            "stats" => parts.stats = path(),
            "guide" => parts.guide = path(),
            "label" => *name = value.into(),
            "quality" => {
                let of_name = |value: &str| Quality::from_str(value, false).ok();
                *quality = Some(read(key, value, "draft, good or best", of_name)?);
            }
            "sampler" => sampling.sampler = Some(value.into()),
            "times" => sampling.times = Some(value.into()),
            "steps" => sampling.steps = Some(whole(key, value)?),
            "cfg-channels" => sampling.cfg_channels = Some(whole(key, value)?),
            "cfg" => sampling.cfg = Some(number(key, value)?),
            "shift" => sampling.shift = Some(number(key, value)?),
            "cfg-adaptive" => sampling.cfg_adaptive = Some(number(key, value)?),
            "tau" => sampling.tau = Some(number(key, value)?),
            "eta" => sampling.karras.eta = Some(number(key, value)?),
            "s-noise" => sampling.karras.s_noise = Some(number(key, value)?),
            "s-churn" => sampling.karras.s_churn = Some(number(key, value)?),
            "s-tmin" => sampling.karras.s_tmin = Some(number(key, value)?),
            "s-tmax" => sampling.karras.s_tmax = Some(number(key, value)?),
            "rho" => sampling.karras.rho = Some(number(key, value)?),
            "sigma-min" => sampling.karras.sigma_min = Some(number(key, value)?),
            "sigma-max" => sampling.karras.sigma_max = Some(number(key, value)?),
            "cfg-interval" => {
                let ends = |value: &str| {
                    let (low, high) = value.split_once(':')?;
                    Some(vec![f64::from_str(low).ok()?, f64::from_str(high).ok()?])
                };
                sampling.cfg_interval = Some(read(key, value, "an interval LOW:HIGH", ends)?);
            }
            _ => return Err(SpecError::UnknownKey { key: key.into() }),
        }
        Ok(())
    }

    /// The settings that it will have: what is given, and where that is silent the authors'.
    ///
    /// * `published`: those that its name brings
    ///
    /// # Errors
    ///
    /// If there is no sampler or no grid of the name, or the sampler has no use for a time shift.
    pub fn settings(
        &self,
        architecture: &Architecture,
        published: Option<Settings>,
    ) -> Result<Settings> {
        self.sampling.of_network(architecture, published, self.quality)
    }
}

/// The name of a model's file, or the published name.
fn file_name(model: &Path) -> String {
    let text = model.to_string_lossy();
    if let Ok(address) = text.parse::<Address>() {
        return address.file_name().into();
    }
    let last = model.components().next_back();
    let last = last.map(|last| last.as_os_str().to_string_lossy().into_owned()).unwrap_or_default();
    match text.contains("://") {
        // An address that is refused; what follows its path may be a key.
        true => last.split(['?', '#']).next().unwrap_or_default().into(),
        false => last,
    }
}

/// Keys with their values; the model's own is `model`. A part without a key belongs to the value before it, which
/// may have commas, and a text that is the path of something is that path.
fn pairs(text: &str) -> Result<Vec<(&'static str, String)>, SpecError> {
    if Path::new(text).exists() {
        return Ok(vec![("model", text.into())]);
    }
    let mut pairs: Vec<(&'static str, String)> = Vec::new();
    for part in text.split(',') {
        let (key, value) = part.split_once('=').unwrap_or(("", part));
        let known = KEYS.into_iter().find(|known| *known == key.trim());
        if let Some(key) = known {
            if pairs.iter().any(|(other, _)| *other == key) {
                return Err(SpecError::Twice { key });
            }
            pairs.push((key, value.into()));
        } else if let Some((_, value)) = pairs.last_mut() {
            if part.contains('=') {
                return Err(SpecError::UnknownKey { key: key.trim().into() });
            }
            value.push(',');
            value.push_str(part);
        } else {
            pairs.push(("model", part.into()));
        }
    }
    Ok(pairs)
}

fn read<T>(
    key: &'static str,
    value: &str,
    kind: &'static str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<T, SpecError> {
    read(value).ok_or_else(|| SpecError::Value { key, value: value.into(), kind })
}

fn whole(key: &'static str, value: &str) -> Result<usize, SpecError> {
    read(key, value, "a whole number", |value| value.parse().ok())
}

fn number(key: &'static str, value: &str) -> Result<f64, SpecError> {
    read(key, value, "a number", |value| value.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::sampling::KarrasArgs;

    fn parsed(text: &str) -> Spec {
        Spec::parse(text, &SamplingArgs::default(), None).expect(text)
    }

    #[test]
    fn a_model_is_a_name_a_path_or_keys() {
        let of = |text: &str| {
            let Spec { name, parts, .. } = parsed(text);
            (name, parts.model.model.map(|path| path.display().to_string()))
        };
        let is = |found: (String, Option<String>), name: &str, model: Option<&str>| {
            assert_eq!((found.0.as_str(), found.1.as_deref()), (name, model));
        };
        is(of("sit-xl-2"), "sit-xl-2", Some("sit-xl-2"));
        is(of("runs/a/last.pt"), "last.pt", Some("runs/a/last.pt"));
        is(of("hub:me/sit/last.pt,vae=x"), "last.pt", Some("hub:me/sit/last.pt"));
        is(of("model=a=b.pt"), "a=b.pt", Some("a=b.pt"));
        is(of("run=3/last.pt,label=third"), "third", Some("run=3/last.pt"));
        is(of("emoji"), "emoji", None);
        is(of("steps=4"), "emoji", None);
        // What is there is a path, whatever its name.
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a,steps=4.pt").display().to_string();
        std::fs::write(&path, []).expect("a file");
        is(of(&path), "a,steps=4.pt", Some(&path));
    }

    #[test]
    fn where_a_file_lies_is_no_part_of_its_name() {
        for text in [
            "/home/me/runs/last.pt,vae=/home/me/vae.pt,label=mine",
            "hub:me/sit/last.pt@main,label=mine",
            "https://me:secret@example.org/a/last.pt?key=secret",
        ] {
            assert_eq!(parsed(text).model, "last.pt", "{text}");
        }
        assert_eq!(parsed("/home/me/..").model, "..");
        assert_eq!(parsed("sit-xl-2,label=mine").model, "sit-xl-2");
        assert_eq!(parsed("steps=4").model, "emoji");
    }

    #[test]
    fn files_and_settings_have_keys() {
        let text = "m.pt,vae=v.pt,stats=s.pt,guide=g.pt,config=c.yaml,ema=2,names=n.txt,label=heun, twice,steps=20,\
            sampler=heun,cfg=2.5,cfg-interval=0.1:0.9,cfg-channels=3,shift=0.3,times=karras,tau=0.4,quality=good,\
            cfg-adaptive=0.99,eta=0,s-noise=1,s-churn=2,s-tmin=3,s-tmax=4,rho=5,sigma-min=6,sigma-max=7";
        let Spec { name, parts, quality, sampling, .. } = parsed(text);
        assert_eq!(name, "heun, twice");
        let paths = parts.paths();
        let path = |name: &str| Some(PathBuf::from(name));
        assert_eq!([paths.model, paths.vae, paths.stats], ["m.pt", "v.pt", "s.pt"].map(path));
        assert_eq!([paths.guide, paths.config, paths.names], ["g.pt", "c.yaml", "n.txt"].map(path));
        assert_eq!(paths.average, Some(2));
        assert!(matches!(quality, Some(Quality::Good)));
        assert_eq!((sampling.steps, sampling.sampler.as_deref()), (Some(20), Some("heun")));
        assert_eq!((sampling.cfg, sampling.cfg_channels), (Some(2.5), Some(3)));
        assert_eq!(sampling.cfg_interval, Some(vec![0.1, 0.9]));
        assert_eq!((sampling.shift, sampling.tau), (Some(0.3), Some(0.4)));
        assert_eq!(
            (sampling.times.as_deref(), sampling.cfg_adaptive),
            (Some("karras"), Some(0.99))
        );
        let KarrasArgs { eta, s_noise, s_churn, s_tmin, s_tmax, rho, sigma_min, sigma_max } =
            sampling.karras;
        let numbers = [eta, s_noise, s_churn, s_tmin, s_tmax, rho, sigma_min, sigma_max];
        assert_eq!(numbers, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0].map(Some));
    }

    #[test]
    fn every_key_is_known() {
        for key in KEYS {
            let known = Spec::parse(&format!("{key}=?"), &SamplingArgs::default(), None);
            let unknown = matches!(known, Err(SpecError::UnknownKey { .. }));
            assert!(!unknown, "{key}");
        }
    }

    #[test]
    fn a_model_overrides_what_is_given_for_all() {
        let all = SamplingArgs {
            steps: Some(9),
            sampler: Some("euler".into()),
            cfg: Some(3.0),
            ..SamplingArgs::default()
        };
        let of = |text: &str| {
            let spec = Spec::parse(text, &all, Some(Quality::Draft)).expect(text);
            let network = tintype::preset::find("sit-xl-1").expect("a preset").architecture;
            let settings = spec.settings(&network, None).expect("settings");
            (settings.sampler.name(), settings.steps, settings.guidance.scale)
        };
        assert_eq!(of("m.pt"), ("euler", 9, 3.0));
        assert_eq!(of("m.pt,steps=5,cfg=1"), ("euler", 5, 1.0));
        assert_eq!(of("m.pt,quality=good"), ("unipc", 16, 3.0));
        assert_eq!(of("m.pt,steps=5,quality=good"), ("unipc", 5, 3.0));
        assert_eq!(of("m.pt,quality=best"), ("euler-maruyama", 250, 3.0));
    }

    #[test]
    fn what_is_no_model_is_told() {
        let error = |text: &str| {
            let parsed = Spec::parse(text, &SamplingArgs::default(), None);
            parsed.expect_err(text)
        };
        assert_eq!(error("m.pt,stepz=4"), SpecError::UnknownKey { key: "stepz".into() });
        assert!(error("m.pt,stepz=4").to_string().contains("the keys are model, config"));
        assert_eq!(error("m.pt,model=n.pt"), SpecError::Twice { key: "model" });
        assert_eq!(error("m.pt,cfg=2,cfg=3"), SpecError::Twice { key: "cfg" });
        assert_eq!(error(""), SpecError::Empty { key: "model" });
        assert_eq!(error(",steps=4"), SpecError::Empty { key: "model" });
        assert_eq!(error("m.pt,vae="), SpecError::Empty { key: "vae" });
        for (text, sentence) in [
            ("m.pt,steps=2.5", "steps=2.5 is not a whole number"),
            ("m.pt,steps=-1", "steps=-1 is not a whole number"),
            ("m.pt,ema=0", "ema=0 is not a whole number from 1"),
            ("m.pt,cfg=two", "cfg=two is not a number"),
            ("m.pt,cfg-interval=0.5", "cfg-interval=0.5 is not an interval LOW:HIGH"),
            ("m.pt,cfg-interval=0:x", "cfg-interval=0:x is not an interval LOW:HIGH"),
            ("m.pt,quality=fine", "quality=fine is not draft, good or best"),
        ] {
            assert_eq!(error(text).to_string(), sentence);
        }
    }
}
