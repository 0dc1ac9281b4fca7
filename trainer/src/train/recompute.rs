//! Activation recomputation (Chen et al., arXiv 1604.06174) block by block: the forward pass keeps
//! only the input of each block, the backward pass runs the block again to differentiate it. Costs
//! one more forward pass, saves the memory of all activations inside the blocks.
//!
//! Burn has no such operation, so the graph is cut in front of and behind each row of blocks and
//! the gradients are carried across the cuts here.

use std::sync::Arc;

use tintype::burn::module::{AutodiffModule, Module};
use tintype::burn::tensor::{Gradients, Tensor};
use tintype::model::hdit::{Layer, run_layers};
use tintype::nn::block::DitBlock;
use tintype::nn::dropout::Dropout;
use tintype::nn::rope::RotaryTable;
use tintype::weights::{Flat, flat_gradients};

/// A block as a function of tokens and condition, on the graph.
type Block<const D: usize> = Arc<dyn Fn(Tensor<D>, Tensor<2>) -> Tensor<D>>;

/// The rows of blocks that a forward pass ran. Tokens have `D` axes.
pub struct Tape<const D: usize> {
    enabled: bool,
    rows: Vec<Row<D>>,
}

/// One row of blocks between two cuts.
struct Row<const D: usize> {
    /// Inputs, on the graph in front of the cut.
    before: (Tensor<D>, Tensor<2>),
    /// The blocks, each with the tokens that entered it, off the graph.
    blocks: Vec<(Block<D>, Tensor<D>)>,
    /// Outputs, leaves of the graph behind the cut.
    after: (Tensor<D>, Tensor<2>),
}

/// A tape of either kind of network.
pub enum AnyTape {
    /// Tokens `[B, N, D]`
    Dit(Tape<3>),
    /// Tokens `[B, H, W, w]`
    HDiT(Tape<4>),
}

impl From<Tape<3>> for AnyTape {
    fn from(tape: Tape<3>) -> Self {
        Self::Dit(tape)
    }
}

impl From<Tape<4>> for AnyTape {
    fn from(tape: Tape<4>) -> Self {
        Self::HDiT(tape)
    }
}

impl<const D: usize> Tape<D> {
    /// A tape that records if enabled; otherwise Burn keeps all activations as usual.
    pub fn new(enabled: bool) -> Self {
        Self { enabled, rows: Vec::new() }
    }

    /// Runs blocks off the graph; `run` gives the output of one of them.
    fn record(
        &mut self,
        blocks: Vec<Block<D>>,
        run: impl Fn(usize, Tensor<D>, Tensor<2>) -> Tensor<D>,
        h: Tensor<D>,
        c: Tensor<2>,
    ) -> (Tensor<D>, Tensor<2>) {
        let condition = c.clone().inner();
        let mut stream = h.clone().inner();
        let mut kept = Vec::with_capacity(blocks.len());
        for (number, block) in blocks.into_iter().enumerate() {
            kept.push((block, stream.clone()));
            stream = run(number, stream, condition.clone());
        }
        let after = (leaf(stream), leaf(condition));
        self.rows.push(Row { before: (h, c), blocks: kept, after: after.clone() });
        after
    }

    /// All gradients by name, from those behind the last cut.
    ///
    /// # Shapes
    ///
    /// * returns gradients `[n]` a name
    ///
    /// # Panics
    ///
    /// If a block does not pass a gradient to its input.
    pub fn backward<M: Module>(self, network: &M, gradients: Gradients) -> Flat {
        let mut all = Flat::new();
        self.backward_in_pieces(network, gradients, &mut |piece| add(&mut all, piece));
        all
    }

