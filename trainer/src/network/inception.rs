//! Inception-v3 as FID computes it (Szegedy et al., arXiv 1512.00567; the TensorFlow graph of 2015
//! in pytorch-fid's port): average pooling that excludes padding, max pooling in the last block, 1008
//! classes.

use std::collections::BTreeMap;

use tintype::burn; // the derive names it
use tintype::burn::module::{Initializer, Module, Param};
use tintype::burn::tensor::{Device, FloatDType, Tensor};
use tintype::shaders::{convolution_relu, max_pool, mean_pool};
use tintype::weights::{TensorView, Weights, WeightsError, load};

/// Side of the images that the network sees.
pub const SIDE: usize = 299;
/// Features of FID.
pub const FEATURES: usize = 2048;
/// Channels of the spatial features that sFID uses.
const SPATIAL_CHANNELS: usize = 7;
const BATCH_NORM_EPS: f64 = 1e-3;
/// The files that hold the weights.
pub const FILES: &str = "pytorch-fid's pt_inception-2015-12-05-6726825d.pth or torch-fidelity's weights-inception-2015-12-05-6726825d.pth";

/// What the metrics read.
#[derive(Debug)]
pub struct Features {
    /// Spatial means after the first pooling, `[B, 64]`.
    pub pool64: Tensor<2>,
    /// After the second, `[B, 192]`.
    pub pool192: Tensor<2>,
    /// After Mixed_6e, `[B, 768]`.
    pub pool768: Tensor<2>,
    /// FID's, `[B, 2048]`.
    pub pool2048: Tensor<2>,
    /// sFID's: the first seven channels of Mixed_6d, channels last, `[B, h·w·7]`.
    pub spatial: Tensor<2>,
    /// The Inception Score's logits, without bias, `[B, 1008]`.
    pub logits_unbiased: Tensor<2>,
    /// With bias.
    pub logits: Tensor<2>,
}

/// Convolution, BatchNorm (eps 1e-3, running statistics) and ReLU; the norm is part of the
/// convolution's weights.
#[derive(Module, Debug)]
struct Unit {
    weight: Param<Tensor<4>>,
    bias: Param<Tensor<1>>,
    stride: usize,
    padding: [usize; 2],
}

/// How a network's units are made.
struct Maker<'a>(&'a Device);

impl Maker<'_> {
    fn unit(
        &self,
        c_in: usize,
        c_out: usize,
        kernel: [usize; 2],
        stride: usize,
        padding: [usize; 2],
    ) -> Unit {
        Unit {
            weight: Initializer::Zeros.init([c_out, c_in, kernel[0], kernel[1]], self.0),
            bias: Initializer::Zeros.init([c_out], self.0),
            stride,
            padding,
        }
    }

    fn point(&self, c_in: usize, c_out: usize) -> Unit {
        self.unit(c_in, c_out, [1, 1], 1, [0, 0])
    }

    /// A kernel that keeps the size.
    fn same(&self, c_in: usize, c_out: usize, kernel: [usize; 2]) -> Unit {
        self.unit(c_in, c_out, kernel, 1, kernel.map(|k| k / 2))
    }

    fn downsample(&self, c_in: usize, c_out: usize) -> Unit {
        self.unit(c_in, c_out, [3, 3], 2, [0, 0])
    }
}

impl Unit {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let (weight, bias) = (self.weight.val(), self.bias.val());
        convolution_relu(x, weight, Some(bias), self.stride, self.padding)
    }
}

