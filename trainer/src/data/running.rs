//! Mean and spread of values as they come, in one pass (Welford, Technometrics 4(3), 1962), and statistics of latents
//! from them.

use tintype::generate::LatentStats;

/// Number, mean and squared differences of the values so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Running {
    count: f64,
    mean: f64,
    /// Sum of squared differences from the mean.
    squares: f64,
}

/// A channel that has the same value everywhere: nothing can be divided by its deviation.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "channel {channel} of the latents (from 0) is {value} everywhere, so that its deviation cannot normalise it; encode \
     with another autoencoder, or give other statistics (data.stats)"
)]
pub struct ConstantChannel {
    channel: usize,
    value: f32,
}

impl Running {
    /// One more value.
    pub fn add(&mut self, value: f32) {
        let value = f64::from(value);
        self.count += 1.0;
        let from_mean = value - self.mean;
        self.mean += from_mean / self.count;
        self.squares += from_mean * (value - self.mean);
    }

    /// One more value that is known by its distribution's mean and standard deviation.
    pub fn add_drawn(&mut self, mean: f32, std: f32) {
        self.add(mean);
        self.squares += f64::from(std).powi(2);
    }

    /// The mean; 0 of no values.
    pub fn mean(&self) -> f32 {
        self.mean as f32
    }

    /// The mean squared difference from the mean.
    pub fn population_variance(&self) -> f32 {
        (self.squares / self.count.max(1.0)) as f32
    }

    /// The root of the unbiased variance; 0 of a single value.
    fn deviation(&self) -> f32 {
        (self.squares / (self.count - 1.0).max(1.0)).sqrt() as f32
    }
}

/// Mean and unbiased standard deviation of each channel; not finite where values are not.
///
/// # Errors
///
/// If a channel is constant.
pub fn of_channels(channels: &[Running]) -> Result<LatentStats, ConstantChannel> {
    let constant = channels.iter().position(|channel| channel.deviation() == 0.0);
    if let Some(channel) = constant {
        return Err(ConstantChannel { channel, value: channels[channel].mean() });
    }
    let mean = channels.iter().map(Running::mean).collect();
    Ok(LatentStats::of_channels(mean, channels.iter().map(Running::deviation).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(values: &[f32]) -> Running {
        let mut running = Running::default();
        values.iter().for_each(|&value| running.add(value));
        running
    }

    #[test]
    fn one_pass_has_the_moments_of_two() {
        // Far from 0, where a difference of squares has no digits left in float32.
        let values = [10_000.5, 9_999.0, 10_001.25, 10_000.0, 9_998.75];
        let n = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let squares: f64 = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum();
        let running = running(&values);
        assert_eq!(running.mean(), mean as f32);
        assert!((f64::from(running.population_variance()) - squares / n).abs() < 1e-6);
        let stats = of_channels(&[running]).expect("it varies");
        assert!((f64::from(stats.std[0]) - (squares / (n - 1.0)).sqrt()).abs() < 1e-6);
    }

    #[test]
    fn a_channel_that_is_constant_is_named() {
        let (varied, constant) = (running(&[0.0, 1.0]), running(&[0.3; 1000]));
        let error = of_channels(&[varied, constant]).expect_err("nothing to divide by");
        assert_eq!(error, ConstantChannel { channel: 1, value: 0.3 });
        assert!(error.to_string().contains("channel 1 of the latents (from 0) is 0.3 everywhere"));
        assert!(of_channels(&[running(&[2.0])]).is_err(), "a single value has no deviation");
        // What is drawn varies, and what is not finite is told elsewhere.
        let mut drawn = Running::default();
        (0..3).for_each(|_| drawn.add_drawn(0.3, 0.5));
        let stats = of_channels(&[drawn, running(&[f32::NAN, 1.0])]).expect("nothing is constant");
        assert!((f64::from(stats.std[0]).powi(2) - 3.0 * 0.25 / 2.0).abs() < 1e-6);
        assert!(stats.std[1].is_nan());
    }
}
