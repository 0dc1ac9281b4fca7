//! What was measured, as a table and as JSON, beside what was measured before.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::{Ceilings, Timing};

/// One thing that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// What, with its batch: `forward 64`. Measurements are compared by this name.
    pub name: String,
    /// Seconds of a call, of the median round.
    pub seconds: f64,
    /// Of the fastest and the slowest round.
    pub spread: [f64; 2],
    /// Of the first call, with all compiling and tuning.
    pub first_call: f64,
    /// How many of `unit` a second.
    pub rate: f64,
    /// What is counted.
    pub unit: &'static str,
    /// 10¹² operations a second, where they are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tflops: Option<f64>,
    /// 10⁹ bytes a second that must at least move, where they are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gbytes: Option<f64>,
}

impl Measurement {
    /// Of `count` things a call.
    pub fn new(name: impl Into<String>, timing: Timing, count: f64, unit: &'static str) -> Self {
        Self {
            name: name.into(),
            seconds: timing.median,
            spread: [timing.fastest, timing.slowest],
            first_call: timing.first,
            rate: count / timing.median,
            unit,
            tflops: None,
            gbytes: None,
        }
    }

    /// With the floating-point operations of a call.
    pub fn operations(mut self, flops: f64) -> Self {
        self.tflops = Some(flops / self.seconds / 1e12);
        self
    }

    /// With the bytes that a call must move.
    pub fn bytes(mut self, bytes: f64) -> Self {
        self.gbytes = Some(bytes / self.seconds / 1e9);
        self
    }
}

/// Everything that one run measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What computed.
    pub program: String,
    /// Where.
    pub device: String,
    /// In what precision.
    pub precision: String,
    /// Which network.
    pub network: String,
    /// Whether kernels were left out.
    pub plain: bool,
    /// Kernels that failed their trial on this device, and were left out.
    pub rejected: Vec<&'static str>,
    /// What the device can do.
    pub ceilings: Ceilings,
    /// What was measured.
    pub results: Vec<Measurement>,
}

/// What was measured before, or by another program.
#[derive(Clone, Debug, Deserialize)]
pub struct Baseline {
    /// What computed.
    pub program: String,
    /// Where.
    pub device: String,
    /// Which network.
    pub network: String,
    results: Vec<Known>,
}

#[derive(Clone, Debug, Deserialize)]
struct Known {
    name: String,
    rate: f64,
    unit: String,
}

impl Baseline {
    /// Reads what [`Report`] or the scripts in `tests/peers` wrote.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is not JSON of this shape, or has a rate that is not positive.
    pub fn open(path: &Path) -> Result<Self> {
        let file = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {file}"))?;
        let baseline: Self = serde_json::from_str(&text)
            .with_context(|| format!("{file} is not what `tintype bench --out` writes"))?;
        if let Some(bad) = baseline.results.iter().find(|r| !(r.rate > 0.0 && r.rate.is_finite())) {
            bail!("{file}: the rate of {:?} is not a positive number", bad.name);
        }
        Ok(baseline)
    }

    /// The ratio of each measurement that both have to this baseline's: over 1 is faster.
    pub fn ratios<'a>(&self, results: &'a [Measurement]) -> BTreeMap<&'a str, f64> {
        let known = |m: &Measurement| {
            self.results.iter().find(|known| known.name == m.name && known.unit == m.unit)
        };
        let ratio = |m: &'a Measurement| Some((m.name.as_str(), m.rate / known(m)?.rate));
        results.iter().filter_map(ratio).collect()
    }
}

impl fmt::Display for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, seconds, spread, rate, unit, .. } = self;
        let around = 50.0 * (spread[1] - spread[0]) / seconds;
        write!(
            f,
            "{name:<34} {:>10.3} ms ±{around:>3.0} %  {rate:>10.4} {unit:<9}",
            1e3 * seconds
        )?;
        if let Some(tflops) = self.tflops {
            write!(f, " {tflops:>9.3} TFLOP/s")?;
        }
        if let Some(gbytes) = self.gbytes {
            write!(f, " {gbytes:>9.1} GB/s")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_what_both_measured() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("before.json");
        std::fs::write(
            &path,
            r#"{"program": "PyTorch", "device": "a card", "network": "n", "results": [
                {"name": "forward 64", "rate": 2000.0, "unit": "images/s"},
                {"name": "decode 64", "rate": 10.0, "unit": "images/s"},
                {"name": "sample 64", "rate": 3.0, "unit": "samples/s"}]}"#,
        )
        .unwrap();
        let timing = Timing { median: 0.064, fastest: 0.06, slowest: 0.07, first: 1.0 };
        let results = [
            Measurement::new("forward 64", timing, 64.0, "images/s").operations(1e12),
            Measurement::new("train 64", timing, 64.0, "images/s"),
            Measurement::new("sample 64", timing, 64.0, "images/s"),
        ];
        let ratios = Baseline::open(&path).unwrap().ratios(&results);
        assert_eq!(ratios.len(), 1);
        assert!((ratios["forward 64"] - 0.5).abs() < 1e-12);
        assert!((results[0].tflops.unwrap() - 1.0 / 0.064).abs() < 1e-9);
        std::fs::write(
            &path,
            r#"{"program": "", "device": "", "network": "", "results": [
            {"name": "forward 64", "rate": 0.0, "unit": "images/s"}]}"#,
        )
        .unwrap();
        assert!(Baseline::open(&path).unwrap_err().to_string().contains("forward 64"));
    }
}
