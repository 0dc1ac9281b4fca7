//! DiT-DH, the diffusion transformer of Representation Autoencoders (RAE; Zheng et al., arXiv 2510.11690): a
//! LightningDiT on the wide latents of DINOv2, with a shallow and wide head.
//!
//! The head sees the noisy latents through an embedding of its own. The backbone's tokens do not enter its stream:
//! together with the time they are its condition, one row for each token.

mod config;
mod recognize;
mod time;

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor};

pub use config::DitDhConfig;
pub use recognize::FAMILY;

use self::time::FourierEmbedder;
use super::{InvalidConfig, Network};
use crate::nn::activation::silu;
use crate::nn::block::{BlockConfig, DitBlock, FinalLayer, RunBlocks, run_blocks};
use crate::nn::embedding::LabelEmbedder;
use crate::nn::learned_table;
use crate::nn::linear::{Init, Linear};
use crate::nn::norm::NormKind;
use crate::nn::patch::{PatchEmbed, unpatchify};
use crate::nn::position::sin_cos_2d;
use crate::nn::rope::AxialRope;

impl DitDhConfig {
    /// The untrained network, whose velocity is 0.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] where [`validate`](DitDhConfig::validate) fails.
    pub fn init(&self, device: &Device) -> Result<DitDh, InvalidConfig> {
        self.validate()?;
        let ([d, head], grid) = (self.hidden_size, self.input_size);
        let norm = if self.use_rmsnorm { NormKind::RmsNorm } else { NormKind::LayerNorm };
        let qk_norm = match (self.use_qknorm, self.use_rmsnorm) {
            (false, _) => None,
            (true, true) => Some(NormKind::RmsNorm),
            (true, false) => Some(NormKind::LayerNormAffine),
        };
        let row = |part: usize| {
            let hidden = self.hidden_size[part];
            let block = BlockConfig {
                hidden,
                heads: self.num_heads[part],
                mlp_width: (hidden as f64 * self.mlp_ratio) as usize,
                norm,
                qk_norm,
                swiglu: self.use_swiglu,
                shift: true,
            };
            (0..self.depth[part]).map(move |_| DitBlock::with_init(block, Init::FanIn, device))
        };
        let rope = |part: usize| {
            AxialRope::new(self.hidden_size[part] / self.num_heads[part], grid, device)
        };
        let positions = move || sin_cos_2d(d, grid).into_iter().map(|v| v as f32).collect();
        let pos_embed =
            self.use_pos_embed.then(|| learned_table([1, grid * grid, d], positions, device));
        let embedder = |width| PatchEmbed::new(self.in_channels, width, self.patch_size, device);
        let null_row = self.class_dropout_prob > 0.0;
        Ok(DitDh {
            pos_embed,
            x_embedder: embedder(head),
            s_embedder: embedder(d),
            s_projector: (d != head).then(|| Linear::new(d, head, Init::FanIn, device)),
            t_embedder: FourierEmbedder::new(d, device),
            y_embedder: LabelEmbedder::new(self.num_classes, null_row, d, device),
            final_layer: FinalLayer::new(head, self.in_channels, norm, device),
            enc_feat_rope: rope(0),
            dec_feat_rope: rope(1),
            blocks: row(0).chain(row(1)).collect(),
            backbone: self.depth[0],
        })
    }
}

/// The network.
#[derive(Module, Debug)]
pub struct DitDh {
    pos_embed: Option<Param<Tensor<3>>>,
    x_embedder: PatchEmbed,
    s_embedder: PatchEmbed,
    s_projector: Option<Linear>,
    t_embedder: FourierEmbedder,
    y_embedder: LabelEmbedder,
    final_layer: FinalLayer,
    enc_feat_rope: AxialRope,
    dec_feat_rope: AxialRope,
    /// Those of the backbone, then those of the head.
    blocks: Vec<DitBlock>,
    /// How many of them are the backbone's.
    backbone: usize,
}

/// Intermediate values of a forward pass, for inspection.
#[derive(Debug)]
pub struct Trace {
    /// The embedding of time, `[B, D₀]`.
    pub t_emb: Tensor<2>,
    /// The embedding of labels, `[B, D₀]`.
    pub y_emb: Tensor<2>,
    /// The backbone's condition, `[B, D₀]`.
    pub c: Tensor<2>,
    /// The backbone's patches before positions, `[B, N, D₀]`.
    pub s_patches: Tensor<3>,
    /// The backbone's patches with positions, `[B, N, D₀]`.
    pub s_tokens: Tensor<3>,
    /// The residual stream after each block, `[B, N, D₀]` in the backbone and `[B, N, D₁]` in the head.
    pub blocks: Vec<Tensor<3>>,
    /// What the backbone ends with, `[B, N, D₀]`.
    pub s_condition: Tensor<3>,
    /// The head's condition, `[B, N, D₁]`.
    pub s_projected: Tensor<3>,
    /// The head's patches, `[B, N, D₁]`.
    pub x_patches: Tensor<3>,
    /// The velocity of each token, `[B, N, C]`.
    pub tokens: Tensor<3>,
}

impl DitDh {
    /// The velocity `noise − data`.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, C, S, S]`
    /// * `t`: `[B]` in 0…1 (1 is noise)
    /// * `y`: `[B]`, each a class or, where labels are dropped in training, the null class
    /// * returns `[B, C, S, S]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape, or, on the CPU, a label is beyond the table
    /// (which has a null row only where labels are dropped in training).
    pub fn forward(&self, x: Tensor<4>, t: Tensor<1>, y: Tensor<1, Int>) -> Tensor<4> {
        self.forward_through(x, t, y, &mut run_blocks)
    }

