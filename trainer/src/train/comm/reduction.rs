//! A sum of gradients over ranks that begins while later ones are still being computed.

use std::collections::BTreeMap;

use tintype::burn::tensor::Tensor;
use tintype::weights::Flat;

use super::{BUCKET, Comm, CommError, Pending};
use crate::train::recompute::add;

/// How many pieces each gradient of a step comes in, as the step before found it.
pub type Pieces = BTreeMap<String, usize>;

/// Most buckets that are on their way.
const IN_FLIGHT: usize = 4;

/// The sum of the gradients of one step. A gradient goes to the other ranks, in a bucket with others, once its last piece
/// has come and the bucket is full; in the first step after all have come.
pub struct Reduction<'a> {
    comm: &'a Comm,
    pieces: &'a mut Pieces,
    seen: Pieces,
    /// In the first step, names in the order of their last pieces.
    order: Vec<String>,
    /// Those of which pieces may still come.
    open: Flat,
    /// Those that are whole.
    bucket: Flat,
    /// Values in the bucket.
    values: usize,
    begun: Vec<Pending>,
    sums: Flat,
    error: Option<CommError>,
}

impl<'a> Reduction<'a> {
    /// A sum that begins with what earlier micro-batches have added up.
    ///
    /// * `pieces`: of the step before; none where there was none
    pub fn new(comm: &'a Comm, pieces: &'a mut Pieces, before: Flat) -> Self {
        Self {
            comm,
            pieces,
            seen: Pieces::new(),
            order: Vec::new(),
            open: before,
            bucket: Flat::new(),
            values: 0,
            begun: Vec::new(),
            sums: Flat::new(),
            error: None,
        }
    }

    /// Adds pieces of this rank's gradients.
    ///
    /// # Shapes
    ///
    /// * `more`: `[n]` a name
    pub fn add(&mut self, more: Flat) {
        let names: Vec<String> = more.keys().cloned().collect();
        add(&mut self.open, more);
        if self.pieces.is_empty() {
            self.order.retain(|name| !names.contains(name));
            self.order.extend(names.iter().cloned());
        }
        for name in names {
            let seen = self.seen.entry(name.clone()).or_default();
            *seen += 1;
            if self.pieces.get(&name) == Some(seen)
                && let Some(gradient) = self.open.remove(&name)
            {
                self.push(name, gradient);
            }
        }
    }

    /// Puts a whole gradient into the bucket.
    fn push(&mut self, name: String, gradient: Tensor<1>) {
        self.values += gradient.dims()[0];
        self.bucket.insert(name, gradient);
        if self.values >= BUCKET {
            self.begin();
        }
    }

    /// Begins the sum of the bucket.
    fn begin(&mut self) {
        self.values = 0;
        let bucket = std::mem::take(&mut self.bucket);
        if bucket.is_empty() || self.error.is_some() {
            return;
        }
        // Each bucket has a copy of its size on a GPU.
        let oldest = (self.begun.len() == IN_FLIGHT).then(|| self.begun.remove(0));
        let done = oldest.map(|oldest| self.comm.finish_sum(oldest)).transpose();
        match (done, self.comm.begin_sum(bucket)) {
            (Ok(done), Ok(pending)) => {
                self.sums.extend(done.into_iter().flatten());
                self.begun.push(pending);
            }
            (Err(error), _) | (_, Err(error)) => self.error = Some(error),
        }
    }

    /// Waits for the sums over all ranks.
    ///
    /// # Shapes
    ///
    /// * returns `[n]` a name
    ///
    /// # Errors
    ///
    /// As [`Comm::sum`].
    pub fn finish(mut self) -> Result<Flat, CommError> {
        // None was known to be whole. The buckets are to be those of later steps, so that a resumed run has the bits of
        // one that was never stopped.
        for name in std::mem::take(&mut self.order) {
            if let Some(gradient) = self.open.remove(&name) {
                self.push(name, gradient);
            }
        }
        self.begin();
        if let Some(error) = self.error {
            return Err(error);
        }
        for pending in std::mem::take(&mut self.begun) {
            self.sums.extend(self.comm.finish_sum(pending)?);
        }
        // Pieces that came more often than in the step before, and gradients that came in none.
        if !self.open.is_empty() {
            add(&mut self.sums, self.comm.sum(self.open)?);
        }
        *self.pieces = self.seen;
        Ok(self.sums)
    }
}

#[cfg(test)]
mod tests {
    use tintype::burn::tensor::Device;

    use super::*;

    fn row(value: f32) -> Tensor<1> {
        Tensor::from_floats([value, 1.0], &Device::flex())
    }

    fn piece(pairs: &[(&str, f32)]) -> Flat {
        pairs.iter().map(|&(name, value)| (name.to_string(), row(value))).collect()
    }

    fn values(sums: &Flat) -> Vec<(String, f32)> {
        let first = |x: &Tensor<1>| x.to_data().iter::<f32>().next().expect("two values");
        sums.iter().map(|(name, x)| (name.clone(), first(x))).collect()
    }

    #[test]
    fn gradients_go_when_their_last_piece_has_come() {
        let ranks = Comm::threads(2);
        let run = |comm: &Comm| {
            let mut pieces = Pieces::new();
            let mut found = Vec::new();
            for step in 0..3 {
                let mut sum = Reduction::new(comm, &mut pieces, piece(&[("early", 100.0)]));
                sum.add(piece(&[("head", 1.0), ("shared", 1.0)]));
                sum.add(piece(&[("block", 2.0), ("shared", 10.0)]));
                // The first step does not know what is whole.
                let whole: Vec<&String> = sum.bucket.keys().collect();
                match step {
                    0 => assert!(whole.is_empty()),
                    _ => assert_eq!(whole, ["block", "head", "shared"]),
                }
                if step == 2 {
                    sum.add(piece(&[("shared", 1000.0)]));
                    assert_eq!(sum.open.len(), 2, "a piece too many is kept apart");
                }
                found.push(values(&sum.finish().expect("both ranks")));
            }
            found
        };
        let found: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = ranks.iter().map(|comm| scope.spawn(|| run(comm))).collect();
            threads.into_iter().map(|thread| thread.join().expect("it ends")).collect()
        });
        assert_eq!(found[0], found[1]);
        let sums = |shared: f32| -> Vec<(String, f32)> {
            let of = [("block", 4.0), ("early", 200.0), ("head", 2.0), ("shared", shared)];
            of.map(|(name, sum)| (name.to_string(), sum)).to_vec()
        };
        assert_eq!(found[0], [sums(22.0), sums(22.0), sums(2022.0)]);
    }
}
