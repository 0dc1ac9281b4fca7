//! `tintype bench`

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use tintype::Precision;
use tintype::device::{self, Kind};
use tintype::files::write_whole;

use super::numbers::at_least;
use super::terminal::shown_json;
use crate::bench::{
    Baseline, Bench, Clock, Distances, Measurement, Report, Subject, convolutions, decode,
    emoji_distances, encode, forward, forward_f16, gaussian_distances, inception, operations,
    optimizer, roofline, sample, scaling, train,
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Benchmarks to run [default: operations, forward, train, encode, decode and sample]
    #[arg(value_name = "WHAT", value_enum)]
    what: Vec<What>,
    /// Architecture, with random weights: a preset or `emoji` (`sample` takes its own weights) [default:
    /// hidit-xl-1-256 on a GPU, emoji on the CPU]
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Batch sizes [default: 1,64 on a GPU, 1,4 on the CPU]
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..), allow_negative_numbers = true)]
    batch: Vec<u16>,
    /// Batch sizes for training [default: those of --batch; without these 64,256 on a GPU]
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..), allow_negative_numbers = true)]
    train_batch: Vec<u16>,
    /// Of `operations`, `convolutions` and `optimizer`, only those whose names contain TEXT
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Image resolutions for `scaling`
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [256, 512, 1024], value_parser = at_least::<usize>(1), allow_negative_numbers = true)]
    sides: Vec<usize>,
    /// Sampling steps [default: the network's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), allow_negative_numbers = true)]
    steps: Option<u16>,
    /// Steps of the reference for `samplers`
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=10_000), allow_negative_numbers = true)]
    reference_steps: u16,
    /// Device: auto, cpu, cuda, wgpu or vulkan, optionally with an index (cuda:1)
    #[arg(long, default_value = "auto")]
    device: String,
    /// Dtype of the network: f32, f16 or bf16 [default: bf16 on CUDA, f32 elsewhere]
    #[arg(long)]
    precision: Option<Precision>,
    /// Timed rounds; the median is reported
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..), allow_negative_numbers = true)]
    rounds: u16,
    /// Warm-up calls
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..), allow_negative_numbers = true)]
    warm_up: u16,
    /// Print the speedup over the results in this file
    #[arg(long, value_name = "FILE")]
    compare: Vec<PathBuf>,
    /// Write the results as JSON, for --compare
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Operations of a transformer block
    Operations,
    /// Convolutions, norms and pooling of autoencoders and Inception
    Convolutions,
    /// Forward passes
    Forward,
    /// Forward passes with weights loaded from a file in float16
    ForwardF16,
    /// Training steps
    Train,
    /// Clipping of gradients, AdamW and EMA
    Optimizer,
    /// Encoding of images
    Encode,
    /// Decoding of latents
    Decode,
    /// Sampling, end to end
    Sample,
    /// Features for FID (Inception-v3)
    Inception,
    /// Distance of samplers from the solution of their ODE by evaluations (emoji, normal data)
    Samplers,
    /// Forward throughput in pixels at increasing resolution (HDiT)
    Scaling,
}

