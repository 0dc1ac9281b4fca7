//! Room on disks for what downloads still have to write.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::disk;

/// Bytes that the downloads of this process still have to write, by disk.
#[derive(Debug, Default)]
pub(crate) struct Promised(Mutex<BTreeMap<String, u64>>);

/// Bytes that one download has still to write, for as long as it lasts.
pub(crate) struct Promise<'a> {
    all: &'a Promised,
    disk: String,
    left: u64,
}

impl Promised {
    /// Promises room for bytes below a folder; also returns what others have been promised on its disk.
    pub(crate) fn promise(&self, folder: &Path, bytes: u64) -> (Promise<'_>, u64) {
        let disk = disk::id(folder).unwrap_or_default();
        let before = self.change(&disk, |sum| sum.saturating_add(bytes));
        (Promise { all: self, disk, left: bytes }, before)
    }

    /// Changes the sum of a disk; returns the one before.
    fn change(&self, disk: &str, change: impl Fn(u64) -> u64) -> u64 {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = all.entry(disk.into()).or_default();
        let before = *sum;
        *sum = change(before);
        before
    }
}

impl Promise<'_> {
    /// Notes that bytes have been written.
    pub(crate) fn keep(&mut self, bytes: u64) {
        let kept = bytes.min(self.left);
        self.left -= kept;
        self.all.change(&self.disk, |sum| sum.saturating_sub(kept));
    }
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        self.keep(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_counted_apart_and_promises_end() {
        let all = Promised::default();
        let folder = tempfile::tempdir().expect("a folder");
        let (mut first, before) = all.promise(folder.path(), 10);
        assert_eq!(before, 0);
        first.keep(4);
        assert_eq!(all.promise(folder.path(), 5).1, 6, "the second ends at once");
        let elsewhere = Promise { all: &all, disk: "another".into(), left: 0 };
        assert_eq!(all.change(&elsewhere.disk, |sum| sum), 0);
        drop(first);
        assert_eq!(all.promise(folder.path(), 1).1, 0);
    }
}
