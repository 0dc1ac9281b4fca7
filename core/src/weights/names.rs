//! Our parameter paths in the authors' words.

/// The authors' name of a parameter at a path in one of our networks.
pub(super) fn authors_name(path: &[String]) -> String {
    // Variants of enums appear in paths, but not in checkpoints.
    let parts = path.iter().map(String::as_str).filter(|p| !p.starts_with(char::is_uppercase));
    let name = parts.collect::<Vec<_>>().join(".");
    let name = name.strip_prefix("sit.").unwrap_or(&name);
    let name = name.replace("ada_ln_modulation.", "adaLN_modulation.1.");
    if let Some(rest) = name.strip_prefix("t_embedder.") {
        return format!("t_embedder.mlp.{}", sequential(rest));
    }
    if let Some((teacher, rest)) =
        name.strip_prefix("projectors.").and_then(|rest| rest.split_once('.'))
    {
        return format!("projectors.{teacher}.{}", sequential(rest));
    }
    name.replace("pixel_predictor.convs.", "pixel_predictor.")
}

/// Linear layers of a `Sequential` with an activation after each: 0, 2, 4.
fn sequential(name: &str) -> String {
    name.replace("fc1.", "0.").replace("fc2.", "2.").replace("fc3.", "4.")
}

/// Frozen values that a checkpoint stores without counting them as parameters.
pub(super) fn is_buffer(name: &str) -> bool {
    let suffixes = ["freqs", "freqs_cos", "freqs_sin", "running_mean", "running_var"];
    suffixes.iter().any(|s| name.ends_with(s))
        || matches!(name, "time_emb.weight" | "aug_emb.weight")
}

/// Parts of training checkpoints that no network of ours reads.
pub(super) fn is_ignored(name: &str) -> bool {
    name.starts_with("loss.")
        || name.starts_with("foundation_model.")
        || name == "linear_proj.weight"
        || name.ends_with("num_batches_tracked")
}