/// Runs the command.
///
/// # Errors
///
/// If the device, the network, the precision or a baseline is not usable, or a measurement fails.
pub fn run(args: Args) -> Result<()> {
    let baselines =
        args.compare.iter().map(|path| Baseline::open(path)).collect::<Result<Vec<_>>>()?;
    let found = device::choose(&args.device)?.found;
    let gpu = matches!(found.kind, Kind::Discrete | Kind::Integrated);
    let cuda = found.id.starts_with("cuda");
    let precision = args.precision.unwrap_or(if cuda { Precision::Bf16 } else { Precision::F32 });
    let clock = Clock { warm_up: args.warm_up.into(), rounds: args.rounds.into() };
    let bench = Bench {
        precision: precision.on(&found.device)?,
        device: found.device.clone(),
        clock,
        only: args.only.clone(),
    };
    let name = args.network.clone().unwrap_or(if gpu { "hidit-xl-1-256" } else { "emoji" }.into());
    let subject = Subject::named(&name)?;
    let or = |given: &[u16], default: &[u16]| -> Vec<usize> {
        let list = if given.is_empty() { default } else { given };
        list.iter().map(|&n| n.into()).collect()
    };
    let batches = or(&args.batch, if gpu { &[1, 64] } else { &[1, 4] });
    let train_batches = match gpu && args.batch.is_empty() {
        true => or(&args.train_batch, &[64, 256]),
        false => or(&args.train_batch, &batches.iter().map(|&n| n as u16).collect::<Vec<_>>()),
    };
    let last = *batches.last().expect("there is a default");
    let roofline = roofline(&bench);
    if !args.json {
        println!("{} on {} ({}), {precision}", subject.name, found.id, found.description);
        println!(
            "roofline: matrix product {:.2} TFLOP/s, copy {:.0} GB/s",
            roofline.product_tflops, roofline.copy_gbytes
        );
    }
    let mut results: Vec<Measurement> = Vec::new();
    let mut samplers: Vec<Distances> = Vec::new();
    let mut add = |measured: Vec<Measurement>| {
        for measurement in measured {
            if !args.json {
                let ratio = |baseline: &Baseline| {
                    let ratio =
                        *baseline.ratios(std::slice::from_ref(&measurement)).values().next()?;
                    Some(format!("  {ratio:.2} x {}", baseline.program))
                };
                println!("{measurement}{}", baselines.iter().filter_map(ratio).collect::<String>());
            }
            results.push(measurement);
        }
    };
    for what in args.wanted(&subject) {
        match what {
            What::Operations => {
                for &batch in &batches {
                    add(operations(&bench, &subject, batch));
                }
            }
            What::Convolutions => {
                for &batch in &batches {
                    add(convolutions(&bench, batch));
                }
            }
            What::Forward => {
                for &batch in &batches {
                    add(vec![forward(&bench, &subject, batch)?]);
                }
            }
            What::ForwardF16 => {
                for &batch in &batches {
                    add(vec![forward_f16(&bench, &subject, batch)?]);
                }
            }
            What::Train => {
                for &batch in &train_batches {
                    add(vec![train(&bench, &subject, batch)?]);
                }
            }
            What::Optimizer => add(optimizer(&bench, &subject)?),
            What::Encode => add(vec![encode(&bench, &subject, last)?]),
            What::Decode => add(vec![decode(&bench, &subject, last)?]),
            What::Sample => {
                add(vec![sample(&bench, &subject, last, args.steps.map(usize::from))?]);
            }
            What::Inception => add(vec![inception(&bench, last)]),
            What::Samplers => {
                ensure!(
                    subject.name == "emoji",
                    "samplers are compared on trained weights: use --network emoji"
                );
                let mut tell = |text: String| eprintln!("{text}");
                let steps = args.reference_steps.into();
                let measured = [
                    gaussian_distances()?,
                    emoji_distances(&found, precision, last, steps, &mut tell)?,
                ];
                if !args.json {
                    measured.iter().for_each(|distances| println!("{distances}"));
                }
                samplers.extend(measured);
            }
            What::Scaling => {
                for &side in &args.sides {
                    add(vec![scaling(&bench, &subject, side)?]);
                }
            }
        }
    }
    ensure!(
        args.only.is_empty() || !results.is_empty(),
        "no operation that was to be measured has {} in its name",
        args.only.join(" or ")
    );
    let report = Report {
        program: format!("Tintype {}", env!("CARGO_PKG_VERSION")),
        device: format!("{} ({})", found.id, found.description),
        precision: precision.to_string(),
        network: subject.name,
        plain: !tintype::shaders::uses_kernels(),
        rejected: tintype::shaders::rejected_kernels(),
        roofline,
        results,
        samplers,
    };
    if !args.json && !report.rejected.is_empty() {
        let kernels = report.rejected.join(" and ");
        println!("{kernels} failed the self-test on this GPU and were disabled");
    }
    if let Some(path) = &args.out {
        let text = serde_json::to_string_pretty(&report)?;
        write_whole(path, text.as_bytes())?;
    }
    if args.json {
        println!("{}", shown_json(&serde_json::to_string(&report)?));
    }
    Ok(())
}

impl Args {
    /// The requested benchmarks, or all that apply to the network.
    fn wanted(&self, subject: &Subject) -> Vec<What> {
        if !self.what.is_empty() {
            return self.what.clone();
        }
        let all = [
            What::Operations,
            What::Forward,
            What::Train,
            What::Encode,
            What::Decode,
            What::Sample,
        ];
        let on_pixels = subject.architecture.latent_space().is_none();
        let has = |what: &What| match what {
            What::Encode | What::Decode => subject.vae.is_some(),
            What::Sample => subject.vae.is_some() || on_pixels,
            _ => true,
        };
        all.into_iter().filter(has).collect()
    }
}
