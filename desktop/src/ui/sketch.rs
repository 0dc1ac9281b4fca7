//! Live: the picture of the current settings, or several of which one is taken.

use eframe::egui::{self, Rect, RichText, Sense, vec2};

use super::{fit, paint, picture};
use crate::action::Action;
use crate::app::{App, Networks, SEEDS};
use crate::form::STRIP;
use crate::sketch::{Layout, Wish};
use crate::text;

pub(super) fn show(app: &mut App, ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    let title = app.sketch.latest().map(|latest| {
        let origin = &latest.made.origin;
        format!("{}, {}", text::short(&origin.class_name), text::seed(&origin.spec))
    });
    let layout = app.layout();
    let (can_keep, is_kept) = (app.can_keep(), app.is_kept());
    egui::Panel::bottom("live").show_separator_line(false).show(ui, |ui| {
        ui.add_space(4.0);
        ui.horizontal(|ui| {
            let title = title.as_deref().filter(|_| layout == Layout::One);
            ui.label(RichText::new(title.unwrap_or("Live picture")).strong());
            let state = match (app.sketch.is_busy(), is_kept) {
                (true, _) => "in the making",
                _ if layout != Layout::One => "click a picture to see it alone",
                (false, true) => "kept",
                (false, false) => "not saved",
            };
            ui.label(RichText::new(state).weak());
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                for (of, name, tip) in [
                    (Layout::Strip, "Strip", "The way from the seed to a second one"),
                    (
                        Layout::Sheet,
                        "Sheet",
                        "Guidance scales below each other, seeds side by side",
                    ),
                ] {
                    let is_on = layout == of;
                    if ui.selectable_label(is_on, name).on_hover_text(tip).clicked() {
                        actions.push(Action::Layout(if is_on { Layout::One } else { of }));
                    }
                }
                let (name, is_able, tip, action) = match layout {
                    Layout::Sheet => return,
                    Layout::Strip => {
                        let tip = "Makes these pictures and adds them to the gallery";
                        ("Keep all", true, tip, Action::KeepStrip)
                    }
                    Layout::One => {
                        let tip = "Saves the picture and adds it to the gallery (Enter)";
                        ("Keep this picture", can_keep, tip, Action::Keep)
                    }
                };
                let keep = ui.add_enabled(is_able, egui::Button::new(name));
                if keep.on_hover_text(tip).clicked() {
                    actions.push(action);
                }
            });
        });
    });
    match layout {
        Layout::One => one(app, title.as_deref().unwrap_or_default(), ui),
        Layout::Sheet => several(app, SEEDS, of_sheet, ui, actions),
        Layout::Strip => several(app, STRIP, of_strip, ui, actions),
    }
}

/// The picture of the current settings.
fn one(app: &mut App, title: &str, ui: &mut egui::Ui) {
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
        let name = format!("{title}, live");
        egui::WidgetInfo::labeled(egui::accesskit::Role::Image, true, name)
    });
}

/// Pictures in so many columns. `of` names the one at a place, and says what a click on it does.
fn several(
    app: &mut App,
    columns: usize,
    of: fn(&Wish, usize) -> (String, Action),
    ui: &mut egui::Ui,
    actions: &mut Vec<Action>,
) {
    let wishes = app.wishes();
    let area = ui.available_rect_before_wrap().shrink(4.0);
    let rows = wishes.len().div_ceil(columns).max(1);
    let size = vec2(area.width() / columns as f32, area.height() / rows as f32);
    for (at, wish) in wishes.iter().enumerate() {
        let corner = vec2((at % columns) as f32 * size.x, (at / columns) as f32 * size.y);
        let cell = Rect::from_min_size(area.min + corner, size).shrink(3.0);
        let Some(texture) = app.sketch.texture_of(wish, ui.ctx()) else {
            ui.painter().rect_filled(cell, 4.0, ui.visuals().extreme_bg_color);
            continue;
        };
        let (name, action) = of(wish, at);
        let rect = fit(texture.size, cell);
        paint(ui, texture.id, rect);
        let response = ui.interact(rect, ui.scope_id().with(("several", at)), Sense::click());
        response
            .widget_info(|| egui::WidgetInfo::labeled(egui::accesskit::Role::Button, true, &name));
        picture::outline(ui, &response, rect);
        if response.on_hover_text(&name).clicked() {
            actions.push(action);
        }
    }
}

/// Of a sheet: a row for each guidance scale, a column for each seed.
fn of_sheet(wish: &Wish, at: usize) -> (String, Action) {
    let (seed, scale) = (wish.spec.seed, wish.settings.guidance.scale);
    let ahead = (at % SEEDS) as u64;
    (format!("Seed {seed}, guidance {scale:.2}"), Action::Take { ahead, scale })
}

/// Of a strip, whose ends are pictures of one seed.
fn of_strip(wish: &Wish, at: usize) -> (String, Action) {
    let end = if at == 0 { 0.0 } else { 1.0 };
    let amount = wish.spec.blend.map_or(end, |blend| blend.amount);
    (format!("Blend {amount:.2}"), Action::Blend(amount))
}
