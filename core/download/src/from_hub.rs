//! Files of a Hub: what they are by now, and their contents in Python's cache.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use tintype::catalogue::{Address, File, Hub};

use crate::check::Expected;
use crate::downloader::{Downloader, Fetched, State, Watch, has_length};
use crate::error::{DownloadError, Refusal};
use crate::hub::{self, Facts};
use crate::receive::{Wanted, receive};
use crate::retry::Attempts;
use crate::unfinished;

impl Downloader {
    /// Whether a file that is here is asked for again: that of a Hub's branch, unless no request may be made.
    pub fn is_asked_again(&self, file: &File) -> bool {
        let is_of_branch = matches!(&file.address, Address::Hub(hub) if !hub.is_pinned());
        is_of_branch && !self.environment.offline
    }

    /// Whether a Hub has another version of a file that is here, and its size. Asks once. Where links are not possible,
    /// what is here may be read for its digest, which a later [`fetch`](Self::fetch) knows then.
    ///
    /// # Errors
    ///
    /// [`DownloadError`] where the Hub cannot be asked.
    pub fn newer(
        &self,
        file: &File,
        watch: Watch<'_>,
        stop: &AtomicBool,
    ) -> Result<Option<u64>, DownloadError> {
        let Address::Hub(hub) = &file.address else { return Ok(None) };
        if !self.is_asked_again(file) {
            return Ok(None);
        }
        let facts = self.facts(file, hub, true, watch, stop)?;
        let (cache, id, commit) = (self.cache(), &facts.id, &facts.commit);
        let (pointer, blob) = (cache.pointer(hub, commit), cache.blob(hub, id));
        let is_here = has_length(&pointer, facts.size)
            || has_length(&blob, facts.size)
            || self.unchanged(hub, facts.size, &expected(file, &facts), watch, stop)?.is_some();
        Ok((!is_here).then_some(facts.size))
    }

    pub(crate) fn fetch_hub(
        &self,
        file: &File,
        hub: &Hub,
        watch: Watch<'_>,
        stop: &AtomicBool,
    ) -> Result<Fetched, DownloadError> {
        let cache = self.cache();
        let here = self.find(file);
        let of_here = |path| Fetched::here(path, cache.commit(hub));
        if let Some(path) = here.clone().filter(|_| hub.is_pinned()) {
            return Ok(of_here(path));
        }
        if self.environment.offline {
            return match here {
                Some(path) => Ok(of_here(path)),
                None => Err(self.offline(file)),
            };
        }
        let (error, is_cut) = match self.facts(file, hub, here.is_some(), watch, stop) {
            Err(error) => (error, false),
            Ok(facts) => match self.fetch_content(file, hub, &facts, watch, stop) {
                Ok(fetched) => return Ok(fetched),
                Err(error) => {
                    let is_cut = here.as_ref().is_some_and(|path| self.is_cut(path, hub, &facts));
                    (error, is_cut)
                }
            },
        };
        // Another program may have removed it meanwhile.
        let kept = here.filter(|path| !is_cut && path.is_file() && may_be_elsewhere(&error));
        match kept {
            Some(path) => Ok(Fetched { not_asked: Some(error.to_string()), ..of_here(path) }),
            None => Err(error),
        }
    }

    /// Whether a file that is here has the content that a Hub has described, and only a part of it.
    fn is_cut(&self, path: &Path, hub: &Hub, facts: &Facts) -> bool {
        let (pointer, blob) =
            (self.cache().pointer(hub, &facts.commit), self.cache().blob(hub, &facts.id));
        let is_blob = || match (path.canonicalize(), blob.canonicalize()) {
            (Ok(path), Ok(blob)) => path == blob,
            _ => false,
        };
        (path == pointer || is_blob()) && !has_length(path, facts.size)
    }

    /// Fetches the content that a Hub has described, unless it is here.
    fn fetch_content(
        &self,
        file: &File,
        hub: &Hub,
        facts: &Facts,
        watch: Watch<'_>,
        stop: &AtomicBool,
    ) -> Result<Fetched, DownloadError> {
        self.check_facts(file, facts)?;
        let cache = self.cache();
        let pointer = cache.pointer(hub, &facts.commit);
        let is_here = |path| Fetched::here(path, Some(facts.commit.clone()));
        // One that is cut is fetched again.
        let is_there = || has_length(&pointer, facts.size);
        if is_there() {
            cache.write_ref(hub, &facts.commit)?;
            return Ok(is_here(pointer.clone()));
        }
        cache.create()?;
        let _lock = cache.lock(hub, &facts.id, &|| watch(State::Locked), stop)?;
        let blob = cache.blob(hub, &facts.id);
        let of_id = Expected::of_id(&facts.id, facts.size);
        let expected = expected(file, facts);
        // A name that is a SHA-256 tells the content; that of a mirror may tell nothing.
        let is_whole = match file.sha256.is_some() && of_id.sha256.is_none() {
            true => self.has_content(&blob, facts.size, &expected, watch, stop)?,
            false => has_length(&blob, facts.size),
        };
        let mut fetched = is_here(pointer.clone());
        if is_there() {
            // Another program has fetched it meanwhile.
        } else if is_whole {
            cache.link(hub, &facts.id, &facts.commit, false)?;
        } else if let Some(same) = self.unchanged(hub, facts.size, &expected, watch, stop)? {
            cache.share(&same, hub, &facts.commit)?;
        } else {
            let is_named_by_content = of_id.is_known();
            let wanted = Wanted { file, size: Some(facts.size), expected, is_named_by_content };
            // Of this commit: a branch may have moved on meanwhile.
            let same = Hub { revision: facts.commit.clone(), ..hub.clone() };
            let again = || Ok(self.facts(file, &same, false, watch, stop)?.location);
            // A blob that is not whole stays until what comes takes its name.
            unfinished::note(&blob, hub)?;
            let location = facts.location.clone();
            let received = receive(self.context(watch, stop), &wanted, &blob, location, &again);
            unfinished::forget_unless_partial(&blob);
            let (found, bytes) = received?;
            // Where there are no locks, another program may have been faster.
            if !is_there() {
                cache.link(hub, &facts.id, &facts.commit, true)?;
            }
            fetched = Fetched { bytes, sha256: Some(found.sha256), ..fetched };
        }
        cache.write_ref(hub, &facts.commit)?;
        Ok(fetched)
    }

