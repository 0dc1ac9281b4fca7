//! All pictures in a grid.

use eframe::egui::{self, RichText};

use super::filmstrip::thumb;
use crate::action::{Action, View};
use crate::app::App;

const SIDE: f32 = 128.0;

pub fn show(app: &mut App, ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    ui.horizontal(|ui| {
        let count = app.gallery.entries().len();
        let count = if count == 1 { "1 picture".into() } else { format!("{count} pictures") };
        ui.label(RichText::new(count).strong());
        let path = app.folder().display().to_string();
        ui.add(egui::Label::new(RichText::new(&path).weak()).truncate()).on_hover_text(&path);
        if app.gallery.can_undo() {
            let undo = ui.button("Undo delete").on_hover_text("Brings the picture back (Ctrl+Z)");
            if undo.clicked() {
                actions.push(Action::Undo);
            }
        }
    });
    ui.separator();
    let ids: Vec<u64> = app.gallery.entries().iter().map(|entry| entry.id).collect();
    if ids.is_empty() {
        ui.centered_and_justified(|ui| {
            ui.label(RichText::new("No pictures yet").weak().size(18.0));
        });
        return;
    }
    let gap = ui.spacing().item_spacing.x;
    let columns = (((ui.available_width() + gap) / (SIDE + gap)) as usize).max(1);
    let rows = ids.len().div_ceil(columns);
    egui::ScrollArea::vertical().auto_shrink([false, false]).show_rows(
        ui,
        SIDE,
        rows,
        |ui, visible| {
            for row in visible.clone() {
                ui.horizontal(|ui| {
                    for id in ids.iter().skip(row * columns).take(columns) {
                        let response = thumb(app, *id, SIDE, ui, actions);
                        menu(app, *id, &response, actions);
                    }
                });
            }
            app.gallery.forget_thumbs(visible.start * columns..visible.end * columns);
        },
    );
    app.gallery.forget_large(&[]);
}

/// What a right click offers.
fn menu(app: &App, id: u64, response: &egui::Response, actions: &mut Vec<Action>) {
    let has_origin = app.gallery.get(id).is_some_and(|entry| entry.origin.is_some());
    response.context_menu(|ui| {
        for (name, needs_origin, action) in [
            ("Show large", false, Action::Show(View::Picture(id))),
            ("Use its settings", true, Action::UseSettings(id)),
            ("Use its seed", true, Action::UseSeed(id)),
            ("Another seed", true, Action::OtherSeed(id)),
            ("Another class", true, Action::OtherClass(id)),
            ("Delete", false, Action::Delete(id)),
        ] {
            if ui.add_enabled(has_origin || !needs_origin, egui::Button::new(name)).clicked() {
                actions.push(action);
                ui.close();
            }
        }
    });
}
