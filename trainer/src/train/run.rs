//! The training loop: steps, progress bar, log, previews, checkpoints.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use tintype::burn::tensor::{Device, FloatDType, Tensor, TensorData};

use super::checkpoint::{self, State};
use super::comm::Comm;
use super::config::{Activations, Config};
use super::log::Log;
use super::record::Record;
use super::trainer::{Report, Trainer};
use tintype::files::write_whole;

/// A training run.
#[derive(Clone, Debug)]
pub struct Run {
    /// Configuration.
    pub config: Config,
    /// Output folder.
    pub out: PathBuf,
    /// Set by SIGINT or SIGTERM: stop after this step with a checkpoint.
    pub interrupted: Arc<AtomicBool>,
    /// Disable the progress bar.
    pub quiet: bool,
}

/// Outcome of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// After its last step.
    Done,
    /// By SIGINT or SIGTERM, with a checkpoint; the same command resumes.
    Interrupted,
}

/// Trains data-parallel, one thread per device; `build` creates a rank's trainer.
///
/// # Errors
///
/// * The folder cannot be written, or `run.batch` does not divide into devices and micro-batches.
/// * A system cannot be built, or a checkpoint there is of another network, seed or batch, or, unless
///   `run.allow_changes`, of other data or settings.
/// * A step, a preview, the log or a checkpoint fails.
///
/// # Panics
///
/// If a rank panics.
pub fn train(
    run: &Run,
    devices: &[Device],
    build: impl Fn(&Comm, &Device) -> Result<Box<dyn Trainer>> + Send + Sync + 'static,
) -> Result<Ended> {
    std::fs::create_dir_all(&run.out)
        .with_context(|| format!("--out {} cannot be written", run.out.display()))?;
    let batch = run.config.run().batch;
    let parts = devices.len() * run.config.run().accumulate;
    if !batch.is_multiple_of(parts) {
        bail!("run.batch = {batch} is not a multiple of {parts} (devices times accumulate)");
    }
    #[cfg(feature = "cuda")]
    let _collectives = (devices.len() > 1).then(|| {
        use tintype::burn::tensor::distributed as d;
        let config = d::DistributedConfig { all_reduce_op: d::ReduceOperation::Sum };
        let devices = devices.iter().map(|device| device.clone().inner()).collect();
        d::DistributedContext::init(devices, config)
    });
    // Trainers are built one after the other: the CPU's random generator, which initializes weights,
    // is global to the process.
    let build = Arc::new(Mutex::new(build));
    let (sender, ends) = std::sync::mpsc::channel();
    for (comm, device) in Comm::group(devices).into_iter().zip(devices.to_vec()) {
        let (run, build, sender) = (run.clone(), build.clone(), sender.clone());
        let work = move || {
            let system = {
                let build = build.lock().unwrap_or_else(|poison| poison.into_inner());
                build(&comm, &device)
            };
            system.and_then(|system| Rank { run: &run, comm, device, system }.train())
        };
        // All of a rank's device work happens in its one thread.
        std::thread::Builder::new()
            .name("training".into())
            .spawn(move || {
                let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                let _ = sender.send(end);
            })
            .context("a training thread cannot start")?;
    }
    drop(sender);
    // A rank that fails leaves the others waiting for it; the program ends with its error.
    let mut ended = Ended::Done;
    for end in ends {
        // The panic hook has already reported the panic.
        let end = end.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        if end == Ended::Interrupted {
            ended = Ended::Interrupted;
        }
    }
    Ok(ended)
}

/// A rank of the training.
struct Rank<'a> {
    run: &'a Run,
    comm: Comm,
    device: Device,
    system: Box<dyn Trainer>,
}

