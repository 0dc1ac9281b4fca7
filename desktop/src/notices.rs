//! Messages in the window: what happened, and what to do.

use crate::action::Action;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Good to know.
    Info,
    /// Something was not done.
    Trouble,
}

/// A message.
#[derive(Clone, Debug)]
pub struct Notice {
    /// Its number.
    pub id: u64,
    /// How bad it is.
    pub severity: Severity,
    /// A sentence or two.
    pub text: String,
    /// A button with the way out.
    pub way_out: Option<(&'static str, Action)>,
}

/// The messages that are shown.
#[derive(Debug, Default)]
pub struct Notices {
    shown: Vec<Notice>,
    last_id: u64,
}

/// More would hide the window.
const MOST: usize = 4;

impl Notices {
    /// Shows a message; one that is shown already moves to the end.
    pub fn add(
        &mut self,
        severity: Severity,
        text: impl Into<String>,
        way_out: Option<(&'static str, Action)>,
    ) {
        let text = text.into();
        self.shown.retain(|notice| notice.text != text);
        self.last_id += 1;
        self.shown.push(Notice { id: self.last_id, severity, text, way_out });
        if self.shown.len() > MOST {
            self.shown.remove(0);
        }
    }

    /// Something was not done.
    pub fn trouble(&mut self, text: impl Into<String>) {
        self.add(Severity::Trouble, text, None);
    }

    /// Good to know.
    pub fn info(&mut self, text: impl Into<String>) {
        self.add(Severity::Info, text, None);
    }

    /// Takes a message away.
    pub fn dismiss(&mut self, id: u64) {
        self.shown.retain(|notice| notice.id != id);
    }

    /// Takes away what offers an action of this kind.
    pub fn withdraw(&mut self, is: impl Fn(&Action) -> bool) {
        self.shown.retain(|notice| !notice.way_out.as_ref().is_some_and(|(_, action)| is(action)));
    }

    /// The messages, the latest last.
    pub fn shown(&self) -> &[Notice] {
        &self.shown
    }
}
