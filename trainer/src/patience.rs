//! Waiting for other processes, but not for dead ones.

use std::time::{Duration, Instant};

/// How long no new part may come before the wait is given up, unless [`VARIABLE`] says.
const DEFAULT: Duration = Duration::from_secs(30 * 60);
/// The environment variable with another time, in seconds.
pub const VARIABLE: &str = "TINTYPE_PATIENCE_S";
/// Parts that are named before "and N more".
const NAMED: usize = 5;

/// The other processes are not coming.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "for {waited:?} nothing new came from {}; missing: {}. Start the same command again for them, or set {} to wait longer",
    named(.ranks),
    listed(.missing),
    VARIABLE
)]
pub struct GaveUp {
    /// How long nothing came.
    pub waited: Duration,
    /// What is missing.
    pub missing: Vec<String>,
    /// Which ranks should have made it.
    pub ranks: Vec<usize>,
}

/// A wait that lasts as long as something happens.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    limit: Duration,
    since: Instant,
    left: Option<usize>,
}

impl Patience {
    /// Begins to wait; half an hour without a new part is too long, or what [`VARIABLE`] says.
    pub fn from_environment() -> Self {
        let seconds = std::env::var(VARIABLE).ok().and_then(|text| text.trim().parse::<u64>().ok());
        Self::new(seconds.map_or(DEFAULT, Duration::from_secs))
    }

    fn new(limit: Duration) -> Self {
        Self { limit, since: Instant::now(), left: None }
    }

    /// Notes how many parts are still missing.
    ///
    /// * `parts`: their names and the ranks that make them, should they not come
    ///
    /// # Errors
    ///
    /// [`GaveUp`] if their number has not changed for too long.
    pub fn check(
        &mut self,
        left: usize,
        parts: impl FnOnce() -> Vec<(String, usize)>,
    ) -> Result<(), GaveUp> {
        if self.left.replace(left) != Some(left) {
            self.since = Instant::now();
        }
        if self.since.elapsed() < self.limit {
            return Ok(());
        }
        let (missing, mut ranks): (Vec<String>, Vec<usize>) = parts().into_iter().unzip();
        ranks.sort_unstable();
        ranks.dedup();
        Err(GaveUp { waited: self.limit, missing, ranks })
    }
}

/// `rank 3`, `ranks 1, 2`
fn named(ranks: &[usize]) -> String {
    let list: Vec<String> = ranks.iter().map(usize::to_string).collect();
    format!("rank{} {}", if list.len() == 1 { "" } else { "s" }, list.join(", "))
}

/// The first of them, and how many more.
fn listed(missing: &[String]) -> String {
    let named = missing.len().min(NAMED);
    let more = match missing.len() - named {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    missing[..named].join(", ") + &more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_when_nothing_new_comes() {
        let mut patience = Patience::new(Duration::ZERO);
        let parts = || -> Vec<(String, usize)> {
            (0..7).map(|i| (format!("{i}.png"), 1 + i % 2)).collect()
        };
        let error = patience.check(7, parts).expect_err("there is no time").to_string();
        assert!(error.contains("from ranks 1, 2; missing: 0.png, 1.png,"), "{error}");
        assert!(error.contains("4.png and 2 more. Start"), "{error}");
        let mut patience = Patience::new(Duration::from_secs(60));
        assert_eq!(patience.check(7, Vec::new), Ok(()));
        patience.since -= Duration::from_secs(59);
        assert_eq!(patience.check(6, Vec::new), Ok(()));
        assert!(patience.since.elapsed() < Duration::from_secs(50), "a new part begins it again");
    }
}
