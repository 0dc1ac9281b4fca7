//! The frozen two-dimensional sine-cosine table of DiT.

/// Additive position table `[grid², dim]`, row-major, in float64 (LightningDiT §3).
///
/// The **first** half encodes the column index and the second the row index; each half is
/// `[sin(p·ω), cos(p·ω)]` with `ω_j = 10000^(−j/(dim/4))`. `dim` must be divisible by 4.
pub fn sin_cos_2d(dim: usize, grid: usize) -> Vec<f64> {
    let quarter = dim / 4;
    let omega: Vec<f64> =
        (0..quarter).map(|j| 1.0 / 10000f64.powf(j as f64 / quarter as f64)).collect();
    let mut table = Vec::with_capacity(grid * grid * dim);
    for row in 0..grid {
        for column in 0..grid {
            for position in [column, row] {
                let angle = |w: &f64| position as f64 * w;
                table.extend(omega.iter().map(|w| angle(w).sin()));
                table.extend(omega.iter().map(|w| angle(w).cos()));
            }
        }
    }
    table
}
