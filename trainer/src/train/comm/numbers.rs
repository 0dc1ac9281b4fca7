//! Numbers of all ranks on their way from the device to the host.

use tintype::burn::tensor::Tensor;

/// Numbers of all ranks, on the device until they are read.
#[derive(Clone, Debug)]
pub struct Gathered {
    /// `[world·k]` in rank order; of several ranks each one's are followed by its wish to stop: `[world·(k + 1)]`.
    pub values: Tensor<1>,
    ranks: usize,
    /// k
    each: usize,
}

/// The same on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbers {
    /// The sum over ranks of each number, in rank order and float64.
    pub sums: Vec<f64>,
    /// Whether a rank was asked to stop.
    pub stop: bool,
}

impl Gathered {
    /// Of a single rank, which hears its own wish to stop elsewhere.
    pub(super) fn alone(values: Tensor<1>) -> Self {
        let each = values.dims()[0];
        Self { values, ranks: 1, each }
    }

    /// Of several ranks.
    pub(super) fn of(values: Tensor<1>, ranks: usize, each: usize) -> Self {
        Self { values, ranks, each }
    }

    /// Reads them back.
    pub fn read(self) -> Numbers {
        let values: Vec<f32> = self.values.clone().into_data().convert::<f32>().iter().collect();
        self.decode(&values)
    }

    /// What [`values`](Self::values) mean that were read back.
    ///
    /// # Panics
    ///
    /// If there are not as many.
    pub fn decode(&self, values: &[f32]) -> Numbers {
        let row = values.len() / self.ranks;
        assert_eq!(values.len(), self.values.dims()[0], "the values of all ranks");
        let mut sums = vec![0.0; self.each];
        let mut stop = false;
        for rank in values.chunks_exact(row) {
            let (own, wish) = rank.split_at(self.each);
            sums.iter_mut().zip(own).for_each(|(sum, &v)| *sum += f64::from(v));
            stop |= wish.first().is_some_and(|&wish| wish != 0.0);
        }
        Numbers { sums, stop }
    }
}
