//! VGG16 (Simonyan & Zisserman, arXiv 1409.1556) up to the five layers that LPIPS reads.

use tintype::burn; // the derive names it
use tintype::burn::module::Module;
use tintype::burn::tensor::{Device, Tensor};
use tintype::nn::conv::Conv2d;
use tintype::shaders::max_pool;

/// Output channels of the convolutions; 0 is a pooling.
const LAYERS: [usize; 17] =
    [64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512];

/// The convolutional part; layers carry torchvision's numbers.
#[derive(Module, Debug)]
pub struct Vgg16 {
    features: Vec<Layer>,
}

#[derive(Module, Debug)]
enum Layer {
    Conv(Conv2d),
    Relu(Nothing),
    Pool(Nothing),
}

/// A layer without parameters.
#[derive(Module, Debug)]
struct Nothing {
    parameters: usize,
}

impl Vgg16 {
    /// The untrained network.
    pub fn new(device: &Device) -> Self {
        let nothing = || Nothing { parameters: 0 };
        let mut c_in = 3;
        let features = LAYERS.iter().flat_map(|&c_out| match c_out {
            0 => vec![Layer::Pool(nothing())],
            c_out => {
                let conv = Conv2d::same(std::mem::replace(&mut c_in, c_out), c_out, 3, device);
                vec![Layer::Conv(conv), Layer::Relu(nothing())]
            }
        });
        Self { features: features.collect() }
    }

    /// relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3 of scaled images `[B, 3, H, W]`.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, 3, H, W]`
    /// * returns `[B, 64, H, W]`, `[B, 128, H/2, W/2]`, `[B, 256, H/4, W/4]`, `[B, 512, H/8, W/8]`
    ///   and `[B, 512, H/16, W/16]`
    ///
    /// # Panics
    ///
    /// If `x` has another number of channels or a side under 16.
    pub fn forward(&self, x: Tensor<4>) -> Vec<Tensor<4>> {
        let mut x = x;
        let mut taps = Vec::new();
        for layer in &self.features {
            x = match layer {
                Layer::Conv(conv) => conv.forward_relu(x),
                Layer::Relu(_) => x, // the convolution has it
                Layer::Pool(_) => {
                    taps.push(x.clone());
                    max_pool(x, 2, 2, 0) // [B, c, h/2, w/2]
                }
            };
        }
        taps.push(x);
        taps
    }
}
