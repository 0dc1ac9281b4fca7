//! What is seen, a file a panel.

mod average;
mod compare;
mod controls;
mod develop;
mod filmstrip;
mod frame;
mod gallery;
mod keys;
mod messages;
mod model_card;
mod models;
mod more;
mod picker;
mod picture;
mod queue;
mod search_field;
mod second_seed;
mod sketch;
mod timeline;
mod top;

use eframe::egui;

use crate::action::{Action, View};
use crate::app::App;

/// The window.
pub fn show(app: &mut App, ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    egui::Panel::top("top").show(ui, |ui| top::show(app, ui, actions));
    if !app.notices.shown().is_empty() {
        egui::Panel::top("notices").show(ui, |ui| messages::show(app, ui, actions));
    }
    // Another model has other classes.
    if !matches!(app.view, View::Models | View::CompareModels) {
        let left = egui::Panel::left("classes").size_range(200.0..=420.0).default_size(250.0);
        left.show(ui, |ui| {
            // A panel is as wide as what is in it, and stays so.
            ui.set_min_width(ui.available_width());
            picker::show(app, ui, actions);
        });
    }
    // What is compared has the settings of each model's authors.
    if app.view != View::CompareModels {
        let right = egui::Panel::right("settings").size_range(240.0..=420.0).default_size(280.0);
        right.show(ui, |ui| {
            ui.set_min_width(ui.available_width());
            if !app.queue.is_empty() {
                egui::Panel::bottom("queue").show(ui, |ui| queue::show(app, ui, actions));
            }
            egui::ScrollArea::vertical()
                .auto_shrink([false, false])
                .show(ui, |ui| controls::show(app, ui, actions));
        });
    }
    let strip = matches!(app.view, View::Develop) && !app.gallery.entries().is_empty();
    if strip {
        egui::Panel::bottom("latest")
            .exact_size(filmstrip::HEIGHT)
            .show(ui, |ui| filmstrip::show(app, ui, actions));
    }
    egui::CentralPanel::default().show(ui, |ui| match app.view {
        View::Develop => develop::show(app, ui, actions),
        View::Gallery => gallery::show(app, ui, actions),
        View::Picture(id) => picture::show(app, id, ui, actions),
        View::Compare(left, right) => picture::compare(app, [left, right], ui, actions),
        View::Models => models::show(app, ui, actions),
        View::CompareModels => compare::show(app, ui, actions),
    });
    hint_at_drop(ui);
}

/// While files hover over the window, says what dropping them does.
fn hint_at_drop(ui: &egui::Ui) {
    if ui.input(|input| input.raw.hovered_files.is_empty()) {
        return;
    }
    let screen = ui.ctx().content_rect();
    let painter = ui
        .ctx()
        .layer_painter(egui::LayerId::new(egui::Order::Foreground, egui::Id::unique("drop")));
    painter.rect_filled(screen, 0.0, egui::Color32::from_black_alpha(200));
    painter.text(
        screen.center(),
        egui::Align2::CENTER_CENTER,
        "Drop weights to open them, or a picture to use its settings",
        egui::FontId::proportional(24.0),
        egui::Color32::WHITE,
    );
}

/// Points that a pixel is wide at most, but for tiny pictures: beyond that a picture shows its blur, and
/// costs a processor that draws the window most of its time.
const LARGEST_PIXEL: f32 = 3.0;
/// Points that a tiny picture may have all the same.
const TINY: f32 = 384.0;

/// The largest rectangle of a picture's shape in the middle of another.
fn fit(shape: egui::Vec2, into: egui::Rect) -> egui::Rect {
    let scale = (into.width() / shape.x.max(1.0)).min(into.height() / shape.y.max(1.0));
    let largest = LARGEST_PIXEL.max(TINY / shape.max_elem().max(1.0));
    egui::Rect::from_center_size(into.center(), shape * scale.clamp(0.0, largest))
}

/// Draws a texture.
fn paint(ui: &egui::Ui, texture: egui::TextureId, rect: egui::Rect) {
    let all = egui::Rect::from_min_max(egui::Pos2::ZERO, egui::pos2(1.0, 1.0));
    ui.painter().image(texture, rect, all, egui::Color32::WHITE);
}