/// The checkpoint's tensors in lower case, each convolution with its norm: weights `w·g/√(v + ε)`,
/// bias `b − m·g/√(v + ε)`.
fn folded(weights: &Weights) -> Result<Weights, WeightsError> {
    let wrong = |problem: String| WeightsError::Format { file: weights.file.clone(), problem };
    const LAST: &str = "Mixed_7c.branch_pool.conv.weight";
    if !weights.tensors.contains_key(LAST) {
        return Err(wrong(format!("not FID's Inception-v3: it lacks {LAST}; {FILES} is needed")));
    }
    let mut out = Weights { tensors: BTreeMap::new(), ..weights.clone() };
    for (name, view) in &weights.tensors {
        let Some(unit) = name.strip_suffix(".conv.weight") else {
            if name.starts_with("fc.") {
                out.tensors.insert(name.clone(), view.clone());
            }
            continue;
        };
        let channels = view.shape.first().copied().unwrap_or(0);
        let row = |part: &str| -> Result<Vec<f64>, WeightsError> {
            let name = format!("{unit}.bn.{part}");
            let row = weights.tensors.get(&name).filter(|v| v.shape == [channels]);
            let row = row.ok_or_else(|| wrong(format!("it lacks {name} [{channels}]")))?;
            Ok(row.to_f64())
        };
        let (gain, bias) = (row("weight")?, row("bias")?);
        let (mean, variance) = (row("running_mean")?, row("running_var")?);
        let scale: Vec<f64> =
            gain.iter().zip(&variance).map(|(g, v)| g / (v + BATCH_NORM_EPS).sqrt()).collect();
        let size = view.len() / channels.max(1);
        let kernel: Vec<f32> =
            view.to_f64().iter().enumerate().map(|(i, w)| (w * scale[i / size]) as f32).collect();
        let shift: Vec<f32> =
            (0..channels).map(|c| (bias[c] - mean[c] * scale[c]) as f32).collect();
        let unit = unit.to_lowercase();
        let kernel = TensorView::from_f32(view.shape.clone(), &kernel).map_err(wrong)?;
        out.tensors.insert(format!("{unit}.weight"), kernel);
        let shift = TensorView::from_f32(vec![channels], &shift).map_err(wrong)?;
        out.tensors.insert(format!("{unit}.bias"), shift);
    }
    Ok(out)
}

fn cat(parts: Vec<Tensor<4>>) -> Tensor<4> {
    Tensor::cat(parts, 1)
}

/// 3×3 average pooling with `count_include_pad = False`.
pub(crate) fn avg_pool(x: Tensor<4>) -> Tensor<4> {
    mean_pool(x, 3)
}

/// 3×3 max pooling with stride 2.
pub(crate) fn halved(x: Tensor<4>) -> Tensor<4> {
    max_pool(x, 3, 2, 0)
}

/// Mixed_5b, 5c, 5d.
#[derive(Module, Debug)]
struct BlockA {
    branch1x1: Unit,
    branch5x5_1: Unit,
    branch5x5_2: Unit,
    branch3x3dbl_1: Unit,
    branch3x3dbl_2: Unit,
    branch3x3dbl_3: Unit,
    branch_pool: Unit,
}

impl BlockA {
    fn new(m: &Maker<'_>, c: usize, pool: usize) -> Self {
        Self {
            branch1x1: m.point(c, 64),
            branch5x5_1: m.point(c, 48),
            branch5x5_2: m.same(48, 64, [5, 5]),
            branch3x3dbl_1: m.point(c, 64),
            branch3x3dbl_2: m.same(64, 96, [3, 3]),
            branch3x3dbl_3: m.same(96, 96, [3, 3]),
            branch_pool: m.point(c, pool),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let five = self.branch5x5_2.forward(self.branch5x5_1.forward(x.clone()));
        let three = self.branch3x3dbl_2.forward(self.branch3x3dbl_1.forward(x.clone()));
        let three = self.branch3x3dbl_3.forward(three);
        let pool = self.branch_pool.forward(avg_pool(x.clone()));
        cat(vec![self.branch1x1.forward(x), five, three, pool])
    }
}

/// Mixed_6a.
#[derive(Module, Debug)]
struct BlockB {
    branch3x3: Unit,
    branch3x3dbl_1: Unit,
    branch3x3dbl_2: Unit,
    branch3x3dbl_3: Unit,
}

impl BlockB {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let double = self.branch3x3dbl_2.forward(self.branch3x3dbl_1.forward(x.clone()));
        let double = self.branch3x3dbl_3.forward(double);
        cat(vec![self.branch3x3.forward(x.clone()), double, halved(x)])
    }
}

