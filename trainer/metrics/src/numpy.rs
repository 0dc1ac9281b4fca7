//! numpy's legacy `RandomState`, whose draws some metrics are defined by.

use rand_mt::Mt;

/// A Mersenne Twister seeded with one integer.
pub struct RandomState(Mt);

impl RandomState {
    /// `numpy.random.RandomState(seed)`
    pub fn new(seed: u32) -> Self {
        Self(Mt::new(seed))
    }

    /// The next 32 bits.
    pub fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// `permutation(n)`: numbers are drawn by masking and rejection, as numpy's shuffle does.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut items: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            let mask = (i as u32 + 1).next_power_of_two().wrapping_sub(1);
            let j = loop {
                let j = (self.next_u32() & mask) as usize;
                if j <= i {
                    break j;
                }
            };
            items.swap(i, j);
        }
        items
    }

    /// `choice(n, m, replace=False)`: the first m of a permutation.
    pub fn choice(&mut self, n: usize, m: usize) -> Vec<usize> {
        let mut items = self.permutation(n);
        items.truncate(m);
        items
    }
}
