//! Every operation with kernels of its own, at odd and even sizes, batch 1 included.

#[cfg(feature = "autodiff")]
use burn::tensor::Device;
use burn::tensor::activation::relu;
use burn::tensor::{Bool, Tensor, TensorData};
use tintype_shaders::{self as fused, plain};

/// Any tensor, as one row.
pub type Flat = Tensor<1>;

/// An operation on rows, fused or plain.
pub type Body<'a> = &'a dyn Fn(&[Flat]) -> Flat;

/// What is done with an operation: its inputs, its fused form, its plain one, and how close they are.
pub type Visit<'a> = &'a mut dyn FnMut(&[TensorData], Body<'_>, Body<'_>, f32);

/// Reproducible values in about −1…1.
pub fn values<const D: usize>(shape: [usize; D], seed: u32) -> TensorData {
    let count = shape.iter().product();
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let data: Vec<f32> = (0..count).map(next).collect();
    TensorData::new(data, shape)
}

/// As one row.
pub fn flat(data: &TensorData) -> TensorData {
    let values = data.try_to_vec::<f32>().expect("float32");
    let n = values.len();
    TensorData::new(values, [n])
}

/// Gradients by differences, on a direction in the space of all inputs: a check that owes nothing
/// to the plain operations.
#[cfg(feature = "autodiff")]
pub fn slopes(device: &Device, inputs: &[TensorData], fused: Body<'_>) {
    let tracked = device.clone().autodiff();
    let leaf = |data| -> Flat { Tensor::from_data(flat(data), &tracked).require_grad() };
    let leaves: Vec<Flat> = inputs.iter().map(leaf).collect();
    let y = fused(&leaves);
    let weights = values(y.dims(), 98);
    let gradients = (y * Tensor::from_data(weights.clone(), &tracked)).sum().backward();
    let directions: Vec<Vec<f32>> = (0..inputs.len())
        .map(|i| {
            values([inputs[i].shape.num_elements()], 50 + i as u32).try_to_vec().expect("float32")
        })
        .collect();
    let along = |gradient: TensorData, direction: &[f32]| -> f64 {
        let gradient = gradient.try_to_vec::<f32>().expect("float32");
        gradient.iter().zip(direction).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum()
    };
    let slope: f64 = leaves
        .iter()
        .zip(&directions)
        .map(|(x, d)| along(x.grad(&gradients).expect("it has one").into_data(), d))
        .sum();
    // Sums over results in float64: in float32 they drown the difference.
    let value = |step: f32| -> f64 {
        let moved = inputs.iter().zip(&directions).map(|(x, d)| -> Flat {
            let x = x.try_to_vec::<f32>().expect("float32");
            let x: Vec<f32> = x.iter().zip(d).map(|(x, d)| x + step * d).collect();
            let n = x.len();
            Tensor::from_data(TensorData::new(x, [n]), device)
        });
        let y = fused(&moved.collect::<Vec<_>>()).into_data();
        along(y, &weights.try_to_vec::<f32>().expect("float32"))
    };
    let step = 1e-3;
    let difference = (value(step) - value(-step)) / f64::from(2.0 * step);
    let scale = slope.abs().max(1.0);
    assert!((slope - difference).abs() < 0.01 * scale, "{slope} but by differences {difference}");
}

