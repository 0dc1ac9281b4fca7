//! From 8-bit images to what FID's network sees: every tool has its own way.

use serde::{Deserialize, Serialize};

use crate::data::resize::{Method, resize};
use crate::network::inception::SIDE;

/// A tool's way to resize and scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// ADM's evaluator and torch-fidelity: TensorFlow 1's bilinear, `(x − 128)/128`.
    Adm,
    /// pytorch-fid: PyTorch's bilinear of `x/255`, `2x − 1`.
    PytorchFid,
    /// clean-fid: Pillow's bicubic in float32, clipped, `(x − 128)/128`.
    Clean,
    /// k-diffusion: antialiased bicubic of −1…1, back to 0…255, clipped, `(x − 128)/128`.
    KDiffusion,
}

impl Protocol {
    /// Planes `[n, height, width]` of 8-bit values as the network's `[n, 299, 299]`.
    pub fn input(self, planes: &[u8], [height, width]: [usize; 2]) -> Vec<f32> {
        let wide =
            |scale: fn(f32) -> f32| planes.iter().map(|&v| scale(v as f32)).collect::<Vec<_>>();
        let to = |values: &[f32], method| resize(values, [height, width], [SIDE; 2], method);
        let centred = |v: f32| (v - 128.0) / 128.0;
        let each = |values: Vec<f32>, f: &dyn Fn(f32) -> f32| values.into_iter().map(f).collect();
        match self {
            Self::Adm => each(to(&wide(|v| v), Method::Tf1Bilinear), &centred),
            Self::PytorchFid => {
                each(to(&wide(|v| v / 255.0), Method::Bilinear), &|v| 2.0 * v - 1.0)
            }
            Self::Clean => {
                let clip = |v: f32| centred(v.clamp(0.0, 255.0));
                each(to(&wide(|v| v), Method::PillowBicubic), &clip)
            }
            Self::KDiffusion => {
                let clip = |v: f32| centred((v * 127.5 + 127.5).clamp(0.0, 255.0));
                each(to(&wide(|v| v / 127.5 - 1.0), Method::BicubicAntialias), &clip)
            }
        }
    }
}
