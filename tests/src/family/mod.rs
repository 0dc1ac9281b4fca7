//! The families of reference files.

mod book;
mod diffusion_transformers;
mod ditdh;
mod ditdh_train;
mod evaluation;
mod files;
mod hdit_model;
mod hdit_pieces;
mod hdit_sampling;
mod hidit;
mod jit;
mod jit_rae_files;
mod jit_train;
mod loss_networks;
mod mean_flow;
mod metrics;
mod networks;
mod ode_sde;
mod rae;
mod stepper;
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

/// The kind of an entry by its name's prefix; `None` if unknown.
pub fn recognise(name: &str, is_folder: bool) -> Option<Kind> {
    let matching = |list: &[(&str, Kind)]| {
        list.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, kind)| *kind)
    };
    if is_folder {
        return matching(&[
            ("h5", Kind::OnHost(files::hdf5)),
            ("latent_shards", Kind::Aside), // read with its `_expected` file
            ("npz", Kind::OnHost(files::npz)),
            ("pt_jit_rae", Kind::OnHost(jit_rae_files::checkpoints)),
            ("pt", Kind::OnHost(files::pytorch)),
            ("sdvae_diffusers_folder", Kind::Aside), // read with its `_expected` file
        ]);
    }
    if name.starts_with("README") || name.ends_with(".md") {
        return Some(Kind::Aside);
    }
    if name.ends_with("_manifest.json") {
        return Some(Kind::Aside); // read with the values it describes
    }
    let evaluation = matching(&[
        ("eval_patchgan_actnorm", Kind::OnDevice(loss_networks::patchgan_actnorm)),
        ("eval_patchgan", Kind::OnDevice(loss_networks::patchgan)),
        ("eval_lpips_vgg16", Kind::OnDevice(loss_networks::lpips)),
        ("eval_metrics.json", Kind::Aside), // the same numbers, with other tools'
        ("eval_metrics", Kind::OnHost(metrics::distributions)),
        ("eval_inception", Kind::OnDevice(evaluation::inception)),
        ("eval_resize", Kind::OnHost(evaluation::resizing)),
        ("eval_recipe_check", Kind::OnHost(metrics::recipe_check)),
        ("eval_ssim_psnr_misc", Kind::OnDevice(metrics::images)),
        ("eval_stats_expected", Kind::OnHost(metrics::archives)),
        ("eval_samples.npz", Kind::Aside), // read with the expected statistics
        ("eval_stats_", Kind::Aside),
        ("eval_dinov2_tiny", Kind::OnDevice(vision_transformers::dinov2_small)),
        ("eval_dinov2_", Kind::OnDevice(vision_transformers::dinov2)),
        ("eval_posembed", Kind::OnHost(vision_transformers::positions)),
        ("eval_clip_", Kind::OnDevice(vision_transformers::clip)),
    ]);
    if evaluation.is_some() {
        return evaluation;
    }
    if !name.ends_with(".safetensors") {
        return None;
    }
    matching(&[
        ("lightningdit_forward_", Kind::OnDevice(diffusion_transformers::lightningdit_forward)),
        ("lightningdit_loss_", Kind::OnDevice(diffusion_transformers::lightningdit_loss)),
        ("lightningdit_ode_", Kind::OnDevice(ode_sde::lightningdit_ode)),
        ("sit_forward_", Kind::OnDevice(diffusion_transformers::sit_forward)),
        ("lightningdit_train3", Kind::OnDevice(training::lightningdit)),
        ("sit_train3", Kind::OnDevice(training::sit)),
        ("hdit_trainstep", Kind::OnDevice(training::hdit)),
        ("vavae_losses_", Kind::OnDevice(training::vavae)),
        ("sit_bn_train", Kind::OnDevice(diffusion_transformers::sit_bn_train)),
        ("sit_sde_", Kind::OnDevice(ode_sde::sit_sde)),
        ("sit_ode_", Kind::OnDevice(ode_sde::sit_ode)),
        ("imf_forward_", Kind::OnDevice(mean_flow::forward)),
        ("pmf_forward_", Kind::OnDevice(mean_flow::forward)),
        ("imf_sample_", Kind::OnDevice(mean_flow::sample)),
        ("pmf_sample_", Kind::OnDevice(mean_flow::sample)),
        ("imf_checkpoint_", Kind::OnDevice(mean_flow::checkpoint)),
        ("pmf_checkpoint_", Kind::OnDevice(mean_flow::checkpoint)),
        ("imf_loss_", Kind::OnDevice(mean_flow::loss)),
        ("pmf_loss_", Kind::OnDevice(mean_flow::loss)),
        ("pmf_muon", Kind::OnDevice(training::muon)),
        ("rae_ditdh_forward_", Kind::OnDevice(ditdh::forward)),
        ("rae_ditdh_ode_", Kind::OnDevice(ditdh::ode)),
        ("rae_ditdh_loss", Kind::OnDevice(ditdh_train::loss)),
        ("rae_ditdh_train3", Kind::OnDevice(ditdh_train::three_steps)),
        ("rae_schedules", Kind::OnHost(ditdh::schedules)),
        ("rae_stage1_", Kind::OnDevice(rae::stage1)),
        ("jit_forward_", Kind::OnDevice(jit::forward)),
        ("jit_ode_", Kind::OnDevice(jit::ode)),
        ("jit_schedules", Kind::OnHost(jit::schedules)),
        ("jit_loss_", Kind::OnDevice(jit_train::loss)),
        ("jit_train3", Kind::OnDevice(jit_train::three_steps)),
        ("hidit_forward", Kind::OnDevice(hidit::forward)),
        ("hidit_emoji_", Kind::OnDevice(hidit::emoji)),
        ("vavae_full_structure_", Kind::OnDevice(vae::autoencoder)),
        ("vavae_gn32_", Kind::OnDevice(vae::autoencoder)),
        ("sdvae_", Kind::OnDevice(vae::diffusers)),
        ("vf_loss", Kind::OnDevice(networks::vf_loss)),
        ("lpips_head", Kind::OnDevice(networks::lpips_head)),
        ("embeddings", Kind::OnDevice(tables::embeddings)),
        ("units_norms_activations", Kind::OnDevice(tables::units)),
        ("center_crop", Kind::OnHost(tables::center_crop)),
        ("dinov2_preprocess", Kind::OnHost(networks::dinov2_preprocess)),
        ("dinov2_tiny", Kind::OnDevice(networks::dinov2_tiny)),
        ("pos_embed_resample", Kind::OnHost(networks::pos_embed_resample)),
        ("latent_shards", Kind::OnHost(files::latent_shards)),
        ("hdit_model_", Kind::OnDevice(hdit_model::forward)),
        ("hdit_denoiser", Kind::OnDevice(hdit_model::denoiser)),
        ("hdit_grad", Kind::OnDevice(hdit_model::gradients_of_loss)),
        ("hdit_pieces_rope", Kind::OnDevice(hdit_pieces::rope)),
        ("hdit_pieces_natten", Kind::OnDevice(hdit_pieces::natten)),
        ("hdit_pieces_blocks", Kind::OnDevice(hdit_pieces::blocks)),
        ("hdit_pieces_tokens", Kind::OnDevice(hdit_pieces::tokens)),
        ("hdit_pieces_mapping", Kind::OnDevice(hdit_pieces::mapping)),
        ("hdit_sampling_toy", Kind::OnDevice(hdit_sampling::toy)),
        ("hdit_sampling_model", Kind::OnDevice(hdit_sampling::model)),
        ("hdit_schedules", Kind::OnHost(hdit_sampling::schedules)),
        ("hdit_augment", Kind::OnHost(tables::augment)),
        ("hdit_metrics", Kind::OnHost(tables::metrics)),
    ])
}
