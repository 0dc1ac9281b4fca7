//! What is done to queries and keys between their projection and attention, and its derivative.
//!
//! A unit takes one row: a token's query or key of one head.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::bridge::buffers;
use super::rows::{cubes, elem};
use super::view::{Layout, View};

const UNITS: u32 = 128;

/// Tokens of heads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tokens {
    pub batch: usize,
    pub n: usize,
    pub heads: usize,
    pub d: usize,
}

impl Tokens {
    fn rows(&self) -> usize {
        self.batch * self.n * self.heads
    }
}

/// Rotates adjacent pairs by LightningDiT's tables `[N, d]`: `(a, b) → (a cos − b sin, b cos + a sin)`.
/// For gradients it rotates what is in `to` the other way round, in place.
pub(super) fn rotate<R: CubeRuntime>(
    tokens: Tokens,
    from: View<'_, R>,
    [cos, sin]: [&CubeTensor<R>; 2],
    to: View<'_, R>,
    backward: bool,
) {
    let [from_arg, cos, sin, to_arg] = buffers([from.tensor, cos, sin, to.tensor]);
    // SAFETY: units beyond the last row do nothing; places fit 32 bits (`bridge::MOST`).
    unsafe {
        rotate_kernel::launch_unchecked::<R>(
            &from.tensor.client,
            cubes((tokens.rows() * tokens.d / 2).div_ceil(UNITS as usize)),
            CubeDim::new_1d(UNITS),
            from_arg,
            cos,
            sin,
            to_arg,
            from.place(),
            to.place(),
            (tokens.rows() * tokens.d / 2) as u32,
            tokens.n as u32,
            tokens.heads as u32,
            tokens.d as u32,
            backward,
            elem(from.tensor.dtype),
        );
    }
}

#[cube(launch_unchecked)]
fn rotate_kernel<F: Float>(
    from: &[F],
    cos: &[f32],
    sin: &[f32],
    to: &mut [F],
    from_layout: Layout,
    to_layout: Layout,
    pairs: u32,
    n: u32,
    heads: u32,
    #[comptime] d: u32,
    #[comptime] backward: bool,
    #[define(F)] _dtype: ElemType,
) {
    let pair = ABSOLUTE_POS as u32;
    if pair < pairs {
        let half = comptime!(d / 2);
        let (column, row) = (2 * (pair % half), pair / half);
        let (head, token) = (row % heads, row / heads % n);
        let image = row / heads / n;
        let at = from_layout.start(image, head) + (token * from_layout.row + column) as usize;
        let place = to_layout.start(image, head) + (token * to_layout.row + column) as usize;
        let table = (token * d + column) as usize;
        let (cos_a, cos_b) = (cos[table], cos[table + 1]);
        let (sin_a, sin_b) = (sin[table], sin[table + 1]);
        if backward {
            let a = f32::cast_from(to[place]);
            let b = f32::cast_from(to[place + 1]);
            to[place] = F::cast_from(a * cos_a + b * sin_b);
            to[place + 1] = F::cast_from(b * cos_b - a * sin_a);
        } else {
            let a = f32::cast_from(from[at]);
            let b = f32::cast_from(from[at + 1]);
            to[place] = F::cast_from(a * cos_a - b * sin_a);
            to[place + 1] = F::cast_from(b * cos_b + a * sin_b);
        }
    }
}

/// HDiT's preparation: `√scale·x/√(Σx² + 1e-6)`, then pairs `(i, i + d/4)` rotated by the angle of
/// the token's place; the upper half of a head is not rotated.
#[derive(Debug)]
pub(super) struct Cosine<'a, R: CubeRuntime> {
    /// `[heads]`
    pub scale: &'a CubeTensor<R>,
    /// `[heads, d/8]`
    pub freqs: &'a CubeTensor<R>,
    pub height: usize,
    pub width: usize,
}

/// The preparation of a query or key.
pub(super) fn cosine<R: CubeRuntime>(
    tokens: Tokens,
    from: View<'_, R>,
    of: Cosine<'_, R>,
    to: View<'_, R>,
) {
    let [from_arg, scale, freqs, to_arg] = buffers([from.tensor, of.scale, of.freqs, to.tensor]);
    // SAFETY: units beyond the last row do nothing; places fit 32 bits (`bridge::MOST`).
    unsafe {
        cosine_kernel::launch_unchecked::<R>(
            &from.tensor.client,
            cubes(tokens.rows().div_ceil(UNITS as usize)),
            CubeDim::new_1d(UNITS),
            from_arg,
            scale,
            freqs,
            to_arg,
            from.place(),
            to.place(),
            tokens.rows() as u32,
            of.height as u32,
            of.width as u32,
            tokens.heads as u32,
            tokens.d as u32,
            elem(from.tensor.dtype),
        );
    }
}

/// Turns the gradient of a prepared row, in place, into that of the row itself; the gradient of
/// `scale` of each row goes to `scales` `[B·N, heads]`, float32.
pub(super) fn cosine_backward<R: CubeRuntime>(
    tokens: Tokens,
    from: View<'_, R>,
    of: Cosine<'_, R>,
    gradient: View<'_, R>,
    scales: &CubeTensor<R>,
) {
    let [from_arg, scale, freqs, gradient_arg, scales] =
        buffers([from.tensor, of.scale, of.freqs, gradient.tensor, scales]);
    // SAFETY: units beyond the last row do nothing; places fit 32 bits (`bridge::MOST`).
    unsafe {
        cosine_backward_kernel::launch_unchecked::<R>(
            &from.tensor.client,
            cubes(tokens.rows().div_ceil(UNITS as usize)),
            CubeDim::new_1d(UNITS),
            from_arg,
            scale,
            freqs,
            gradient_arg,
            scales,
            from.place(),
            gradient.place(),
            tokens.rows() as u32,
            of.height as u32,
            of.width as u32,
            tokens.heads as u32,
            tokens.d as u32,
            elem(from.tensor.dtype),
        );
    }
}

