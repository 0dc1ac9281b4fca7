//! How a product is divided among workgroups.

use super::Inner;

/// Rows and columns of the blocks that units hold and bring.
pub(super) const BLOCK: u32 = 4;

/// The most rows of a result of which each workgroup makes a few columns.
pub(super) const FEW: usize = 8;

/// A product of `[m, k]` and `[k, n]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub m: usize,
    pub n: usize,
    pub k: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// A weight is read once, by as many units as possible, and multiplied with [`FEW`] rows at most.
    FewRows,
    Tiles(Tile),
}

/// What a workgroup makes: `side`² units, each with `tall` blocks below each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    pub side: u32,
    pub tall: u32,
    /// Of the axis that is summed over, what shared memory holds at a time.
    pub depth: u32,
}

impl Plan {
    /// The plan that takes the fewest clocks.
    pub(super) fn of(sizes: Sizes, inner: Inner) -> Self {
        if sizes.m <= FEW && inner.a && inner.b {
            return Self::FewRows;
        }
        let fastest = Tile::ALL.into_iter().min_by_key(|tile| tile.clocks(sizes));
        Self::Tiles(fastest.expect("there are tiles"))
    }
}

/// Processors of a GPU of middling size: WebGPU does not tell how many there are.
const PROCESSORS: usize = 32;
/// Multiplications a clock of a processor.
const MULTIPLICATIONS: usize = 128;
/// Bytes a clock that the second-level cache has for each processor.
const BYTES: usize = 32;
/// Clocks from a request to memory until the last unit has passed the barrier behind it.
const WAIT: usize = 600;

impl Tile {
    /// 128 × 64, 64 × 64 and 32 × 32 results, of 12, 16 and 8 KiB of shared memory; WebGPU promises 16.
    pub(super) const ALL: [Self; 3] = [
        Self { side: 16, tall: 2, depth: 16 },
        Self { side: 16, tall: 1, depth: 32 },
        Self { side: 8, tall: 1, depth: 32 },
    ];

    /// Results on its left and on its upper side.
    pub(super) fn area(self) -> [usize; 2] {
        [self.side * self.tall * BLOCK, self.side * BLOCK].map(|n| n as usize)
    }

    /// Tiles of a result.
    pub(super) fn count(self, sizes: Sizes) -> usize {
        let [rows, columns] = self.area();
        sizes.m.div_ceil(rows) * sizes.n.div_ceil(columns)
    }

    /// Clocks of a product: in each step along the sum, a processor's tiles are multiplied and brought one after
    /// the other, and all of them wait for memory together.
    fn clocks(self, sizes: Sizes) -> usize {
        let ([rows, columns], depth) = (self.area(), self.depth as usize);
        // A value from shared memory costs a unit as much as a multiplication.
        let values = BLOCK * self.tall * BLOCK + BLOCK * (self.tall + 1);
        let multiply = (self.side * self.side * values) as usize * depth / MULTIPLICATIONS;
        let bring = (rows + columns) * depth * size_of::<f32>() / BYTES;
        let tiles = self.count(sizes).div_ceil(PROCESSORS);
        sizes.k.div_ceil(depth) * (tiles * (multiply + bring) + WAIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_choose_the_plan() {
        let both = Inner { a: true, b: true };
        let of = |[m, n, k]: [usize; 3]| Plan::of(Sizes { m, n, k }, both);
        let [tall, square, small] = Tile::ALL.map(Plan::Tiles);
        // SiT-XL with 64 images, the emoji model with two, and its projection with one.
        assert_eq!(of([16_384, 1152, 1152]), tall);
        assert_eq!(of([512, 768, 256]), square);
        assert_eq!(of([256, 256, 256]), small);
        // Modulation.
        assert_eq!(of([8, 6912, 1152]), Plan::FewRows);
        assert_eq!(of([9, 6912, 1152]), small);
        let gradient = Plan::of(Sizes { m: 8, n: 1152, k: 6912 }, Inner { a: true, b: false });
        assert_eq!(gradient, small);
    }

    #[test]
    fn tiles_fit_what_webgpu_promises() {
        for tile in Tile::ALL {
            let sides: usize = tile.area().into_iter().sum();
            assert!(sides * tile.depth as usize * size_of::<f32>() <= 16_384, "{tile:?}");
            assert!(tile.side * tile.side <= 256, "{tile:?}");
            assert!(tile.depth.is_multiple_of(BLOCK), "{tile:?}");
        }
    }
}
