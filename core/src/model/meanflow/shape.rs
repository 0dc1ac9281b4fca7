//! The shape of an iMF or a pMF, and what a checkpoint tells of it.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::model::tensors::{count, metadata, parse, shape, typed};
use crate::model::{
    InvalidConfig, MAX_CLASSES, MAX_DEPTH, MAX_PATCH, MAX_SIDE, MAX_WIDTH, bounded, ensure,
    patch_values,
};
use crate::nn::embedding::TimestepEmbedder;
use crate::weights::{Weights, WeightsError};

/// A tensor that every such network has, and no other.
const MARK: &str = "u_final_layer.norm.weight";

/// What both networks are configured by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    /// Side of the state, in latent or image pixels; divisible by `patch_size`.
    pub input_size: usize,
    /// Side of a patch.
    pub patch_size: usize,
    /// Channels of the state.
    pub in_channels: usize,
    /// Width D, divisible by `num_heads`.
    pub hidden_size: usize,
    /// Blocks that u goes through, the shared ones and those of its head.
    pub depth: usize,
    /// Blocks of a head, at most `depth`.
    #[serde(default = "default_aux_head_depth")]
    pub aux_head_depth: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Width M of the SwiGLU.
    pub mlp_hidden: usize,
    /// Classes; the null class is one more.
    #[serde(default = "default_num_classes")]
    pub num_classes: usize,
    /// Tokens of the class.
    #[serde(default = "default_num_class_tokens")]
    pub num_class_tokens: usize,
    /// Tokens of h.
    #[serde(default = "default_num_time_tokens")]
    pub num_time_tokens: usize,
    /// Tokens of ω.
    #[serde(default = "default_num_cfg_tokens")]
    pub num_cfg_tokens: usize,
    /// Tokens of t_min, and as many of t_max.
    #[serde(default = "default_num_interval_tokens")]
    pub num_interval_tokens: usize,
    /// Whether there is the head of the instantaneous velocity v, which training needs and sampling does not.
    #[serde(default)]
    pub v_heads: bool,
}

fn default_aux_head_depth() -> usize {
    8
}
fn default_num_classes() -> usize {
    1000
}
fn default_num_class_tokens() -> usize {
    8
}
fn default_num_time_tokens() -> usize {
    4
}
fn default_num_cfg_tokens() -> usize {
    4
}
fn default_num_interval_tokens() -> usize {
    2
}

/// What the patch embedding of a checkpoint tells.
pub(in crate::model) struct Patches {
    pub input_size: usize,
    pub patch_size: usize,
    pub in_channels: usize,
}

impl Shape {
    /// A shape with the tokens and heads of every published network, for sampling.
    pub(in crate::model) fn published(
        [input_size, patch_size, in_channels]: [usize; 3],
        [depth, hidden_size, num_heads, mlp_hidden]: [usize; 4],
    ) -> Self {
        Self {
            input_size,
            patch_size,
            in_channels,
            hidden_size,
            depth,
            aux_head_depth: default_aux_head_depth(),
            num_heads,
            mlp_hidden,
            num_classes: default_num_classes(),
            num_class_tokens: default_num_class_tokens(),
            num_time_tokens: default_num_time_tokens(),
            num_cfg_tokens: default_num_cfg_tokens(),
            num_interval_tokens: default_num_interval_tokens(),
            v_heads: false,
        }
    }

    /// The shape that a checkpoint's tensors tell; `rank` is that of its token tables. A head of v is left out.
    pub(in crate::model) fn told_by(
        weights: &Weights,
        patches: Patches,
        rank: usize,
    ) -> Result<Self, WeightsError> {
        let Patches { input_size, patch_size, in_channels } = patches;
        let tokens = |name: &str| Ok::<_, WeightsError>(shape(weights, name, rank)?[rank - 2]);
        let hidden_size = shape(weights, MARK, 1)?[0];
        let head = shape(weights, "u_heads.0.attn.q_norm.weight", 1)?[0];
        let classes = shape(weights, "y_embedder.embedding_table._flax_embedding.weight", 2)?[0];
        let aux_head_depth = count(weights, "u_heads.");
        Ok(Self {
            input_size,
            patch_size,
            in_channels,
            hidden_size,
            depth: count(weights, "shared_blocks.").saturating_add(aux_head_depth),
            aux_head_depth,
            num_heads: hidden_size / head.max(1),
            mlp_hidden: shape(weights, "u_heads.0.mlp.w1._flax_linear.weight", 2)?[0],
            num_classes: classes.saturating_sub(1),
            num_class_tokens: tokens("class_tokens")?,
            num_time_tokens: tokens("time_tokens")?,
            num_cfg_tokens: tokens("omega_tokens")?,
            num_interval_tokens: tokens("t_min_tokens")?,
            v_heads: false,
        })
    }

