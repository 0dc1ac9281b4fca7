//! Our parameter paths in the authors' words.

use std::sync::LazyLock;

use super::rename::Rename;

/// What the authors call layers of our networks.
const TABLE: &str = "
# Linear layers of a Sequential with an activation after each.
t_embedder.fc1.* -> t_embedder.mlp.0.*
t_embedder.fc2.* -> t_embedder.mlp.2.*
projectors.*.fc1.* -> projectors.*.0.*
projectors.*.fc2.* -> projectors.*.2.*
projectors.*.fc3.* -> projectors.*.4.*
# DiT-DH's frequencies.
t_embedder.w -> t_embedder.W
# The layer after an activation.
ada_ln_modulation.* -> adaLN_modulation.1.*
**.ada_ln_modulation.* -> **.adaLN_modulation.1.*
# Convolutions with nothing around them.
pixel_predictor.convs.** -> pixel_predictor.**
# iMF's and pMF's layers, which the conversion of their weights wraps.
mean_flow.*_embedder.fc1.* -> *_embedder.mlp.0._flax_linear.*
mean_flow.*_embedder.fc2.* -> *_embedder.mlp.2._flax_linear.*
mean_flow.y_embedder.embedding_table.* -> y_embedder.embedding_table._flax_embedding.*
mean_flow.*.*.attn.*_proj.* -> *.*.attn.*_proj._flax_linear.*
mean_flow.*.*.mlp.*.* -> *.*.mlp.*._flax_linear.*
mean_flow.*.linear.* -> *.linear._flax_linear.*
mean_flow.** -> **
";

static NAMES: LazyLock<Rename> =
    LazyLock::new(|| Rename::parse(TABLE, "the authors' names").expect("its lines are rules"));

/// The authors' name of a parameter at a path in one of our networks.
pub(super) fn authors_name(path: &[String]) -> String {
    // Variants of enums appear in paths, but not in checkpoints.
    let parts = path.iter().map(String::as_str).filter(|p| !p.starts_with(char::is_uppercase));
    let name = parts.collect::<Vec<_>>().join(".");
    let name = name.strip_prefix("sit.").unwrap_or(&name);
    NAMES.name(name).unwrap_or_default()
}

/// Frozen values that a checkpoint stores without counting them as parameters.
pub(super) fn is_buffer(name: &str) -> bool {
    let suffixes = ["freqs", "freqs_cos", "freqs_sin", "running_mean", "running_var"];
    suffixes.iter().any(|s| name.ends_with(s))
        || matches!(name, "time_emb.weight" | "aug_emb.weight")
}

/// What is in float32 in a network of any precision: buffers, and DiT-DH's frequencies, whose angles need it.
pub(super) fn is_float32(name: &str) -> bool {
    is_buffer(name) || name == "t_embedder.W"
}

/// Parts of training checkpoints that no network of ours reads, or not for sampling: iMF's and pMF's head of v, of which
/// iMF's published files hold the last layer.
pub(super) fn is_ignored(name: &str) -> bool {
    name.starts_with("loss.")
        || name.starts_with("v_heads.")
        || name.starts_with("v_final_layer.")
        || name.starts_with("foundation_model.")
        || name == "linear_proj.weight"
        || name.ends_with("num_batches_tracked")
}