    /// The file of a commit that is here already, where it has this content. Where links are not possible, contents
    /// lie in the folders of commits alone.
    fn unchanged(
        &self,
        hub: &Hub,
        size: u64,
        expected: &Expected,
        watch: Watch<'_>,
        stop: &AtomicBool,
    ) -> Result<Option<PathBuf>, DownloadError> {
        let versions = match expected.is_known() {
            true => self.cache().versions(hub),
            false => Vec::new(),
        };
        for version in versions.into_iter().filter(|version| !version.is_symlink()) {
            if self.has_content(&version, size, expected, watch, stop)? {
                return Ok(Some(version));
            }
        }
        Ok(None)
    }

    /// Whether a file has a length and digests. One that cannot be read has not.
    fn has_content(
        &self,
        path: &Path,
        size: u64,
        expected: &Expected,
        watch: Watch<'_>,
        stop: &AtomicBool,
    ) -> Result<bool, DownloadError> {
        if !has_length(path, size) {
            return Ok(false);
        }
        let checked = |done| watch(State::Checking { done });
        match self.digests.of_file(path, expected, stop, &checked) {
            Ok(Some(found)) => Ok(expected.difference(&found).is_none()),
            Ok(None) => Err(DownloadError::Stopped),
            Err(_) => Ok(false),
        }
    }

    /// Asks a Hub for a file; once only where it is here already.
    fn facts(
        &self,
        file: &File,
        hub: &Hub,
        is_here: bool,
        watch: Watch<'_>,
        stop: &AtomicBool,
    ) -> Result<Facts, DownloadError> {
        let address = file.address.to_string();
        let environment = &self.environment;
        environment.check_token()?;
        let mut attempts = Attempts { environment, address: &address, watch, stop, failed: 0 };
        if is_here {
            attempts.only_once();
        }
        watch(State::Asking);
        loop {
            if stop.load(Ordering::Relaxed) {
                return Err(DownloadError::Stopped);
            }
            match hub::ask(&self.transport, environment, hub) {
                Ok(Ok(facts)) => return Ok(facts),
                Ok(Err(commit)) => {
                    self.cache().write_absence(hub, &commit);
                    let (repository, revision) = (hub.repository.clone(), hub.revision.clone());
                    let refusal = Refusal::Entry { repository, revision, path: hub.path.clone() };
                    return Err(DownloadError::Refused { address, refusal });
                }
                Err(trouble) => attempts.again(trouble)?,
            }
        }
    }

    /// Compares what the Hub has with what the catalogue describes.
    fn check_facts(&self, file: &File, facts: &Facts) -> Result<(), DownloadError> {
        let changed = |what, expected: String, found: String| {
            Err(DownloadError::Changed { address: file.address.to_string(), what, expected, found })
        };
        let of_hub = Expected::of_id(&facts.id, facts.size).sha256;
        match (&file.sha256, of_hub) {
            (Some(pinned), Some(found)) if *pinned != found => {
                return changed("SHA-256", pinned.clone(), found);
            }
            _ => {}
        }
        match file.bytes {
            Some(bytes) if bytes != facts.size => {
                changed("size", bytes.to_string(), facts.size.to_string())
            }
            _ => Ok(()),
        }
    }
}

/// Whether a file that is here may be taken although the Hub could not be asked: it may be, unless the Hub has said
/// that there is no such file.
fn may_be_elsewhere(error: &DownloadError) -> bool {
    match error {
        DownloadError::Refused { refusal, .. } => !is_gone(refusal),
        DownloadError::Unreachable { .. }
        | DownloadError::NotAHub { .. }
        | DownloadError::TokenFile { .. } => true,
        // A cache that is another user's, or may only be read.
        DownloadError::Write(_) => true,
        _ => false,
    }
}

/// The digests that a content must have: that of its id, and that of the catalogue.
fn expected(file: &File, facts: &Facts) -> Expected {
    let mut expected = Expected::of_id(&facts.id, facts.size);
    expected.sha256 = expected.sha256.or_else(|| file.sha256.clone());
    expected
}

/// Whether the Hub has said that there is no such file or revision.
pub(crate) fn is_gone(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Entry { .. } | Refusal::Revision { .. })
}