/// Mixed_6b to 6e.
#[derive(Module, Debug)]
struct BlockC {
    branch1x1: Unit,
    branch7x7_1: Unit,
    branch7x7_2: Unit,
    branch7x7_3: Unit,
    branch7x7dbl_1: Unit,
    branch7x7dbl_2: Unit,
    branch7x7dbl_3: Unit,
    branch7x7dbl_4: Unit,
    branch7x7dbl_5: Unit,
    branch_pool: Unit,
}

impl BlockC {
    fn new(m: &Maker<'_>, c: usize) -> Self {
        let (row, column) = ([1, 7], [7, 1]);
        Self {
            branch1x1: m.point(768, 192),
            branch7x7_1: m.point(768, c),
            branch7x7_2: m.same(c, c, row),
            branch7x7_3: m.same(c, 192, column),
            branch7x7dbl_1: m.point(768, c),
            branch7x7dbl_2: m.same(c, c, column),
            branch7x7dbl_3: m.same(c, c, row),
            branch7x7dbl_4: m.same(c, c, column),
            branch7x7dbl_5: m.same(c, 192, row),
            branch_pool: m.point(768, 192),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let chain = |units: &[&Unit]| units.iter().fold(x.clone(), |x, unit| unit.forward(x));
        let seven = chain(&[&self.branch7x7_1, &self.branch7x7_2, &self.branch7x7_3]);
        let double = chain(&[
            &self.branch7x7dbl_1,
            &self.branch7x7dbl_2,
            &self.branch7x7dbl_3,
            &self.branch7x7dbl_4,
            &self.branch7x7dbl_5,
        ]);
        let pool = self.branch_pool.forward(avg_pool(x.clone()));
        cat(vec![self.branch1x1.forward(x.clone()), seven, double, pool])
    }
}

/// Mixed_7a.
#[derive(Module, Debug)]
struct BlockD {
    branch3x3_1: Unit,
    branch3x3_2: Unit,
    branch7x7x3_1: Unit,
    branch7x7x3_2: Unit,
    branch7x7x3_3: Unit,
    branch7x7x3_4: Unit,
}

impl BlockD {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let three = self.branch3x3_2.forward(self.branch3x3_1.forward(x.clone()));
        let seven = self.branch7x7x3_2.forward(self.branch7x7x3_1.forward(x.clone()));
        let seven = self.branch7x7x3_4.forward(self.branch7x7x3_3.forward(seven));
        cat(vec![three, seven, halved(x)])
    }
}

/// Mixed_7b and 7c; the last one's pooling is a maximum.
#[derive(Module, Debug)]
struct BlockE {
    branch1x1: Unit,
    branch3x3_1: Unit,
    branch3x3_2a: Unit,
    branch3x3_2b: Unit,
    branch3x3dbl_1: Unit,
    branch3x3dbl_2: Unit,
    branch3x3dbl_3a: Unit,
    branch3x3dbl_3b: Unit,
    branch_pool: Unit,
    maximum: bool,
}

