//! Results as a table and as JSON, and comparison with a baseline.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::{Distances, Roofline, Timing};

/// The result of one benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// Name with batch size, such as `forward 64`; the key of comparisons.
    pub name: String,
    /// Seconds per call in the median round.
    pub seconds: f64,
    /// Seconds per call in the fastest and the slowest round.
    pub spread: [f64; 2],
    /// Seconds of the first call, including compilation and autotuning.
    pub first_call: f64,
    /// Throughput in `unit`.
    pub rate: f64,
    /// Unit of the throughput.
    pub unit: &'static str,
    /// TFLOP/s, if FLOPs are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tflops: Option<f64>,
    /// Lower bound of the memory traffic in GB/s, if counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gbytes: Option<f64>,
}

impl Measurement {
    /// A measurement with `count` items per call.
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

    /// Adds the FLOPs per call.
    pub fn operations(mut self, flops: f64) -> Self {
        self.tflops = Some(flops / self.seconds / 1e12);
        self
    }

    /// Adds the minimum memory traffic per call in bytes.
    pub fn bytes(mut self, bytes: f64) -> Self {
        self.gbytes = Some(bytes / self.seconds / 1e9);
        self
    }
}

/// The results of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Program and version.
    pub program: String,
    /// Device.
    pub device: String,
    /// Dtype of weights and activations.
    pub precision: String,
    /// Network.
    pub network: String,
    /// Whether the reference implementation was used instead of the optimized kernels.
    pub plain: bool,
    /// Kernels that failed their self-test on this device and were disabled.
    pub rejected: Vec<&'static str>,
    /// Roofline of the device.
    pub roofline: Roofline,
    /// Measurements.
    pub results: Vec<Measurement>,
    /// Distances of samplers, where they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub samplers: Vec<Distances>,
}

/// Results of an earlier run or of another program.
#[derive(Clone, Debug, Deserialize)]
pub struct Baseline {
    /// Program and version.
    pub program: String,
    /// Device.
    pub device: String,
    /// Network.
    pub network: String,
    results: Vec<BaselineResult>,
}

#[derive(Clone, Debug, Deserialize)]
struct BaselineResult {
    name: String,
    rate: f64,
    unit: String,
}

impl Baseline {
    /// Reads the JSON of a [`Report`] or of the scripts in `tests/peers`.
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

    /// Speedup over this baseline, for each measurement that both have.
    pub fn ratios<'a>(&self, results: &'a [Measurement]) -> BTreeMap<&'a str, f64> {
        let result = |m: &Measurement| {
            self.results.iter().find(|result| result.name == m.name && result.unit == m.unit)
        };
        let ratio = |m: &'a Measurement| Some((m.name.as_str(), m.rate / result(m)?.rate));
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
    fn ratios_are_of_common_measurements() {
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
