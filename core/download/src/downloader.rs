//! One file, or several at once.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tintype::catalogue::{Address, File, Hub};

use crate::cache::Cache;
use crate::check::Expected;
use crate::environment::Environment;
use crate::error::{DownloadError, Refusal};
use crate::hub::{self, Facts};
use crate::promise::Promised;
use crate::receive::{Context, Wanted, receive};
use crate::retry::Attempts;
use crate::transport::{Origin, Transport, host_of};
use crate::unfinished;
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
    /// What an earlier download has left is read for its digest.
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
    fn here(path: PathBuf, commit: Option<String>) -> Self {
        Self { path, bytes: 0, sha256: None, commit, not_asked: None }
    }
}

/// Finds and fetches files.
#[derive(Debug)]
pub struct Downloader {
    pub(crate) environment: Environment,
    pub(crate) transport: Transport,
    promised: Promised,
}

impl Downloader {
    /// In an environment. Makes no request.
    pub fn new(environment: Environment) -> Self {
        Self { transport: Transport::new(&environment), environment, promised: Promised::default() }
    }

    /// Where it fetches from and what it may.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    pub(crate) fn cache(&self) -> Cache<'_> {
        Cache { environment: &self.environment }
    }

    /// The file, where it is on this machine. Makes no request.
    pub fn find(&self, file: &File) -> Option<PathBuf> {
        match &file.address {
            Address::Hub(hub) => self.cache().find(hub).filter(|path| may_be(path, file)),
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

    /// Whether a Hub has another version of a file that is here, and its size. Asks once.
    ///
    /// # Errors
    ///
    /// [`DownloadError`] where the Hub cannot be asked.
    pub fn newer(&self, file: &File, stop: &AtomicBool) -> Result<Option<u64>, DownloadError> {
        let Address::Hub(hub) = &file.address else { return Ok(None) };
        if hub.is_pinned() || self.environment.offline {
            return Ok(None);
        }
        let facts = self.facts(file, hub, true, &|_| {}, stop)?;
        let (cache, id, commit) = (self.cache(), &facts.id, &facts.commit);
        let is_here = cache.pointer(hub, commit).is_file() || cache.blob(hub, id).is_file();
        Ok((!is_here).then_some(facts.size))
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

    fn fetch_hub(
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
        let facts = self.facts(file, hub, here.is_some(), watch, stop);
        match facts.and_then(|facts| self.fetch_content(file, hub, &facts, watch, stop)) {
            Ok(fetched) => Ok(fetched),
            Err(error) => match here.filter(|_| may_be_elsewhere(&error)) {
                Some(path) => Ok(Fetched { not_asked: Some(error.to_string()), ..of_here(path) }),
                None => Err(error),
            },
        }
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
        if pointer.is_file() {
            cache.write_ref(hub, &facts.commit)?;
            return Ok(is_here(pointer));
        }
        cache.create()?;
        let _lock = cache.lock(hub, &facts.id, &|| watch(State::Locked), stop)?;
        let blob = cache.blob(hub, &facts.id);
        let mut expected = Expected::of_id(&facts.id, facts.size);
        // The ids of some mirrors are no digests.
        let is_named_by_content = expected.is_known();
        let needs_check = file.sha256.is_some() && expected.sha256.is_none();
        expected.sha256 = expected.sha256.or_else(|| file.sha256.clone());
        if blob.is_file() && !is_whole(&blob, facts.size, needs_check.then_some(&expected)) {
            remove(&blob)?;
        }
        let (mut fetched, is_new) = match (pointer.is_file(), blob.is_file()) {
            (true, _) => (is_here(pointer.clone()), false),
            (false, true) => (is_here(pointer.clone()), false),
            (false, false) => {
                let size = Some(facts.size);
                let wanted = Wanted { file, size, expected, is_named_by_content };
                // Of this commit: a branch may have moved on meanwhile.
                let same = Hub { revision: facts.commit.clone(), ..hub.clone() };
                let again = || Ok(self.facts(file, &same, false, watch, stop)?.location);
                unfinished::note(&blob, hub)?;
                let location = facts.location.clone();
                let context = self.context(watch, stop);
                let received = receive(context, &wanted, &blob, location, &again);
                unfinished::forget_unless_partial(&blob);
                let (found, bytes) = received?;
                let fetched =
                    Fetched { bytes, sha256: Some(found.sha256), ..is_here(pointer.clone()) };
                (fetched, true)
            }
        };
        if !pointer.is_file() {
            fetched.path = cache.link(hub, &facts.id, &facts.commit, is_new)?;
        }
        cache.write_ref(hub, &facts.commit)?;
        Ok(fetched)
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

    fn fetch_url(
        &self,
        file: &File,
        url: &str,
        watch: Watch<'_>,
        stop: &AtomicBool,
    ) -> Result<Fetched, DownloadError> {
        let whole = url_cache::place(&self.environment, file);
        if whole.is_file() {
            return Ok(Fetched::here(whole, None));
        }
        if self.environment.offline {
            return Err(self.offline(file));
        }
        watch(State::Asking);
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

    fn context<'a>(&'a self, watch: Watch<'a>, stop: &'a AtomicBool) -> Context<'a> {
        let Self { environment, transport, promised } = self;
        Context { environment, transport, promised, watch, stop }
    }

    fn offline(&self, file: &File) -> DownloadError {
        DownloadError::Offline { address: file.address.to_string(), place: self.place(file) }
    }
}

/// Whether an address is of PyTorch's own files, whose names have the beginning of their digest. Other names end in
/// dates and numbers of steps.
fn is_pytorchs(url: &str) -> bool {
    Origin::of(url).is_some_and(|origin| origin.host() == PYTORCH)
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

/// Whether a file of a cache may be the one that the catalogue describes, by its length and by the id that its content
/// is kept under.
fn may_be(path: &Path, file: &File) -> bool {
    let has_length = |bytes: u64| path.metadata().is_ok_and(|metadata| metadata.len() == bytes);
    let id =
        path.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_str()?.to_string()));
    let is_digest = |id: &String| id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
    let is_pinned =
        |digest: &String| id.as_ref().filter(|id| is_digest(id)).is_none_or(|id| id == digest);
    file.bytes.is_none_or(has_length) && file.sha256.as_ref().is_none_or(is_pinned)
}

/// Whether a content of the cache has its length, and the digests that its name does not tell.
fn is_whole(blob: &Path, size: u64, expected: Option<&Expected>) -> bool {
    let has_length = blob.metadata().is_ok_and(|metadata| metadata.len() == size);
    let is_expected = |expected: &Expected| {
        let found = expected.of_file(blob);
        found.is_ok_and(|found| expected.difference(&found).is_none())
    };
    has_length && expected.is_none_or(is_expected)
}

/// Whether the Hub has said that there is no such file or revision.
fn is_gone(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Entry { .. } | Refusal::Revision { .. })
}

/// Removes a file; it is no error where it is not there.
pub(crate) fn remove(path: &Path) -> Result<(), DownloadError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(DownloadError::write(path)(e)),
        _ => Ok(()),
    }
}
