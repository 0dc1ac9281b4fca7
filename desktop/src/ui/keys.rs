//! The keyboard: type to search, Enter to generate, and what else works without a mouse.

use eframe::egui::{self, Event, Key, Modifiers};

use crate::action::{Action, View};
use crate::app::App;
use crate::dialogs::Purpose;

/// What each key does, for the help.
pub const HELP: [(&str, &str); 13] = [
    ("any letter", "search the classes"),
    ("Up, Down", "walk through what was found"),
    ("Enter", "make pictures of it; keep the live one"),
    ("Ctrl+Enter", "add it to the chosen classes, or take it out"),
    ("Ctrl+R", "surprise me"),
    ("Esc", "go back; clear the search; stop after this step"),
    ("Ctrl+1, 2, 3, 4", "develop, gallery, models, compare"),
    ("Left, Right", "the previous and the next picture"),
    ("Ctrl+S", "save the picture as"),
    ("Ctrl+C", "copy the picture"),
    ("Del, Ctrl+Z", "delete the picture, bring it back"),
    ("Ctrl+O", "open a model"),
    ("Ctrl + −", "scale the window's contents"),
];

/// Wishes from the keyboard and from files dropped on the window.
pub fn actions(app: &mut App, ctx: &egui::Context) -> Vec<Action> {
    let mut actions = Vec::new();
    let dropped: Vec<_> = ctx.input(|input| {
        input.raw.dropped_files.iter().map(|file| file.path().to_path_buf()).collect()
    });
    if !dropped.is_empty() {
        actions.push(Action::Drop(dropped));
    }
    if egui::Popup::is_any_open(ctx) {
        return actions;
    }
    let focused = ctx.memory(|memory| memory.focused());
    let search = match app.view {
        View::Models => app.browser.search_id(),
        View::CompareModels => app.comparison.search_id(),
        _ => app.picker.search_id(),
    };
    let searching = focused == Some(search);
    // egui takes the focus away at Esc before this is reached: leaving a field is all that it does then.
    let is_field = |id: egui::Id| id != search && egui::TextEdit::load_state(ctx, id).is_some();
    let was_in_field = app.focused.is_some_and(is_field);
    let pressed = |modifiers, key| ctx.input_mut(|input| input.consume_key(modifiers, key));
    let command = Modifiers::COMMAND;
    for (key, action) in [
        (Key::R, Action::Surprise),
        (Key::Num1, Action::Show(View::Develop)),
        (Key::Num2, Action::Show(View::Gallery)),
        (Key::Num3, Action::Show(View::Models)),
        (Key::Num4, Action::Show(View::CompareModels)),
        (Key::O, Action::Ask(Purpose::Model)),
    ] {
        if pressed(command, key) {
            actions.push(action);
        }
    }
    if focused.is_none() || searching {
        if !was_in_field && pressed(Modifiers::NONE, Key::Escape) {
            escape(app, ctx, &mut actions);
        }
        match app.view {
            View::Models => {}
            View::CompareModels => {
                if pressed(Modifiers::NONE, Key::Enter) {
                    actions.push(Action::StartComparison);
                }
            }
            _ => app.picker.keys(ctx),
        }
        let shown = match app.view {
            View::Picture(id) => Some(id),
            View::Develop => super::develop::large(app),
            _ => None,
        };
        if let Some(id) = shown {
            // What is selected in the search is copied by the field.
            let field = egui::TextEdit::load_state(ctx, search).filter(|_| searching);
            let range = field.and_then(|state| state.cursor.char_range());
            save_or_copy(app, id, range.is_none_or(|range| range.is_empty()), ctx, &mut actions);
        }
    }
    if focused.is_none() {
        if pressed(command, Key::Z) {
            actions.push(Action::Undo);
        }
        if let View::Picture(id) = app.view {
            picture(app, id, ctx, &mut actions);
        }
        let typed: String = ctx.input(|input| {
            let text = |event: &Event| match event {
                Event::Text(text) if !text.trim().is_empty() => Some(text.clone()),
                _ => None,
            };
            input.events.iter().filter_map(text).collect()
        });
        let has_classes = app.model().is_some_and(|model| model.has_classes());
        match app.view {
            _ if typed.is_empty() => {}
            View::Models => app.browser.type_text(&typed),
            View::CompareModels => app.comparison.type_text(&typed),
            _ if has_classes => app.picker.type_text(&typed),
            _ => {}
        }
    }
    actions
}

/// One step back from where the app is.
fn escape(app: &mut App, ctx: &egui::Context, actions: &mut Vec<Action>) {
    match app.view {
        View::Models if app.browser.step_back() => {}
        View::Models => actions.push(Action::Show(View::Develop)),
        View::CompareModels if app.comparison.is_busy(&app.queue) => {
            actions.push(Action::StopComparison);
        }
        View::CompareModels => actions.push(Action::Show(View::Develop)),
        View::Picture(_) | View::Compare(..) => actions.push(Action::Show(View::Gallery)),
        _ if app.picker.clear() => {}
        _ => {
            if let Some(focus) = ctx.memory(|memory| memory.focused()) {
                ctx.memory_mut(|memory| memory.surrender_focus(focus));
            }
            if let Some(job) = app.queue.running() {
                actions.push(Action::Cancel(job.id));
            }
        }
    }
}

/// Keys of the large view.
fn picture(app: &App, id: u64, ctx: &egui::Context, actions: &mut Vec<Action>) {
    let pressed = |modifiers, key| {
        ctx.input_mut(|input: &mut egui::InputState| input.consume_key(modifiers, key))
    };
    for (key, by) in [(Key::ArrowRight, 1), (Key::ArrowLeft, -1)] {
        if let (true, Some(next)) = (pressed(Modifiers::NONE, key), app.gallery.neighbour(id, by)) {
            actions.push(Action::Show(View::Picture(next)));
        }
    }
    if pressed(Modifiers::NONE, Key::Delete) {
        actions.push(Action::Delete(id));
    }
}

/// Keys of a picture that is shown alone.
fn save_or_copy(
    app: &App,
    id: u64,
    may_copy: bool,
    ctx: &egui::Context,
    actions: &mut Vec<Action>,
) {
    if ctx.input_mut(|input| input.consume_key(Modifiers::COMMAND, Key::S)) {
        let name = app.gallery.get(id).map(super::picture::file_name).unwrap_or_default();
        actions.push(Action::Ask(Purpose::SaveAs(id, name)));
    }
    let is_copy = |event: &Event| matches!(event, Event::Copy);
    if may_copy && ctx.input(|input| input.events.iter().any(is_copy)) {
        actions.push(Action::Copy(id));
    }
}
