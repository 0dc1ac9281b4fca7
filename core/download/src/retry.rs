//! When to try again, and after how long.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::downloader::{State, Watch};
use crate::environment::Environment;
use crate::error::DownloadError;
use crate::transport::{Answer, RequestError, header, host_of, number};

/// Attempts without progress.
const ATTEMPTS: usize = 5;
/// Seconds between them, where the server does not say.
const WAITS: [u64; 4] = [1, 2, 4, 8];
/// The longest wait that a server is granted.
const LONGEST: Duration = Duration::from_secs(10 * 60);
/// How often a wait looks whether it is to end.
const SLICE: Duration = Duration::from_millis(100);

/// Attempts at one thing.
pub(crate) struct Attempts<'a> {
    pub(crate) environment: &'a Environment,
    pub(crate) address: &'a str,
    pub(crate) watch: Watch<'a>,
    pub(crate) stop: &'a AtomicBool,
    pub(crate) failed: usize,
}

impl Attempts<'_> {
    /// There is no second attempt.
    pub(crate) fn only_once(&mut self) {
        self.failed = ATTEMPTS - 1;
    }

    /// Notes that bytes have arrived: the count begins anew.
    pub(crate) fn progressed(&mut self) {
        self.failed = 0;
    }

    /// Waits for the next attempt, or gives up.
    ///
    /// # Errors
    ///
    /// The trouble, where it is final or has lasted too long; [`DownloadError::Stopped`].
    pub(crate) fn again(&mut self, trouble: RequestError) -> Result<(), DownloadError> {
        let (host, problem, wait) = match trouble {
            RequestError::Final(error) => return Err(error),
            // A new address is asked for at once; where that is refused, too, after a wait.
            RequestError::Expired { host, status } => {
                let wait = (self.failed == 0).then_some(Duration::ZERO);
                (host, format!("it refuses the address that leads there ({status})"), wait)
            }
            RequestError::Passing { host, problem, wait } => (host, problem, wait),
        };
        self.failed += 1;
        if self.failed >= ATTEMPTS {
            return Err(DownloadError::Unreachable { address: self.address.into(), host, problem });
        }
        let seconds = WAITS[(self.failed - 1).min(WAITS.len() - 1)];
        let wait = wait.unwrap_or(Duration::from_secs(seconds)).min(LONGEST);
        if !wait.is_zero() {
            (self.watch)(State::Waiting { seconds: wait.as_secs(), problem });
        }
        let mut left = wait;
        while !left.is_zero() {
            if self.stop.load(Ordering::Relaxed) {
                return Err(DownloadError::Stopped);
            }
            let slice = left.min(SLICE);
            (self.environment.sleep)(slice);
            left -= slice;
        }
        Ok(())
    }
}

/// The trouble that a status tells of, if another attempt may help.
pub(crate) fn passing(answer: &Answer, url: &str) -> Option<RequestError> {
    let status = answer.status().as_u16();
    let wait = match status {
        429 => rate_limit(header(answer, "RateLimit")).or_else(|| retry_after(answer)),
        503 => retry_after(answer),
        408 | 500 | 502 | 504 => None,
        _ => return None,
    };
    let problem = match status {
        429 => "too many requests (429)".into(),
        status => format!("the server answers {status}"),
    };
    Some(RequestError::Passing { host: host_of(url), problem, wait })
}

fn retry_after(answer: &Answer) -> Option<Duration> {
    number(answer, "Retry-After").map(Duration::from_secs)
}

/// The wait of `"resolvers";r=0;t=55`: until the window ends, and a second more.
fn rate_limit(value: Option<&str>) -> Option<Duration> {
    let mut parts = value?.split(';').map(str::trim);
    let mut number = |key: &str| -> Option<u64> {
        let rest = parts.find_map(|part| part.strip_prefix(key)?.strip_prefix('='))?;
        rest.parse().ok()
    };
    let (left, seconds) = (number("r")?, number("t")?);
    (left == 0).then(|| Duration::from_secs(seconds.saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_limit_counts_when_nothing_is_left() {
        let seconds = |value: &str| rate_limit(Some(value)).map(|wait| wait.as_secs());
        assert_eq!(seconds("\"resolvers\";r=0;t=55"), Some(56));
        assert_eq!(seconds("\"resolvers\"; r=0; t=1"), Some(2));
        assert_eq!(seconds("\"resolvers\";r=3;t=55"), None);
        assert_eq!(seconds("nonsense"), None);
        assert_eq!(rate_limit(None), None);
    }
}