/// See the operations named in it.
pub fn norms(visit: Visit<'_>) {
    use tintype_shaders::Normalization::{LayerNorm, RmsNorm};
    for [b, n, d] in [[1, 1, 4], [3, 17, 100], [2, 9, 33], [2, 64, 256], [1, 5, 1152]] {
        for kind in [LayerNorm, RmsNorm] {
            for [weight, scale, shift] in [
                [false, true, true],
                [true, true, true],
                [true, true, false],
                [true, false, false],
                [false, false, false],
            ] {
                let mut inputs = vec![values([b, n, d], 1)];
                inputs.extend(weight.then(|| values([d], 2)));
                inputs.extend(scale.then(|| values([b, d], 3)));
                inputs.extend(shift.then(|| values([b, d], 4)));
                type Norm = fn(
                    Tensor<3>,
                    fused::Normalization,
                    Option<Tensor<1>>,
                    Option<Tensor<2>>,
                    Option<Tensor<2>>,
                    f64,
                ) -> Tensor<3>;
                let with = |f: Norm| {
                    move |x: &[Flat]| -> Flat {
                        let mut rest = x[1..].iter().cloned();
                        let w = weight.then(|| rest.next().unwrap());
                        let [s, t] = [scale, shift]
                            .map(|there| there.then(|| rest.next().unwrap().reshape([b, d])));
                        f(x[0].clone().reshape([b, n, d]), kind, w, s, t, 1e-6).reshape([-1])
                    }
                };
                visit(&inputs, &with(fused::modulated_norm), &with(plain::modulated_norm), 3e-5);
            }
        }
    }
}

/// Linear layers, with a bias and without, and with a GELU behind.
pub fn products(visit: Visit<'_>) {
    for [rows, n, k] in [[1, 8, 8], [3, 24, 40], [37, 9, 6], [130, 200, 136], [300, 72, 1152]] {
        let inputs = [values([rows, k], 1), values([n, k], 2), values([n], 3)];
        type Layer = fn(Tensor<3>, Tensor<2>, Option<Tensor<1>>) -> Tensor<3>;
        let with = |f: Layer| {
            move |x: &[Flat]| -> Flat {
                // Of sums of k products: about 1, so that a GELU bends them.
                let weight = x[1].clone().reshape([n, k]) / (k as f64).sqrt();
                f(x[0].clone().reshape([1, rows, k]), weight, x.get(2).cloned()).reshape([-1])
            }
        };
        visit(&inputs, &with(fused::linear), &with(plain::linear), 1e-4);
        visit(&inputs[..2], &with(fused::linear), &with(plain::linear), 1e-4);
        let gelu: Layer = |x, weight, bias| plain::gelu_tanh(plain::linear(x, weight, bias));
        visit(&inputs, &with(fused::linear_gelu_tanh), &with(gelu), 1e-4);
    }
}

/// Convolutions with four inputs (a bias and a residual), three (a bias) and two: windows of one pixel, of odd and of
/// even sides, some of which keep the size of the image, some halve it.
pub fn convolutions(visit: Visit<'_>) {
    for ([b, c, h, w], out, [kh, kw], stride, padding, given) in [
        ([1, 8, 1, 1], 8, [1, 1], 1, [0, 0], 4),
        ([2, 40, 17, 19], 3, [3, 3], 1, [1, 1], 3),
        ([1, 64, 33, 20], 72, [3, 3], 1, [1, 1], 4),
        ([2, 16, 25, 40], 24, [1, 1], 1, [0, 0], 3),
        ([1, 3, 9, 12], 16, [3, 3], 2, [0, 0], 3),
        ([2, 6, 8, 10], 20, [4, 4], 2, [1, 1], 2),
        ([1, 12, 11, 7], 8, [1, 7], 1, [0, 3], 3),
        ([1, 5, 7, 6], 300, [5, 3], 1, [2, 0], 2),
    ] {
        let shape = [out, c, kh, kw];
        let side =
            |axis: usize, side: usize| (side + 2 * padding[axis] - [kh, kw][axis]) / stride + 1;
        let result = [b, out, side(0, h), side(1, w)];
        let inputs =
            [values([b, c, h, w], 1), values(shape, 2), values([out], 3), values(result, 4)];
        type Layer = fn(
            Tensor<4>,
            Tensor<4>,
            Option<Tensor<1>>,
            Option<Tensor<4>>,
            usize,
            [usize; 2],
        ) -> Tensor<4>;
        let with = |f: Layer| {
            move |x: &[Flat]| -> Flat {
                let image = x[0].clone().reshape([b, c, h, w]);
                let weight = x[1].clone().reshape(shape) / ((c * kh * kw) as f64).sqrt();
                let residual = x.get(3).map(|x| x.clone().reshape(result));
                f(image, weight, x.get(2).cloned(), residual, stride, padding).reshape([-1])
            }
        };
        visit(&inputs[..given], &with(fused::convolution), &with(plain::convolution), 1e-4);
    }
}

