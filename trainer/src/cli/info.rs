//! `tintype info`

use anyhow::Result;
use serde_json::{Value, json};
use tintype::device::{self, Kind};
use tintype::labels::printable;
use tintype::model::dinov2::DinoV2;
use tintype::model::{Autoencoder, autoencoder_config, detect, rae};
use tintype::weights::{Weights, WeightsError, compare};

use tintype::generate::{LatentStats, ModelFiles, bytes};

use super::model::{AverageArgs, ModelArgs, NamesArgs};
use super::proposal::{Advice, advise};
use super::published::{DownloadArgs, FileOptions, Library};
use super::terminal::shown_json;
use crate::bench::Subject;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Path of the checkpoint, an address or a published model's name [default: the embedded emoji model]
    #[arg(value_name = "NAME|FILE")]
    file: Option<std::path::PathBuf>,
    /// Model configuration, if the checkpoint does not contain it
    #[arg(long, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    #[command(flatten)]
    average: AverageArgs,
    #[command(flatten)]
    names: NamesArgs,
    /// Network that the checkpoint is of, if its names do not tell: a preset (see docs/weights.md) or
    /// `emoji`; a table of tensor names is proposed for it
    #[arg(long = "as", value_name = "NETWORK")]
    network: Option<String>,
    #[command(flatten)]
    download: DownloadArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
///
/// If the file or the table of names cannot be read, there is no network of the name, or there is no device.
pub fn run(mut args: Args) -> Result<()> {
    let library = Library::of_process();
    let mut options = FileOptions::new(&library);
    if let Some(file) = &mut args.file {
        options.any(file)?;
    }
    options.local("--config", args.config.as_deref());
    options.local("--names", args.names.names.as_deref());
    args.network.as_deref().map(Subject::named).transpose()?;
    // Standard output is one JSON document.
    options.resolve(args.download, false)?;
    let model = ModelArgs {
        model: args.file,
        config: args.config,
        average: args.average,
        names: args.names,
    };
    let files = ModelFiles::open(&model.paths())?;
    let weights = &files.model;
    let mut types: Vec<String> =
        weights.tensors.values().map(|v| format!("{:?}", v.dtype)).collect();
    types.sort();
    types.dedup();
    let values: usize = weights.tensors.values().map(|v| v.len()).sum();
    let (network, config, fit) = describe(weights);
    let advice = advise(weights, args.network.as_deref())?;
    let told = match &advice {
        Advice::Name(sentence) => Some(sentence.clone()),
        _ => None,
    };
    let notes: Vec<String> = files.notes().into_iter().chain(told).collect();
    let devices = device::list();
    let chosen = device::choose("auto")?;
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let report = json!({
        "file": weights.file,
        "network": network,
        "config": config,
        "fit": fit,
        "unreadable": weights.unreadable,
        "notes": notes,
        "proposal": advice.json(),
        "tensors": weights.tensors.len(),
        "values": values,
        "types": types,
        "fingerprint": weights.fingerprint(),
        "devices": devices.iter().map(|d| json!({
            "id": d.id, "description": d.description, "software": d.kind == Kind::Software, "memory": d.memory,
        })).collect::<Vec<_>>(),
        "chosen": {"id": chosen.found.id, "reason": chosen.reason},
        "memory": {"total": system.total_memory(), "available": system.available_memory()},
        "threads": std::thread::available_parallelism().map_or(1, usize::from),
    });
    if args.json {
        println!("{}", shown_json(&report.to_string()));
        return Ok(());
    }
    println!("file      {}", printable(&weights.file));
    println!("network   {network}: {config}");
    println!("weights   {} tensors, {values} values, {}", weights.tensors.len(), types.join(", "));
    println!("fit       {}", printable(&fit));
    for (name, reason) in &weights.unreadable {
        println!("unreadable {}: {}", printable(name), printable(reason));
    }
    for note in &notes {
        println!("note      {}", printable(note));
    }
    for (key, value) in &weights.metadata {
        if !["config", "classes", "args"].contains(&key.as_str()) {
            println!("{:<9} {}", printable(key), printable(value));
        }
    }
    println!();
    for found in &devices {
        let mark = if found.id == chosen.found.id { "*" } else { " " };
        let software = if found.kind == Kind::Software { ", software" } else { "" };
        let memory = found.memory.map_or(String::new(), |n| format!(", {}", bytes(n)));
        println!("device  {mark} {:<9} {}{memory}{software}", found.id, found.description);
    }
    println!("chosen    {} because {}", chosen.found.id, chosen.reason);
    println!(
        "memory    {} free of {}, {} threads",
        bytes(system.available_memory()),
        bytes(system.total_memory()),
        report["threads"]
    );
    if let Advice::Table { network, table } = &advice {
        println!();
        println!(
            "names     proposed for {network}; check them, save them as a file, and pass it with --names"
        );
        println!();
        print!("{table}");
    }
    Ok(())
}

