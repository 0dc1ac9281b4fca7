//! The library's errors and settings in the words of the window: buttons and sliders.

use std::error::Error;

use tintype::face::{self, Face, Remedy};
use tintype::generate::{LoadError, bytes};
use tintype::settings::Setting;
use tintype::weights::Part;

struct Window;

impl Face for Window {
    fn setting(&self, setting: Setting) -> &'static str {
        label(setting)
    }

    fn advice(&self, remedy: &Remedy) -> Option<String> {
        Some(match remedy {
            Remedy::Give(Part::Network) => "open one with “Model…”".into(),
            Remedy::Give(Part::Configuration) => "open its “Configuration…” too".into(),
            Remedy::Give(Part::Autoencoder) => "open it with “Autoencoder…”".into(),
            Remedy::Give(Part::Statistics) => "open them with “Statistics…”".into(),
            Remedy::ChooseDevice => "“automatic” takes what there is".into(),
            Remedy::ComputeIn(precisions) => {
                format!("choose {} under “Precision”", Remedy::either(precisions))
            }
            Remedy::Give(Part::Guide) => "choose it under “Guide”".into(),
            // A window has no build to change, and shows its classes.
            Remedy::Rebuild { .. } | Remedy::ListClasses => return None,
        })
    }
}

/// The label of a setting.
pub const fn label(setting: Setting) -> &'static str {
    match setting {
        Setting::Class => "Class",
        Setting::Count => "Count",
        Setting::Sampler => "Sampler",
        Setting::Steps => "Steps",
        Setting::GuidanceScale => "Guidance",
        Setting::GuidanceInterval => "Guide from",
        Setting::GuidanceChannels => "Channels",
        Setting::TimeShift => "Time shift",
        Setting::GateTime => "Gate τ",
        Setting::Precision => "Precision",
        Setting::Times => "Times",
        Setting::GuidanceAgreement => "Guidance ends at",
        Setting::Eta => "Noise η",
        Setting::NoiseScale => "Noise scale",
        Setting::Churn => "Churn",
        Setting::ChurnMin => "Churn from",
        Setting::ChurnMax => "Churn to",
        Setting::Rho => "ρ",
        Setting::SigmaMin => "Lowest noise",
        Setting::SigmaMax => "Highest noise",
        Setting::Blend => "Blend",
    }
}

/// An error in a sentence.
pub fn sentence(error: &(dyn Error + 'static)) -> String {
    face::sentence(error, &Window)
}

/// An error in a sentence, with its reason where it has one.
pub fn full_sentence(error: &(dyn Error + 'static)) -> String {
    match error.source() {
        Some(reason) => format!("{}: {reason}", sentence(error)),
        None => sentence(error),
    }
}

/// Why a model was not loaded, and what to do.
pub fn load_error(error: &LoadError) -> String {
    match error {
        LoadError::NoVae(network) => format!(
            "{network} makes latents and needs the autoencoder that turns them into pictures. \
             Open it with “Autoencoder…” or drop its file on the window."
        ),
        LoadError::NoStats(network) => format!(
            "{network} needs the statistics of its latents (such as latents_stats.pt or stat.pt). \
             Open them with “Statistics…” or drop the file on the window."
        ),
        LoadError::Memory { needed, free, .. } => format!(
            "This model needs {} of memory and the device has {}. Choose another device, f16, or a \
             smaller model; closing other programs helps, too.",
            bytes(*needed),
            bytes(*free)
        ),
        LoadError::IncompatibleParts(what) => {
            format!("These files do not belong together: {what}. Open the model's own.")
        }
        other => sentence(other),
    }
}

/// A device that gave up.
pub fn failed_device(reason: &str) -> String {
    format!(
        "The device stopped working ({reason}). Choose another device under “Device”; the processor \
         always works."
    )
}

#[cfg(test)]
mod tests {
    use tintype::Precision;
    use tintype::device::DeviceError;
    use tintype::generate::GenerateError;
    use tintype::settings::Problem;
    use tintype::weights::WeightsError;

    use super::*;

    #[test]
    fn errors_name_buttons_and_sliders() {
        let file = || "x.pt".to_string();
        let load = [
            LoadError::NoVae("Hi-DiT"),
            LoadError::NoStats("LightningDiT"),
            LoadError::NotEmbedded,
            LoadError::IncompatibleParts("4 channels and 32".into()),
            LoadError::Memory { file: file(), needed: 3 << 30, free: 1 << 20 },
            LoadError::Weights(WeightsError::Autoencoder { file: file() }),
            LoadError::Weights(WeightsError::NeedsConfiguration {
                file: file(),
                reason: "an HDiT needs its JSON configuration".into(),
            }),
            Setting::Precision.invalid(Problem::Unsupported { dtype: "f16" }).into(),
        ];
        let others: [&dyn Error; 5] = [
            &DeviceError::NotBuilt("cuda".into()),
            &DeviceError::Missing("wgpu:1".into(), vec!["cpu".into()]),
            &Setting::Steps.check(0.0).unwrap_err(),
            &Setting::GateTime.check(1.5).unwrap_err(),
            &GenerateError::NotFinite { precision: Precision::Bf16, instead: vec![Precision::F32] },
        ];
        let mut sentences: Vec<String> = load.iter().map(load_error).collect();
        sentences.extend(others.map(|error| face::sentence(error, &Window)));
        insta::assert_snapshot!(sentences.join("\n"));
    }
}
