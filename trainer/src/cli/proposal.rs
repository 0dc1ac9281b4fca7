//! The table of names that `tintype info` proposes for a checkpoint whose tensors have other names.

use anyhow::Result;
use serde_json::{Value, json};
use tintype::burn::tensor::Device;
use tintype::generate::LatentStats;
use tintype::model::dinov2::is_dinov2;
use tintype::model::{Architecture, autoencoder_config, detect};
use tintype::preset;
use tintype::weights::{Proposal, Report, Weights, WeightsError, propose, shared_shapes};

use crate::bench::Subject;

/// Shapes that a checkpoint and its network share at least, over all of both.
const CLEAR: f64 = 0.9;

/// What can be done about the names of a checkpoint.
pub enum Advice {
    /// Nothing: they are right, or shapes do not help.
    None,
    /// To say which network it is.
    Name(String),
    /// To use a table.
    Table {
        /// The network that it is for.
        network: String,
        /// The table.
        table: Proposal,
    },
}

impl Advice {
    /// The proposal as JSON; null without one.
    pub fn json(&self) -> Value {
        match self {
            Self::Table { network, table } => json!({
                "network": network, "table": table.to_string(), "rules": table.rules,
                "ambiguous": table.ambiguous, "absent": table.absent, "displaced": table.displaced,
            }),
            _ => Value::Null,
        }
    }
}

/// A network that a checkpoint may be of.
struct Candidate {
    name: String,
    layout: Vec<(String, Vec<usize>)>,
    report: Report,
}

impl Candidate {
    /// `None` where the configuration describes no network.
    fn new(name: &str, architecture: &Architecture, weights: &Weights) -> Option<Self> {
        let network = architecture.untrained(&Device::flex()).ok()?;
        let (layout, report) = (network.layout(), network.compare(weights));
        Some(Self { name: name.into(), layout, report })
    }

    /// How far its shapes are the checkpoint's.
    fn shared(&self, weights: &Weights) -> f64 {
        shared_shapes(&self.layout, weights)
    }

    fn advice(&self, weights: &Weights) -> Advice {
        let table = propose(&self.layout, weights);
        match table.is_empty() {
            true => Advice::None,
            false => Advice::Table { network: self.name.clone(), table },
        }
    }
}

/// What to do about a checkpoint's names. Its network is the one of that name; else what is detected in it, or the
/// preset that has the shapes of its tensors.
///
/// # Errors
///
/// If there is no network of the name.
pub fn advise(weights: &Weights, named: Option<&str>) -> Result<Advice> {
    if let Some(name) = named {
        let subject = Subject::named(name)?;
        let candidate = Candidate::new(name, &subject.architecture, weights);
        return Ok(candidate.map_or(Advice::None, |candidate| candidate.advice(weights)));
    }
    let detected = detect(weights);
    let is_known = || {
        autoencoder_config(weights).is_ok()
            || is_dinov2(weights)
            || LatentStats::from_weights(weights).is_ok()
    };
    // An autoencoder, an encoder or statistics are no network.
    if matches!(detected, Err(WeightsError::Autoencoder { .. })) || detected.is_err() && is_known()
    {
        return Ok(Advice::None);
    }
    let is_unknown = matches!(detected, Err(WeightsError::Format { .. }));
    let found = detected.ok().and_then(|a| Candidate::new(a.name(), &a, weights));
    if found.as_ref().is_some_and(|found| found.report.fits() && found.report.unexpected.is_empty())
    {
        return Ok(Advice::None);
    }
    // A Hi-DiT whose pixel branch has other names is taken for a SiT, whose tensors are but a part of it.
    let least = found.as_ref().map_or(0.0, |found| found.shared(weights));
    let presets = presets(weights);
    let most = presets.iter().map(|preset| preset.shared(weights)).fold(0.0, f64::max);
    if most >= CLEAR && most > least {
        let best = presets.iter().filter(|preset| preset.shared(weights) >= most);
        return Ok(match best.collect::<Vec<_>>().as_slice() {
            [preset] => preset.advice(weights),
            several if several.iter().any(|preset| preset.report.fits()) => Advice::None,
            several => {
                let names: Vec<&str> = several.iter().map(|preset| preset.name.as_str()).collect();
                Advice::Name(format!(
                    "{}: it has the shapes of {}; --as NETWORK says which it is",
                    weights.file,
                    names.join(" and of ")
                ))
            }
        });
    }
    Ok(match found {
        Some(found) if !found.report.fits() => found.advice(weights),
        None if is_unknown => Advice::Name(format!(
            "{}: if it is a network under other names, --as NETWORK proposes a table of them",
            weights.file
        )),
        _ => Advice::None,
    })
}

/// All presets, and the emoji model where the program has it.
fn presets(weights: &Weights) -> Vec<Candidate> {
    let emoji = Subject::named("emoji").ok().map(|subject| (subject.name, subject.architecture));
    let presets = preset::all().into_iter().map(|p| (p.name.to_string(), p.architecture));
    let all = presets.chain(emoji);
    all.filter_map(|(name, architecture)| Candidate::new(&name, &architecture, weights)).collect()
}
