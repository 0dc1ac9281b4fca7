//! Configurations of networks that compute in a moment; a test changes what it is about.

use tintype::model::dinov2::DinoConfig;
use tintype::model::ditdh::DitDhConfig;
use tintype::model::imf::ImfConfig;
use tintype::model::jit::JitConfig;
use tintype::model::lightningdit::LightningDiTConfig;
use tintype::model::meanflow::Shape;
use tintype::model::pmf::PmfConfig;
use tintype::model::rae::RaeDecoderConfig;
use tintype::model::sit::SiTConfig;
use tintype::model::vavae::VaeConfig;

/// A SiT as REPA-E has it, which holds the statistics of its latents: 12 classes, latents `[4, 8, 8]`.
pub fn sit() -> SiTConfig {
    SiTConfig {
        input_size: 8,
        in_channels: 4,
        hidden_size: 48,
        depth: 1,
        num_heads: 4,
        num_classes: 12,
        qk_norm: true,
        ..SiTConfig::variant("S", 2).expect("a variant")
    }
}

/// A LightningDiT: 12 classes, latents `[4, 8, 8]`.
pub fn lightningdit() -> LightningDiTConfig {
    LightningDiTConfig {
        input_size: 8,
        in_channels: 4,
        hidden_size: 48,
        depth: 1,
        num_heads: 4,
        num_classes: 12,
        ..LightningDiTConfig::variant("LightningDiT-B/1").expect("a variant")
    }
}

/// A DiT-DH: 12 classes, latents `[4, 8, 8]`.
pub fn ditdh() -> DitDhConfig {
    DitDhConfig {
        in_channels: 4,
        hidden_size: [32, 48],
        depth: [2, 1],
        num_heads: [4, 3],
        num_classes: 12,
        ..DitDhConfig::variant("S", 8).expect("a variant")
    }
}

/// An iMF: 6 classes, latents `[4, 32, 32]`.
pub fn imf() -> ImfConfig {
    ImfConfig { shape: mean_flow(32, 8, 4) }
}

/// A pMF: 6 classes, images of 16×16 pixels.
pub fn pmf() -> PmfConfig {
    PmfConfig { shape: mean_flow(16, 4, 3), pca_channels: 5, noise_scale: 1.0 }
}

/// A JiT: 6 classes, images of 16×16 pixels.
pub fn jit() -> JitConfig {
    JitConfig {
        input_size: 16,
        patch_size: 4,
        hidden_size: 24,
        depth: 3,
        num_heads: 2,
        bottleneck_dim: 5,
        in_context_len: 3,
        in_context_start: 1,
        num_classes: 6,
        ..JitConfig::variant("B/16").expect("a size")
    }
}

fn mean_flow(input_size: usize, patch_size: usize, in_channels: usize) -> Shape {
    Shape {
        input_size,
        patch_size,
        in_channels,
        hidden_size: 24,
        depth: 3,
        aux_head_depth: 2,
        num_heads: 2,
        mlp_hidden: 20,
        num_classes: 6,
        num_class_tokens: 3,
        num_time_tokens: 2,
        num_cfg_tokens: 2,
        num_interval_tokens: 1,
        v_heads: false,
    }
}

/// An autoencoder of latents `[4, h/4, w/4]`, whose configuration is told by its shapes.
pub fn autoencoder() -> VaeConfig {
    VaeConfig {
        ch: 32,
        ch_mult: vec![1; 3],
        num_res_blocks: 1,
        z_channels: 4,
        attn_resolutions: Vec::new(),
        ..VaeConfig::f16d32()
    }
}

/// An autoencoder of latents `[4, h/8, w/8]`, as Stable Diffusion's, whose file has to say its configuration.
pub fn f8d4() -> VaeConfig {
    VaeConfig { ch: 8, num_groups: 4, ch_mult: vec![1; 4], ..autoencoder() }
}

/// RAE's encoder: a DINOv2 with registers, of latents `[64, h/16, w/16]`.
pub fn dinov2() -> DinoConfig {
    DinoConfig {
        embed_dim: 64,
        depth: 1,
        num_heads: 1,
        patch_size: 14,
        mlp_ratio: 4,
        img_size: 42,
        registers: 4,
        swiglu: false,
    }
}

/// RAE's decoder of latents `[64, 2, 2]` to images of 32×32 pixels, whose file has to say its configuration.
pub fn rae() -> RaeDecoderConfig {
    RaeDecoderConfig {
        latent_channels: 64,
        grid: 2,
        patch_size: 16,
        decoder_hidden_size: 16,
        decoder_num_hidden_layers: 1,
        decoder_num_attention_heads: 2,
        decoder_intermediate_size: 24,
        layer_norm_eps: 1e-12,
    }
}
