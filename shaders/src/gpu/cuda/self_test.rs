//! Before a device is given work, its kernels compute something whose result is known: a driver that
//! cannot compile them, or a GPU on which they err, leaves the work to the kernels written in CubeCL.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use burn::tensor::{DType, Shape};
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::Runtime;
use cubecl::cuda::{CudaDevice, CudaRuntime};

use super::super::bridge::alloc;
use super::super::flash::{self, Dims};
use super::super::rows::Rows;
use super::super::view::View;
use super::product::{Added, Inner, Plan, convolution, product};
use super::{attention as own, compute_capability, on_cuda};

/// Results, by what is tried and the device's index.
static RESULTS: LazyLock<Mutex<HashMap<(&'static str, usize), bool>>> =
    LazyLock::new(Mutex::default);

fn passes(what: &'static str, device: &CudaDevice, test: impl FnOnce() -> bool) -> bool {
    let mut results = RESULTS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    *results.entry((what, device.index)).or_insert_with(test)
}

/// What failed its self-test, on any device.
pub(in crate::gpu) fn rejected() -> Vec<&'static str> {
    let results = RESULTS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    results.iter().filter(|(_, right)| !**right).map(|((what, _), _)| *what).collect()
}

/// Whether the device multiplies by kernels of its own.
pub(in crate::gpu) fn products(device: &CudaDevice) -> bool {
    let client = CudaRuntime::client(device);
    compute_capability(&client) == Some(90)
        && passes("matrix products", device, || {
            [
                (Inner { a: true, b: true }, Plan { groups: 2, columns: 192, splits: 1 }),
                (Inner { a: true, b: false }, Plan { groups: 1, columns: 128, splits: 1 }),
                (Inner { a: false, b: false }, Plan { groups: 1, columns: 64, splits: 2 }),
            ]
            .into_iter()
            .all(|(inner, plan)| multiplies(device, inner, plan))
                && convolves(device)
        })
}

/// Small whole numbers, which bfloat16 holds exactly: one of -1, 0 and 1 for each place.
fn digits(count: usize, seed: usize) -> Vec<f32> {
    // Fibonacci hashing: neighbours, and places a row apart, have nothing to do with one another.
    let hash = |i: usize| ((i + seed * count) as u32).wrapping_mul(2_654_435_769) >> 16;
    (0..count).map(|i| (hash(i) % 3) as f32 - 1.0).collect()
}

fn upload(device: &CudaDevice, values: &[f32], shape: impl Into<Shape>) -> CubeTensor<CudaRuntime> {
    let client = CudaRuntime::client(device);
    let bits = |value: &f32| ((value.to_bits() >> 16) as u16).to_le_bytes();
    let bytes: Vec<u8> = values.iter().flat_map(bits).collect();
    let handle = client.create_from_slice(&bytes);
    CubeTensor::new_contiguous(client, device.clone(), shape.into(), handle, DType::BF16)
}

fn download(tensor: CubeTensor<CudaRuntime>) -> Option<Vec<f32>> {
    let bytes = tensor.client.read_one(tensor.handle).ok()?;
    let wide =
        |bits: &[u8]| f32::from_bits(u32::from(u16::from_le_bytes([bits[0], bits[1]])) << 16);
    Some(bytes.chunks_exact(2).map(wide).collect())
}

fn multiplies(device: &CudaDevice, inner: Inner, plan: Plan) -> bool {
    let (m, n, k) = (264, 200, 136);
    let [a, b] = [digits(m * k, 0), digits(k * n, 1)];
    let rows = |values: &[f32], inner: bool, across: usize| {
        let shape = if inner { [across, k] } else { [k, across] };
        Rows::of(upload(device, values, shape))
    };
    let (left, right) = (rows(&a, inner.a, m), rows(&b, inner.b, n));
    let to = alloc(&left.tensor, [m, n], DType::BF16);
    product(&left, &right, inner, Added::default(), &to, Some(plan));
    let Some(found) = download(to) else { return false };
    (0..m * n).all(|at| {
        let (i, j) = (at / n, at % n);
        let factors = |l: usize| {
            let a = if inner.a { a[i * k + l] } else { a[l * m + i] };
            let b = if inner.b { b[j * k + l] } else { b[l * n + j] };
            a * b
        };
        found[at] == (0..k).map(factors).sum::<f32>()
    })
}

