//! Published configurations, with their parameter counts and the numbers they reproduce.

use crate::model::Architecture;
use crate::model::ditdh::DitDhConfig;
use crate::model::hdit::{HDiTConfig, LevelAttention, PerLevel};
use crate::model::hidit::HiDiTConfig;
use crate::model::imf::ImfConfig;
use crate::model::jit::JitConfig;
use crate::model::lightningdit::LightningDiTConfig;
use crate::model::pmf::PmfConfig;
use crate::model::sit::SiTConfig;

/// A named network.
#[derive(Clone, Debug)]
pub struct Preset {
    /// How it is called here.
    pub name: &'static str,
    /// Its shape.
    pub architecture: Architecture,
    /// Parameters as published (with position tables, without buffers, projectors and what no network reads).
    pub parameters: usize,
    /// What its authors measured.
    pub metric: &'static str,
}

/// The preset of a name.
pub fn find(name: &str) -> Option<Preset> {
    all().into_iter().find(|preset| preset.name == name)
}

/// Every published configuration.
pub fn all() -> Vec<Preset> {
    let mut presets = vec![
        hidit(
            "hidit-xl-1-256",
            16,
            256,
            688_729_328,
            "ImageNet-256: FID 1.06 guided, 1.66 without",
        ),
        hidit("hidit-xl-1-512", 32, 512, 689_614_064, "ImageNet-512: gFID 1.26"),
    ];
    presets.extend(
        [
            ("sit-xl-1", "XL", 1, 675_148_064, "REPA-E e2e-VAVAE, 800 epochs: FID 1.12 guided"),
            ("sit-l-1", "L", 1, 458_119_200, "REPA-E's smaller variant"),
            ("sit-b-1", "B", 1, 130_524_704, "REPA-E's smaller variant"),
            ("sit-s-1", "S", 1, 32_969_504, "REPA-E's smallest variant"),
        ]
        .into_iter()
        .filter_map(|(name, size, patch, parameters, metric)| {
            let architecture = SiTConfig::variant(size, patch)?.into();
            Some(Preset { name, architecture, parameters, metric })
        }),
    );
    presets.extend(
        [
            ("lightningdit-b-1", "B/1", 130_556_192, "LightningDiT's small variant"),
            ("lightningdit-b-2", "B/2", 130_556_288, "LightningDiT's small variant"),
            ("lightningdit-l-2", "L/2", 458_153_056, "LightningDiT's medium variant"),
            (
                "lightningdit-xl-1",
                "XL/1",
                675_256_736,
                "ImageNet-256: FID 1.35 (800 epochs), 2.11 (64)",
            ),
            ("lightningdit-xl-2", "XL/2", 675_256_832, "LightningDiT on larger latents"),
            ("lightningdit-1p0b-1", "1p0B/1", 1_029_401_120, "LightningDiT's scaling study"),
            ("lightningdit-1p6b-1", "1p6B/1", 1_631_767_120, "LightningDiT's scaling study"),
        ]
        .into_iter()
        .filter_map(|(name, variant, parameters, metric)| {
            let config = LightningDiTConfig::variant(&format!("LightningDiT-{variant}"))?;
            let architecture = config.into();
            Some(Preset { name, architecture, parameters, metric })
        }),
    );
    presets.extend(imf());
    presets.extend(pmf());
    presets.extend(ditdh());
    presets.extend(jit());
    let hdit = |name, config: HDiTConfig, parameters, metric| Preset {
        name,
        architecture: Architecture::from(config),
        parameters,
        metric,
    };
    presets.extend([
        hdit("hdit-mnist", mnist(), 9_187_360, "k-diffusion's MNIST configuration"),
        hdit("hdit-cifar10", cifar10(), 20_981_809, "k-diffusion's CIFAR-10 configuration"),
        hdit(
            "hdit-flowers-256",
            flowers(),
            22_361_274,
            "k-diffusion's Oxford Flowers configuration",
        ),
        hdit(
            "hdit-flowers-256-window",
            HDiTConfig {
                self_attns: Some(vec![WINDOW, WINDOW, LevelAttention::Global { d_head: 64 }]),
                ..flowers()
            },
            22_361_274,
            "the same with shifted windows",
        ),
        hdit(
            "hdit-imagenet-128",
            imagenet_128(),
            117_003_805,
            "ImageNet-128, 400k steps: FID 27.74",
        ),
        hdit(
            "hdit-imagenet-256",
            imagenet_256(),
            557_416_522,
            "ImageNet-256: FID 3.21 guided, 6.92 without",
        ),
        hdit("hdit-ffhq-1024", ffhq_1024(), 85_079_300, "FFHQ-1024: FID 5.23"),
    ]);
    presets
}

