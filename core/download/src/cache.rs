//! Python's cache of a Hub: blobs by their content, snapshots by commit, refs from branches to commits.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tintype::catalogue::Hub;
use tintype::files::{rename, write_whole};

use crate::environment::Environment;
use crate::error::DownloadError;
use crate::part::with_end;

/// What a cache's folder says to backup programs.
const TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
    # This file is a cache directory tag. For information see https://bford.info/cachedir/\n";
/// How often the lock of a blob is asked for.
const POLL: Duration = Duration::from_millis(100);

/// The cache of a Hub.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cache<'a> {
    pub(crate) environment: &'a Environment,
}

/// The lock of a blob, which Python takes, too; `None` where the file system has none.
pub(crate) struct BlobLock(Option<File>);

impl Drop for BlobLock {
    fn drop(&mut self) {
        if let Some(file) = &self.0 {
            let _ = file.unlock();
        }
    }
}

impl Cache<'_> {
    fn name(hub: &Hub) -> String {
        let kind = if hub.is_dataset { "datasets" } else { "models" };
        format!("{kind}--{}", hub.repository.replace('/', "--"))
    }

    /// The folder of a repository.
    pub(crate) fn folder(&self, hub: &Hub) -> PathBuf {
        self.environment.hub_cache.join(Self::name(hub))
    }

    /// Where a file of a commit lies.
    pub(crate) fn pointer(&self, hub: &Hub, commit: &str) -> PathBuf {
        self.snapshot(hub, commit).join(&hub.path)
    }

    /// The folder of a commit's files.
    pub(crate) fn snapshot(&self, hub: &Hub, commit: &str) -> PathBuf {
        self.folder(hub).join("snapshots").join(commit)
    }

    /// Where a content lies.
    pub(crate) fn blob(&self, hub: &Hub, id: &str) -> PathBuf {
        self.folder(hub).join("blobs").join(id)
    }

    /// The commit that a revision was when it was last asked for.
    pub(crate) fn commit(&self, hub: &Hub) -> Option<String> {
        if hub.is_pinned() {
            return Some(hub.revision.clone());
        }
        let text =
            std::fs::read_to_string(self.folder(hub).join("refs").join(&hub.revision)).ok()?;
        let commit = text.trim();
        let is_name = !commit.is_empty() && commit.bytes().all(|b| b.is_ascii_alphanumeric());
        is_name.then(|| commit.into())
    }

    /// The file, where it is here: of the commit that its branch was when it was last asked for, else, as the branch may
    /// have moved with another file, of the newest that has it.
    pub(crate) fn find(&self, hub: &Hub) -> Option<PathBuf> {
        let pointer = self.pointer(hub, &self.commit(hub)?);
        if pointer.is_file() {
            return Some(pointer);
        }
        if hub.is_pinned() {
            return None;
        }
        let versions = self.versions(hub).into_iter();
        versions.max_by_key(|path| path.symlink_metadata().and_then(|m| m.modified()).ok())
    }

    /// The file in every commit that is here.
    pub(crate) fn versions(&self, hub: &Hub) -> Vec<PathBuf> {
        let snapshots = std::fs::read_dir(self.folder(hub).join("snapshots"));
        let commits = snapshots.into_iter().flatten().flatten();
        commits.map(|entry| entry.path().join(&hub.path)).filter(|path| path.is_file()).collect()
    }

    /// Where a file is looked for.
    pub(crate) fn place(&self, hub: &Hub) -> PathBuf {
        match self.commit(hub) {
            Some(commit) => self.pointer(hub, &commit),
            None => self.folder(hub).join("snapshots").join("*").join(&hub.path),
        }
    }

    /// Creates the cache's folder, and marks it as a cache.
    pub(crate) fn create(&self) -> Result<(), DownloadError> {
        let root = &self.environment.hub_cache;
        std::fs::create_dir_all(root).map_err(DownloadError::write(root))?;
        let tag = root.join("CACHEDIR.TAG");
        if !tag.exists() {
            // A cache without its mark is a cache.
            let _ = write_whole(&tag, TAG.as_bytes());
        }
        Ok(())
    }

    /// Waits for the lock of a content, so that one program fetches it at a time; `on_wait` is called where it has to.
    pub(crate) fn lock(
        &self,
        hub: &Hub,
        id: &str,
        on_wait: &dyn Fn(),
        stop: &AtomicBool,
    ) -> Result<BlobLock, DownloadError> {
        let folder = self.environment.hub_cache.join(".locks").join(Self::name(hub));
        let path = folder.join(format!("{id}.lock"));
        std::fs::create_dir_all(&folder).map_err(DownloadError::write(&folder))?;
        let file = lock_file(&path).map_err(DownloadError::write(&path))?;
        let mut is_first = true;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(BlobLock(Some(file))),
                Err(TryLockError::Error(_)) => return Ok(BlobLock(None)),
                Err(TryLockError::WouldBlock) if stop.load(Ordering::Relaxed) => {
                    return Err(DownloadError::Stopped);
                }
                Err(TryLockError::WouldBlock) => {
                    if std::mem::take(&mut is_first) {
                        on_wait();
                    }
                    std::thread::sleep(POLL);
                }
            }
        }
    }

    /// Gives a content its name in a commit: a link, or the file itself where links are not possible.
    ///
    /// * `is_new`: it was fetched for this; another's content is copied and not moved
    pub(crate) fn link(
        &self,
        hub: &Hub,
        id: &str,
        commit: &str,
        is_new: bool,
    ) -> Result<(), DownloadError> {
        let (blob, pointer) = (self.blob(hub, id), self.pointer(hub, commit));
        let temporary = beside(&pointer)?;
        // Component by component: a link of Windows has no '/'.
        let up = std::iter::repeat_n("..", hub.path.split('/').count() + 1);
        let target: PathBuf = up.chain(["blobs", id]).collect();
        let linked = match self.environment.symlinks {
            true => symlink(&target, &temporary).and_then(|()| rename(&temporary, &pointer)),
            false => Err(io::Error::from(io::ErrorKind::Unsupported)),
        };
        if linked.is_ok() && pointer.is_file() {
            return Ok(());
        }
        // Nothing is copied through a link that could not be put in its place.
        let _ = std::fs::remove_file(&temporary);
        let placed = match is_new {
            true => rename(&blob, &pointer),
            false => std::fs::copy(&blob, &temporary).and_then(|_| rename(&temporary, &pointer)),
        };
        placed.map_err(DownloadError::write(&pointer))
    }

    /// Gives the file of another commit a name in this one, too: the same bytes under two names, or a copy where the
    /// file system cannot do that.
    pub(crate) fn share(&self, from: &Path, hub: &Hub, commit: &str) -> Result<(), DownloadError> {
        let pointer = self.pointer(hub, commit);
        let temporary = beside(&pointer)?;
        let shared = std::fs::hard_link(from, &temporary)
            .or_else(|_| std::fs::copy(from, &temporary).map(|_| ()))
            .and_then(|()| rename(&temporary, &pointer));
        if shared.is_err() {
            // Of a copy for which the disk has no room.
            let _ = std::fs::remove_file(&temporary);
        }
        shared.map_err(DownloadError::write(&pointer))
    }

    /// Notes which commit a branch or tag is.
    pub(crate) fn write_ref(&self, hub: &Hub, commit: &str) -> Result<(), DownloadError> {
        if hub.revision == commit || self.commit(hub).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.folder(hub).join("refs").join(&hub.revision);
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(DownloadError::write(folder))?;
        Ok(write_whole(&path, commit.as_bytes())?)
    }

    /// Notes that a commit has no such file, as Python does.
    pub(crate) fn write_absence(&self, hub: &Hub, commit: &str) {
        let path = self.folder(hub).join(".no_exist").join(commit).join(&hub.path);
        // It only saves Python a request.
        if let Some(folder) = path.parent() {
            let _ = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, ""));
        }
    }
}

/// A name beside a file that is to be, free and in a folder that is there.
fn beside(pointer: &Path) -> Result<PathBuf, DownloadError> {
    let folder = pointer.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(DownloadError::write(folder))?;
    let temporary = with_end(pointer, &format!(".{}.tintype", std::process::id()));
    let _ = std::fs::remove_file(&temporary);
    Ok(temporary)
}

/// Opens a file to be locked, which others of the group may lock, too, as Python's; another user's that may only be read
/// will do.
fn lock_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o664);
    }
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => File::open(path),
        opened => opened,
    }
}

/// Makes a link to a file.
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::symlink(target, link);
    #[cfg(windows)]
    return std::os::windows::fs::symlink_file(target, link);
    #[cfg(not(any(unix, windows)))]
    {
        let _ = (target, link);
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }
}
