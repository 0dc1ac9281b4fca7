//! Published models: opening and removing them, those that may guide others, and what their downloads tell.

use std::path::Path;

use tintype::catalogue::Kind;
use tintype::generate::{ModelPaths, bytes};
use tintype_download::Presence;

use super::App;
use crate::action::{Action, View};
use crate::browser::{Card, News};
use crate::model::joined;
use crate::notices::Severity;

impl App {
    /// Opens a published model that is on this machine, as if its files were dropped on the window.
    pub(super) fn use_model(&mut self, name: &str) {
        let present = &self.preferences.choice.paths;
        let Some(paths) = self.browser.card(name).and_then(|card| paths_of(card, present)) else {
            return;
        };
        self.notices.withdraw(|action| matches!(action, Action::UseModel(of) if of == name));
        self.set_paths(paths);
        if self.view == View::Models {
            self.view = View::Develop;
            self.picker.focus();
        }
    }

    /// Removes a model's files, unless they are needed.
    pub(super) fn remove_model(&mut self, name: &str) {
        if self.browser.card(name).is_some_and(|card| !self.is_in_use(card)) {
            self.browser.remove(name);
        }
    }

    /// Whether the chosen model, or that of a job, has a file of a published one.
    pub(crate) fn is_in_use(&self, card: &Card) -> bool {
        let jobs = self.queue.running().into_iter().chain(self.queue.waiting());
        let chosen = std::iter::once(&self.preferences.choice.paths);
        chosen.chain(jobs.map(|job| &job.choice.paths)).any(|paths| card.is_of(paths))
    }

    /// Whether a published model is the chosen one.
    pub(crate) fn is_open(&self, card: &Card) -> bool {
        let present = &self.preferences.choice.paths;
        // Another guide or average makes it no other model.
        let bare = |paths: &ModelPaths| ModelPaths { guide: None, average: None, ..paths.clone() };
        paths_of(card, present).is_some_and(|paths| bare(&paths) == bare(present))
    }

    /// Published networks on this machine that may guide the chosen one, by title and file.
    pub(crate) fn guides(&self) -> Vec<(&str, &Path)> {
        let Some(model) = self.model() else { return Vec::new() };
        let network = model.inspection.architecture.name();
        let own = model.paths.model.as_deref();
        let cards = self.browser.cards().iter();
        cards
            .filter_map(|card| {
                let path = card.guide(network).filter(|path| Some(*path) != own)?;
                Some((card.title.as_str(), path))
            })
            .collect()
    }

    /// Bytes of memory that a network may take on the chosen device, where that is known.
    pub(crate) fn device_memory(&self) -> Option<u64> {
        let asked = self.preferences.choice.device.as_str();
        let ready = self.ready().filter(|ready| ready.choice.device == asked);
        let id = ready.map_or(asked, |ready| ready.device.as_str());
        let row = match id {
            "" | "auto" => self.devices.first(),
            id => self.devices.iter().find(|row| row.id == id),
        };
        row?.memory
    }

    /// What a download or a removal tells.
    pub(super) fn heard(&mut self, news: News) {
        let title = |app: &Self, name: &str| {
            app.browser.card(name).map_or(name.to_string(), |card| card.title.clone())
        };
        match news {
            News::Complete { name, beside } => {
                let title = title(self, &name);
                let kind = self.browser.card(&name).map(|card| card.kind);
                let is_network = kind == Some(Kind::Network);
                // Whoever has chosen another model meanwhile is asked.
                if is_network && self.preferences.choice.paths == beside {
                    self.use_model(&name);
                    self.notices.info(format!("{title} is on this machine now, and open."));
                } else {
                    let way_out = is_network.then_some(("Use it", Action::UseModel(name)));
                    let sentence = format!("{title} is on this machine now.");
                    self.notices.add(Severity::Info, sentence, way_out);
                }
            }
            // Its card says it, too.
            News::Failed { .. } if self.view == View::Models => {}
            News::Failed { name, trouble } => {
                let sentence = format!("{} was not downloaded: {trouble}", title(self, &name));
                let way_out = Some(("Models…", Action::Show(View::Models)));
                self.notices.add(Severity::Trouble, sentence, way_out);
            }
            News::Removed { name, bytes: freed } => {
                let title = title(self, &name);
                self.notices.info(format!("{title} is removed; {} are free again.", bytes(freed)));
            }
            News::Stuck { trouble } => self.notices.trouble(trouble),
        }
    }
}

/// The files of a model that is on this machine; an autoencoder goes with the network that is there.
fn paths_of(card: &Card, present: &ModelPaths) -> Option<ModelPaths> {
    let status = card.status.as_ref().filter(|status| status.presence == Presence::Here)?;
    let paths = status.paths.clone();
    match card.kind {
        Kind::Autoencoder => Some(joined(paths, present.clone())),
        _ => Some(paths),
    }
}
