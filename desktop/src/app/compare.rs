//! The comparison of models: which there are to choose from, and its jobs.

use tintype::catalogue::Kind;
use tintype::generate::ModelPaths;

use super::App;
use crate::browser::Section;
use crate::compare::Row;
use crate::engine::Choice;
use crate::model::{Answer, EMBEDDED, Model};

impl App {
    /// Models that can be added: the one inside the program, published ones on this machine, the open one, and other
    /// averages of a file.
    pub(crate) fn candidates(&self) -> Vec<(String, ModelPaths)> {
        let is_inside = cfg!(feature = "embedded-model");
        let inside = is_inside.then(|| (EMBEDDED.to_string(), ModelPaths::default()));
        let cards = self.browser.cards().iter();
        let here =
            cards.filter(|card| card.kind == Kind::Network && card.section() == Section::Here);
        let published =
            here.filter_map(|card| Some((card.title.clone(), card.status.as_ref()?.paths.clone())));
        let compared = self.comparison.rows().iter().filter_map(Row::model);
        let known = self.model().into_iter().chain(compared).flat_map(Model::variants);
        let mut candidates: Vec<(String, ModelPaths)> = Vec::new();
        for (name, paths) in inside.into_iter().chain(published).chain(known) {
            let is_there = candidates.iter().any(|(_, other)| *other == paths);
            if !is_there && !self.comparison.has(&paths) {
                candidates.push((name, paths));
            }
        }
        candidates
    }

    /// Adds a model, and has its files read.
    pub(super) fn add_to_comparison(&mut self, name: String, paths: ModelPaths) {
        if !self.comparison.add(name, paths.clone()) {
            return;
        }
        match self.model().filter(|model| model.paths == paths).cloned() {
            Some(model) => self.comparison.read(&Answer::Model(Box::new(model))),
            None => self.inspector.inspect(paths),
        }
    }

    /// Takes a model out, and its pictures out of the queue.
    pub(super) fn remove_from_comparison(&mut self, row: u64) {
        if let Some(job) = self.comparison.remove(row) {
            self.queue.cancel(job);
        }
    }

    /// Makes the pictures of all models that have the class, one model after the other.
    pub(super) fn compare_models(&mut self) {
        if self.comparison.is_busy(&self.queue) {
            return;
        }
        self.comparison.settle();
        if let Some(obstacle) = self.comparison.obstacle() {
            self.comparison.wants_focus = true;
            self.notices.info(obstacle);
            return;
        }
        let (choice, queue) = (&self.preferences.choice, &mut self.queue);
        self.comparison.begin(|name, paths, settings, images| {
            let choice = Choice { paths: paths.clone(), ..choice.clone() };
            queue.add(name, choice, settings, images)
        });
    }

    /// Stops after the step in hand; other jobs stay in the queue, and finished pictures in their rows.
    pub(super) fn stop_comparison(&mut self) {
        for job in self.comparison.jobs() {
            self.queue.cancel(job);
        }
    }

    /// What makes the pictures in hand, which need not be the open model.
    pub(crate) fn model_at_work(&self) -> Option<&Model> {
        let paths = &self.queue.running()?.choice.paths;
        let open = self.model().filter(|model| model.paths == *paths);
        open.or_else(|| self.comparison.model_of(paths))
    }
}
