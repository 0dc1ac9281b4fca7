//! `tintype info`

use anyhow::Result;
use serde_json::{Value, json};
use tintype::device::{self, Kind};
use tintype::model::vavae::VaeConfig;
use tintype::model::{detect, vae_config};
use tintype::weights::{Weights, WeightsError, compare};

use tintype::generate::{ModelFiles, bytes};

use super::model::{AverageArgs, ModelArgs, NamesArgs};
use super::proposal::{Advice, advise};
use super::published::{DownloadArgs, FileOptions, Library};

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
        println!("{report}");
        return Ok(());
    }
    println!("file      {}", weights.file);
    println!("network   {network}: {config}");
    println!("weights   {} tensors, {values} values, {}", weights.tensors.len(), types.join(", "));
    println!("fit       {fit}");
    for (name, reason) in &weights.unreadable {
        println!("unreadable {name}: {reason}");
    }
    for note in &notes {
        println!("note      {note}");
    }
    for (key, value) in &weights.metadata {
        if !["config", "classes", "args"].contains(&key.as_str()) {
            println!("{key:<9} {value}");
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
        Err(error) => match vae_config(weights) {
            Ok(config) => ("VA-VAE".into(), json!(config), vae_fit(&config, weights)),
            Err(reason) if matches!(error, WeightsError::Autoencoder { .. }) => unknown(&reason),
            Err(_) => unknown(&error),
        },
    }
}

fn vae_fit(config: &VaeConfig, weights: &Weights) -> String {
    let device = tintype::burn::tensor::Device::flex();
    let is_encoder = |name: &str| name.starts_with("encoder.") || name.starts_with("quant_conv.");
    let mut parts = Vec::new();
    let encoder = weights.clone().filtered(is_encoder);
    if let (false, Ok(network)) = (encoder.tensors.is_empty(), config.init_encoder(&device)) {
        parts.push(format!("encoder: {}", compare(&network, &encoder)));
    }
    let decoder = weights.clone().filtered(|name| !is_encoder(name));
    if let (false, Ok(network)) = (decoder.tensors.is_empty(), config.init_decoder(&device)) {
        parts.push(format!("decoder: {}", compare(&network, &decoder)));
    }
    parts.join("; ")
}
