//! The latest pictures below the stage.

use eframe::egui::{self, Sense, vec2};

use super::{fit, paint, picture};
use crate::action::{Action, View};
use crate::app::App;
use crate::gallery::Size;

pub const HEIGHT: f32 = 92.0;
const SIDE: f32 = 72.0;
/// More are in the gallery.
const MOST: usize = 40;

pub fn show(app: &mut App, ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    let ids: Vec<u64> = app.gallery.entries().iter().take(MOST).map(|entry| entry.id).collect();
    egui::ScrollArea::horizontal().show(ui, |ui| {
        ui.horizontal(|ui| {
            for id in ids {
                thumb(app, id, SIDE, ui, actions);
            }
        });
    });
}

/// A picture in a square that shows it large when clicked.
pub fn thumb(
    app: &mut App,
    id: u64,
    side: f32,
    ui: &mut egui::Ui,
    actions: &mut Vec<Action>,
) -> egui::Response {
    let (rect, response) = ui.allocate_exact_size(vec2(side, side), Sense::click());
    if ui.is_rect_visible(rect) {
        ui.painter().rect_filled(rect, 4.0, ui.visuals().extreme_bg_color);
        if let Some(texture) = app.gallery.texture(id, Size::Thumb, ui.ctx()) {
            paint(ui, texture.id, fit(texture.size, rect));
        }
        picture::outline(ui, &response, rect);
    }
    let Some(entry) = app.gallery.get(id) else { return response };
    let title = picture::title(entry);
    response.widget_info(|| {
        egui::WidgetInfo::labeled(egui::accesskit::Role::Button, true, format!("Show {title}"))
    });
    let response = response.on_hover_text(entry.trouble.as_deref().unwrap_or(&title));
    if response.clicked() {
        actions.push(Action::Show(View::Picture(id)));
    }
    response
}
