//! The progress of a run: a bar, or lines where nobody looks at a terminal, and the log.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use tintype::burn::tensor::{Device, FloatDType, Tensor, TensorData};
use tintype::labels::printable;

use super::checkpoint::State;
use super::config::Activations;
use super::log::Log;
use super::run::Run;
use super::trainer::Report;
use super::warnings::Warnings;

/// The shortest time between two lines of progress.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// Progress bar and log: loss, throughput, memory, time left.
pub struct ProgressLogger {
    bar: ProgressBar,
    /// Whether lines are printed instead of the bar, and when the last one was.
    lines: bool,
    line: Option<Instant>,
    /// `None` while it cannot be opened.
    log: Option<Log>,
    /// The folder of the run, the step from which it went on, and whether there are event files.
    place: (PathBuf, u64, bool),
    batch: usize,
    /// FLOPs of one sample's forward and backward pass.
    flops: f64,
    /// Peak FLOP/s of the device; 0 if unknown.
    peak: f64,
    device: Device,
    /// Seconds of the steps since the last line of the log, and their number.
    since: (f64, u64),
    /// Smoothed seconds per step.
    seconds: Option<f64>,
    sums: Vec<(String, f64, u64)>,
    /// The last metrics of samples, for the message.
    evaluated: String,
}

impl ProgressLogger {
    /// Of a run that begins or goes on at `state`.
    ///
    /// * `macs`: of one sample's forward pass
    /// * `ranks`: devices like this one that share a step
    pub fn open(run: &Run, state: &State, macs: f64, device: &Device, ranks: usize) -> Self {
        let config = run.config.run();
        let bar = match run.quiet {
            true => ProgressBar::hidden(),
            false => ProgressBar::new(config.steps),
        };
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(500));
        let peak = match (config.peak_tflops, macs > 0.0) {
            (Some(tflops), _) => tflops * 1e12,
            (None, true) => measured_peak(device, config.precision),
            (None, false) => 0.0,
        };
        Self {
            bar,
            lines: !run.quiet && !io::stderr().is_terminal(),
            line: None,
            log: None,
            place: (run.out.clone(), state.step, config.tensorboard),
            batch: config.batch,
            flops: 6.0 * macs,
            // A machine's ranks on the CPU share its cores.
            peak: if is_cpu(device) { peak } else { peak * ranks as f64 },
            device: device.clone(),
            since: (0.0, 0),
            seconds: None,
            sums: Vec::new(),
            evaluated: String::new(),
        }
    }

    /// The bar.
    pub fn bar(&self) -> ProgressBar {
        self.bar.clone()
    }

    /// After a step.
    ///
    /// * `took`: the time that it took the device
    pub fn step(
        &mut self,
        state: &State,
        report: &Report,
        took: Duration,
        log_every: u64,
        warnings: &mut Warnings,
    ) {
        let took = took.as_secs_f64();
        self.since = (self.since.0 + took, self.since.1 + 1);
        let seconds = self.seconds.map_or(took, |s| 0.9 * s + 0.1 * took);
        self.seconds = Some(seconds);
        if !report.skipped {
            for (name, value) in &report.values {
                match self.sums.iter_mut().find(|(n, ..)| n == name) {
                    Some(last) if name == "lr" => last.1 = *value, // not averaged
                    Some((_, sum, n)) => (*sum, *n) = (*sum + value, *n + 1),
                    None => self.sums.push((name.clone(), *value, 1)),
                }
            }
        }
        let rate = self.batch as f64 / seconds;
        let left = seconds * (self.bar.length().unwrap_or(0).saturating_sub(state.step)) as f64;
        let memory = memory_in_use(&self.device);
        let loss = report.values.iter().find(|(name, _)| name == "loss").map_or(f64::NAN, |v| v.1);
        let utilisation = if self.peak > 0.0 {
            format!(", {:.0} % of peak", 100.0 * rate * self.flops / self.peak)
        } else {
            String::new()
        };
        let skipped = match state.skipped {
            0 => String::new(),
            n => format!(", {n} skipped"),
        };
        self.bar.set_position(state.step);
        let message = format!(
            "loss {loss:.4}{}, {rate:.1} images/s{utilisation}, {:.1} GiB, {} left{skipped}",
            self.evaluated,
            memory as f64 / (1u64 << 30) as f64,
            indicatif::HumanDuration(Duration::from_secs_f64(left.clamp(0.0, 1e9))),
        );
        if state.step.is_multiple_of(log_every) {
            if self.lines && self.line.is_none_or(|last| last.elapsed() >= BETWEEN_LINES) {
                self.line = Some(Instant::now());
                let steps = self.bar.length().unwrap_or(0);
                // `eprintln` would panic where the disk is full.
                let _ = writeln!(io::stderr(), "step {}/{steps}: {message}", state.step);
            }
            if let Err(error) = self.write(state, memory) {
                warnings.tell("log", &error);
            }
        }
        self.bar.set_message(message);
    }

    /// Writes the means since the last line.
    fn write(&mut self, state: &State, memory: u64) -> Result<()> {
        let (seconds, steps) = std::mem::take(&mut self.since);
        let rate = (steps * self.batch as u64) as f64 / seconds;
        let mut values: Vec<(String, f64)> =
            self.sums.drain(..).map(|(name, sum, n)| (name, sum / n as f64)).collect();
        values.push(("images_per_second".into(), rate));
        if self.peak > 0.0 {
            values.push(("model_flop_utilisation".into(), rate * self.flops / self.peak));
        }
        values.push(("memory_bytes".into(), memory as f64));
        values.push(("skipped".into(), state.skipped as f64));
        self.log()?.write(state.step, &values)
    }

    /// The log, opened when it is first written.
    fn log(&mut self) -> Result<&mut Log> {
        match &mut self.log {
            Some(log) => Ok(log),
            none => {
                let (run, step, tensorboard) = &self.place;
                Ok(none.insert(Log::open(run, *step, *tensorboard)?))
            }
        }
    }

    /// Prints a line above the bar.
    fn say(&self, line: &str) {
        // `eprintln` would panic where the disk is full.
        self.bar.suspend(|| {
            let _ = writeln!(io::stderr(), "{}", printable(line));
        });
    }

    /// Tells how the run begins.
    pub fn note(&mut self, step: u64, note: &str, warnings: &mut Warnings) {
        self.say(&format!("note: {note}"));
        if let Err(error) = self.log().and_then(|log| log.note(step, note)) {
            warnings.tell("log", &error);
        }
    }

    /// Tells metrics of samples.
    pub fn evaluated(&mut self, step: u64, values: &[(String, f64)], warnings: &mut Warnings) {
        let shown = values.iter().map(|(name, value)| format!("{name} {value:.3}"));
        let shown = shown.collect::<Vec<_>>().join(", ");
        self.say(&format!("step {step}: {shown}"));
        self.evaluated = format!(", {shown}");
        if let Err(error) = self.log().and_then(|log| log.write(step, values)) {
            warnings.tell("log", &error);
        }
    }
}

