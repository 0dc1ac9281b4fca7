//! The PatchGAN discriminator of taming-transformers and VA-VAE (Isola et al., arXiv 1611.07004).

use tintype::burn; // the derive names it
use tintype::burn::module::{Initializer, Module, Param};
use tintype::burn::tensor::activation::leaky_relu;
use tintype::burn::tensor::{Device, Tensor};
use tintype::shaders::convolution;

/// Shape of a discriminator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatchGanConfig {
    /// Channels of the first layer.
    pub ndf: usize,
    /// Normalised layers after the first.
    pub n_layers: usize,
    /// ActNorm instead of BatchNorm.
    pub use_actnorm: bool,
}

impl PatchGanConfig {
    /// VA-VAE's: 64 channels, 3 layers, BatchNorm.
    pub const VAVAE: Self = Self { ndf: 64, n_layers: 3, use_actnorm: false };

    /// The smallest side of an image for three layers: three halvings and two more 4×4 convolutions must leave a logit.
    pub const SMALLEST: usize = 24;

    /// The untrained network: convolutions N(0, 0.02²), norms N(1, 0.02²).
    pub fn init(&self, device: &Device) -> PatchGan {
        let width = |n: usize| self.ndf * (1 << n).min(8);
        let mut main = vec![
            Layer::Conv(Convolution::new(3, self.ndf, 2, true, device)),
            Layer::Rest(Activation { slope: 0.2 }),
        ];
        for n in 1..=self.n_layers {
            let stride = if n < self.n_layers { 2 } else { 1 };
            let conv = Convolution::new(width(n - 1), width(n), stride, self.use_actnorm, device);
            main.push(Layer::Conv(conv));
            main.push(match self.use_actnorm {
                true => Layer::ActNorm(ActNorm::new(width(n), device)),
                false => Layer::BatchNorm(BatchNorm::new(width(n), device)),
            });
            main.push(Layer::Rest(Activation { slope: 0.2 }));
        }
        main.push(Layer::Conv(Convolution::new(width(self.n_layers), 1, 1, true, device)));
        PatchGan { main }
    }
}

/// The network; layers carry PyTorch's `Sequential` numbers.
#[derive(Module, Debug)]
pub struct PatchGan {
    main: Vec<Layer>,
}

#[derive(Module, Debug)]
enum Layer {
    Conv(Convolution),
    BatchNorm(BatchNorm),
    ActNorm(ActNorm),
    Rest(Activation),
}

impl PatchGan {
    /// Logits `[B, 1, h, w]` of images `[B, 3, H, W]` by the running statistics.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, 3, H, W]`
    /// * returns `[B, 1, h, w]`
    ///
    /// # Panics
    ///
    /// If `x` has another number of channels, or is too small for a logit (under 24 pixels with
    /// three layers).
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.main.iter().fold(x, |x, layer| match layer {
            Layer::Conv(conv) => conv.forward(x),
            Layer::BatchNorm(norm) => norm.forward(x),
            Layer::ActNorm(norm) => norm.forward(x),
            Layer::Rest(activation) => leaky_relu(x, activation.slope),
        })
    }

    /// A training pass: BatchNorms use and follow the batch's own statistics, an ActNorm that has
    /// seen no data yet (`first`) sets itself by it. Returns the logits and the network after it.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, 3, H, W]`
    /// * returns `[B, 1, h, w]`
    ///
    /// # Panics
    ///
    /// As [`forward`](Self::forward).
    pub fn train_forward(&self, x: Tensor<4>, first: bool) -> (Tensor<4>, Self) {
        let mut x = x;
        let mut main = Vec::with_capacity(self.main.len());
        for layer in &self.main {
            let next;
            (x, next) = match layer {
                Layer::Conv(conv) => (conv.forward(x), layer.clone()),
                Layer::Rest(activation) => (leaky_relu(x, activation.slope), layer.clone()),
                Layer::BatchNorm(norm) => {
                    let (y, norm) = norm.train_forward(x);
                    (y, Layer::BatchNorm(norm))
                }
                Layer::ActNorm(norm) => {
                    let norm = if first { norm.initialized(x.clone()) } else { norm.clone() };
                    (norm.forward(x), Layer::ActNorm(norm))
                }
            };
            main.push(next);
        }
        (x, Self { main })
    }
}

/// 4×4 convolution with padding 1.
#[derive(Module, Debug)]
struct Convolution {
    weight: Param<Tensor<4>>,
    bias: Option<Param<Tensor<1>>>,
    stride: usize,
}

impl Convolution {
    fn new(c_in: usize, c_out: usize, stride: usize, bias: bool, device: &Device) -> Self {
        let a = 1.0 / ((c_in * 16) as f64).sqrt(); // PyTorch's default, which biases keep
        let normal = Initializer::Normal { mean: 0.0, std: 0.02 };
        Self {
            weight: normal.init([c_out, c_in, 4, 4], device),
            bias: bias.then(|| Initializer::Uniform { min: -a, max: a }.init([c_out], device)),
            stride,
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let bias = self.bias.as_ref().map(|bias| bias.val());
        convolution(x, self.weight.val(), bias, None, self.stride, [1, 1])
    }
}

#[derive(Module, Debug)]
struct Activation {
    slope: f64,
}

/// BatchNorm, eps 1e-5, momentum 0.1.
#[derive(Module, Debug)]
struct BatchNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    running_mean: Param<Tensor<1>>,
    running_var: Param<Tensor<1>>,
}