const WINDOW: LevelAttention = LevelAttention::ShiftedWindow { d_head: 64, window_size: 8 };
const NEIGHBORHOOD: LevelAttention = LevelAttention::Neighborhood { d_head: 64, kernel_size: 7 };
const GLOBAL: LevelAttention = LevelAttention::Global { d_head: 64 };

fn hidit(
    name: &'static str,
    latent: usize,
    image: usize,
    parameters: usize,
    metric: &'static str,
) -> Preset {
    let xl = SiTConfig::variant("XL", 1).expect("XL is a published variant");
    let config = HiDiTConfig {
        sit: SiTConfig { input_size: latent, ..xl },
        image,
        pixel_patch: image / latent,
        tau: 0.3,
        t_min: 0.05,
    };
    Preset { name, architecture: config.into(), parameters, metric }
}

/// iMF, without the last layer of the head of v that its files hold.
fn imf() -> Vec<Preset> {
    [
        ("imf-b-2", "B", 88_935_184, "ImageNet-256, 1 step: FID 3.32"),
        ("imf-m-2", "M", 173_908_240, "ImageNet-256, 1 step: FID 2.26"),
        ("imf-l-2", "L", 409_054_224, "ImageNet-256, 1 step: FID 1.83"),
        ("imf-xl-2", "XL", 610_415_632, "ImageNet-256: FID 1.72 in 1 step, 1.54 in 2"),
    ]
    .into_iter()
    .filter_map(|(name, size, parameters, metric)| {
        let architecture = ImfConfig::variant(size)?.into();
        Some(Preset { name, architecture, parameters, metric })
    })
    .collect()
}

fn pmf() -> Vec<Preset> {
    [
        ("pmf-b-16", "B", 16, 118_234_240, "ImageNet-256, 1 step: FID 3.15"),
        ("pmf-l-16", "L", 16, 410_320_768, "ImageNet-256, 1 step: FID 2.51"),
        ("pmf-h-16", "H", 16, 955_508_992, "ImageNet-256, 1 step: FID 2.15"),
        ("pmf-b-32", "B", 32, 120_300_928, "ImageNet-512, 1 step: FID 3.63"),
        ("pmf-l-32", "L", 32, 412_977_280, "ImageNet-512, 1 step: FID 2.69"),
        ("pmf-h-32", "H", 32, 959_050_240, "ImageNet-512, 1 step: FID 2.36"),
    ]
    .into_iter()
    .filter_map(|(name, size, patch, parameters, metric)| {
        let architecture = PmfConfig::variant(size, patch)?.into();
        Some(Preset { name, architecture, parameters, metric })
    })
    .collect()
}

/// RAE's, on the latents of DINOv2-B; the small ones guide the large ones.
fn ditdh() -> Vec<Preset> {
    [
        (
            "rae-ditdh-xl-256",
            "XL",
            16,
            838_675_796,
            "RAE, ImageNet-256, 800 epochs: FID 1.13 guided, 1.51 without",
        ),
        ("rae-ditdh-xl-512", "XL", 32, 839_560_532, "RAE, ImageNet-512: FID 1.13 guided"),
        ("rae-ditdh-s-256", "S", 16, 196_455_764, "RAE's guide of rae-ditdh-xl-256, 14 epochs"),
        ("rae-ditdh-s-512", "S", 32, 196_750_676, "RAE's guide of rae-ditdh-xl-512, 20 epochs"),
    ]
    .into_iter()
    .filter_map(|(name, size, side, parameters, metric)| {
        let architecture = DitDhConfig::variant(size, side)?.into();
        Some(Preset { name, architecture, parameters, metric })
    })
    .collect()
}