impl Drop for ProgressLogger {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Bytes in use by the device's allocator, or by the process on the CPU.
fn memory_in_use(device: &Device) -> u64 {
    if let Some(usage) = device.clone().inner().memory_pool_usage() {
        return usage.bytes_in_use;
    }
    let Ok(pid) = sysinfo::get_current_pid() else { return 0 };
    let mut system = sysinfo::System::new();
    system.refresh_processes_specifics(
        sysinfo::ProcessesToUpdate::Some(&[pid]),
        false,
        sysinfo::ProcessRefreshKind::nothing().with_memory(),
    );
    system.process(pid).map_or(0, |process| process.memory())
}

fn is_cpu(device: &Device) -> bool {
    device.clone().inner() == Device::flex()
}

/// Peak FLOP/s of a few square matrix products in the activations' dtype.
fn measured_peak(device: &Device, precision: Activations) -> f64 {
    let side = if is_cpu(device) { 512 } else { 4096 };
    let device = device.clone().inner();
    let dtype = match precision {
        Activations::F32 => FloatDType::F32,
        Activations::Bf16 => FloatDType::BF16,
    };
    // Not zeros, on which products can be faster; not the random generator, which ranks share.
    let values: Vec<f32> =
        (0..side * side).map(|i| (i * 7919 % 1009) as f32 / 1009.0 - 0.5).collect();
    let x = Tensor::<2>::from_data(TensorData::new(values, [side, side]), &device).cast(dtype);
    let seconds = |_| {
        let start = Instant::now();
        let product = x.clone().matmul(x.clone());
        let _ = product.slice([0..1, 0..1]).into_data();
        start.elapsed().as_secs_f64()
    };
    let best = (0..8).map(seconds).fold(f64::INFINITY, f64::min);
    2.0 * (side as f64).powi(3) / best
}
