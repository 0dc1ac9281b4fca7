//! A linear map from latents to colours, fitted to what the decoder makes of them: cheap enough for
//! every step.

/// `rgb ≈ W z + b` for each place of the latent grid, by least squares over all places decoded so far.
#[derive(Clone, Debug)]
pub struct LatentMap {
    channels: usize,
    /// `Σ [z; 1][z; 1]ᵀ`, `[C + 1, C + 1]`; none of wide latents, nor the others.
    moments: Vec<f64>,
    /// `Σ [z; 1] rgbᵀ`, `[C + 1, 3]`.
    targets: Vec<[f64; 3]>,
    /// The solution: `W` and, in the last row, `b`.
    weights: Vec<[f64; 3]>,
}

/// What earlier pictures count against the one just decoded.
const MEMORY: f64 = 0.5;

/// Keeps the equations solvable while fewer places were seen than there are channels.
const RIDGE: f64 = 1e-3;

/// Most channels of latents that a map is fitted to. A picture has a few hundred places. Of the 768 channels of a RAE they
/// leave most directions open, in which the next latent moves all the same; and the equations, 3·10⁸ multiplications on
/// one core, take longer than a decoder on a GPU.
const MOST_CHANNELS: usize = 128;

impl LatentMap {
    /// Nothing known yet: every latent is grey. Latents of more than 128 channels stay so, since a map of them cannot be
    /// [learned](Self::learns).
    pub fn new(channels: usize) -> Self {
        let n = if channels > MOST_CHANNELS { 0 } else { channels + 1 };
        let zero = vec![[0.0; 3]; n];
        Self { channels, moments: vec![0.0; n * n], targets: zero.clone(), weights: zero }
    }

    /// Whether it learns from what is [observed](Self::observe): not of more than 128 channels.
    pub fn learns(&self) -> bool {
        !self.weights.is_empty()
    }

    /// Learns from latents and the mean colours of what they decode to; `area` is `h·w`, which is
    /// not 0.
    ///
    /// # Shapes
    ///
    /// * `latents`: `[B, C, h·w]`
    /// * `colours`: `[B, 3, h·w]`
    ///
    /// # Panics
    ///
    /// If `area` is 0 or there are fewer latents than colours.
    pub fn observe(&mut self, latents: &[f32], area: usize, colours: &[f32]) {
        if !self.learns() {
            return;
        }
        let n = self.channels + 1;
        self.moments.iter_mut().for_each(|m| *m *= MEMORY);
        self.targets.iter_mut().flatten().for_each(|t| *t *= MEMORY);
        let mut z = vec![1.0; n];
        for image in 0..colours.len() / 3 / area {
            for place in 0..area {
                for c in 0..self.channels {
                    z[c] = latents[(image * self.channels + c) * area + place] as f64;
                }
                for i in 0..n {
                    for j in 0..n {
                        self.moments[i * n + j] += z[i] * z[j];
                    }
                    for colour in 0..3 {
                        let rgb = colours[(image * 3 + colour) * area + place] as f64;
                        self.targets[i][colour] += z[i] * rgb;
                    }
                }
            }
        }
        self.weights = solve(self.moments.clone(), self.targets.clone());
    }

    /// The change of colour that a change of latents brings; `area` is `h·w`.
    ///
    /// # Shapes
    ///
    /// * `change`: `[B, C, h·w]`
    /// * returns `[B, 3, h·w]`
    ///
    /// # Panics
    ///
    /// If there are no channels or `area` is 0.
    pub fn colours(&self, change: &[f32], area: usize) -> Vec<f32> {
        let count = change.len() / self.channels * 3;
        if !self.learns() {
            return vec![0.0; count];
        }
        let mut out = Vec::with_capacity(count);
        for image in change.chunks_exact(self.channels * area) {
            for colour in 0..3 {
                out.extend((0..area).map(|place| {
                    let terms = (0..self.channels)
                        .map(|c| self.weights[c][colour] * image[c * area + place] as f64);
                    terms.sum::<f64>() as f32
                }));
            }
        }
        out
    }
}

/// Solves `(A + ridge) X = B` for a symmetric positive `A` by Gaussian elimination.
fn solve(mut a: Vec<f64>, mut b: Vec<[f64; 3]>) -> Vec<[f64; 3]> {
    let n = b.len();
    for i in 0..n {
        a[i * n + i] += RIDGE;
    }
    for column in 0..n {
        for row in column + 1..n {
            let factor = a[row * n + column] / a[column * n + column];
            for k in column..n {
                a[row * n + k] -= factor * a[column * n + k];
            }
            for colour in 0..3 {
                b[row][colour] -= factor * b[column][colour];
            }
        }
    }
    for row in (0..n).rev() {
        for colour in 0..3 {
            let known: f64 = (row + 1..n).map(|k| a[row * n + k] * b[k][colour]).sum();
            b[row][colour] = (b[row][colour] - known) / a[row * n + row];
        }
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_decoder_is_found() {
        let (channels, area, batch) = (5, 64, 2);
        let wave = |i: usize| ((i * 7919 % 1009) as f32 / 504.5) - 1.0;
        let latents: Vec<f32> = (0..batch * channels * area).map(wave).collect();
        let truth = |c: usize, colour: usize| (c as f32 - 2.0) * 0.1 + colour as f32 * 0.05;
        let decode = |z: &[f32], bias: f32| -> Vec<f32> {
            let mut out = Vec::new();
            for image in z.chunks_exact(channels * area) {
                for colour in 0..3 {
                    out.extend((0..area).map(|p| {
                        let sum: f32 =
                            (0..channels).map(|c| truth(c, colour) * image[c * area + p]).sum();
                        sum + bias
                    }));
                }
            }
            out
        };
        let mut map = LatentMap::new(channels);
        assert!(map.colours(&latents, area).iter().all(|c| *c == 0.0));
        map.observe(&latents, area, &decode(&latents, 0.3));
        let change: Vec<f32> = (0..channels * area).map(|i| wave(i + 31)).collect();
        for (found, wanted) in map.colours(&change, area).iter().zip(decode(&change, 0.0)) {
            assert!((found - wanted).abs() < 1e-3, "{found} against {wanted}");
        }
    }

    #[test]
    fn wide_latents_stay_grey() {
        let (channels, area) = (768, 4);
        let mut map = LatentMap::new(channels);
        assert!(!map.learns() && map.moments.is_empty());
        let latents = vec![1.0; channels * area];
        map.observe(&latents, area, &vec![0.5; 3 * area]);
        assert_eq!(map.colours(&latents, area), vec![0.0; 3 * area]);
        assert!(LatentMap::new(MOST_CHANNELS).learns());
    }
}