    /// [`backward`](Self::backward) that gives the gradients away as they come, from the last block to the first: a name
    /// that several parts of the network share comes several times, and the gradient is the sum.
    ///
    /// # Shapes
    ///
    /// * `each` takes gradients `[n]` a name
    ///
    /// # Panics
    ///
    /// If a block does not pass a gradient to its input.
    pub fn backward_in_pieces<M: Module>(
        self,
        network: &M,
        gradients: Gradients,
        each: &mut dyn FnMut(Flat),
    ) {
        each(flat_gradients(network, &gradients));
        let mut behind = vec![gradients];
        for row in self.rows.into_iter().rev() {
            let (h, c) = &row.after;
            let mut of_condition = total(c, &behind);
            let of_tokens = total(h, &behind).map(|of_last| {
                row.blocks.into_iter().rev().fold(of_last, |of_tokens, (block, input)| {
                    let (x, c) = (leaf(input), leaf(c.clone().inner()));
                    let y = block(x.clone(), c.clone());
                    let gradients = (y * Tensor::from_inner(of_tokens)).sum().backward();
                    each(flat_gradients(network, &gradients));
                    let before = of_condition.take();
                    of_condition = sum(before, c.grad(&gradients));
                    x.grad(&gradients).expect("blocks are residual")
                })
            });
            // Across the cut, into the graph in front of it: either may be without a gradient.
            let (h, c) = row.before;
            let of_tokens = of_tokens.map(|gradient| (h * Tensor::from_inner(gradient)).sum());
            let of_condition =
                of_condition.map(|gradient| (c * Tensor::from_inner(gradient)).sum());
            let Some(carried) = sum(of_tokens, of_condition) else { continue };
            let gradients = carried.backward();
            each(flat_gradients(network, &gradients));
            behind.push(gradients);
        }
    }
}

impl Tape<3> {
    /// How DiT blocks are run.
    ///
    /// # Shapes
    ///
    /// * the closure takes tokens `[B, N, D]` and a condition `[B, D]` or `[B·N, D]`, and returns both
    pub fn dit(
        &mut self,
    ) -> impl FnMut(&[DitBlock], Option<&RotaryTable>, Tensor<3>, Tensor<2>) -> (Tensor<3>, Tensor<2>)
    {
        self.dit_dropping(|_| Dropout::default())
    }

    /// [`dit`](Self::dit) with the dropout of each block, by its number in the forward pass.
    ///
    /// # Shapes
    ///
    /// * the closure takes tokens `[B, N, D]` and a condition `[B, D]` or `[B·N, D]`, and returns both
    pub fn dit_dropping(
        &mut self,
        dropout: impl Fn(usize) -> Dropout,
    ) -> impl FnMut(&[DitBlock], Option<&RotaryTable>, Tensor<3>, Tensor<2>) -> (Tensor<3>, Tensor<2>)
    {
        let mut count = 0;
        move |blocks, rope, h, c| {
            let drops: Vec<Dropout> = (count..count + blocks.len()).map(&dropout).collect();
            count += blocks.len();
            if !self.enabled {
                let run = |h, (block, &drop): (&DitBlock, &Dropout)| {
                    block.forward_dropping(h, c.clone(), rope, drop)
                };
                return (blocks.iter().zip(&drops).fold(h, run), c);
            }
            let plain: Vec<DitBlock> = blocks.iter().map(|b| b.valid()).collect();
            let plain_rope = rope.map(RotaryTable::inner);
            let on_graph = |(block, &drop): (&DitBlock, &Dropout)| -> Block<3> {
                let (block, rope) = (block.clone(), rope.cloned());
                Arc::new(move |h, c| block.forward_dropping(h, c, rope.as_ref(), drop))
            };
            let run =
                |i: usize, h, c| plain[i].forward_dropping(h, c, plain_rope.as_ref(), drops[i]);
            self.record(blocks.iter().zip(&drops).map(on_graph).collect(), run, h, c)
        }
    }
}

impl Tape<4> {
    /// How HDiT's layers are run.
    ///
    /// # Shapes
    ///
    /// * the closure takes tokens `[B, H, W, w]` and a condition `[B, m]`, and returns both
    pub fn hdit(
        &mut self,
    ) -> impl FnMut(&[Layer], Option<u64>, Tensor<4>, Tensor<2>) -> (Tensor<4>, Tensor<2>) {
        |layers, seed, h, c| {
            if !self.enabled {
                return run_layers(layers, seed, h, c);
            }
            let plain: Vec<Layer> = layers.iter().map(|l| l.valid()).collect();
            let on_graph = |layer: &Layer| -> Block<4> {
                let layer = layer.clone();
                Arc::new(move |h, c| layer.forward(h, c, seed))
            };
            let run = |i: usize, h, c| plain[i].forward(h, c, seed);
            self.record(layers.iter().map(on_graph).collect(), run, h, c)
        }
    }
}

