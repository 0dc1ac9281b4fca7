//! Errors and settings of the library in terms of command-line options.

use anyhow::Error;
use tintype::face::{self, Face, Remedy};
use tintype::settings::Setting;
use tintype::weights::Part;

struct CommandLine;

impl Face for CommandLine {
    fn setting(&self, setting: Setting) -> &'static str {
        match setting {
            Setting::Class => "class",
            Setting::Count => "--count",
            Setting::Sampler => "--sampler",
            Setting::Steps => "--steps",
            Setting::GuidanceScale => "--cfg",
            Setting::GuidanceInterval => "--cfg-interval",
            Setting::GuidanceChannels => "--cfg-channels",
            Setting::TimeShift => "--shift",
            Setting::GateTime => "--tau",
            Setting::Precision => "--precision",
            Setting::Times => "--times",
            Setting::GuidanceAgreement => "--cfg-adaptive",
            Setting::Eta => "--eta",
            Setting::NoiseScale => "--s-noise",
            Setting::Churn => "--s-churn",
            Setting::ChurnMin => "--s-tmin",
            Setting::ChurnMax => "--s-tmax",
            Setting::Rho => "--rho",
            Setting::SigmaMin => "--sigma-min",
            Setting::SigmaMax => "--sigma-max",
            Setting::Blend => "blend",
        }
    }

    fn advice(&self, remedy: &Remedy) -> Option<String> {
        Some(match remedy {
            Remedy::Give(Part::Network) => "pass one with --model".into(),
            Remedy::Give(Part::Configuration) => "pass the configuration with --config".into(),
            Remedy::Give(Part::Autoencoder) => "pass it with --vae".into(),
            Remedy::Give(Part::Statistics) => "pass them with --stats".into(),
            Remedy::Give(Part::Guide) => "pass it with --guide".into(),
            Remedy::Rebuild { feature } => format!("build it again with `--features {feature}`"),
            Remedy::ChooseDevice => "`--device auto` takes what there is".into(),
            Remedy::ListClasses => "`tintype classes` lists them".into(),
            Remedy::ComputeIn(precisions) => {
                format!("try --precision {}", Remedy::either(precisions))
            }
        })
    }
}

/// The words of a model among several, whose files are named by keys and whose settings by keys or options.
struct AmongModels;

impl Face for AmongModels {
    fn setting(&self, setting: Setting) -> &'static str {
        CommandLine.setting(setting).trim_start_matches('-')
    }

    fn advice(&self, remedy: &Remedy) -> Option<String> {
        let advice = CommandLine.advice(remedy)?;
        Some(match remedy {
            Remedy::Give(_) => format!("{}=FILE", advice.replace("--", "")),
            _ => advice,
        })
    }
}

/// The key of a setting of one model among several: that of its option without dashes.
pub fn key(setting: Setting) -> &'static str {
    AmongModels.setting(setting)
}

/// Formats an error and its causes on one line.
pub fn sentence(error: &Error) -> String {
    in_words_of(&CommandLine, error)
}

/// [`sentence`] of an error of one model among several.
pub fn sentence_among_models(error: &Error) -> String {
    in_words_of(&AmongModels, error)
}

fn in_words_of(words: &dyn Face, error: &Error) -> String {
    let mut causes: Vec<String> = error.chain().map(|e| face::sentence(e, words)).collect();
    // Some errors already end with their cause.
    causes.dedup_by(|cause, before| before.ends_with(cause.as_str()));
    causes.join(": ")
}

/// Help text of an option: summary and range.
pub fn help(setting: Setting) -> String {
    match setting.range() {
        Some(range) if range.max.is_finite() => {
            format!("{} ({} to {})", setting.summary(), range.min, range.max)
        }
        _ => setting.summary().into(),
    }
}

#[cfg(test)]
mod tests {
    use tintype::Precision;
    use tintype::device::DeviceError;
    use tintype::generate::{GenerateError, LoadError, Sampler};
    use tintype::labels::Labels;
    use tintype::settings::Problem;
    use tintype::weights::WeightsError;

    use super::*;

    #[test]
    fn errors_name_options() {
        let file = || "x.pt".to_string();
        let fitting = Sampler::HYBRID.iter().map(|s| s.name()).collect();
        let errors: Vec<Error> = vec![
            LoadError::NoVae("Hi-DiT").into(),
            LoadError::NoStats("LightningDiT").into(),
            LoadError::NotEmbedded.into(),
            LoadError::IncompatibleParts("4 channels and 32".into()).into(),
            LoadError::Memory { file: file(), needed: 3 << 30, free: 1 << 20 }.into(),
            LoadError::Weights(WeightsError::Autoencoder { file: file() }).into(),
            WeightsError::NeedsConfiguration { file: file(), reason: "an HDiT".into() }.into(),
            DeviceError::NotBuilt("cuda".into()).into(),
            DeviceError::Missing("cuda:1".into(), vec!["cpu".into()]).into(),
            DeviceError::Unknown("tpu".into()).into(),
            Setting::Steps.check(0.0).unwrap_err().into(),
            Setting::GuidanceScale.check(-1.0).unwrap_err().into(),
            Setting::GuidanceScale
                .invalid(Problem::Classless { scale: 2.0, network: "HDiT" })
                .into(),
            Setting::GateTime.check(1.5).unwrap_err().into(),
            Setting::GateTime.invalid(Problem::NotOf { network: "SiT" }).into(),
            Setting::Precision.invalid(Problem::Unsupported { dtype: "f16" }).into(),
            Setting::Sampler
                .invalid(Problem::Unfit { sampler: "lms", network: "Hi-DiT", fitting })
                .into(),
            Labels::numbered(3).find("zebra").unwrap_err().into(),
            Labels::imagenet().find("crane").unwrap_err().into(),
            anyhow::anyhow!("no space left").context("out.png cannot be written"),
            WeightsError::Io { path: file(), source: std::io::Error::other("not there") }.into(),
            GenerateError::NotFinite {
                precision: Precision::F16,
                instead: vec![Precision::Bf16, Precision::F32],
            }
            .into(),
            GenerateError::NotFinite { precision: Precision::F32, instead: Vec::new() }.into(),
        ];
        let sentences: Vec<String> = errors.iter().map(sentence).collect();
        insta::assert_snapshot!(sentences.join("\n"));
    }

    #[test]
    fn errors_of_one_model_among_several_name_keys() {
        let said = |error: Error| sentence_among_models(&error);
        let no_vae = said(LoadError::NoVae("Hi-DiT").into());
        assert!(no_vae.ends_with("; pass it with vae=FILE"), "{no_vae}");
        let not_embedded = said(LoadError::NotEmbedded.into());
        assert!(not_embedded.ends_with("; pass one with model=FILE"), "{not_embedded}");
        let steps = Setting::Steps.check(0.0).unwrap_err();
        assert_eq!(said(steps.into()), "steps 0 is not between 1 and 10000");
        let unknown = said(Labels::numbered(3).find("zebra").unwrap_err().into());
        assert!(unknown.ends_with("; `tintype classes` lists them"), "{unknown}");
    }

    #[test]
    fn help_has_the_range() {
        let lines: Vec<String> =
            Setting::ALL.map(|s| format!("{}: {}", CommandLine.setting(s), help(s))).into();
        insta::assert_snapshot!(lines.join("\n"));
    }
}