impl BlockE {
    fn new(m: &Maker<'_>, c: usize, maximum: bool) -> Self {
        let (row, column) = ([1, 3], [3, 1]);
        Self {
            branch1x1: m.point(c, 320),
            branch3x3_1: m.point(c, 384),
            branch3x3_2a: m.same(384, 384, row),
            branch3x3_2b: m.same(384, 384, column),
            branch3x3dbl_1: m.point(c, 448),
            branch3x3dbl_2: m.same(448, 384, [3, 3]),
            branch3x3dbl_3a: m.same(384, 384, row),
            branch3x3dbl_3b: m.same(384, 384, column),
            branch_pool: m.point(c, 192),
            maximum,
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let three = self.branch3x3_1.forward(x.clone());
        let double = self.branch3x3dbl_2.forward(self.branch3x3dbl_1.forward(x.clone()));
        let pool = match self.maximum {
            true => max_pool(x.clone(), 3, 1, 1),
            false => avg_pool(x.clone()),
        };
        cat(vec![
            self.branch1x1.forward(x),
            self.branch3x3_2a.forward(three.clone()),
            self.branch3x3_2b.forward(three),
            self.branch3x3dbl_3a.forward(double.clone()),
            self.branch3x3dbl_3b.forward(double),
            self.branch_pool.forward(pool),
        ])
    }
}

#[derive(Module, Debug)]
struct Head {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

/// The network. Fields are the checkpoint's names in lower case.
#[derive(Module, Debug)]
pub struct Inception {
    conv2d_1a_3x3: Unit,
    conv2d_2a_3x3: Unit,
    conv2d_2b_3x3: Unit,
    conv2d_3b_1x1: Unit,
    conv2d_4a_3x3: Unit,
    mixed_5b: BlockA,
    mixed_5c: BlockA,
    mixed_5d: BlockA,
    mixed_6a: BlockB,
    mixed_6b: BlockC,
    mixed_6c: BlockC,
    mixed_6d: BlockC,
    mixed_6e: BlockC,
    mixed_7a: BlockD,
    mixed_7b: BlockE,
    mixed_7c: BlockE,
    fc: Head,
}

impl Inception {
    /// The network of pytorch-fid's and torch-fidelity's `*inception-2015-12-05-6726825d.pth`.
    ///
    /// # Errors
    ///
    /// * [`WeightsError::Format`]: the file is another Inception's, or lacks the statistics of a
    ///   norm.
    /// * [`WeightsError::Mismatch`]: a tensor is missing or has another shape.
    /// * [`WeightsError::NotFinite`]: a weight is not finite.
    pub fn from_weights(weights: &Weights, device: &Device) -> Result<Self, WeightsError> {
        let weights = folded(weights)?;
        Ok(load(Self::untrained(device), &weights, FloatDType::F32, device)?.network.no_grad())
    }

    /// The network with every weight zero.
    pub fn untrained(device: &Device) -> Self {
        let m = &Maker(device);
        Self {
            conv2d_1a_3x3: m.downsample(3, 32),
            conv2d_2a_3x3: m.unit(32, 32, [3, 3], 1, [0, 0]),
            conv2d_2b_3x3: m.same(32, 64, [3, 3]),
            conv2d_3b_1x1: m.point(64, 80),
            conv2d_4a_3x3: m.unit(80, 192, [3, 3], 1, [0, 0]),
            mixed_5b: BlockA::new(m, 192, 32),
            mixed_5c: BlockA::new(m, 256, 64),
            mixed_5d: BlockA::new(m, 288, 64),
            mixed_6a: BlockB {
                branch3x3: m.downsample(288, 384),
                branch3x3dbl_1: m.point(288, 64),
                branch3x3dbl_2: m.same(64, 96, [3, 3]),
                branch3x3dbl_3: m.downsample(96, 96),
            },
            mixed_6b: BlockC::new(m, 128),
            mixed_6c: BlockC::new(m, 160),
            mixed_6d: BlockC::new(m, 160),
            mixed_6e: BlockC::new(m, 192),
            mixed_7a: BlockD {
                branch3x3_1: m.point(768, 192),
                branch3x3_2: m.downsample(192, 320),
                branch7x7x3_1: m.point(768, 192),
                branch7x7x3_2: m.same(192, 192, [1, 7]),
                branch7x7x3_3: m.same(192, 192, [7, 1]),
                branch7x7x3_4: m.downsample(192, 192),
            },
            mixed_7b: BlockE::new(m, 1280, false),
            mixed_7c: BlockE::new(m, 2048, true),
            fc: Head {
                weight: Initializer::Zeros.init([1008, 2048], device),
                bias: Initializer::Zeros.init([1008], device),
            },
        }
    }