/// The network in a checkpoint, its configuration, and how the weights match it.
fn describe(weights: &Weights) -> (String, Value, String) {
    let unknown = |e: &dyn std::fmt::Display| (String::from("unknown"), Value::Null, e.to_string());
    let device = tintype::burn::tensor::Device::flex();
    match detect(weights) {
        Ok(architecture) => {
            let untrained = architecture.untrained(&device);
            let fit = untrained
                .map_or_else(|e| e.to_string(), |network| network.compare(weights).to_string());
            (architecture.name().into(), architecture.config(), fit)
        }
        Err(error) => match autoencoder_config(weights) {
            Ok(config) => (config.name().into(), config.config(), halves(&config, weights)),
            Err(reason) if matches!(error, WeightsError::Autoencoder { .. }) => unknown(&reason),
            Err(_) => beside_networks(weights).unwrap_or_else(|| unknown(&error)),
        },
    }
}

/// How the halves of an autoencoder fit, those that are there.
fn halves(config: &Autoencoder, weights: &Weights) -> String {
    let device = tintype::burn::tensor::Device::flex();
    let encoder = match config {
        Autoencoder::Vae(config) => {
            let is_encoder =
                |name: &str| name.starts_with("encoder.") || name.starts_with("quant_conv.");
            let half = weights.clone().filtered(is_encoder);
            let network = config.init_encoder(&device).ok().filter(|_| !half.tensors.is_empty());
            network.map(|network| compare(&network, &half).to_string())
        }
        Autoencoder::Rae(_) => dinov2(rae::encoder_part(weights.clone())).map(|(_, _, fit)| fit),
    };
    let half = config.decoder_part(weights.clone());
    let network = config.init_decoder(&device).ok().filter(|_| !half.tensors.is_empty());
    let decoder = network.map(|network| compare(&network, &half));
    let encoder = encoder.map(|fit| format!("encoder: {fit}"));
    let decoder = decoder.map(|fit| format!("decoder: {fit}"));
    encoder.into_iter().chain(decoder).collect::<Vec<_>>().join("; ")
}

/// What goes with networks and is none of them: DINOv2, which encodes images, and statistics of latents.
fn beside_networks(weights: &Weights) -> Option<(String, Value, String)> {
    dinov2(weights.clone()).or_else(|| {
        let stats = LatentStats::from_weights(weights).ok()?;
        let of = if stats.is_of_channels() { "each channel" } else { "each position" };
        let shape = json!({"shape": stats.shape});
        Some(("statistics of latents".into(), shape, format!("mean and deviation of {of}")))
    })
}

fn dinov2(weights: Weights) -> Option<(String, Value, String)> {
    let device = tintype::burn::tensor::Device::flex();
    match DinoV2::inspect(weights, &device) {
        Ok(found) => found.map(|(config, fit)| ("DINOv2".into(), json!(config), fit.to_string())),
        Err(error) => Some(("DINOv2".into(), Value::Null, error.to_string())),
    }
}
