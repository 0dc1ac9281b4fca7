//! Live: the picture of the current settings.

use eframe::egui::{self, Rect, RichText, Sense, vec2};

use super::{fit, paint, picture};
use crate::action::Action;
use crate::app::{App, Networks, SEEDS};
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
            let title = title.as_deref().filter(|_| !app.is_sheet);
            ui.label(RichText::new(title.unwrap_or("Live picture")).strong());
            let state = match (app.sketch.is_busy(), is_kept) {
                (true, _) => "in the making",
                _ if app.is_sheet => "click a picture to see it alone",
                (false, true) => "kept",
                (false, false) => "not saved",
            };
            ui.label(RichText::new(state).weak());
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                let sheet = ui.selectable_label(app.is_sheet, "Sheet");
                let tip = "Guidance scales below each other, seeds side by side";
                if sheet.on_hover_text(tip).clicked() {
                    actions.push(Action::Sheet(!app.is_sheet));
                }
                if app.is_sheet {
                    return;
                }
                let keep = ui.add_enabled(can_keep, egui::Button::new("Keep this picture"));
                let tip = "Saves the picture and adds it to the gallery (Enter)";
                if keep.on_hover_text(tip).clicked() {
                    actions.push(Action::Keep);
                }
            });
        });
    });
    if app.is_sheet {
        sheet(app, ui, actions);
        return;
    }
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

/// A row for each guidance scale, a column for each seed.
fn sheet(app: &mut App, ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    let wishes = app.sheet();
    let area = ui.available_rect_before_wrap().shrink(4.0);
    let rows = wishes.len().div_ceil(SEEDS).max(1);
    let size = vec2(area.width() / SEEDS as f32, area.height() / rows as f32);
    for (at, wish) in wishes.iter().enumerate() {
        let corner = vec2((at % SEEDS) as f32 * size.x, (at / SEEDS) as f32 * size.y);
        let cell = Rect::from_min_size(area.min + corner, size).shrink(3.0);
        let (seed, scale) = (wish.spec.seed, wish.settings.guidance.scale);
        let name = format!("Seed {seed}, guidance {scale:.2}");
        let Some(texture) = app.sketch.texture_of(wish, ui.ctx()) else {
            ui.painter().rect_filled(cell, 4.0, ui.visuals().extreme_bg_color);
            continue;
        };
        let rect = fit(texture.size, cell);
        paint(ui, texture.id, rect);
        let response = ui.interact(rect, ui.scope_id().with(("sheet", at)), Sense::click());
        response
            .widget_info(|| egui::WidgetInfo::labeled(egui::accesskit::Role::Button, true, &name));
        picture::outline(ui, &response, rect);
        if response.on_hover_text(&name).clicked() {
            actions.push(Action::Take { seed, scale });
        }
    }
}