impl Rank<'_> {
    fn train(mut self) -> Result<Ended> {
        let config = self.run.config.run();
        let mut state = State {
            step: 0,
            skipped: 0,
            architecture: self.system.architecture(),
            seed: config.seed,
            batch: config.batch,
            record: Some(self.record()?),
        };
        let note = match self.latest()? {
            Some((path, found)) => {
                let note = checkpoint::check_same(&found, &state, &path, config.allow_changes)?;
                self.system.restore(&path)?;
                // From here on the settings of now are those of the run.
                state = State { record: state.record, ..found };
                note
            }
            None => self.system.initialized().map(String::from),
        };
        let mut progress = match self.comm.rank {
            0 => Some(ProgressLogger::open(self.run, &state, self.system.macs(), &self.device)?),
            _ => None,
        };
        if let (Some(progress), Some(note)) = (&mut progress, note) {
            progress.bar.suspend(|| eprintln!("note: {note}"));
            progress.log.note(state.step, &note)?;
        }
        while state.step < config.steps {
            let report = self.system.step(state.step)?;
            state.step += 1;
            state.skipped += u64::from(report.skipped);
            let asked = self.run.interrupted.load(Ordering::Relaxed) && self.comm.rank == 0;
            let stop = self.comm.sum_numbers(&[f64::from(u8::from(asked))])[0] > 0.0;
            let Some(progress) = &mut progress else {
                if stop {
                    return Ok(Ended::Interrupted);
                }
                continue;
            };
            progress.step(&state, &report, config.log_every)?;
            let due = |every: u64| state.step.is_multiple_of(every) || state.step == config.steps;
            if self.run.config.preview_every().is_some_and(due)
                && let Some(picture) = self.system.preview()?
            {
                let folder = self.run.out.join("previews");
                std::fs::create_dir_all(&folder)?;
                write_whole(&folder.join(format!("{:08}.png", state.step)), &picture.to_png(&[])?)?;
            }
            if self.run.config.evaluate_every().is_some_and(due) && !stop {
                match self.system.evaluate(&self.run.interrupted) {
                    Ok(Some(values)) => progress.evaluated(state.step, &values)?,
                    Ok(None) => {}
                    // A number about a run is not worth the run.
                    Err(error) => progress.bar.suspend(|| eprintln!("warning: {error:#}")),
                }
            }
            if stop || due(config.checkpoint_every) {
                checkpoint::write(&self.run.out, &state, &self.system.save()?)?;
                checkpoint::prune(&self.run.out, config.keep_last, config.keep_every)?;
            }
            if stop && state.step < config.steps {
                progress.bar.finish_and_clear();
                return Ok(Ended::Interrupted);
            }
        }
        if let Some(progress) = progress {
            progress.bar.finish_and_clear();
        }
        Ok(Ended::Done)
    }

    /// What the run records of its data and settings.
    fn record(&self) -> Result<Record> {
        Ok(Record { settings: self.run.config.recorded()?, data: self.system.data() })
    }

    /// The checkpoint from which all ranks resume; rank 0 cleans up before the others read.
    fn latest(&self) -> Result<Option<(PathBuf, State)>> {
        let found = match self.comm.rank {
            0 => checkpoint::latest(&self.run.out),
            _ => Ok(None),
        };
        self.comm.sum_numbers(&[0.0]);
        match self.comm.rank {
            0 => found,
            _ => checkpoint::latest(&self.run.out),
        }
    }
}

/// Progress bar and log: loss, throughput, memory, time left.
struct ProgressLogger {
    bar: ProgressBar,
    log: Log,
    batch: usize,
    /// FLOPs of one sample's forward and backward pass.
    flops: f64,
    /// Peak FLOP/s of the device; 0 if unknown.
    peak: f64,
    device: Device,
    /// Time and step of the last line of the log.
    since: (Instant, u64),
    /// Smoothed seconds per step.
    seconds: Option<f64>,
    last: Instant,
    sums: Vec<(String, f64, u64)>,
    /// The last metrics of samples, for the progress bar.
    evaluated: String,
}

impl ProgressLogger {
    fn open(run: &Run, state: &State, macs: f64, device: &Device) -> Result<Self> {
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
        Ok(Self {
            bar,
            log: Log::open(&run.out, state.step, config.tensorboard)?,
            batch: config.batch,
            flops: 6.0 * macs,
            peak,
            device: device.clone(),
            since: (Instant::now(), state.step),
            seconds: None,
            last: Instant::now(),
            sums: Vec::new(),
            evaluated: String::new(),
        })
    }

    fn step(&mut self, state: &State, report: &Report, log_every: u64) -> Result<()> {
        let took = self.last.elapsed().as_secs_f64();
        self.last = Instant::now();
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
        self.bar.set_message(format!(
            "loss {loss:.4}{}, {rate:.1} images/s{utilisation}, {:.1} GiB, {} left{skipped}",
            self.evaluated,
            memory as f64 / (1u64 << 30) as f64,
            indicatif::HumanDuration(Duration::from_secs_f64(left.clamp(0.0, 1e9))),
        ));
        if state.step.is_multiple_of(log_every) {
            self.write(state, memory)?;
        }
        Ok(())
    }

    /// Writes the metrics of samples.
    fn evaluated(&mut self, step: u64, values: &[(String, f64)]) -> Result<()> {
        let shown = values.iter().map(|(name, value)| format!("{name} {value:.3}"));
        let shown = shown.collect::<Vec<_>>().join(", ");
        self.bar.println(format!("step {step}: {shown}"));
        self.evaluated = format!(", {shown}");
        self.log.write(step, values)
    }

    /// Writes the means since the last line.
    fn write(&mut self, state: &State, memory: u64) -> Result<()> {
        let (start, from) = self.since;
        let seconds = start.elapsed().as_secs_f64();
        let rate = ((state.step - from) * self.batch as u64) as f64 / seconds;
        let mut values: Vec<(String, f64)> =
            self.sums.drain(..).map(|(name, sum, n)| (name, sum / n as f64)).collect();
        values.push(("images_per_second".into(), rate));
        if self.peak > 0.0 {
            values.push(("model_flop_utilisation".into(), rate * self.flops / self.peak));
        }
        values.push(("memory_bytes".into(), memory as f64));
        values.push(("skipped".into(), state.skipped as f64));
        self.log.write(state.step, &values)?;
        self.since = (Instant::now(), state.step);
        Ok(())
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

/// Peak FLOP/s of a few square matrix products in the activations' dtype.
fn measured_peak(device: &Device, precision: Activations) -> f64 {
    let device = device.clone().inner();
    let side = if device == Device::flex() { 512 } else { 4096 };
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

/// Whether a folder holds a run.
pub fn is_run(path: &Path) -> bool {
    path.join(checkpoint::FOLDER).is_dir()
}
