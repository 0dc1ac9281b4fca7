//! Bytes of any length from every rank, over an exchange of as many float32 values from each.

/// The bytes of every rank, in rank order. Lengths come first, since all ranks must gather as many values.
///
/// * `gather`: from `[k]` values of this rank to `[world·k]` of all, in rank order
pub(super) fn exchange<E>(
    own: Vec<u8>,
    world: usize,
    mut gather: impl FnMut(Vec<f32>) -> Result<Vec<f32>, E>,
) -> Result<Vec<Vec<u8>>, E> {
    let length = (own.len() as u64).to_le_bytes();
    let lengths = bytes(&gather(values(&length))?);
    let lengths: Vec<usize> = lengths.chunks_exact(length.len()).map(number).collect();
    let longest = lengths.iter().copied().max().unwrap_or_default();
    if longest == 0 {
        return Ok(vec![Vec::new(); world]);
    }
    let mut padded = own;
    padded.resize(longest, 0);
    let all = bytes(&gather(values(&padded))?);
    Ok(all.chunks_exact(longest).zip(lengths).map(|(all, length)| all[..length].to_vec()).collect())
}

/// A byte in each value, which holds it exactly, whatever becomes of values that are not numbers on the way.
fn values(bytes: &[u8]) -> Vec<f32> {
    bytes.iter().map(|&byte| f32::from(byte)).collect()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().map(|&value| value as u8).collect()
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each of some ranks gets, from their turns at one exchange after the other.
    fn exchanged(ranks: &[Vec<u8>]) -> Vec<Vec<Vec<u8>>> {
        // What a rank offers to an exchange depends on the result of the one before.
        let offered = |rank: usize, results: &[Vec<f32>]| {
            let mut turn = 0;
            let mut offer = Vec::new();
            let end = exchange(ranks[rank].clone(), ranks.len(), |own| {
                offer = own;
                turn += 1;
                results.get(turn - 1).cloned().ok_or(())
            });
            (offer, end)
        };
        let mut results: Vec<Vec<f32>> = Vec::new();
        for _ in 0..3 {
            let turns: Vec<_> = (0..ranks.len()).map(|rank| offered(rank, &results)).collect();
            if turns.iter().all(|(_, end)| end.is_ok()) {
                return turns.into_iter().map(|(_, end)| end.expect("it is")).collect();
            }
            let offers: Vec<_> = turns.into_iter().map(|(offer, _)| offer).collect();
            assert!(offers.iter().all(|offer| offer.len() == offers[0].len()), "{offers:?}");
            results.push(offers.concat());
        }
        panic!("it needs more than two exchanges");
    }

    #[test]
    fn every_rank_gets_the_bytes_of_all() {
        let long: Vec<u8> = (0..70_000).map(|i| (i % 256) as u8).collect();
        for ranks in [
            vec![vec![7]],
            vec![Vec::new(); 3],
            vec![Vec::new(), vec![0, 255, 128]],
            vec![b"tintype".to_vec(), long, Vec::new(), vec![1; 300]],
        ] {
            assert_eq!(exchanged(&ranks), vec![ranks.clone(); ranks.len()]);
        }
    }
}
