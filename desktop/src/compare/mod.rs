//! Models side by side: pictures of one class and one seed from each, and what they cost.
//!
//! * [`Row`] — a model, whose pictures are a job of the queue like any other; [`Stage`] — what it is at
//! * `sheet` — all pictures in one
//!
//! The class is one text for all: each model looks it up among its own, as the command line does ([`Labels::find`]). It
//! may have another number there, mean several, or be missing.

mod row;
mod sheet;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};

use eframe::egui;
use tintype::generate::{ImageSpec, ModelPaths, Settings};
use tintype::labels::{LabelError, Labels};
use tintype::settings::Quality;

use crate::engine::Outcome;
use crate::form::random_seed;
use crate::model::{Answer, Model};
use crate::queue::Queue;
use crate::text;

pub use row::{Picture, Row, Run, Stage};

/// Numbers of classes that a row lists at most.
const LISTED: usize = 4;
/// Names that are suggested at most.
const SUGGESTED: usize = 8;

/// The models, and what is asked of all of them.
pub struct Comparison {
    /// The class by name, as it is typed.
    pub(crate) query: String,
    pub(crate) wants_focus: bool,
    /// Seed of the first picture; the next ones count up.
    pub(crate) seed: u64,
    /// Pictures of each model.
    pub(crate) count: usize,
    pub(crate) quality: Quality,
    rows: Vec<Row>,
    last_id: u64,
    /// The query that the rows' classes and the suggestions are of.
    sought: Option<String>,
    suggested: Vec<String>,
    ctx: egui::Context,
    outbox: Sender<Result<PathBuf, String>>,
    inbox: Receiver<Result<PathBuf, String>>,
}

impl Comparison {
    /// Without models.
    pub fn new(ctx: egui::Context) -> Self {
        let (outbox, inbox) = channel();
        Self {
            query: String::new(),
            wants_focus: false,
            seed: random_seed(),
            count: 1,
            quality: Quality::Best,
            rows: Vec::new(),
            last_id: 0,
            sought: None,
            suggested: Vec::new(),
            ctx,
            outbox,
            inbox,
        }
    }

