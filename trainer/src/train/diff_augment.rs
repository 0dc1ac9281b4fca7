//! DiffAugment (Zhao et al., NeurIPS 2020, arXiv 2006.10738): what a discriminator sees, real or not, is shifted and
//! recoloured at random, and generators learn through that. As StyleGAN-T and RAE do it: shift, then brightness,
//! saturation and contrast; RAE takes no cutout.

use tintype::burn::tensor::activation::relu;
use tintype::burn::tensor::{Device, Tensor};
use tintype::noise::{ImageKey, Stream, uniforms};

use super::host::vector;
use super::meanflow::crop::cut;

/// Share of the side that a picture is shifted by at most.
const SHIFT: f64 = 0.125;

/// What happens to a picture in −1…1. Zeros leave it as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Change {
    /// Whole pixels that it moves up and to the left; zeros come in, which are grey.
    pub shift: [f32; 2],
    /// Added to every value.
    pub brightness: f32,
    /// Colours are moved away from the pixel's own mean by this share of their distance.
    pub saturation: f32,
    /// Values are moved away from the picture's mean by this share of their distance.
    pub contrast: f32,
}

impl Change {
    /// What is drawn for a picture of `side` pixels a side: shifts of up to an eighth of the side, brightness of ±½,
    /// saturation of ±1, contrast of ±½.
    pub fn drawn(key: ImageKey, look: Look, side: usize) -> Self {
        let u = uniforms(key, Stream::Choice, look as u32, 5);
        let most = (side as f64 * SHIFT).round_ties_even();
        let pixels = |u: f64| ((u * (2.0 * most + 1.0)).floor() - most) as f32;
        Self {
            shift: [pixels(u[0]), pixels(u[1])],
            brightness: (u[2] - 0.5) as f32,
            saturation: (2.0 * u[3] - 1.0) as f32,
            contrast: (u[4] - 0.5) as f32,
        }
    }
}

/// Who looks at a sample's picture. Each has draws of its own: its number is the step of their stream, of which 0 is
/// where a crop lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Look {
    /// The discriminator in the generator's half of a step.
    Generator = 1,
    /// The discriminator in its own half, at a reconstruction.
    Fake = 2,
    /// The same, at an image.
    Real = 3,
}

/// Pictures as the discriminator sees them; without changes, as they are.
///
/// # Shapes
///
/// * `x`: `[B, C, S, S]`
/// * `changes`: one for each picture, or none
/// * returns the shape of `x`
///
/// # Panics
///
/// If there are some changes, but not one for each picture, or the pictures are not square.
pub fn augmented(x: Tensor<4>, changes: &[Change]) -> Tensor<4> {
    if changes.is_empty() {
        return x;
    }
    let (side, device): (usize, Device) = (x.dims()[3], x.device());
    let of =
        |part: fn(&Change) -> f32| vector(&changes.iter().map(part).collect::<Vec<_>>(), &device);
    let column = |part: fn(&Change) -> f32| -> Tensor<4> {
        of(part).reshape([changes.len(), 1, 1, 1]) // [B, 1, 1, 1]
    };
    let rows = selection(of(|change| change.shift[0]), side); // [B, S, S]
    let columns = selection(of(|change| change.shift[1]), side);
    let x = cut(x, [rows, columns]);
    let x = x + column(|change| change.brightness);
    let grey = x.clone().mean_dim(1); // [B, 1, S, S]
    let x = x.clone() + (x - grey) * column(|change| change.saturation);
    let mean = x.clone().mean_dims(&[1, 2, 3]); // [B, 1, 1, 1]
    x.clone() + (x - mean) * column(|change| change.contrast)
}

/// The matrices that give each place the pixel `shift` behind it, 1 there and 0 elsewhere: linear interpolation's
/// weights at whole numbers.
///
/// # Shapes
///
/// * `shift`: `[B]`
/// * returns `[B, S, S]`, pixels by places
fn selection(shift: Tensor<1>, side: usize) -> Tensor<3> {
    let (batch, device): (usize, Device) = (shift.dims()[0], shift.device());
    let numbers = vector(&(0..side).map(|i| i as f32).collect::<Vec<_>>(), &device);
    let pixels: Tensor<3> = numbers.clone().reshape([1, side, 1]);
    let places: Tensor<3> = numbers.reshape([1, 1, side]);
    let shift: Tensor<3> = shift.reshape([batch, 1, 1]);
    relu(-(pixels - places - shift).abs() + 1.0) // [B, S, S]
}

#[cfg(test)]
mod tests {
    use tintype::noise::normals;

    use super::*;
    use crate::train::host::Values;

    const SIDE: usize = 8;

    fn pictures(count: usize, device: &Device) -> Tensor<4> {
        let values = normals(ImageKey::new(5, 0), Stream::Noise, 0, count * 3 * SIDE * SIDE);
        Values::new(values, [count, 3, SIDE, SIDE]).tensor(device)
    }

    fn values(x: Tensor<4>) -> Vec<f32> {
        x.into_data().iter::<f32>().collect()
    }

