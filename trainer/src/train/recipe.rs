//! The networks that have a training recipe here.

use tintype::model::Architecture;
use tintype::model::ditdh::DitDhConfig;
use tintype::model::hdit::HDiTConfig;
use tintype::model::hidit::HiDiTConfig;
use tintype::model::imf::ImfConfig;
use tintype::model::jit::JitConfig;
use tintype::model::lightningdit::LightningDiTConfig;
use tintype::model::pmf::PmfConfig;
use tintype::model::sit::SiTConfig;

/// A network with a recipe, by its configuration.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // the names of the networks
pub enum Trained<'a> {
    HiDiT(&'a HiDiTConfig),
    /// As Hi-DiT's first stage.
    SiT(&'a SiTConfig),
    LightningDiT(&'a LightningDiTConfig),
    HDiT(&'a HDiTConfig),
    Imf(&'a ImfConfig),
    Pmf(&'a PmfConfig),
    Jit(&'a JitConfig),
    DitDh(&'a DitDhConfig),
}

impl<'a> Trained<'a> {
    /// Which of them an architecture is; `None` for a network without a recipe.
    pub fn of(architecture: &'a Architecture) -> Option<Self> {
        let hidit = || architecture.downcast().map(Self::HiDiT);
        let sit = || architecture.downcast().map(Self::SiT);
        let lightningdit = || architecture.downcast().map(Self::LightningDiT);
        let hdit = || architecture.downcast().map(Self::HDiT);
        let imf = || architecture.downcast().map(Self::Imf);
        let pmf = || architecture.downcast().map(Self::Pmf);
        let jit = || architecture.downcast().map(Self::Jit);
        let ditdh = || architecture.downcast().map(Self::DitDh);
        hidit()
            .or_else(sit)
            .or_else(lightningdit)
            .or_else(hdit)
            .or_else(imf)
            .or_else(pmf)
            .or_else(jit)
            .or_else(ditdh)
    }
}