    /// Checks that the numbers describe a network; the size of a head has to be divisible by `pairs`.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] with the first thing that is wrong.
    pub(in crate::model) fn validate(&self, pairs: usize) -> Result<(), InvalidConfig> {
        let Self { input_size, patch_size, hidden_size, num_heads, depth, .. } = *self;
        ensure!(patch_size > 0 && input_size > 0, "sizes must be positive");
        ensure!(
            input_size.is_multiple_of(patch_size),
            "input_size {input_size} is not divisible by patch_size {patch_size}"
        );
        ensure!(
            num_heads > 0 && hidden_size > 0 && hidden_size.is_multiple_of(num_heads),
            "hidden_size {hidden_size} is not a positive multiple of num_heads {num_heads}"
        );
        ensure!(
            (hidden_size / num_heads).is_multiple_of(pairs),
            "the head size {} is not divisible by {pairs}, which RoPE needs",
            hidden_size / num_heads
        );
        ensure!(
            self.in_channels > 0 && self.mlp_hidden > 0,
            "in_channels and mlp_hidden must be positive"
        );
        bounded([
            ("depth", depth, MAX_DEPTH),
            ("input_size", input_size, MAX_SIDE),
            ("in_channels", self.in_channels, MAX_WIDTH),
            ("hidden_size", hidden_size, MAX_WIDTH),
            ("mlp_hidden", self.mlp_hidden, MAX_WIDTH),
            ("num_classes", self.num_classes, MAX_CLASSES),
            (
                "patch_size² · in_channels",
                patch_values([patch_size; 2], self.in_channels),
                MAX_PATCH,
            ),
        ])?;
        ensure!(
            (1..=depth).contains(&self.aux_head_depth),
            "aux_head_depth {} is not in 1…{depth}",
            self.aux_head_depth
        );
        let tokens = [
            self.num_class_tokens,
            self.num_time_tokens,
            self.num_cfg_tokens,
            self.num_interval_tokens,
        ];
        ensure!(
            tokens.iter().all(|n| (1..=MAX_DEPTH).contains(n)),
            "a condition has 1 to {MAX_DEPTH} tokens, not {tokens:?}"
        );
        Ok(())
    }

    /// Patches of a side.
    ///
    /// # Panics
    ///
    /// If `patch_size` is 0.
    pub fn grid(&self) -> usize {
        self.input_size / self.patch_size
    }

    /// Tokens before the patches.
    pub fn prefix(&self) -> usize {
        let interval = self.num_interval_tokens;
        [self.num_class_tokens, self.num_time_tokens, self.num_cfg_tokens, interval, interval]
            .into_iter()
            .fold(0, usize::saturating_add)
    }

    /// Multiply-adds of one sample's evaluation of u, of whose patches each takes `patch` to embed.
    pub(in crate::model) fn macs(&self, patch: usize) -> f64 {
        let patches = self.grid().pow(2) as f64;
        let n = patches + self.prefix() as f64;
        let (l, d, m) = (self.depth as f64, self.hidden_size as f64, self.mlp_hidden as f64);
        let values = (self.patch_size.pow(2) * self.in_channels) as f64;
        let embedders = 4.0 * (TimestepEmbedder::FEATURES as f64 * d + d * d);
        let ends = patches * (patch as f64 + d * values);
        l * (n * (4.0 * d * d + 3.0 * d * m) + 2.0 * n * n * d) + embedders + ends
    }
}

/// Whether a checkpoint is that of an iMF or a pMF.
pub(in crate::model) fn is_one(weights: &Weights) -> bool {
    weights.contains(MARK)
}

/// The configuration that a checkpoint's tensors tell, and what its metadata say in place of that.
pub(in crate::model) fn told<C: Serialize + DeserializeOwned>(
    weights: &Weights,
    network: &str,
    by_tensors: C,
) -> Result<C, WeightsError> {
    let Some(text) = metadata(weights) else { return Ok(by_tensors) };
    let said: Map<String, Value> = parse(weights, network, text)?;
    let mut config = json!(by_tensors);
    if let Some(fields) = config.as_object_mut() {
        fields.extend(said);
    }
    typed(weights, network, config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_sizes_overflow_nothing() {
        let shape = Shape::published([4096, 4096, 4], [12, 768, 12, 2048]);
        let error = shape.validate(2).expect_err("absurd").0;
        assert!(error.starts_with("patch_size² · in_channels"), "{error}");
        // Counted before a shape is validated.
        let vast = Shape { num_class_tokens: usize::MAX, ..shape };
        assert_eq!(vast.prefix(), usize::MAX);
    }
}