/// Convolutions with a ReLU behind, which has no slope where differences would need one: in bands, and with a stride.
pub fn rectified_convolutions(visit: Visit<'_>) {
    for ([b, c, h, w], out, side, stride) in
        [([1, 3, 1, 1], 2, 1, 1), ([2, 5, 19, 21], 7, 3, 1), ([1, 17, 10, 13], 40, 3, 2)]
    {
        let (shape, padding) = ([out, c, side, side], [side / 2; 2]);
        let inputs = [values([b, c, h, w], 1), values(shape, 2), values([out], 3)];
        type Layer = fn(Tensor<4>, Tensor<4>, Option<Tensor<1>>, usize, [usize; 2]) -> Tensor<4>;
        let with = |f: Layer| {
            move |x: &[Flat]| -> Flat {
                let image = x[0].clone().reshape([b, c, h, w]);
                let weight = x[1].clone().reshape(shape) / ((c * side * side) as f64).sqrt();
                f(image, weight, x.get(2).cloned(), stride, padding).reshape([-1])
            }
        };
        let reference: Layer = |x, weight, bias, stride, padding| {
            relu(plain::convolution(x, weight, bias, None, stride, padding))
        };
        visit(&inputs, &with(fused::convolution_relu), &with(reference), 1e-4);
        visit(&inputs[..2], &with(fused::convolution_relu), &with(reference), 1e-4);
    }
}

/// Convolutions of images of twice the size, in one band and in several.
pub fn upsampled_convolutions(visit: Visit<'_>) {
    for ([b, c, h, w], out) in
        [([1, 1, 1, 1], 1), ([2, 5, 3, 7], 4), ([1, 40, 9, 33], 12), ([2, 3, 17, 6], 70)]
    {
        let shape = [out, c, 3, 3];
        let inputs = [values([b, c, h, w], 1), values(shape, 2), values([out], 3)];
        let with = |f: fn(Tensor<4>, Tensor<4>, Tensor<1>) -> Tensor<4>| {
            move |x: &[Flat]| -> Flat {
                let image = x[0].clone().reshape([b, c, h, w]);
                let weight = x[1].clone().reshape(shape) / ((c * 9) as f64).sqrt();
                f(image, weight, x[2].clone()).reshape([-1])
            }
        };
        let reference = |x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>| {
            plain::convolution(plain::upsample(x), weight, Some(bias), None, 1, [1, 1])
        };
        visit(&inputs, &with(fused::upsample_convolution), &with(reference), 1e-4);
    }
}

/// See the operations named in it.
pub fn gates(visit: Visit<'_>) {
    for [b, n, d] in [[1, 1, 3], [3, 17, 100], [2, 64, 256]] {
        let inputs = [values([b, n, d], 1), values([b, n, d], 2), values([b, d], 3)];
        let with = |f: fn(Tensor<3>, Tensor<3>, Tensor<2>) -> Tensor<3>| {
            move |x: &[Flat]| -> Flat {
                let tokens = |i: usize| x[i].clone().reshape([b, n, d]);
                f(tokens(0), tokens(1), x[2].clone().reshape([b, d])).reshape([-1])
            }
        };
        visit(&inputs, &with(fused::gated_residual), &with(plain::gated_residual), 2e-5);
    }
}