impl BatchNorm {
    const EPS: f64 = 1e-5;
    const MOMENTUM: f64 = 0.1;

    fn new(channels: usize, device: &Device) -> Self {
        Self {
            weight: Initializer::Normal { mean: 1.0, std: 0.02 }.init([channels], device),
            bias: Initializer::Zeros.init([channels], device),
            running_mean: Initializer::Zeros.init([channels], device).set_require_grad(false),
            running_var: Initializer::Ones.init([channels], device).set_require_grad(false),
        }
    }

    fn affine(&self, x: Tensor<4>, mean: Tensor<4>, var: Tensor<4>) -> Tensor<4> {
        let y = (x - mean) / (var + Self::EPS).sqrt();
        y * row(self.weight.val()) + row(self.bias.val())
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.affine(x, row(self.running_mean.val()), row(self.running_var.val()))
    }

    /// The running variance follows the unbiased one, the output uses the biased one.
    fn train_forward(&self, x: Tensor<4>) -> (Tensor<4>, Self) {
        let [b, c, h, w] = x.dims();
        let n = (b * h * w) as f64;
        let mean = channel_mean(x.clone());
        let var = channel_mean((x.clone() - mean.clone()).square());
        let follow = |old: &Param<Tensor<1>>, new: Tensor<4>| {
            let new = new.detach().reshape([c]);
            old.clone().map(|old| {
                (old * (1.0 - Self::MOMENTUM) + new * Self::MOMENTUM)
                    .detach()
                    .set_require_grad(false)
            })
        };
        let next = Self {
            running_mean: follow(&self.running_mean, mean.clone()),
            running_var: follow(&self.running_var, var.clone() * (n / (n - 1.0))),
            weight: self.weight.clone(),
            bias: self.bias.clone(),
        };
        (self.affine(x, mean, var), next)
    }
}

/// `scale·(x + loc)`, set so that the first batch comes out standardised.
#[derive(Module, Debug)]
struct ActNorm {
    loc: Param<Tensor<4>>,
    scale: Param<Tensor<4>>,
}

impl ActNorm {
    fn new(channels: usize, device: &Device) -> Self {
        let shape = [1, channels, 1, 1];
        Self {
            loc: Initializer::Zeros.init(shape, device),
            scale: Initializer::Ones.init(shape, device),
        }
    }

    fn initialized(&self, x: Tensor<4>) -> Self {
        let [b, _, h, w] = x.dims();
        let n = (b * h * w) as f64;
        let mean = channel_mean(x.clone().detach());
        let var = channel_mean((x.detach() - mean.clone()).square()) * (n / (n - 1.0));
        Self {
            loc: self.loc.clone().map(|_| (-mean).detach().require_grad()),
            scale: self.scale.clone().map(|_| (var.sqrt() + 1e-6).recip().detach().require_grad()),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        (x + self.loc.val()) * self.scale.val()
    }
}

fn row(x: Tensor<1>) -> Tensor<4> {
    let c = x.dims()[0];
    x.reshape([1, c, 1, 1])
}

/// Mean over batch and positions, `[1, C, 1, 1]`, by rows: wgpu sums over the first of several axes
/// of a transposed tensor wrongly.
fn channel_mean(x: Tensor<4>) -> Tensor<4> {
    let [b, c, h, w] = x.dims();
    let per_image = x.reshape([b, c, h * w]).mean_dim(2).reshape([b, c]); // [B, C]
    per_image.swap_dims(0, 1).mean_dim(1).reshape([1, c, 1, 1])
}

/// `½(mean relu(1 − D(real)) + mean relu(1 + D(fake)))`
///
/// # Shapes
///
/// * `real`, `fake`: logits `[B, 1, h, w]`
/// * returns `[1]`
pub fn hinge_loss(real: Tensor<4>, fake: Tensor<4>) -> Tensor<1> {
    use tintype::burn::tensor::activation::relu;
    (relu(-real + 1.0).mean() + relu(fake + 1.0).mean()) * 0.5
}

/// `½(mean softplus(−D(real)) + mean softplus(D(fake)))`
///
/// # Shapes
///
/// * `real`, `fake`: logits `[B, 1, h, w]`
/// * returns `[1]`
pub fn vanilla_loss(real: Tensor<4>, fake: Tensor<4>) -> Tensor<1> {
    use tintype::burn::tensor::activation::softplus;
    (softplus(-real, 1.0).mean() + softplus(fake, 1.0).mean()) * 0.5
}

/// `−mean D(fake)`
///
/// # Shapes
///
/// * `fake`: logits `[B, 1, h, w]`
/// * returns `[1]`
pub fn generator_loss(fake: Tensor<4>) -> Tensor<1> {
    -fake.mean()
}
