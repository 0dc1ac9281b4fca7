//! One finished picture, large, with its settings beside it; or two side by side.

use eframe::egui::{self, Color32, Rect, RichText, Sense, Stroke, pos2, vec2};
use tintype::generate::Origin;
use tintype::settings::TimeGrid;

use super::{fit, paint};
use crate::action::{Action, View};
use crate::app::App;
use crate::dialogs::Purpose;
use crate::face::label;
use crate::gallery::{Entry, Size};
use crate::model;
use crate::options::given;
use crate::text;

/// What people call a picture.
pub fn title(entry: &Entry) -> String {
    match (&entry.origin, &entry.path) {
        (Some(origin), _) => {
            format!("{}, {}", text::short(&origin.class_name), text::seed(&origin.spec))
        }
        (None, Some(path)) => model::file_name(path),
        (None, None) => "picture".into(),
    }
}

/// The name that “Save as…” suggests.
pub fn file_name(entry: &Entry) -> String {
    match (&entry.path, &entry.origin) {
        (Some(path), _) => model::file_name(path),
        (None, Some(origin)) => format!("{}.png", origin.file_stem()),
        (None, None) => "picture.png".into(),
    }
}

/// Shows what the pointer or the keyboard is at.
pub fn outline(ui: &egui::Ui, response: &egui::Response, rect: Rect) {
    if response.hovered() || response.has_focus() {
        let stroke = Stroke::new(2.0, ui.visuals().selection.bg_fill);
        ui.painter().rect_stroke(rect, 3.0, stroke, egui::StrokeKind::Outside);
    }
}

/// The view of a picture in the gallery.
pub(super) fn show(app: &mut App, id: u64, ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    ui.horizontal(|ui| {
        if ui.button("Back").on_hover_text("To all pictures (Esc)").clicked() {
            actions.push(Action::Show(View::Gallery));
        }
        for (name, by, key) in [("Previous", -1, "←"), ("Next", 1, "→")] {
            let to = app.gallery.neighbour(id, by);
            let button = ui.add_enabled(to.is_some(), egui::Button::new(name));
            if let (true, Some(to)) = (button.on_hover_text(key).clicked(), to) {
                actions.push(Action::Show(View::Picture(to)));
            }
        }
    });
    app.gallery.forget_large(&[id]);
    large(app, id, ui, actions);
}

/// A picture over the space that there is, what it can be used for, and how it was made.
pub(super) fn large(app: &mut App, id: u64, ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    let Some(entry) = app.gallery.get(id) else {
        ui.label("The picture is gone.");
        return;
    };
    let (title, origin) = (title(entry), entry.origin.clone());
    let (trouble, name) = (entry.trouble.clone(), file_name(entry));
    let path = entry.path.clone();
    egui::Panel::bottom(("about", id)).show_separator_line(false).show(ui, |ui| {
        ui.add_space(4.0);
        wipe(app, id, ui);
        ui.horizontal_wrapped(|ui| {
            ui.label(RichText::new(&title).strong());
            buttons(app, id, origin.is_some(), name, ui, actions);
        });
        if let Some(origin) = &origin {
            ui.add(egui::Label::new(RichText::new(settings_line(origin)).weak()).wrap());
        }
        if let Some(path) = &path {
            let path = path.display().to_string();
            ui.add(egui::Label::new(RichText::new(&path).weak()).truncate()).on_hover_text(path);
        }
    });
    let area = ui.available_rect_before_wrap().shrink(4.0);
    let Some(texture) = app.gallery.texture(id, Size::Full, ui.ctx()) else {
        ui.centered_and_justified(|ui| match trouble {
            Some(trouble) => ui.label(trouble),
            None => ui.spinner(),
        });
        return;
    };
    let rect = fit(texture.size, area);
    paint(ui, texture.id, rect);
    let split = ui.data(|data| data.get_temp::<f32>(split_id(id))).unwrap_or(0.0);
    if let (true, Some(latent)) = (split > 0.0, app.gallery.latent(id, ui.ctx())) {
        let left =
            Rect::from_min_max(rect.min, pos2(rect.lerp_inside(vec2(split, 0.0)).x, rect.max.y));
        let uv = Rect::from_min_max(pos2(0.0, 0.0), pos2(split, 1.0));
        ui.painter().image(latent.id, left, uv, Color32::WHITE);
        ui.painter().vline(left.right(), left.y_range(), Stroke::new(1.0, Color32::WHITE));
    }
    let response = ui.interact(rect, ui.scope_id().with(("large", id)), Sense::hover());
    response.widget_info(|| egui::WidgetInfo::labeled(egui::accesskit::Role::Image, true, &title));
}

fn split_id(id: u64) -> egui::Id {
    egui::Id::unique(("split", id))
}

/// The slider between what the latent decodes to and the picture.
fn wipe(app: &App, id: u64, ui: &mut egui::Ui) {
    if app.gallery.get(id).is_none_or(|entry| entry.latent.is_none()) {
        return;
    }
    ui.horizontal(|ui| {
        let label = ui.label("Picture");
        let mut split = ui.data(|data| data.get_temp::<f32>(split_id(id))).unwrap_or(0.0);
        ui.spacing_mut().slider_width = (ui.available_width() - 110.0).max(60.0);
        let slider = egui::Slider::new(&mut split, 0.0..=1.0).show_value(false);
        let slider = ui.add(slider).labelled_by(label.id);
        slider.widget_info(|| {
            egui::WidgetInfo::slider(true, f64::from(split), "Compare with the decoded latent")
        });
        let tip = "Compare: on the left of the line what the autoencoder makes of the latent, on the \
                   right the picture with the pixels that the network added";
        if slider.on_hover_text(tip).changed() {
            ui.data_mut(|data| data.insert_temp(split_id(id), split));
        }
        ui.label("Decoded latent");
    });
}

