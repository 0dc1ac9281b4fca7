//! Options that only some networks, samplers and grids of times use. Which do is the library's to say: it refuses
//! the others by name.

use tintype::diffusion::guidance::Guidance;
use tintype::generate::Settings;
use tintype::model::Architecture;
use tintype::settings::{InvalidSetting, Problem, Setting, TimeGrid};

/// Numbers that are left out for their default, in the order in which they are shown.
pub const NUMBERS: [Setting; 9] = [
    Setting::GuidanceAgreement,
    Setting::Eta,
    Setting::NoiseScale,
    Setting::Churn,
    Setting::ChurnMin,
    Setting::ChurnMax,
    Setting::Rho,
    Setting::SigmaMin,
    Setting::SigmaMax,
];

/// The place of one of [`NUMBERS`]; other settings have none.
pub fn number(settings: &mut Settings, option: Setting) -> Option<&mut Option<f64>> {
    let karras = &mut settings.karras;
    Some(match option {
        Setting::GuidanceAgreement => &mut settings.agreement,
        Setting::Eta => &mut karras.eta,
        Setting::NoiseScale => &mut karras.s_noise,
        Setting::Churn => &mut karras.s_churn,
        Setting::ChurnMin => &mut karras.s_tmin,
        Setting::ChurnMax => &mut karras.s_tmax,
        Setting::Rho => &mut karras.rho,
        Setting::SigmaMin => &mut karras.sigma_min,
        Setting::SigmaMax => &mut karras.sigma_max,
        _ => return None,
    })
}

/// The numbers that are set.
pub fn given(mut settings: Settings) -> Vec<(Setting, f64)> {
    let value = |option| Some((option, (*number(&mut settings, option)?)?));
    NUMBERS.into_iter().filter_map(value).collect()
}

/// Whether [`Setting::Times`], or one of [`NUMBERS`], does something for a network with the sampler and the times
/// of the settings.
pub fn applies(option: Setting, settings: &Settings, architecture: &Architecture) -> bool {
    let sampler = settings.sampler;
    let mut probe = Settings::new(sampler, sampler.least_steps(), Guidance::NONE);
    if option == Setting::Times {
        probe.times = TimeGrid::LogitNormal;
    } else if let Some(number) = number(&mut probe, option) {
        *number = option.range().map(|range| range.min);
        probe.times = settings.times;
    }
    let refused = probe.validate(architecture).err();
    let is_idle = |error: InvalidSetting| {
        use Problem::{NotOf, NotOfSampler, NotOfTimes};
        matches!(error.problem, NotOf { .. } | NotOfSampler { .. } | NotOfTimes { .. })
    };
    !refused.is_some_and(is_idle)
}

/// Settings without the options that do nothing.
pub fn fitting(mut settings: Settings, architecture: &Architecture) -> Settings {
    if !applies(Setting::Times, &settings, architecture) {
        settings.times = TimeGrid::Uniform;
    }
    for option in NUMBERS {
        let is_idle = !applies(option, &settings, architecture);
        if let Some(number) = number(&mut settings, option).filter(|_| is_idle) {
            *number = None;
        }
    }
    settings
}

/// What is typed into the field of a number: `Some(None)` where it is empty, `None` where it is no number.
pub fn parsed(text: &str) -> Option<Option<f64>> {
    match text.trim() {
        "" => Some(None),
        text => text.parse::<f64>().ok().filter(|value| value.is_finite()).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use tintype::settings::{KarrasOptions, Sampler};

    use super::*;

    fn preset(name: &str) -> Architecture {
        tintype::preset::find(name).expect("a preset").architecture
    }

    /// Options that a network has with a sampler and times.
    fn options(network: &str, sampler: Sampler, times: TimeGrid) -> Vec<Setting> {
        let settings = Settings { times, ..Settings::new(sampler, 9, Guidance::new(3.0)) };
        let architecture = preset(network);
        let all = std::iter::once(Setting::Times).chain(NUMBERS);
        all.filter(|option| applies(*option, &settings, &architecture)).collect()
    }

    #[test]
    fn a_network_has_the_options_of_its_sampler_and_times() {
        use Setting::{
            Churn, ChurnMax, ChurnMin, Eta, GuidanceAgreement, NoiseScale, Rho, SigmaMax, SigmaMin,
            Times,
        };
        let uniform = TimeGrid::Uniform;
        let sit = |sampler, times| options("sit-xl-1", sampler, times);
        assert_eq!(sit(Sampler::Euler, uniform), [Times, GuidanceAgreement]);
        assert_eq!(sit(Sampler::EulerMaruyama, uniform), [GuidanceAgreement]);
        let spaced = [Times, GuidanceAgreement, Rho, SigmaMin, SigmaMax];
        assert_eq!(sit(Sampler::Euler, TimeGrid::Karras), spaced);
        let hdit = |sampler| options("hdit-imagenet-256", sampler, uniform);
        let noised = [GuidanceAgreement, Eta, NoiseScale, Rho, SigmaMin, SigmaMax];
        assert_eq!(hdit(Sampler::DpmPp3mSde), noised);
        let churned =
            [GuidanceAgreement, NoiseScale, Churn, ChurnMin, ChurnMax, Rho, SigmaMin, SigmaMax];
        assert_eq!(hdit(Sampler::Heun), churned);
        let chosen = [GuidanceAgreement, Eta, NoiseScale, SigmaMin, SigmaMax];
        assert_eq!(hdit(Sampler::DpmAdaptive), chosen);
        assert!(options("pmf-b-16", Sampler::MeanFlow, uniform).is_empty());
    }

    #[test]
    fn what_does_nothing_is_left_out_and_the_rest_stays() {
        let hdit = preset("hdit-imagenet-256");
        let mut settings = hdit.default_settings();
        for option in NUMBERS {
            *number(&mut settings, option).expect("it has a place") = Some(1.0);
        }
        settings.times = TimeGrid::Karras;
        assert_eq!(given(settings).len(), NUMBERS.len());
        let fits = |sampler| {
            let fits = fitting(Settings { sampler, ..settings }, &hdit);
            assert_eq!(fits.times, TimeGrid::Uniform);
            fits.validate(&hdit).expect_err("1 is no interval");
            fits.karras
        };
        let spacing = KarrasOptions {
            rho: Some(1.0),
            sigma_min: Some(1.0),
            sigma_max: Some(1.0),
            ..KarrasOptions::NONE
        };
        assert_eq!(fits(Sampler::DpmPp2m), spacing);
        let noised = KarrasOptions { eta: Some(1.0), s_noise: Some(1.0), ..spacing };
        assert_eq!(fits(Sampler::EulerAncestral), noised);
        // What fits stays as it is, and what is out of range is not for here to drop.
        for name in ["sit-xl-1", "lightningdit-xl-1", "pmf-b-16", "hdit-imagenet-256"] {
            let architecture = preset(name);
            let usual = architecture.default_settings();
            assert_eq!(fitting(usual, &architecture), usual, "{name}");
        }
        settings.karras = KarrasOptions { eta: Some(7.0), ..KarrasOptions::NONE };
        assert_eq!(fitting(settings, &hdit).karras, settings.karras);
    }

    #[test]
    fn an_empty_field_is_the_default() {
        assert_eq!([parsed(""), parsed(" ")], [Some(None); 2]);
        assert_eq!([parsed("0.5"), parsed(" 1e-3 ")], [Some(Some(0.5)), Some(Some(0.001))]);
        for text in ["-", "half", "nan", "inf", "1,5"] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }
}
