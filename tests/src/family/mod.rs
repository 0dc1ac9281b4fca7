//! The families of reference files.

mod book;
mod diffusion_transformers;
mod evaluation;
mod files;
mod hdit_model;
mod hdit_pieces;
mod hdit_sampling;
mod hidit;
mod judges;
mod metrics;
mod networks;
mod ode_sde;
mod tables;
mod training;
mod vae;
mod vision_transformers;

use std::path::Path;

use anyhow::Result;
use tintype::burn::tensor::Device;

use crate::Kind;
use crate::check::Checks;

pub use hidit::emoji_folder;

/// Computes every quantity of an entry.
pub type Run = fn(&Path, &Device, &mut Checks) -> Result<()>;

/// The kind of an entry by the beginning of its name; nothing where it is unknown.
pub fn recognise(name: &str, is_folder: bool) -> Option<Kind> {
    let matching = |list: &[(&str, Kind)]| {
        list.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, kind)| *kind)
    };
    if is_folder {
        return matching(&[
            ("h5", Kind::Family(files::hdf5)),
            ("latent_shards", Kind::Aside), // read with its `_expected` file
            ("npz", Kind::Family(files::npz)),
            ("pt", Kind::Family(files::pytorch)),
        ]);
    }
    if name.starts_with("README") || name.ends_with(".md") {
        return Some(Kind::Aside);
    }
    if name.ends_with("_manifest.json") {
        return Some(Kind::Aside); // read with the values it describes
    }
    let judges = matching(&[
        ("eval_patchgan_actnorm", Kind::Family(judges::patchgan_actnorm)),
        ("eval_patchgan", Kind::Family(judges::patchgan)),
        ("eval_lpips_vgg16", Kind::Family(judges::lpips)),
        ("eval_metrics.json", Kind::Aside), // the same numbers, with other tools'
        ("eval_metrics", Kind::Family(metrics::distributions)),
        ("eval_inception", Kind::Family(evaluation::inception)),
        ("eval_resize", Kind::Family(evaluation::resizing)),
        ("eval_recipe_check", Kind::Family(metrics::recipe_check)),
        ("eval_ssim_psnr_misc", Kind::Family(metrics::images)),
        ("eval_stats_expected", Kind::Family(metrics::archives)),
        ("eval_samples.npz", Kind::Aside), // read with the expected statistics
        ("eval_stats_", Kind::Aside),
        ("eval_dinov2_tiny", Kind::Family(vision_transformers::dinov2_small)),
        ("eval_dinov2_", Kind::Family(vision_transformers::dinov2)),
        ("eval_posembed", Kind::Family(vision_transformers::positions)),
        ("eval_clip_", Kind::Family(vision_transformers::clip)),
    ]);
    if judges.is_some() {
        return judges;
    }
    if !name.ends_with(".safetensors") {
        return None;
    }
    matching(&[
        ("lightningdit_forward_", Kind::Family(diffusion_transformers::lightningdit_forward)),
        ("lightningdit_loss_", Kind::Family(diffusion_transformers::lightningdit_loss)),
        ("lightningdit_ode_", Kind::Family(ode_sde::lightningdit_ode)),
        ("sit_forward_", Kind::Family(diffusion_transformers::sit_forward)),
        ("lightningdit_train3", Kind::Family(training::lightningdit)),
        ("sit_train3", Kind::Family(training::sit)),
        ("hdit_trainstep", Kind::Family(training::hdit)),
        ("vavae_losses_", Kind::Family(training::vavae)),
        ("sit_bn_train", Kind::Family(diffusion_transformers::sit_bn_train)),
        ("sit_sde_", Kind::Family(ode_sde::sit_sde)),
        ("sit_ode_", Kind::Family(ode_sde::sit_ode)),
        ("hidit_forward", Kind::Family(hidit::forward)),
        ("hidit_emoji_", Kind::Family(hidit::emoji)),
        ("vavae_full_structure_", Kind::Family(vae::autoencoder)),
        ("vavae_gn32_", Kind::Family(vae::autoencoder)),
        ("vf_loss", Kind::Family(networks::vf_loss)),
        ("lpips_head", Kind::Family(networks::lpips_head)),
        ("embeddings", Kind::Family(tables::embeddings)),
        ("units_norms_activations", Kind::Family(tables::units)),
        ("center_crop", Kind::Family(tables::center_crop)),
        ("dinov2_preprocess", Kind::Family(networks::dinov2_preprocess)),
        ("dinov2_tiny", Kind::Family(networks::dinov2_tiny)),
        ("pos_embed_resample", Kind::Family(networks::pos_embed_resample)),
        ("latent_shards", Kind::Family(files::latent_shards)),
        ("hdit_model_", Kind::Family(hdit_model::forward)),
        ("hdit_denoiser", Kind::Family(hdit_model::denoiser)),
        ("hdit_grad", Kind::Family(hdit_model::gradients_of_loss)),
        ("hdit_pieces_rope", Kind::Family(hdit_pieces::rope)),
        ("hdit_pieces_natten", Kind::Family(hdit_pieces::natten)),
        ("hdit_pieces_blocks", Kind::Family(hdit_pieces::blocks)),
        ("hdit_pieces_tokens", Kind::Family(hdit_pieces::tokens)),
        ("hdit_pieces_mapping", Kind::Family(hdit_pieces::mapping)),
        ("hdit_sampling_toy", Kind::Family(hdit_sampling::toy)),
        ("hdit_sampling_model", Kind::Family(hdit_sampling::model)),
        ("hdit_schedules", Kind::Family(hdit_sampling::schedules)),
        ("hdit_augment", Kind::Family(tables::augment)),
        ("hdit_metrics", Kind::Family(tables::metrics)),
    ])
}