fn convolves(device: &CudaDevice) -> bool {
    let (height, width, channels, window, columns) = (9usize, 18usize, 72, 3usize, 8);
    let x = digits(2 * height * width * channels, 2);
    let weight = digits(columns * window * window * channels, 3);
    let images = upload(device, &x, [2, height, width, channels]);
    let rows = Rows::of(upload(device, &weight, [columns, window * window * channels]));
    let to = alloc(&images, [2, height, width, columns], DType::BF16);
    convolution(&images, &rows, window, Added::default(), &to);
    let Some(found) = download(to) else { return false };
    // What the zeros around the images do shows at their borders.
    let at = |image: usize, y: usize, x: usize| (image * height + y) * width + x;
    let pixels =
        (0..2 * height * width).map(|i| (i / height / width, i / width % height, i % width));
    pixels.into_iter().all(|(image, row, column)| {
        (0..columns).all(|out| {
            let mut sum = 0.0;
            for place in 0..window * window {
                let (y, left) = (row + place / window, column + place % window);
                if (1..=height).contains(&y) && (1..=width).contains(&left) {
                    let (from, with) = (at(image, y - 1, left - 1), out * window * window + place);
                    sum += (0..channels)
                        .map(|c| x[from * channels + c] * weight[with * channels + c])
                        .sum::<f32>();
                }
            }
            // Beyond 256, bfloat16 has not every whole number.
            (found[at(image, row, column) * columns + out] - sum).abs() <= sum.abs() / 256.0
        })
    })
}

/// Whether the device of a tensor attends by kernels of its own.
pub(in crate::gpu) fn attention<R: CubeRuntime>(beside: &CubeTensor<R>) -> bool {
    on_cuda(beside).is_some_and(|tensor| {
        let device = &tensor.device;
        passes("attention kernels", device, || attends(device))
    })
}

fn attends(device: &CudaDevice) -> bool {
    let dims = Dims { batch: 1, heads: 2, queries: 150, keys: 150, d: 72, e: 72 };
    let shape = [dims.batch, dims.heads, dims.queries, dims.d];
    let tensor = |seed: usize| {
        let values: Vec<f32> = digits(dims.rows() * dims.d, seed).iter().map(|x| x * 0.5).collect();
        upload(device, &values, shape)
    };
    let [q, k, v, gradient] = [0, 1, 2, 3].map(tensor);
    let run = |portable: bool| -> Option<[Vec<f32>; 4]> {
        let [out, dq, dk, dv] = std::array::from_fn(|_| alloc(&q, shape, DType::BF16));
        let lse = alloc(&q, [dims.batch, dims.heads, dims.queries], DType::F32);
        let qkv = [&q, &k, &v].map(View::heads_first);
        let gradients = [&dq, &dk, &dv].map(View::heads_first);
        let [to, from] = [&out, &gradient].map(View::heads_first);
        let scale = 0.2;
        if portable {
            flash::forward::forward(dims, scale, qkv, to, &lse);
        } else {
            own::forward(dims, scale, qkv, to, &lse);
        }
        let stats = flash::statistics(dims, to, from, &lse);
        if portable {
            flash::backward::backward(dims, scale, qkv, from, &stats, gradients);
        } else {
            own::backward(dims, scale, qkv, from, &stats, gradients);
        }
        let [out, dq, dk, dv] = [out, dq, dk, dv].map(download);
        Some([out?, dq?, dk?, dv?])
    };
    let (Some(found), Some(expected)) = (run(false), run(true)) else { return false };
    found.iter().zip(&expected).all(|(found, expected)| {
        let norm = expected.iter().map(|x| x * x).sum::<f32>().sqrt();
        let difference = found.iter().zip(expected).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
        // Both are rounded to bfloat16; NaN is not below anything.
        difference.sqrt() < 0.01 * norm
    })
}
