//! One file, or several at once.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tintype::catalogue::{Address, File, Hub};

use crate::cache::Cache;
use crate::check::Expected;
use crate::digests::Digests;
use crate::environment::Environment;
use crate::error::{DownloadError, Misfit};
use crate::from_hub::is_gone;
use crate::promise::Promised;
use crate::receive::{Context, Wanted, receive};
use crate::transport::{Origin, Transport, host_of};
use crate::url_cache;

/// The host of PyTorch's files.
const PYTORCH: &str = "download.pytorch.org";
/// Files that are fetched at once.
const AT_ONCE: usize = 4;

/// What a download is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The server is asked what the file is.
    Asking,
    /// What is here already is read for its digest.
    Checking {
        /// Bytes read.
        done: u64,
    },
    /// Bytes arrive.
    Receiving {
        /// Bytes that are there.
        done: u64,
        /// Bytes of the file, where they are known.
        total: Option<u64>,
    },
    /// Another program fetches it; its end is waited for.
    Locked,
    /// The next attempt is waited for.
    Waiting {
        /// How long.
        seconds: u64,
        /// What happened.
        problem: String,
    },
}

/// Is told what a download is doing; from the thread that does it.
pub type Watch<'a> = &'a (dyn Fn(State) + Sync);

/// A file that is on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Where.
    pub path: PathBuf,
    /// Bytes that came, with those of earlier downloads; 0 where it was here already.
    pub bytes: u64,
    /// SHA-256 of what came; `None` where it was here already.
    pub sha256: Option<String>,
    /// The commit of a Hub that it is of.
    pub commit: Option<String>,
    /// Why it could not be asked whether the file is still the newest.
    pub not_asked: Option<String>,
}

impl Fetched {
    pub(crate) fn here(path: PathBuf, commit: Option<String>) -> Self {
        Self { path, bytes: 0, sha256: None, commit, not_asked: None }
    }
}

/// Finds and fetches files.
#[derive(Debug)]
pub struct Downloader {
    pub(crate) environment: Environment,
    pub(crate) transport: Transport,
    promised: Promised,
    pub(crate) digests: Digests,
}

impl Downloader {
    /// In an environment. Makes no request.
    pub fn new(environment: Environment) -> Self {
        let transport = Transport::new(&environment);
        let (promised, digests) = (Promised::default(), Digests::default());
        Self { environment, transport, promised, digests }
    }

