//! HDiT's non-leaking augmentation (`hdit` §8.4; Karras et al., arXiv 2206.00364, appendix F.2).

use std::f64::consts::PI;

/// The random numbers of one image, in the order in which they are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)] // `_u` is uniform in 0…1 and compared with the probability, `_n` normal
pub struct Draws {
    pub x_flip: bool,
    pub y_flip_u: f64,
    pub y_flip: bool,
    pub scale_u: f64,
    pub scale_n: f64,
    pub rotation_u: f64,
    pub rotation_angle_u: f64,
    pub aniso_u: f64,
    pub aniso_angle_u: f64,
    pub aniso_n: f64,
    pub shift_u: f64,
    pub shift_x_n: f64,
    pub shift_y_n: f64,
}

/// What happens to an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Augmentation {
    /// The condition that the network gets.
    pub condition: [f64; 9],
    /// Input from output positions is its inverse; acts on (column, row, 1). Not applied where
    /// the probability is 0.
    pub matrix: [[f64; 3]; 3],
    identity: bool,
}

type Matrix = [[f64; 3]; 3];

fn product(a: Matrix, b: Matrix) -> Matrix {
    std::array::from_fn(|i| std::array::from_fn(|j| (0..3).map(|k| a[i][k] * b[k][j]).sum()))
}
fn translate(x: f64, y: f64) -> Matrix {
    [[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]]
}
fn scale(x: f64, y: f64) -> Matrix {
    [[x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, 1.0]]
}
fn rotate(t: f64) -> Matrix {
    [[t.cos(), -t.sin(), 0.0], [t.sin(), t.cos(), 0.0], [0.0, 0.0, 1.0]]
}

impl Augmentation {
    /// The augmentation of an image of side `side`. With probability 0 nothing happens, not even
    /// the horizontal flip, which otherwise has probability ½.
    pub fn new(draws: Draws, probability: f64, side: usize) -> Self {
        let gate = |u: f64, value: f64| if u < probability { value } else { 0.0 };
        let angle = |u: f64| (u * 2.0 - 1.0) * PI;
        let a0 = f64::from(draws.x_flip);
        let a1 = gate(draws.y_flip_u, f64::from(draws.y_flip));
        let a2 = gate(draws.scale_u, draws.scale_n);
        let a3 = gate(draws.rotation_u, angle(draws.rotation_angle_u));
        let a4 = gate(draws.aniso_u, angle(draws.aniso_angle_u));
        let a5 = gate(draws.aniso_u, draws.aniso_n);
        let a6 = gate(draws.shift_u, draws.shift_x_n);
        let a7 = gate(draws.shift_u, draws.shift_y_n);
        let n = side as f64;
        let c = n / 2.0 - 0.5;
        let zoom = (0.2 * a2).exp2();
        let matrix = [
            translate(c, c),
            scale(1.0 - 2.0 * a0, 1.0),
            scale(1.0, 1.0 - 2.0 * a1),
            scale(zoom, zoom),
            rotate(-a3),
            rotate(a4),
            scale((0.2 * a5).exp2(), (-0.2 * a5).exp2()),
            rotate(-a4),
            translate(n * a6 / 8.0, n * a7 / 8.0),
            translate(-c, -c),
        ]
        .into_iter()
        .reduce(product)
        .unwrap_or(scale(1.0, 1.0));
        let condition =
            [a0, a1, a2, a3.cos() - 1.0, a3.sin(), a5 * a4.cos(), a5 * a4.sin(), a6, a7];
        match probability == 0.0 {
            true => Self { condition: [0.0; 9], matrix, identity: true },
            false => Self { condition, matrix, identity: false },
        }
    }

    /// The augmented image, not clipped.
    ///
    /// `planes`: `[C, side, side]` in 0…1; returns the same shape in −1…1.
    ///
    /// # Panics
    ///
    /// If `side` is 0.
    pub fn apply(&self, planes: &[f32], side: usize) -> Vec<f32> {
        if self.identity {
            return planes.iter().map(|v| v * 2.0 - 1.0).collect();
        }
        let inverse = invert_affine(self.matrix);
        let mut out = Vec::with_capacity(planes.len());
        for plane in planes.chunks_exact(side * side) {
            for row in 0..side {
                for column in 0..side {
                    let [x, y] = [0, 1].map(|i| {
                        inverse[i][0] * column as f64 + inverse[i][1] * row as f64 + inverse[i][2]
                    });
                    out.push((2.0 * sample(plane, side, x, y) - 1.0) as f32);
                }
            }
        }
        out
    }
}

fn invert_affine([[a, b, tx], [c, d, ty], _]: Matrix) -> Matrix {
    let det = a * d - b * c;
    let [[a, b], [c, d]] = [[d / det, -b / det], [-c / det, a / det]];
    [[a, b, -(a * tx + b * ty)], [c, d, -(c * tx + d * ty)], [0.0, 0.0, 1.0]]
}

/// Catmull–Rom sample at (x, y), mirrored at the border without repeating the edge.
fn sample(plane: &[f32], side: usize, x: f64, y: f64) -> f64 {
    let weight = |t: f64| match t.abs() {
        t if t < 1.0 => (1.5 * t - 2.5) * t * t + 1.0,
        t if t < 2.0 => ((-0.5 * t + 2.5) * t - 4.0) * t + 2.0,
        _ => 0.0,
    };
    let mirror = |i: i64| {
        let period = (2 * (side as i64 - 1)).max(1);
        let i = i.rem_euclid(period);
        i.min(period - i) as usize
    };
    let (x0, y0) = (x.floor() as i64, y.floor() as i64);
    let mut sum = 0.0;
    for j in y0 - 1..=y0 + 2 {
        let row = mirror(j) * side;
        let line: f64 =
            (x0 - 1..=x0 + 2).map(|i| weight(x - i as f64) * plane[row + mirror(i)] as f64).sum();
        sum += weight(y - j as f64) * line;
    }
    sum
}
