//! The times of a flow's steps, as the settings have them.

use crate::diffusion::flow::{ode_times, sde_times, shifted_times};
use crate::model::Process;
use crate::sampler::times::{karras, logit_normal, shifted};
use crate::settings::{Sampler, Settings, TimeGrid};

/// From 1 (noise) to 0. Even ones are shifted in float32, as LightningDiT does it.
pub(super) fn flow_times(settings: &Settings, process: Process) -> Vec<f64> {
    let Settings { steps, shift, .. } = *settings;
    let times = match settings.times {
        _ if settings.sampler == Sampler::EulerMaruyama => return sde_times(steps),
        TimeGrid::Uniform if shift > 0.0 => return shifted_times(steps + 1, shift),
        TimeGrid::Uniform => return ode_times(steps),
        TimeGrid::LogitNormal => logit_normal(steps, 0.0, 1.0),
        TimeGrid::Karras => {
            let [sigma_min, sigma_max] = settings.karras.levels(process);
            karras(steps, sigma_min, sigma_max, settings.karras.rho())
        }
    };
    if shift > 0.0 { shifted(&times, shift) } else { times }
}