    /// [`forward`](Self::forward) with another way to run the blocks: those of the backbone with one condition for
    /// each image, then those of the head with one for each token.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, C, S, S]`
    /// * `t`: `[B]` in 0…1 (1 is noise)
    /// * `y`: `[B]`, each a class or, where labels are dropped in training, the null class
    /// * `run`: of `[B, N, D₀]` and `[B, D₀]`, then of `[B, N, D₁]` and `[B·N, D₁]`; before these, without blocks, of the
    ///   time `[B, 1, D₀]` and `[B, D₀]`
    /// * returns `[B, C, S, S]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape, or, on the CPU, a label is beyond the table
    /// (which has a null row only where labels are dropped in training).
    pub fn forward_through(
        &self,
        x: Tensor<4>,
        t: Tensor<1>,
        y: Tensor<1, Int>,
        run: RunBlocks<'_>,
    ) -> Tensor<4> {
        let te = self.t_embedder.forward(t); // [B, D₀]
        let c = condition(te.clone(), self.y_embedder.forward(y));
        // No blocks: where `run` cuts the graph of gradients, the time, which is used on both sides of the backbone, lies
        // in front of one cut.
        let (te, c) = run(&[], None, te.unsqueeze_dim(1), silu(c)); // [B, 1, D₀] and [B, D₀]
        let (backbone, head) = self.blocks.split_at(self.backbone);
        let s = self.placed(self.s_embedder.forward(x.clone())); // [B, N, D₀]
        let (s, _) = run(backbone, Some(&self.enc_feat_rope.table()), s, c);
        let s = self.projected(silu(s + te)); // [B, N, D₁]
        let h = self.x_embedder.forward(x); // [B, N, D₁]
        let (h, s) = run(head, Some(&self.dec_feat_rope.table()), h, rows(silu(s)));
        unpatchify(self.final_layer.head(self.final_layer.modulate(h, s)), 1) // [B, C, S, S]
    }

    /// [`forward`](Self::forward) with every intermediate value kept.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, C, S, S]`
    /// * `t`: `[B]` in 0…1 (1 is noise)
    /// * `y`: `[B]`, each a class or, where labels are dropped in training, the null class
    /// * returns [`Trace`], whose fields state theirs
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape, or, on the CPU, a label is beyond the table
    /// (which has a null row only where labels are dropped in training).
    pub fn trace(&self, x: Tensor<4>, t: Tensor<1>, y: Tensor<1, Int>) -> Trace {
        let (t_emb, y_emb) = (self.t_embedder.forward(t), self.y_embedder.forward(y));
        let c = condition(t_emb.clone(), y_emb.clone());
        let s_patches = self.s_embedder.forward(x.clone());
        let s_tokens = self.placed(s_patches.clone());
        let mut blocks = Vec::with_capacity(self.blocks.len());
        let mut through = |row: &[DitBlock], rope: &AxialRope, mut h: Tensor<3>, c: Tensor<2>| {
            let rope = rope.table();
            for block in row {
                h = block.forward(h, c.clone(), Some(&rope));
                blocks.push(h.clone());
            }
            h
        };
        let (backbone, head) = self.blocks.split_at(self.backbone);
        let s = through(backbone, &self.enc_feat_rope, s_tokens.clone(), silu(c.clone()));
        let s_condition = silu(s + t_emb.clone().unsqueeze_dim::<3>(1));
        let s_projected = self.projected(s_condition.clone());
        let x_patches = self.x_embedder.forward(x);
        let modulation = rows(silu(s_projected.clone())); // [B·N, D₁]
        let h = through(head, &self.dec_feat_rope, x_patches.clone(), modulation.clone());
        let tokens = self.final_layer.head(self.final_layer.modulate(h, modulation));
        Trace {
            t_emb,
            y_emb,
            c,
            s_patches,
            s_tokens,
            blocks,
            s_condition,
            s_projected,
            x_patches,
            tokens,
        }
    }

    /// With the position table, where there is one.
    fn placed(&self, s: Tensor<3>) -> Tensor<3> {
        match &self.pos_embed {
            Some(table) => s + table.val(),
            None => s,
        }
    }

    /// In the head's width: `[B, N, D₀]` → `[B, N, D₁]`
    fn projected(&self, s: Tensor<3>) -> Tensor<3> {
        match &self.s_projector {
            Some(projector) => projector.forward(s),
            None => s,
        }
    }

    /// The label table, whose [`drop_labels`](LabelEmbedder::drop_labels) training uses.
    pub fn labels(&self) -> &LabelEmbedder {
        &self.y_embedder
    }
}

/// The backbone's condition `c = SiLU(te + ye)`, before the SiLU in front of each modulation.
fn condition(te: Tensor<2>, ye: Tensor<2>) -> Tensor<2> {
    silu(te + ye)
}

/// One row for each token: `[B, N, D]` → `[B·N, D]`
fn rows(s: Tensor<3>) -> Tensor<2> {
    let [b, n, d] = s.dims();
    s.reshape([b * n, d])
}

impl Network for DitDh {
    fn predict(&self, x: Tensor<4>, times: Tensor<1>, labels: Tensor<1, Int>) -> Tensor<4> {
        self.forward(x, times, labels)
    }
}