/// See the operations named in it.
pub fn activations(visit: Visit<'_>) {
    for [n, d] in [[1, 1], [17, 50], [64, 256]] {
        let inputs = [values([n, 2 * d], 1)];
        let with = |f: fn(Tensor<2>) -> Tensor<2>| {
            move |x: &[Flat]| -> Flat { f(x[0].clone().reshape([n, 2 * d]) * 4.0).reshape([-1]) }
        };
        visit(&inputs, &with(fused::swiglu), &with(plain::swiglu), 2e-5);
        visit(&inputs, &with(fused::geglu), &with(plain::geglu), 2e-5);
        visit(&inputs, &with(fused::gelu_tanh), &with(plain::gelu_tanh), 2e-5);
        let inputs = [values([n, 7], 1), values([d, 7], 2), values([d], 3)];
        let with = |f: fn(Tensor<2>, Tensor<2>, Option<Tensor<1>>) -> Tensor<2>| {
            move |x: &[Flat]| -> Flat {
                let (rows, weight) = (x[0].clone().reshape([n, 7]), x[1].clone().reshape([d, 7]));
                f(rows, weight, Some(x[2].clone())).reshape([-1])
            }
        };
        let reference = |x: Tensor<2>, w: Tensor<2>, b: Option<Tensor<1>>| {
            plain::gelu_tanh(plain::linear(x, w, b))
        };
        visit(&inputs, &with(fused::linear_gelu_tanh), &with(reference), 2e-5);
    }
}

/// Rows of one value, shorter and longer than pieces of work.
pub fn softmaxes(visit: Visit<'_>) {
    for shape in [[1, 1, 1], [3, 5, 1], [2, 17, 50], [1, 300, 64], [1, 2, 9000]] {
        let with = |f: fn(Tensor<3>) -> Tensor<3>| {
            move |x: &[Flat]| -> Flat { f(x[0].clone().reshape(shape) * 4.0).reshape([-1]) }
        };
        visit(&[values(shape, 1)], &with(fused::softmax), &with(plain::softmax), 2e-5);
    }
}

/// See the operations named in it.
pub fn attention(visit: Visit<'_>) {
    for [b, heads, n, m, d, e] in [
        [1, 1, 1, 1, 32, 32],
        [2, 3, 36, 36, 16, 16],
        [1, 2, 64, 64, 72, 72],
        [1, 2, 130, 50, 24, 10],
        [2, 1, 33, 257, 128, 128],
        [1, 1, 70, 70, 5, 5],
    ] {
        let inputs =
            [values([b, heads, n, d], 1), values([b, heads, m, d], 2), values([b, heads, m, e], 3)];
        type Attention =
            fn(Tensor<4>, Tensor<4>, Tensor<4>, f64, Option<Tensor<4, Bool>>) -> Tensor<4>;
        let with = |f: Attention| {
            move |x: &[Flat]| -> Flat {
                let q = x[0].clone().reshape([b, heads, n, d]) * 3.0;
                let k = x[1].clone().reshape([b, heads, m, d]) * 3.0;
                let v = x[2].clone().reshape([b, heads, m, e]);
                f(q, k, v, 1.0 / (d as f64).sqrt(), None).reshape([-1])
            }
        };
        visit(&inputs, &with(fused::attention), &with(plain::attention), 5e-5);
    }
}

/// See the operations named in it.
pub fn neighborhoods(visit: Visit<'_>) {
    for ([b, h, w, heads, d], kernel) in [
        ([1, 3, 3, 1, 8], 3),
        ([2, 7, 13, 2, 16], 7),
        ([1, 9, 11, 1, 64], 5),
        ([1, 16, 17, 2, 24], 4),
        ([1, 14, 25, 1, 20], 13),
        ([1, 5, 6, 1, 128], 3),
    ] {
        let inputs = [1, 2, 3].map(|seed| values([b, h, w, heads, d], seed));
        let with = |f: fn(Tensor<5>, Tensor<5>, Tensor<5>, usize, f64) -> Tensor<5>| {
            move |x: &[Flat]| -> Flat {
                let image = |i: usize| x[i].clone().reshape([b, h, w, heads, d]);
                f(image(0) * 2.0, image(1) * 2.0, image(2), kernel, 0.3).reshape([-1])
            }
        };
        let (fused, reference) =
            (with(fused::neighborhood_attention), with(plain::neighborhood_attention));
        visit(&inputs, &fused, &reference, 5e-5);
    }
}

