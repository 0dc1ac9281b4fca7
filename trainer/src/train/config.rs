//! The training configuration.
//!
//! An unknown key in any table is an error, and one that the recipe does not use.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tintype::model::ditdh::DitDhConfig;
use tintype::model::hdit::HDiTConfig;
use tintype::model::hidit::HiDiTConfig;
use tintype::model::imf::ImfConfig;
use tintype::model::jit::JitConfig;
use tintype::model::lightningdit::LightningDiTConfig;
use tintype::model::pmf::PmfConfig;
use tintype::model::rae::RaeDecoderConfig;
use tintype::model::vavae::VaeConfig;

use super::adamw::AdamWConfig;
use super::ditdh::DitDhLoss;
use super::ema::EmaConfigs;
use super::evaluate::EvaluateConfig;
use super::hdit::HDiTLoss;
use super::hidit::HiDiTLoss;
use super::jit::JitLoss;
use super::lightningdit::LightningDiTLoss;
use super::meanflow::draws::MeanFlowLoss;
use super::meanflow::pmf::PmfLoss;
use super::preview::PreviewConfig;
use super::rae_decoder::RaeDecoderLoss;
pub use super::tables::{
    Activations, DitDhData, EncodedData, ImageData, Init, LatentData, PmfData, RaeDecoderData,
    RunConfig, VaeData,
};
use super::vae::VaeLoss;

/// A training configuration, by recipe.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "recipe", rename_all = "lowercase")]
pub enum Config {
    /// Hi-DiT, stage 1 or 2.
    HiDiT(Recipe<HiDiTConfig, HiDiTLoss, LatentData>),
    /// LightningDiT.
    LightningDiT(Recipe<LightningDiTConfig, LightningDiTLoss, LatentData>),
    /// HDiT.
    HDiT(Recipe<HDiTConfig, HDiTLoss, ImageData>),
    /// iMF.
    MeanFlow(Recipe<ImfConfig, MeanFlowLoss, LatentData>),
    /// pMF, which files call `meanflow`, too.
    Pmf(Recipe<PmfConfig, PmfLoss, PmfData>),
    /// JiT.
    Jit(Recipe<JitConfig, JitLoss, ImageData>),
    /// DiT-DH.
    DitDh(Recipe<DitDhConfig, DitDhLoss, DitDhData>),
    /// VA-VAE.
    Vae(Recipe<VaeConfig, VaeLoss, VaeData>),
    /// RAE's decoder.
    #[serde(rename = "rae-decoder")]
    RaeDecoder(Recipe<RaeDecoderConfig, RaeDecoderLoss, RaeDecoderData>),
}

/// The tables that all recipes share.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recipe<M, L, D> {
    /// The network: a `preset`, explicit hyperparameters, or a preset with overrides.
    pub model: M,
    /// The data.
    pub data: D,
    /// The losses.
    pub loss: L,
    /// Steps, batch, precision.
    pub run: RunConfig,
    /// AdamW or Muon.
    pub optimizer: AdamWConfig,
    /// One EMA or several; not used by the VA-VAE.
    #[serde(default)]
    pub ema: Option<EmaConfigs>,
    /// Initialization of the weights.
    #[serde(default)]
    pub init: Init,
    /// Previews.
    #[serde(default)]
    pub preview: Option<PreviewConfig>,
    /// Evaluation of samples during training; not used by autoencoders.
    #[serde(default)]
    pub evaluate: Option<EvaluateConfig>,
}

impl Config {
    /// Steps, batch, precision.
    pub fn run(&self) -> &RunConfig {
        self.shared().run
    }

    /// Overrides the number of steps; the schedule of the learning rate stays.
    pub fn set_steps(&mut self, steps: u64) {
        self.shared_mut().0.steps = steps;
    }

    /// Steps between previews.
    pub fn preview_every(&self) -> Option<u64> {
        self.shared().preview.map(|p| p.every)
    }

    /// Steps between evaluations.
    pub fn evaluate_every(&self) -> Option<u64> {
        self.shared().evaluate.map(|e| e.every)
    }

