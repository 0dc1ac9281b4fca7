//! Sampler and steps together, by what a picture is for, and how long it takes.

use tintype::generate::Settings;
use tintype::model::{Architecture, Process};
use tintype::settings::Quality;

use crate::options::fitting;

/// Settings with sampler and steps of a quality; guidance and what else people set stay. Best is what the
/// authors of the model use.
pub fn settings(
    quality: Quality,
    current: Settings,
    defaults: Settings,
    architecture: &Architecture,
) -> Settings {
    let Settings { sampler, steps, times, karras, .. } = defaults;
    let own = Settings { sampler, steps, times, karras, ..current };
    // Options of the authors' sampler may be none of the solver's.
    fitting(quality.apply(own, architecture), architecture)
}

/// The quality that settings are; `None` where somebody chose another sampler or other steps, and for
/// networks that have but one.
pub fn current(
    current: Settings,
    defaults: Settings,
    architecture: &Architecture,
) -> Option<Quality> {
    let of = |quality| settings(quality, current, defaults, architecture);
    if of(Quality::Draft) == of(Quality::Best) {
        return None;
    }
    Quality::ALL.into_iter().rev().find(|quality| of(*quality) == current)
}

/// How often the network is evaluated for a picture, twice where it is guided; `None` where the sampler
/// chooses its steps.
pub fn evaluations(settings: &Settings, process: Process) -> Option<usize> {
    let each = settings.sampler.evaluations()?;
    // Guidance is an input of these.
    let is_input = matches!(process, Process::MeanFlow);
    let guided = if is_input || settings.guidance.scale == 1.0 { 1 } else { 2 };
    Some(settings.steps * each * guided)
}

/// Seconds that pictures took on a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Of an evaluation.
    pub evaluation: f64,
    /// Of what comes after the last one: the autoencoder, above all.
    pub rest: f64,
}

impl Pace {
    /// Seconds of a picture with other settings; `None` where the sampler chooses its steps.
    pub fn seconds(&self, settings: &Settings, process: Process) -> Option<f64> {
        let evaluations = evaluations(settings, process)?;
        Some(self.evaluation * evaluations as f64 + self.rest)
    }
}

#[cfg(test)]
mod tests {
    use tintype::diffusion::guidance::Guidance;
    use tintype::settings::Sampler;

    use super::*;

    fn preset(name: &str) -> Architecture {
        tintype::preset::find(name).expect("a preset").architecture
    }

    #[test]
    fn a_quality_is_sampler_and_steps() {
        let sit = preset("sit-xl-1");
        let defaults = sit.default_settings();
        let mine = Settings::new(Sampler::Heun, 31, Guidance::new(3.0));
        assert_eq!(current(mine, defaults, &sit), None);
        for quality in Quality::ALL {
            let made = settings(quality, mine, defaults, &sit);
            assert_eq!(current(made, defaults, &sit), Some(quality));
            assert_eq!(made.guidance, mine.guidance);
            made.validate(&sit).expect("it fits");
        }
        let best = settings(Quality::Best, mine, defaults, &sit);
        assert_eq!((best.sampler, best.steps), (defaults.sampler, defaults.steps));
        // One step has no draft.
        let pmf = preset("pmf-b-16");
        let own = pmf.default_settings();
        assert_eq!(current(own, own, &pmf), None);
    }

    #[test]
    fn times_grow_with_evaluations() {
        let flow = preset("sit-xl-1").process();
        let of = |sampler, steps, scale| Settings::new(sampler, steps, Guidance::new(scale));
        let pace = Pace { evaluation: 0.25, rest: 1.0 };
        let seconds = |settings: Settings| pace.seconds(&settings, flow);
        assert_eq!(seconds(of(Sampler::Euler, 8, 1.0)), Some(3.0));
        assert_eq!(seconds(of(Sampler::Euler, 8, 2.0)), Some(5.0));
        assert_eq!(seconds(of(Sampler::Heun, 8, 2.0)), Some(9.0));
        assert_eq!(seconds(of(Sampler::Dopri5, 8, 2.0)), None);
        let one = Process::MeanFlow;
        assert_eq!(evaluations(&of(Sampler::MeanFlow, 1, 7.0), one), Some(1));
    }
}
