//! The times of a flow's steps, as the settings have them.

use crate::diffusion::flow::{early_times, ode_times, sde_times, shifted_times};
use crate::model::{Architecture, Clock, Process};
use crate::sampler::times::{karras, logit_normal, shifted};
use crate::settings::{Sampler, Settings, TimeGrid};

/// From 1 (noise) to 0, or to where the network's authors stop. Even ones are shifted in float32, as LightningDiT and
/// RAE do it; so are those of a clock whose noise is at 0.
pub(super) fn flow_times(settings: &Settings, architecture: &Architecture) -> Vec<f64> {
    let Settings { steps, shift, .. } = *settings;
    let (process, last) = (architecture.process(), architecture.last_time());
    let in_float32 = shift > 0.0 || process == Process::Flow(Clock::NoiseAtZero);
    let times = match settings.times {
        _ if settings.sampler == Sampler::EulerMaruyama => return sde_times(steps),
        TimeGrid::Uniform if last > 0.0 => return early_times(steps + 1, last, shift),
        TimeGrid::Uniform if in_float32 => return shifted_times(steps + 1, shift),
        TimeGrid::Uniform => return ode_times(steps),
        TimeGrid::LogitNormal => logit_normal(steps, 0.0, 1.0),
        TimeGrid::Karras => {
            let [sigma_min, sigma_max] = settings.karras.levels(process);
            karras(steps, sigma_min, sigma_max, settings.karras.rho())
        }
    };
    let times: Vec<f64> = times.into_iter().map(|t| last + (1.0 - last) * t).collect();
    if shift > 0.0 { shifted(&times, shift) } else { times }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::guidance::Guidance;

    /// The shift is one of the half-log-SNR, by `ln s` (Esser et al., arXiv 2403.03206), of every grid and of
    /// both streams of a Hi-DiT; samplers with times of their own have none.
    #[test]
    fn a_shift_moves_every_grid() {
        let log_snr = |t: f64| ((1.0 - t) / t).ln();
        for name in ["sit-xl-1", "lightningdit-xl-1", "hidit-xl-1-256"] {
            let architecture = crate::preset::find(name).expect("a preset").architecture;
            let times = |sampler, grid, shift| {
                let settings = Settings::new(sampler, 12, Guidance::NONE);
                let settings = Settings { times: grid, shift, ..settings };
                assert_eq!(settings.validate(&architecture), Ok(()), "{name}");
                flow_times(&settings, &architecture)
            };
            for grid in TimeGrid::ALL {
                let even = times(Sampler::Euler, grid, 0.0);
                let shifted = times(Sampler::Euler, grid, 0.3);
                assert_eq!((shifted[0], shifted[12]), (1.0, 0.0));
                for (even, shifted) in even[1..12].iter().zip(&shifted[1..12]) {
                    let moved = log_snr(*shifted) - log_snr(*even);
                    assert!((moved - 0.3f64.ln()).abs() < 1e-5, "{name} {grid:?}: {moved}");
                }
            }
            let own = |shift| times(Sampler::EulerMaruyama, TimeGrid::Uniform, shift);
            assert_eq!(own(0.3), own(0.0));
        }
    }
}
