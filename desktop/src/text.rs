//! Small texts for people.

use std::any::Any;

use tintype::generate::{ImageSpec, Settings};
use tintype::noise::Blend;

pub use tintype::labels::short;

/// A duration in seconds, rounded to what matters.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// The steps of a sampler: "8 steps".
pub fn steps(settings: &Settings) -> String {
    match (settings.sampler.is_adaptive(), settings.steps) {
        (true, _) => "steps as needed".into(),
        (false, 1) => "1 step".into(),
        (false, n) => format!("{n} steps"),
    }
}

/// The seed of a picture, or both, and how far it is on the way.
pub fn seed(spec: &ImageSpec) -> String {
    match spec.blend {
        None => format!("seed {}", spec.seed),
        Some(Blend { seed, amount }) => format!("seed {} to {seed} at {amount:.2}", spec.seed),
    }
}

/// The first line of what a panic says.
pub fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| payload.downcast_ref::<&str>().map(|s| s.to_string()));
    let text = text.unwrap_or_else(|| "for an unknown reason".into());
    text.lines().next().unwrap_or_default().to_string()
}