    /// The models in the order in which they make their pictures.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(crate) fn rows_mut(&mut self) -> &mut [Row] {
        &mut self.rows
    }

    /// Adds a model at the end; whether it was not there yet. [`read`](Self::read) tells what is in its files.
    pub fn add(&mut self, name: String, paths: ModelPaths) -> bool {
        if self.has(&paths) {
            return false;
        }
        self.last_id += 1;
        self.rows.push(Row::new(self.last_id, name, paths));
        true
    }

    /// Whether a model is there.
    pub fn has(&self, paths: &ModelPaths) -> bool {
        self.rows.iter().any(|row| row.paths == *paths)
    }

    /// Takes a row out; returns its job, if that has not come to its end.
    pub fn remove(&mut self, id: u64) -> Option<u64> {
        let at = self.rows.iter().position(|row| row.id == id)?;
        self.sought = None;
        let run = self.rows.remove(at).run?;
        run.ending.is_none().then_some(run.job)
    }

    /// Notes what is in the files of a model.
    pub fn read(&mut self, answer: &Answer) {
        let (paths, model) = match answer {
            Answer::Model(model) => (&model.paths, Ok(model.clone())),
            Answer::Trouble(paths, trouble) => (paths, Err(trouble.clone())),
            _ => return,
        };
        if let Some(row) = self.rows.iter_mut().find(|row| row.paths == *paths) {
            if let Ok(model) = &model {
                row.name = model.title();
            }
            row.model = Some(model);
            self.sought = None;
        }
    }

    /// The model of these files, once they are read.
    pub fn model_of(&self, paths: &ModelPaths) -> Option<&Model> {
        self.rows.iter().find(|row| row.paths == *paths)?.model()
    }

    /// The identity of the field of the class.
    pub fn search_id(&self) -> egui::Id {
        egui::Id::unique("class to compare")
    }

    /// Goes on with a text that was typed elsewhere.
    pub fn type_text(&mut self, text: &str) {
        self.query.push_str(text);
        self.wants_focus = true;
    }

    /// Looks the class up in every model, where name or models are others than the last time.
    pub fn look_up(&mut self) {
        if self.sought.as_ref() == Some(&self.query) {
            return;
        }
        let name = self.query.trim();
        self.suggested = suggestions(&self.rows, name);
        for row in &mut self.rows {
            row.class = row.model().and_then(|model| class_of(&model.inspection.labels, name));
        }
        self.sought = Some(self.query.clone());
    }

    /// Names of classes that what is typed may mean; none where a model has a class of just that name, or every model
    /// knows what is meant.
    pub fn suggested(&self) -> &[String] {
        &self.suggested
    }

    /// Takes the first suggestion where there is one, as Enter does in the picker. While models are read, one may still
    /// have a class of just that name.
    pub fn settle(&mut self) {
        self.look_up();
        let is_reading = self.rows.iter().any(|row| row.model.is_none());
        if let Some(first) = self.suggested.first().filter(|_| !is_reading) {
            self.query.clone_from(first);
            self.look_up();
        }
    }

    /// Why pictures cannot be made yet; `None` where they can.
    pub fn obstacle(&self) -> Option<&'static str> {
        let is_any = |is: fn(&Row) -> bool| self.rows.iter().any(is);
        if self.rows.is_empty() {
            Some("Add the models to compare first.")
        } else if is_any(|row| row.model.is_none()) {
            Some("The models are still being read.")
        } else if is_any(|row| row.model().is_some() && row.class.is_none()) {
            Some("Name a class first.")
        } else {
            None
        }
    }

    /// Begins anew: every model that has the class is handed to `enqueue`, in order, with the name of the job, its
    /// settings and pictures. It returns the number of the job.
    pub fn begin(
        &mut self,
        mut enqueue: impl FnMut(String, &ModelPaths, Settings, Vec<ImageSpec>) -> u64,
    ) {
        let (seed, count, quality) = (self.seed, self.count.max(1) as u64, self.quality);
        for row in &mut self.rows {
            row.run = None;
            let (Some(Ok(model)), Some(Ok(class))) = (&row.model, &row.class) else { continue };
            let spec = |ahead| ImageSpec::new(*class, seed.wrapping_add(ahead), 0);
            let specs: Vec<ImageSpec> = (0..count).map(spec).collect();
            let class_name = class.map(|class| model.inspection.labels.name(class));
            let settings = row::settings(model, quality);
            let name = match &class_name {
                Some(class) => format!("{}: {}", text::short(class), row.name),
                None => row.name.clone(),
            };
            let job = enqueue(name, &row.paths, settings, specs.clone());
            row.run = Some(Run::new(job, class_name, settings, specs));
        }
    }

    /// Jobs that have not come to their end.
    pub fn jobs(&self) -> Vec<u64> {
        let runs = self.rows.iter().filter_map(|row| row.run.as_ref());
        runs.filter(|run| run.ending.is_none()).map(|run| run.job).collect()
    }

    /// Whether pictures are being made or wait for it.
    pub fn is_busy(&self, queue: &Queue) -> bool {
        self.rows.iter().any(|row| matches!(row.stage(queue), Stage::Waiting | Stage::Running))
    }

    fn run_of(&mut self, job: u64) -> Option<&mut Run> {
        self.rows.iter_mut().filter_map(|row| row.run.as_mut()).find(|run| run.job == job)
    }

    /// A job has one more picture; `memory` is what its model needs, in bytes.
    pub fn picture(&mut self, job: u64, picture: Picture, memory: u64) {
        if let Some(run) = self.run_of(job) {
            run.pictures.push(picture);
            run.memory = memory;
        }
    }

    /// A job came to its end after so many seconds; whether it was of a row.
    pub fn end(&mut self, job: u64, outcome: &Outcome, seconds: f64) -> bool {
        let Some(run) = self.run_of(job) else { return false };
        run.seconds += seconds;
        run.ending = Some(match outcome {
            Outcome::Done => Stage::Done,
            Outcome::Cancelled => Stage::Stopped,
            Outcome::Failed(trouble) => Stage::Failed(trouble.clone()),
            Outcome::DeviceLost(reason) => {
                Stage::Failed(format!("the computation failed ({reason})"))
            }
        });
        true
    }

    /// What a lost device left of a job is made elsewhere.
    pub fn again(&mut self, job: u64) {
        if let Some(run) = self.run_of(job) {
            run.ending = (run.pictures.len() >= run.specs.len()).then_some(Stage::Done);
        }
    }

    /// How many models are at what: "3 models: 1 finished, 1 at work, 1 left out".
    pub fn summary(&self, queue: &Queue) -> String {
        let stages: Vec<Stage> = self.rows.iter().map(|row| row.stage(queue)).collect();
        let count = |is: fn(&Stage) -> bool| stages.iter().filter(|stage| is(stage)).count();
        let counts = [
            (count(|stage| matches!(stage, Stage::Done)), "finished"),
            (count(|stage| matches!(stage, Stage::Running)), "at work"),
            (count(|stage| matches!(stage, Stage::Waiting)), "waiting"),
            (count(|stage| matches!(stage, Stage::Stopped)), "stopped"),
            (count(|stage| matches!(stage, Stage::Failed(_))), "failed"),
            (count(|stage| matches!(stage, Stage::LeftOut(_))), "left out"),
        ];
        let parts = counts.iter().filter(|(n, _)| *n > 0);
        let parts: Vec<String> = parts.map(|(n, what)| format!("{n} {what}")).collect();
        let models = match stages.len() {
            1 => "1 model".to_string(),
            n => format!("{n} models"),
        };
        match parts.is_empty() {
            true => models,
            false => format!("{models}: {}", parts.join(", ")),
        }
    }

    /// Whether there is a picture.
    pub fn has_pictures(&self) -> bool {
        self.rows.iter().filter_map(|row| row.run.as_ref()).any(|run| !run.pictures.is_empty())
    }

    /// Writes the sheet of all pictures, in a thread of its own; [`saved`](Self::saved) tells when it is there.
    pub fn save(&self, path: PathBuf) {
        let lines = sheet::lines(&self.rows, self.quality);
        let (outbox, ctx) = (self.outbox.clone(), self.ctx.clone());
        std::thread::spawn(move || {
            let written = sheet::write(&lines, &path);
            // A closed window is not told.
            let _ = outbox.send(written.map(|()| path));
            ctx.request_repaint();
        });
    }

    /// Sheets that were written since the last call, or why they were not.
    pub fn saved(&self) -> Vec<Result<PathBuf, String>> {
        self.inbox.try_iter().collect()
    }
}

