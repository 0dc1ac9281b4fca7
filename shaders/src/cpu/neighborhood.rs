//! Neighborhood attention straight from a packed projection: nothing is gathered.

use burn::tensor::Tensor;
use pulp::Arch;

use super::tensor::{Values, make};
use super::{attention, for_each_piece, math};
use crate::plain::window_start;

/// `[B, H·W, 3·heads·d]` → `[B, H·W, heads·d]`, each query among the `kernel`² keys around it.
pub(crate) fn qkv_neighborhood(
    qkv: &Tensor<3>,
    heads: usize,
    scale: f64,
    [height, width, kernel]: [usize; 3],
) -> Option<Tensor<3>> {
    let [b, n, row] = qkv.dims();
    let (d_model, d) = (row / 3, row / 3 / heads);
    let qkv = Values::of(qkv)?;
    let qkv = qkv.slice();
    Some(make([b, n, d_model], |out| {
        for_each_piece(out, width * d_model, |line, out| {
            let (image, y) = (line / height, line % height);
            let top = window_start(y, height, kernel);
            let token = |y: usize, x: usize, part: usize, head: usize| {
                let start = (image * n + y * width + x) * row + part * d_model + head * d;
                &qkv[start..start + d]
            };
            let mut weights = vec![0.0f32; kernel * kernel];
            Arch::new().dispatch(|| {
                for (place, out) in out.chunks_exact_mut(d).enumerate() {
                    let (x, head) = (place / heads, place % heads);
                    let left = window_start(x, width, kernel);
                    let key = |i: usize| (top + i / kernel, left + i % kernel);
                    let q = token(y, x, 0, head);
                    for (i, weight) in weights.iter_mut().enumerate() {
                        let (y, x) = key(i);
                        *weight = math::dot(q, token(y, x, 1, head)) * scale as f32;
                    }
                    attention::softmax(&mut weights);
                    out.fill(0.0);
                    for (i, weight) in weights.iter().enumerate() {
                        let (y, x) = key(i);
                        let v = token(y, x, 2, head);
                        for i in 0..d {
                            out[i] += weight * v[i];
                        }
                    }
                }
            });
        });
    }))
}