    /// Features of images `[B, 3, 299, 299]`, scaled as the protocol says (about −1…1).
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, 3, 299, 299]`
    /// * returns the shapes that [`Features`] states
    ///
    /// # Panics
    ///
    /// If `x` has another number of channels, or is too small for the poolings.
    pub fn forward(&self, x: Tensor<4>) -> Features {
        self.forward_observed(x, &mut |_, _| ())
    }

    /// [`forward`](Self::forward) that shows every stage under its name in the checkpoint.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, 3, 299, 299]`
    /// * `observe`: is given `[B, C, h, w]`
    /// * returns the shapes that [`Features`] states
    ///
    /// # Panics
    ///
    /// If `x` has another number of channels, or is too small for the poolings.
    pub fn forward_observed(
        &self,
        x: Tensor<4>,
        observe: &mut dyn FnMut(&str, &Tensor<4>),
    ) -> Features {
        let mut stage = |name: &str, x: Tensor<4>| {
            observe(name, &x);
            x
        };
        let means = |x: &Tensor<4>| -> Tensor<2> {
            let [b, c, h, w] = x.dims();
            x.clone().reshape([b, c, h * w]).mean_dim(2).reshape([b, c])
        };
        let x = stage("Conv2d_1a_3x3", self.conv2d_1a_3x3.forward(x));
        let x = stage("Conv2d_2a_3x3", self.conv2d_2a_3x3.forward(x));
        let x = stage("Conv2d_2b_3x3", self.conv2d_2b_3x3.forward(x));
        let x = stage("MaxPool_1", halved(x)); // [B, 64, 73, 73]
        let pool64 = means(&x);
        let x = stage("Conv2d_3b_1x1", self.conv2d_3b_1x1.forward(x));
        let x = stage("Conv2d_4a_3x3", self.conv2d_4a_3x3.forward(x));
        let x = stage("MaxPool_2", halved(x)); // [B, 192, 35, 35]
        let pool192 = means(&x);
        let x = stage("Mixed_5b", self.mixed_5b.forward(x));
        let x = stage("Mixed_5c", self.mixed_5c.forward(x));
        let x = stage("Mixed_5d", self.mixed_5d.forward(x)); // [B, 288, 35, 35]
        let x = stage("Mixed_6a", self.mixed_6a.forward(x)); // [B, 768, 17, 17]
        let x = stage("Mixed_6b", self.mixed_6b.forward(x));
        let x = stage("Mixed_6c", self.mixed_6c.forward(x));
        let x = stage("Mixed_6d", self.mixed_6d.forward(x));
        let [b, _, h, w] = x.dims();
        let spatial = x.clone().narrow(1, 0, SPATIAL_CHANNELS).permute([0, 2, 3, 1]);
        let spatial = spatial.reshape([b, h * w * SPATIAL_CHANNELS]);
        let x = stage("Mixed_6e", self.mixed_6e.forward(x));
        let pool768 = means(&x);
        let x = stage("Mixed_7a", self.mixed_7a.forward(x)); // [B, 1280, 8, 8]
        let x = stage("Mixed_7b", self.mixed_7b.forward(x));
        let x = stage("Mixed_7c", self.mixed_7c.forward(x)); // [B, 2048, 8, 8]
        let pool2048 = means(&x);
        let pooled = pool2048.clone().reshape([b, 2048, 1, 1]);
        stage("AvgPool", pooled);
        let logits_unbiased = pool2048.clone().matmul(self.fc.weight.val().transpose());
        let logits = logits_unbiased.clone() + self.fc.bias.val().unsqueeze();
        Features { pool64, pool192, pool768, pool2048, spatial, logits_unbiased, logits }
    }
}
