//! The browser of published models: what is known, what is on this machine, and what is being downloaded.
//!
//! * [`Library`] — the catalogue and the downloader; [`Card`] — what is said of a model
//! * [`Fetch`] — a download, whose [`Progress`] is told by a thread of its own
//!
//! Nothing is fetched but by [`Browser::begin`], which a button asks for that names bytes and host.

mod card;
mod fetch;
mod library;
mod progress;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use eframe::egui;
use tintype::generate::ModelPaths;

pub use card::{Card, Section, memory_words};
use fetch::{Ending, Event, Tell};
pub use fetch::{Fetch, Phase};
#[cfg(test)]
pub(crate) use library::empty;
pub use library::{CacheStatus, Library, published_settings};
pub use progress::Progress;
pub use tintype::catalogue::Size;

/// What a card asks before it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whether to download a model in spite of its licence.
    Fetch(String),
    /// Whether to remove it.
    Remove(String),
}

/// What the app is told of its models.
#[derive(Debug)]
// Few are sent at a time, and only Windows' paths make one large.
#[allow(clippy::large_enum_variant)]
pub(crate) enum News {
    /// A model is complete; `beside` was open when it was asked for.
    Complete { name: String, beside: ModelPaths },
    /// It was not fetched, and why.
    Failed { name: String, trouble: String },
    /// It is gone, and so many bytes are free again.
    Removed { name: String, bytes: u64 },
    /// It could not be removed, and why.
    Stuck { trouble: String },
}

/// The models, and what is done with them.
#[derive(Debug)]
pub struct Browser {
    library: Arc<Library>,
    cards: Vec<Card>,
    pub(crate) query: String,
    pub(crate) wants_focus: bool,
    pub(crate) question: Option<Question>,
    fetches: BTreeMap<String, Fetch>,
    removing: BTreeSet<String>,
    tell: Tell,
    inbox: Receiver<Event>,
    threads: Vec<JoinHandle<()>>,
}

/// How long downloads may take to note that the window is gone. What has arrived is on the disk already.
const PATIENCE: Duration = Duration::from_secs(2);

impl Browser {
    /// The browser of a library.
    pub fn new(library: Arc<Library>, ctx: egui::Context) -> Self {
        let (outbox, inbox) = channel();
        let card = |entry| Card::of(&library.catalogue, entry);
        Self {
            cards: library.entries().map(card).collect(),
            library,
            query: String::new(),
            wants_focus: false,
            question: None,
            fetches: BTreeMap::new(),
            removing: BTreeSet::new(),
            tell: Tell { outbox, ctx },
            inbox,
            threads: Vec::new(),
        }
    }

    /// The models in the order of the catalogue.
    pub fn cards(&self) -> &[Card] {
        &self.cards
    }

    /// The model of a name.
    pub fn card(&self, name: &str) -> Option<&Card> {
        self.cards.iter().find(|card| card.name == name)
    }

    /// The download of a model that was begun in this session and is not complete.
    pub fn fetch(&self, name: &str) -> Option<&Fetch> {
        self.fetches.get(name)
    }

    /// Whether a model is being removed.
    pub fn is_removing(&self, name: &str) -> bool {
        self.removing.contains(name)
    }

    /// Whether the environment forbids downloads.
    pub fn is_offline(&self) -> bool {
        self.library.downloader.environment().offline
    }

    /// Whether anything is downloaded.
    pub fn is_at_work(&self) -> bool {
        self.fetches.values().any(Fetch::is_at_work)
    }

    /// How far all downloads are together: "43 %", or bytes where their sum is not known.
    pub fn summary(&self) -> Option<String> {
        let at_work = || self.fetches.values().filter(|fetch| fetch.is_at_work());
        at_work().next()?;
        let done: f64 = at_work().map(|fetch| fetch.progress.done() as f64).sum();
        let total: Option<u64> = at_work()
            .try_fold(0, |sum: u64, fetch| Some(sum.saturating_add(fetch.progress.total()?)));
        Some(match total {
            Some(total) if total > 0 => format!("{:.0} %", (done / total as f64).min(1.0) * 100.0),
            _ => tintype::generate::bytes(done as u64),
        })
    }

    /// The cards that the search finds, by section, as places in [`cards`](Self::cards).
    pub fn sections(&self) -> [(Section, Vec<usize>); 3] {
        let found = self.library.catalogue.search(&self.query);
        let is_found = |card: &Card| found.iter().any(|entry| entry.name == card.name);
        [Section::Here, Section::ToDownload, Section::Unsupported].map(|section| {
            let is_there = |card: &Card| card.section() == section && is_found(card);
            let mut places: Vec<usize> =
                (0..self.cards.len()).filter(|at| is_there(&self.cards[*at])).collect();
            places.sort_by_key(|at| self.cards[*at].rank());
            (section, places)
        })
    }