    /// Whether samples are evaluated after so many steps.
    pub fn evaluates_at(&self, step: u64) -> bool {
        let due = |every: u64| step == self.run().steps || step.is_multiple_of(every);
        self.evaluate_every().is_some_and(due)
    }

    /// Whether something looks at the weights after so many steps: a checkpoint, a preview, an evaluation, or the end.
    pub fn is_due(&self, step: u64) -> bool {
        let every =
            [Some(self.run().checkpoint_every), self.preview_every(), self.evaluate_every()];
        step == self.run().steps || every.into_iter().flatten().any(|n| step.is_multiple_of(n))
    }

    /// All settings.
    ///
    /// # Errors
    ///
    /// If a path is not Unicode.
    pub fn whole(&self) -> Result<Value> {
        Ok(serde_json::to_value(self)?)
    }

    /// The settings that must stay when a run is resumed, by table. Free are steps (but where they end a schedule), the intervals of log,
    /// checkpoints, previews and evaluations, what is kept, devices and what changes only the rounding.
    ///
    /// # Errors
    ///
    /// If a path is not Unicode.
    pub fn recorded(&self) -> Result<Value> {
        let all = serde_json::to_value(self)?;
        let Shared { run, ema, .. } = self.shared();
        let ema = match ema.map(EmaConfigs::all) {
            Some([one]) => json!(one),
            several => json!(several),
        };
        // Which loss networks there are, not where.
        let given = |key: &str| all["data"].get(key).map(|path| !path.is_null());
        Ok(json!({
            "loss": all["loss"],
            "optimizer": all["optimizer"],
            "ema": ema,
            "run": { "precision": run.precision, "balance_classes": run.balance_classes },
            "data": {
                "teacher": given("teacher"),
                "lpips": given("lpips"),
                "convnext": given("convnext"),
                "encoder_input_size": all["data"].get("encoder_input_size"),
            },
        }))
    }

    pub(super) fn shared(&self) -> Shared<'_> {
        match self {
            Self::HiDiT(r) => Shared::of(r),
            Self::LightningDiT(r) => Shared::of(r),
            Self::HDiT(r) => Shared::of(r),
            Self::MeanFlow(r) => Shared::of(r),
            Self::Pmf(r) => Shared::of(r),
            Self::Jit(r) => Shared::of(r),
            Self::DitDh(r) => Shared::of(r),
            Self::Vae(r) => Shared::of(r),
            Self::RaeDecoder(r) => Shared::of(r),
        }
    }

    pub(super) fn shared_mut(&mut self) -> (&mut RunConfig, &mut AdamWConfig) {
        match self {
            Self::HiDiT(r) => (&mut r.run, &mut r.optimizer),
            Self::LightningDiT(r) => (&mut r.run, &mut r.optimizer),
            Self::HDiT(r) => (&mut r.run, &mut r.optimizer),
            Self::MeanFlow(r) => (&mut r.run, &mut r.optimizer),
            Self::Pmf(r) => (&mut r.run, &mut r.optimizer),
            Self::Jit(r) => (&mut r.run, &mut r.optimizer),
            Self::DitDh(r) => (&mut r.run, &mut r.optimizer),
            Self::Vae(r) => (&mut r.run, &mut r.optimizer),
            Self::RaeDecoder(r) => (&mut r.run, &mut r.optimizer),
        }
    }
}

/// The tables of every recipe.
pub(super) struct Shared<'a> {
    pub run: &'a RunConfig,
    pub optimizer: &'a AdamWConfig,
    pub ema: Option<&'a EmaConfigs>,
    pub init: &'a Init,
    pub preview: Option<&'a PreviewConfig>,
    pub evaluate: Option<&'a EvaluateConfig>,
}

impl<'a> Shared<'a> {
    fn of<M, L, D>(recipe: &'a Recipe<M, L, D>) -> Self {
        Self {
            run: &recipe.run,
            optimizer: &recipe.optimizer,
            ema: recipe.ema.as_ref(),
            init: &recipe.init,
            preview: recipe.preview.as_ref(),
            evaluate: recipe.evaluate.as_ref(),
        }
    }
}
