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

/// Computes every quantity of an entry on a device.
pub type OnDevice = fn(&Path, &Device, &mut Checks) -> Result<()>;
/// Computes every quantity of an entry that no device takes part in: files, resizing, metrics.
pub type OnHost = fn(&Path, &mut Checks) -> Result<()>;

/// The kind of an entry by the beginning of its name; nothing where it is unknown.
pub fn recognise(name: &str, is_folder: bool) -> Option<Kind> {
    let matching = |list: &[(&str, Kind)]| {
        list.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, kind)| *kind)
    };
    if is_folder {
        return matching(&[
            ("h5", Kind::Host(files::hdf5)),
            ("latent_shards", Kind::Aside), // read with its `_expected` file
            ("npz", Kind::Host(files::npz)),
            ("pt", Kind::Host(files::pytorch)),
        ]);
    }
    if name.starts_with("README") || name.ends_with(".md") {
        return Some(Kind::Aside);
    }
    if name.ends_with("_manifest.json") {
        return Some(Kind::Aside); // read with the values it describes
    }
    let judges = matching(&[
        ("eval_patchgan_actnorm", Kind::Network(judges::patchgan_actnorm)),
        ("eval_patchgan", Kind::Network(judges::patchgan)),
        ("eval_lpips_vgg16", Kind::Network(judges::lpips)),
        ("eval_metrics.json", Kind::Aside), // the same numbers, with other tools'
        ("eval_metrics", Kind::Host(metrics::distributions)),
        ("eval_inception", Kind::Network(evaluation::inception)),
        ("eval_resize", Kind::Host(evaluation::resizing)),
        ("eval_recipe_check", Kind::Host(metrics::recipe_check)),
        ("eval_ssim_psnr_misc", Kind::Network(metrics::images)),
        ("eval_stats_expected", Kind::Host(metrics::archives)),
        ("eval_samples.npz", Kind::Aside), // read with the expected statistics
        ("eval_stats_", Kind::Aside),
        ("eval_dinov2_tiny", Kind::Network(vision_transformers::dinov2_small)),
        ("eval_dinov2_", Kind::Network(vision_transformers::dinov2)),
        ("eval_posembed", Kind::Host(vision_transformers::positions)),
        ("eval_clip_", Kind::Network(vision_transformers::clip)),
    ]);
    if judges.is_some() {
        return judges;
    }
    if !name.ends_with(".safetensors") {
        return None;
    }
    matching(&[
        ("lightningdit_forward_", Kind::Network(diffusion_transformers::lightningdit_forward)),
        ("lightningdit_loss_", Kind::Network(diffusion_transformers::lightningdit_loss)),
        ("lightningdit_ode_", Kind::Network(ode_sde::lightningdit_ode)),
        ("sit_forward_", Kind::Network(diffusion_transformers::sit_forward)),
        ("lightningdit_train3", Kind::Network(training::lightningdit)),
        ("sit_train3", Kind::Network(training::sit)),
        ("hdit_trainstep", Kind::Network(training::hdit)),
        ("vavae_losses_", Kind::Network(training::vavae)),
        ("sit_bn_train", Kind::Network(diffusion_transformers::sit_bn_train)),
        ("sit_sde_", Kind::Network(ode_sde::sit_sde)),
        ("sit_ode_", Kind::Network(ode_sde::sit_ode)),
        ("hidit_forward", Kind::Network(hidit::forward)),
        ("hidit_emoji_", Kind::Network(hidit::emoji)),
        ("vavae_full_structure_", Kind::Network(vae::autoencoder)),
        ("vavae_gn32_", Kind::Network(vae::autoencoder)),
        ("vf_loss", Kind::Network(networks::vf_loss)),
        ("lpips_head", Kind::Network(networks::lpips_head)),
        ("embeddings", Kind::Network(tables::embeddings)),
        ("units_norms_activations", Kind::Network(tables::units)),
        ("center_crop", Kind::Host(tables::center_crop)),
        ("dinov2_preprocess", Kind::Host(networks::dinov2_preprocess)),
        ("dinov2_tiny", Kind::Network(networks::dinov2_tiny)),
        ("pos_embed_resample", Kind::Host(networks::pos_embed_resample)),
        ("latent_shards", Kind::Host(files::latent_shards)),
        ("hdit_model_", Kind::Network(hdit_model::forward)),
        ("hdit_denoiser", Kind::Network(hdit_model::denoiser)),
        ("hdit_grad", Kind::Network(hdit_model::gradients_of_loss)),
        ("hdit_pieces_rope", Kind::Network(hdit_pieces::rope)),
        ("hdit_pieces_natten", Kind::Network(hdit_pieces::natten)),
        ("hdit_pieces_blocks", Kind::Network(hdit_pieces::blocks)),
        ("hdit_pieces_tokens", Kind::Network(hdit_pieces::tokens)),
        ("hdit_pieces_mapping", Kind::Network(hdit_pieces::mapping)),
        ("hdit_sampling_toy", Kind::Network(hdit_sampling::toy)),
        ("hdit_sampling_model", Kind::Network(hdit_sampling::model)),
        ("hdit_schedules", Kind::Host(hdit_sampling::schedules)),
        ("hdit_augment", Kind::Host(tables::augment)),
        ("hdit_metrics", Kind::Host(tables::metrics)),
    ])
}
