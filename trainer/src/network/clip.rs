//! CLIP's image encoder (Radford et al., arXiv 2103.00020), a ViT, as a feature extractor.

use std::collections::BTreeMap;

use tintype::burn; // the derive names it
use tintype::burn::module::{Initializer, Module, Param};
use tintype::burn::tensor::activation::sigmoid;
use tintype::burn::tensor::{Device, FloatDType, Tensor};
use tintype::nn::attention::SelfAttention;
use tintype::nn::linear::{Init, Linear};
use tintype::nn::norm::{Norm, NormKind};
use tintype::nn::patch::PatchEmbed;
use tintype::weights::{TensorView, Weights, WeightsError, load};

/// Features of a head in every published size.
const HEAD: usize = 64;

/// The encoder.
#[derive(Module, Debug)]
pub struct Clip {
    conv1: PatchEmbed,
    class_embedding: Param<Tensor<1>>,
    positional_embedding: Param<Tensor<2>>,
    ln_pre: Norm,
    resblocks: Vec<Block>,
    ln_post: Norm,
    /// `[width, features]`
    proj: Param<Tensor<2>>,
}

#[derive(Module, Debug)]
struct Block {
    ln_1: Norm,
    attn: SelfAttention,
    ln_2: Norm,
    c_fc: Linear,
    c_proj: Linear,
}

impl Clip {
    /// The image encoder of a checkpoint in OpenAI's names (`visual.*`; other tensors are not
    /// used). `heads` where they are not 64 wide.
    ///
    /// # Errors
    ///
    /// * [`WeightsError::Format`]: a tensor of CLIP's image encoder is missing, or its width does
    ///   not divide into heads.
    /// * [`WeightsError::Mismatch`]: a tensor is missing or has another shape.
    /// * [`WeightsError::NotFinite`]: a weight is not finite.
    pub fn from_weights(
        weights: Weights,
        heads: Option<usize>,
        device: &Device,
    ) -> Result<Self, WeightsError> {
        let file = weights.file.clone();
        let wrong = |problem: String| WeightsError::Format { file: file.clone(), problem };
        let weights = ours(weights).map_err(wrong)?;
        let axis = |name: &str, axis: usize| {
            let size = weights.tensors.get(name).and_then(|view| view.shape.get(axis).copied());
            size.ok_or_else(|| wrong(format!("not CLIP's image encoder: it lacks visual.{name}")))
        };
        let (width, rows) = (axis("positional_embedding", 1)?, axis("positional_embedding", 0)?);
        let (patch, features) = (axis("conv1.proj.weight", 3)?, axis("proj", 1)?);
        let heads = heads.unwrap_or(width / HEAD);
        if heads == 0 || !width.is_multiple_of(heads) {
            return Err(wrong(format!("its width {width} is no multiple of {HEAD}")));
        }
        let depth = (0..)
            .take_while(|i| weights.tensors.contains_key(&format!("resblocks.{i}.ln_1.weight")));
        let norm = || Norm::new(NormKind::LayerNormAffine, width, device);
        let block = |_| Block {
            ln_1: norm(),
            attn: SelfAttention::new(width, heads, None, device),
            ln_2: norm(),
            c_fc: Linear::new(width, 4 * width, Init::Xavier, device),
            c_proj: Linear::new(4 * width, width, Init::Xavier, device),
        };
        let network = Self {
            conv1: PatchEmbed::new(3, width, patch, device),
            class_embedding: Initializer::Zeros.init([width], device),
            positional_embedding: Initializer::Zeros.init([rows, width], device),
            ln_pre: norm(),
            resblocks: depth.map(block).collect(),
            ln_post: norm(),
            proj: Initializer::Zeros.init([width, features], device),
        };
        Ok(load(network, &weights, FloatDType::F32, device)?.network.no_grad())
    }

    /// Side of the images that it sees, in pixels.
    pub fn resolution(&self) -> usize {
        (self.positional_embedding.dims()[0] - 1).isqrt() * self.conv1.patch()
    }

    /// Images `[B, 3, side, side]`, normalised with CLIP's mean → their embeddings `[B, features]`
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, 3, side, side]` with [`resolution`](Self::resolution) as the side
    /// * returns `[B, features]`
    ///
    /// # Panics
    ///
    /// If `x` has another shape.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let patches = self.conv1.forward(x); // [B, N, D]
        let [b, _, d] = patches.dims();
        let class = self.class_embedding.val().reshape([1, 1, d]).expand([b, 1, d]);
        let h = Tensor::cat(vec![class, patches], 1); // [B, 1+N, D]
        let mut h = self.ln_pre.forward(h + self.positional_embedding.val().unsqueeze());
        for block in &self.resblocks {
            h = block.forward(h);
        }
        let class = self.ln_post.forward(h.narrow(1, 0, 1)).reshape([b, d]); // [B, D]
        class.matmul(self.proj.val())
    }
}

impl Block {
    /// `[B, 1+N, D]` → the same
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = x.clone() + self.attn.forward(self.ln_1.forward(x), None);
        let f = self.c_fc.forward(self.ln_2.forward(x.clone()));
        // OpenAI's quick approximation of GELU.
        let f = f.clone() * sigmoid(f * 1.702);
        x + self.c_proj.forward(f)
    }
}

/// OpenAI's names in ours; their patch embedding has no bias.
fn ours(mut weights: Weights) -> Result<Weights, String> {
    let mut tensors = BTreeMap::new();
    for (name, view) in weights.tensors {
        let Some(name) = name.strip_prefix("visual.") else { continue };
        let name = name
            .replace("conv1.weight", "conv1.proj.weight")
            .replace("transformer.", "")
            .replace(".attn.in_proj_", ".attn.qkv.")
            .replace(".attn.out_proj.", ".attn.proj.")
            .replace(".mlp.", ".");
        if name == "conv1.proj.weight" {
            let width = view.shape.first().copied().unwrap_or(0);
            let bias = TensorView::from_f32(vec![width], &vec![0.0; width])?;
            tensors.insert("conv1.proj.bias".to_string(), bias);
        }
        tensors.insert(name, view);
    }
    weights.tensors = tensors;
    Ok(weights)
}