fn jit() -> Vec<Preset> {
    [
        ("jit-b-16", "B/16", 131_320_320, "ImageNet-256: FID 3.66"),
        ("jit-l-16", "L/16", 459_139_808, "ImageNet-256: FID 2.36"),
        ("jit-h-16", "H/16", 952_842_048, "ImageNet-256: FID 1.86"),
        ("jit-b-32", "B/32", 133_387_008, "ImageNet-512: FID 4.02"),
        ("jit-l-32", "L/32", 461_796_320, "ImageNet-512: FID 2.53"),
        ("jit-h-32", "H/32", 956_383_296, "ImageNet-512: FID 1.94"),
    ]
    .into_iter()
    .filter_map(|(name, variant, parameters, metric)| {
        let architecture = JitConfig::variant(variant)?.into();
        Some(Preset { name, architecture, parameters, metric })
    })
    .collect()
}

/// What all HDiT configurations share.
fn hdit(side: usize, depths: &[usize], widths: &[usize]) -> HDiTConfig {
    HDiTConfig {
        input_channels: 3,
        input_size: [side; 2],
        patch_size: [4; 2],
        depths: depths.to_vec(),
        widths: widths.to_vec(),
        d_ffs: None,
        self_attns: None,
        mapping_width: 256,
        mapping_depth: 2,
        mapping_d_ff: None,
        mapping_cond_dim: 0,
        mapping_dropout_rate: 0.0,
        dropout_rate: PerLevel::All(0.0),
        sigma_data: 0.5,
        sigma_min: 0.01,
        sigma_max: 80.0,
        num_classes: 0,
        cond_dropout_rate: 0.1,
    }
}

fn mnist() -> HDiTConfig {
    HDiTConfig {
        input_channels: 1,
        dropout_rate: PerLevel::All(0.05),
        sigma_data: 0.6162,
        num_classes: 10,
        ..hdit(28, &[8], &[256])
    }
}

fn cifar10() -> HDiTConfig {
    HDiTConfig {
        patch_size: [2; 2],
        self_attns: Some(vec![GLOBAL, GLOBAL]),
        dropout_rate: PerLevel::All(0.05),
        num_classes: 10,
        ..hdit(32, &[2, 4], &[256, 512])
    }
}

fn flowers() -> HDiTConfig {
    HDiTConfig {
        dropout_rate: PerLevel::Each(vec![0.0, 0.0, 0.1]),
        sigma_max: 160.0,
        ..hdit(256, &[2, 2, 4], &[128, 256, 512])
    }
}

fn imagenet_128() -> HDiTConfig {
    HDiTConfig {
        mapping_width: 768,
        mapping_depth: 1,
        num_classes: 1000,
        ..hdit(128, &[2, 11], &[384, 768])
    }
}

fn imagenet_256() -> HDiTConfig {
    HDiTConfig { num_classes: 1000, ..hdit(256, &[2, 2, 16], &[384, 768, 1536]) }
}