/// Angle `i` of `d/4`: vertical positions first, then horizontal, on a grid of cell centres whose
/// longer side spans −1…1.
#[cube]
fn angle(
    freqs: &[f32],
    token: u32,
    height: u32,
    width: u32,
    head: u32,
    i: u32,
    #[comptime] d: u32,
) -> f32 {
    let eighth = comptime!(d / 8);
    let longer = f32::cast_from(max(height, width));
    let mut cell = token / width;
    let mut side = height;
    if i >= eighth {
        cell = token % width;
        side = width;
    }
    let span = f32::cast_from(side) / longer;
    let position = f32::cast_from(2 * cell + 1) / longer - span;
    position * freqs[(head * eighth + i % eighth) as usize]
}

#[cube]
fn inverse_norm<F: Float>(from: &[F], start: usize, #[comptime] d: u32) -> f32 {
    let mut squares = 0.0f32;
    for i in 0..comptime!(d as usize) {
        let v = f32::cast_from(from[start + i]);
        squares += v * v;
    }
    1.0f32 / (squares + 1.0e-6f32).sqrt()
}

#[cube(launch_unchecked)]
fn cosine_kernel<F: Float>(
    from: &[F],
    scale: &[f32],
    freqs: &[f32],
    to: &mut [F],
    from_layout: Layout,
    to_layout: Layout,
    rows: u32,
    height: u32,
    width: u32,
    heads: u32,
    #[comptime] d: u32,
    #[define(F)] _dtype: ElemType,
) {
    let row = ABSOLUTE_POS as u32;
    if row < rows {
        let n = height * width;
        let (head, token) = (row % heads, row / heads % n);
        let image = row / heads / n;
        let at = from_layout.start(image, head) + (token * from_layout.row) as usize;
        let place = to_layout.start(image, head) + (token * to_layout.row) as usize;
        let quarter = comptime!((d / 4) as usize);
        let factor = scale[head as usize].sqrt() * inverse_norm::<F>(from, at, d);
        for i in 0..quarter {
            let theta = angle(freqs, token, height, width, head, i as u32, d);
            let a = f32::cast_from(from[at + i]) * factor;
            let b = f32::cast_from(from[at + i + quarter]) * factor;
            to[place + i] = F::cast_from(a * theta.cos() - b * theta.sin());
            to[place + i + quarter] = F::cast_from(b * theta.cos() + a * theta.sin());
        }
        for i in 2 * quarter..comptime!(d as usize) {
            to[place + i] = F::cast_from(f32::cast_from(from[at + i]) * factor);
        }
    }
}

/// With `n` the row over its norm `ν` and `g` the gradient before the rotation:
/// `dx = √scale·(g − n (n·g))/ν` and `dscale = (n·g)/(2√scale)`.
#[cube(launch_unchecked)]
fn cosine_backward_kernel<F: Float>(
    from: &[F],
    scale: &[f32],
    freqs: &[f32],
    gradient: &mut [F],
    scales: &mut [f32],
    from_layout: Layout,
    gradient_layout: Layout,
    rows: u32,
    height: u32,
    width: u32,
    heads: u32,
    #[comptime] d: u32,
    #[define(F)] _dtype: ElemType,
) {
    let row = ABSOLUTE_POS as u32;
    if row < rows {
        let n = height * width;
        let (head, token) = (row % heads, row / heads % n);
        let image = row / heads / n;
        let at = from_layout.start(image, head) + (token * from_layout.row) as usize;
        let place = gradient_layout.start(image, head) + (token * gradient_layout.row) as usize;
        let quarter = comptime!((d / 4) as usize);
        let inverse = inverse_norm::<F>(from, at, d);
        let root = scale[head as usize].sqrt();
        let mut g = Array::<f32>::new(comptime!(d as usize));
        let mut product = 0.0f32;
        for i in 0..quarter {
            let theta = angle(freqs, token, height, width, head, i as u32, d);
            let a = f32::cast_from(gradient[place + i]);
            let b = f32::cast_from(gradient[place + i + quarter]);
            let ga = a * theta.cos() + b * theta.sin();
            let gb = b * theta.cos() - a * theta.sin();
            g[i] = ga;
            g[i + quarter] = gb;
            product += ga * f32::cast_from(from[at + i]) * inverse;
            product += gb * f32::cast_from(from[at + i + quarter]) * inverse;
        }
        for i in 2 * quarter..comptime!(d as usize) {
            let v = f32::cast_from(gradient[place + i]);
            g[i] = v;
            product += v * f32::cast_from(from[at + i]) * inverse;
        }
        for i in 0..comptime!(d as usize) {
            let n = f32::cast_from(from[at + i]) * inverse;
            gradient[place + i] = F::cast_from(root * inverse * (g[i] - n * product));
        }
        scales[((image * (height * width) + token) * heads + head) as usize] =
            product / (2.0f32 * root);
    }
}
