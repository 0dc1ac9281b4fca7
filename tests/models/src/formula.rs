//! Weights by a formula: the same on every machine.

use std::collections::BTreeMap;

use tintype::burn::module::Module;
use tintype::weights::{TensorView, layout};

/// The tensors of a network under the authors' names, with values between −`scale` and `scale`.
///
/// * `is_one`: whether a tensor of this name is 1 everywhere instead, such as a variance
pub fn tensors<M: Module>(
    network: &M,
    scale: f32,
    is_one: impl Fn(&str) -> bool,
) -> BTreeMap<String, TensorView> {
    let mut n = 0u32;
    let mut value = || {
        n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (n >> 8) as f32 / (1 << 23) as f32 * scale - scale
    };
    let tensors = layout(network).into_iter().map(|(name, shape)| {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = match is_one(&name) {
            true => vec![1.0; count],
            false => (0..count).map(|_| value()).collect(),
        };
        (name, TensorView::from_f32(shape, &values).expect("as many as the shape"))
    });
    tensors.collect()
}
