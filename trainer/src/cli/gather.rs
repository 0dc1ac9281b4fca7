//! What the processes of one command make together.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use super::events::Reporter;
use crate::patience::Patience;
use crate::rank::Rank;
use crate::samples::Samples;

/// Waits on rank 0 until the samples of all ranks are written.
///
/// # Errors
///
/// If the samples cannot be listed, or no more come.
pub fn wait_for_others(
    sets: &[Samples],
    count: usize,
    rank: Rank,
    reporter: &Reporter,
    interrupted: &AtomicBool,
) -> Result<()> {
    if rank.world == 1 {
        return Ok(());
    }
    for set in sets {
        let mut patience = Patience::from_environment();
        loop {
            let missing = set.missing(0..count).context("the samples cannot be listed")?;
            if missing.is_empty() {
                break;
            }
            reporter.message("waiting for the other processes".into());
            if interrupted.load(Ordering::Relaxed) {
                return Ok(());
            }
            let maker = |sample: &usize| {
                let makes = |r: &usize| Rank { rank: *r, ..rank }.share(count).contains(sample);
                (0..rank.world).find(makes).unwrap_or(0)
            };
            patience.check(missing.len(), || {
                missing.iter().map(|i| (format!("sample {i}"), maker(i))).collect()
            })?;
            std::thread::sleep(Duration::from_millis(500));
        }
    }
    Ok(())
}