    /// The identity of the search field.
    pub fn search_id(&self) -> egui::Id {
        egui::Id::unique("search models")
    }

    /// Goes on with a text that was typed elsewhere.
    pub fn type_text(&mut self, text: &str) {
        self.query.push_str(text);
        self.wants_focus = true;
    }

    /// Takes back the open question, else the search; whether there was one.
    pub fn step_back(&mut self) -> bool {
        self.question.take().is_some() || !std::mem::take(&mut self.query).is_empty()
    }

    /// It is shown: the keyboard is in the search, and what is on this machine is looked for anew.
    pub fn open(&mut self) {
        self.wants_focus = true;
        self.look();
    }

    /// Looks for what is on this machine.
    pub fn look(&mut self) {
        self.spawn(|library, tell| tell.tell(Event::Stocked(library.statuses())));
    }

    /// Asks something in a card, or takes the question back.
    pub fn ask(&mut self, question: Option<Question>) {
        self.question = question;
    }

    /// Downloads what is missing of a model, or goes on with it. `beside` is the model that is open.
    pub fn begin(&mut self, name: &str, beside: ModelPaths) {
        let is_busy = self.fetches.get(name).is_some_and(Fetch::is_at_work);
        if is_busy || self.is_removing(name) || self.is_offline() || self.card(name).is_none() {
            return;
        }
        self.question = None;
        let fetch = Fetch::new(beside);
        let (of, stop) = (name.to_string(), fetch.stop.clone());
        self.fetches.insert(name.into(), fetch);
        self.spawn(move |library, tell| fetch::run(library, &of, &stop, tell));
    }

    /// Ends a download; what has arrived is kept.
    pub fn pause(&mut self, name: &str) {
        if let Some(fetch) = self.fetches.get_mut(name) {
            fetch.stop();
        }
    }

    /// Ends all of them.
    pub fn pause_all(&mut self) {
        self.fetches.values_mut().for_each(Fetch::stop);
    }

    /// Removes the files of a model from this machine.
    pub fn remove(&mut self, name: &str) {
        let is_busy = self.fetches.get(name).is_some_and(Fetch::is_at_work);
        if is_busy || !self.removing.insert(name.into()) {
            return;
        }
        self.question = None;
        let of = name.to_string();
        self.spawn(move |library, tell| fetch::remove(library, &of, tell));
    }

    fn spawn(&mut self, work: impl FnOnce(&Library, &Tell) + Send + 'static) {
        let (library, tell) = (self.library.clone(), self.tell.clone());
        self.threads.retain(|thread| !thread.is_finished());
        self.threads.push(std::thread::spawn(move || work(&library, &tell)));
    }

    /// Takes in what the threads told since the last call; returns what the app is to know.
    pub(crate) fn update(&mut self, now: Instant) -> Vec<News> {
        let events: Vec<Event> = self.inbox.try_iter().collect();
        events.into_iter().filter_map(|event| self.take_in(event, now)).collect()
    }

    fn take_in(&mut self, event: Event, now: Instant) -> Option<News> {
        match event {
            Event::Stocked(statuses) => {
                for (name, status) in statuses {
                    let card = self.cards.iter_mut().find(|card| card.name == name);
                    if let Some(card) = card {
                        card.status = Some(status);
                    }
                }
                None
            }
            Event::Begun { name, sizes } => {
                self.fetches.get_mut(&name)?.progress = Progress::of(&sizes);
                None
            }
            Event::State { name, file, state } => {
                self.fetches.get_mut(&name)?.progress.note(file, state, now);
                None
            }
            Event::Ended { name, ending } => {
                let fetch = self.fetches.get_mut(&name)?;
                match ending {
                    Ending::Complete => {
                        let beside = self.fetches.remove(&name)?.beside;
                        Some(News::Complete { name, beside })
                    }
                    Ending::Stopped => {
                        fetch.phase = Phase::Paused;
                        None
                    }
                    Ending::Failed(trouble) => {
                        fetch.phase = Phase::Failed(trouble.clone());
                        Some(News::Failed { name, trouble })
                    }
                }
            }
            Event::Removed { name, result } => {
                self.removing.remove(&name);
                Some(match result {
                    Ok(bytes) => {
                        self.fetches.remove(&name);
                        News::Removed { name, bytes }
                    }
                    Err(trouble) => News::Stuck { trouble },
                })
            }
        }
    }
}

/// Downloads end with the window.
impl Drop for Browser {
    fn drop(&mut self) {
        self.pause_all();
        let until = Instant::now() + PATIENCE;
        let is_at_work = |thread: &JoinHandle<()>| !thread.is_finished();
        while self.threads.iter().any(is_at_work) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[cfg(test)]
mod tests;
