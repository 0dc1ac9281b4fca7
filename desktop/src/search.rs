//! The search for a class: what is typed, and where the keyboard is.

use eframe::egui::{self, Key, Modifiers};

use crate::action::Action;

/// What is typed, and where the keyboard is.
#[derive(Debug, Default)]
pub struct Picker {
    pub(crate) query: String,
    /// The class that Enter takes, counted among those found.
    pub(crate) at: usize,
    pub(crate) wants_focus: bool,
    /// The classes found in the last frame.
    pub(crate) found: Vec<usize>,
    /// How many classes share the name that is typed; 0 where it means one at most.
    pub(crate) sharing: usize,
    /// Whether the keyboard moved, so that the list follows.
    pub(crate) moved: bool,
    /// Whether the mouse chose classes since: they are what Enter means then.
    pub(crate) picked: bool,
    /// What Enter was pressed for in this frame.
    entered: Option<Enter>,
}

/// What Enter does with a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Enter {
    /// Adds it to the chosen classes, or takes it out.
    Add,
    /// Makes pictures of it.
    Generate,
}

impl Picker {
    /// The identity of the search field.
    pub fn search_id(&self) -> egui::Id {
        egui::Id::unique("search classes")
    }

    /// Puts the keyboard into the search field.
    pub fn focus(&mut self) {
        self.wants_focus = true;
    }

    /// Goes on with a text that was typed elsewhere.
    pub fn type_text(&mut self, text: &str) {
        self.query.push_str(text);
        self.restart();
        self.focus();
    }

    /// What is typed changed: the keyboard is at the first class found.
    pub(crate) fn restart(&mut self) {
        (self.at, self.moved, self.picked) = (0, false, false);
    }

    /// Empties the search; whether there was something in it.
    pub fn clear(&mut self) -> bool {
        self.restart();
        !std::mem::take(&mut self.query).is_empty()
    }

    /// Arrows and Enter, before the search field sees them.
    pub fn keys(&mut self, ctx: &egui::Context) {
        let pressed = |modifiers, key| {
            ctx.input_mut(|input: &mut egui::InputState| input.consume_key(modifiers, key))
        };
        for (key, by) in [(Key::ArrowDown, 1), (Key::ArrowUp, -1)] {
            if pressed(Modifiers::NONE, key) {
                let last = self.found.len().saturating_sub(1);
                // Of classes that share a name none is marked before the keyboard moves to the first.
                let by = if self.is_undecided() { 0 } else { by };
                self.at = self.at.saturating_add_signed(by).min(last);
                (self.moved, self.picked) = (true, false);
            }
        }
        let enter = |modifiers, what| pressed(modifiers, Key::Enter).then_some(what);
        self.entered = enter(Modifiers::COMMAND, Enter::Add)
            .or_else(|| enter(Modifiers::NONE, Enter::Generate));
    }

    /// Whether several classes have the typed name and nobody has pointed at one of them.
    pub fn is_undecided(&self) -> bool {
        self.sharing > 0 && !self.moved
    }

    /// Marks a class that was chosen among those that share a name.
    pub fn point_at(&mut self, class: usize) {
        let at = self.found.iter().take(self.sharing).position(|found| *found == class);
        if let Some(at) = at {
            (self.at, self.moved) = (at, true);
        }
    }

    /// What Enter asks for, once the search has this frame's letters: in a slow frame they come together.
    pub fn enter(&mut self, actions: &mut Vec<Action>) {
        let Some(enter) = self.entered.take() else { return };
        if enter == Enter::Generate && self.picked {
            actions.push(Action::Generate);
            return;
        }
        if self.is_undecided() {
            return;
        }
        let class = self.found.get(self.at).copied();
        // Enter without a search means the classes chosen already.
        let class = class.filter(|_| !self.query.trim().is_empty() || self.moved);
        let add = enter == Enter::Add;
        actions.extend(class.map(|class| Action::Choose { class, add }));
        if !add {
            actions.push(Action::Generate);
        }
    }
}