    #[test]
    fn zeros_are_the_identity() {
        let device = Device::flex();
        let x = pictures(2, &device);
        assert_eq!(values(augmented(x.clone(), &[Change::default(); 2])), values(x.clone()));
        assert_eq!(values(augmented(x.clone(), &[])), values(x));
    }

    #[test]
    fn draws_belong_to_sample_and_look_and_keep_their_ranges() {
        let drawn = |image, look| Change::drawn(ImageKey::new(1, image), look, 256);
        assert_eq!(drawn(3, Look::Fake), drawn(3, Look::Fake));
        assert_ne!(drawn(3, Look::Fake), drawn(3, Look::Real));
        assert_ne!(drawn(3, Look::Fake), drawn(4, Look::Fake));
        let all: Vec<Change> = (0..4000).map(|image| drawn(image, Look::Generator)).collect();
        let within = |part: fn(&Change) -> f32, most: f32| {
            let low = all.iter().map(part).fold(f32::INFINITY, f32::min);
            let high = all.iter().map(part).fold(f32::NEG_INFINITY, f32::max);
            assert!(-most <= low && low < -0.9 * most, "{low} of {most}");
            assert!(0.9 * most < high && high <= most, "{high} of {most}");
        };
        within(|change| change.shift[0], 32.0);
        within(|change| change.shift[1], 32.0);
        within(|change| change.brightness, 0.5);
        within(|change| change.saturation, 1.0);
        within(|change| change.contrast, 0.5);
        assert!(all.iter().flat_map(|change| change.shift).all(|shift| shift.fract() == 0.0));
    }

    #[test]
    fn pictures_are_shifted_and_recoloured_by_their_own_draws() {
        let device = Device::flex();
        let x = pictures(2, &device);
        let (down, up) = ([-2.0, 1.0], [3.0, 0.0]);
        let shifts = [down, up].map(|shift| Change { shift, ..Change::default() });
        let (before, after) = (values(x.clone()), values(augmented(x.clone(), &shifts)));
        for (image, [dy, dx]) in [(0, [-2isize, 1]), (1, [3, 0])] {
            for place in 0..3 * SIDE * SIDE {
                let (c, h, w) = (place / SIDE / SIDE, place / SIDE % SIDE, place % SIDE);
                let at = [h.checked_add_signed(dy), w.checked_add_signed(dx)];
                let expected = match at {
                    [Some(h), Some(w)] if h < SIDE && w < SIDE => {
                        before[((image * 3 + c) * SIDE + h) * SIDE + w]
                    }
                    _ => 0.0,
                };
                assert_eq!(
                    after[image * 3 * SIDE * SIDE + place],
                    expected,
                    "{image}: {c} {h} {w}"
                );
            }
        }
        // Without colours there is the pixel's mean; half of the distance from a picture's mean is left.
        let grey = Change { saturation: -1.0, ..Change::default() };
        let flat = Change { brightness: 0.25, contrast: -0.5, ..Change::default() };
        let after = values(augmented(x, &[grey, flat]));
        let plane = SIDE * SIDE;
        let (first, second) = before.split_at(3 * plane);
        let mean = second.iter().sum::<f32>() / (3 * plane) as f32 + 0.25;
        for i in 0..3 * plane {
            let pixel = (0..3).map(|c| first[c * plane + i % plane]).sum::<f32>() / 3.0;
            assert!((after[i] - pixel).abs() < 1e-5, "{i}: {} and {pixel}", after[i]);
            let halved = mean + 0.5 * (second[i] + 0.25 - mean);
            let found = after[3 * plane + i];
            assert!((found - halved).abs() < 1e-5, "{i}: {found} and {halved}");
        }
    }

    /// The gradient of a weighted sum is what it changes by, exactly, as the change is linear.
    #[test]
    fn gradients_flow() {
        let device = Device::flex().autodiff();
        let change =
            Change { shift: [1.0, -2.0], brightness: 0.3, saturation: -0.6, contrast: 0.4 };
        let weights = normals(ImageKey::new(6, 0), Stream::Noise, 0, 3 * SIDE * SIDE);
        let start = values(pictures(1, &device));
        let sum = |values: Vec<f32>| {
            let x = Values::new(values, [1, 3, SIDE, SIDE]).tensor(&device).require_grad();
            let weights = Values::new(weights.clone(), [1, 3, SIDE, SIDE]).tensor(&device);
            ((augmented(x.clone(), &[change]) * weights).sum(), x)
        };
        let number = |x: Tensor<1>| x.into_data().iter::<f64>().next().expect("one");
        let (total, x) = sum(start.clone());
        let gradient = x.grad(&total.backward()).expect("it has one");
        let gradient: Vec<f64> = gradient.into_data().iter::<f64>().collect();
        let total = number(total.inner());
        for at in [0, 20, 77, 100, 191] {
            let mut moved = start.clone();
            moved[at] += 1.0;
            let difference = number(sum(moved).0.inner()) - total;
            assert!((difference - gradient[at]).abs() < 1e-4, "{at}: {difference}");
        }
        assert!(gradient.iter().filter(|g| g.abs() > 1e-3).count() > 100, "where pixels stay");
    }
}