/// The class of a name, or why there is none; `None` before a name is typed. A model without classes makes pictures
/// where none is asked for.
fn class_of(labels: &Labels, name: &str) -> Option<Result<Option<usize>, String>> {
    if labels.is_empty() {
        return Some(if name.is_empty() { Ok(None) } else { Err("has no classes".into()) });
    }
    if name.is_empty() {
        return None;
    }
    Some(labels.find(name).map(Some).map_err(|error| trouble(error, name)))
}

/// Why a name means no class of a model; reads on after the model's name.
fn trouble(error: LabelError, name: &str) -> String {
    let several = |sign: &str, candidates: &[(usize, String)]| {
        let numbers = candidates.iter().map(|(class, _)| format!("{sign}{class}"));
        let (n, numbers) = (candidates.len(), numbers.collect::<Vec<_>>().join(" or "));
        match n <= LISTED {
            true => format!("has {n} classes that “{name}” may mean: type {numbers}"),
            false => format!("has {n} classes that “{name}” may mean"),
        }
    };
    match error {
        LabelError::Unknown { .. } => format!("does not know “{name}”"),
        LabelError::Ambiguous { candidates, .. } => several("", &candidates),
        LabelError::AmbiguousNumbers { candidates, .. } => several("#", &candidates),
        LabelError::OutOfRange { number, first, last } => {
            format!("has no class {number}; they run from {first} to {last}")
        }
    }
}

/// First synonyms of classes that a name may mean, the closest of every model before the second ones.
fn suggestions(rows: &[Row], name: &str) -> Vec<String> {
    // Many models have the same classes.
    let mut lists: Vec<&Labels> = Vec::new();
    for model in rows.iter().filter_map(Row::model) {
        if !lists.contains(&&model.inspection.labels) {
            lists.push(&model.inspection.labels);
        }
    }
    let is_name = lists.iter().any(|labels| !labels.called(name).is_empty());
    let mut with_classes = lists.iter().filter(|labels| !labels.is_empty());
    if name.is_empty() || is_name || with_classes.all(|labels| labels.find(name).is_ok()) {
        return Vec::new();
    }
    let hits: Vec<Vec<(usize, &str)>> = lists.iter().map(|labels| labels.search(name)).collect();
    let mut found: Vec<String> = Vec::new();
    for rank in 0..SUGGESTED {
        for (_, class) in hits.iter().filter_map(|hits| hits.get(rank)) {
            let class = text::short(class);
            if !found.iter().any(|other| other == class) {
                found.push(class.into());
            }
        }
    }
    found.truncate(SUGGESTED);
    found
}