fn ffhq_1024() -> HDiTConfig {
    HDiTConfig {
        self_attns: Some(vec![NEIGHBORHOOD, NEIGHBORHOOD, NEIGHBORHOOD, GLOBAL, GLOBAL]),
        dropout_rate: PerLevel::Each(vec![0.0, 0.0, 0.0, 0.0, 0.1]),
        sigma_max: 160.0,
        ..hdit(1024, &[2; 5], &[128, 256, 384, 768, 1024])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::meanflow::Shape;
    use crate::model::vavae::VaeConfig;
    use crate::weights::parameter_count;
    use burn::tensor::Device;

    fn count(architecture: &Architecture) -> usize {
        architecture.untrained(&Device::default()).expect("a valid configuration").parameter_count()
    }

    #[test]
    fn presets_have_the_published_parameter_counts() {
        for preset in all() {
            assert_eq!(count(&preset.architecture), preset.parameters, "{}", preset.name);
        }
    }

    #[test]
    fn mean_flows_have_the_published_parameter_counts_in_all_forms() {
        let with_head = |config: &ImfConfig| {
            let shape = Shape { v_heads: true, ..config.shape.clone() };
            count(&ImfConfig { shape }.into())
        };
        // Published files hold the norm and the head of v, which nothing reads.
        for (size, released, training) in [
            ("B", 88_948_256, 145_596_960),
            ("M", 173_921_312, 230_570_016),
            ("L", 409_071_648, 509_752_352),
            ("XL", 610_433_056, 711_113_760),
        ] {
            let config = ImfConfig::variant(size).expect("a size");
            let (d, values) = (config.shape.hidden_size, 2 * 2 * 4);
            let idle = d + (d + 1) * values;
            assert_eq!(count(&config.clone().into()) + idle, released, "{size}");
            assert_eq!(with_head(&config), training, "{size}");
        }
        for (size, patch, training) in [
            ("B", 16, 175_474_304),
            ("B", 32, 179_312_768),
            ("L", 16, 511_789_696),
            ("L", 32, 516_807_808),
            ("H", 16, 1_113_904_640),
            ("H", 32, 1_120_397_312),
        ] {
            let config = PmfConfig::variant(size, patch).expect("a size");
            let shape = Shape { v_heads: true, ..config.shape.clone() };
            let config = PmfConfig { shape, ..config };
            assert_eq!(count(&config.into()), training, "{size}/{patch}");
        }
    }

    #[test]
    fn mean_flows_have_the_published_work() {
        let gflop = |macs: f64| (2.0 * macs / 1e8).round() / 10.0;
        let imf = |size| gflop(ImfConfig::variant(size).expect("a size").macs());
        let pmf = |size, patch| gflop(PmfConfig::variant(size, patch).expect("a size").macs());
        assert_eq!(["B", "M", "L", "XL"].map(imf), [49.7, 99.4, 232.2, 348.3]);
        assert_eq!(["B", "L", "H"].map(|size| pmf(size, 16)), [66.7, 232.7, 540.7]);
        assert_eq!(["B", "L", "H"].map(|size| pmf(size, 32)), [67.7, 234.1, 542.5]);
    }

    #[test]
    fn jit_has_the_published_work() {
        let gflop = |name: &str| {
            let config = JitConfig::variant(name).expect("a size");
            (2.0 * config.macs() / 1e6).round() / 1e3
        };
        let published = [50.446, 175.889, 363.892, 51.503, 177.248, 365.704];
        assert_eq!(["B/16", "L/16", "H/16", "B/32", "L/32", "H/32"].map(gflop), published);
    }

    #[test]
    fn variants_have_the_published_parameter_counts() {
        let sit = |name: &str, z: Vec<usize>| {
            let config = SiTConfig { z_dims: z, ..SiTConfig::variant(name, 1).unwrap() };
            count(&config.into())
        };
        assert_eq!(sit("XL", vec![768]), 683_279_392);
        assert_eq!(sit("L", vec![768]), 465_988_384);
        assert_eq!(sit("B", vec![768]), 137_869_600);
        let xl = LightningDiTConfig::variant("LightningDiT-XL/1").unwrap();
        let lightning = |config: LightningDiTConfig| count(&config.into());
        let qk_norm = LightningDiTConfig { use_qknorm: true, ..xl };
        assert_eq!(lightning(qk_norm.clone()), 675_260_768);
        assert_eq!(lightning(LightningDiTConfig { wo_shift: true, ..qk_norm }), 600_878_432);
        let wide = HDiTConfig { mapping_width: 768, ..ffhq_1024() };
        assert_eq!((count(&wide.into()) + 5_000) / 10_000, 10_396); // 103.96M
    }

    #[test]
    fn autoencoders_have_the_published_parameter_counts() {
        let device = Device::default();
        let halves = |config: VaeConfig| {
            (
                parameter_count(&config.init_encoder(&device).unwrap()),
                parameter_count(&config.init_decoder(&device).unwrap()),
            )
        };
        let (encoder, decoder) = halves(VaeConfig::f16d32());
        assert_eq!((encoder, decoder), (28_413_248 + 4_160, 41_417_603 + 1_056));
        assert_eq!(encoder + decoder, 69_836_067);
        let (encoder, decoder) = halves(VaeConfig::f8d4());
        assert_eq!(encoder + decoder, 83_653_863);
    }
}