fn leaf<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_inner(x).require_grad()
}

fn sum<const D: usize>(a: Option<Tensor<D>>, b: Option<Tensor<D>>) -> Option<Tensor<D>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    }
}

/// A leaf's gradient from every piece of the graph behind it.
fn total<const D: usize>(x: &Tensor<D>, behind: &[Gradients]) -> Option<Tensor<D>> {
    behind.iter().fold(None, |all, gradients| sum(all, x.grad(gradients)))
}

/// Adds gradients by name.
pub fn add(all: &mut Flat, more: Flat) {
    for (name, gradient) in more {
        let sum = match all.remove(&name) {
            Some(old) => old + gradient,
            None => gradient,
        };
        all.insert(name, sum);
    }
}

#[cfg(test)]
mod tests {
    use tintype::burn; // the derive names it
    use tintype::burn::module::{Initializer, Param};
    use tintype::burn::tensor::Device;

    use super::*;

    /// What the tokens, the condition and one block are made of.
    #[derive(Module, Debug)]
    struct Parts {
        tokens: Param<Tensor<3>>,
        condition: Param<Tensor<2>>,
        weight: Param<Tensor<1>>,
    }

    /// A residual block.
    fn forward(h: Tensor<3>, c: Tensor<2>, weight: Tensor<1>) -> Tensor<3> {
        let [c, weight]: [Tensor<3>; 2] = [c.reshape([1, 1, 2]), weight.reshape([1, 1, 2])];
        h + c * weight
    }

    /// Gradients of a loss of tokens and condition behind the block.
    fn gradients(
        recomputes: bool,
        loss: fn(Tensor<3>, Tensor<2>) -> Tensor<1>,
    ) -> Vec<(String, Vec<f32>)> {
        let device = Device::flex().autodiff();
        let init = Initializer::Constant { value: 2.0 };
        let parts = Parts {
            tokens: init.init([1, 1, 2], &device),
            condition: init.init([1, 2], &device),
            weight: init.init([2], &device),
        };
        let (h, c, weight) = (parts.tokens.val(), parts.condition.val() * 3.0, parts.weight.val());
        let mut tape = Tape::new(recomputes);
        let (h, c) = match recomputes {
            true => {
                let plain = weight.clone().inner();
                let block: Block<3> = Arc::new(move |h, c| forward(h, c, weight.clone()));
                tape.record(vec![block], move |_, h, c| forward(h, c, plain.clone()), h, c)
            }
            false => (forward(h, c.clone(), weight), c),
        };
        let found = tape.backward(&parts, loss(h, c).backward());
        let values = |gradient: Tensor<1>| gradient.into_data().iter::<f32>().collect();
        found.into_iter().map(|(name, gradient)| (name, values(gradient))).collect()
    }

    #[test]
    fn gradients_of_tokens_and_condition_cross_the_cuts_together_and_alone() {
        let of_both = |h: Tensor<3>, c: Tensor<2>| h.square().sum() + c.square().sum();
        let expected = gradients(false, of_both);
        assert_eq!(expected.len(), 3, "{expected:?}");
        assert_eq!(gradients(true, of_both), expected);
        // 2 · 6 · 3; neither tokens nor block are in it.
        let of_condition = |_: Tensor<3>, c: Tensor<2>| c.square().sum();
        let alone = vec![("condition".to_string(), vec![36.0f32; 2])];
        assert_eq!(gradients(false, of_condition), alone);
        assert_eq!(gradients(true, of_condition), alone);
        let of_tokens = |h: Tensor<3>, _: Tensor<2>| h.square().sum();
        assert_eq!(gradients(true, of_tokens), gradients(false, of_tokens));
    }
}