    /// Where it fetches from and what it may.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    pub(crate) fn cache(&self) -> Cache<'_> {
        Cache { environment: &self.environment }
    }

    /// The file, where it is on this machine; one of another length than the catalogue says is not it, see
    /// [`misfit`](Self::misfit). Makes no request.
    pub fn find(&self, file: &File) -> Option<PathBuf> {
        let is_it = |path: &PathBuf| match &file.address {
            Address::Hub(_) => may_be(path, file),
            _ => file.bytes.is_none_or(|bytes| has_length(path, bytes)),
        };
        self.kept(file).filter(is_it)
    }

    /// What lies in the place of a file and has another length than the catalogue says. It counts as missing, and a
    /// download replaces it. Makes no request.
    pub fn misfit(&self, file: &File) -> Option<Misfit> {
        let (path, expected) = (self.kept(file)?, file.bytes?);
        let found = path.metadata().ok()?.len();
        (found != expected).then_some(Misfit { path, found, expected })
    }

    /// What lies in the place of a file.
    fn kept(&self, file: &File) -> Option<PathBuf> {
        match &file.address {
            Address::Hub(hub) => self.cache().find(hub),
            _ => Some(url_cache::place(&self.environment, file)).filter(|path| path.is_file()),
        }
    }

    /// Where the file is looked for; with a `*` for the commit where no revision has been asked for yet.
    pub fn place(&self, file: &File) -> PathBuf {
        match &file.address {
            Address::Hub(hub) => self.cache().place(hub),
            _ => url_cache::place(&self.environment, file),
        }
    }

    /// Fetches a file, unless it is here already. A branch of a Hub is asked whether it has a newer one; where it
    /// cannot be asked, the one that is here is taken, and [`Fetched::not_asked`] says why.
    ///
    /// * `stop`: set it to end the download; what has arrived is kept
    ///
    /// # Errors
    ///
    /// [`DownloadError`], after five attempts without progress where another may help.
    pub fn fetch(
        &self,
        file: &File,
        watch: Watch<'_>,
        stop: &AtomicBool,
    ) -> Result<Fetched, DownloadError> {
        match &file.address {
            Address::Hub(hub) => self.fetch_hub(file, hub, watch, stop),
            Address::Url(url) | Address::Link(url) => self.fetch_url(file, url, watch, stop),
        }
    }

    /// Fetches a file that is not here; of a Hub's branch, from the commit that other files of its repository are
    /// here of, so that they belong together. A file that is here makes no request.
    ///
    /// # Errors
    ///
    /// As [`fetch`](Self::fetch).
    pub fn complete(
        &self,
        file: &File,
        watch: Watch<'_>,
        stop: &AtomicBool,
    ) -> Result<Fetched, DownloadError> {
        let Address::Hub(hub) = &file.address else { return self.fetch(file, watch, stop) };
        let cache = self.cache();
        if let Some(path) = self.find(file) {
            return Ok(Fetched::here(path, cache.commit(hub)));
        }
        let commit = cache.commit(hub).filter(|commit| cache.snapshot(hub, commit).is_dir());
        if let Some(revision) = commit.filter(|_| !hub.is_pinned()) {
            let address = Address::Hub(Hub { revision, ..hub.clone() });
            match self.fetch(&File { address, ..file.clone() }, watch, stop) {
                // The commit is gone, or had no such file yet.
                Err(DownloadError::Refused { refusal, .. }) if is_gone(&refusal) => {}
                result => return result,
            }
        }
        self.fetch(file, watch, stop)
    }

    /// The host that a file is asked of, for people.
    pub fn host(&self, file: &File) -> String {
        match &file.address {
            Address::Hub(_) => host_of(&self.environment.endpoint),
            Address::Url(url) | Address::Link(url) => host_of(url),
        }
    }

    /// [`fetch`](Self::fetch) of several files, four at a time; a file that fails does not stop the others.
    ///
    /// * `watch`: is told the index of the file, too
    pub fn fetch_all(
        &self,
        files: &[&File],
        watch: &(dyn Fn(usize, State) + Sync),
        stop: &AtomicBool,
    ) -> Vec<Result<Fetched, DownloadError>> {
        self.each(files, &|i, file| self.fetch(file, &|state| watch(i, state), stop))
    }

    /// [`complete`](Self::complete) of several files, as [`fetch_all`](Self::fetch_all).
    pub fn complete_all(
        &self,
        files: &[&File],
        watch: &(dyn Fn(usize, State) + Sync),
        stop: &AtomicBool,
    ) -> Vec<Result<Fetched, DownloadError>> {
        self.each(files, &|i, file| self.complete(file, &|state| watch(i, state), stop))
    }

    fn each(
        &self,
        files: &[&File],
        fetch: &(dyn Fn(usize, &File) -> Result<Fetched, DownloadError> + Sync),
    ) -> Vec<Result<Fetched, DownloadError>> {
        let next = AtomicUsize::new(0);
        let results = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..files.len().min(AT_ONCE) {
                scope.spawn(|| {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(file) = files.get(index) else { break };
                        let result = fetch(index, file);
                        results
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push((index, result));
                    }
                });
            }
        });
        let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        results.sort_by_key(|(index, _)| *index);
        results.into_iter().map(|(_, result)| result).collect()
    }

    fn fetch_url(
        &self,
        file: &File,
        url: &str,
        watch: Watch<'_>,
        stop: &AtomicBool,
    ) -> Result<Fetched, DownloadError> {
        if let Some(path) = self.find(file) {
            return Ok(Fetched::here(path, None));
        }
        if self.environment.offline {
            return Err(self.offline(file));
        }
        watch(State::Asking);
        let whole = url_cache::place(&self.environment, file);
        let expected = Expected {
            sha256: file.sha256.clone(),
            git: None,
            beginning: is_pytorchs(url).then(|| Expected::beginning_in(file.name())).flatten(),
        };
        let wanted = Wanted { file, size: file.bytes, expected, is_named_by_content: false };
        let again = || Ok(url.to_string());
        let (found, bytes) =
            receive(self.context(watch, stop), &wanted, &whole, url.into(), &again)?;
        Ok(Fetched { bytes, sha256: Some(found.sha256), ..Fetched::here(whole, None) })
    }

    pub(crate) fn context<'a>(&'a self, watch: Watch<'a>, stop: &'a AtomicBool) -> Context<'a> {
        let Self { environment, transport, promised, .. } = self;
        Context { environment, transport, promised, watch, stop }
    }

    /// Why a file that is not here is not fetched where no request may be made.
    pub(crate) fn offline(&self, file: &File) -> DownloadError {
        let address = file.address.to_string();
        match self.misfit(file) {
            Some(misfit) => DownloadError::OfflineMisfit { address, misfit },
            None => DownloadError::Offline { address, place: self.place(file) },
        }
    }
}

/// Whether an address is of PyTorch's own files, whose names have the beginning of their digest. Other names end in
/// dates and numbers of steps.
fn is_pytorchs(url: &str) -> bool {
    Origin::of(url).is_some_and(|origin| origin.host() == PYTORCH)
}

/// Whether a file of a cache may be the one that the catalogue describes, by its length and by the id that its content
/// is kept under.
fn may_be(path: &Path, file: &File) -> bool {
    let id =
        path.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_str()?.to_string()));
    let is_digest = |id: &String| id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
    let is_pinned =
        |digest: &String| id.as_ref().filter(|id| is_digest(id)).is_none_or(|id| id == digest);
    file.bytes.is_none_or(|bytes| has_length(path, bytes))
        && file.sha256.as_ref().is_none_or(is_pinned)
}

/// Whether there is a file of a length.
pub(crate) fn has_length(path: &Path, bytes: u64) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == bytes)
}

/// Removes a file; it is no error where it is not there.
pub(crate) fn remove(path: &Path) -> Result<(), DownloadError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(DownloadError::write(path)(e)),
        _ => Ok(()),
    }
}
