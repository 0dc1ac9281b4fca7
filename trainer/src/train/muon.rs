//! Muon (Jordan et al., <https://kellerjordan.github.io/posts/muon/>) as optax has it: steps of matrices whose singular
//! values are all about 1, and Adam for everything else. Both look ahead as Nesterov's momentum does.

use tintype::burn::tensor::Tensor;

/// Decay of Muon's momentum.
pub const BETA: f64 = 0.95;
/// Added to the norm of a matrix before it is divided by that.
const EPS: f64 = 1e-8;
/// Steps of the Newton–Schulz iteration.
const ITERATIONS: usize = 5;
/// Its coefficients: `X ← a·X + (b·A + c·A²)·X` with `A = X·Xᵀ`.
const COEFFICIENTS: [f64; 3] = [3.4445, -4.775, 2.0315];

/// The numbers of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Learning rate.
    pub lr: f64,
    /// Factor of the parameter, `1 − lr·weight_decay`.
    pub decay: f64,
    /// Number of this step, from 1.
    pub number: u64,
}

/// Decay of Adam's moments and what is added to the root of the second one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// Of the first and the second moment.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
}

/// `beta·m + (1 − beta)·g`
fn average<const D: usize>(m: Tensor<D>, g: Tensor<D>, beta: f64) -> Tensor<D> {
    m * beta + g * (1.0 - beta)
}

/// The momentum of the next step as far as it is known, without the bias of the zeros that it began with:
/// `beta·m/(1 − beta^(n+1)) + (1 − beta)·g/(1 − beta^n)`.
///
/// # Shapes
///
/// * `m` (of step n, with `g` in it) and `g`: the same
/// * returns that
pub fn look_ahead<const D: usize>(m: Tensor<D>, g: Tensor<D>, beta: f64, number: u64) -> Tensor<D> {
    let bias = |n: u64| 1.0 - beta.powf(n as f64);
    m * (beta / bias(number + 1)) + g * ((1.0 - beta) / bias(number))
}

/// A matrix with the same singular vectors, whose singular values are near 1.
///
/// # Shapes
///
/// * `x`: `[out, in]`
/// * returns the same
pub fn orthogonalized(x: Tensor<2>) -> Tensor<2> {
    let [rows, columns] = x.dims();
    let norm: Tensor<2> = (x.clone().square().sum().sqrt() + EPS).reshape([1, 1]);
    let x = x / norm;
    // A is as large as the shorter side.
    let tall = rows > columns;
    let mut x = if tall { x.transpose() } else { x };
    let [a, b, c] = COEFFICIENTS;
    for _ in 0..ITERATIONS {
        let square = x.clone().matmul(x.clone().transpose());
        let polynomial = square.clone() * b + square.clone().matmul(square) * c;
        x = x.clone() * a + polynomial.matmul(x);
    }
    if tall { x.transpose() } else { x }
}

/// Muon's step of the weight of a linear layer; returns the weight and its momentum.
///
/// # Shapes
///
/// * `p`, `g`, `m`: `[out, in]`
/// * returns the same twice
///
/// # Panics
///
/// If the shapes differ.
pub fn muon(p: Tensor<2>, g: Tensor<2>, m: Tensor<2>, step: Step) -> (Tensor<2>, Tensor<2>) {
    let Step { lr, decay, number } = step;
    let [rows, columns] = p.dims();
    let m = average(m, g.clone(), BETA);
    let direction = orthogonalized(look_ahead(m.clone(), g, BETA, number));
    let scale = (rows as f64 / columns as f64).max(1.0).sqrt();
    (p * decay - direction * (lr * scale), m)
}

/// Adam's step with the look-ahead; returns the parameter and its moments.
///
/// # Shapes
///
/// * `p`, `g` and both moments: the same
/// * returns that three times
///
/// # Panics
///
/// If the shapes differ.
pub fn adam<const D: usize>(
    p: Tensor<D>,
    g: Tensor<D>,
    [first, second]: [Tensor<D>; 2],
    adam: Adam,
    step: Step,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    let Adam { betas: [beta1, beta2], eps } = adam;
    let Step { lr, decay, number } = step;
    let first = average(first, g.clone(), beta1);
    let second = average(second, g.clone().square(), beta2);
    let unbiased = second.clone() / (1.0 - beta2.powf(number as f64));
    let direction = look_ahead(first.clone(), g, beta1, number) / (unbiased.sqrt() + eps);
    (p * decay - direction * lr, [first, second])
}

#[cfg(test)]
mod tests {
    use super::*;
    use tintype::burn::tensor::{Device, TensorData};

    #[test]
    fn singular_values_come_near_one() {
        let device = Device::flex();
        for [rows, columns] in [[3, 5], [5, 3], [4, 4]] {
            let values: Vec<f32> =
                (0..rows * columns).map(|i| ((i * i * 7 + i) % 13) as f32 - 6.0).collect();
            let x = Tensor::<2>::from_data(TensorData::new(values, [rows, columns]), &device);
            let x = orthogonalized(x);
            assert_eq!(x.dims(), [rows, columns]);
            let x = if rows > columns { x.transpose() } else { x };
            let gram = x.clone().matmul(x.transpose());
            let side = rows.min(columns);
            let trace: f64 = gram
                .to_data()
                .iter::<f64>()
                .enumerate()
                .filter(|(i, _)| i % (side + 1) == 0)
                .map(|(_, v)| v)
                .sum();
            // The iteration leaves singular values in about 0.7…1.2.
            let mean = trace / side as f64;
            assert!((0.4..1.5).contains(&mean), "{mean} of {rows} x {columns}");
        }
    }
}
