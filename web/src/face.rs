//! The library's errors and settings in a page's words: fields of a request.

use std::error::Error;

use tintype::face::{self, Face, Remedy};
use tintype::generate::{LoadError, bytes};
use tintype::settings::Setting;
use tintype::weights::Part;

struct Page;

impl Face for Page {
    fn setting(&self, setting: Setting) -> &'static str {
        field(setting)
    }

    fn advice(&self, remedy: &Remedy) -> Option<String> {
        let field = match remedy {
            Remedy::Give(Part::Network) => "model",
            Remedy::Give(Part::Configuration) => "config",
            Remedy::Give(Part::Autoencoder) => "vae",
            Remedy::Give(Part::Statistics) => "stats",
            Remedy::ComputeIn(precisions) => {
                let precisions = Remedy::either(precisions);
                return Some(format!("load the model with {precisions} as `precision`"));
            }
            // A page is built with what it has, chooses its device, shows its classes, and takes no guide.
            Remedy::Give(Part::Guide)
            | Remedy::Rebuild { .. }
            | Remedy::ChooseDevice
            | Remedy::ListClasses => return None,
        };
        Some(format!("give its file as `{field}`"))
    }
}

/// The field of a request.
pub const fn field(setting: Setting) -> &'static str {
    match setting {
        Setting::Class => "class",
        Setting::Count => "count",
        Setting::Sampler => "sampler",
        Setting::Steps => "steps",
        Setting::GuidanceScale => "cfg",
        Setting::GuidanceInterval => "cfgInterval",
        Setting::GuidanceChannels => "cfgChannels",
        Setting::TimeShift => "shift",
        Setting::GateTime => "tau",
        Setting::Precision => "precision",
        Setting::Times => "times",
        Setting::GuidanceAgreement => "cfgAdaptive",
        Setting::Eta => "eta",
        Setting::NoiseScale => "s_noise",
        Setting::Churn => "s_churn",
        Setting::ChurnMin => "s_tmin",
        Setting::ChurnMax => "s_tmax",
        Setting::Rho => "rho",
        Setting::SigmaMin => "sigma_min",
        Setting::SigmaMax => "sigma_max",
        Setting::Blend => "blend",
    }
}

/// An error of the library in a sentence.
pub fn sentence(error: &(dyn Error + 'static)) -> String {
    if let Some(LoadError::Memory { needed, free, .. }) = error.downcast_ref() {
        return format!(
            "the model takes {} of memory, and a page has room for {}; convert PyTorch files to safetensors with \
             `tintype convert`, in f16 where it can be, use a browser with a GPU, or the desktop app",
            bytes(*needed),
            bytes(*free)
        );
    }
    face::sentence(error, &Page)
}

#[cfg(test)]
mod tests {
    use tintype::Precision;
    use tintype::generate::GenerateError;

    #[test]
    fn values_without_end_ask_for_a_wider_precision() {
        let error =
            |precision, instead| super::sentence(&GenerateError::NotFinite { precision, instead });
        assert_eq!(
            error(Precision::F16, vec![Precision::F32]),
            "the network's values leave the range of f16: they are not finite; load the model with \
             f32 as `precision`"
        );
        assert_eq!(
            error(Precision::F32, Vec::new()),
            "the network's values leave the range of f32: they are not finite"
        );
    }
}
