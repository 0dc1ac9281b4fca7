//! Fields for the settings that only some networks, samplers and grids of times have.

use std::collections::BTreeMap;

use serde::Serialize;
use tintype::diffusion::guidance::Guidance;
use tintype::generate::{Sampler, Settings};
use tintype::model::{Architecture, Process};
use tintype::settings::{KarrasOptions, Range, Setting, TimeGrid};

use crate::face::field;

/// Steps that every sampler takes.
const STEPS: usize = 50;

/// What a page needs to show a setting.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Field {
    /// Its name in a request.
    pub name: &'static str,
    /// The library's name of it.
    pub label: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
    /// The smallest and the largest number, infinite where there is none; `None` for a choice.
    pub range: Option<[f64; 2]>,
    /// What can be chosen, the network's default first; empty for numbers.
    pub choices: Vec<&'static str>,
    /// The network's default of each number of it, where the network has one; empty for a choice.
    pub default: Vec<Option<f64>>,
    /// Samplers that it acts on, each with the grids of times at which it does.
    pub applies: BTreeMap<&'static str, Vec<&'static str>>,
}

/// The fields of a network.
pub fn fields(architecture: &Architecture) -> Vec<Field> {
    let of = |setting| Field::of(setting, architecture);
    Setting::ALL.into_iter().filter_map(of).collect()
}

impl Field {
    /// `None` where it acts on nothing of the network.
    fn of(setting: Setting, architecture: &Architecture) -> Option<Self> {
        let of_sampler = |&sampler: &Sampler| {
            let acts_at = |times: &TimeGrid| acts(setting, sampler, *times, architecture);
            let grids = TimeGrid::ALL.into_iter().filter(acts_at);
            (sampler.name(), grids.map(TimeGrid::name).collect::<Vec<_>>())
        };
        let mut applies: BTreeMap<_, _> = architecture.samplers().iter().map(of_sampler).collect();
        applies.retain(|_, grids| !grids.is_empty());
        (!applies.is_empty()).then(|| Self {
            name: field(setting),
            label: setting.name(),
            summary: setting.summary(),
            range: range(setting, architecture),
            choices: choices(setting, architecture),
            default: default(setting, architecture),
            applies,
        })
    }
}

/// What the numbers may be: the ends of guidance are a flow's times, or a denoiser's noise levels, which have no end.
fn range(setting: Setting, architecture: &Architecture) -> Option<[f64; 2]> {
    let is_flow = !matches!(architecture.process(), Process::Denoiser { .. });
    let range = match setting {
        Setting::GuidanceInterval if is_flow => Range { min: 0.0, max: 1.0 },
        _ => setting.range()?,
    };
    Some([range.min, range.max])
}

fn choices(setting: Setting, architecture: &Architecture) -> Vec<&'static str> {
    if setting != Setting::Times {
        return Vec::new();
    }
    let usual = architecture.default_settings().times;
    let mut grids = TimeGrid::ALL;
    grids.sort_by_key(|grid| *grid != usual);
    grids.map(TimeGrid::name).to_vec()
}

fn default(setting: Setting, architecture: &Architecture) -> Vec<Option<f64>> {
    let Settings { guidance, shift, agreement, .. } = architecture.default_settings();
    match (setting, architecture.process()) {
        (Setting::Times, _) => Vec::new(),
        (Setting::GuidanceInterval, _) => vec![Some(guidance.low), Some(guidance.high)],
        (Setting::TimeShift, _) => vec![Some(shift)],
        (Setting::GuidanceAgreement, _) => vec![agreement],
        (Setting::SigmaMin, Process::Denoiser { sigma_min, .. }) => vec![Some(sigma_min)],
        (Setting::SigmaMax, Process::Denoiser { sigma_max, .. }) => vec![Some(sigma_max)],
        _ => vec![None],
    }
}

/// Whether a setting is one of those that have a field, and changes what this sampler makes with these times: the
/// library accepts it.
fn acts(setting: Setting, sampler: Sampler, times: TimeGrid, architecture: &Architecture) -> bool {
    // It also accepts what it has no use for: guidance that is off, and a shift of times that are not there.
    let is_used = match setting {
        Setting::GuidanceInterval | Setting::GuidanceAgreement => {
            architecture.null_class().is_some()
        }
        Setting::TimeShift => sampler.takes_times(),
        _ => true,
    };
    let settings = Settings { times, ..Settings::new(sampler, STEPS, Guidance::NONE) };
    let is_accepted = |settings: Settings| settings.validate(architecture).is_ok();
    is_used && given(setting, settings).is_some_and(is_accepted)
}

/// The settings with one more of them, which has a value of its range; `None` where it has no field.
fn given(setting: Setting, settings: Settings) -> Option<Settings> {
    let none = KarrasOptions::NONE;
    let karras = match setting {
        Setting::GuidanceInterval => return Some(settings),
        Setting::TimeShift => return Some(Settings { shift: 1.0, ..settings }),
        Setting::Times => return Some(Settings { times: TimeGrid::LogitNormal, ..settings }),
        Setting::GuidanceAgreement => return Some(Settings { agreement: Some(0.5), ..settings }),
        Setting::Eta => KarrasOptions { eta: Some(1.0), ..none },
        Setting::NoiseScale => KarrasOptions { s_noise: Some(1.0), ..none },
        Setting::Churn => KarrasOptions { s_churn: Some(1.0), ..none },
        Setting::ChurnMin => KarrasOptions { s_tmin: Some(1.0), ..none },
        Setting::ChurnMax => KarrasOptions { s_tmax: Some(1.0), ..none },
        Setting::Rho => KarrasOptions { rho: Some(1.0), ..none },
        // An end of its own range is in order with any other end of the levels.
        Setting::SigmaMin => KarrasOptions { sigma_min: Some(setting.range()?.min), ..none },
        Setting::SigmaMax => KarrasOptions { sigma_max: Some(f64::MAX), ..none },
        _ => return None,
    };
    Some(Settings { karras, ..settings })
}