/// See the operations named in it.
pub fn packed_attention(visit: Visit<'_>) {
    use tintype_shaders::{AttentionKind, QkTransform};
    type Attention = fn(Tensor<3>, usize, f64, QkTransform, AttentionKind) -> Tensor<3>;
    for ([b, height, width, heads, d], kernel) in
        [([1, 1, 1, 2, 8], 1), ([2, 5, 7, 3, 16], 3), ([1, 8, 9, 2, 72], 5)]
    {
        let n = height * width;
        let qkv = values([b, n, 3 * heads * d], 1);
        for reach in [AttentionKind::Global, AttentionKind::Neighborhood { height, width, kernel }]
        {
            let plainly = |f: Attention| {
                move |x: &[Flat]| -> Flat {
                    let qkv = x[0].clone().reshape([b, n, 3 * heads * d]) * 2.0;
                    f(qkv, heads, 0.25, QkTransform::Plain, reach).reshape([-1])
                }
            };
            let (with, reference) = (plainly(fused::qkv_attention), plainly(plain::qkv_attention));
            visit(std::slice::from_ref(&qkv), &with, &reference, 5e-5);
            let rotary = |f: Attention| {
                move |x: &[Flat]| -> Flat {
                    let qkv = x[0].clone().reshape([b, n, 3 * heads * d]) * 2.0;
                    let table = |seed| Tensor::from_data(values([n, d], seed), &qkv.device());
                    let preparation = QkTransform::Rotary { cos: table(4), sin: table(5) };
                    f(qkv, heads, 0.25, preparation, reach).reshape([-1])
                }
            };
            let (with, reference) = (rotary(fused::qkv_attention), rotary(plain::qkv_attention));
            visit(std::slice::from_ref(&qkv), &with, &reference, 5e-5);
            let cosine = |f: Attention| {
                move |x: &[Flat]| -> Flat {
                    let qkv = x[0].clone().reshape([b, n, 3 * heads * d]);
                    let freqs = Tensor::from_data(values([heads, d / 8], 6), &qkv.device()) * 9.0;
                    let scale = x[1].clone() * 3.0 + 6.0;
                    let preparation = QkTransform::Cosine { scale, freqs, height, width };
                    f(qkv, heads, 1.0, preparation, reach).reshape([-1])
                }
            };
            let (with, reference) = (cosine(fused::qkv_attention), cosine(plain::qkv_attention));
            visit(&[qkv.clone(), values([heads], 7)], &with, &reference, 1e-4);
        }
    }
}

/// Rotations of queries or keys by themselves.
pub fn rotations(visit: Visit<'_>) {
    for [b, heads, n, d] in [[1, 1, 1, 2], [2, 3, 7, 10], [1, 2, 70, 64]] {
        type Rotation = fn(Tensor<4>, Tensor<2>, Tensor<2>) -> Tensor<4>;
        let with = |f: Rotation| {
            move |x: &[Flat]| -> Flat {
                let x = x[0].clone().reshape([b, heads, n, d]);
                let table = |seed| Tensor::from_data(values([n, d], seed), &x.device());
                let (cos, sin) = (table(4), table(5));
                f(x, cos, sin).reshape([-1])
            }
        };
        let x = values([b, heads, n, d], 1);
        visit(&[x], &with(fused::rotate_pairs), &with(plain::rotate_pairs), 1e-4);
    }
}

/// See the operations named in it.
pub fn group_norms(visit: Visit<'_>) {
    for ([b, c, h, w], groups) in
        [([1, 4, 1, 1], 2), ([2, 32, 5, 7], 8), ([1, 6, 33, 31], 3), ([2, 2, 150, 121], 1)]
    {
        let inputs = [values([b, c, h, w], 1), values([c], 2), values([c], 3)];
        type Norm = fn(Tensor<4>, Tensor<1>, Tensor<1>, usize, f64) -> Tensor<4>;
        let with = |f: Norm| {
            move |x: &[Flat]| -> Flat {
                let image = x[0].clone().reshape([b, c, h, w]) * 2.0 + 0.7;
                f(image, x[1].clone(), x[2].clone(), groups, 1e-6).reshape([-1])
            }
        };
        visit(&inputs, &with(fused::group_norm_silu), &with(plain::group_norm_silu), 1e-4);
    }
}
