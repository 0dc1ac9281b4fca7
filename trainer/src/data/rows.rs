//! Rows of a data set that lies in shards.

/// Where each shard's rows end among all. ImageNet has thousands of shards, and every item is looked up.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    ends: Vec<usize>,
}

impl Rows {
    /// Those of the next shard.
    pub fn push(&mut self, rows: usize) {
        self.ends.push(self.len() + rows);
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The shard of a row, and which of its rows that is; `None` behind the last one.
    pub fn place(&self, row: usize) -> Option<(usize, usize)> {
        // A shard may be empty: the first one that ends behind the row has it.
        let shard = self.ends.partition_point(|end| *end <= row);
        let start = shard.checked_sub(1).map_or(0, |before| self.ends[before]);
        (shard < self.ends.len()).then(|| (shard, row - start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_place() {
        let counts = [0, 3, 0, 0, 1, 2, 0];
        let mut rows = Rows::default();
        counts.iter().for_each(|count| rows.push(*count));
        let all = |(shard, count): (usize, &usize)| (0..*count).map(move |row| (shard, row));
        let expected: Vec<_> = counts.iter().enumerate().flat_map(all).collect();
        let found: Vec<_> = (0..rows.len()).filter_map(|row| rows.place(row)).collect();
        assert_eq!(found, expected);
        assert_eq!((rows.len(), rows.place(6), rows.place(usize::MAX)), (6, None, None));
        assert_eq!((Rows::default().len(), Rows::default().place(0)), (0, None));
    }
}
