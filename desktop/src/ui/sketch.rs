//! Live: the picture of the current settings.

use eframe::egui::{self, RichText, Sense};

use super::{fit, paint};
use crate::action::Action;
use crate::app::{App, Networks};
use crate::text;

pub(super) fn show(app: &mut App, ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    let title = app.sketch.latest().map(|latest| {
        let origin = &latest.made.origin;
        format!("{}, seed {}", text::short(&origin.class_name), origin.spec.seed)
    });
    let (can_keep, is_kept) = (app.can_keep(), app.is_kept());
    egui::Panel::bottom("live").show_separator_line(false).show(ui, |ui| {
        ui.add_space(4.0);
        ui.horizontal(|ui| {
            ui.label(RichText::new(title.as_deref().unwrap_or("Live picture")).strong());
            let state = match (app.sketch.is_busy(), is_kept) {
                (true, _) => "in the making",
                (false, true) => "kept",
                (false, false) => "not saved",
            };
            ui.label(RichText::new(state).weak());
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                let keep = ui.add_enabled(can_keep, egui::Button::new("Keep this picture"));
                let tip = "Saves the picture and adds it to the gallery (Enter)";
                if keep.on_hover_text(tip).clicked() {
                    actions.push(Action::Keep);
                }
            });
        });
    });
    let area = ui.available_rect_before_wrap().shrink(4.0);
    let Some(texture) = app.sketch.texture(ui.ctx()) else {
        ui.centered_and_justified(|ui| {
            let what = match &app.networks {
                Networks::Ready(_) => "The first picture takes a little longer…",
                _ => "Loading the network…",
            };
            ui.label(RichText::new(what).weak().size(18.0));
        });
        return;
    };
    let rect = fit(texture.size, area);
    paint(ui, texture.id, rect);
    let response = ui.interact(rect, ui.scope_id().with("live picture"), Sense::hover());
    response.widget_info(|| {
        let name = format!("{}, live", title.as_deref().unwrap_or_default());
        egui::WidgetInfo::labeled(egui::accesskit::Role::Image, true, name)
    });
}
