//! Steps in which the gradients of one network alone are not finite; what such tests of other trainers need, too.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tintype::burn::tensor::Device;
use tintype::model::vavae::VaeConfig;
use tintype::weights::{Dtype, Flat, TensorView, Which, flat, with_flat, write_safetensors};

use super::{LossNetworks, Networks, VaeLoss, VaeTraining};
use crate::data::store::{Description, ImageStore, STORE_FILE, Shard};
use crate::network::patchgan::PatchGan;
use crate::train::adamw::AdamWConfig;
use crate::train::adversary::fresh_discriminator;
use crate::train::checkpoint::TensorFile;
use crate::train::comm::Comm;
use crate::train::epoch_sampler::EpochSampler;
use crate::train::trainer::Trainer;

/// The side of the smallest images that the discriminator takes.
pub const SIDE: usize = 24;
pub const IMAGES: usize = 2;

/// A store of images.
pub fn store(folder: &Path) -> ImageStore {
    let pixels = (0..IMAGES * SIDE * SIDE * 3).map(|i| (i * 37 % 251) as u8).collect();
    let images = TensorView::from_bytes(Dtype::U8, vec![IMAGES, SIDE, SIDE, 3], pixels);
    let labels = TensorView::from_bytes(Dtype::I64, vec![IMAGES], vec![0; 8 * IMAGES]);
    let tensors = [("images", images), ("labels", labels)];
    let named = tensors.map(|(name, view)| (name.to_string(), view.expect("they fit")));
    let bytes = write_safetensors(&BTreeMap::from(named), &BTreeMap::new()).expect("it fits");
    let file = "images_00000.safetensors";
    std::fs::write(folder.join(file), bytes).expect("it is written");
    let description = Description {
        version: 1,
        side: SIDE,
        classes: vec!["ash".into()],
        shards: vec![Shard { file: file.into(), count: IMAGES, crc32c: 0 }],
        skipped: 0,
        skipped_by_reason: BTreeMap::new(),
        hidden: 0,
        enlarged: 0,
        labelled_by: String::new(),
        identity: None,
    };
    let text = serde_json::to_vec(&description).expect("JSON");
    std::fs::write(folder.join(STORE_FILE), text).expect("it is written");
    ImageStore::open(folder).expect("a store")
}

/// Lets what enters the discriminator's last layer be so large that the norm of that layer's gradient overflows. Its
/// weights are as small, so logits, and gradients everywhere else, stay finite.
pub fn with_large_activations(discriminator: PatchGan) -> PatchGan {
    let values = flat(&discriminator, Which::Trainable);
    let scaled = |name: &str, factor: f64| (name.to_string(), values[name].clone() * factor);
    let values = Flat::from([scaled("main.9.weight", 1e25), scaled("main.11.weight", 1e-25)]);
    with_flat(discriminator, &values)
}

/// All numbers of a trainer: its networks with their statistics, averages and optimizers.
pub fn numbers(training: &dyn Trainer) -> BTreeMap<String, Vec<f32>> {
    let of_file = |file: TensorFile| {
        let tensors = file.tensors.into_iter();
        tensors.map(move |(name, view)| (format!("{}/{name}", file.name), view.to_f32()))
    };
    training.save().expect("a copy").into_iter().flat_map(of_file).collect()
}

#[test]
fn gradients_of_the_discriminator_alone_are_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let images = Arc::new(store(folder.path()));
    let model: VaeConfig = serde_json::from_str(
        r#"{"ch": 8, "ch_mult": [1, 2], "num_res_blocks": 1, "z_channels": 4, "attn_resolutions": [], "num_groups": 4}"#,
    )
    .expect("a configuration");
    // The discriminator learns from the first step on, the autoencoder from it one step later.
    let loss = VaeLoss { disc_start: 1, disc_channels: 4, ..VaeLoss::default() };
    let device = Device::flex().autodiff();
    for large in [false, true] {
        let networks = Networks::fresh(&model, None, 0, &device).expect("networks");
        let discriminator = fresh_discriminator(4, 3, &device).expect("a discriminator");
        let discriminator =
            if large { with_large_activations(discriminator) } else { discriminator };
        let mut training = VaeTraining::new(
            (model.clone(), loss),
            (networks, discriminator),
            LossNetworks::default(),
            AdamWConfig::new(1e-4, [0.5, 0.9]),
            (images.clone(), EpochSampler::shuffled(0, IMAGES)),
            (IMAGES, 0),
            Comm::alone(),
            &device,
        )
        .expect("they fit");
        let before = numbers(&training);
        training.step(0).expect("a step");
        let report = training.settle().expect("it was made");
        let not_finite = report.values.iter().filter(|(_, value)| !value.is_finite());
        let not_finite: Vec<&str> = not_finite.map(|(name, _)| name.as_str()).collect();
        let expected: &[&str] = if large { &["disc_grad_norm"] } else { &[] };
        assert_eq!(not_finite, expected, "{:?}", report.values);
        assert_eq!(report.skipped, large);
        assert_eq!(numbers(&training) == before, large, "both networks change, or neither");
    }
}
