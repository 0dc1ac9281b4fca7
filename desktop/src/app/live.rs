//! The picture of the current settings, made as they change.

use tintype::generate::ImageSpec;
use tintype::model::Process;

use super::App;
use crate::action::View;
use crate::engine::save;
use crate::sketch::{Wish, is_quick};

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
        let by_default = matches!(process, Some(Process::MeanFlow { .. }));
        let decided = self.of_model().and_then(|of_model| of_model.live);
        self.can_be_live() && decided.unwrap_or(by_default)
    }

    /// The picture of the current settings: of the class that was chosen last.
    fn wish(&self) -> Option<Wish> {
        if !self.is_live() {
            return None;
        }
        let (settings, model) = (self.settings()?, self.model()?);
        settings.validate(&model.inspection.architecture).ok()?;
        let form = &self.preferences.form;
        let class = match model.has_classes() {
            true => Some(*form.classes.last()?),
            false => None,
        };
        let spec = ImageSpec { class, seed: form.seed, index: 0 };
        Some(Wish { choice: self.preferences.choice.clone(), settings, spec })
    }

    /// Whether Enter keeps the live picture: it is all that is asked for, and no others are being made.
    pub(crate) fn keeps(&self) -> bool {
        let form = &self.preferences.form;
        let is_one = form.count <= 1 && form.classes.len() <= 1;
        let is_free = is_one && self.queue.is_empty();
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

    /// Gives the engine the picture that is wanted now, if it is not made yet.
    pub(crate) fn pursue(&mut self) {
        let wish = self.wish();
        if !self.queue.is_empty() {
            self.sketch.step_aside(wish);
            return;
        }
        self.sketch.want(wish.filter(|_| self.view == View::Develop));
        let queue = &mut self.queue;
        if let Some(work) = self.sketch.next(|| queue.number()) {
            self.engine.work(work);
        }
    }
}