fn buttons(
    app: &App,
    id: u64,
    has_origin: bool,
    name: String,
    ui: &mut egui::Ui,
    actions: &mut Vec<Action>,
) {
    let wishes = [
        (
            "Use settings",
            "Its class, seed and settings become the current ones",
            true,
            Action::UseSettings(id),
        ),
        ("Use seed", "Locks its seed for the next pictures", true, Action::UseSeed(id)),
        ("Another seed", "Makes it again with another seed", true, Action::OtherSeed(id)),
        (
            "Another class",
            "Keeps seed and settings and lets you pick a class",
            true,
            Action::OtherClass(id),
        ),
        ("Save as…", "Saves a copy (Ctrl+S)", false, Action::Ask(Purpose::SaveAs(id, name))),
        ("Copy", "Copies the picture (Ctrl+C)", false, Action::Copy(id)),
        ("Delete", "Deletes the picture; Ctrl+Z brings it back", false, Action::Delete(id)),
    ];
    for (text, tip, needs_origin, action) in wishes {
        let button = ui.add_enabled(has_origin || !needs_origin, egui::Button::new(text));
        let button = button.on_hover_text(tip);
        let button = button.on_disabled_hover_text("The file does not say how it was made");
        if button.clicked() {
            actions.push(action);
        }
    }
    let others: Vec<(u64, String)> = app
        .gallery
        .entries()
        .iter()
        .filter(|entry| entry.id != id)
        .take(30)
        .map(|entry| (entry.id, title(entry)))
        .collect();
    if !others.is_empty() {
        let menu = ui.menu_button("Compare with", |ui| {
            egui::ScrollArea::vertical().max_height(320.0).show(ui, |ui| {
                for (other, title) in &others {
                    if ui.button(title).clicked() {
                        actions.push(Action::Show(View::Compare(id, *other)));
                        ui.close();
                    }
                }
            });
        });
        menu.response.on_hover_text("Shows another picture beside it");
    }
}

/// How a picture was made, in a line.
fn settings_line(origin: &Origin) -> String {
    let settings = &origin.settings;
    let guidance = settings.guidance;
    let mut parts = vec![
        format!("class {}", text::short(&origin.class_name)),
        text::seed(&origin.spec),
        format!("{} steps", settings.steps),
        settings.sampler.name().into(),
        format!("guidance {}", guidance.scale),
    ];
    if guidance.low > 0.0 || guidance.high < 1.0 {
        parts.push(format!("from {} to {}", guidance.low, guidance.high));
    }
    if let Some(channels) = guidance.channels {
        parts.push(format!("on {channels} channels"));
    }
    if origin.weights.guide.is_some() {
        parts.push("by another network".into());
    }
    if settings.shift > 0.0 {
        parts.push(format!("time shift {}", settings.shift));
    }
    if settings.times != TimeGrid::Uniform {
        parts.push(format!("{} times", settings.times.name()));
    }
    for (option, value) in given(*settings) {
        parts.push(format!("{} {value}", label(option).to_lowercase()));
    }
    if let Some(tau) = settings.tau {
        parts.push(format!("τ {tau}"));
    }
    parts.push(format!("{} on {}", origin.precision, origin.device));
    parts.join(" · ")
}

/// Two pictures side by side.
pub(super) fn compare(app: &mut App, ids: [u64; 2], ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    ui.horizontal(|ui| {
        if ui.button("Back").on_hover_text("To all pictures (Esc)").clicked() {
            actions.push(Action::Show(View::Gallery));
        }
        if ui.button("Swap").on_hover_text("Left becomes right").clicked() {
            actions.push(Action::Show(View::Compare(ids[1], ids[0])));
        }
    });
    app.gallery.forget_large(&ids);
    let lines = ids.map(|id| {
        let entry = app.gallery.get(id);
        let line = entry.and_then(|entry| entry.origin.as_ref()).map(settings_line);
        let trouble = match entry {
            Some(entry) => entry.trouble.clone(),
            None => Some("The picture is gone.".into()),
        };
        (entry.map(title).unwrap_or_default(), line.unwrap_or_default(), trouble)
    });
    ui.columns(2, |columns| {
        for ((ui, id), (title, line, trouble)) in columns.iter_mut().zip(ids).zip(&lines) {
            ui.label(RichText::new(title).strong());
            let line = egui::Label::new(RichText::new(line).weak()).wrap();
            ui.add(line.halign(egui::Align::Min));
            let area = ui.available_rect_before_wrap().shrink(4.0);
            let Some(texture) = app.gallery.texture(id, Size::Full, ui.ctx()) else {
                match trouble {
                    Some(trouble) => ui.add(egui::Label::new(trouble).wrap()),
                    None => ui.spinner(),
                };
                continue;
            };
            let rect = fit(texture.size, area);
            paint(ui, texture.id, rect);
            let response = ui.interact(rect, ui.scope_id().with(("compare", id)), Sense::click());
            response.widget_info(|| {
                let name = format!("Show {title}");
                egui::WidgetInfo::labeled(egui::accesskit::Role::Button, true, name)
            });
            if response.clicked() {
                actions.push(Action::Show(View::Picture(id)));
            }
        }
    });
}
