//! The picture of the current settings, made as they change.

use tintype::model::Process;

use super::App;
use crate::action::View;
use crate::engine::save;
use crate::sketch::{Layout, Wish, is_quick};

/// Columns of the sheet.
pub(crate) const SEEDS: usize = 3;

impl App {
    /// Whether the model makes pictures so quickly that they can be made as settings change.
    pub fn can_be_live(&self) -> bool {
        let process = self.model().map(|model| model.inspection.architecture.process());
        let quick = |process| self.settings().is_some_and(|settings| is_quick(&settings, process));
        process.is_some_and(quick)
    }

    /// Whether they are: of networks of one step, unless somebody decided otherwise.
    pub fn is_live(&self) -> bool {
        let process = self.model().map(|model| model.inspection.architecture.process());
        let by_default = matches!(process, Some(Process::MeanFlow));
        let decided = self.of_model().and_then(|of_model| of_model.live);
        self.can_be_live() && decided.unwrap_or(by_default)
    }

    /// The picture of the current settings: of the class that was chosen last.
    fn wish(&self) -> Option<Wish> {
        if !self.is_live() {
            return None;
        }
        let (settings, model) = (self.settings()?, self.model()?);
        model.check(&settings).ok()?;
        let form = &self.preferences.form;
        let class = match model.has_classes() {
            true => Some(*form.classes.last()?),
            false => None,
        };
        let spec = form.spec(class, 0);
        Some(Wish { choice: self.preferences.choice.clone(), settings, spec })
    }

    /// What is shown of the live pictures: no strip where there is no second seed.
    pub(crate) fn layout(&self) -> Layout {
        match self.layout {
            Layout::Strip if self.preferences.form.to.is_none() => Layout::One,
            layout => layout,
        }
    }

    /// Shows one live picture or several. A strip needs a second seed, and gets one.
    pub(super) fn set_layout(&mut self, layout: Layout) {
        self.layout = layout;
        let form = &mut self.preferences.form;
        if layout == Layout::Strip && form.to.is_none() {
            form.set_second(true);
        }
    }

    /// The live pictures that are shown.
    pub(crate) fn wishes(&self) -> Vec<Wish> {
        let Some(wish) = self.wish() else { return Vec::new() };
        match self.layout() {
            Layout::One => vec![wish],
            Layout::Sheet => self.sheet(&wish),
            Layout::Strip => {
                let strip = self.preferences.form.strip(wish.spec.class);
                strip.into_iter().map(|spec| Wish { spec, ..wish.clone() }).collect()
            }
        }
    }

    /// The pictures of the sheet: a row for each guidance scale, a column for each seed.
    fn sheet(&self, wish: &Wish) -> Vec<Wish> {
        let scale = wish.settings.guidance.scale;
        let is_guidable = self.model().is_some_and(|model| model.is_guidable());
        let scales = match scale {
            _ if !is_guidable => vec![scale],
            // Below 1 half of what is more than none would be less of it.
            scale if scale <= 1.0 => vec![scale, 3.0, 5.0],
            // Half and half as much again of what is more than none.
            scale => [0.5, 1.0, 1.5].map(|share| 1.0 + (scale - 1.0) * share).to_vec(),
        };
        let mut wishes = Vec::new();
        for scale in scales {
            for ahead in 0..SEEDS as u64 {
                let mut cell = wish.clone();
                cell.settings.guidance.scale = scale;
                cell.spec = self.preferences.form.spec(wish.spec.class, ahead);
                wishes.push(cell);
            }
        }
        wishes
    }

    /// Takes seeds and guidance of a picture of the sheet, and shows it alone.
    pub(super) fn take(&mut self, ahead: u64, scale: f64) {
        self.preferences.form.advance(ahead);
        self.edit_settings(|settings| settings.guidance.scale = scale);
        self.layout = Layout::One;
    }

    /// Goes so far to the second seed, and shows that picture alone.
    pub(super) fn blend(&mut self, amount: f64) {
        if let Some(to) = &mut self.preferences.form.to {
            to.amount = amount;
        }
        self.layout = Layout::One;
    }

    /// Whether Enter keeps the live picture: it is all that is asked for, and no others are being made.
    pub(crate) fn keeps(&self) -> bool {
        let form = &self.preferences.form;
        let is_one = form.count <= 1 && form.classes.len() <= 1;
        let is_free = is_one && self.queue.is_empty() && self.layout() == Layout::One;
        is_free && self.wish().is_some_and(|wish| !self.sketch.is_aside(&wish))
    }

    /// Whether the live picture is that of the current settings, and not kept yet.
    pub(crate) fn can_keep(&self) -> bool {
        let latest = self.sketch.latest();
        let wish = self.wish();
        latest.is_some_and(|latest| Some(&latest.wish) == wish.as_ref()) && !self.is_kept()
    }

    /// Whether the live picture is in the gallery.
    pub(crate) fn is_kept(&self) -> bool {
        let id = self.sketch.latest().and_then(|latest| latest.in_gallery());
        id.is_some_and(|id| self.gallery.get(id).is_some())
    }

    /// Saves the live picture and adds it to the gallery.
    pub(super) fn keep(&mut self) {
        self.view = View::Develop;
        if !self.can_keep() {
            return;
        }
        let Some(mut made) = self.sketch.latest().map(|latest| latest.made.clone()) else { return };
        let class = made.origin.spec.class;
        made.saved = Some(save(self.folder(), &made.origin.file_stem(), &made.png));
        let id = self.add(made);
        self.sketch.kept(id);
        if let (Some(class), Some(of_model)) = (class, self.edit_model()) {
            of_model.made(class);
        }
    }

    /// Makes the pictures of the strip once more, as those that people press Generate for.
    pub(super) fn keep_strip(&mut self) {
        let wishes = self.wishes();
        if let Some(Wish { settings, .. }) = wishes.first() {
            self.enqueue(*settings, wishes.iter().map(|wish| wish.spec).collect());
        }
    }

    /// Gives the engine the picture that is wanted now, if it is not made yet.
    pub(crate) fn pursue(&mut self) {
        let wishes = self.wishes();
        if !self.queue.is_empty() {
            self.sketch.step_aside(wishes);
            return;
        }
        let is_seen = self.view == View::Develop;
        self.sketch.want(if is_seen { wishes } else { Vec::new() });
        let queue = &mut self.queue;
        if let Some(work) = self.sketch.next(|| queue.number()) {
            self.engine.work(work);
        }
    }
}
